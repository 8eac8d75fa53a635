"""Attackers find what was planted and nothing else; bounds have the values of their formulas."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
import torch

from calibration.audit import bounds, classifiers, device, inversion, mechanism
from calibration.audit.classifiers import Effort
from calibration.audit.findings import BEYOND, VACUOUS, Control, Finding, shown, why
from calibration.audit.targets import PICTURE, Gallery
from familial.evaluate.intervals import binomial_interval
from tests.support.engine_factory import BROKEN_CORES, make_engine
from wire.artifact.manifest import EngineManifest
from wire.errors import DataError
from wire.privacy.certificate import guess_bound

torch.set_num_threads(1)
CLIP, N = 64, 16
EFFORT = Effort(windows=12_800, batch=256, tests=2_048)


def gallery(owners: int = 6, clips: int = 6, windows: int = 8, distinct: bool = True, seed: int = 0) -> Gallery:
    """Codes around one direction for each owner, or around one for all; pictures with a bar at the owner's place."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(owners), clips)
    prototypes = rng.normal(size=(owners if distinct else 1, N))
    prototypes *= 60 / np.linalg.norm(prototypes, axis=1, keepdims=True)
    clip = np.repeat(np.arange(len(owner)), windows)
    codes = np.rint(
        prototypes[owner[clip] if distinct else np.zeros(len(clip), int)] + rng.normal(0, 1, (len(clip), N))
    )
    pictures = rng.integers(90, 110, (len(clip), PICTURE, PICTURE)).astype(np.uint8)
    for row, who in enumerate(owner[clip]):
        pictures[row, :, 3 * who : 3 * who + 3] = 220
    return Gallery(
        codes.astype(np.int16),
        pictures,
        clip,
        owner,
        np.arange(len(owner)) % clips < clips // 2,
        tuple(f"owner {index}" for index in range(owners)),
        {"odd": owner % 2},
        True,
    )


# --- classifiers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("releases", [1, 4])
def test_owners_are_named_from_codes_that_identify_them(releases: int) -> None:
    observed = classifiers.observe(gallery(), releases)
    assert classifiers.name_owner(observed, 5.0, EFFORT).value > 0.95


def test_known_windows_in_a_new_order_are_named_by_the_sequence_classifier() -> None:
    """Each owner has eight windows, in another order in every clip: no whole sequence is enrolled, and all sequences
    have the same mean."""
    shown, rng = gallery(), np.random.default_rng(5)
    own = rng.normal(size=(6, 4, N))
    own = np.concatenate([own, -own], axis=1)
    own *= 60 / np.linalg.norm(own, axis=2, keepdims=True)
    codes = np.concatenate([rng.permutation(own[owner]) for owner in shown.owner])
    outcome = classifiers.name_owner(classifiers.observe(shown, 8, np.rint(codes).astype(np.int16)), 30.0, EFFORT)
    assert set(outcome.classifiers) == {"network", "likelihood", "sequence"}
    assert outcome.value == pytest.approx(outcome.classifiers["sequence"], abs=1e-4)
    assert outcome.classifiers["sequence"] > 0.9 > outcome.classifiers["likelihood"] + 0.1


def test_turns_test_every_clip_once_and_always_enrol_its_owner() -> None:
    observed = classifiers.observe(gallery(clips=5), 1)
    turns = list(classifiers._turns(observed, Effort(turns=3)))
    assert np.array_equal(np.sum([~enrol for enrol in turns], axis=0), np.ones(len(observed.unit)))
    for enrol in turns:
        assert set(observed.label[enrol]) == set(range(6))
        assert not set(observed.unit[enrol]) & set(observed.unit[~enrol])
    outcome = classifiers.name_owner(observed, 5.0, Effort(windows=12_800, batch=256, tests=2_048, turns=3))
    assert outcome.units == 30 and outcome.value > 0.95


def test_codes_without_identity_are_named_at_chance() -> None:
    outcome = classifiers.name_owner(classifiers.observe(gallery(distinct=False), 1), 60.0, EFFORT)
    assert outcome.interval[0] < 1 / 6 + 0.02 and outcome.value < 0.25


