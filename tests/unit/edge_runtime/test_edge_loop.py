"""The loop: charged before it is published, released at fixed deadlines, noise alone wherever there is no code."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.eye.window import Window
from edge_runtime.gate.sampler import NoiseSample, Sampler
from edge_runtime.health import Stats
from tests.support.edge_device import KEY, OPERATOR, Device, drawn_by
from tests.support.engine_factory import make_noise_table
from tests.support.timekeeping import Wakeups
from wire.errors import EngineError, LedgerError, NoiseError
from wire.privacy.certificate import sigma_for
from wire.privacy.level_rule import UNIT
from wire.protocol.command import Command
from wire.protocol.message import FLAG_SPENT, features_size, open_features, open_verdict


def test_every_slot_is_released_with_its_number_and_read_as_events(tmp_path: Path) -> None:
    device = Device(tmp_path)
    assert device.run(12) == "end of source"
    slots = [message.slot for message in device.features()]
    assert len(slots) == 12
    assert slots == sorted(set(slots))
    assert device.eye.slots[: len(slots)] == slots
    verdicts = [payload for name, payload, _ in device.publisher.sent if name == "verdict/edge"]
    spans = [open_verdict(p, KEY.public, "lab", "door", device.manifest.model_id) for p in verdicts]
    assert [v.last_slot for v in spans] == [slot for slot in slots if slot >= 7]
    assert all((v.member, v.sentence, len(v.present)) == ("edge", "", 8) for v in spans)


def test_a_source_shorter_than_an_event_gets_one_verdict(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.run(3)
    verdicts = [payload for name, payload, _ in device.publisher.sent if name == "verdict/edge"]
    assert len(verdicts) == 1
    verdict = open_verdict(verdicts[0], KEY.public, "lab", "door", device.manifest.model_id)
    assert sum(verdict.present) == 3
    assert verdict.first_slot == 0


def test_messages_have_one_size(tmp_path: Path) -> None:
    device = Device(tmp_path, maximum=5)
    device.eye.before = lambda slot: _fail() if slot % 3 == 0 else None
    device.run(14)
    assert {len(p) for name, p, _ in device.publisher.sent if name == "features"} == {features_size(64)}
    assert len({len(p) for name, p, _ in device.publisher.sent if name == "verdict/edge"}) == 1


def _fail() -> None:
    raise EngineError("the runtime fell over")


def test_releases_keep_their_deadlines_whatever_the_eye_does(tmp_path: Path) -> None:
    """Fast, slow, failing: all are handed over when they are to leave. Late ones: `test_edge_clients.py`."""
    device = Device(tmp_path, real=True, slot_s=0.2)

    def behave(slot: int) -> None:
        if slot % 4 == 1:
            time.sleep(0.03)
        elif slot % 4 == 2:
            _fail()

    device.eye.before = behave
    with Wakeups() as wakeups:
        device.run(20)
    late, allowed = np.array(device.times()), 0.02 + wakeups.late_s
    assert (late >= 0).all()
    assert float(np.median(late)) < allowed
    by_behaviour = [float(np.median(late[[m.slot % 4 == k for m in device.features()]])) for k in range(4)]
    assert max(by_behaviour) - min(by_behaviour) < allowed
    assert device.stats.counts["alone"] > 0


@pytest.mark.parametrize("scene", ["walk", "empty", "noise"])
def test_an_empty_room_is_released_like_any_other(tmp_path: Path, scene: str) -> None:
    device = Device(tmp_path, source=f"synthetic://{scene}")
    device.run(10)
    assert device.stats.counts["alone"] == 0
    assert len(device.features()) == 10


def test_a_slot_without_a_code_is_filled_with_noise_alone_and_charged(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.eye.before = lambda slot: _fail()
    device.run(6)
    assert len(device.features()) == 6
    assert device.stats.counts["alone"] == 6
    assert device.ledger.totals()["releases_total"] == 6
    sigma = float(device.manifest.sigma)
    everything = np.concatenate([m.z for m in device.features()]).astype(float)
    assert 0.7 < float((everything**2).mean()) / sigma**2 < 1.4
    assert len({m.z.tobytes() for m in device.features()}) == 6


def test_a_release_is_the_code_plus_the_drawn_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And never the code of another slot."""
    device = Device(tmp_path)
    drawn = drawn_by(device, monkeypatch)
    device.run(6)
    for message, noise in zip(device.features(), drawn, strict=True):
        mu = np.frombuffer(device.eye.codes[message.slot], np.int16)
        assert mu.any()
        assert np.array_equal(message.z, mu + noise)


