"""Frames for the person network: rendered ones, and frames of real clips, which stay in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from familial.data.clips import read_manifests
from familial.data.labels import LABELS
from familial.data.people import fitted
from familial.data.splits import clip_seeds
from familial.synth.clip import render_clip
from wire.errors import DataError
from wire.people.decode import MOST_ENLARGED

__all__ = ["Frame", "real_frames", "rendered_frames", "spread"]

Frame = npt.NDArray[np.uint8]
"""uint8 (H, W, 3) RGB, as the network reads it."""


def rendered_frames(count: int, size: tuple[int, int], seeds: str = "engines") -> list[Frame]:
    """`count` frames of rendered clips, four of each; seeds: a range of `familial.data.splits`."""
    frames: list[Frame] = []
    for clip_seed in clip_seeds(seeds, -(-count // 4)):
        clip = render_clip(clip_seed, size=size, fps=1.0, seconds=8.0)
        frames += [fitted(clip.frames[index], size, MOST_ENLARGED) for index in (1, 3, 5, 7)]
    return frames[:count]


def real_frames(manifests: Sequence[Path], per_clip: int, size: tuple[int, int]) -> Iterator[tuple[str, Frame]]:
    """(set, frame) for `per_clip` frames of every clip, evenly spread over it."""
    for clip in read_manifests(manifests, LABELS):
        for picture in spread(clip.file, per_clip):
            yield clip.set, fitted(picture, size, MOST_ENLARGED)


def spread(file: Path, count: int) -> list[Frame]:
    """`count` BGR pictures of a video, evenly spread. Raises DataError where it cannot be read."""
    video = cv2.VideoCapture(str(file))
    try:
        length = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        wanted = {int((index + 0.5) * length / count) for index in range(count)}
        pictures: list[Frame] = []
        for index in range(length):
            if not video.grab():
                break
            if index in wanted:
                pictures.append(np.asarray(video.retrieve()[1], np.uint8))
    finally:
        video.release()
    if not pictures:
        raise DataError(f"{file}: no frame of it can be read; re-encode it, or leave it out of the manifest")
    return pictures
