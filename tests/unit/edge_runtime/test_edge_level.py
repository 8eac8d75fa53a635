"""The adaptive privacy level: a function of what was published, and no z makes any span spend more than its bound."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.privacy import adaptive_level as benchmark
from cloud_bridge.ingest.engines import engines_of
from cloud_bridge.ingest.events import EventReader, Release
from cloud_bridge.ingest.session import CameraSession
from cloud_bridge.store.records import CameraRecord
from edge_runtime.gate.sampler import NoiseSample
from tests.support.bridge_factory import DEVICE, make_manifest
from tests.support.edge_device import KEY, Device
from tests.support.engine_factory import make_edge_config, make_engine, make_noise_table
from tests.support.services import PATIENCE_S, ROOT, Listener, until
from wire.artifact.manifest import EngineManifest
from wire.errors import CertificateError, ConfigError, ManifestError, NoiseError, PrivacyError
from wire.privacy.budget import Budget, Terms
from wire.privacy.certificate import PASSED, PROFILES, Certificate, bits, sigma_for
from wire.privacy.level_rule import AdaptiveLevel, LevelRule, Witness
from wire.privacy.noise_table import NoiseTable
from wire.protocol.event import level_noise, level_weight
from wire.protocol.keys import PublicKey
from wire.protocol.message import FLAG_ADAPTIVE, FeatureMessage, features_size

C, N, R = 64, 64, 8
SIGMAS = tuple(sigma_for(C, PROFILES[name], R) for name in ("strict", "balanced", "detailed"))
PRICES = tuple(Fraction(C) ** 2 / sigma**2 for sigma in SIGMAS)
TOWARDS = np.where(np.arange(N) % 3 == 0, 8, -8)  # a direction of norm C
OTHER = np.where(np.arange(N) < 8, -TOWARDS, TOWARDS)  # one not far from it
RULE = LevelRule.around(((2 * TOWARDS).tolist(), (2 * OTHER).tolist()), C, SIGMAS, 1, R)
Z = npt.NDArray[np.int16]


def adaptive_level(rule: LevelRule = RULE) -> AdaptiveLevel:
    return AdaptiveLevel(rule, C, SIGMAS, R)


def release(strength: int, seed: int = 0, sigma: float = 60.0) -> Z:
    """z with a code of `strength`/8 C towards the first risk, and noise."""
    noise = np.random.default_rng(seed).normal(0.0, sigma, N)
    return np.clip(np.rint(noise + strength * TOWARDS / 8), -32768, 32767).astype(np.int16)


def run(device: AdaptiveLevel, strengths: list[int]) -> list[int]:
    """The levels of a stream; each release is made at the level that the rule gives."""
    levels = []
    for seed, strength in enumerate(strengths):
        levels.append(device.level)
        device.advance(levels[-1], None if strength == 0 else release(strength, seed))
    return levels


streams = st.lists(st.sampled_from([0, -4000, -60, -8, 8, 60, 4000]), min_size=1, max_size=120)


@settings(max_examples=150, deadline=None)
@given(streams, st.fractions(0, 12), st.fractions(0, 2), st.fractions(Fraction(1, 1000), 3))
def test_no_z_makes_a_span_spend_more_than_its_bound(
    strengths: list[int], depth: Fraction, refill: Fraction, over: Fraction
) -> None:
    rule = dataclasses.replace(RULE, depth=depth, refill=refill, event_cap=R * PRICES[0] + over, threshold=Fraction(0))
    device = adaptive_level(rule)
    costs = [device.costs[level] for level in run(device, strengths)]
    for span in range(1, len(costs) + 1):
        worst = max(sum(costs[at : at + span]) for at in range(len(costs) - span + 1))
        assert worst <= device.most(span) * 10**12
    assert device.most(R) <= rule.event_cap


@settings(max_examples=150, deadline=None)
@given(streams, st.lists(st.booleans(), min_size=120, max_size=120), st.booleans())
def test_levels_below_the_quiet_one_refund_nothing(strengths: list[int], ordered: list[bool], tight: bool) -> None:
    """Four levels: an operator's `ultra` in between makes no room beyond the limits; a stream begins there."""
    sigmas = (sigma_for(C, PROFILES["ultra"], R), *SIGMAS)
    rule = LevelRule.around(RULE.directions, C, sigmas, 2, R)
    rule = dataclasses.replace(rule, threshold=Fraction(0), depth=rule.depth if tight else Fraction(100))
    device, costs = AdaptiveLevel(rule, C, sigmas, R), []
    assert rule.quiet == 1 and device.level == 0
    for seed, (strength, ultra) in enumerate(zip(strengths, ordered, strict=False)):
        level = 0 if ultra else device.level
        costs.append(device.costs[level])
        device.advance(level, None if strength == 0 else release(strength, seed))
    for span in range(1, len(costs) + 1):
        worst = max(sum(costs[at : at + span]) for at in range(len(costs) - span + 1))
        assert worst <= device.most(span) * 10**12


