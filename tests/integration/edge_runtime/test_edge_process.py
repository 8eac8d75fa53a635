"""The process from the operator's side: exit codes, a clear message for bad input, the local page, systemd."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_runtime import app as process
from edge_runtime.health import Health, chip_figures, notify
from edge_runtime.uplink import publisher as publisher_module
from tests.support.engine_factory import make_edge_config, make_engine
from tests.support.services import PATIENCE_S, ROOT, Listener, free_port, until
from wire.errors import ConfigError
from wire.protocol.keys import PublicKey
from wire.protocol.message import open_features, open_verdict
from wire.protocol.state import open_state


@pytest.fixture(autouse=True)
def keep_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process sets signal handlers; in tests they stay pytest's."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)


def start(config: Path, *more: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "edge_runtime", "--config", str(config), *more],
        cwd=ROOT,
        env={**os.environ, **env},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("person_frame", [None, (96, 128)])
def test_a_clip_is_released_to_its_end(
    tmp_path: Path, mosquitto: int, listener: Listener, person_frame: tuple[int, int] | None
) -> None:
    cv2 = pytest.importorskip("cv2")
    np = pytest.importorskip("numpy")
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for k in range(50):
        writer.write(np.full((48, 64, 3), 40 + 2 * k, np.uint8))
    writer.release()
    manifest = make_engine(tmp_path / "engine", slot_s=0.2, person_frame=person_frame)
    config = make_edge_config(tmp_path, engine=tmp_path / "engine", source="none.avi", port=mosquitto)
    summary = tmp_path / "summary.json"
    run = start(config, "--source", str(clip), "--summary", str(summary))
    _, output = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, output
    assert "ERROR" not in output
    until(lambda: len(listener.states()) == 2)
    assert listener.states() == [("online", ""), ("offline", "end of source")]
    figures = json.loads(summary.read_text())
    first = listener.of("state")[0]
    assert set(json.loads(first)) == {
        *("status", "reason", "boot_id", "model_id", "started_at", "slot_s", "public_key", "software"),
        *("profile", "blind", "watching", "certificate", "count", "schema", "signature"),
    }
    key = PublicKey.parse(json.loads(first)["public_key"])
    state = open_state(first, key, "lab", "door").fields
    releases = [open_features(p, key, "lab", "door", manifest.n, manifest.model_id) for p in listener.of("features")]
    slots = [r.slot for r in releases]
    assert slots == sorted(set(slots))
    count = manifest.window.releases_of(2.0)  # of the clip, and until its last picture has left the receptive field
    assert 0 <= slots[-1] - (count - 1) <= figures["eye"]["missed"]  # 0, unless the eye's last answer is late
    assert len(slots) + figures["clock"]["skipped_slots"] == slots[-1] + 1  # 0, unless the machine stalls
    assert {r.boot_id for r in releases} == {state["boot_id"]}
    assert state["boot_id"] >> 32 == 1
    verdicts = [open_verdict(p, key, "lab", "door", manifest.model_id) for p in listener.of("verdict/edge")]
    assert [v.last_slot for v in verdicts] == [slot for slot in slots if slot >= 7]
    assert listener.of("certificate") == [(tmp_path / "engine" / "certificate.json").read_bytes()]
    assert figures["loop"]["windows"] == len(slots)
    assert figures["ledger"]["releases_total"] >= len(slots)
    assert figures["loop"]["latency_ms_p50"] >= 100


def test_a_stop_is_published_and_ends_cleanly(tmp_path: Path, mosquitto: int, listener: Listener) -> None:
    make_engine(tmp_path / "engine", slot_s=0.1)
    run = start(make_edge_config(tmp_path, engine=tmp_path / "engine", port=mosquitto))
    until(lambda: len(listener.of("features")) >= 3)
    run.send_signal(signal.SIGTERM)
    _, output = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, output
    until(lambda: ("offline", "stopped") in listener.states())


def bad_engine(tmp_path: Path) -> Path:
    make_engine(tmp_path / "engine", slot_s=0.1)
    return tmp_path / "engine"


def spoil_hash(tmp_path: Path) -> str:
    graph = bad_engine(tmp_path) / "encode.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    return "encode.onnx: sha256"


def spoil_certificate(tmp_path: Path) -> str:
    folder = bad_engine(tmp_path)
    (folder / "certificate.json").write_text((folder / "certificate.json").read_text().replace("1.0", "0.9", 1))
    return "certificate.json"


def spoil_manifest(tmp_path: Path) -> str:
    folder = bad_engine(tmp_path)
    document = json.loads((folder / "manifest.json").read_text())
    document["clip_norm"] = 1 << 14
    (folder / "manifest.json").write_text(json.dumps(document))
    return "does not fit in int32"


def spoil_core(tmp_path: Path) -> str:
    make_engine(tmp_path / "engine", slot_s=0.1, core="no clip")
    return "the engine cannot be loaded; to see why, add --check"


def spoil_ledger(tmp_path: Path) -> str:
    bad_engine(tmp_path)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "ledger.json").write_text("{}")
    return "ledger.json"


def spoil_key(tmp_path: Path) -> str:
    bad_engine(tmp_path)
    (tmp_path / "device.key").write_bytes(bytes(32))
    (tmp_path / "device.key").chmod(0o644)
    return "chmod 600"


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (spoil_hash, 2),
        (spoil_certificate, 2),
        (spoil_manifest, 2),
        (spoil_key, 2),
        (spoil_core, 2),
        (spoil_ledger, 3),
    ],
)
def test_a_bad_start_publishes_nothing(
    tmp_path: Path, mosquitto: int, listener: Listener, caplog: pytest.LogCaptureFixture, spoil: Any, code: int
) -> None:
    message = spoil(tmp_path)
    config = make_edge_config(tmp_path, engine=tmp_path / "engine", port=mosquitto, windows=3)
    assert process.main(["--config", str(config)]) == code
    assert message in caplog.text
    assert listener.messages == []


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"camera": {"sourc": "x"}}, "[camera] sourc is unknown; did you mean [camera] source"),
        ({"camera": {"source": "none.mp4"}}, "none.mp4: no such file"),
        ({"broker": {"url": "127.0.0.1"}}, "mqtt://HOST"),
        ({"health": {"listen": "nonsense"}}, "[health] listen"),
    ],
)
def test_bad_input_is_reported_and_ends_with_code_2(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, sections: dict[str, Any], message: str
) -> None:
    config = make_edge_config(tmp_path, engine=bad_engine(tmp_path), port=free_port(), **sections)
    assert process.main(["--config", str(config)]) == 2
    assert message in caplog.text


def test_a_missing_engine_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = make_edge_config(tmp_path, engine=tmp_path / "nowhere", port=free_port())
    assert process.main(["--config", str(config)]) == 2
    assert "nowhere/manifest.json" in caplog.text
    assert "export.build_engine" in caplog.text


def test_an_unreachable_broker_ends_with_code_2_where_it_is_required(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "_PATIENCE_S", 0.5)
    port = free_port()
    config = make_edge_config(tmp_path, engine=bad_engine(tmp_path), port=port, broker={"required": True})
    assert process.main(["--config", str(config)]) == 2
    assert f"broker 127.0.0.1:{port} cannot be reached" in caplog.text


def test_a_lost_camera_starts_the_eye_anew_and_no_slot_is_missing(tmp_path: Path) -> None:
    config = make_edge_config(
        tmp_path,
        engine=bad_engine(tmp_path),
        port=free_port(),
        source="rtsp://127.0.0.1:1/none",
        camera={"lost_after_s": 0.3, "timeout_s": 0.2},
        run={"windows": 50},
    )
    assert process.main(["--config", str(config), "--summary", str(tmp_path / "summary.json")]) == 0
    figures = json.loads((tmp_path / "summary.json").read_text())
    assert figures["loop"]["windows"] == 50
    assert figures["eye"]["starts"] > 1


def test_an_eye_that_is_killed_again_and_again_costs_no_slot(
    tmp_path: Path, mosquitto: int, listener: Listener
) -> None:
    """Not one message is missing, and all have one size; what is lost is what those slots would have shown."""
    manifest = make_engine(tmp_path / "engine", slot_s=0.1)
    run = start(make_edge_config(tmp_path, engine=tmp_path / "engine", port=mosquitto, windows=60))
    kills = 0
    until(lambda: len(listener.of("features")) >= 3)
    while run.poll() is None:
        time.sleep(0.3)
        for pid in children(run.pid, "edge_runtime.eye.process"):
            os.kill(pid, signal.SIGKILL)
            kills += 1
    _, output = run.communicate()
    assert run.returncode == 0, output
    assert kills > 1
    key = PublicKey.parse(str(tmp_path / "device.key.pub"))
    sent = listener.of("features")
    slots = [open_features(p, key, "lab", "door", manifest.n, manifest.model_id).slot for p in sent]
    assert len(slots) == 60
    assert slots == sorted(set(slots))
    assert len({len(payload) for payload in sent}) == 1


@contextlib.contextmanager
def units_of(name: str, path: Path) -> Iterator[None]:
    """A child as its unit starts it: again whenever it ends, with the unit's environment and nothing of ours."""
    unit = (ROOT / f"firmware_configs/packages/units/lib/systemd/system/veilsight-{name}.service").read_text()
    lines = [line.partition("=")[2] for line in unit.splitlines() if line.startswith("Environment=")]
    variables = dict(pair.split("=", 1) for line in lines for pair in line.split())
    environment = {**variables, "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", f"edge_runtime.{name}.process", "--socket", str(path)]
    stop = threading.Event()

    def keep() -> None:
        while not stop.is_set():
            subprocess.run(command, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL, check=False)
            stop.wait(0.1)

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    yield
    stop.set()
    thread.join(PATIENCE_S)