def test_averaging_many_releases_removes_the_noise() -> None:
    """At S = 0.2 a release one release says little, the mean of a thousand nearly all."""
    shown = gallery()
    one = classifiers.name_owner(classifiers.observe_mean(shown, 1, False, None, 0), 300.0, EFFORT).value
    many = classifiers.name_owner(classifiers.observe_mean(shown, 1000, False, None, 0), 300.0, EFFORT).value
    moving = classifiers.name_owner(classifiers.observe_mean(shown, 1000, True, None, 0), 300.0, EFFORT).value
    assert one < 0.35 < 0.9 < min(many, moving)
    assert one <= bounds.naming_bound(CLIP / 300.0, 6) + 0.02


def test_owners_outside_the_training_are_named_by_their_enrolment() -> None:
    outcome, among = classifiers.name_strangers(classifiers.observe(gallery(owners=12), 1), 3.0, EFFORT)
    assert among == 6 and outcome.value > 0.6


def test_a_trait_in_the_code_is_detected_for_unknown_people() -> None:
    shown = gallery(owners=16, clips=2)
    direction = np.zeros(N)
    direction[0] = 50
    codes = np.where(shown.traits["odd"][shown.clip][:, None] == 1, direction, -direction).astype(np.int16)
    found = classifiers.classify_trait(classifiers.observe(shown, 1, codes), shown.traits["odd"], 60.0, EFFORT)
    assert found.value > 0.8 and found.value <= bounds.auc_bound(50 / 60.0) + 0.01
    hidden = classifiers.classify_trait(
        classifiers.observe(shown, 1, np.zeros_like(codes)), shown.traits["odd"], 60.0, EFFORT
    )
    assert hidden.interval[0] < 0.5 < hidden.interval[1] + 0.02


def test_a_desensitizer_trained_to_leak_leaks_through_the_core() -> None:
    shown = gallery(distinct=False)
    leaky = classifiers.leak(shown, shown.owner[shown.clip], CLIP)
    assert np.linalg.norm(leaky, axis=1).max() <= CLIP
    assert classifiers.name_owner(classifiers.observe(shown, 1, leaky), 5.0, EFFORT).value > 0.9


def test_a_short_clip_is_read_whole_and_missing_releases_are_zero() -> None:
    observed = classifiers.observe(gallery(windows=3), 5)
    assert observed.present.sum(dim=1).tolist() == [3] * 36
    z = observed.noised(torch.arange(36), 10.0)
    assert bool((z[:, :2] == 0).all()) and bool((z[:, 2:] != 0).any())


# --- pictures --------------------------------------------------------------------------------------------------------


def test_only_codes_that_hold_the_picture_are_decoded() -> None:
    shown, effort = gallery(), Effort(windows=12_800, tests=1_024)
    silent = inversion.rebuilt([(shown, np.zeros_like(shown.codes))], 1)
    loud = inversion.rebuilt([(shown, inversion.picture_codes(shown, CLIP))], 1)
    prior = inversion.train_inverter(silent, 1.0, effort, blind=True)
    leaked = inversion.score(loud, inversion.train_inverter(loud, 1.0, effort), prior, 1.0, effort)
    kept = inversion.score(silent, inversion.train_inverter(silent, 60.0, effort), prior, 60.0, effort)
    assert leaked.gain[0] > 0.05 and leaked.matched_interval[0] > 0.9
    assert kept.gain[0] <= 0.001 and kept.matched_interval[0] <= 0.52


def test_ssim_is_one_for_equal_pictures_and_less_for_others() -> None:
    a = torch.rand(4, 1, PICTURE, PICTURE, generator=torch.Generator().manual_seed(0))
    same, other = inversion.ssim(a, a), inversion.ssim(a, 1 - a)
    assert torch.allclose(same, torch.ones(4)) and bool((other < 0.2).all()) and bool((other >= 0).all())


