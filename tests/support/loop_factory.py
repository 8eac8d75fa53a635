"""A small engine and a small untrained checkpoint that belong together, and small clips: the whole loop in seconds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from familial.model import checkpoint
from familial.model.config import FamilyConfig
from familial.model.family import Family
from tests.support.engine_factory import make_engine

__all__ = ["SLOT_S", "a_clip", "make_pair"]

SLOT_S = 0.25


def make_pair(folder: Path) -> tuple[Path, Path]:
    """(engine, checkpoint) in `folder`; slots of SLOT_S seconds."""
    made = make_engine(folder / "engine", slot_s=SLOT_S)
    words = ("<pad>", "<end>", *(f"<{label}>" for label in made.labels), "a", "person", "walks")
    config = FamilyConfig(
        made.window, words, labels=made.labels, channels=(4, 4, 4, 4, 4, 4), hidden=32, layers=2, heads=2, mlp=32
    )
    checkpoint.save(Family(config), folder / "checkpoint")
    hashes = {**made.hashes, "checkpoint": checkpoint.checkpoint_hash(folder / "checkpoint")}
    dataclasses.replace(made, hashes=hashes).save(folder / "engine")
    return folder / "engine", folder / "checkpoint"


def a_clip(path: Path, seconds: float) -> Path:
    """A square that crosses a noisy picture, 20 frames a second."""
    rng = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 20.0, (64, 48))
    for index in range(round(seconds * 20)):
        frame = rng.integers(0, 40, (48, 64, 3), np.uint8)
        frame[10:30, index % 40 : index % 40 + 20] = 220
        writer.write(frame)
    writer.release()
    return path
