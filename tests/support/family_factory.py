"""A small untrained family whose codes fill the ball, as a checkpoint with its noise and as graphs.

Tests take both from the fixtures of conftest.py, which make them once in a test run.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx
import torch

from calibration.noise import main as choose_noise
from export import trace
from familial.model.checkpoint import save
from familial.model.config import FamilyConfig, nano
from familial.model.family import Family
from familial.model.vocabulary import Vocabulary
from familial.train.attributes import with_attributes

__all__ = ["load_graphs", "make_checkpoint", "make_family", "make_graphs", "small_config"]


def small_config() -> FamilyConfig:
    """Frames of 32 x 32, two convolutions, two blocks of width 32."""
    config = nano(Vocabulary.of_captions(["a person falls and lies"], ("normal", "fall", "fight")).words)
    window = dataclasses.replace(config.window, height=32, width=32)
    return dataclasses.replace(config, window=window, channels=(8, 16), hidden=32, layers=2, heads=2, mlp=32)


def make_family(sees_people: bool = False, seed: int = 0) -> Family:
    """An untrained family of `small_config`, its desensitizer scaled so that codes reach the edge of the ball.

    Args:
        sees_people: its tower is the fused one, with a people tower of width 16; its codes say the sum of both towers'
            logits, with attributes beside it, and it reads their plane alone.
        seed: of its weights.
    """
    torch.manual_seed(seed)
    config = small_config()
    if sees_people:
        config = dataclasses.replace(with_attributes(config), tower="fused", people_width=16, adapter="plane")
        config = dataclasses.replace(config, code_gain=4.0, code_bias=(0.0, -1.0, 1.0), late_fusion=(0.7, 1.0, 3.0))
    family = Family(config)
    with torch.no_grad():
        family.desensitizer.outer.weight *= 400
    return family.eval()


def make_checkpoint(folder: Path, sees_people: bool = False) -> Path:
    """Write `make_family(sees_people)` and the noise of profile balanced into `folder`."""
    save(make_family(sees_people), folder)
    assert choose_noise(["--checkpoint", str(folder), "--target", "balanced"]) == 0
    return folder


def make_graphs(checkpoint: Path, folder: Path) -> None:
    """Trace both graphs of `checkpoint` into `folder`."""
    folder.mkdir()
    family = trace.load_family(checkpoint)
    onnx.save(trace.trace_encode(family), folder / "encode.onnx")
    onnx.save(trace.trace_decide(family), folder / "decide.onnx")


def load_graphs(folder: Path) -> dict[str, onnx.ModelProto]:
    """What `make_graphs` left in `folder`: part -> graph, the caller's own."""
    return {part: onnx.load(folder / f"{part}.onnx") for part in ("encode", "decide")}
