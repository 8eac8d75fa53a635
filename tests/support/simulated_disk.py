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

    O_WRONLY, O_CREAT, O_EXCL, O_RDONLY = os.O_WRONLY, os.O_CREAT, os.O_EXCL, os.O_RDONLY
    O_NOFOLLOW, O_NONBLOCK, path = os.O_NOFOLLOW, os.O_NONBLOCK, os.path

    def __init__(self, folder: Path, survives: Callable[[int], int], cut_at: int = -1, short: int = 0) -> None:
        self._folder, self._survives, self.cut_at, self._short = folder, survives, cut_at, short
        self._names = {path.name: _File(path.read_bytes()) for path in folder.iterdir() if path.is_file()}
        self._old_names = [dict(self._names)]  # since the folder's last fsync, oldest first
        self._known = set(self._names)
        self._open: dict[int, _File | None] = {}

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        """To write a file or to sync the folder. A file is read from the real disk, which shows everything."""
        if not flags & self.O_CREAT and Path(path) != self._folder:
            return os.open(path, flags)
        self._tick()
        number = 100_000 + len(self._open)
        if Path(path) == self._folder:
            self._open[number] = None
            return number
        if Path(path).name in self._names:
            raise FileExistsError(path)
        self._known.add(Path(path).name)
        self._open[number] = self._names[Path(path).name] = _File(b"")
        self._old_names.append(dict(self._names))
        return number

    def read(self, number: int, length: int) -> bytes:
        return os.read(number, length)

    def fstat(self, number: int) -> os.stat_result:
        return os.fstat(number)

    def unlink(self, path: Path) -> None:
        self._tick()
        if Path(path).name not in self._names:
            raise FileNotFoundError(path)
        del self._names[Path(path).name]
        self._old_names.append(dict(self._names))
        self._show()

    def link(self, old: Path, new: Path) -> None:
        self._tick()
        if Path(new).name in self._names:
            raise FileExistsError(new)
        self._known.add(Path(new).name)
        self._names[Path(new).name] = self._names[Path(old).name]
        self._old_names.append(dict(self._names))
        self._show()

    def write(self, number: int, data: bytes | memoryview) -> int:
        self._tick()
        file = self._open[number]
        assert file is not None
        length = min(len(data), self._short or len(data))
        file.cached += bytes(data[:length])
        return length

    def fsync(self, number: int) -> None:
        if number not in self._open:
            return os.fsync(number)
        self._tick()
        file = self._open[number]
        if file is None:
            self._old_names = [dict(self._names)]
        else:
            file.synced = file.cached

    def replace(self, old: Path, new: Path) -> None:
        self._tick()
        self._known.add(Path(new).name)
        self._names[Path(new).name] = self._names.pop(Path(old).name)
        self._old_names.append(dict(self._names))
        self._show()

    def close(self, number: int) -> None:
        if number in self._open:
            self._open[number] = None
        else:
            os.close(number)

    def _tick(self) -> None:
        if self.cut_at == 0:
            self._lose()
            raise PowerCut
        self.cut_at -= 1

    def _show(self) -> None:
        """Write what a process that reads now would see: everything, synced or not."""
        self._put({name: file.cached for name, file in self._names.items()})

    def _lose(self) -> None:
        """Leave on the real disk what the power cut leaves."""
        names = self._old_names[self._survives(len(self._old_names))]
        made = {}
        for name, file in names.items():
            left = [file.synced]
            if file.cached != file.synced:
                left += [file.cached[: len(file.cached) // 2], file.cached, bytes(len(file.cached)), b""]
            made[name] = left[self._survives(len(left))]
        self._put(made)

    def _put(self, files: dict[str, bytes]) -> None:
        """Make the real folder hold exactly `files`, which are their owner's alone."""
        for path in self._folder.iterdir():
            if path.name in self._known - files.keys():
                path.unlink()
        for name, content in files.items():
            (self._folder / name).write_bytes(content)
            (self._folder / name).chmod(0o600)
