"""Reads what a device sent and what it wrote: packets of its only interface, and system calls by strace.

packets --read_packets--> streams of bytes by connection, and what is no TLS to the broker
strace's files --read_calls--> calls that name a file or an address --judge_calls--> what is outside of the folder
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["CALLS", "Call", "judge_calls", "judge_packets", "read_calls"]

CALLS = (
    *("open", "openat", "openat2", "creat", "truncate", "mkdir", "mkdirat", "mknod", "mknodat", "rename", "renameat"),
    *("renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat", "rmdir", "chmod", "fchmodat"),
    *("chown", "fchownat", "utimensat", "setxattr", "memfd_create", "mount", "connect", "sendto", "sendmsg", "bind"),
)
"""System calls that a trace is of: those that write by a name, and those that name an address."""

_TCP = 6
_RECORDS = range(20, 24)  # types of TLS records: RFC 8446, section 5.1
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_LONGEST = (1 << 14) + 256
_LAST = 0xFFFFFFFF  # numbers of TCP wrap
_WRITES = re.compile(r"\bO_(WRONLY|RDWR|CREAT|TRUNC|APPEND)\b")
_NAME = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_LINE = re.compile(r"(\w+)\((.*)\) += (-?\d+)(?:<([^>]*)>)?(?: (E\w+))?")
_INET = re.compile(r'sin6?_port=htons\((\d+)\).*?(?:inet_addr\("|inet_pton\(AF_INET6, ")([^"]+)"')
_PATH = re.compile(r'sa_family=AF_UNIX, sun_path=@?"([^"]*)"')


_LOCAL = ("0.0.0.0:0", "/var/run/nscd/socket")
"""A socket that gets any port of its own; glibc asks for a cache of users' names there."""


class Call(NamedTuple):
    """One system call.

    Attributes:
        name: Of CALLS.
        places: Absolute paths that it would write to, or "address:port", or a local socket's path.
        error: The errno's name; "": it was done.
    """

    name: str
    places: tuple[str, ...]
    error: str


class _Stream(NamedTuple):
    """What a connection carried: the number of its first byte, and number -> bytes."""

    first: int
    parts: dict[int, bytes]


def judge_packets(kept: Iterable[tuple[bool, bytes]], address: str, port: int) -> tuple[dict[str, int], list[str]]:
    """(figures, what is wrong) of all packets of a device; whatever is no TLS to `address`:`port` is wrong.

    Args:
        kept: (from the device, IP packet), in order.
        address: The broker's, IPv4.
        port: The broker's.
    """
    wrong, streams = dict[str, None](), list[_Stream]()
    newest = dict[int, _Stream]()  # source port -> its connection
    sent = count = 0
    for outward, packet in kept:
        if not outward:
            continue
        sent, count = sent + len(packet), count + 1
        found = _tcp(packet)
        if found is None or found[:2] != (address, port):
            wrong[f"a packet to {_whom(packet)}"] = None
            continue
        _, _, source, number, syn, data = found
        stream = newest.get(source)
        if syn and (stream is None or stream.parts or stream.first != (number + 1) & _LAST):
            newest[source] = stream = _Stream((number + 1) & _LAST, {})
            streams.append(stream)
        if stream is None:
            wrong[f"a packet to {_whom(packet)} of no connection that was seen to begin"] = None
        elif data and len(data) > len(stream.parts.get(number, b"")):
            stream.parts[number] = data
    records = 0
    for stream in streams:
        found_records, why = _tls(_joined(stream))
        records += found_records
        if why:
            wrong[why] = None
    figures = {"packets": count, "bytes": sent, "connections": len(streams), "tls_records": records}
    return figures, [*wrong]


def _tcp(packet: bytes) -> tuple[str, int, int, int, bool, bytes] | None:
    """(address, port, source port, number, SYN, data) of an IPv4 packet with TCP; None of any other."""
    if len(packet) < 40 or packet[0] >> 4 != 4 or packet[9] != _TCP:
        return None
    head, (total,) = (packet[0] & 15) * 4, struct.unpack_from(">H", packet, 2)
    source, port, number = struct.unpack_from(">HHI", packet, head)
    body = head + (packet[head + 12] >> 4) * 4
    return socket.inet_ntoa(packet[16:20]), port, source, number, bool(packet[head + 13] & 2), packet[body:total]


