"""A disk that loses what was not synced, at any operation: replaces `os` in `wire.files`.

    disk = SimulatedDisk(folder, cut_at=7, survives=...)      # the 7th operation from now is the last
    monkeypatch.setattr(files, "os", disk)                      # it raises PowerCut; the next start finds `survivors`

What was synced stays. Of a file's unsynced content anything may remain: the old content, a part of the new one, zeros.
Renames reach the disk in order, but any number of those since the folder's last fsync may be lost.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["PowerCut", "SimulatedDisk"]


class PowerCut(BaseException):
    """The process ends at once: no error handler sees it."""


class _File:
    def __init__(self, content: bytes) -> None:
        self.synced = self.cached = content


class SimulatedDisk:
    """The part of `os` that `wire.files` uses, over the files of one folder.

    survives: (how many) -> index, which of so many possible states the cut leaves; called once for each choice.
    """

    O_WRONLY, O_CREAT, O_TRUNC, O_RDONLY = os.O_WRONLY, os.O_CREAT, os.O_TRUNC, os.O_RDONLY

    def __init__(self, folder: Path, survives: Callable[[int], int], cut_at: int = -1, short: int = 0) -> None:
        self._folder, self._survives, self.cut_at, self._short = folder, survives, cut_at, short
        self._names = {path.name: _File(path.read_bytes()) for path in folder.iterdir() if path.is_file()}
        self._old_names = [dict(self._names)]  # since the folder's last fsync, oldest first
        self._open: dict[int, _File | None] = {}

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        self._tick()
        number = 1000 + len(self._open)
        if Path(path) == self._folder:
            self._open[number] = None
            return number
        file = self._names.setdefault(Path(path).name, _File(b""))
        if flags & self.O_TRUNC:
            file.cached = b""
        self._open[number] = file
        return number

    def write(self, number: int, data: bytes | memoryview) -> int:
        self._tick()
        file = self._open[number]
        assert file is not None
        length = min(len(data), self._short or len(data))
        file.cached += bytes(data[:length])
        return length

    def fsync(self, number: int) -> None:
        self._tick()
        file = self._open[number]
        if file is None:
            self._old_names = [dict(self._names)]
        else:
            file.synced = file.cached

    def replace(self, old: Path, new: Path) -> None:
        self._tick()
        self._names[Path(new).name] = self._names.pop(Path(old).name)
        self._old_names.append(dict(self._names))
        self._show()

    def close(self, number: int) -> None:
        self._open[number] = None

    def _tick(self) -> None:
        if self.cut_at == 0:
            self._lose()
            raise PowerCut
        self.cut_at -= 1

    def _show(self) -> None:
        """Write what a process that reads now would see: everything, synced or not."""
        for name, file in self._names.items():
            (self._folder / name).write_bytes(file.cached)

    def _lose(self) -> None:
        """Leave on the real disk what the power cut leaves."""
        names = self._old_names[self._survives(len(self._old_names))]
        for path in self._folder.iterdir():
            if path.is_file() and path.name not in names:
                path.unlink()
        for name, file in names.items():
            left = [file.synced]
            if file.cached != file.synced:
                left += [file.cached[: len(file.cached) // 2], file.cached, bytes(len(file.cached)), b""]
            (self._folder / name).write_bytes(left[self._survives(len(left))])
