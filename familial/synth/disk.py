"""Rendered clips on disk: mp4, if asked all that is known of each in an .npz beside it, and a manifest.

    tasks --make--> rows of the manifest (files are written whole or not at all) --> manifest.csv

Errors are DataError and name the file and the cure.
"""

from __future__ import annotations

import csv
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from familial.synth.rendered_clip import RenderedClip
from wire.errors import DataError
from wire.files import whole_file

__all__ = ["Row", "save_all", "save_manifest", "save_truth", "save_video"]

_Task = TypeVar("_Task")

Row = dict[str, str]
"""A row of a manifest: file, label, set, group, note."""

_COLUMNS = ["file", "label", "set", "group", "note", "onset_s"]
_CURE = "free some space there, or choose another folder, and run the same command again: finished files are kept"


def save_video(path: Path, frames: Iterable[NDArray[np.uint8]], fps: float) -> None:
    """Write frames (H, W, 3) BGR as mp4, all of them or no file.

    Raises:
        DataError: They could not all be written.
    """
    with whole_file(path) as partial:
        _write_video(partial, path, frames, fps)


def _write_video(partial: Path, path: Path, frames: Iterable[NDArray[np.uint8]], fps: float) -> None:
    rest = iter(frames)
    first = next(rest)
    height, width = first.shape[:2]
    film = cv2.VideoWriter(str(partial), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
    if not film.isOpened():
        raise DataError(f"{partial} could not be opened for writing: check the folder and OpenCV's mp4v encoder")
    count = 0
    try:
        for frame in itertools.chain([first], rest):
            film.write(frame)
            count += 1
    finally:
        film.release()
    # OpenCV does not say when a disk is full: what was written is counted
    capture = cv2.VideoCapture(str(partial))
    written = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    capture.release()
    if written < count:
        raise DataError(f"{path}: {written} of {count} frames were written, as on a full disk; {_CURE}")


def save_truth(path: Path, clip: RenderedClip) -> None:
    """Write what is known of a clip as .npz, whole or not at all.

    Arrays are those of RenderedClip; `described` is JSON: label, caption, annotations, lying_s, tags.

    Raises:
        DataError: The file could not be written.
    """
    described = {
        "label": clip.label,
        "caption": clip.caption,
        "annotations": [asdict(a) for a in clip.annotations],
        "lying_s": clip.lying_s,
        "tags": [asdict(t) for t in clip.tags],
    }
    try:
        with whole_file(path) as partial, partial.open("wb") as file:
            np.savez_compressed(
                file,
                times_s=clip.times_s,
                silhouettes=clip.silhouettes,
                keypoints=clip.keypoints,
                identities=clip.identities,
                count=clip.count,
                described=np.array(json.dumps(described)),
            )
    except OSError as error:
        raise DataError(f"{path}: could not be written ({error}); {_CURE}") from error


def save_manifest(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as a clip manifest, whole or not at all; `onset_s` is left out where no row has it.

    Raises:
        DataError: The file could not be written.
    """
    columns = [name for name in _COLUMNS if name != "onset_s" or any(row.get(name) for row in rows)]
    try:
        with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
            table.writeheader()
            table.writerows(rows)
    except OSError as error:
        raise DataError(f"{path}: could not be written ({error}); {_CURE}") from error


def save_all(make: Callable[[_Task], Row], tasks: Sequence[_Task], folder: Path, workers: int) -> None:
    """Call `make` for every task in `workers` processes, with a progress bar, and write the folder's manifest."""
    rows: list[Row] = []
    # new processes: a forked one would wait for OpenCV's threads, which it does not have
    with get_context("spawn").Pool(workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        for row in pool.imap(make, tasks, chunksize=4):
            rows.append(row)
            done = 30 * len(rows) // len(tasks)
            bar = "#" * done + "." * (30 - done)
            print(f"\r[{bar}] {len(rows)}/{len(tasks)} clips", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    save_manifest(folder / "manifest.csv", rows)
