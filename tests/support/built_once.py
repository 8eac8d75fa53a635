"""Folders that take seconds to make and that many tests read: made once for all processes of a test run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

__all__ = ["built_once", "exclusive", "run_folder"]


def run_folder(factory: pytest.TempPathFactory) -> Path:
    """The folder of this test run, the same in every worker of pytest-xdist."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "built-once"
    folder.mkdir(exist_ok=True)
    return folder


@contextlib.contextmanager
def exclusive(file: Path) -> Iterator[None]:
    """Hold `file` locked for the length of the block: no other process is in such a block meanwhile."""
    with file.open("w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield


def built_once(folder: Path, build: Callable[[Path], object]) -> Path:
    """`folder`, filled by `build` in the process that comes first; the others wait. Read it, never write there."""
    with exclusive(folder.with_name(f"{folder.name}.lock")):
        if not folder.exists():
            making = folder.with_name(f"{folder.name}.making")
            shutil.rmtree(making, ignore_errors=True)
            build(making)
            making.rename(folder)
    return folder
