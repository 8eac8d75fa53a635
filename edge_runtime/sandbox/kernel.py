"""System calls and prctl that Python's library does not have, by number, with ctypes. Linux on x86_64 and aarch64.

Source of the numbers: the kernel's own headers, include/uapi/asm-generic/unistd.h and arch/x86's syscall_64.tbl.
"""

from __future__ import annotations

import ctypes
import os
import platform
from dataclasses import dataclass

__all__ = ["Machine", "call", "machine", "prctl"]


@dataclass(frozen=True)
class Machine:
    """One processor architecture, as seccomp sees it.

    Attributes:
        column: Of `edge_runtime/sandbox/syscalls.py`.
        audit: AUDIT_ARCH_* of linux/audit.h.
        seccomp: Number of the system call `seccomp`.
        capset: Number of the system call `capset`.
    """

    column: int
    audit: int
    seccomp: int
    capset: int


_MACHINES = {
    "x86_64": Machine(0, 0xC000003E, 317, 126),
    "aarch64": Machine(1, 0xC00000B7, 277, 91),
}
_LIBC = ctypes.CDLL(None, use_errno=True)


def machine() -> Machine | None:
    """Return this machine's row; None where it has none, or runs 32-bit programs."""
    return _MACHINES.get(platform.machine()) if ctypes.sizeof(ctypes.c_void_p) == 8 else None


def call(number: int, *arguments: int | ctypes.c_void_p) -> int:
    """Make the system call `number`. Returns its result. Raises OSError."""
    words = [word if isinstance(word, ctypes.c_void_p) else ctypes.c_long(word) for word in arguments]
    result = int(_LIBC.syscall(ctypes.c_long(number), *words))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def prctl(option: int, value: int = 0, third: int = 0) -> int:
    """Call prctl; what is not given is 0. Returns its result. Raises OSError."""
    words = [ctypes.c_ulong(word) for word in (value, third, 0, 0)]
    result = int(_LIBC.prctl(ctypes.c_int(option), *words))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
