"""Which tests may run at the same time: those that measure time have the machine for themselves.

a test --turnstile, in the order of coming--> the machine: shared with others, or alone
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["turn"]

_FOLDER = Path(tempfile.gettempdir()) / f"veilsight-tests-{os.getuid()}"  # of all test runs on this machine


@contextlib.contextmanager
def turn(alone: bool) -> Iterator[None]:
    """Wait for the machine, and hold it for the length of the block.

    Whoever waits to be alone stands in the turnstile meanwhile: those who come later wait behind it, and those who are
    there leave one by one.

    Args:
        alone: Wait until no other test runs, and let none begin; else run beside all that are not alone.
    """
    _FOLDER.mkdir(mode=0o700, exist_ok=True)
    with (_FOLDER / "turnstile.lock").open("w") as turnstile, (_FOLDER / "machine.lock").open("w") as machine:
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        fcntl.flock(machine, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(turnstile, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(machine, fcntl.LOCK_UN)  # a forked child may still have the file open
