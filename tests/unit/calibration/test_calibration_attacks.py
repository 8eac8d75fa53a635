"""The attackers find what is there and nothing where nothing is; intervals and bounds are what they say."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.audit import attacks, findings, inversion, mechanism
from calibration.audit.attacks import Effort
from calibration.audit.findings import Control, Finding
from calibration.audit.targets import PICTURE, Gallery
from export.proof.structure import load_graph
from export.proof.verify_graph import core_input
from tests.support.engine_factory import BROKEN_CORES, make_engine
from wire.errors import GraphError
from wire.privacy.certificate import guess_bound

pytestmark = pytest.mark.timeout(600)  # training takes seconds, and minutes on a loaded machine
torch.set_num_threads(1)
CLIP, N = 64, 16
EFFORT = Effort(windows=12_800, batch=256, tests=2_048)


def gallery(owners: int = 6, clips: int = 6, windows: int = 8, tells: bool = True, seed: int = 0) -> Gallery:
    """Codes around one direction for each owner, or around one for all; pictures with a bar at the owner's place."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(owners), clips)
    prototypes = rng.normal(size=(owners if tells else 1, N))
    prototypes *= 60 / np.linalg.norm(prototypes, axis=1, keepdims=True)
    clip = np.repeat(np.arange(len(owner)), windows)
    codes = np.rint(prototypes[owner[clip] if tells else np.zeros(len(clip), int)] + rng.normal(0, 1, (len(clip), N)))
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


# --- readers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("releases", [1, 4])
def test_a_code_that_tells_who_it_is_is_named(releases: int) -> None:
    sight = attacks.look(gallery(), releases)
    assert attacks.name_it(sight, 5.0, EFFORT).value > 0.95


def test_who_goes_through_known_windows_in_a_new_order_is_named_by_the_sequence() -> None:
    """Everyone has eight windows and goes through them in another order in every clip: whole runs are never met again,
    and the mean of a run is the same for all."""
    shown, rng = gallery(), np.random.default_rng(5)
    own = rng.normal(size=(6, 4, N))
    own = np.concatenate([own, -own], axis=1)
    own *= 60 / np.linalg.norm(own, axis=2, keepdims=True)
    codes = np.concatenate([rng.permutation(own[owner]) for owner in shown.owner])
    outcome = attacks.name_it(attacks.look(shown, 8, np.rint(codes).astype(np.int16)), 30.0, EFFORT)
    assert set(outcome.readers) == {"network", "likelihood", "sequence"}
    assert outcome.value == pytest.approx(outcome.readers["sequence"], abs=1e-4)
    assert outcome.readers["sequence"] > 0.9 > outcome.readers["likelihood"] + 0.1


def test_in_turns_every_clip_is_tested_once_and_its_owner_is_always_enrolled() -> None:
    sight = attacks.look(gallery(clips=5), 1)
    turns = list(attacks._turns(sight, Effort(turns=3)))
    assert np.array_equal(np.sum([~enrol for enrol in turns], axis=0), np.ones(len(sight.unit)))
    for enrol in turns:
        assert set(sight.label[enrol]) == set(range(6))
        assert not set(sight.unit[enrol]) & set(sight.unit[~enrol])
    outcome = attacks.name_it(sight, 5.0, Effort(windows=12_800, batch=256, tests=2_048, turns=3))
    assert outcome.units == 30 and outcome.value > 0.95


def test_codes_of_one_kind_are_named_by_chance_only() -> None:
    outcome = attacks.name_it(attacks.look(gallery(tells=False), 1), 60.0, EFFORT)
    assert outcome.interval[0] < 1 / 6 + 0.02 and outcome.value < 0.25


def test_noise_hides_and_averaging_brings_back() -> None:
    """At S = 0.2 a release one release says little, the mean of a thousand nearly all."""
    shown = gallery()
    one = attacks.name_it(attacks.average(shown, 1, False, None, 0), 300.0, EFFORT).value
    many = attacks.name_it(attacks.average(shown, 1000, False, None, 0), 300.0, EFFORT).value
    moving = attacks.name_it(attacks.average(shown, 1000, True, None, 0), 300.0, EFFORT).value
    assert one < 0.35 < 0.9 < min(many, moving)
    assert one <= findings.naming_bound(CLIP / 300.0, 6) + 0.02


def test_people_met_at_enrolment_only_are_named() -> None:
    outcome, among = attacks.name_strangers(attacks.look(gallery(owners=12), 1), 3.0, EFFORT)
    assert among == 6 and outcome.value > 0.6


def test_a_trait_of_the_code_is_told_of_people_never_met() -> None:
    shown = gallery(owners=16, clips=2)
    direction = np.zeros(N)
    direction[0] = 50
    codes = np.where(shown.traits["odd"][shown.clip][:, None] == 1, direction, -direction).astype(np.int16)
    told = attacks.tell_trait(attacks.look(shown, 1, codes), shown.traits["odd"], 60.0, EFFORT)
    assert told.value > 0.8 and told.value <= findings.auc_bound(50 / 60.0, 0.0) + 0.01
    hidden = attacks.tell_trait(attacks.look(shown, 1, np.zeros_like(codes)), shown.traits["odd"], 60.0, EFFORT)
    assert hidden.interval[0] < 0.5 < hidden.interval[1] + 0.02


