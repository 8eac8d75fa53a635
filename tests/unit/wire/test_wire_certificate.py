"""The certificate: the design's check values, properties of the formulas, and that an edited number is refused."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from statistics import NormalDist
from typing import Any

import mpmath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.errors import CertificateError
from wire.privacy.certificate import (
    ATTRIBUTES,
    CAMERAS,
    GALLERIES,
    INCIDENTS_S,
    NOT_PROVED,
    PASSED,
    PROFILES,
    RANKS,
    Certificate,
    bits,
    eps_at_delta,
    guess_bound,
    round_up,
    sigma_for,
    zcdp_rho,
)
from wire.privacy.gaussian_dp import delta_at_eps

NANO = Certificate(clip_norm=64, sigma=sigma_for(64, 3.0), n=64, slot_s=1.0, receptive_field_s=5.0)

shifts = st.floats(0.0, 6.0)
priors = st.floats(1e-6, 0.95)


DESIGN = {  # prior -> the bound at S = 1.0607 (a release of `balanced`), 1, 2, 3, 4, rounded up to six decimals
    1 / 1000: (0.021201, 0.018298, 0.137805, 0.464051, 0.818527),
    1 / 100_000: (0.000677, 0.000548, 0.011760, 0.102955, 0.395547),
    0.1: (0.412588, 0.389144, 0.763760, 0.957143, 0.996721),
    0.5: (0.855578, 0.841345, 0.977250, 0.998650, 0.999968),
}


@pytest.mark.parametrize("prior", DESIGN)
def test_the_bound_has_the_designs_values(prior: float) -> None:
    for shift, value in zip((3 / math.sqrt(8), 1.0, 2.0, 3.0, 4.0), DESIGN[prior], strict=True):
        assert guess_bound(shift, prior) == pytest.approx(value, abs=1.01e-6)


def exact_bound(shift: float, prior: float) -> mpmath.mpf:
    """Phi(Phi^-1(prior) + S) at 80 digits, the quantile by Newton's method."""
    with mpmath.workdps(80):
        k, x = mpmath.mpf(prior), mpmath.mpf(NormalDist().inv_cdf(prior))
        for _ in range(6):
            x -= (mpmath.ncdf(x) - k) / mpmath.npdf(x)
        return mpmath.ncdf(x + mpmath.mpf(shift))


wide_priors = st.one_of(st.floats(1e-300, 1e-3), st.floats(1e-3, 0.999), st.floats(0.999, 1 - 2**-52))


@settings(deadline=None)
@given(st.floats(0.0, 400.0), wide_priors)
def test_the_bound_is_rounded_up_and_by_little(shift: float, prior: float) -> None:
    """Never below the formula, in both tails, and at most 3e-10 of itself above it."""
    found, exact = guess_bound(shift, prior), exact_bound(shift, prior)
    assert exact <= found <= min(1.0, float(exact) * (1 + 3e-10)) or found == prior


@pytest.mark.parametrize(("shift", "value"), [(1, "0.7207"), (2, "2.875"), (3, "6.436"), (4, "11.37")])
def test_bits_have_the_designs_values(shift: float, value: str) -> None:
    """Of an event of 512 coordinates, to four digits, rounded up."""
    assert round_up(bits(shift, 512), 4) == value


@settings(deadline=None)
@given(st.floats(1e-3, 400.0), st.integers(1, 10**7))
def test_bits_are_a_gaussian_channels_and_never_above_their_limit(shift: float, n: int) -> None:
    with mpmath.workdps(50):
        exact = mpmath.mpf(n) / 2 * mpmath.log(1 + mpmath.mpf(shift) ** 2 / n, 2)
    assert bits(shift, n) == pytest.approx(float(exact), rel=1e-13, abs=1e-300)
    assert bits(shift, n) <= bits(shift) * (1 + 1e-13)
    assert bits(shift) == pytest.approx(shift * shift / (2 * math.log(2)))


def test_the_bound_is_what_the_best_test_reaches() -> None:
    """Telling two codes 2 C apart, equally likely: Phi(S), to the last digits. The bound cannot be lower."""
    for shift in (0.1, 0.5, 1.0, 1.5, 4.0):
        assert guess_bound(shift, 0.5) == pytest.approx(float(mpmath.ncdf(shift)), rel=1e-9)


@settings(deadline=None)
@given(shifts, shifts, priors)
def test_the_bound_never_falls_with_the_shift(one: float, other: float, prior: float) -> None:
    low, high = sorted((one, other))
    assert guess_bound(low, prior) <= guess_bound(high, prior) + 1e-9


