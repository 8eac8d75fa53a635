"""Landlock: which files a process may open, whether it may use TCP, and whom it may signal. Linux 5.13 and later.

    restrict(readable, read_write, connect)  --> the ABI that is in force from now on, for this thread and its children

Source: linux/landlock.h and Documentation/userspace-api/landlock.rst of Linux 6.18.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

from edge_runtime.sandbox.kernel import call

__all__ = ["abi", "restrict"]

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # the same on every architecture
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH = 1
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_BITS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # rights on files that an ABI knows; from 5 on, 16
_FILE_RIGHTS = _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV  # those that a rule on a single file may grant
_BIND, _CONNECT = 1, 2
_SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS = 3


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32)]


def abi() -> int:
    """Return the kernel's Landlock ABI; 0 where it has none or has it switched off."""
    try:
        return call(_CREATE, 0, 0, _VERSION)
    except OSError:
        return 0


def restrict(readable: Iterable[Path], read_write: Iterable[Path], connect: bool) -> int:
    """Put Landlock in force for this thread; it cannot be undone.

    Args:
        readable: Files, and folders with all that lies beneath. What is not there is left out.
        read_write: Device nodes, to open for both; as `readable` otherwise.
        connect: Whether TCP connections may be made; TCP ports are never bound.

    Returns:
        The kernel's ABI: from 4 on TCP is restricted, from 6 on signals and abstract Unix sockets.

    Raises:
        OSError: The kernel refuses.
    """
    version = abi()
    files = (1 << _BITS.get(version, 16)) - 1
    net = 0 if version < 4 else _BIND if connect else _BIND | _CONNECT
    attributes = _Ruleset(files, net, _SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = call(_CREATE, ctypes.c_void_p(ctypes.addressof(attributes)), size, 0)
    try:
        for path in readable:
            _allow(ruleset, path, _READ_FILE | _READ_DIR)
        for path in read_write:
            _allow(ruleset, path, (_READ_FILE | _READ_DIR | _WRITE_FILE | _IOCTL_DEV) & files)
        call(_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)
    return version


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what cannot be found cannot be opened later either
    try:
        rule = _PathBeneath(rights if path.is_dir() else rights & _FILE_RIGHTS, place)
        call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.c_void_p(ctypes.addressof(rule)), 0)
    finally:
        os.close(place)
