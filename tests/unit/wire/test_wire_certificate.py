"""The certificate: the design's check values, properties of the formulas, and that an edited number is refused."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
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
    PROFILES,
    RANKS,
    Certificate,
    bits,
    eps_at_delta,
    guess_bound,
    guess_bound_simple,
    sigma_for,
    zcdp_rho,
)

NANO = Certificate(clip_norm=64, sigma=sigma_for(64, 3.0), n=64, slot_s=1.0, receptive_field_s=5.0)

shifts = st.floats(0.0, 6.0)
priors = st.floats(1e-6, 0.95)


@pytest.mark.parametrize(
    ("prior", "shift", "bound"),
    [
        (1 / 1000, 0.5, 0.0057),
        (1 / 1000, 1.0, 0.0249),
        (1 / 1000, 2.0, 0.2253),
        (1 / 1000, 3.0, 0.7231),
        (1 / 100_000, 1.0, 0.0007),
        (1 / 100_000, 2.0, 0.0199),
        (1 / 100_000, 3.0, 0.1972),
        (0.1, 0.5, 0.2512),
        (0.1, 1.0, 0.4837),
        (0.1, 2.0, 0.9512),
        (0.5, 0.5, 0.7446),
        (0.5, 1.0, 0.9518),
    ],
)
def test_the_bound_has_the_designs_values(prior: float, shift: float, bound: float) -> None:
    """To its four digits, rounded to the nearest or, as 0.95113 there, up; and to five what the definition gives."""
    found = guess_bound(shift, prior)
    assert bound in (round(found, 4), math.ceil(found * 1e4) / 1e4)
    assert found == pytest.approx(float(defined_bound(shift, prior)), rel=1e-5)


def defined_bound(shift: float, prior: float) -> mpmath.mpf:
    """The least, over all orders a > 1, of the largest p that the order allows, at 30 digits; by golden section."""
    with mpmath.workdps(30):
        k, s = mpmath.mpf(prior), mpmath.mpf(shift)

        def largest(log_order: mpmath.mpf) -> mpmath.mpf:
            a = 1 + mpmath.exp(log_order)
            limit = mpmath.exp(a * (a - 1) * s * s / 2)
            low, high = k, mpmath.mpf(1)
            for _ in range(80):
                p = (low + high) / 2
                fits = p**a * k ** (1 - a) + (1 - p) ** a * (1 - k) ** (1 - a) <= limit
                low, high = (p, high) if fits else (low, p)
            return high

        low, high, golden = mpmath.mpf(-14), mpmath.mpf(6), (mpmath.sqrt(5) - 1) / 2
        for _ in range(50):
            one, other = high - golden * (high - low), low + golden * (high - low)
            low, high = (one, high) if largest(other) < largest(one) else (low, other)
        return largest((low + high) / 2)


@pytest.mark.parametrize(("shift", "value"), [(1, "0.7213"), (2, "2.885"), (3, "6.492"), (4, "11.54")])
def test_bits_have_the_designs_values(shift: float, value: str) -> None:
    """To four digits."""
    assert f"{bits(shift):.4g}" == value


@settings(deadline=None, max_examples=40)
@given(st.floats(0.05, 3.0), st.sampled_from([1e-5, 1e-3, 0.1, 0.5]))
def test_the_bound_is_the_largest_p_that_every_order_allows(shift: float, prior: float) -> None:
    """Against the definition, on a dense grid of orders and without the module's search."""
    orders = 1.0 + np.exp(np.linspace(math.log(1e-5), math.log(1e5), 20_001))

    def allowed(p: float) -> bool:
        right = orders * math.log(p) + (1 - orders) * math.log(prior)
        wrong = orders * math.log1p(-p) + (1 - orders) * math.log1p(-prior)
        return bool(np.all(np.logaddexp(right, wrong) <= orders * (orders - 1) * shift**2 / 2 + 1e-12))

    bound = guess_bound(shift, prior)
    assert bound == 1.0 or not allowed(min(bound * (1 + 1e-3), 1 - 1e-12))
    assert bound <= prior or allowed(max(bound * (1 - 1e-3), prior))


