"""MQTT brokers for the demo, the benchmarks and the tests: an embedded one, a real one, a tap on the wire.

    EmbeddedBroker  amqtt in a process of its own; pure Python, loopback only; for runs that must need no server
    Mosquitto       the broker that users have; for benchmarks and tests
    Tap             a TCP relay before either that counts bytes, MQTT packets and, where the kernel can, IP packets

A broker holds one loopback port for as long as it lives and can be stopped and started again on it.
`python -m benchmarks.broker PORT` is the embedded broker itself; it ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from wire.errors import BrokerError

if TYPE_CHECKING:
    import paho.mqtt.client as mqtt

__all__ = [
    "ANSWERS_ALONE",
    "ROOT",
    "Broker",
    "EmbeddedBroker",
    "Mosquitto",
    "Tap",
    "child_env",
    "end",
    "find_mosquitto",
    "free_port",
    "held_ports",
    "main",
]

ROOT = Path(__file__).resolve().parent.parent
"""The project's root, where `python -m PACKAGE` finds our packages."""

ANSWERS_ALONE = "import os, sys; answers = os.fdopen(os.dup(1), 'wb'); os.dup2(2, 1)"
"""First line of a child that answers by its standard output: native code that prints there (OpenCV's FFmpeg does, where
it is asked to be loud) writes to standard error, and only `answers` reaches who asks."""

_SO_TIMESTAMPING, _BY_THE_KERNEL = 37, 1 << 3 | 1 << 4  # of linux/net_tstamp.h: as received, in software
_START_S = 20.0
_STOP_S = 5.0


class Broker(Protocol):
    """What listens on `port` of 127.0.0.1."""

    @property
    def port(self) -> int: ...


def free_port() -> int:
    """A loopback TCP port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def held_ports(count: int) -> Iterator[Sequence[int]]:
    """Loopback ports that servers may listen on within the block, again and again, and that no connection gets."""
    with ExitStack() as stack:
        holders = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in holders:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind(("127.0.0.1", 0))
        yield [int(each.getsockname()[1]) for each in holders]


def end(client: mqtt.Client) -> None:
    """Disconnect a client of paho, wait for its thread, and close the socket that it may leave to the collector."""
    client.disconnect()
    client.loop_stop()
    if (left := client.socket()) is not None:
        left.close()


def child_env(**extra: str) -> dict[str, str]:
    """The environment for a child that runs one of our packages from any working directory; `extra` overrides."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **extra}


def find_mosquitto() -> str | None:
    """The path of mosquitto, or None where it is not installed."""
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class _BrokerProcess:
    """A broker in a child process, started on entry; a subclass says which command line."""

    def __init__(self, folder: Path) -> None:
        self._held = ExitStack()
        (self.port,) = self._held.enter_context(held_ports(1))
        self._log = folder / f"broker-{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def _command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until it accepts connections. Raises BrokerError with its output when it does not."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.PIPE, stdout=log, stderr=log, env=child_env()
            )
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        self.stop()
        raise BrokerError(f"the broker did not start:\n{self._log.read_text(errors='replace')}")

    def stop(self) -> None:
        """Stop it; its clients lose their connections."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin:
            process.stdin.close()
        process.terminate()
        try:
            process.wait(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> _BrokerProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._held.close()


class EmbeddedBroker(_BrokerProcess):
    """A broker that needs nothing installed but our own packages."""

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "benchmarks.broker", str(self.port)]


class Mosquitto(_BrokerProcess):
    """A real Mosquitto. Raises BrokerError where it is not installed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        binary = find_mosquitto()
        if binary is None:
            raise BrokerError("mosquitto is not installed; apt-get install mosquitto, or use the embedded broker")
        self._binary = binary
        self._config = folder / f"mosquitto-{self.port}.conf"
        # No limit on what waits for a subscriber: a benchmark counts messages, it must not lose them to a default.
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"
            "log_type error\nlog_type warning\n"
        )

    def _command(self) -> list[str]:
        return [self._binary, "-c", str(self._config)]


def _seconds(stamp: bytes) -> float:
    """The first of a `struct scm_timestamping`."""
    seconds, nanoseconds = struct.unpack_from("qq", stamp)
    return float(seconds + nanoseconds * 1e-9)