def test_in_quiet_times_the_rule_keeps_its_quiet_level() -> None:
    """The next quieter profile than the engine's own, although there is a quieter one."""
    sigmas = (sigma_for(C, PROFILES["ultra"], R), *SIGMAS)
    device = AdaptiveLevel(LevelRule.around(RULE.directions, C, sigmas, 2, R), C, sigmas, R)
    levels = [0] * 120
    for seed in range(120):
        levels[seed] = device.level
        device.advance(levels[seed], release(-60, seed))
    assert set(levels[:3]) == {0} and set(levels[R:]) == {1}
    for quiet in (-1, 3):
        with pytest.raises(ManifestError, match="quiet is"):
            dataclasses.replace(device.limits, quiet=quiet)
    assert LevelRule.of(LevelRule.around(RULE.directions, C, sigmas, 2, R).document()).quiet == 1


@settings(max_examples=50, deadline=None)
@given(streams, st.integers(0, 119), streams)
def test_a_restart_refunds_nothing(before: list[int], cut: int, after: list[int]) -> None:
    """A stream that begins anew, as after a power cut, and the one before it keep the bound together."""
    first, second = adaptive_level(), adaptive_level()
    costs = [first.costs[level] for level in run(first, before[: cut + 1]) + run(second, after)]
    for span in range(1, len(costs) + 1):
        assert max(sum(costs[at : at + span]) for at in range(len(costs) - span + 1)) <= first.most(span) * 10**12


def test_the_level_rises_with_evidence_and_falls_without() -> None:
    device = adaptive_level()
    quiet = run(device, [-60] * 40)
    assert set(quiet) == {0}
    assert 2 in run(device, [8] * R)
    assert run(device, [-60] * 4)[-1] == 0


def test_the_level_depends_on_published_z_alone() -> None:
    """Two devices of different scenes that published the same so far are at the same level."""
    one, other = adaptive_level(), adaptive_level()
    for seed, strength in enumerate([-8, 8, 60, 8, 0, 8, -60, 8, 8, 8]):
        z = None if strength == 0 else release(strength, seed)
        assert one.level == other.level
        level = one.level
        one.advance(level, z)
        other.advance(level, None if z is None else z.copy())
    assert one.level == other.level


def test_a_level_above_the_rule_stops_the_device() -> None:
    device = adaptive_level()
    with pytest.raises(PrivacyError, match="the rule allows 0"):
        device.advance(2, release(8))


@pytest.mark.parametrize("shift", [2.05, 2.2, 2.5, 3.0, 3.9])
def test_a_rule_around_any_profile_never_spends_more_than_it_in_the_long_run(shift: float) -> None:
    sigmas = (SIGMAS[0], sigma_for(C, shift, R), SIGMAS[2])
    device = AdaptiveLevel(LevelRule.around(RULE.directions, C, sigmas, 1, R), C, sigmas, R)
    fixed = Fraction(C) ** 2 / sigmas[1] ** 2
    assert device.most(R) <= R * fixed
    assert all(device.most(span) <= span * fixed for span in range(15, 4000))


def test_from_some_seconds_on_the_bound_is_below_the_fixed_profile() -> None:
    """What the rule is built for: an event as the fixed profile, fifteen releases no worse, an hour at two thirds."""
    device = adaptive_level()
    assert device.most(R) <= R * PRICES[1]
    assert all(device.most(span) <= span * PRICES[1] for span in range(15, 4000))
    assert device.most(3600) < Fraction(67, 100) * 3600 * PRICES[1]


