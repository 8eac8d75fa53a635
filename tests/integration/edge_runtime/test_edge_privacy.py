"""What a device may reveal, from the operator's side: budgets, profiles and commands, a spent budget, clocks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime import app as process
from edge_runtime.capture.clock import SlotClock
from tests.support.engine_factory import make_edge_config, make_engine, make_noise_table
from tests.support.services import PATIENCE_S, ROOT, Listener, free_port, until
from wire.artifact.manifest import FILES
from wire.privacy.certificate import Certificate, sigma_for
from wire.protocol.command import Command
from wire.protocol.keys import DeviceKey, PublicKey
from wire.protocol.message import FLAG_SPENT, FeatureMessage, open_features

LEVELS = {"strict": sigma_for(64, 2.0), "detailed": sigma_for(64, 4.0)}
OPERATOR = DeviceKey(bytes(range(32)))
SLOT_S = 0.1


@contextmanager
def device(folder: Path, port: int, **privacy: Any) -> Iterator[subprocess.Popen[str]]:
    """The edge process on an endless walk, stopped at the end of the block."""
    if not (folder / "engine").exists():
        make_engine(folder / "engine", slot_s=SLOT_S, levels=LEVELS)
    privacy = {"operator_key": OPERATOR.public.hex, **privacy}
    config = make_edge_config(
        folder, engine=folder / "engine", port=port, source="synthetic://walk", camera={"loop": True}, privacy=privacy
    )
    command = [sys.executable, "-m", "edge_runtime", "--config", str(config)]
    run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        yield run
    finally:
        run.send_signal(signal.SIGTERM)
        _, output = run.communicate(timeout=PATIENCE_S)
        assert run.returncode == 0, output


def states(listener: Listener) -> list[dict[str, Any]]:
    return [json.loads(payload) for payload in listener.of("state")]


def releases(listener: Listener, folder: Path) -> list[FeatureMessage]:
    key = PublicKey.parse(str(folder / "device.key.pub"))
    manifest = json.loads((folder / "engine" / "manifest.json").read_text())
    n, model = manifest["tokens"] * manifest["width"], int(states(listener)[0]["model_id"], 16)
    return [
        open_features(payload, key, "lab", "door", n, model, 1 + len(LEVELS)) for payload in listener.of("features")
    ]


def publish(listener: Listener, payload: bytes) -> None:
    listener._client.publish("veilsight/v1/lab/door/command", payload, qos=1)


def test_a_command_changes_the_noise_and_survives_a_restart(tmp_path: Path, mosquitto: int, listener: Listener) -> None:
    """Balanced, then strict by command; a restart stays strict; the same command again is refused."""
    order = Command("lab/door", 7, "strict").seal(OPERATOR)
    with device(tmp_path, mosquitto):
        until(lambda: len(listener.of("features")) >= 3)
        publish(listener, Command("lab/door", 6, "detailed").seal(OPERATOR))
        publish(listener, b"rubbish")
        publish(listener, order)
        until(lambda: states(listener)[-1].get("profile") == "strict")
        seen = len(listener.of("features"))
        until(lambda: len(listener.of("features")) >= seen + 5)
    levels = [message.level for message in releases(listener, tmp_path)]
    assert levels == sorted(levels, reverse=True)  # level 1 is the engine's profile, 0 is strict
    assert set(levels) == {0, 1}
    online = [state["profile"] for state in states(listener) if state["status"] == "online"]
    assert online == ["balanced", "strict"]

    listener.messages.clear()
    with device(tmp_path, mosquitto):
        until(lambda: len(listener.of("features")) >= 2)
        publish(listener, order)
        publish(listener, Command("lab/door", 5, "balanced").seal(OPERATOR))
        seen = len(listener.of("features"))
        until(lambda: len(listener.of("features")) >= seen + 5)
    assert {message.level for message in releases(listener, tmp_path)} == {0}
    assert {state["profile"] for state in states(listener)} == {"strict"}


def test_the_published_certificate_covers_every_profile_that_may_be_ordered(
    tmp_path: Path, mosquitto: int, listener: Listener
) -> None:
    """Under a lower local maximum, that maximum's certificate is published, and nothing above it can be ordered."""
    with device(tmp_path, mosquitto, max_profile="strict"):
        until(lambda: listener.of("certificate") and listener.of("features"))
        publish(listener, Command("lab/door", 1, "balanced").seal(OPERATOR))
        seen = len(listener.of("features"))
        until(lambda: len(listener.of("features")) >= seen + 4)
    assert Certificate.from_json(listener.of("certificate")[0].decode()).sigma == LEVELS["strict"]
    assert {message.level for message in releases(listener, tmp_path)} == {0}


def test_a_spent_budget_is_reported_by_flag_and_state(tmp_path: Path, mosquitto: int, listener: Listener) -> None:
    """Ten releases of balanced are 8.11 bits: then noise alone, of the same size, and `blind` in the retained state."""
    with device(tmp_path, mosquitto, bits_per_hour=8.12, over_budget="cut"):
        until(lambda: states(listener) and states(listener)[-1]["blind"] is True)
        seen = len(listener.of("features"))
        until(lambda: len(listener.of("features")) >= seen + 3)
    made = releases(listener, tmp_path)
    assert all(bool(message.flags & FLAG_SPENT) == (message.slot >= 10) for message in made)
    assert len({len(payload) for payload in listener.of("features")}) == 1
    blind = [state["blind"] for state in states(listener) if state["status"] == "online"]
    assert blind == [False, True]


