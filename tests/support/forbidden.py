"""What a hostile eye tries: each attempt is a function that raises where it is refused. Run in a process of its own.

    python -m tests.support.forbidden MODE SOCKET JSON  -->  one record on SOCKET: {attempt: "done" or the errno's name}

MODE is "free", "confined", "no landlock" or "no seccomp": the last two take away what an older kernel may lack.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import platform
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_runtime import confine
from edge_runtime.sandbox import landlock, seccomp
from edge_runtime.sandbox.kernel import call, prctl

__all__ = ["ATTEMPTS", "BOUND", "MODES", "confined"]

BOUND = 256 << 20
"""Bytes that a confined process may have."""
MODES = ("free", "confined", "no landlock", "no seccomp")
_PTRACE_SEIZE, _PR_SET_DUMPABLE, _CLONE_NEWUTS, _IO_URING_SETUP = 0x4206, 4, 0x04000000, 425
_UNSHARE = 272 if platform.machine() == "x86_64" else 97


def confined(mode: str, keep: list[int], **options: Any) -> list[confine.Holds]:
    """Confine this process as `mode` says."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "taken away by the test")

    if mode == "no landlock":
        landlock.abi = lambda: 0
    if mode == "no seccomp":
        seccomp.install = refuse  # type: ignore[assignment]  # it never returns
    if mode == "free":
        return []
    given = {"readable": [], "network": False, "memory_bytes": BOUND, **options}
    return confine.confine_child(**given, keep=keep)


def _connect(family: int, kind: int, address: Any) -> None:
    with socket.socket(family, kind) as made:
        made.connect(address)
        made.send(b"pixels")


def _listen(place: dict[str, Any]) -> None:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen()


def _fork(place: dict[str, Any]) -> None:
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)


def _exec_nothing(place: dict[str, Any]) -> None:
    """Reach execve itself: where it is allowed, the kernel finds no such file."""
    try:
        os.execv("/nowhere", ["nowhere"])
    except FileNotFoundError:
        return


def _ptrace(place: dict[str, Any]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(_PTRACE_SEIZE, place["victim"], None, None) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def _send_descriptor(place: dict[str, Any]) -> None:
    with socket.socket(fileno=os.dup(place["socket"])) as gate:
        socket.send_fds(gate, [b"descriptor"], [0])


def _own(place: dict[str, Any]) -> None:
    """Have the kernel signal the victim when the socket has something to read."""
    fcntl.fcntl(place["socket"], fcntl.F_SETOWN, place["victim"])


def _write(place: dict[str, Any]) -> None:
    (Path(place["folder"]) / f"made-{os.getpid()}").write_bytes(b"pixels")


def _overwrite(place: dict[str, Any]) -> None:
    descriptor = os.open(Path(place["folder"]) / "kept", os.O_WRONLY)
    os.write(descriptor, b"pixels")
    os.close(descriptor)


def _rename(place: dict[str, Any]) -> None:
    kept = Path(place["folder"]) / "kept"
    kept.rename(kept.with_name("other")).rename(kept)


def _move_to_core(place: dict[str, Any]) -> None:
    os.sched_setaffinity(0, os.sched_getaffinity(0))


def _take(flags: int) -> None:
    mmap.mmap(-1, 4 * BOUND, flags=flags).close()


def _core(place: dict[str, Any]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _read(place: dict[str, Any], name: str) -> None:
    """A file of the victim's, or "kept", which only its owner may read."""
    path = Path(place["folder"]) / name if name == "kept" else Path(f"/proc/{place['victim']}/{name}")
    os.close(os.open(path, os.O_RDONLY))


def _ring(place: dict[str, Any]) -> None:
    parameters = (ctypes.c_char * 120)()
    os.close(call(_IO_URING_SETUP, 4, ctypes.c_void_p(ctypes.addressof(parameters))))


_TCP, _UDP = (socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM)
_LOCAL = (socket.AF_UNIX, socket.SOCK_STREAM)
Attempt = Callable[[dict[str, Any]], object]
ATTEMPTS: dict[str, tuple[Attempt, set[str]]] = {
    "make a file": (_write, {"landlock", "seccomp"}),
    "write into a file": (_overwrite, {"landlock", "seccomp", "limits"}),
    "make a folder": (lambda place: (Path(place["folder"]) / f"d-{os.getpid()}").mkdir(), {"landlock", "seccomp"}),
    "rename a file": (_rename, {"landlock", "seccomp"}),
    "read the key": (lambda place: _read(place, "kept"), {"landlock"}),
    "list a folder": (lambda place: os.listdir(place["folder"]), {"landlock"}),
    "read another's memory": (lambda place: _read(place, "mem"), {"landlock", "capabilities"}),
    "read another's environment": (lambda place: _read(place, "environ"), {"landlock", "capabilities"}),
    "ptrace": (_ptrace, {"landlock", "seccomp", "capabilities"}),
    "kill": (lambda place: os.kill(place["victim"], signal.SIGCONT), {"landlock", "seccomp"}),
    "kill the group": (lambda place: os.kill(0, 0), {"seccomp"}),
    "signal by a socket's owner": (_own, {"seccomp"}),
    "TCP": (lambda place: _connect(*_TCP, ("127.0.0.1", place["tcp"])), {"landlock", "seccomp"}),
    "UDP": (lambda place: _connect(*_UDP, ("127.0.0.1", place["tcp"])), {"seccomp"}),
    "listen": (_listen, {"landlock", "seccomp"}),
    "Unix socket": (lambda place: _connect(*_LOCAL, place["unix"]), {"seccomp"}),
    "abstract socket": (lambda place: _connect(*_LOCAL, "\0" + place["abstract"]), {"landlock", "seccomp"}),
    "send a descriptor": (_send_descriptor, {"seccomp"}),
    "fork": (_fork, {"seccomp"}),
    "exec": (_exec_nothing, {"seccomp"}),
    "move to another core": (_move_to_core, {"seccomp"}),
    "have memory": (lambda place: _take(mmap.MAP_PRIVATE), {"limits"}),
    "have shared memory": (lambda place: _take(mmap.MAP_SHARED), {"seccomp"}),
    "allow a core file": (_core, {"limits"}),
    "be dumpable": (lambda place: prctl(_PR_SET_DUMPABLE, 1), {"seccomp"}),
    "io_uring": (_ring, {"seccomp"}),
    "memfd": (lambda place: os.close(os.memfd_create("pixels")), {"seccomp"}),
    "a namespace": (lambda place: call(_UNSHARE, _CLONE_NEWUTS), {"seccomp", "capabilities"}),
}
"""Attempt -> what tries it, and each confinement that refuses it, alone, too."""


def _outcome(attempt: Attempt, place: dict[str, Any]) -> str:
    try:
        attempt(place)
    except MemoryError:
        return "ENOMEM"
    except (OSError, ValueError) as error:
        number = getattr(error, "errno", None) or errno.EPERM  # ValueError: a limit above the hard one
        return errno.errorcode[number]
    return "done"


def main() -> None:
    """Confine, try everything, say what came of it."""
    mode, descriptor, place = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
    place["socket"] = descriptor
    holds = confined(mode, [descriptor])
    found = {name: _outcome(attempt, place) for name, (attempt, _) in ATTEMPTS.items()}
    thread = threading.Thread(target=lambda: found.update(thread="made"))
    thread.start()
    thread.join()
    record = {"found": found, "holds": [[row.name, row.holds, row.why] for row in holds]}
    socket.socket(fileno=descriptor).send(json.dumps(record).encode())


if __name__ == "__main__":
    main()