def test_children_that_systemd_starts_connect_to_the_sockets_that_it_gave_to_the_gate(
    tmp_path: Path, mosquitto: int, listener: Listener
) -> None:
    """As on a device: the gate starts nobody. One that ends is accepted again."""
    make_engine(tmp_path / "engine", slot_s=0.2)
    config = make_edge_config(tmp_path, engine=tmp_path / "engine", port=mosquitto, windows=60)
    summary = tmp_path / "summary.json"
    with contextlib.ExitStack() as stack:
        sockets = []
        for name in ("eye", "reader"):
            socket_ = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            socket_.bind(str(tmp_path / f"{name}.sock"))
            socket_.listen(1)
            sockets.append(socket_)
        passed = " ".join(f"{3 + k}<&{each.fileno()}" for k, each in enumerate(sockets))
        run = subprocess.Popen(
            ["bash", "-c", f'LISTEN_PID=$$ exec {sys.executable} -m edge_runtime "$@" {passed}', "gate"]
            + ["--config", str(config), "--summary", str(summary)],
            cwd=ROOT,
            env={**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "eye:reader"},
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=[each.fileno() for each in sockets],
        )
        for name in ("eye", "reader"):
            stack.enter_context(units_of(name, tmp_path / f"{name}.sock"))
        until(lambda: len(listener.of("features")) >= 10)
        assert children(run.pid, "edge_runtime") == []
        (eye,) = children(os.getpid(), "edge_runtime.eye.process")
        os.kill(eye, signal.SIGKILL)
        _, output = run.communicate(timeout=PATIENCE_S)
        assert run.returncode == 0, output
    figures = json.loads(summary.read_text())
    assert len(listener.of("features")) == figures["loop"]["windows"] == 60
    assert figures["eye"]["answered"] > 20
    assert figures["eye"]["starts"] >= 2
    assert len(listener.of("verdict/edge")) > 20


