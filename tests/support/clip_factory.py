"""Synthetic clips on disk: a square that stays, falls or shakes, and their manifest."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from familial.data.clips import fill_cache, read_clip
from tests.support.defaults import set_defaults

__all__ = ["LABELS", "cache_clips_in", "write_clips"]

LABELS = ("normal", "fall", "fight")


def write_clips(folder: Path) -> Path:
    """Write nine clips of 2, 4 and 10 s into `folder`, and manifest.csv; return the manifest's path."""
    rows = ["file,label,set,group,note"]
    for index in range(9):
        label = LABELS[index % 3]
        seconds = (2, 4, 10)[index // 3]
        writer = cv2.VideoWriter(str(folder / f"{index}.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 64))
        for t in range(seconds * 10):
            picture = np.full((64, 64, 3), 90, np.uint8)
            y = 8 + (min(40, 4 * max(0, t - seconds * 5)) if label == "fall" else 0)
            x = 20 + (10 * (t % 2) if label == "fight" else 0)
            picture[y : y + 14, x : x + 10] = 220
            writer.write(picture)
        writer.release()
        rows.append(f"{index}.mp4,{label},made,g{index},")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder / "manifest.csv"


def cache_clips_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clips be cached in `folder` where the caller names no cache."""
    set_defaults(monkeypatch, read_clip, cache=folder)
    set_defaults(monkeypatch, fill_cache, cache=folder)