@settings(max_examples=60, deadline=None)
@given(streams, st.sets(st.integers(0, 119)))
def test_the_witness_never_reports_an_honest_device(strengths: list[int], lost: set[int]) -> None:
    device, witness = adaptive_level(), Witness(RULE, C, SIGMAS, R)
    for slot, strength in enumerate(strengths):
        z, level = None if strength == 0 else release(strength, slot), device.level
        device.advance(level, z)
        if slot not in lost:
            assert witness.see(slot, level, z)


@settings(max_examples=60, deadline=None)
@given(streams, st.integers(0, 119), st.integers(1, 2))
def test_the_witness_finds_every_wrong_level_if_no_message_is_missing(strengths: list[int], at: int, by: int) -> None:
    device, witness = adaptive_level(), Witness(RULE, C, SIGMAS, R)
    for slot, strength in enumerate(strengths):
        z, level = None if strength == 0 else release(strength, slot), device.level
        assert witness.sure
        if slot == at:
            assert not witness.see(slot, (level + by) % 3, z)
            return
        device.advance(level, z)
        assert witness.see(slot, level, z)


def test_a_witness_that_missed_a_message_is_sure_again_within_a_minute() -> None:
    device, witness = adaptive_level(), Witness(RULE, C, SIGMAS, R)
    for slot in range(100):
        z, level = release(-8, slot), device.level
        device.advance(level, z)
        if slot != 30:
            assert witness.see(slot, level, z)
        assert witness.sure or 30 < slot < 90
    assert not witness.see(100, 2, release(8))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"event_cap": Fraction(1)}, "event's cap"),
        ({"depth": Fraction(-1)}, "depth"),
        ({"directions": ()}, "directions"),
        ({"directions": ((1, 2), (1,))}, "directions"),
    ],
)
def test_a_rule_out_of_range_is_refused(change: dict[str, Any], found: str) -> None:
    with pytest.raises(ManifestError, match=found):
        adaptive_level(dataclasses.replace(RULE, **change))


def test_levels_that_do_not_rise_are_refused() -> None:
    with pytest.raises(ManifestError, match="falling sigma"):
        AdaptiveLevel(RULE, C, SIGMAS[::-1], R)


def test_a_rule_survives_json_unchanged() -> None:
    assert LevelRule.of(RULE.document()) == RULE
    with pytest.raises(ValueError, match="fields"):
        LevelRule.of({**RULE.document(), "more": 1})


def test_a_file_of_tables_keeps_its_order(tmp_path: Path) -> None:
    tables = [make_noise_table(Fraction(sigma)) for sigma in (4, 8, 3)]
    file = tmp_path / "tables.bin"
    file.write_bytes(b"".join(table.to_bytes() for table in tables))
    assert [table.sigma for table in NoiseTable.load_all(file)] == [4, 8, 3]
    assert NoiseTable.load(file).sigma == 4
    for spoiled in (file.read_bytes()[:-1], file.read_bytes() + b"\0", file.read_bytes()[: tables[0].size + 40]):
        file.write_bytes(spoiled)
        with pytest.raises(NoiseError):
            NoiseTable.load(file)


def test_an_engine_may_hold_the_noise_of_several_levels(tmp_path: Path) -> None:
    levels = {"strict": SIGMAS[0], "detailed": SIGMAS[2]}
    made = make_engine(tmp_path, levels=levels, adaptive_level=RULE)
    made.check(tmp_path)
    again = EngineManifest.load(tmp_path)
    assert again == made and again.sigmas == SIGMAS and again.level == 1
    assert again.weights[1] == 1.0 and again.weights[0] < 0.6 < 1.5 < again.weights[2]
    assert again.make_adaptive_level().costs == adaptive_level().costs
    for change in (
        {"levels": {"strict": SIGMAS[0]}, "adaptive_level": None},
        {"levels": {**levels, "more": Fraction(9)}},
    ):
        with pytest.raises(ManifestError, match="levels"):
            dataclasses.replace(made, **change).check(tmp_path)
    with pytest.raises(ManifestError, match="twice"):
        dataclasses.replace(made, levels={"strict": SIGMAS[1]})
    with pytest.raises(ManifestError, match="directions"):
        dataclasses.replace(made, labels=("normal", "fall"))
    with pytest.raises(ManifestError, match="no level rule"):
        dataclasses.replace(made, adaptive_level=None).make_adaptive_level()


