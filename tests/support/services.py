"""Real services that tests start: ports, brokers, listeners; and how long a test waits for them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.broker import end

__all__ = ["PATIENCE_S", "ROOT", "Broker", "Listener", "find", "free_port", "until", "wait_for_port"]

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 300.0
"""How long a test waits for an event that must come. Only a failing test waits so long."""


def find(command: str) -> str:
    """The path of `command`; skips the test where it is not installed."""
    path = shutil.which(command, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None:
        pytest.skip(f"{command} is not installed")
    return path


def free_port() -> int:
    """A loopback TCP port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_for_port(port: int, process: subprocess.Popen[bytes], seconds: float = PATIENCE_S) -> None:
    """Return once `port` accepts connections; raises RuntimeError when `process` ends or time runs out."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(0.2)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"nothing listens on port {port} after {seconds} s (exit code {process.poll()})")


class Broker:
    """A real Mosquitto on one loopback port that a test can stop and start again."""

    def __init__(self, binary: str, folder: Path) -> None:
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        self._process = subprocess.Popen(
            [self._binary, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_port(self.port, self._process)

    def stop(self) -> None:
        """Stop it; its clients lose their connections."""
        if self._process is None:
            return
        self._process.terminate()
        self._process.wait(timeout=PATIENCE_S)
        self._process = None


def until(holds: Callable[[], Any], seconds: float = PATIENCE_S) -> None:
    """Return as soon as `holds()` is true; fails the test when that takes longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.01)


class Listener:
    """Everything that a broker delivers, with whether it was retained."""

    def __init__(self, port: int) -> None:
        self.messages: list[tuple[str, bytes, bool]] = []
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_message = lambda _c, _d, m: self.messages.append((m.topic, bytes(m.payload), m.retain))
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def of(self, name: str) -> list[bytes]:
        return [payload for topic, payload, _ in self.messages if topic.endswith(f"/{name}")]

    def states(self) -> list[tuple[str, str]]:
        return [(s["status"], s["reason"]) for s in map(json.loads, self.of("state"))]

    def close(self) -> None:
        end(self._client)