def _whom(packet: bytes) -> str:
    """Where a packet goes, for people."""
    if packet[:1] and packet[0] >> 4 == 6 and len(packet) >= 40:
        return f"{socket.inet_ntop(socket.AF_INET6, packet[24:40])}, protocol {packet[6]}"
    if len(packet) < 24 or packet[0] >> 4 != 4:
        return "nowhere: it is no IP"
    head = (packet[0] & 15) * 4
    port = struct.unpack_from(">H", packet, head + 2)[0] if packet[9] in (_TCP, 17) and len(packet) > head + 3 else 0
    return f"{socket.inet_ntoa(packet[16:20])}:{port}, protocol {packet[9]}"


def _joined(stream: _Stream) -> bytes:
    """The bytes of a stream from its first number on, up to the first that never left."""
    joined = bytearray()
    for place, data in sorted(((number - stream.first) & _LAST, data) for number, data in stream.parts.items()):
        if place > len(joined):
            break  # behind a gap
        joined[place : place + len(data)] = data
    return bytes(joined)


def _tls(stream: bytes) -> tuple[int, str]:
    """How many TLS records a stream holds, and what it holds in place of one; "" where there is nothing else."""
    place = records = 0
    while place + 5 <= len(stream):
        kind, major, minor, length = struct.unpack_from(">BBBH", stream, place)
        hello = records or (kind == _HANDSHAKE and stream[place + 5 : place + 6] == bytes([_CLIENT_HELLO]))
        if kind not in _RECORDS or (major, minor) not in ((3, 1), (3, 3)) or length > _LONGEST or not hello:
            return records, f"a connection to the broker holds {stream[place : place + 8]!r}, which is no TLS"
        place, records = place + 5 + length, records + 1
    return records, ""


def read_calls(folder: Path) -> list[Call]:
    """The calls in the files of `strace -ff -y`, one a thread, that write by a name or name an address."""
    calls = list[Call]()
    for file in sorted(folder.iterdir()):
        for line in file.read_text(errors="replace").splitlines():
            match = _LINE.match(line)
            if match and (call := _call(*match.groups())) is not None:
                calls.append(call)
    return calls


def _call(name: str, arguments: str, result: str, opened: str | None, error: str | None) -> Call | None:
    """One call; None for one that only reads, or names nothing."""
    if name in ("connect", "sendto", "sendmsg", "bind"):
        inet, path = _INET.search(arguments), _PATH.search(arguments)
        place = f"{inet[2]}:{inet[1]}" if inet else path[1] if path else ""
        return Call(name, (place,), error or "") if place else None
    if name.startswith("open") and not _WRITES.search(arguments):
        return None
    if name == "memfd_create":
        return Call(name, ("memory:",), error or "")
    if opened:
        return Call(name, (opened.removesuffix(" (deleted)"),), "")
    names = [os.path.normpath(os.path.join(at or "/", path)) for at, path in _NAME.findall(arguments)]
    kept = names[1:] if name.startswith("symlink") else names  # what a link says is no place
    return Call(name, tuple(kept), error or "") if kept else None


def _may(place: str, allowed: Sequence[str]) -> bool:
    """Whether a place is allowed: one of those, or a session's weight in the kernel (`edge_runtime.priority`)."""
    return place in allowed or re.fullmatch(r"/proc/(\d+|self)/autogroup", place) is not None


def judge_calls(
    calls: Sequence[Call], folder: Path, addresses: Sequence[str], allowed: Sequence[str] = ("/dev/null", "memory:")
) -> tuple[dict[str, int], list[str]]:
    """(figures, what is wrong) of a device's calls.

    Args:
        calls: Of all its processes.
        folder: Where it may write.
        addresses: What it may connect to, beside the loopback interface, which leads nowhere.
        allowed: Further places where it may write.
    """
    inside, wrong, refused = f"{folder}/", dict[str, None](), 0
    own = (*addresses, *_LOCAL)
    network = [call for call in calls if call.name in ("connect", "sendto", "sendmsg", "bind")]
    writes = [call for call in calls if call not in network]
    for call in writes:
        outside = [each for each in call.places if not f"{each}/".startswith(inside) and not _may(each, allowed)]
        if outside and call.error:
            refused += 1
        elif outside:
            wrong[f"{call.name} of {outside[0]}"] = None
    for call in network:
        if call.places[0] not in own and not call.places[0].startswith("127."):
            wrong[f"{call.name} to {call.places[0]}"] = None
    within = sum(f"{place}/".startswith(inside) for call in writes for place in call.places)
    return {"writing_calls": len(writes), "in_the_folder": within, "refused": refused}, [*wrong]