@pytest.mark.parametrize(
    ("privacy", "message"),
    [
        ({"bits_per_event": 1.0}, "[privacy] bits_per_event is 1, but this cadence can spend 6.49"),
        ({"bits_per_day": 100.0}, "[privacy] bits_per_day is 100, but this cadence can spend"),
        ({"bits_per_day": -1.0}, "[privacy] bits_per_day is -1.0; expected a number of at least 0"),
        ({"bits_per_day": "all"}, "[privacy] bits_per_day is 'all'; expected float"),
        ({"bits_per_hour": 0.1, "over_budget": "cut"}, "less than the 0.812 bits of one release"),
        ({"bits_per_hour": 1e9, "over_budget": "cut"}, "would never act"),
        ({"over_budget": "cut"}, "bits_per_hour and bits_per_day are missing"),
        ({"over_budget": "ignore"}, "over_budget is 'ignore'; expected one of refuse, report, cut"),
        ({"max_profile": "detailed"}, "profile 'detailed': this engine is certified for balanced"),
        ({"profile": "gold"}, "[privacy] profile is 'gold'; expected one of strict, balanced"),
        ({"max_profile": "strict", "profile": "balanced"}, "profile is 'balanced'; expected one of strict"),
        ({"operator_key": "nonsense"}, "public key 'nonsense': neither 64 hex digits nor a file"),
    ],
)
def test_invalid_privacy_settings_end_with_code_2(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    privacy: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    make_engine(tmp_path / "engine", levels=LEVELS)
    config = make_edge_config(tmp_path, engine=tmp_path / "engine", port=free_port(), privacy=privacy)
    assert process.main(["--config", str(config)]) == 2
    assert message in caplog.text


def a_torn_ledger(folder: Path) -> str:
    (folder / "state").mkdir()
    (folder / "state" / "ledger.json").write_bytes(b'{"counts": {"boots": 3, "slo')
    return "a new ledger needs a new key: remove both"


def a_damaged_command(folder: Path) -> str:
    (folder / "state").mkdir()
    (folder / "state" / "command.json").write_bytes(Command("lab/door", 1, "strict").seal(DeviceKey(bytes(32))))
    return "commands under the old key then stay refused"


def other_noise(folder: Path) -> str:
    make_noise_table(sigma_for(64, 4.0)).save(folder / "engine" / FILES["noise_table"])
    return "the manifest says"


def unpinned_noise(folder: Path) -> str:
    """The right table, with no hash in the manifest that says so."""
    file = folder / "engine" / "manifest.json"
    document = json.loads(file.read_text())
    del document["hashes"]["noise_table"]
    file.write_text(json.dumps(document))
    return "hashes: noise_table missing"


@pytest.mark.parametrize(
    ("spoil", "code"), [(a_torn_ledger, 3), (a_damaged_command, 3), (other_noise, 2), (unpinned_noise, 2)]
)
def test_damaged_state_or_noise_ends_the_process_before_anything_is_published(
    tmp_path: Path,
    mosquitto: int,
    listener: Listener,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Any,
    code: int,
) -> None:
    """A corrupt ledger, a damaged stored command, a noise table without a pinned hash: it stops with the cure."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    make_engine(tmp_path / "engine", levels=LEVELS)
    message = spoil(tmp_path)
    privacy = {"operator_key": OPERATOR.public.hex}
    config = make_edge_config(tmp_path, engine=tmp_path / "engine", port=mosquitto, windows=2, privacy=privacy)
    assert process.main(["--config", str(config)]) == code
    assert message in caplog.text
    assert listener.messages == []


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_slots_only_grow_whatever_the_clock_does(jumps: list[float]) -> None:
    """A clock that jumps either way, as even a monotonic one may on a virtual machine: each slot once and in order."""
    now = 1000.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now)
        clock = SlotClock(1.0, 0.2)
        clock.start()
        patch.setattr(clock, "wait", lambda until: True)
        slots, last = clock.slots(), -1
        for jump in jumps:
            slot = next(slots)
            assert slot > last
            last = slot
            now += jump


def test_the_wall_clock_changes_neither_slots_nor_charges(
    tmp_path: Path, mosquitto: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wall clock jumps by years while the device runs: the slots and the charges are the same."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    years = iter(range(10**9))
    real: Callable[[], float] = time.time

    def jumping() -> float:
        return real() + (1e8 if next(years) % 2 == 0 else -1e8)

    monkeypatch.setattr(time, "time", jumping)
    make_engine(tmp_path / "engine", slot_s=SLOT_S)
    config = make_edge_config(tmp_path, engine=tmp_path / "engine", port=mosquitto, windows=8)
    assert process.main(["--config", str(config), "--summary", str(tmp_path / "summary.json")]) == 0
    figures = json.loads((tmp_path / "summary.json").read_text())
    assert figures["loop"]["windows"] == 8
    assert 8 <= figures["ledger"]["releases_total"] <= 8 + figures["clock"]["skipped_slots"] + 8