MANIFEST = dataclasses.replace(
    make_manifest(), levels={"strict": SIGMAS[0], "detailed": SIGMAS[2]}, adaptive_level=RULE
)
DOOR = "lab/door"


def sealed(slot: int, level: int, z: Z, flags: int = FLAG_ADAPTIVE, boot: int = 1) -> bytes:
    return FeatureMessage(boot, slot, MANIFEST.model_id, flags, z, level).seal(DEVICE, "lab", "door")


def test_the_bridge_reads_an_adaptive_device_and_refuses_a_level_that_the_rule_did_not_choose() -> None:
    intake = CameraSession(DOOR, DEVICE.public, engines_of(MANIFEST), CameraRecord(), reorder_slots=0)
    device, read = MANIFEST.make_adaptive_level(), []
    for slot in range(60):
        z, level = release(8 if slot % 30 > 20 else -8, slot), device.level
        device.advance(level, z)
        read += intake.accept(sealed(slot, level, z))
    assert [out.slot for out in read] == list(range(60)) and {out.level for out in read} == {0, 1, 2}
    assert not intake.accept(sealed(60, (device.level + 1) % 3, release(-8)))
    assert not intake.accept(sealed(61, 3, release(-8)))
    assert intake.refused == {"level": 2}


def test_without_the_rule_the_bridge_refuses_releases_more_revealing_than_the_profile() -> None:
    intake = CameraSession(DOOR, DEVICE.public, engines_of(MANIFEST), CameraRecord(), reorder_slots=0)
    read = [bool(intake.accept(sealed(level, level, release(0), flags=0))) for level in range(3)]
    assert read == [True, True, False] and intake.refused == {"level": 1}


def test_a_restarted_device_is_not_reported_where_its_slots_happen_to_go_on() -> None:
    intake = CameraSession(DOOR, DEVICE.public, engines_of(MANIFEST), CameraRecord(), reorder_slots=0)
    for boot, delivered in ((1, range(30)), (2, range(30, 40))):
        device = MANIFEST.make_adaptive_level()
        for slot in range(delivered.stop):
            z, level = release(8 if slot % 20 > 15 else -8, slot), device.level
            device.advance(level, z)
            if slot in delivered:
                assert intake.accept(sealed(slot, level, z, boot=boot))


def test_a_level_weighs_between_what_likelihood_asks_and_noise_as_it_is_known() -> None:
    assert [level_weight(sigma, sigma) for sigma in SIGMAS] == [1.0] * 3
    assert level_weight(Fraction(60), Fraction(240)) == 0.125 and level_weight(60.0, 15.0) == 8.0
    for trained, level in ((SIGMAS[1], SIGMAS[0]), (SIGMAS[0], SIGMAS[1])):
        ratio = float(trained / level)
        assert min(ratio, ratio**2) < level_weight(trained, level) < max(ratio, ratio**2)
        assert level_noise(level_weight(trained, level)) == pytest.approx(float(level / trained))


def test_every_release_is_read_by_the_weight_of_its_level() -> None:
    """The event's window holds z / sigma^1.5 of each release in the same unit, whatever its level."""
    reader = EventReader(DOOR, R, 4, 16, MANIFEST.weights)
    z = release(60)
    for slot, level in enumerate((0, 1, 2)):
        reader.push(Release(DOOR, 1, slot, z, False, 0, level))
    event = reader.flush()[0]
    expected = [z * float(SIGMAS[1] / sigma) ** 1.5 for sigma in SIGMAS]
    assert np.abs(event.z[-3:].reshape(3, N) - np.array(expected)).max() <= 0.5
    assert np.array_equal(event.z[-2].reshape(N), z)
    assert event.weights is not None and event.weights.tolist() == [1.0] * (R - 3) + list(MANIFEST.weights)


