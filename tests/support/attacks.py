"""What a hostile process tries in order to tell pixels: one function an attack, which raises OSError where it fails.

done = attempt_all(targets, pixels)        the names of the attacks that went well
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["ATTACKS", "attempt_all", "speak"]

_LIBC = ctypes.CDLL(None, use_errno=True)

Targets = Mapping[str, Any]
"""tcp, udp: ports of 127.0.0.1; unix: a socket's path; abstract: its name; folder: of the run; gate: its process."""


def attempt_all(targets: Targets, pixels: bytes, link: int = -1) -> list[str]:
    """Try every attack with `pixels`; link: the descriptor of the socket to the gate."""
    speak(pixels)
    done = []
    for name, attack in ATTACKS.items():
        with contextlib.suppress(OSError, KeyError):
            attack(targets, pixels)
            done.append(name)
    if link >= 0:
        with contextlib.suppress(OSError):
            _pass_on(link, pixels)
            done.append("a descriptor is passed on")
    return done


def speak(pixels: bytes) -> None:
    """Write pixels wherever somebody may read them."""
    print(pixels.hex(), flush=True)
    print(pixels, file=sys.stderr, flush=True)
    logging.basicConfig()
    logging.getLogger("veilsight").error("pixels: %s", pixels.hex())
    for descriptor in (0, 1, 2):
        with contextlib.suppress(OSError):
            os.write(descriptor, pixels)


def _pass_on(link: int, pixels: bytes) -> None:
    with socket.socket(fileno=os.dup(link)) as end:
        end.sendmsg([pixels[:1]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))])


def _syscall(number: int, *arguments: Any) -> int:
    found = int(_LIBC.syscall(number, *arguments))
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found


def _connect(family: int, address: Callable[[Targets], Any]) -> Callable[[Targets, bytes], None]:
    def attack(targets: Targets, pixels: bytes) -> None:
        with socket.socket(family, socket.SOCK_STREAM) as end:
            end.connect(address(targets))
            end.sendall(pixels)

    return attack


def _udp(targets: Targets, pixels: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.sendto(pixels, ("127.0.0.1", targets["udp"]))


def _listen(targets: Targets, pixels: bytes) -> None:
    with socket.socket() as end:
        end.bind(("127.0.0.1", 0))
        end.listen()


def _write(place: Callable[[Targets], Path]) -> Callable[[Targets, bytes], None]:
    def attack(targets: Targets, pixels: bytes) -> None:
        with place(targets).open("ab") as file:
            file.write(pixels)

    return attack


def _read(place: Callable[[Targets], Path]) -> Callable[[Targets, bytes], None]:
    return lambda targets, pixels: [place(targets).read_bytes()].clear()


def _rename(targets: Targets, pixels: bytes) -> None:
    os.rename(Path(targets["folder"]) / "spare", Path(targets["folder"]) / "spare")


def _fork(targets: Targets, pixels: bytes) -> None:
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _run(targets: Targets, pixels: bytes) -> None:
    subprocess.run(["/bin/true"], check=True)


def _memory(targets: Targets, pixels: bytes) -> None:
    os.close(os.open(f"/proc/{targets['gate']}/mem", os.O_RDWR))


def _trace(targets: Targets, pixels: bytes) -> None:
    """Read the gate's memory as a debugger does; a wrong address means that a right one would do."""
    own = (ctypes.c_void_p * 2)(ctypes.addressof(ctypes.create_string_buffer(8)), 8)
    there = (ctypes.c_void_p * 2)(8, 8)
    with contextlib.suppress(OSError):
        _syscall(310, targets["gate"], ctypes.byref(own), 1, ctypes.byref(there), 1, 0)  # process_vm_readv, x86-64
        return
    if ctypes.get_errno() != errno.EFAULT:
        raise PermissionError("not traced")


def _signal(targets: Targets, pixels: bytes) -> None:
    os.kill(targets["gate"], signal.SIGCONT)


ATTACKS: dict[str, Callable[[Targets, bytes], Any]] = {
    "TCP": _connect(socket.AF_INET, lambda t: ("127.0.0.1", t["tcp"])),
    "UDP": _udp,
    "a Unix socket": _connect(socket.AF_UNIX, lambda t: t["unix"]),
    "an abstract socket": _connect(socket.AF_UNIX, lambda t: "\0" + t["abstract"]),
    "a port of its own": _listen,
    "a temporary file": _write(lambda t: Path("/tmp") / t["abstract"]),
    "shared memory": _write(lambda t: Path("/dev/shm") / t["abstract"]),
    "a file in the state": _write(lambda t: Path(t["folder"]) / "camera-state" / "planted"),
    "the ledger": _write(lambda t: Path(t["folder"]) / "camera-state" / "ledger.json.planted"),
    "a file beside the engine": _write(lambda t: Path(t["folder"]) / "engine" / "planted"),
    "the key is read": _read(lambda t: Path(t["folder"]) / "camera.key"),
    "the state is read": _read(lambda t: Path(t["folder"]) / "spare"),
    "a file is renamed": _rename,
    "a fork": _fork,
    "a program": _run,
    "the gate's memory": _memory,
    "the gate is traced": _trace,
    "the gate is signalled": _signal,
    "memory with a name": lambda targets, pixels: os.close(os.memfd_create("pixels")),
    "a pidfd": lambda targets, pixels: os.close(os.pidfd_open(targets["gate"])),
    "the gate's priority": lambda targets, pixels: os.setpriority(os.PRIO_PROCESS, targets["gate"], 10),
    "the gate's cores": lambda targets, pixels: os.sched_setaffinity(targets["gate"], os.sched_getaffinity(0)),
    "a directory": lambda targets, pixels: os.mkdir(Path("/tmp") / (targets["abstract"] + "-folder")),
}
"""Name -> the attack."""