class Tap:
    """Relays connections on its own `port` to a broker and counts what passes in each direction.

    `up` is from the client to the broker, `down` the other way. Counts are over all connections since the start.
    With `keep`, `sent` holds every byte that clients sent, in the order it came, and `released` when the kernel got
    each release: unlike the time at which a listener is told of it, it owes nothing to other processes here.
    `server` is a listening socket to be used in place of one on the loopback interface.
    """

    def __init__(self, broker: Broker, keep: bool = False, server: socket.socket | None = None) -> None:
        self.sent, self.released = bytearray(), list[float]()
        self._keep = keep
        self._broker = broker
        self._server = server or socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._live: dict[socket.socket, tuple[int, int]] = {}

    def counts(self) -> Mapping[str, int]:
        """bytes_up, bytes_down (TCP payload), chunks_up, chunks_down (reads), segments_up, segments_down (IP packets).

        Segments, bare acknowledgements included, are the kernel's own count (TCP_INFO); absent where it gives none.
        """
        with self._lock:
            total = Counter(self._counts)
            for side in self._live:
                total.update(_segments(side))
        return dict(total)

    def _accept(self) -> None:
        while not self._stopping.is_set():
            ready, _, _ = select.select([self._server], [], [], 0.1)
            if ready:
                client, _ = self._server.accept()
                thread = threading.Thread(target=self._relay, args=(client,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _relay(self, client: socket.socket) -> None:
        with client:
            try:
                upstream = socket.create_connection(("127.0.0.1", self._broker.port), timeout=5)
            except OSError:
                return  # the broker is away: the client sees its connection end, as it would without us
            with upstream:
                for side in (client, upstream):
                    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._live[client] = (0, 0)
                try:
                    self._pump(client, upstream)
                finally:
                    with self._lock:
                        self._live.pop(client, None)
                        self._counts.update(_segments(client))

    def _pump(self, client: socket.socket, upstream: socket.socket) -> None:
        routes = {client: (upstream, "up"), upstream: (client, "down")}
        if self._keep:
            client.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _BY_THE_KERNEL)
        while not self._stopping.is_set():
            ready, _, _ = select.select(list(routes), [], [], 0.1)
            for source in ready:
                target, way = routes[source]
                try:
                    data, beside, _, _ = source.recvmsg(65536, 1024)
                    if not data:
                        return
                    with self._lock:  # before it is relayed: whoever receives it finds it counted
                        self._counts.update({f"bytes_{way}": len(data), f"chunks_{way}": 1})
                        if self._keep and way == "up":
                            self.sent += data
                            stamps = [_seconds(stamp) for _, kind, stamp in beside if kind == _SO_TIMESTAMPING]
                            self.released += stamps[:1] * data.count(b"/features")
                    target.sendall(data)
                except OSError:
                    return

    def __enter__(self) -> Tap:
        thread = threading.Thread(target=self._accept, daemon=True)
        self._threads.append(thread)
        thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=2)
        self._server.close()


_SEGS_OUT = 136  # offset of tcpi_segs_out, then tcpi_segs_in (uint32 each), in Linux's struct tcp_info since 4.2


def _segments(client: socket.socket) -> dict[str, int]:
    """IP packets that the kernel has sent to and received from the client on this connection."""
    option = getattr(socket, "TCP_INFO", None)
    if option is None or not sys.platform.startswith("linux"):
        return {}
    try:
        info = client.getsockopt(socket.IPPROTO_TCP, option, 256)
    except OSError:
        return {}
    if len(info) < _SEGS_OUT + 8:
        return {}
    sent, received = struct.unpack_from("=II", info, _SEGS_OUT)
    return {"segments_down": sent, "segments_up": received}


_CONNECT = 12  # no CONNECT is shorter, and its protocol level lies within
_UNSUPPORTED_VERSION = b"\x20\x03\x00\x84\x00"  # CONNACK of MQTT 5: unsupported protocol version, no properties


async def _serve(port: int) -> None:
    # amqtt is imported by the broker's own process alone: nothing else of ours needs it
    from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
    from amqtt.broker import Broker as Amqtt
    from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType, default_broker_plugins

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Refuse MQTT 5, which amqtt leaves without a reply: it speaks 3.1.1 alone."""
        try:
            head = await asyncio.wait_for(reader.readexactly(_CONNECT), _START_S)
        except (asyncio.IncompleteReadError, TimeoutError, ConnectionError):
            writer.close()
            return
        if b"MQTT\x05" in head:
            writer.write(_UNSUPPORTED_VERSION)
            writer.close()
            return
        again = asyncio.StreamReader()
        again.feed_data(head)
        pump = asyncio.create_task(_copy(reader, again))
        await broker.external_connected(StreamReaderAdapter(again), StreamWriterAdapter(writer), "default")
        pump.cancel()

    # Of its default plugins the one that lets clients in: loopback only, and payloads are signed by their writers.
    plugins: dict[str, Any] = {name: options for name, options in default_broker_plugins().items() if "auth" in name}
    listener = ListenerConfig(type=ListenerType.EXTERNAL, bind="127.0.0.1")
    broker = Amqtt(BrokerConfig(listeners={"default": listener}, plugins=plugins))
    await broker.start()
    server = await asyncio.start_server(connected, "127.0.0.1", port)
    async with server:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamReader) -> None:
    """Feed `target` with what comes from `source`, to its end."""
    try:
        while data := await source.read(65536):
            target.feed_data(data)
    except ConnectionError:
        pass  # the client went away; the end is passed on below
    target.feed_eof()


def main(argv: list[str] | None = None) -> int:
    """The embedded broker on the loopback port given; returns when standard input ends."""
    (port,) = argv if argv is not None else sys.argv[1:]
    logging.disable(logging.ERROR)  # a client that goes away is no news here
    asyncio.run(_serve(int(port)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