def test_what_is_no_code_is_released_as_noise_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An eye whose code is far outside of the ball: nothing of it is in what leaves."""
    device = Device(tmp_path)
    monkeypatch.setattr(device.eye, "code", lambda slot, timeout_s: np.full(64, 32767, np.int16))
    device.run(10)
    everything = np.concatenate([m.z for m in device.features()]).astype(float)
    assert len(everything) == 640
    assert 0.7 < float((everything**2).mean()) / float(device.manifest.sigma) ** 2 < 1.4


def test_the_eye_is_started_anew_by_the_clock_alone(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.loop.refresh_slots = 3
    device.run(12)
    assert device.eye.restarts == device.features()[-1].slot // 3


def test_not_watching_is_said_at_its_hour(tmp_path: Path) -> None:
    """The eye is down from the start: the state says so when the rule is applied for the first time, and not before."""
    device = Device(tmp_path, slot_s=12.0)
    device.eye.watching = False
    device.run(9)
    said = [state["watching"] for state in device.publisher.states]
    slots = [message.slot for message in device.features()]
    assert said == [slot < 5 for slot in slots]


def test_no_verdict_is_written_while_the_device_is_not_watching(tmp_path: Path) -> None:
    """47 verdicts "normal", 3 "fight" and a fall were read from noise alone."""
    for watching in (True, False):
        device = Device(tmp_path / str(watching), slot_s=12.0)
        device.eye.watching = watching
        device.run(14)
        verdicts = [payload for name, payload, _ in device.publisher.sent if name == "verdict/edge"]
        assert len(device.features()) == 14 and bool(verdicts) == watching


def test_every_release_is_charged_before_it_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And before its noise is drawn."""
    device = Device(tmp_path)
    order: list[tuple[str, int]] = []
    charge = device.ledger.charge

    def spy_charge(slot: int, *costs: int) -> Any:
        order.append(("charge", slot))
        return charge(slot, *costs)

    monkeypatch.setattr(device.ledger, "charge", spy_charge)
    device.eye.before = lambda slot: order.append(("ask", slot))
    draw, send = device.noise.draw, device.publisher.send

    def spy_draw() -> NoiseSample:
        order.append(("draw", order[-1][1]))
        return draw()

    monkeypatch.setattr(device.noise, "draw", spy_draw)

    def spy(name: str, payload: bytes) -> None:
        if name == "features":
            order.append(("send", open_features(payload, KEY.public, "lab", "door", 64, device.manifest.model_id).slot))
        send(name, payload)

    monkeypatch.setattr(device.publisher, "send", spy)
    device.run(5)
    for slot in {slot for _, slot in order}:
        steps = [step for step, at in order if at == slot]
        assert steps in (["charge", "ask", "draw", "send"], ["charge", "ask", "draw"])


def test_a_ledger_that_cannot_be_written_stops_before_publishing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(tmp_path)

    def fails(slot: int, *costs: int) -> None:
        raise LedgerError("ledger.json: No space left on device")

    monkeypatch.setattr(device.ledger, "charge", fails)
    with pytest.raises(LedgerError):
        device.run(5)
    assert device.publisher.sent == []


def test_a_spent_budget_is_covered_by_noise_alone_and_flagged(tmp_path: Path) -> None:
    device = Device(tmp_path, maximum=4)
    device.run(10)
    flags = [m.flags for m in device.features()]
    assert flags == [0] * 4 + [FLAG_SPENT] * 6
    sigma, quiet = float(device.manifest.sigma), [m.z.astype(float) for m in device.features() if m.flags]
    assert 0.7 < float((np.concatenate(quiet) ** 2).mean()) / sigma**2 < 1.4
    assert device.ledger.totals()["releases_total"] == 4


def test_a_spent_budget_says_blind_and_counts_as_missing_in_the_edges_own_verdict(tmp_path: Path) -> None:
    """As on the bridge: a release of noise alone is no evidence, so no verdict reads it."""
    device = Device(tmp_path, maximum=10)
    device.run(14)
    blind = [fields["blind"] for fields in device.publisher.states]
    assert blind == [False] * 10 + [True] * (len(device.features()) - 10)
    verdicts = [payload for name, payload, _ in device.publisher.sent if name == "verdict/edge"]
    read = [open_verdict(p, KEY.public, "lab", "door", device.manifest.model_id) for p in verdicts]
    granted = [m.slot for m in device.features() if not m.flags]
    assert [v.last_slot for v in read] == [slot for slot in granted if slot >= 7]
    assert len(granted) == 10