def test_a_desensitizer_trained_to_leak_leaks_through_the_core() -> None:
    shown = gallery(tells=False)
    leaky = attacks.leak(shown, shown.owner[shown.clip], CLIP)
    assert np.linalg.norm(leaky, axis=1).max() <= CLIP
    assert attacks.name_it(attacks.look(shown, 1, leaky), 5.0, EFFORT).value > 0.9


def test_a_short_clip_is_read_whole_and_a_missing_release_holds_no_noise() -> None:
    sight = attacks.look(gallery(windows=3), 5)
    assert sight.present.sum(dim=1).tolist() == [3] * 36
    z = sight.noised(torch.arange(36), 10.0)
    assert bool((z[:, :2] == 0).all()) and bool((z[:, 2:] != 0).any())


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_a_code_that_holds_the_picture_is_decoded_and_one_that_does_not_is_not() -> None:
    shown, effort = gallery(), Effort(windows=12_800, tests=1_024)
    silent = inversion.rebuilt([(shown, np.zeros_like(shown.codes))], 1)
    loud = inversion.rebuilt([(shown, inversion.picture_codes(shown, CLIP))], 1)
    prior = inversion.train_inverter(silent, 1.0, effort, blind=True)
    told = inversion.score(loud, inversion.train_inverter(loud, 1.0, effort), prior, 1.0, effort)
    kept = inversion.score(silent, inversion.train_inverter(silent, 60.0, effort), prior, 60.0, effort)
    assert told.gain[0] > 0.05 and told.matched_interval[0] > 0.9
    assert kept.gain[0] <= 0.001 and kept.matched_interval[0] <= 0.52


def test_ssim_is_one_for_the_same_picture_and_less_for_another() -> None:
    a = torch.rand(4, 1, PICTURE, PICTURE, generator=torch.Generator().manual_seed(0))
    same, other = inversion.ssim(a, a), inversion.ssim(a, 1 - a)
    assert torch.allclose(same, torch.ones(4)) and bool((other < 0.2).all()) and bool((other >= 0).all())


# --- the mechanism ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine")
    make_engine(folder)
    return folder


def test_the_mechanism_is_audited_close_below_its_claim(engine: Path) -> None:
    core = mechanism.Core(engine, make_engine(engine))
    claim = 1.0
    trials = mechanism.trials_needed(claim)
    found = mechanism.two_codes(core, Fraction(CLIP), trials)
    assert mechanism.TIGHT * claim <= found.low <= claim <= found.high
    assert mechanism.two_codes(core, Fraction(CLIP), trials, gain=2).low > claim, "half the noise went unnoticed"


def test_planted_codes_are_named_within_the_certificate(engine: Path) -> None:
    core = mechanism.Core(engine, make_engine(engine))
    for sigma, shift in ((Fraction(181), 1.0), (Fraction(91), 1.99)):
        for among, hits in mechanism.match_filter(core, sigma, (10, 1000), 400):
            low, _ = findings.binomial_interval(hits, 400)
            assert low <= guess_bound(shift, 1 / among)
            assert hits / 400 > 2 / among


def test_the_core_is_cut_from_the_engines_own_file(engine: Path) -> None:
    manifest = make_engine(engine)
    core = mechanism.Core(engine, manifest)
    rng = np.random.default_rng(0)
    x = rng.normal(0, 30, (50, 4, 16)).astype(np.float32)
    noise = rng.integers(-500, 500, x.shape).astype(np.int32)
    mu = core(x, noise) - noise
    assert bool(((mu.astype(np.int64) ** 2).sum(axis=(1, 2)) <= manifest.clip_norm**2).all())
    assert core_input(load_graph(engine / "encode.onnx"), manifest)
    fits = np.sqrt((np.rint(x) ** 2).sum(axis=(1, 2))) <= manifest.clip_norm
    assert np.array_equal(mu[fits], np.rint(x[fits]).astype(np.int32))


def test_hostile_weights_never_get_past_c(engine: Path) -> None:
    manifest = make_engine(engine)
    rows = {how: (mu, before) for how, mu, before in mechanism.hostile_norms(engine, manifest, 20)}
    assert max(mu for mu, _ in rows.values()) <= manifest.clip_norm
    assert rows["as trained"][0] > 0 and rows["too long"][1] > manifest.clip_norm


@pytest.mark.parametrize("core", BROKEN_CORES)
def test_a_broken_core_is_refused_before_it_is_attacked(tmp_path: Path, core: str) -> None:
    manifest = make_engine(tmp_path, core=core)
    with pytest.raises(GraphError):
        mechanism.Core(tmp_path, manifest)


