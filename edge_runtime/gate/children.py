"""The eye and the reader as processes: started with nothing but a socket, and started again whenever they end.

    on a laptop   the gate spawns them; each inherits one end of a socket pair
    on a device   systemd starts them as units of their own; they connect to the sockets that it gave to the gate

A child gets its settings as the first datagram and nothing else: no arguments that name a secret, no environment beyond
a few names. What it prints goes to /dev/null. A thread waits for its end, so that the loop never does.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from edge_runtime.confine import clean_environment, share_out_cores
from edge_runtime.link import Link
from edge_runtime.priority import weigh_session

__all__ = ["CHILDREN", "Child", "Running", "accepted", "inherited_sockets", "spawned"]

CHILDREN: Mapping[str, str] = {"eye": "edge_runtime.eye.process", "reader": "edge_runtime.reader.process"}
"""Name -> module whose `main` is the child."""

_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # a child confines itself while it has one thread
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _LONG_LIFE_S = 0.25, 30.0, 60.0
_NICE = {"eye": 5, "reader": 0}  # the eye must not delay a release, nor a verdict
_FIRST_DESCRIPTOR = 3  # of those that systemd passes


@dataclass(frozen=True, slots=True)
class Running:
    """A child that runs: its socket, what ends it, and what waits until it has ended."""

    link: Link
    end: Callable[[], None]
    wait: Callable[[], object]


class Child:
    """One child, kept alive.

    Args:
        name: "eye" or "reader".
        begin: Makes a running child; None where the process is closing.
        settings: Gives what is sent to each new one.

    Attributes:
        starts: How often one was started.
    """

    def __init__(self, name: str, begin: Callable[[], Running | None], settings: Callable[[], bytes]) -> None:
        self.starts, self._name, self._begin, self._settings = 0, name, begin, settings
        self._closing = threading.Event()
        self._running: Running | None = None
        self._link: Link | None = None
        self._fresh: SimpleQueue[Link] = SimpleQueue()
        self._thread = threading.Thread(target=self._keep, name=f"keep-{name}", daemon=True)
        self._thread.start()

    def link(self, timeout_s: float = 0.0) -> Link | None:
        """The socket to the newest child; None while none is there. For one thread, which alone closes sockets."""
        if self._fresh.empty() and (self._link is not None or not timeout_s):
            return self._link
        with contextlib.suppress(Empty):
            fresh = self._fresh.get(timeout=timeout_s)
            self._drop()
            self._link = fresh
        return self._link

    def restart(self) -> None:
        """End the child, of which another takes the place after a pause; for the thread that calls `link`."""
        self._drop()
        if self._running is not None:
            self._running.end()

    def close(self) -> None:
        """End the child for good."""
        self._closing.set()
        self.restart()
        self._thread.join(timeout=2.0)
        while self.link() is not None:  # one that came meanwhile
            self._drop()

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
        self._link = None

    def _keep(self) -> None:
        own = threading.get_native_id()  # a child inherits cores and priority of the thread that starts it
        with contextlib.suppress(OSError):  # where a unit has chosen both, it may forbid the calls
            os.sched_setaffinity(own, share_out_cores()[1])
            os.setpriority(os.PRIO_PROCESS, own, min(19, os.getpriority(os.PRIO_PROCESS, 0) + _NICE[self._name]))
        pause_s = _FIRST_PAUSE_S
        while not self._closing.is_set():
            began = time.monotonic()
            with contextlib.suppress(OSError):  # no process, memory or descriptor left: tried again, after a pause
                if (running := self._begin()) is None:
                    return
                self._attend(running)
            lived = time.monotonic() - began > _LONG_LIFE_S
            pause_s = _FIRST_PAUSE_S if lived else min(_LONGEST_PAUSE_S, 2 * pause_s)
            self._closing.wait(pause_s)

    def _attend(self, running: Running) -> None:
        """Hand the socket of a new child over, and wait until it has ended."""
        self.starts += 1
        running.link.send(self._settings())
        self._running = running
        self._fresh.put(running.link)
        if self._closing.is_set():
            running.end()
        running.wait()


def spawned(name: str, extra: tuple[str, ...] = ()) -> Callable[[], Running]:
    """What spawns a child, for `Child`.

    Args:
        name: Of CHILDREN.
        extra: Further arguments.
    """
    environment = {**clean_environment(os.environ), **_ONE_THREAD}

    def begin() -> Running:
        ours, theirs = Link.pair()
        process = subprocess.Popen(
            [sys.executable, "-m", CHILDREN[name], "--descriptor", str(theirs.descriptor), *extra],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs.descriptor,),
            env=environment,
            start_new_session=True,
        )
        theirs.close()
        weigh_session(process.pid, os.getpriority(os.PRIO_PROCESS, 0))  # of this thread, which the child has, too
        return Running(ours, process.kill, process.wait)

    return begin


def accepted(listening: socket.socket, closing: threading.Event) -> Callable[[], Running | None]:
    """What accepts a child that systemd started, for `Child`; it gives None once `closing` is set."""
    listening.settimeout(0.5)

    def begin() -> Running | None:
        while not closing.is_set():
            with contextlib.suppress(TimeoutError, ConnectionError):
                gone = threading.Event()
                return Running(Link(listening.accept()[0]), gone.set, gone.wait)
        return None

    return begin


def inherited_sockets() -> dict[str, socket.socket]:
    """Name of a child -> the socket on which it connects, as systemd passed them; empty where nobody did."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    return {name: socket.socket(fileno=_FIRST_DESCRIPTOR + index) for index, name in enumerate(names)}