def test_an_order_takes_effect_with_the_next_slot(tmp_path: Path) -> None:
    """With the noise and the cost of the new level, which message and state report."""
    device = Device(tmp_path, levels={"strict": sigma_for(64, 2.0)})
    assert device.manifest.level == 1

    def order(slot: int) -> None:
        if slot == 3:
            device.publisher.commands.append(Command("lab/door", 1, "strict").seal(OPERATOR))

    device.eye.before = order
    device.run(40)
    levels = {m.slot: m.level for m in device.features()}
    assert all(level == (1 if slot <= 3 else 0) for slot, level in levels.items())
    assert device.orders.counts["obeyed"] == 1
    assert device.publisher.states[0]["profile"] == "balanced"
    assert device.publisher.states[-1]["profile"] == "strict"
    quiet = np.concatenate([m.z for m in device.features() if m.slot > 3]).astype(float)
    assert 0.8 < float((quiet**2).mean()) / float(sigma_for(64, 2.0)) ** 2 < 1.3
    strict, balanced = device.terms.costs
    charged = [strict if level == 0 else balanced for level in levels.values()]
    assert device.ledger.totals()["s2_total"] >= sum(charged) / UNIT


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (Command("lab/door", 1, "strict").seal(KEY), "forged"),
        (Command("lab/other", 1, "strict").seal(OPERATOR), "misdirected"),
        (Command("lab/door", 1, "detailed").seal(OPERATOR), "profile"),
        (b"{}", "malformed"),
        (b"x" * 2000, "oversized"),
    ],
)
def test_a_refused_command_changes_nothing_and_is_counted(tmp_path: Path, command: bytes, reason: str) -> None:
    device = Device(tmp_path, levels={"strict": sigma_for(64, 2.0), "detailed": sigma_for(64, 4.0)})
    device.publisher.commands.append(command)
    device.run(3)
    assert device.orders.counts == {"obeyed": 0, f"refused_{reason}": 1}
    assert {m.level for m in device.features()} == {device.manifest.level}


def test_reused_noise_is_never_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sampler that repeats itself: the second release stops the process."""
    device = Device(tmp_path)
    fixed = device.noise.draw()._array.copy()
    monkeypatch.setattr(device.noise, "draw", lambda: NoiseSample(fixed.copy()))
    with pytest.raises(NoiseError, match="stuck"):
        device.run(5)
    assert len(device.features()) == 1


def test_halved_sigma_is_stopped_within_an_event(tmp_path: Path) -> None:
    device = Device(tmp_path)
    sigma = device.manifest.sigma
    half = Sampler(make_noise_table(sigma / 2), 64)
    half.sigma = sigma
    device.loop.noise = [half]
    with pytest.raises(NoiseError):
        device.run(12)
    assert len(device.features()) < 8


def test_a_release_without_noise_is_stopped_before_it_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(tmp_path)
    monkeypatch.setattr(device.noise, "draw", lambda: NoiseSample(np.zeros(64, np.int32)))
    with pytest.raises(NoiseError, match="did not reach"):
        device.run(3)
    assert device.publisher.sent == []


def test_a_verdict_that_fails_leaves_the_releases_alone(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.reader.decide = lambda event: None
    device.run(9)
    assert len(device.features()) == 9
    assert device.stats.counts["undecided"] >= 1
    assert device.stats.counts["verdicts"] == 0


def test_a_stalled_process_skips_slots_and_never_bursts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(tmp_path, real=True, slot_s=0.1)
    charge = device.ledger.charge
    stalls = iter([0, 0, 0.6, *[0] * 100])

    def slow(slot: int, *costs: int) -> Any:
        time.sleep(next(stalls))
        return charge(slot, *costs)

    monkeypatch.setattr(device.ledger, "charge", slow)
    with Wakeups() as wakeups:
        device.run(8)
    assert device.clock.skipped >= 4
    assert max(device.times()) < 0.1 + wakeups.worst_s
    ats = [at for name, _, at in device.publisher.sent if name == "features"]
    assert min(b - a for a, b in zip(ats, ats[1:], strict=False)) > 0.02 - wakeups.worst_s


def test_a_stop_ends_the_loop_at_once(tmp_path: Path) -> None:
    device = Device(tmp_path, real=True)
    threading.Timer(0.3, device.clock.stop.set).start()
    began = time.monotonic()
    assert device.run(10_000) == "stopped"
    assert time.monotonic() - began < 60  # of the 3,000 seconds that it was to run


def test_frames_are_wiped_when_their_slot_is_over(tmp_path: Path) -> None:
    device = Device(tmp_path)
    kept: list[Window] = []
    window = device.camera.window

    def spy(slot: int) -> Window:
        kept.append(window(slot))
        return kept[-1]

    device.camera.window = spy  # type: ignore[method-assign]  # a spy
    device.run(4)
    assert len(kept) >= 4
    assert not any(window.frames.any() for window in kept)
    assert not device.camera._buffer._frames.any()


def test_the_figures_of_a_series_are_quantiles() -> None:
    stats = Stats("windows")
    for value in range(101):
        stats.note("encode_ms", value)
    figures = stats.figures()
    assert figures["windows"] == 0
    assert figures["encode_ms_p50"] == 50
    assert math.isclose(figures["encode_ms_p99"], 99)
