"""Rendered clips on disk: mp4, if asked all that is known of each in an .npz beside it, and a manifest.

    tasks --make--> rows of the manifest (files written whole or not at all, kept when there) --> manifest.csv

Nothing here knows what a clip shows. Errors are DataError and name the file and the cure.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from wire.errors import DataError

if TYPE_CHECKING:
    from familial.synth.clip import RenderedClip

__all__ = ["Row", "save_all", "save_manifest", "save_truth", "save_video"]

_Task = TypeVar("_Task")
Row = dict[str, str]  # of a manifest: file, label, set, group, note

_COLUMNS = ["file", "label", "set", "group", "note", "onset_s"]
_ROOM = "free some space there, or choose another folder, and run the same command again: what is done is kept"


def save_video(path: Path, frames: Iterable[NDArray[np.uint8]], fps: float) -> None:
    """Write frames (H, W, 3) BGR as mp4, in one move. Raises DataError where they could not all be written."""
    partial = path.with_name(f".{os.getpid()}.{path.name}")
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
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        film.release()
    # OpenCV does not say when a disk is full: what was written is counted
    capture = cv2.VideoCapture(str(partial))
    written = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    capture.release()
    if written < count:
        partial.unlink(missing_ok=True)
        raise DataError(f"{path}: {written} of {count} frames were written, as on a full disk; {_ROOM}")
    partial.replace(path)


def save_truth(path: Path, clip: RenderedClip) -> None:
    """Write what is known of a clip as .npz, in one move.

    Arrays as in RenderedClip; `told` is JSON: label, caption, annotations, lying_s, tags.
    """
    told = {
        "label": clip.label,
        "caption": clip.caption,
        "annotations": [asdict(h) for h in clip.annotations],
        "lying_s": clip.lying_s,
        "tags": [asdict(t) for t in clip.tags],
    }
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with partial.open("wb") as file:
            np.savez_compressed(
                file,
                times_s=clip.times_s,
                silhouettes=clip.silhouettes,
                keypoints=clip.keypoints,
                identities=clip.identities,
                count=clip.count,
                told=np.array(json.dumps(told)),
            )
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"{path}: could not be written ({error}); {_ROOM}") from error


def save_manifest(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as a clip manifest, in one move; a column nobody fills is left out."""
    columns = [name for name in _COLUMNS if name != "onset_s" or any(row.get(name) for row in rows)]
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with partial.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
            table.writeheader()
            table.writerows(rows)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"{path}: could not be written ({error}); {_ROOM}") from error


def save_all(make: Callable[[_Task], Row], tasks: Sequence[_Task], folder: Path, workers: int) -> None:
    """`make` every task's clip in `workers` processes, with a progress bar, and write the folder's manifest."""
    rows: list[Row] = []
    # fresh processes: a forked one would wait for OpenCV's threads, which a fork leaves behind
    with get_context("spawn").Pool(workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        for row in pool.imap(make, tasks, chunksize=4):
            rows.append(row)
            done = 30 * len(rows) // len(tasks)
            bar = "#" * done + "." * (30 - done)
            print(f"\r[{bar}] {len(rows)}/{len(tasks)} clips", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    save_manifest(folder / "manifest.csv", rows)