def children(parent: int, module: str) -> list[int]:
    """Processes that `parent` started with `-m module`."""
    found = subprocess.run(["pgrep", "-P", str(parent), "-f", module], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def test_a_check_says_what_opens_and_what_confines_and_publishes_nothing(
    tmp_path: Path, mosquitto: int, listener: Listener
) -> None:
    make_engine(tmp_path / "engine", slot_s=0.1)
    config = make_edge_config(tmp_path, engine=tmp_path / "engine", port=mosquitto)
    command = [sys.executable, "-m", "edge_runtime", "--config", str(config), "--check"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert run.returncode == 0, run.stderr
    parts = run.stdout.split("\n\n")
    assert [part.splitlines()[0].split(":")[0] for part in parts] == ["cameras of this box", "gate", "eye", "reader"]
    for part in parts[1:]:
        assert "no new privileges" in part
    assert "camera: synthetic://walk: pictures come" in parts[2]
    assert not (tmp_path / "device.key").exists()
    assert listener.messages == []


def test_a_check_says_that_pictures_are_too_small_for_the_person_network(tmp_path: Path) -> None:
    cv2, np = pytest.importorskip("cv2"), pytest.importorskip("numpy")
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    writer.write(np.full((48, 64, 3), 100, np.uint8))
    writer.release()
    make_engine(tmp_path / "engine", person_frame=(192, 256))
    config = make_edge_config(tmp_path, engine=tmp_path / "engine", source=str(clip), port=free_port())
    command = [sys.executable, "-m", "edge_runtime", "--config", str(config), "--check"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert run.returncode == 2
    assert "picture is 64x48, too small for the person network" in run.stdout


def test_a_check_shows_the_error_that_the_running_eye_keeps_to_itself(tmp_path: Path) -> None:
    spoil_core(tmp_path)
    config = make_edge_config(tmp_path, engine=tmp_path / "engine", port=free_port())
    command = [sys.executable, "-m", "edge_runtime", "--config", str(config), "--check"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert run.returncode == 2
    assert "self-test" in run.stdout


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE_S) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_local_page_shows_figures_that_are_never_published() -> None:
    health = Health(":0", {"camera": lambda: {"dropped": 3, "frame_age_s": 0.25}}, stalled_s=60)
    status, body = get(health.port, "/health")
    assert status == 200
    assert json.loads(body)["camera"] == {"dropped": 3, "frame_age_s": 0.25}
    assert "veilsight_camera_dropped 3\n" in get(health.port, "/metrics")[1]
    assert "<td>frame_age_s<td>0.25" in get(health.port, "/")[1]
    assert get(health.port, "/etc/passwd")[0] == 404
    health.close()


def test_a_stalled_loop_is_not_healthy() -> None:
    health = Health("127.0.0.1:0", {}, stalled_s=0.5)
    until(lambda: get(health.port, "/health")[0] == 503)

    def beats() -> bool:
        health.beat()
        return get(health.port, "/health")[0] == 200

    until(beats)
    health.close()


def test_the_page_is_on_the_loopback_unless_configured() -> None:
    health = Health(":0", {}, 1.0)
    with socket.socket() as probe:
        probe.settimeout(1)
        outside = [str(a[4][0]) for a in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)]
        reachable = [a for a in outside if not a.startswith("127.") and probe.connect_ex((a, health.port)) == 0]
    assert not reachable
    health.close()
    with pytest.raises(ConfigError, match="listen"):
        Health("127.0.0.1:x", {}, 1.0)


def test_only_the_loop_feeds_the_watchdog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        systemd.settimeout(0.3)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        notify("READY=1")
        assert systemd.recv(64) == b"READY=1"
        health = Health(":0", {}, 60)
        get(health.port, "/health")
        with pytest.raises(TimeoutError):
            systemd.recv(64)
        health.beat()
        assert systemd.recv(64) == b"WATCHDOG=1"
        health.close()
    notify("WATCHDOG=1")  # nobody listens any more: no error
    monkeypatch.setenv("NOTIFY_SOCKET", "")
    notify("WATCHDOG=1")


def test_the_resident_memory_is_measured() -> None:
    assert chip_figures().get("rss_mb", 1.0) > 0
