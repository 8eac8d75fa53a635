"""The socket between the gate and one of its children: datagrams of fixed size, in both directions, and nothing else.

    gate --settings (JSON, once), a question a slot--> child          child --an answer a slot--> gate

A sequenced-packet socket keeps datagrams apart, so a receiver knows the length of each. Nobody waits to send: where the
other side does not read, the datagram is lost. File descriptors that come with one are closed by the kernel.
"""

from __future__ import annotations

import contextlib
import select
import socket
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wire.errors import ConfigError

__all__ = ["MAX_SETTINGS", "Link"]

MAX_SETTINGS = 16 * 1024
"""Most bytes of a child's settings."""

_STALE = 64  # old datagrams that a reader drops at once; a child that left more is not reading our questions


class Link:
    """One end of the socket."""

    def __init__(self, end: socket.socket) -> None:
        self._socket, self._poll = end, select.poll()
        self._poll.register(end, select.POLLIN)
        end.setblocking(False)

    @classmethod
    def pair(cls) -> tuple[Link, Link]:
        """The two ends of a new socket."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    @classmethod
    def of_descriptor(cls, descriptor: int) -> Link:
        """The end that a process inherited as a file descriptor."""
        return cls(socket.socket(fileno=descriptor))

    @classmethod
    def connect(cls, path: Path | str) -> Link:
        """Connect to the gate's socket at `path`. Raises ConfigError where nobody listens there."""
        end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            end.connect(str(path))
        except OSError as error:
            end.close()
            raise ConfigError(f"{path}: {error.strerror}; start veilsight-gate, which listens there") from error
        return cls(end)

    @property
    def descriptor(self) -> int:
        """The file descriptor; -1 after `close`."""
        return self._socket.fileno()

    def send(self, data: bytes | npt.NDArray[np.uint8]) -> bool:
        """Send a datagram; False where the other side is gone or does not read."""
        try:
            self._socket.send(data if isinstance(data, bytes) else data.data)
        except OSError:
            return False
        return True

    def receive(self, into: npt.NDArray[np.uint8], timeout_s: float = 0.0) -> int:
        """Receive a datagram into `into`, which is one byte longer than the longest that is expected.

        Returns:
            Its length in bytes; a longer one fills `into`. 0: the other side is gone. -1: nothing came in time.
        """
        if not self._poll.poll(timeout_s * 1000):
            return -1
        try:
            return self._socket.recv_into(into.data)
        except OSError:
            return 0

    def drain(self, into: npt.NDArray[np.uint8]) -> bool:
        """Drop what has come so far, by way of `into`; False where the other side is gone or never stops sending."""
        for _ in range(_STALE):
            if (length := self.receive(into)) <= 0:
                return length < 0
        return False

    def newest(self, into: npt.NDArray[np.uint8], timeout_s: float) -> int:
        """Receive the last datagram of those that wait, as `receive`; older ones are dropped."""
        length = newer = self.receive(into, timeout_s)
        while newer > 0:
            length, newer = newer, self.receive(into)
        return newer if newer == 0 else length

    def close(self) -> None:
        """Close this end; the other side then receives 0."""
        with contextlib.suppress(OSError):
            self._socket.close()
