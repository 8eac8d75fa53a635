"""seccomp: a filter that the kernel runs on every system call of the process. Linux 3.17 and later.

    Allowed  --program-->  classic BPF  --install-->  in force for all threads, now and later; it cannot be undone

It is a list of what is allowed (`syscalls.py`). Another architecture's calls end the process; x86's x32 calls, and
whatever is not on the list, fail: EPERM, or ENOSYS for calls of Linux 5.1 and later, so that libraries fall back to
the older call that they know (glibc: from clone3 to clone, whose flags a filter can see).

Source: Documentation/userspace-api/seccomp_filter.rst, linux/seccomp.h, linux/bpf_common.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge_runtime.sandbox.kernel import Machine, call
from edge_runtime.sandbox.syscalls import ALWAYS, DEVICES, LIMITED, SOCKETS

__all__ = ["Allowed", "install", "program"]

Instruction = tuple[int, int, int, int]
"""code, jump if true, jump if false, constant."""

_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT = 0x15, 0x35, 0x45
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_X32 = 0x40000000
_FIRST_NEW_CALL = 424  # pidfd_send_signal, of Linux 5.1; from here on the numbers are those of every architecture

_ALLOW: Instruction = (_RETURN, 0, 0, 0x7FFF0000)
_KILL: Instruction = (_RETURN, 0, 0, 0x80000000)
_EPERM: Instruction = (_RETURN, 0, 0, 0x00050000 | errno.EPERM)
_ENOSYS: Instruction = (_RETURN, 0, 0, 0x00050000 | errno.ENOSYS)

_CLONE_THREAD = 0x00010000
_O_TMPFILE = 0o20000000
_MAP_SHARED_OF_NO_FILE = 0x21  # both bits of linux/mman.h
_PR_SET_NAME, _PR_SET_VMA = 15, 0x53564D41
_PR_GETTERS = (2, 3, 16, 39)  # of: parent-death signal, dumpable, name, no_new_privs
# F_SETOWN, F_SETSIG, F_SETOWN_EX: the kernel would signal that process. F_SETLK and its kin, F_SETLEASE, F_NOTIFY:
# others who open the file would wait, or be watched.
_FCNTL_DENIED = (8, 10, 15, 6, 7, 37, 38, 1024, 1026)
_IOCTL_DENIED = (0x5412, 0x541C, 0x8901, 0x8902)  # TIOCSTI, TIOCLINUX: type into a terminal; FIOSETOWN, SIOCSPGRP


@dataclass(frozen=True)
class Allowed:
    """What a filter leaves open.

    Attributes:
        families: Of sockets that may be made (AF_*); none: no socket.
        devices: Whether device nodes are opened, for which opening a file for writing is left to Landlock.
        shared_memory: Whether memory that no limit counts (shared, of no file) may be had.
    """

    families: tuple[int, ...] = ()
    devices: bool = False
    shared_memory: bool = False


def program(machine: Machine, allowed: Allowed, pid: int) -> list[Instruction]:
    """Write the filter of the process `pid` on `machine`."""
    tables = [ALWAYS, *([SOCKETS] if allowed.families else []), *([DEVICES] if allowed.devices else [])]
    if socket.AF_INET not in allowed.families:
        tables = [{name: numbers for name, numbers in table.items() if name != "bind"} for table in tables]
    lines: list[Instruction] = [(_LOAD, 0, 0, _ARCHITECTURE), (_IF_EQUAL, 1, 0, machine.audit), _KILL]
    lines += [(_LOAD, 0, 0, _NUMBER), (_IF_AT_LEAST, 0, 1, _X32), _EPERM]
    for table in tables:
        for numbers in table.values():
            lines += _case(numbers[machine.column], [_ALLOW])
    for name, block in _limited(allowed, pid).items():
        lines += _case(LIMITED[name][machine.column], block)
    return [*lines, (_IF_AT_LEAST, 0, 1, _FIRST_NEW_CALL), _ENOSYS, _EPERM]


def _case(number: int, block: Sequence[Instruction]) -> list[Instruction]:
    """`block`, which ends with a return, where the system call is `number`; nothing where the number is -1."""
    return [] if number < 0 else [(_IF_EQUAL, 0, len(block), number), *block]


def _limited(allowed: Allowed, pid: int) -> dict[str, list[Instruction]]:
    """The calls whose arguments matter, which are all `int` or flags in the lower 32 bits."""
    write = os.O_CREAT | os.O_TRUNC | os.O_APPEND | _O_TMPFILE
    if not allowed.devices:
        write |= os.O_WRONLY | os.O_RDWR
    blocks = {
        "clone": [_argument(0), (_IF_ANY_BIT, 0, 1, _CLONE_THREAD), _ALLOW, _EPERM],
        "open": [_argument(1), (_IF_ANY_BIT, 0, 1, write), _EPERM, _ALLOW],
        "openat": [_argument(2), (_IF_ANY_BIT, 0, 1, write), _EPERM, _ALLOW],
        "prctl": _only(0, (_PR_SET_NAME, _PR_SET_VMA, *_PR_GETTERS)),
        "prlimit64": _only(0, (0, pid)),
        "kill": _only(0, (pid,)),
        "tgkill": _only(0, (pid,)),
        "fcntl": _all_but(1, _FCNTL_DENIED),
        "ioctl": _all_but(1, _IOCTL_DENIED),
        "socket": _only(0, allowed.families),
    }
    shared = _MAP_SHARED_OF_NO_FILE
    limit = [_argument(3), (_AND, 0, 0, shared), (_IF_EQUAL, 0, 1, shared), _EPERM, _ALLOW]
    return {**blocks, "mmap": [_ALLOW] if allowed.shared_memory else limit}


def _argument(index: int) -> Instruction:
    """Load the lower half of an argument; both machines are little-endian."""
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * index)


def _only(index: int, values: Iterable[int]) -> list[Instruction]:
    cases = [line for value in values for line in ((_IF_EQUAL, 0, 1, value), _ALLOW)]
    return [_argument(index), *cases, _EPERM]


def _all_but(index: int, values: Iterable[int]) -> list[Instruction]:
    cases = [line for value in values for line in ((_IF_EQUAL, 0, 1, value), _EPERM)]
    return [_argument(index), *cases, _ALLOW]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("lines", ctypes.c_void_p)]


def install(machine: Machine, lines: Sequence[Instruction]) -> None:
    """Put a filter in force for every thread. Raises OSError where the kernel has no seccomp or refuses it."""
    packed = b"".join(struct.pack("=HBBI", *line) for line in lines)
    buffer = ctypes.create_string_buffer(packed, len(packed))
    filtered = _Program(len(lines), ctypes.addressof(buffer))
    mode_filter, all_threads = 1, 1
    if call(machine.seccomp, mode_filter, all_threads, ctypes.c_void_p(ctypes.addressof(filtered))):
        raise OSError(errno.EBUSY, "a thread has a filter of its own")
