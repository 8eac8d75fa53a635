"""Random Qwen3-VL folders as transformers saves them, and families sized like them, small enough for a test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
)

from familial.model import adopt
from familial.model.config import FamilyConfig, VisionSpec, nano
from wire.artifact.manifest import WindowSpec

__all__ = [
    "WORDS",
    "a_base",
    "a_base_model",
    "a_tokenizer",
    "adopted_family",
    "base_config",
    "experts_config",
    "processor_pixels",
    "qwen_family_config",
]

WORDS = ("<pad>", "<end>", "<normal>", "<fall>", "<fight>", "a", "falls", "happens", "nothing", "person", "unusual")


def base_config(**text: Any) -> Qwen3VLConfig:
    """A tiny geometry in which no two sizes are equal by chance; DeepStack on, as bases have it."""
    sizes = {
        "vocab_size": 300,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5e6,
            "mrope_section": [4, 2, 2],
            "mrope_interleaved": True,
        },
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 56,
        "num_heads": 2,
        "out_hidden_size": 48,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    config = Qwen3VLConfig(
        text_config=sizes | text,
        vision_config=vision,
        image_token_id=290,
        video_token_id=291,
        vision_start_token_id=292,
        vision_end_token_id=293,
        tie_word_embeddings=False,
    )
    config._attn_implementation = "eager"
    return config


def experts_config(**text: Any) -> Qwen3VLMoeConfig:
    """`base_config` with six experts in every block, two of which compute a token."""
    dense = base_config().to_dict()
    names = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
    names += ["num_key_value_heads", "head_dim", "max_position_embeddings", "rope_parameters"]
    sizes = {name: dense["text_config"][name] for name in names}
    experts = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
    vision = {name: value for name, value in dense["vision_config"].items() if name != "model_type"}
    ids = {name: dense[name] for name in dense if name.endswith("token_id")}
    config = Qwen3VLMoeConfig(
        text_config=sizes | experts | text, vision_config=vision, tie_word_embeddings=False, **ids
    )
    config._attn_implementation = "eager"
    return config


def a_base_model(config: Qwen3VLConfig | Qwen3VLMoeConfig | None = None) -> Any:
    """The random model, float32, every weight of a size at which rounding would show; norms and biases too."""
    torch.manual_seed(0)
    config = config or base_config()
    model = _model_class(config)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def a_tokenizer(*special: str) -> Any:
    """Bytes as letters, " f" and " a" as pieces (ids 256 and 257), then the special tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = {letter: index for index, letter in enumerate(letters)} | {"Ġf": 256, "Ġa": 257}
    tokenizer = Tokenizer(models.BPE(vocab=pieces, merges=[("Ġ", "f"), ("Ġ", "a")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def _model_class(config: Any) -> Any:
    return Qwen3VLMoeForConditionalGeneration if "moe" in config.model_type else Qwen3VLForConditionalGeneration


def a_base(folder: Path, shard: str = "5GB", config: Qwen3VLConfig | Qwen3VLMoeConfig | None = None) -> Any:
    """Save a random bf16 model; returns it as transformers loads it again, in float32."""
    a_base_model(config).to(torch.bfloat16).save_pretrained(folder, max_shard_size=shard)
    model = _model_class(config or base_config()).from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )
    return model.eval()


def qwen_family_config(layers: int = 3, size: int = 64, **changes: Any) -> FamilyConfig:
    """A family with the tower and the blocks of `base_config`."""
    window = WindowSpec(size, size, 0.5, 4, 4, 0.25, 0.5)
    vision = VisionSpec(depth=2, hidden=32, mlp=56, heads=2, out=48, positions=16)
    made = replace(nano(WORDS), window=window, tower="qwen", vision=vision, hidden=48, layers=layers, heads=4)
    return replace(made, **{"kv_heads": 2, "head_dim": 16, "mlp": 80, "rope_theta": 5e6, **changes})


def processor_pixels(frames: torch.Tensor, vision: VisionSpec) -> tuple[torch.Tensor, torch.Tensor]:
    """What Qwen's processor makes of grey frames u8 (F, H, W) as a video: pixel rows (N, 3*2*16*16) and grid (1, 3).

    Written out from the processor's definition: three equal colours, scaled, cut into patches in merge order.
    """
    count, height, width = frames.shape
    colours = frames[:, None].expand(-1, 3, -1, -1).float() / 255.0
    mean, std = (torch.tensor(values)[None, :, None, None] for values in (vision.mean, vision.std))
    patch, merge, steps = vision.patch, vision.merge, count // vision.temporal
    rows, columns = height // patch, width // patch
    cut = ((colours - mean) / std).reshape(
        steps, vision.temporal, 3, rows // merge, merge, patch, columns // merge, merge, patch
    )
    pixels = cut.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(steps * rows * columns, -1)
    return pixels, torch.tensor([[steps, rows, columns]])


def adopted_family(folder: Path, config: Any = None, exit_at: int = 2) -> Path:
    """Save a random base in `folder` and adopt it, the edge's last block a branch; return the checkpoint."""
    a_base(folder / "base", config=config)
    (folder / "like").mkdir()
    qwen_family_config().save(folder / "like" / "config.json")
    command = ["--base", str(folder / "base"), "--like", str(folder / "like"), "--exit-block", "branch"]
    assert adopt.main([*command, "--exit-at", str(exit_at), "--out", str(folder / "family")]) == 0
    return folder / "family"