def test_the_certificate_of_the_adaptive_level_bounds_what_each_span_spends() -> None:
    fixed = MANIFEST.certificate()
    limits = adaptive_level().limits
    found = dataclasses.replace(fixed, adaptive_level=limits)
    assert Certificate.from_json(found.to_json()) == found
    for span in (1, R, 15, 305, 3605):
        assert found.shift(span) == pytest.approx(float(limits.most(span)) ** 0.5)
        assert found.reveals(span, 2)["S"] == pytest.approx((2 * float(limits.most(span))) ** 0.5, rel=1e-5)
    assert found.reveals(1)["S"] > fixed.reveals(1)["S"] and found.reveals(R)["S"] <= fixed.reveals(R)["S"]
    assert found.reveals(3605)["bits"] < 0.67 * fixed.reveals(3605)["bits"]
    for level in PASSED:
        seconds = found.time_in_view_s(1000, level)
        seen = found.releases_touched(seconds)
        assert seconds == 0.0 or found.chance(seen, 1e-3) <= level < found.chance(seen + 1, 1e-3)
        assert seconds > fixed.time_in_view_s(1000, level) - 3


def test_a_certificate_of_other_limits_is_refused() -> None:
    document = json.loads(dataclasses.replace(MANIFEST.certificate(), adaptive_level=adaptive_level().limits).to_json())
    document["inputs"]["adaptive_level"]["refill"] = "0"
    with pytest.raises(CertificateError, match="computed, never edited"):
        Certificate.from_json(json.dumps(document))
    with pytest.raises(CertificateError, match="other codes"):
        dataclasses.replace(MANIFEST.certificate(), event_releases=4, adaptive_level=adaptive_level().limits)


# --- the loop


def adaptive_device(folder: Path, source: str = "synthetic://walk", adaptive_level: bool = True) -> Device:
    """A whole device with a small engine that has a level rule."""
    device = Device(folder, source, levels=MANIFEST.levels)
    device.manifest = device.loop.manifest = dataclasses.replace(device.manifest, adaptive_level=RULE)
    device.terms = device.loop.terms = Terms.of(device.manifest, "", Budget(), adaptive_level)
    return device


def scripted(device: Device, seed: int) -> list[int]:
    """The levels of 40 releases of a device whose z are those of this seed, whatever it sees."""
    asked: list[int] = []

    def no_code(slot: int, timeout_s: float) -> None:
        asked.append(slot)

    def draw() -> NoiseSample:
        slot = asked[-1]
        z = release(8 if slot % 10 > 5 else -8, 1000 * seed + slot, 92.0)  # enough for every level
        return NoiseSample(z.astype(np.int32))

    device.eye.code = no_code  # type: ignore[method-assign]  # a test's shorthand
    for sampler in device.samplers:
        sampler.draw = draw  # type: ignore[method-assign]  # likewise
    device.run(40)
    return [message.level for message in device.features()]


def test_two_devices_of_different_scenes_and_the_same_past_choose_the_same_levels(tmp_path: Path) -> None:
    one = scripted(adaptive_device(tmp_path / "one"), 1)
    other = scripted(adaptive_device(tmp_path / "other", "synthetic://empty"), 1)
    assert one == other and set(one) == {0, 1, 2}
    assert scripted(adaptive_device(tmp_path / "third"), 2) != one


def test_an_adaptive_device_is_charged_for_its_levels_and_accepted_by_the_bridge(tmp_path: Path) -> None:
    device = adaptive_device(tmp_path)
    device.run(60)
    sent, manifest = device.features(), device.manifest
    assert len({message.level for message in sent}) > 1
    assert {message.flags for message in sent} == {FLAG_ADAPTIVE}
    costs = [device.terms.costs[message.level] for message in sent]
    assert device.terms.costs == adaptive_level().costs
    assert device.ledger.totals()["s2_total"] == pytest.approx(sum(costs) / 10**12)
    for span in range(1, 61):
        assert max(sum(costs[at : at + span]) for at in range(61 - span)) <= adaptive_level().most(span) * 10**12
    intake = CameraSession(DOOR, KEY.public, engines_of(manifest), CameraRecord(), reorder_slots=0)
    payloads = [payload for name, payload, _ in device.publisher.sent if name == "features"]
    assert sum(len(intake.accept(payload)) for payload in payloads) == 60 and not intake.refused
    assert {len(payload) for payload in payloads} == {features_size(N)}


