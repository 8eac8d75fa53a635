"""A small disk for the device's state: ext4 in a file, which can be filled, and which can fail and become read-only."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from wire.errors import VeilsightError

__all__ = ["SmallDisk"]

_KILOBYTES = 2048
_BUSY_S = 10.0
_PLACES = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin"


class SmallDisk:
    """A mounted folder, as a context manager.

    Raises:
        OSError: It cannot be made here: that needs root, loop devices and mkfs.ext4.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._image = folder, folder.with_suffix(".img")
        if os.geteuid():
            raise PermissionError("mounting a disk needs root")
        folder.mkdir(mode=0o700)
        with self._image.open("wb") as file:
            file.truncate(_KILOBYTES << 10)
        _run("mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", str(self._image))
        self._mount()
        shutil.rmtree(folder / "lost+found")

    def fill(self, wait: Callable[[], None]) -> None:
        """Nothing can be written any more, until `wait` returns."""
        filler = self.folder / "filler"
        with suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(1024))
                file.flush()
        wait()
        filler.unlink()

    def fail(self) -> None:
        """The kernel makes it read-only at once, as after an error of the medium, whatever is open there."""
        _run("mount", "-o", "remount,abort", str(self.folder))

    def repair(self) -> None:
        """Check it and mount it again; nobody may have a file open there. Raises VeilsightError where one has."""
        self._unmount()
        _run("e2fsck", "-p", str(self._image), good=(0, 1))
        self._mount()

    def _mount(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self.folder))
        self.folder.chmod(0o700)

    def _unmount(self) -> None:
        until = time.monotonic() + _BUSY_S
        while True:
            try:
                return _run("umount", str(self.folder))
            except OSError as error:
                if time.monotonic() > until:
                    raise VeilsightError(f"{self.folder}: {error}; a process of the device outlived it") from error
                time.sleep(0.1)

    def __enter__(self) -> SmallDisk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unmount()


def _run(program: str, *words: str, good: tuple[int, ...] = (0,)) -> None:
    """Run a program of the system. Raises OSError with what it said where it is missing or fails."""
    found = shutil.which(program, path=_PLACES)
    if found is None:
        raise FileNotFoundError(f"{program} is not installed")
    done = subprocess.run([found, *words], capture_output=True, text=True, check=False)
    if done.returncode not in good:
        raise OSError(f"{program}: {(done.stderr or done.stdout).strip()}")