# --- the mechanism ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine")
    make_engine(folder)
    return folder


def test_the_mechanism_is_audited_close_below_its_claim(engine: Path) -> None:
    manifest, claim = EngineManifest.load(engine), 1.0
    trials = mechanism.trials_needed(claim)
    found = mechanism.two_codes(manifest, Fraction(CLIP), trials)
    assert mechanism.TIGHT * claim <= found.low <= claim <= found.high
    assert mechanism.two_codes(manifest, Fraction(CLIP, 2), 500).low > claim, "half the noise went unnoticed"


def test_codes_beyond_the_ball_say_nothing_and_a_gate_with_a_larger_ball_is_found(engine: Path) -> None:
    manifest, claim = EngineManifest.load(engine), 1.0
    found = mechanism.two_codes(manifest, Fraction(CLIP), 400, length=3 * CLIP)
    assert found.low < 0.0 < found.high < 0.4 * claim
    wide = dataclasses.replace(manifest, clip_norm=3 * CLIP)
    assert mechanism.two_codes(wide, Fraction(CLIP), 400, length=3 * CLIP).low > claim


def test_planted_codes_are_named_within_the_certificate(engine: Path) -> None:
    manifest, trials, shift = EngineManifest.load(engine), 150, 1.99
    for among, hits in mechanism.match_filter(manifest, Fraction(91), (10, 1000), trials):
        low, _ = binomial_interval(hits, trials)
        assert low <= guess_bound(shift, 1 / among)
        assert hits / trials > 2 / among


def test_a_subscriber_reads_the_eyes_code_and_noise_or_noise_alone(engine: Path) -> None:
    """Through the socket, the gate's loop and the signed messages, with hardly any noise: C leaves, C + 1 does not."""
    manifest, heard = EngineManifest.load(engine), dict[int, npt.NDArray[np.int16]]()
    codes = np.zeros((4, manifest.n), np.int16)
    codes[0, 5], codes[1, 5], codes[2], codes[3, :2] = CLIP, CLIP + 1, -32768, (3, -4)
    device.releases(manifest, Fraction(1, 4), codes, np.arange(8) % 4, heard.__setitem__)
    assert list(heard) == list(range(8))
    for slot, z in heard.items():
        expected = codes[slot % 4] * (slot % 4 in (0, 3))
        assert np.abs(z.astype(int) - expected).max() <= 2


