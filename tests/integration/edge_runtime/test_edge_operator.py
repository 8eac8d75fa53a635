"""What an operator sees of the process: no password anywhere, its version, its log and its end."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.journal import JournalFormatter
from tests.support.camera_servers import refusing_rtsp
from tests.support.engine_factory import make_edge_config, make_engine
from tests.support.services import PATIENCE_S, ROOT, Broker, Listener, free_port, until
from wire import __version__

COMMAND = (sys.executable, "-m", "edge_runtime")


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The process, to its end."""
    given = {**os.environ, **env}
    return subprocess.run(
        [*COMMAND, *arguments], cwd=ROOT, env=given, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize(
    "source",
    [
        "rtsp://admin:1/SuperSecret@127.0.0.1:9/x",
        "rtsp://admin:1#SuperSecret@127.0.0.1:9/x",
        "rtsp://admin:Super@Secret@127.0.0.1:9/x",
        "rtsp://[SuperSecret:9/x",
    ],
)
@pytest.mark.parametrize("where", ["config", "command", "check"])
def test_an_address_that_cannot_be_parsed_is_refused_in_one_line(tmp_path: Path, source: str, where: str) -> None:
    make_engine(tmp_path / "engine", slot_s=0.1)
    own = source if where != "command" else "synthetic://walk"
    config = make_edge_config(tmp_path, engine=tmp_path / "engine", port=free_port(), source=own, windows=3)
    more = {"config": [], "command": ["--source", source], "check": ["--check"]}[where]
    done = run("--config", str(config), *more)
    assert done.returncode == 2
    assert "Secret" not in done.stdout + done.stderr and "admin" not in done.stdout + done.stderr
    assert len(lines(done.stderr)) == 1 or where == "check"
    assert "Traceback" not in done.stderr


def test_a_brokers_address_that_cannot_be_parsed_is_not_shown(tmp_path: Path) -> None:
    make_engine(tmp_path / "engine", slot_s=0.1)
    for url in ("mqtt://me:SuperSecret", "mqtt://me#SuperSecret", "mqtt://me:1/SuperSecret@host"):
        config = make_edge_config(tmp_path, engine=tmp_path / "engine", broker={"url": url})
        done = run("--config", str(config))
        assert done.returncode == 2 and "[broker] url" in done.stderr and len(lines(done.stderr)) == 1
        assert "Secret" not in done.stderr


def test_a_password_is_in_no_log_page_message_or_process_title(
    tmp_path: Path, mosquitto: int, listener: Listener
) -> None:
    make_engine(tmp_path / "engine", slot_s=0.1)
    page = free_port()
    with refusing_rtsp("401 Unauthorized") as (port, asked):
        source = f"rtsp://admin:Super%2FSecret@127.0.0.1:{port}/user=admin&password=SuperSecret"
        config = make_edge_config(
            tmp_path, engine=tmp_path / "engine", port=mosquitto, source=source, health={"listen": f":{page}"}
        )
        process = subprocess.Popen([*COMMAND, "--config", str(config)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        until(lambda: asked and len(listener.of("features")) > 10)
        family = f"/proc/{process.pid}/task/*/children"
        found = [process.pid, *(int(pid) for file in Path("/").glob(family[1:]) for pid in file.read_text().split())]
        assert len(found) >= 3
        titles = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in found)
        health = urllib.request.urlopen(f"http://127.0.0.1:{page}/health", timeout=PATIENCE_S).read()
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=PATIENCE_S)
    sent = b"".join(topic.encode() + payload for topic, payload, _ in listener.messages)
    assert b"Secret" not in titles + health + log.encode() + sent
    assert "rtsp://127.0.0.1" in log  # scheme, host and port are shown


def test_a_check_names_the_reason_and_fails(tmp_path: Path) -> None:
    make_engine(tmp_path / "engine", slot_s=0.1)
    with refusing_rtsp("401 Unauthorized") as (port, _):
        source = f"rtsp://admin:SuperSecret@127.0.0.1:{port}/x"
        config = make_edge_config(tmp_path, engine=tmp_path / "engine", port=free_port(), source=source)
        done = run("--config", str(config), "--check")
    assert done.returncode == 2
    assert f"rtsp://127.0.0.1:{port}: refuses user and password (401 or 403)" in done.stdout
    assert "Secret" not in done.stdout + done.stderr


def test_the_version_is_told() -> None:
    assert run("--version").stdout.strip() == f"veilsight {__version__}"


def test_the_log_tells_of_the_connection_and_obeys_its_level(tmp_path: Path, mosquitto: int) -> None:
    make_engine(tmp_path / "engine", slot_s=0.1)
    config = make_edge_config(tmp_path, engine=tmp_path / "engine", port=mosquitto, windows=3)
    assert f"broker 127.0.0.1:{mosquitto}: connected" in run("--config", str(config)).stderr
    assert lines(run("--config", str(config), "--log-level", "error").stderr) == []


def test_the_journal_gets_a_priority_for_every_line() -> None:
    def shown(level: int) -> str:
        return JournalFormatter("%(message)s").format(logging.LogRecord("x", level, "", 0, "one\ntwo", None, None))

    assert shown(logging.ERROR) == "<3>one\n<3>two"
    assert [shown(level)[:3] for level in (logging.WARNING, logging.INFO, logging.DEBUG)] == ["<4>", "<6>", "<7>"]


def test_a_process_whose_standard_error_is_the_journal_writes_priorities(tmp_path: Path) -> None:
    code = (
        "import os, sys; from edge_runtime.__main__ import *; found = os.fstat(2); "
        "os.environ['JOURNAL_STREAM'] = f'{found.st_dev}:{found.st_ino}'; "
        "from edge_runtime.app import main; sys.exit(main(['--config', '/nowhere/edge.toml']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.startswith("<3>veilsight: /nowhere/edge.toml: ")


def test_a_halted_broker_does_not_delay_the_end(tmp_path: Path, broker: Broker) -> None:
    """It took 10.3 s, and systemd killed the process."""
    make_engine(tmp_path / "engine", slot_s=0.1)
    path = str(tmp_path / "notify")
    told: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        listener = Listener(broker.port)
        config = make_edge_config(tmp_path, engine=tmp_path / "engine", port=broker.port)
        environment = {**os.environ, "NOTIFY_SOCKET": path}
        process = subprocess.Popen(
            [*COMMAND, "--config", str(config)], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
        )
        until(lambda: len(listener.of("features")) >= 3)
        halted: Any = broker._process
        halted.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=PATIENCE_S)
        took_s = time.monotonic() - began
        halted.send_signal(signal.SIGCONT)
        systemd.setblocking(False)
        while True:
            try:
                told.append(systemd.recv(256))
            except BlockingIOError:
                break
    listener.close()
    assert process.returncode == 0, log
    assert took_s < 60, json.dumps(took_s)  # 3 s here: the sum of its waits is tested in test_edge_brokers.py
    print(f"took {took_s:.1f} s")
    assert told[0] == b"READY=1" and told[-1] == b"STOPPING=1"
