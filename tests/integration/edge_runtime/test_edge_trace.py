"""A day in miniature, traced: only TLS to the broker leaves, and nothing is written outside of the state folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.broker import find_mosquitto
from benchmarks.device import trace
from benchmarks.device.device_network import DeviceNetwork
from tests.support.engine_factory import make_engine

pytestmark = pytest.mark.slow

# A device as an attacker would change it: it writes a file elsewhere, asks a name server, and speaks to the broker
# without TLS. Each is tried once, and what it runs then is the device.
TELLING = """
import socket, sys
open(sys.argv[1], "w").write("seen")
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
    out.sendto(b"who is there", ("10.99.0.1", 53))
with socket.create_connection(("10.99.0.1", int(sys.argv[2]))) as plain:
    plain.sendall(b"veilsight/v1/site/camera/features in clear")
from edge_runtime.app import main
sys.exit(main(sys.argv[3:]))
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """An engine's folder, where a trace can be made."""
    if os.geteuid() or find_mosquitto() is None or shutil.which("strace") is None:
        pytest.skip("a trace needs root, Mosquitto and strace")
    try:
        with DeviceNetwork(0):
            pass
    except OSError as error:
        pytest.skip(f"a trace needs a network of the device's own: {error}")
    make_engine(tmp_path / "engine", slot_s=0.2)
    return tmp_path


def traced(here: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    status = trace.COMMAND.main(["--engine", str(here / "engine"), "--seconds", "30"])
    printed, complaint = capsys.readouterr()
    assert printed, complaint
    return status, json.loads(printed.strip().splitlines()[-1])["figures"]


def test_only_tls_to_the_broker_leaves_and_nothing_is_written_elsewhere(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, figures = traced(here, capsys)
    assert (status, figures["wrong"]) == (0, [])
    assert figures["starts"] == 3 and figures["connections"] >= 4 and figures["tls_records"] > 100
    assert figures["in_the_folder"] > 20 and figures["releases"] > 30


def test_a_device_that_tells_is_caught(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = here / "secret"

    def telling(day: Any, config: Path) -> list[str]:
        return ["-c", TELLING, str(secret), str(day.gateway.port), "--config", str(config)]

    monkeypatch.setattr(trace._Day, "command", telling)
    status, figures = traced(here, capsys)
    assert status == 1 and secret.read_text() == "seen"
    for words in (f"openat of {secret}", "a packet to 10.99.0.1:53", "sendto to 10.99.0.1:53", "which is no TLS"):
        assert any(words in each for each in figures["wrong"]), (words, figures["wrong"])
