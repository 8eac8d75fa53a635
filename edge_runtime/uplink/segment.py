"""The file format of the outbox: what is written is read back exactly, or not at all.

    file = header, records...       header = magic, CRC-32, numbers, when and in which run of the system it was made
    record = CRC-32, length, kind, when, payload           kind: a topic, or a mark of how far delivery has come

Messages are numbered; a record's number is that of the one before it plus one, and is in its checksum (CRC-32 from that
number on). So a file is believed up to the first byte that is not as it was written: a cut, a flipped bit, or a record
of another place ends it there. Nothing here opens files.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from wire.protocol.message import MAX_PAYLOAD

__all__ = [
    "HEADER_BYTES",
    "KINDS",
    "MOST",
    "Header",
    "Mark",
    "Record",
    "Stamp",
    "pack_header",
    "pack_mark",
    "pack_record",
    "parse",
    "parse_header",
]

KINDS = ("features", "verdict/edge")
"""Topics of what may be kept, by the number of their kind. A release begins with the first."""

_MAGIC = b"veilbox1"
_HEADER = struct.Struct("<QQQQII16s")
_RECORD = struct.Struct("<HBII")
_MARK = struct.Struct("<QQ")
_MARK_KIND = 255
_CRC = struct.Struct("<I")


class Stamp(NamedTuple):
    """An instant. boot_s: seconds since the system started, its sleep included; wall_s: since 1970, as it believes."""

    boot_s: int
    wall_s: int


class Header(NamedTuple):
    """How a file begins.

    Attributes:
        first: Number of its first message.
        after: The number that would have followed in the file before; numbers between were never written.
        settled: All messages before this number need not be sent again.
        lost: Messages that were given up since the outbox was made.
        made: When.
        run: Names the run of the system (16 bytes): `boot_s` of another one says nothing.
    """

    first: int
    after: int
    settled: int
    lost: int
    made: Stamp
    run: bytes


class Record(NamedTuple):
    """A message. name: its topic's name; put: when it came."""

    name: str
    payload: bytes
    put: Stamp


class Mark(NamedTuple):
    """`settled` and `lost` as in a header, later."""

    settled: int
    lost: int


HEADER_BYTES = len(_MAGIC) + _CRC.size + _HEADER.size
_RECORD_BYTES = _CRC.size + _RECORD.size
MOST = _RECORD_BYTES + MAX_PAYLOAD
"""Bytes of a record, at most."""


def pack_header(header: Header) -> bytes:
    """The bytes of a header, always HEADER_BYTES."""
    body = _HEADER.pack(header.first, header.after, header.settled, header.lost, *header.made, header.run)
    return _MAGIC + _CRC.pack(zlib.crc32(body)) + body


def parse_header(data: bytes) -> Header | None:
    """Read a header; None where it is not exactly one that was written."""
    start = len(_MAGIC) + _CRC.size
    body = data[start:HEADER_BYTES]
    if len(body) != _HEADER.size or data[:start] != _MAGIC + _CRC.pack(zlib.crc32(body)):
        return None
    first, after, settled, lost, boot_s, wall_s, run = _HEADER.unpack(body)
    return Header(first, after, settled, lost, Stamp(boot_s, wall_s), run)


def pack_record(number: int, record: Record) -> bytes:
    """The bytes of message `number`."""
    return _pack(number, KINDS.index(record.name), record.put, record.payload)


def pack_mark(number: int, mark: Mark, now: Stamp) -> bytes:
    """The bytes of a mark that stands before message `number`."""
    return _pack(number, _MARK_KIND, now, _MARK.pack(*mark))


def _pack(number: int, kind: int, stamp: Stamp, payload: bytes) -> bytes:
    body = _RECORD.pack(len(payload), kind, *stamp) + payload
    return _CRC.pack(zlib.crc32(body, number & 0xFFFF_FFFF)) + body


def parse(data: bytes, at: int, number: int) -> tuple[Record | Mark, int] | None:
    """Read what stands at `at`, before or as message `number`.

    Returns:
        It, and where the next one begins; None where nothing whole and intact stands there.
    """
    begin = at + _CRC.size
    if len(data) < at + _RECORD_BYTES:
        return None
    length, kind, boot_s, wall_s = _RECORD.unpack_from(data, begin)
    end = at + _RECORD_BYTES + length
    if length > MAX_PAYLOAD or end > len(data):
        return None
    body = data[begin:end]
    if zlib.crc32(body, number & 0xFFFF_FFFF) != _CRC.unpack_from(data, at)[0]:
        return None
    payload = body[_RECORD.size :]
    if kind == _MARK_KIND and length == _MARK.size:
        return Mark(*_MARK.unpack(payload)), end
    return (Record(KINDS[kind], payload, Stamp(boot_s, wall_s)), end) if kind < len(KINDS) else None