def test_an_eye_that_does_not_answer_is_an_error_and_no_evidence(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = EngineManifest.load(engine)
    with pytest.raises(DataError, match="without a code"):  # it ends at slot 1, whose code it was not given
        device.releases(
            manifest, Fraction(CLIP), np.zeros((1, manifest.n), np.int16), np.arange(3), lambda slot, z: None
        )
    monkeypatch.setattr(device, "_PATIENCE_S", 0.0)
    with pytest.raises(DataError, match="does not start"):
        device.releases(
            manifest, Fraction(CLIP), np.zeros((1, manifest.n), np.int16), np.zeros(3, int), lambda slot, z: None
        )


def test_hostile_weights_never_exceed_c(engine: Path) -> None:
    manifest = make_engine(engine)
    rows = {how: (mu, before) for how, mu, before in mechanism.hostile_norms(engine, manifest, 20)}
    assert max(mu for mu, _ in rows.values()) <= manifest.clip_norm
    assert rows["as trained"][0] > 0 and rows["too long"][1] > manifest.clip_norm


@pytest.mark.parametrize("core", BROKEN_CORES)
def test_codes_of_a_broken_core_are_found(tmp_path: Path, core: str) -> None:
    """The graph's own core lets them out of the ball; the gate's would put 0 in their place."""
    manifest = make_engine(tmp_path, core=core)
    assert max(mu for _, mu, _ in mechanism.hostile_norms(tmp_path, manifest, 20)) > manifest.clip_norm


# --- bounds and statuses ----------------------------------------------------------------------------------------------


def test_the_auc_bound_is_reached_and_not_exceeded() -> None:
    """Codes at +C and -C, read by the best test there is: the AUC is Phi(sqrt 2 S), from continuous noise."""
    rng, shift = np.random.default_rng(2), 0.5
    yes, no = rng.normal(shift, 1, 20_000), rng.normal(-shift, 1, 20_000)
    label = np.arange(40_000) < 20_000
    rank = np.argsort(np.argsort(np.concatenate([yes, no])))
    auc = (rank[label].sum() - 20_000 * 19_999 / 2) / 20_000**2
    assert auc == pytest.approx(bounds.auc_bound(shift), abs=0.01)
    assert bounds.pair_bound(0.5) == pytest.approx(float(mpmath.ncdf(0.5)))


def test_small_galleries_are_testable_at_the_default_profile() -> None:
    """S = 3: one of 10, 20 and 30 people may be named with 0.957, 0.912 and 0.878, so that an attack can do better."""
    for among, expected in ((10, 0.957143), (20, 0.912315), (30, 0.878210)):
        assert bounds.naming_bound(3.0, among) == pytest.approx(expected, abs=1e-6)
        assert bounds.naming_bound(3.0, among) < VACUOUS


def test_the_dependence_bound_is_the_least_of_three() -> None:
    assert bounds.dependence_bound(0.2) == 0.1
    assert bounds.dependence_bound(1.5) == pytest.approx(2 * float(mpmath.ncdf(1.5 / math.sqrt(2))) - 1)
    assert bounds.dependence_bound(3.0) == pytest.approx(2 * float(mpmath.ncdf(3 / math.sqrt(2))) - 1)


@pytest.mark.parametrize("shift", [0.5, 1.5, 3.0])
def test_no_planted_codes_depend_more_than_the_bound_and_some_nearly_as_much(shift: float) -> None:
    """Total variation of scene and release from their product, for 256 codes of norm S that are all apart alike."""
    rng, count, draws = np.random.default_rng(7), 256, 4_000
    z = rng.normal(size=(draws, count))
    z[:, 0] += shift
    likelihood = np.exp(shift * z - shift * shift / 2)  # of each code, against pure noise
    ratio = likelihood.mean(axis=1) / likelihood[:, 0]  # of the product over the joint
    found = float(np.maximum(0.0, 1.0 - ratio).mean())
    assert 0.7 * bounds.dependence_bound(shift) < found < bounds.dependence_bound(shift) + 0.01


def finding(**changes: object) -> Finding:
    row: dict[str, object] = {
        "attack": "naming",
        "name": "a",
        "metric": "named right",
        "shift": 1.0,
        "releases": 8,
        "value": 0.1,
        "interval": (0.08, 0.12),
        "chance": 0.1,
        "certificate": 0.4,
        "limit": 0.2,
        "beyond": False,
        "control": Control(0.9, 0.5, "named right"),
    }
    return Finding(**(row | changes))  # type: ignore[arg-type]  # built from a table


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, "holds"),
        ({"beyond": True}, "holds"),
        ({"interval": (0.5, 0.6)}, "broken"),
        ({"certificate": 0.99}, "not testable"),
        ({"certificate": 1.0, "beyond": True}, "not testable"),
        ({"certificate": 3.0, "probability": False}, "holds"),
        ({"control": Control(0.4, 0.5, "")}, "attack failed its control"),
        ({"control": Control(math.nan, 0.5, ""), "beyond": True}, "attack failed its control"),
        ({"value": math.nan}, "attack failed its control"),
    ],
)
def test_the_status_follows_the_rule(changes: dict[str, object], status: str) -> None:
    row = finding(**changes).document()
    assert row["status"] == status
    assert {"name", "metric", "value", "ci", "chance", "certificate", "limit", "control", "status"} <= set(row)
    beyond = bool(row["beyond_limit"])
    assert shown(row) == (BEYOND if beyond and status in ("holds", "not testable") else status)
    assert bool(why(row)) == (beyond or status in ("broken", "attack failed its control"))