def test_a_spent_budget_lowers_the_level_and_is_not_reported_as_a_wrong_level(tmp_path: Path) -> None:
    device = adaptive_device(tmp_path)
    device.ledger._budgets["day_spent"] = 20 * device.terms.costs[0]
    device.run(40)
    intake = CameraSession(DOOR, KEY.public, engines_of(device.manifest), CameraRecord(), reorder_slots=0)
    payloads = [payload for name, payload, _ in device.publisher.sent if name == "features"]
    read = [out for payload in payloads for out in intake.accept(payload)]
    assert len(read) == 40 and read[-1].spent and not read[0].spent and not intake.refused


def test_a_stricter_profile_in_force_switches_the_rule_off(tmp_path: Path) -> None:
    device = adaptive_device(tmp_path)
    device.orders.profile = "strict"
    assert set(scripted(device, 1)) == {0}
    assert {message.flags for message in device.features()} == {0}


def test_without_the_switch_nothing_changes(tmp_path: Path) -> None:
    device = adaptive_device(tmp_path, adaptive_level=False)
    assert set(scripted(device, 1)) == {1}
    assert {message.flags for message in device.features()} == {0}


def test_certificate_and_budgets_of_an_adaptive_device_are_those_of_its_rule(tmp_path: Path) -> None:
    made = make_engine(tmp_path, levels=MANIFEST.levels, adaptive_level=RULE)
    terms = Terms.of(made, "", Budget(), adaptive_level=True)
    assert terms.certificate == made.certificate(adaptive_level=True) != made.certificate()
    assert made.covers(terms.certificate.to_json().encode())
    assert not dataclasses.replace(made, adaptive_level=None).covers(terms.certificate.to_json().encode())
    hour = bits(float(adaptive_level().most(3600)) ** 0.5)
    Terms.of(made, "", Budget(per_hour=1.001 * hour), adaptive_level=True)
    with pytest.raises(ConfigError, match="bits_per_hour"):
        Terms.of(made, "", Budget(per_hour=0.999 * hour), adaptive_level=True)
    with pytest.raises(ConfigError, match="built around profile balanced"):
        Terms.of(made, "strict", Budget(), adaptive_level=True)
    with pytest.raises(ManifestError, match="no level rule"):
        Terms.of(dataclasses.replace(made, adaptive_level=None), "", Budget(), adaptive_level=True)


def test_a_bridge_accepts_the_whole_process_with_the_adaptive_level(tmp_path: Path, mosquitto: int) -> None:
    made = make_engine(tmp_path / "engine", slot_s=0.1, levels=MANIFEST.levels, adaptive_level=RULE)
    config = make_edge_config(
        tmp_path, engine=tmp_path / "engine", port=mosquitto, windows=40, privacy={"adaptive_level": True}
    )
    listener = Listener(mosquitto)
    try:
        run = subprocess.run(
            [sys.executable, "-m", "edge_runtime", "--config", str(config)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        until(lambda: len(listener.of("features")) == 40)
        payloads, certificates, states = (listener.of(name) for name in ("features", "certificate", "state"))
    finally:
        listener.close()
    public = PublicKey.parse(json.loads(states[0])["public_key"])
    intake = CameraSession(DOOR, public, engines_of(made), CameraRecord(), reorder_slots=0)
    read = [out for payload in payloads for out in intake.accept(payload)]
    assert len(read) == 40 and not intake.refused and len({out.level for out in read}) > 1
    assert [Certificate.from_json(text.decode()) for text in certificates] == [made.certificate(adaptive_level=True)]
    assert all(made.covers(text) for text in certificates)


def test_the_benchmarks_devices_stay_within_what_they_certify(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.COMMAND.main(["--rendered", "0", "--streams", "10"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    for world in found["figures"].values():
        fixed, even, adaptive = (world[name] for name in ("fixed", "fixed, same hour", "adaptive_level"))
        assert adaptive["event_S2"] <= fixed["event_S2"]
        assert adaptive["spent_S2"] <= adaptive["lasting_S2"] == pytest.approx(even["lasting_S2"], rel=1e-3)
    assert found["ratio"] > 1.0
