"""The format of a Debian package: written so that the same files give the same bytes, and read again.

    fields, scripts, files --pack--> ar(debian-binary, control.tar.gz, data.tar.gz) --unpack--> fields, files

Names are sorted; owner is root, every time is `epoch`, modes are those of the entries, whatever the umask. Compression
is gzip, by the zlib that Python has: another zlib may give other bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import tarfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wire.errors import ConfigError

__all__ = ["Entry", "Unpacked", "pack", "unpack"]

_MAGIC = b"!<arch>\n"
_FORMAT = b"2.0\n"
_MEMBERS = ("debian-binary", "control.tar.gz", "data.tar.gz")
_HEADER = 60  # bytes of a member's header: name 16, time 12, owner 6, group 6, mode 8, size 10, end 2
_LEVEL = 6  # of gzip
_FIELD = re.compile(r"[A-Z][A-Za-z-]*")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file (`data`, `mode`), or one symbolic link (to `link`)."""

    data: bytes = b""
    mode: int = 0o644
    link: str = ""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What a package holds: its fields, and path without a leading slash -> file or link."""

    control: dict[str, str]
    files: dict[str, Entry]


def pack(
    control: Mapping[str, str],
    files: Mapping[str, Entry],
    scripts: Mapping[str, str],
    conffiles: Sequence[str],
    epoch: int,
) -> bytes:
    """Return the bytes of a package.

    Args:
        control: Field -> value, in the order in which they are written; `Installed-Size` is added.
        files: Path without a leading slash -> file or link.
        scripts: "postinst", "prerm", ... -> text of a shell script.
        conffiles: Paths of `files` that an operator may edit; dpkg keeps what was edited.
        epoch: Time of every file, seconds since 1970.
    """
    size = sum(-(-len(entry.data) // 1024) for entry in files.values())
    fields = {**control, "Installed-Size": str(size)}
    parts = {"control": Entry(_control(fields).encode())}
    parts["md5sums"] = Entry(_md5sums(files).encode())  # what dpkg --verify reads; the manifest has SHA-256
    if conffiles:
        parts["conffiles"] = Entry("".join(f"/{path}\n" for path in conffiles).encode())
    parts |= {name: Entry(text.encode(), 0o755) for name, text in scripts.items()}
    members = (_FORMAT, _tar(parts, epoch), _tar(files, epoch))
    made = bytearray(_MAGIC)
    for name, data in zip(_MEMBERS, members, strict=True):
        made += f"{name:<16}{epoch:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data
        made += b"\n" * (len(data) % 2)
    return bytes(made)


def unpack(file: Path) -> Unpacked:
    """Read a package that `pack` wrote, or any other that is compressed by gzip.

    Raises:
        ConfigError: It cannot be read, or is no such package.
    """
    try:
        data = file.read_bytes()
        members = _members(data)
        fields = _entries(members["control.tar.gz"])["control"].data.decode()
        files = _entries(members["data.tar.gz"])
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}; make the packages again") from error
    except (KeyError, ValueError, EOFError, tarfile.TarError, zlib.error) as error:
        raise ConfigError(f"{file} is no Debian package that we made ({error}); make the packages again") from error
    pairs = (line.partition(": ") for line in fields.splitlines() if not line.startswith(" "))
    return Unpacked({name: value for name, _, value in pairs}, files)


def _control(fields: Mapping[str, str]) -> str:
    for name, value in fields.items():
        if not _FIELD.fullmatch(name) or re.search(r"\n(?! \S)", value):
            raise ConfigError(f"{name}: {value!r} is no field of a package; its later lines begin with a space")
    return "".join(f"{name}: {value}\n" for name, value in fields.items())


def _md5sums(files: Mapping[str, Entry]) -> str:
    sums = ((hashlib.md5(files[path].data, usedforsecurity=False), path) for path in sorted(files))
    return "".join(f"{found.hexdigest()}  {path}\n" for found, path in sums if not files[path].link)


def _tar(files: Mapping[str, Entry], epoch: int) -> bytes:
    made = io.BytesIO()
    with (
        gzip.GzipFile("", "wb", _LEVEL, made, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for path in sorted({*_folders(files), *files}):
            entry = files.get(path)
            tar.addfile(_member(path, entry, epoch), io.BytesIO(entry.data if entry else b""))
    return made.getvalue()


def _folders(files: Iterable[str]) -> set[str]:
    """Every folder on the way to a file; "" is the root."""
    parts = (path.split("/") for path in files)
    return {"/".join(each[:depth]) for each in parts for depth in range(len(each))}


def _member(path: str, entry: Entry | None, epoch: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(f"./{path}" if path else "./")
    info.mtime, info.uname, info.gname = epoch, "root", "root"
    if entry is None:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    elif entry.link:
        info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, entry.link
    else:
        info.size, info.mode = len(entry.data), entry.mode
    return info


def _members(data: bytes) -> dict[str, bytes]:
    """Name -> content of an ar archive."""
    if not data.startswith(_MAGIC):
        raise ValueError("it does not begin as an ar archive")
    found, at = dict[str, bytes](), len(_MAGIC)
    while at < len(data):
        header = data[at : at + _HEADER]
        size = int(header[48:58])
        at += _HEADER
        if size < 0 or at + size > len(data):
            raise ValueError("it ends early")
        found[header[:16].decode().strip().rstrip("/")] = data[at : at + size]
        at += size + size % 2
    return found


def _entries(packed: bytes) -> dict[str, Entry]:
    found = dict[str, Entry]()
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
        for info in tar:
            path = info.name.removeprefix("./").rstrip("/")
            if info.issym():
                found[path] = Entry(link=info.linkname)
            elif info.isfile():
                content = tar.extractfile(info)
                found[path] = Entry(content.read() if content else b"", info.mode)
    return found
