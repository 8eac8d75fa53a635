"""A device on a network of its own, whose only way out is a link that this process carries, packet by packet.

    device's namespace: tun 10.99.0.2 --packet--> Link --> tun 10.99.0.1 :broker's namespace --listening socket--> us
                                     lost, late or all of them, as the link is told

A thread enters a namespace and comes back; what it starts or opens there stays there. Nothing of the machine's own
network is touched, and all of it is gone with the process. It needs root, or CAP_SYS_ADMIN and CAP_NET_ADMIN, and
/dev/net/tun; no qdisc of the kernel, which many kernels do not have.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TypeVar

__all__ = ["BROKER", "DEVICE", "DeviceNetwork"]

DEVICE, BROKER = "10.99.0.2", "10.99.0.1"

_NEWNET = 0x40000000  # of linux/sched.h
_PLACE = "/proc/thread-self/ns/net"  # the namespace of the thread that opens it
_TUNSETIFF, _TUN, _NO_PI = 0x400454CA, 0x0001, 0x1000  # of linux/if_tun.h
_SETFLAGS, _SETADDRESS, _SETNETMASK, _UP = 0x8914, 0x8916, 0x891C, 0x1  # of linux/sockios.h, linux/if.h
_NETMASK = "255.255.255.252"
_PACKET = 65_536
_LOOK_S = 0.05
_Result = TypeVar("_Result")


class _Namespace:
    """A network of its own, with a way out that is a file descriptor of ours. Raises OSError where we lack a right."""

    def __init__(self, address: str) -> None:
        with _coming_back():
            _call("unshare", _NEWNET)
            self.tun = _open(address)
            self._place = os.open(_PLACE, os.O_RDONLY)

    def run(self, work: Callable[[], _Result]) -> _Result:
        """Run `work` in it, on this thread."""
        with _coming_back():
            _call("setns", self._place, _NEWNET)
            return work()

    def close(self) -> None:
        os.close(self.tun)
        os.close(self._place)


@contextmanager
def _coming_back() -> Iterator[None]:
    """Whatever happens, this thread is in the end in the namespace where it was."""
    was = os.open(_PLACE, os.O_RDONLY)
    try:
        _call("setns", was, _NEWNET)  # a kernel that cannot come back is not left
        try:
            yield
        finally:
            _call("setns", was, _NEWNET)
    finally:
        os.close(was)


def _call(name: str, *given: int) -> None:
    """A system call about this thread's namespaces. Raises OSError where it is refused."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*given):
        raise OSError(ctypes.get_errno(), f"{name} of a network namespace is refused")


def _open(address: str) -> int:
    """Give this thread's namespace `address` and the loopback interface; returns the way out."""
    with suppress(OSError):  # a kernel without IPv6
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH14x", b"out", _TUN | _NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for call, text in ((_SETADDRESS, address), (_SETNETMASK, _NETMASK)):
            where = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(text))
            fcntl.ioctl(control, call, struct.pack("16s16s8x", b"out", where))
        for name in (b"lo", b"out"):
            fcntl.ioctl(control, _SETFLAGS, struct.pack("16sH22x", name, _UP))
    return tun


class DeviceNetwork:
    """Two namespaces and the link between them, as a context manager.

    Args:
        seed: Of which packets are lost.
        keep: Keep every packet.

    Attributes:
        loss: Share of the packets that are lost, each way.
        delay_s: From the device to the broker.
        dark: Every packet is lost, and nobody is told.
        dropped: Packets that were lost so far.
        kept: With `keep`, every packet of the device's, whether it was lost or not, and its direction: True from it.

    Raises:
        OSError: A namespace or a tun device cannot be had.
    """

    def __init__(self, seed: int, keep: bool = False) -> None:
        self.kept, self._keep = list[tuple[bool, bytes]](), keep
        self.loss, self.delay_s, self.dark, self.dropped = 0.0, 0.0, False, 0
        self._rng = random.Random(seed)
        self._device, self._broker = _Namespace(DEVICE), _Namespace(BROKER)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._carry, name="link", daemon=True)

    def in_device(self, work: Callable[[], _Result]) -> _Result:
        """Run `work` where the device is: what it starts has no other way out."""
        return self._device.run(work)

    def listen(self) -> socket.socket:
        """A listening socket that the device reaches at BROKER over the link."""
        return self._broker.run(lambda: socket.create_server((BROKER, 0)))

    def _carry(self) -> None:
        device, broker = self._device.tun, self._broker.tun
        waiting: list[tuple[float, int, int, bytes]] = []  # due, number, to, packet
        number = 0
        while not self._stopping.is_set():
            left_s = min([_LOOK_S, *(each[0] - time.monotonic() for each in waiting[:1])])
            for tun in select.select([device, broker], [], [], max(0.0, left_s))[0]:
                packet, number = os.read(tun, _PACKET), number + 1
                if self._keep:
                    self.kept.append((tun == device, packet))
                if self.dark or self._rng.random() < self.loss:
                    self.dropped += 1
                    continue
                to, late_s = (broker, self.delay_s) if tun == device else (device, 0.0)
                heapq.heappush(waiting, (time.monotonic() + late_s, number, to, packet))
            while waiting and waiting[0][0] <= time.monotonic():
                with suppress(OSError):  # no IPv4 packet
                    os.write(waiting[0][2], waiting[0][3])
                heapq.heappop(waiting)

    def __enter__(self) -> DeviceNetwork:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()
        self._device.close()
        self._broker.close()
