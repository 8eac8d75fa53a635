"""The files of the outbox: one folder, one file being written at its end, the older ones read from their beginning.

    append --> newest file          read <-- oldest file with something left          drop, forget: whole files

A file that was open when the process or the power ended is never written to again: the next start begins a new one.
What cannot be read is moved aside as `damaged`, one file at most, and what follows is read on. Nothing waits for the
disk but a thread of its own: `sync` makes durable what was written, and a power cut loses what came after the last one.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.uplink.segment import (
    HEADER_BYTES,
    KINDS,
    MOST,
    Header,
    Mark,
    Record,
    Stamp,
    pack_header,
    pack_mark,
    pack_record,
    parse,
    parse_header,
)
from wire.files import make_folder

__all__ = ["Shelf"]

log = logging.getLogger("veilsight.outbox")
_FILE_BYTES = 1 << 20  # a file is not made longer
_PARTS = 8  # of the bounds: what is dropped at once is at most one of so many
_SMALL = 1 << 16  # likewise while all that is in it is delivered
_CHUNK = 1 << 16
_CLOSE_S = 0.5
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW


@dataclass(eq=False)
class _File:
    path: Path
    header: Header
    size: int
    damaged: bool = False


class _Reader:
    """Reads one file in order, also while it grows."""

    def __init__(self, file: _File) -> None:
        self.file, self.number, self._at, self._data = file, file.header.first, 0, b""
        self._offset = HEADER_BYTES  # in the file, of what follows `_data`
        self._descriptor = os.open(file.path, _READ)

    def next(self) -> Record | Mark | None:
        """What follows; None where nothing intact does. `number` is then that of what could not be read."""
        while (found := parse(self._data, self._at, self.number)) is None:
            if len(self._data) - self._at >= MOST or not self._read_on():
                return None
        content, self._at = found
        self.number += isinstance(content, Record)
        return content

    @property
    def at_end(self) -> bool:
        """Whether nothing is left in the file, readable or not."""
        return self._at == len(self._data) and not self._read_on()

    def close(self) -> None:
        os.close(self._descriptor)

    def _read_on(self) -> bool:
        more = os.pread(self._descriptor, _CHUNK, self._offset)
        self._data, self._at = self._data[self._at :] + more, 0
        self._offset += len(more)
        return bool(more)


class Shelf:
    """An open folder of messages; only one process has it.

    Attributes:
        next: The number that would follow the last message on disk.
        mark: How far delivery had come when the folder was left, and how many messages were lost until then.
        damaged: Messages, or files of which not even that is known, that could not be read.

    Raises:
        OSError: The folder cannot be made or read, or another process has it.
    """

    def __init__(self, folder: Path, most_bytes: int, most_s: float, now: Callable[[], Stamp], run: bytes) -> None:
        self._folder, self._now, self._run = folder, now, run
        self._most, self._bytes_each = most_bytes, max(4096, min(_FILE_BYTES, most_bytes // _PARTS))
        self._seconds_each = most_s / _PARTS
        self._files: list[_File] = []
        self._writing = -1  # descriptor of the last file
        self._reader: _Reader | None = None
        self._syncing: threading.Thread | None = None
        self.next, self.mark, self.damaged = 0, Mark(0, 0), 0
        make_folder(folder)
        self._lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._find()
        except OSError:
            os.close(self._lock)
            raise
        self._noted = self.mark

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self._files)

    @property
    def span(self) -> tuple[int, int, int]:
        """Of the oldest file: its first number, the one after its last, and the first of the next file."""
        file, after = self._files[0], self._end(0)
        return file.header.first, after, self._files[1].header.first if len(self._files) > 1 else after

    @property
    def droppable(self) -> bool:
        """Whether there is a file beside the one that is being written."""
        return len(self._files) > (self._writing >= 0)

    def too_long(self, more: int) -> bool:
        """Whether the bound on bytes does not allow `more`."""
        return self.size + more > self._most

    def age(self, age_of: Callable[[Stamp, bytes], float]) -> float:
        """Of the newest message of the oldest file: at least so many seconds, by (instant, run) -> its age; or 0."""
        after = self._files[1].header if len(self._files) > 1 else None
        return age_of(after.made, after.run) if after else 0.0

    def run_of(self, number: int) -> bytes:
        """Names the run of the system in which a message was written."""
        return next((file.header.run for file in reversed(self._files) if file.header.first <= number), self._run)

    def waiting(self, settled: int) -> int:
        """Messages on disk that are not delivered."""
        headers = [file.header for file in self._files]  # the local page asks from its own thread
        ends = [*(header.after for header in headers[1:]), self.next]
        return sum(max(0, end - max(each.first, settled)) for each, end in zip(headers, ends, strict=False))

    # --- writing

    def append(self, number: int, record: Record, mark: Mark) -> None:
        """Write message `number`, and the mark where it has changed. Raises OSError; nothing is then written."""
        data = pack_record(number, record)
        if self._writing < 0 or number != self.next or (record.name == KINDS[0] and self._is_whole(len(data), mark)):
            self._begin(number, mark)
        elif mark != self._noted:
            data = pack_mark(number, mark, self._now()) + data
        self._write(data)
        self.next, self._noted = number + 1, mark

    def note(self, mark: Mark) -> None:
        """Write a mark where it has changed, and a file is being written. Raises OSError."""
        if self._writing >= 0 and mark != self._noted:
            self._write(pack_mark(self.next, mark, self._now()))
            self._noted = mark

    def _is_whole(self, more: int, mark: Mark) -> bool:
        """Whether a new release begins another file: this one is long, old, or not short and all of it delivered."""
        file = self._files[-1]
        old = self._now().boot_s - file.header.made.boot_s > self._seconds_each
        return old or file.size + more > (_SMALL if mark.settled >= self.next else self._bytes_each)

    def _begin(self, number: int, mark: Mark) -> None:
        self._end_writing(sync=mark.settled < self.next)
        header = Header(number, self.next, *mark, self._now(), self._run)
        path = self._folder / f"{number:020d}.log"
        self._files = [file for file in self._files if file.path != path]
        with suppress(FileNotFoundError):
            os.unlink(path)  # nothing could be read in it, or it would not have this name
        self._writing = os.open(path, _WRITE, 0o600)
        self._files.append(_File(path, header, 0))
        try:
            self._write(pack_header(header))
        except OSError:
            self._end_writing()
            self._remove(self._files.pop())
            raise
        self.next, self._noted = number, mark

    def _end_writing(self, sync: bool = True) -> None:
        if self._writing < 0:
            return
        if sync:
            self._sync_in_background()
        os.close(self._writing)
        self._writing = -1

    def _write(self, data: bytes) -> None:
        """Write all of `data` or nothing."""
        file = self._files[-1]
        try:
            if os.write(self._writing, data) != len(data):
                raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            try:
                os.ftruncate(self._writing, file.size)
            except OSError:  # what follows would not be found: it goes into another file
                os.close(self._writing)
                self._writing, file.damaged = -1, True
            raise
        file.size += len(data)

    # --- reading

    def read(self, number: int, before: int) -> tuple[Record | None, int]:
        """Read message `number`, which is less than `before`.

        Returns:
            It and the number after it; or None and the next number that may be there, `before` at most.
        """
        found = next((k for k, file in enumerate(self._files) if file.header.first <= number < self._end(k)), -1)
        if found < 0:
            return None, min([f.header.first for f in self._files if f.header.first > number] + [before])
        file, after = self._files[found], min(self._end(found), before)
        try:
            record = self._read_in(file, number)
        except OSError as error:
            log.error("%s: %s", file.path, error.strerror)
            record = None
        if record is None:
            file.damaged = True
            self.damaged += after - number
            return None, after
        return record, number + 1

    def _read_in(self, file: _File, number: int) -> Record | None:
        reader = self._reader
        if reader is None or reader.file is not file or reader.number > number:
            self._stop_reading()
            self._reader = reader = _Reader(file)
        while (found := reader.next()) is not None:
            if isinstance(found, Record) and reader.number == number + 1:
                return found
        return None

    def _stop_reading(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    def _end(self, index: int) -> int:
        """The number after the last message of a file."""
        return self._files[index + 1].header.after if index + 1 < len(self._files) else self.next

    # --- removing

    def drop(self) -> None:
        """Remove the oldest file; ask `droppable` first."""
        self._remove(self._files.pop(0))

    def forget(self, settled: int) -> None:
        """Remove the files of which every message is delivered, but the last one."""
        while len(self._files) > 1 and self._end(0) <= settled:
            self.drop()

    def _remove(self, file: _File) -> None:
        if self._reader is not None and self._reader.file is file:
            self._stop_reading()
        with suppress(OSError):
            if file.damaged:
                self._move_aside(file.path)
            else:
                os.unlink(file.path)

    def _move_aside(self, path: Path) -> None:
        """Keep the last damaged file for whoever looks for the reason."""
        log.error("%s: damaged, and moved aside; what was intact in it is sent", path)
        os.replace(path, self._folder / "damaged")

    # --- durability

    def sync(self) -> None:
        """Begin to make durable what was written."""
        if self._writing >= 0 and not (self._syncing is not None and self._syncing.is_alive()):
            self._sync_in_background()

    def _sync_in_background(self) -> None:
        what = self._syncing, os.dup(self._writing), self._folder
        self._syncing = threading.Thread(target=_sync, args=what, name="outbox-sync", daemon=True)
        self._syncing.start()

    def close(self) -> None:
        """Make everything durable where that takes half a second at most, and let other processes have the folder."""
        self._end_writing()
        self._stop_reading()
        if self._syncing is not None:
            self._syncing.join(_CLOSE_S)
        os.close(self._lock)

    # --- the start

    def _find(self) -> None:
        """Take what is in the folder: the header of every file, and of the last one everything."""
        for path in sorted(self._folder.glob("*.log")):
            file = _opened(path)
            before = self._files[-1].header.first if self._files else 0
            if file is None or not before <= file.header.after <= file.header.first:
                self.damaged += 1
                with suppress(OSError):
                    self._move_aside(path)
                continue
            self._files.append(file)
            self._take(Mark(file.header.settled, file.header.lost))
        if self._files:
            self._read_last(self._files[-1])

    def _read_last(self, file: _File) -> None:
        self.next = file.header.first
        try:
            reader = _Reader(file)
            while (found := reader.next()) is not None:
                if isinstance(found, Mark):
                    self._take(found)
            self.next, file.damaged = reader.number, not reader.at_end
            reader.close()
        except OSError as error:
            log.error("%s: %s", file.path, error.strerror)
            file.damaged = True
        self.damaged += file.damaged
        if self.next == file.header.first:  # a new file will have its name
            self._remove(self._files.pop())
            self.next = file.header.after

    def _take(self, mark: Mark) -> None:
        self.mark = Mark(max(self.mark.settled, mark.settled), max(self.mark.lost, mark.lost))


def _opened(path: Path) -> _File | None:
    """A file with an intact header under its name, or None."""
    try:
        descriptor = os.open(path, _READ)
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
        header = parse_header(os.read(descriptor, HEADER_BYTES)) if stat.S_ISREG(found.st_mode) else None
    except OSError:
        return None
    finally:
        os.close(descriptor)
    named = header is not None and path.stem == f"{header.first:020d}"
    return _File(path, header, found.st_size) if header is not None and named else None


def _sync(before: threading.Thread | None, file: int, folder: Path) -> None:
    """Wait until a file, which is then closed, and the names in its folder are on the disk, and what `before` syncs."""
    if before is not None:
        before.join()
    with suppress(OSError):
        os.fsync(file)
    os.close(file)
    with suppress(OSError):
        names = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(names)
        finally:
            os.close(names)