def test_the_bound_is_never_below_what_an_ideal_gaussian_attacker_reaches() -> None:
    """Telling two codes 2C apart, the best test succeeds with Phi(S): the bound at prior 1/2 must not be lower."""
    for shift in (0.1, 0.5, 1.0, 1.5):
        assert guess_bound(shift, 0.5) >= float(mpmath.ncdf(shift)) - 1e-9


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
def test_the_bound_lies_between_the_prior_and_the_closed_form(shift: float, prior: float) -> None:
    bound = guess_bound(shift, prior)
    assert prior <= bound <= min(1.0, guess_bound_simple(shift, prior)) + 1e-12


@settings(deadline=None)
@given(priors)
def test_the_bound_without_releases_is_the_prior(prior: float) -> None:
    assert guess_bound(0.0, prior) == prior


@settings(deadline=None)
@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_s_squared_adds(one: int, other: int) -> None:
    both = NANO.shift(one + other)
    assert both**2 == pytest.approx(NANO.shift(one) ** 2 + NANO.shift(other) ** 2)
    assert bits(both) == pytest.approx(bits(NANO.shift(one)) + bits(NANO.shift(other)))
    assert zcdp_rho(both) == pytest.approx(zcdp_rho(NANO.shift(one)) + zcdp_rho(NANO.shift(other)))


def test_epsilon_is_that_of_zcdp() -> None:
    assert zcdp_rho(1.0) == 2.0
    assert eps_at_delta(1.0, 1e-6) == pytest.approx(2.0 + 2.0 * math.sqrt(2.0 * math.log(1e6)))


@settings(deadline=None)
@given(st.integers(1, 10_000), st.floats(0.1, 20.0), st.integers(1, 64))
def test_sigma_is_the_smallest_on_the_grid_that_keeps_s_per_event(clip: int, target: float, releases: int) -> None:
    sigma = sigma_for(clip, target, releases)
    assert (sigma * 64).denominator == 1
    assert clip * math.sqrt(releases) / float(sigma) <= target
    finer = sigma - Fraction(1, 64)
    assert finer <= 0 or clip * math.sqrt(releases) / float(finer) > target * (1 - 1e-12)


def test_the_shipped_profile_is_the_designs() -> None:
    assert PROFILES == {"strict": 2.0, "balanced": 3.0, "detailed": 4.0}
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


def test_time_to_vacuous_is_when_the_bound_reaches_one() -> None:
    for gallery in GALLERIES:
        seconds = NANO.time_to_vacuous_s(gallery)
        assert guess_bound(NANO.shift(NANO.releases_touched(seconds + NANO.slot_s)), 1 / gallery) == 1.0
        if seconds:
            assert guess_bound(NANO.shift(NANO.releases_touched(max(0.0, seconds - 0.001)) - 1), 1 / gallery) < 1.0
    assert NANO.time_to_vacuous_s(1000, cameras=4) <= NANO.time_to_vacuous_s(1000)


def test_s_squared_adds_over_cameras() -> None:
    """c cameras over r releases are as many releases as c r of one; the document works it out."""
    document = NANO.document()
    for cameras in CAMERAS[1:]:
        for span in ("release", "event", "incident_10s", "visit_5min"):
            together = document["cameras"][str(cameras)][span]
            assert together["releases"] == cameras * document[span]["releases"]
            assert together["S"] == pytest.approx(math.sqrt(cameras) * document[span]["S"], rel=1e-5)
            assert together["bits"] == pytest.approx(cameras * document[span]["bits"], rel=1e-5)
        for gallery in GALLERIES:
            seconds = document["time_to_vacuous_s"][str(cameras)][str(gallery)]
            seen = cameras * NANO.releases_touched(seconds + NANO.slot_s)
            assert guess_bound(NANO.shift(seen), 1 / gallery) == 1.0
            if seconds:
                assert guess_bound(NANO.shift(cameras * NANO.releases_touched(seconds)), 1 / gallery) < 1.0


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
    assert Fraction(row["bits"]) * 2 * Fraction(math.log(2) * (1 - 1e-15)) >= exact
    assert Fraction(row["zcdp_rho"]) >= 2 * exact
    shift = math.sqrt(exact)
    tau = releases * n * (13.5 * float(sigma) + 3) * 2.0**-128
    assert 2 ** row["log2_tau"] >= tau
    for gallery, p in row["name_one_of"].items():
        assert p == 1.0 or p >= guess_bound(shift, 1 / int(gallery)) + tau
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