@settings(deadline=None)
@given(shifts, priors, priors)
def test_the_bound_never_falls_with_the_prior(shift: float, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert guess_bound(shift, low) <= guess_bound(shift, high) + 1e-9


@settings(deadline=None)
@given(shifts, priors)
def test_the_bound_lies_between_the_prior_and_the_renyi_bound(shift: float, prior: float) -> None:
    """The closed form of the Renyi divergence, which the bound replaced, is never below it."""
    bound, edge = guess_bound(shift, prior), math.sqrt(2 * math.log(1 / prior))
    assert prior <= bound <= (1.0 if shift >= edge else math.exp(-((edge - shift) ** 2) / 2)) + 1e-9


@settings(deadline=None)
@given(priors)
def test_the_bound_without_releases_is_the_prior(prior: float) -> None:
    assert guess_bound(0.0, prior) == prior


@settings(deadline=None)
@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_s_squared_adds(one: int, other: int) -> None:
    both = NANO.shift(one + other)
    assert both**2 == pytest.approx(NANO.shift(one) ** 2 + NANO.shift(other) ** 2)
    rates = [bits(NANO.shift(count), 64 * count) for count in (one, other, one + other)]
    assert rates[2] == pytest.approx(rates[0] + rates[1])
    assert zcdp_rho(both) == pytest.approx(zcdp_rho(NANO.shift(one)) + zcdp_rho(NANO.shift(other)))


def exact_delta(shift: float, eps: float) -> mpmath.mpf:
    """Between two scenes, codes 2 C apart: Phi(S - eps / 2S) - e^eps Phi(-S - eps / 2S), at enough digits."""
    with mpmath.workdps(60):
        s, e = mpmath.mpf(shift), mpmath.mpf(eps)
        return mpmath.ncdf(s - e / (2 * s)) - mpmath.exp(e) * mpmath.ncdf(-s - e / (2 * s))


def test_epsilon_of_an_event_of_balanced_is_said() -> None:
    """At S = 3 and delta 1e-6: weak between two known scenes, and the pages say so."""
    assert eps_at_delta(3.0, 1e-6) == pytest.approx(45.786, abs=1e-3)
    assert zcdp_rho(1.0) == 2.0


@settings(deadline=None)
@given(st.floats(0.01, 900.0), st.floats(-12, -0.5).map(lambda x: 10**x))
def test_epsilon_is_the_least_that_goes_with_delta_and_on_the_safe_side(shift: float, delta: float) -> None:
    eps = eps_at_delta(shift, delta)
    assert exact_delta(shift, eps) <= delta
    assert eps == 0.0 or exact_delta(shift, eps * (1 - 1e-4)) > delta * (1 - 1e-6)
    assert delta_at_eps(shift, eps) <= delta


@settings(deadline=None)
@given(st.floats(1e-6, 900.0), st.floats(0.0, 50.0))
def test_delta_is_never_below_the_exact_one(shift: float, steps: float) -> None:
    eps = steps * shift
    assert delta_at_eps(shift, eps) >= exact_delta(shift, eps)


@settings(deadline=None)
@given(st.integers(1, 10_000), st.floats(0.1, 20.0), st.integers(1, 64))
def test_sigma_is_the_smallest_on_the_grid_that_keeps_s_per_event(clip: int, target: float, releases: int) -> None:
    sigma = sigma_for(clip, target, releases)
    assert (sigma * 64).denominator == 1
    assert clip * math.sqrt(releases) / float(sigma) <= target
    finer = sigma - Fraction(1, 64)
    assert finer <= 0 or clip * math.sqrt(releases) / float(finer) > target * (1 - 1e-12)


def test_the_shipped_profile_is_the_designs() -> None:
    assert PROFILES == {"ultra": 1.0, "strict": 2.0, "balanced": 3.0, "detailed": 4.0}
    assert sigma_for(64, 3.0) == Fraction("60.34375")
    assert 2.999 < NANO.s_event <= 3.0
    assert NANO.s_event == pytest.approx(NANO.s_release * math.sqrt(8))


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("slot_s", [0.25, 1.0, 2.0])
def test_tau_is_negligible_over_ten_years(profile: str, slot_s: float) -> None:
    certificate = Certificate(64, sigma_for(64, PROFILES[profile]), 64, slot_s, 5.0)
    assert -88 <= certificate.log2_tau <= -76


def test_an_incident_is_charged_for_all_releases_that_it_touches() -> None:
    assert NANO.releases_touched(0.0) == 5
    assert NANO.releases_touched(10.0) == 15
    assert NANO.releases_touched(10.01) == 16
    assert NANO.document()["incident_10s"]["releases"] == 15
    assert [NANO.document()[f"incident_{t}s"]["releases"] for t in INCIDENTS_S] == [t + 5 for t in INCIDENTS_S]


@pytest.mark.parametrize(
    ("people", "seconds"), [(10, (0, 0, 3.3)), (1000, (0.3, 8.3, 18.3)), (100_000, (8.3, 19.3, 30.3))]
)
def test_times_in_view_are_the_designs(people: int, seconds: tuple[float, ...]) -> None:
    """Of S = 3 per event and a receptive field of 7.7 s."""
    found = replace(NANO, receptive_field_s=7.7)
    assert [found.time_in_view_s(people, level) for level in PASSED] == pytest.approx(seconds)


def test_the_time_in_view_ends_with_the_last_release_below_the_level() -> None:
    for gallery, level, cameras in itertools.product(GALLERIES, PASSED, CAMERAS):
        seconds = NANO.time_in_view_s(gallery, level, cameras)
        seen = NANO.releases_touched(seconds)
        assert NANO.chance(seen + 1, 1 / gallery, cameras) > level
        if seconds:
            assert NANO.chance(seen, 1 / gallery, cameras) <= level


def test_s_squared_adds_over_cameras() -> None:
    """c cameras over r releases are as many releases as c r of one; the document works it out."""
    document = NANO.document()
    for cameras in CAMERAS[1:]:
        for span in ("release", "event", "incident_10s", "visit_5min"):
            together = document["cameras"][str(cameras)][span]
            assert together["releases"] == cameras * document[span]["releases"]
            assert together["S"] == pytest.approx(math.sqrt(cameras) * document[span]["S"], rel=1e-5)
            assert together["bits"] == pytest.approx(cameras * document[span]["bits"], rel=1e-5)
        for gallery, level in itertools.product(GALLERIES, PASSED):
            seconds = document["time_in_view_s"][str(cameras)][str(gallery)][str(level)]
            assert seconds == NANO.time_in_view_s(gallery, level, cameras) <= NANO.time_in_view_s(gallery, level)


def test_ranks_and_attributes_are_bounds_at_other_priors() -> None:
    """The prior of "the right one is among k of M" is k / M; that of an attribute is its majority's share."""
    row = NANO.reveals(1)
    for rank in RANKS:
        assert set(row["right_one_among"][str(rank)]) == {str(m) for m in GALLERIES if m > rank}
        for gallery, p in row["right_one_among"][str(rank)].items():
            assert p == pytest.approx(guess_bound(NANO.s_release, rank / int(gallery)), rel=1e-5)
            assert p >= row["name_one_of"][gallery]
    assert [row["attribute"][str(share)] >= share for share in ATTRIBUTES] == [True] * len(ATTRIBUTES)


@settings(deadline=None, max_examples=40)
@given(st.fractions(Fraction(20), Fraction(2000), max_denominator=64), st.integers(1, 5000), st.sampled_from([16, 64]))
def test_a_written_bound_is_never_below_the_proved_one(sigma: Fraction, releases: int, n: int) -> None:
    """Rounding, and the sampler's total variation, are on the safe side of every number."""
    certificate = Certificate(64, sigma, n, 1.0, 5.0)
    row = certificate.reveals(releases)
    exact = Fraction(64) ** 2 / sigma**2 * releases
    assert Fraction(row["S"]) ** 2 >= exact
    assert row["bits"] >= bits(math.sqrt(exact), releases * n)
    assert Fraction(row["zcdp_rho"]) >= 2 * exact
    shift = math.sqrt(exact)
    tau = releases * n * (13.5 * float(sigma) + 3) * 2.0**-128
    assert 2 ** row["log2_tau"] >= tau
    for gallery, p in row["name_one_of"].items():
        assert p == 1.0 or p >= exact_bound(shift, 1 / int(gallery)) + tau
    assert row["delta"] == 1.0 or row["delta"] >= 1e-6 + (1 + math.exp(eps_at_delta(shift, 1e-6))) * tau


def test_tau_follows_from_sigma_n_cadence_and_life() -> None:
    def tau(**changes: Any) -> float:
        return 2 ** Certificate(**{**inputs, **changes}).log2_tau

    inputs: dict[str, Any] = {"clip_norm": 64, "sigma": Fraction(60), "n": 64, "slot_s": 1.0, "receptive_field_s": 5.0}
    assert tau(n=128) == pytest.approx(2 * tau())
    assert tau(slot_s=0.5) == pytest.approx(2 * tau(), rel=1e-6)
    assert tau(lifetime_years=20.0) == pytest.approx(2 * tau(), rel=1e-6)
    assert tau(sigma=Fraction(120)) == pytest.approx(2 * tau(), rel=0.01)
    samples = 10 * 365.25 * 86400 * 64
    assert tau() == pytest.approx(samples * (13.5 * 60 + 3) * 2.0**-128, rel=1e-6)


def test_delta_is_1_where_the_samplers_share_of_it_is_larger() -> None:
    """At large eps the sampler's share (1 + e^eps) tau is more than 1: a delta of 1 says nothing."""
    assert NANO.reveals(1)["delta"] == pytest.approx(1e-6, rel=1e-4)
    assert NANO.reveals(3605)["delta"] == 1.0


def test_other_noise_gives_another_certificate_of_the_same_cadence() -> None:
    strict = NANO.at(sigma_for(64, 2.0))
    assert (strict.n, strict.slot_s, strict.clip_norm) == (NANO.n, NANO.slot_s, NANO.clip_norm)
    assert strict.s_event < NANO.s_event


def test_the_document_says_what_is_not_proved() -> None:
    assert NANO.document()["not_proved"] == list(NOT_PROVED) and len(NOT_PROVED) >= 3


def test_the_document_says_what_about_against_whom_and_by_what() -> None:
    """Every span has its unit, and is in one layer: the gate's, or the one that also needs an eye that forgets."""
    document = NANO.document()
    spans = [name for name, part in document.items() if isinstance(part, dict) and "delta" in part]
    assert list(document["unit"]) == spans
    layers = {name: layer["spans"] for name, layer in document["layers"].items()}
    assert layers["gate"] == ["release", "event", "hour", "day"]
    assert sorted(layers["gate"] + layers["gate_and_eye"]) == sorted(spans)
    assert set(document["neighbours"]) == {"chances", "eps"} and "everything but the noise" in document["adversary"]
    watching = document["watching"]
    assert (watching["period_s"], watching["bits_hostile_eye"], watching["bits_honest_eye"]) == (3600, 1, 0)


def test_an_hour_is_its_releases_whatever_the_eye_remembers() -> None:
    """The gate alone bounds an hour of releases; what is seen in an hour may be in a few more."""
    assert NANO.document()["hour"]["releases"] == 3600 and NANO.document()["day"]["releases"] == 86_400


def test_the_same_certificate_is_the_same_text() -> None:
    again = Certificate.from_json(NANO.to_json())
    assert again == NANO and again.to_json() == NANO.to_json() and again.sha256() == NANO.sha256()


def leaves(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all that is neither a table nor a list."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    found = False
    for key, value in items:
        found = True
        yield from leaves(value, (*path, key))
    if not found:
        yield path


def changed(value: Any) -> Any:
    if isinstance(value, str):
        return value + "1"
    return value * 2 + 1 if value < 0.4 else value * 1.01 if isinstance(value, float) else value + 1


@pytest.mark.parametrize("part", NANO.document())
def test_no_field_can_be_edited(part: str) -> None:
    """Every single leaf of the part, one after the other."""
    for path in leaves(NANO.document()[part], (part,)):
        document = copy.deepcopy(NANO.document())
        table = document
        for key in path[:-1]:
            table = table[key]
        table[path[-1]] = changed(table[path[-1]])
        with pytest.raises(CertificateError, match="build the engine again"):
            Certificate.from_json(json.dumps(document))


@pytest.mark.parametrize("key", NANO.document())
def test_no_field_can_be_left_out(key: str) -> None:
    document = NANO.document()
    del document[key]
    with pytest.raises(CertificateError):
        Certificate.from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"inputs": 3}', NANO.to_json().replace("64", '"64"')])
def test_other_text_than_a_certificate_is_refused(text: str) -> None:
    with pytest.raises(CertificateError):
        Certificate.from_json(text)


def test_an_added_field_is_refused() -> None:
    with pytest.raises(CertificateError, match="the fields are not"):
        Certificate.from_json(json.dumps({**NANO.document(), "promise": "everything"}))


@pytest.mark.parametrize(
    "values",
    [
        {"clip_norm": 0},
        {"n": 0},
        {"sigma": Fraction(0)},
        {"slot_s": 0.0},
        {"slot_s": 6.0},
        {"event_releases": 0},
        {"clip_norm": 2**14, "n": 8},
    ],
)
def test_inputs_out_of_range_are_refused(values: dict[str, Any]) -> None:
    inputs = {
        "clip_norm": 64,
        "sigma": Fraction(60),
        "n": 64,
        "slot_s": 1.0,
        "receptive_field_s": 5.0,
        "event_releases": 8,
    }
    with pytest.raises(CertificateError):
        Certificate(**{**inputs, **values})


@pytest.mark.parametrize(("prior", "shift"), [(0.0, 1.0), (1.0, 1.0), (0.5, -1.0), (0.5, math.nan), (math.nan, 1.0)])
def test_a_prior_or_shift_out_of_range_is_refused(prior: float, shift: float) -> None:
    with pytest.raises(CertificateError):
        guess_bound(shift, prior)