# --- intervals, bounds, outcomes --------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_binomial_intervals_are_clopper_and_pearsons(case: tuple[int, int]) -> None:
    """At its ends the tail of the binomial is the rest of the level, to nine digits."""
    hits, trials = case
    low, high = findings.binomial_interval(hits, trials, 0.9)
    terms = [math.comb(trials, k) for k in range(trials + 1)]

    def mass(p: float, chosen: range) -> float:
        return float(mpmath.fsum(terms[k] * mpmath.mpf(p) ** k * mpmath.mpf(1 - p) ** (trials - k) for k in chosen))

    assert low <= hits / trials <= high
    assert hits == 0 or mass(low, range(hits, trials + 1)) == pytest.approx(0.05, rel=1e-6)
    assert hits == trials or mass(high, range(hits + 1)) == pytest.approx(0.05, rel=1e-6)


def test_an_auc_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(1)
    label, unit = np.arange(200) % 2 == 1, np.arange(200) // 4 * 2 + np.arange(200) % 2
    scores = rng.normal(size=200) + label
    value, (low, high) = findings.resample_auc(scores, label, unit, np.zeros(200, np.int64), 0)
    pairs = scores[label][:, None] - scores[~label]
    assert value == pytest.approx(float((pairs > 0).mean())) and low < value < high


def test_pairs_of_two_readers_are_not_compared() -> None:
    scores = np.array([1.0, 0.0, 11.0, 10.0])
    label, part = np.array([True, False, True, False]), np.array([0, 0, 1, 1])
    assert findings.resample_auc(scores - label * 0.5, label, np.arange(4), part, 0)[0] == 1.0


def test_an_auc_reaches_its_bound_and_no_more() -> None:
    """Codes at +C and -C, read by the best test there is: the AUC is Phi(sqrt 2 S), from continuous noise."""
    rng, shift = np.random.default_rng(2), 0.5
    yes, no = rng.normal(shift, 1, 20_000), rng.normal(-shift, 1, 20_000)
    label = np.arange(40_000) < 20_000
    rank = np.argsort(np.argsort(np.concatenate([yes, no])))
    auc = (rank[label].sum() - 20_000 * 19_999 / 2) / 20_000**2
    assert auc == pytest.approx(findings.auc_bound(shift, 0.0), abs=0.01)
    assert findings.pair_bound(0.5, 0.0) == pytest.approx(float(mpmath.ncdf(0.5)))
    assert findings.pair_bound(0.5, 0.0) < guess_bound(0.5, 0.5)


def test_the_slack_of_rounding_is_small_and_falls_with_sigma() -> None:
    found = [findings.rounding_slack(sigma, 64) for sigma in (4.0, 16.0, 60.0)]
    assert found[0] > found[1] > found[2] and found[2] < 1e-3
    exact = mpmath.mpf(0)
    weights = {k: mpmath.exp(-mpmath.mpf(k * k) / 32) for k in range(-60, 61)}
    total = mpmath.fsum(weights.values())
    for k, weight in weights.items():
        rounded = mpmath.ncdf((k + 0.5) / mpmath.mpf(4)) - mpmath.ncdf((k - 0.5) / mpmath.mpf(4))
        exact += abs(weight / total - rounded) / 2
    assert found[0] == pytest.approx(64 * float(exact), rel=1e-9)


def test_dependence_is_bounded_by_total_variation() -> None:
    assert findings.dependence_bound(0.2) == 0.1
    assert findings.dependence_bound(3.0) == pytest.approx(math.sqrt(1 - math.exp(-4.5)))


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


def test_many_tests_of_nothing_find_nothing() -> None:
    """600 tests on pure noise, 20 audits of 30 each: one alarm is expected where they are counted together, not 15."""
    rng, unit = np.random.default_rng(4), np.repeat(np.arange(60), 4)
    alarms = [findings.gain_shown(rng.normal(size=240), unit, seed, 30)[0] > 0 for seed in range(600)]
    assert sum(alarms) <= 6
    assert findings.gain_shown(rng.normal(size=240) + 1.0, unit, 0, 30)[0] > 0


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, "holds"),
        ({"beyond": True}, "broken"),
        ({"interval": (0.5, 0.6)}, "broken"),
        ({"certificate": 0.99}, "not testable"),
        ({"certificate": 1.0, "beyond": True}, "not testable"),
        ({"certificate": 3.0, "probability": False}, "holds"),
        ({"control": Control(0.4, 0.5, "")}, "attack failed its control"),
        ({"control": Control(math.nan, 0.5, ""), "beyond": True}, "attack failed its control"),
        ({"value": math.nan}, "attack failed its control"),
    ],
)
def test_the_outcome_follows_the_rule(changes: dict[str, object], status: str) -> None:
    row = finding(**changes).document()
    assert row["status"] == status
    assert {"name", "metric", "value", "ci", "chance", "certificate", "limit", "control", "status"} <= set(row)
