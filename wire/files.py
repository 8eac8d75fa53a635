"""Writing and reading files: a reader finds the old content or the new one, never a part of it.

    write_whole, whole_file   write beside --> rename over                      for caches, reports, weights
    write_durably             write beside --fsync--> rename over --fsync of the folder-->  for what must survive
    read_trusted              a regular file, no symbolic link, that nobody else may write  for what is believed

`write_durably` returns when the content is on the disk. If the file system keeps what was fsynced, and renames
atomically, a power cut at any instant leaves the old file or the new one. Counts also carry a checksum, so that a
damaged or edited file is refused, and the name of their owner. No function here follows a symbolic link in the last
part of a path that it trusts; a folder on the way may be one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = [
    "disk_is_full",
    "disk_takes_nothing",
    "load_counts",
    "make_folder",
    "read_trusted",
    "save_counts",
    "whole_file",
    "write_durably",
    "write_whole",
]

_FULL = (errno.ENOSPC, errno.EDQUOT)
_READ_ONLY = (errno.EROFS,)  # what ext4 becomes after an error of the medium, until it is checked
_MOST = 1 << 20  # bytes of a trusted file: keys, counts, commands and journals are shorter


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to. It is renamed to `path` at the end of the block, or deleted on an error.

    It has the suffix of `path`, for writers that choose the format by it, and the process id in its name, so that two
    processes never write to the same one. Raises OSError.
    """
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield beside
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: bytes | str) -> None:
    """Replace `path` (its folder exists) atomically; text is written as UTF-8. Raises OSError."""
    with whole_file(path) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)


def write_durably(path: Path, content: bytes, mode: int = 0o600, replace: bool = True) -> None:
    """Write `path` (its folder exists) and return when the new content is on the disk.

    Args:
        path: The file. A symbolic link there is replaced, not followed.
        content: All of it.
        mode: Of the file, less the process's umask.
        replace: Whether a file that is there already is replaced; else it is an error and stays as it is.

    Raises:
        OSError: The disk fails, or the file is there (FileExistsError) and `replace` is False.
    """
    beside = path.with_name(path.name + ".new")
    with suppress(FileNotFoundError):
        os.unlink(beside)  # of a write that was cut off, or a trap: it is never opened
    file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(file, left) :]
        os.fsync(file)
    finally:
        os.close(file)
    if replace:
        os.replace(beside, path)
    else:
        try:
            os.link(beside, path)
        finally:
            os.unlink(beside)
    _sync(path.parent)


def disk_is_full(error: BaseException) -> bool:
    """Whether an error, or the one that it was raised from, is that no space is left."""
    return _number(error) in _FULL


def disk_takes_nothing(error: BaseException) -> bool:
    """Whether an error, or the one that it was raised from, is that a disk is full or read-only: both can end."""
    return _number(error) in _FULL + _READ_ONLY


def _number(error: BaseException) -> int | None:
    found = error if isinstance(error, OSError) else error.__cause__
    return found.errno if isinstance(found, OSError) else None


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, mode 0700, durably; do nothing where it is. Raises OSError."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with suppress(FileExistsError):  # another process was faster
        folder.mkdir(0o700)
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    """Return when the names in `folder` are on the disk."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def read_trusted(path: Path, most: int = _MOST) -> bytes:
    """Read a file whose content is believed.

    Args:
        path: The file.
        most: Bytes that it may hold.

    Raises:
        OSError: It cannot be read (FileNotFoundError: it is not there), it is a symbolic link or no regular file,
            group or others may write to it, or it is longer than `most`. `.strerror` says the cure.
    """
    if os.path.islink(path):  # said in words; O_NOFOLLOW refuses one that is put there after this line
        raise _distrust(path, "it is a symbolic link; put the file itself there")
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise _distrust(path, "it is no regular file; put one there")
        if found.st_mode & 0o022:
            raise _distrust(path, f"mode {stat.S_IMODE(found.st_mode):04o} lets others write it; chmod 600 {path}")
        if found.st_size > most:
            raise _distrust(path, f"{found.st_size} bytes, expected at most {most}; it is another file")
        content = b""
        while part := os.read(file, most + 1 - len(content)):
            content += part
        return content
    finally:
        os.close(file)


def _distrust(path: Path, words: str) -> OSError:
    return OSError(errno.EPERM, words, str(path))


def save_counts(path: Path, counts: Mapping[str, int], owner: str) -> None:
    """Write `counts`, their owner's name and a checksum of both durably. Raises OSError."""
    write_durably(path, json.dumps(_document(counts, owner)).encode())


def load_counts(path: Path, names: Collection[str]) -> tuple[dict[str, int], str]:
    """Read what `save_counts` wrote.

    Returns:
        The counts, and their owner's name; "" where the file is of version 0.1, which wrote none.

    Raises:
        OSError: As of `read_trusted`; FileNotFoundError: there is no file.
        ValueError: The file is damaged, or holds other names than `names`.
    """
    try:
        found = json.loads(read_trusted(path))
    except RecursionError as error:
        raise ValueError("not a document of counts") from error
    counts = found.get("counts") if isinstance(found, dict) else None
    if not isinstance(counts, dict) or counts.keys() != set(names):
        raise ValueError(f"it does not hold {', '.join(names)}")
    owner = found.get("owner", "")
    good = type(owner) is str and all(type(value) is int and value >= 0 for value in counts.values())
    if not good or found != _document(counts, owner):
        raise ValueError("its checksum is not that of its content")
    return counts, owner


def _document(counts: Mapping[str, int], owner: str) -> dict[str, Any]:
    content: dict[str, Any] = {"counts": dict(counts), "owner": owner} if owner else {"counts": dict(counts)}
    hashed = content if owner else content["counts"]
    digest = hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()
    return {**content, "sha256": digest}
