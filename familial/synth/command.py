"""What the renderer's commands share: arguments, and writing many clips into a folder."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from familial.synth.disk import Row, save_all

__all__ = ["folder_parser", "frame_size", "write_folder"]

_Task = TypeVar("_Task")


def folder_parser(module: str, description: str, clips: int) -> argparse.ArgumentParser:
    """A parser of `python -m module` with the arguments of every command that writes clips into a folder."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("--out", type=Path, required=True, help="folder for mp4 files and manifest.csv; goes on there")
    parser.add_argument("--clips", type=int, default=clips)
    parser.add_argument("--seed", type=int, default=0, help="the first clip's seed")
    parser.add_argument("--size", default="120x160", help="HxW")
    parser.add_argument("--workers", type=int, default=2)
    return parser


def frame_size(text: str) -> tuple[int, int]:
    """(H, W) of "HxW"."""
    height, width = (int(v) for v in text.split("x"))
    return height, width


def write_folder(make: Callable[[_Task], Row], tasks: Sequence[_Task], args: argparse.Namespace) -> None:
    """`make` every task's clip in the folder that `args` names, and write its manifest. Raises DataError."""
    args.out.mkdir(parents=True, exist_ok=True)
    save_all(make, tasks, args.out, args.workers)
