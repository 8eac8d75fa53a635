"""Checkpoint -> ONNX graphs -> proof -> engines. Torch is imported by trace.py and parity.py alone."""
