"""What tests share: the real things they may use (a broker, an encoder, clips), or the reason they skip."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def find(command: str) -> str:
    """The path of `command`; skips the test where it is not installed."""
    path = shutil.which(command, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None:
        pytest.skip(f"{command} is not installed")
    return path


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with clips/manifest.csv: VEILSIGHT_DATA, or ../shared/data beside the project."""
    folder = Path(os.environ.get("VEILSIGHT_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "clips" / "manifest.csv").is_file():
        pytest.skip(f"no real clips: {folder}/clips/manifest.csv is missing (set VEILSIGHT_DATA)")
    return folder


@pytest.fixture(scope="session")
def have() -> Callable[[str], str]:
    """`have("node")` is the path of a command; the test skips where it is not installed."""
    return find


@pytest.fixture(scope="session")
def ffmpeg() -> str:
    """The path of ffmpeg."""
    return find("ffmpeg")


def free_port() -> int:
    """A loopback TCP port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_for_port(port: int, process: subprocess.Popen[bytes], seconds: float = 10.0) -> None:
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
        self._process.wait(timeout=60)  # a busy machine's
        self._process = None


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A running Mosquitto that the test may stop and start again."""
    broker = Broker(find("mosquitto"), tmp_path)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def mosquitto(broker: Broker) -> int:
    """The loopback port of a running Mosquitto."""
    return broker.port
