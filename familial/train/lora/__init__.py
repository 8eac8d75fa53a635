"""Training an adopted Qwen3-VL by LoRA, in one process or in several."""
