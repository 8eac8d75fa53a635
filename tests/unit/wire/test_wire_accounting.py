"""The certificate's formulas against Google's accountant, and against small mechanisms enumerated completely.

A mechanism of one to three coordinates is small enough to be written out: every code, every outcome, its probability,
and the optimal attacker. No bound may be below what that attacker reaches, nor far above it.
"""

from __future__ import annotations

import itertools
import math
import warnings
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.privacy.certificate import Certificate, bits, eps_at_delta, guess_bound
from wire.privacy.gaussian_dp import delta_at_eps

Floats = npt.NDArray[np.float64]
Point = tuple[int, ...]


def line(mu: int, sigma: float, largest: int) -> Floats:
    """P(z) for z in -largest to largest of mu + round(g); what lies beyond is below 1e-15."""
    edges = np.arange(-largest, largest + 2) - 0.5 - mu
    inside = np.array([math.erf(edge / (sigma * math.sqrt(2))) for edge in edges])
    made: Floats = np.diff(inside) / 2
    return made


def outcomes(code: Point, sigma: float, clip_norm: int) -> Floats:
    """P(z) over the whole lattice around, flattened."""
    largest = clip_norm + math.ceil(9 * sigma)
    made = np.ones(1)
    for mu in code:
        made = np.multiply.outer(made, line(mu, sigma, largest)).ravel()
    return made


def ball(clip_norm: int, n: int) -> list[Point]:
    """Every code of n coordinates with Euclidean norm at most `clip_norm`."""
    steps = range(-clip_norm, clip_norm + 1)
    return [code for code in itertools.product(steps, repeat=n) if sum(c * c for c in code) <= clip_norm**2]


def best_guess(rows: Floats, rank: int = 1) -> float:
    """The optimal attacker on equally likely people, one row of P(z) each: the mass of the `rank` likeliest per z."""
    return float(np.sort(rows, axis=0)[-rank:].sum() / len(rows))


def circle(clip_norm: int, people: int) -> list[Point]:
    """People as far apart as the lattice lets them be."""
    rim = [code for code in ball(clip_norm, 2) if sum(c * c for c in code) > (clip_norm - 1) ** 2]
    rim.sort(key=lambda code: math.atan2(code[1], code[0]))
    return [rim[i * len(rim) // people] for i in range(people)]


SMALL = [  # n, C, sigma: S from 0.5 to 2.5
    *[(1, 1, 1.0), (1, 3, 2.0), (1, 3, 1.2), (1, 5, 2.0)],
    *[(2, 1, 1.0), (2, 2, 4.0), (2, 2, 1.0)],
    *[(3, 1, 2.0), (3, 1, 0.6)],
]


@pytest.mark.parametrize(("n", "clip_norm", "sigma"), SMALL)
@pytest.mark.parametrize("people", [2, 3, 4, 5])
def test_no_placement_of_people_in_the_ball_beats_the_bound(n: int, clip_norm: int, sigma: float, people: int) -> None:
    """Every assignment of codes to people: the optimal attacker on the worst assignment stays below."""
    codes = ball(clip_norm, n) * (2 if n == clip_norm == 1 else 1)  # three codes: some people share one
    rows = np.stack([outcomes(code, sigma, clip_norm) for code in codes])
    seen = rows[:, rows.max(axis=0) > 1e-13]  # what is left out could add 1e-8 to nothing
    best = max(best_guess(seen[list(taken)]) for taken in itertools.combinations(range(len(codes)), people))
    assert 1 / people < best <= guess_bound(clip_norm / sigma, 1 / people)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(1, 50), min_size=2, max_size=6), st.randoms(), st.sampled_from([0.7, 1.0, 3.0]))
def test_no_prior_over_scenes_beats_the_bound(shares: list[int], dice: Any, sigma: float) -> None:
    """Scenes of any likelihood, any codes: the best guess is bounded by that of the likeliest scene without looking.

    The same with a bit about the scene beside the release, such as a hostile eye's `watching`: the prior doubles.
    """
    table = {code: outcomes(code, sigma, 2) for code in ball(2, 1)}
    weights = np.array(shares) / sum(shares)
    rows = weights[:, None] * np.stack([table[dice.choice(list(table))] for _ in shares])
    assert rows.max(axis=0).sum() <= guess_bound(2 / sigma, float(weights.max())) + 1e-12
    bit = np.array([dice.random() < 0.5 for _ in shares])
    told = sum(float(rows[bit == side].max(axis=0).sum()) for side in (False, True) if (bit == side).any())
    assert told <= guess_bound(2 / sigma, min(1 - 1e-12, 2 * float(weights.max()))) + 1e-12


@pytest.mark.parametrize("people", [2, 3])
def test_a_level_that_was_chosen_on_the_way_is_paid_by_its_sum(people: int) -> None:
    """Two releases; noise and codes of the second follow from the first, and S^2 sums to at most B on every path.

    The filter of Gaussian differential privacy: all of it is no more than one release of shift sqrt(B).
    """
    clip_norm, largest = 3, 40
    first = np.stack([line(mu, 6.0, largest) for mu in (-3, 3, 0)[:people]])
    louder = np.arange(-largest, largest + 1) % 3 == 0  # any rule of the first z
    spent = [clip_norm**2 / 36 + clip_norm**2 / sigma**2 for sigma in (2.0, 6.0)]
    for codes in itertools.product((-3, 3), repeat=people):
        second = [np.stack([line(mu, sigma, largest) for mu in codes]) for sigma in (2.0, 6.0)]
        rows = [
            np.einsum("ma,mb->mab", first[:, where], law) for where, law in zip((louder, ~louder), second, strict=True)
        ]
        found = sum(float(part.max(axis=0).sum()) for part in rows) / people
        assert found <= guess_bound(math.sqrt(max(spent)), 1 / people)


@pytest.mark.parametrize("shift", [0.25, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("people", [4, 10])
@pytest.mark.parametrize("rank", [1, 2])
def test_ranks_hold_against_the_best_ranking(shift: float, people: int, rank: int) -> None:
    clip_norm = 8
    sigma = clip_norm / shift
    rows = np.stack([outcomes(code, sigma, clip_norm) for code in circle(clip_norm, people)])
    found, bound = best_guess(rows, rank), guess_bound(shift, rank / people)
    assert found <= bound
    assert found > rank / people


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("shift", [0.25, 0.5, 1.0])
def test_attributes_hold_against_the_likelihood_ratio(share: float, shift: float) -> None:
    """Majority at -C, minority at +C, and the best rule for their shares."""
    clip_norm = 8
    sigma = clip_norm / shift
    ends = [outcomes((mu,), sigma, clip_norm) for mu in (-clip_norm, clip_norm)]
    found = float(np.maximum(share * ends[0], (1 - share) * ends[1]).sum())
    assert share - 1e-9 <= found <= guess_bound(shift, share)


def test_two_people_at_opposite_codes_reach_the_bound() -> None:
    """At +-C the matched filter, the sign of z, is right with chance Phi(S): all but 1e-3 of what the bound allows."""
    clip_norm = 64
    for shift in (0.1, 0.25, 0.5, 1.0, 2.0):
        rows = np.stack([outcomes((mu,), clip_norm / shift, clip_norm) for mu in (-clip_norm, clip_norm)])
        gained = best_guess(rows) - 0.5
        assert 0.999 <= gained / (guess_bound(shift, 0.5) - 0.5) <= 1.0


@pytest.mark.parametrize(("people", "shift"), [(10, 3.0), (1000, 2.0), (1000, 3.0), (1000, 4.0), (100_000, 3.0)])
def test_the_matched_filter_among_orthogonal_codes_is_near_the_bound(people: int, shift: float) -> None:
    """It is right with chance E Phi(g + S)^(M - 1), g normal: more than 0.7 of the bound, and never more than it."""
    g = np.linspace(-9, 9, 20_001)
    others = np.array([math.erfc(-(x + shift) / math.sqrt(2)) / 2 for x in g]) ** (people - 1)
    reached = float((np.exp(-g * g / 2) * others).sum() * (g[1] - g[0]) / math.sqrt(2 * math.pi))
    assert 0.7 * guess_bound(shift, 1 / people) <= reached <= guess_bound(shift, 1 / people)


def test_the_matched_filter_on_releases_with_rounded_noise_is_near_the_bound() -> None:
    """64 people at the 64 axes of the shipped code, S = 3, played 40,000 times: between 0.7 of the bound and it."""
    rng, clip_norm = np.random.default_rng(0), 64
    z = np.rint(rng.normal(0.0, clip_norm / 3, (40_000, 64)))
    z[:, 5] += clip_norm
    reached, bound = float((z.argmax(axis=1) == 5).mean()), guess_bound(3.0, 1 / 64)
    assert 0.7 * bound <= reached <= bound


@pytest.mark.parametrize("prior", [1e-5, 1e-3, 0.1])
@pytest.mark.parametrize("shift", [0.5, 1.0, 2.0])
def test_the_bound_is_the_best_test_of_its_size(prior: float, shift: float) -> None:
    """A half-space of probability `prior` under noise alone has Phi(Phi^-1(prior) + S) under a code there."""
    quantile = mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(prior) - 1)
    assert guess_bound(shift, prior) == pytest.approx(float(mpmath.ncdf(quantile + shift)), rel=1e-9)


@pytest.mark.parametrize(("clip_norm", "sigma"), [(2, 1.0), (3, 2.0), (5, 2.5)])
def test_mutual_information_is_below_the_bits(clip_norm: int, sigma: float) -> None:
    """Capacity of the enumerated channel, by Blahut and Arimoto."""
    rows = np.stack([outcomes(code, sigma, clip_norm) for code in ball(clip_norm, 1)])
    prior = np.full(len(rows), 1 / len(rows))
    for _ in range(500):
        apart = (rows * np.log2(np.maximum(rows, 1e-300) / np.maximum(prior @ rows, 1e-300))).sum(axis=1)
        prior = prior * 2**apart
        prior /= prior.sum()
    assert 0 < float(apart.max()) <= bits(clip_norm / sigma, 1)  # the largest is never below the capacity


@pytest.mark.parametrize(("clip_norm", "sigma"), [(1, 0.8), (3, 2.0), (8, 8.0), (40, 20.0)])
def test_two_scenes_are_as_close_as_eps_and_delta_say(clip_norm: int, sigma: float) -> None:
    """delta(eps) of the enumerated +C against -C, both ways: below the formula, near it on a fine lattice."""
    shift = clip_norm / sigma
    ends = [outcomes((mu,), sigma, clip_norm) for mu in (-clip_norm, clip_norm)]
    for eps in (0.0, 0.5, 1.0, 3.0):
        for p, q in (ends, ends[::-1]):
            found, bound = float(np.maximum(p - math.exp(eps) * q, 0.0).sum()), delta_at_eps(shift, eps)
            assert found <= bound
            assert clip_norm < 8 or found >= 0.97 * bound


def test_two_cameras_are_two_coordinates() -> None:
    """S^2 adds: what two cameras reveal of one person is within the certificate for two releases."""
    one = Certificate(clip_norm=4, sigma=Fraction(8), n=1, slot_s=1.0, receptive_field_s=1.0)
    people = [(-4, -4), (4, 4), (4, -4), (-4, 4)]
    rows = np.stack([outcomes(code, 8.0, 6) for code in people])
    found = best_guess(rows)
    assert one.shift(2) == pytest.approx(math.sqrt(32) / 8)
    assert best_guess(rows[:2]) <= guess_bound(one.shift(2), 0.5)
    assert 0.25 < found <= guess_bound(one.shift(2), 0.25)
    alone = np.stack([outcomes(code, 8.0, 4) for code in ((-4,), (4,))])
    assert best_guess(rows[:2]) > best_guess(alone)


@pytest.fixture(scope="module")
def accounting() -> Any:
    """Google's dp-accounting; the test skips where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("dp_accounting", reason="dp-accounting is not installed")


@pytest.mark.parametrize("releases", [1, 8, 18, 308])
@pytest.mark.parametrize("delta", [1e-9, 1e-6, 1e-3])
def test_epsilon_is_that_of_the_accountant(accounting: Any, releases: int, delta: float) -> None:
    """The Gaussian mechanism at sensitivity 2 C, composed by dp-accounting: exact there, and never above ours."""
    from dp_accounting.pld import privacy_loss_mechanism

    certificate = Certificate(clip_norm=64, sigma=Fraction(1931, 32), n=64, slot_s=1.0, receptive_field_s=5.0)
    sensitivity = 2 * 64 * math.sqrt(releases)
    theirs = privacy_loss_mechanism.GaussianPrivacyLoss(float(certificate.sigma), sensitivity=sensitivity)
    ours = eps_at_delta(certificate.shift(releases), delta)
    assert theirs.get_delta_for_epsilon(ours) <= delta * (1 + 1e-6)
    assert theirs.get_delta_for_epsilon(ours * (1 - 1e-4)) > delta


@pytest.mark.parametrize("releases", [1, 8])
@pytest.mark.parametrize("delta", [1e-6, 1e-3])
def test_epsilon_covers_the_composed_mechanism(accounting: Any, releases: int, delta: float) -> None:
    """The privacy loss of +C against -C in one coordinate, distribution composed numerically by dp-accounting."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    clip_norm, sigma = 4, 8.0
    loss = pld.from_gaussian_mechanism(
        sigma, sensitivity=2 * clip_norm, value_discretization_interval=1e-3, pessimistic_estimate=False
    )
    theirs = loss.self_compose(releases).get_epsilon_for_delta(delta)
    ours = eps_at_delta(clip_norm / sigma * math.sqrt(releases), delta)
    assert 0.99 * ours <= theirs <= ours


def test_chances_are_the_accountants_trade_off(accounting: Any) -> None:
    """A guess with prior kappa is a test of scene against pure noise: p - e^eps kappa <= delta(eps) for every eps."""
    from dp_accounting.pld import privacy_loss_mechanism

    theirs = privacy_loss_mechanism.GaussianPrivacyLoss(1.0, sensitivity=3.0)
    for prior in (1e-5, 1e-3, 0.1, 0.5):
        allowed = min(
            math.exp(eps) * prior + theirs.get_delta_for_epsilon(eps) for eps in np.linspace(-20.0, 40.0, 3001)
        )
        assert guess_bound(3.0, prior) == pytest.approx(allowed, rel=1e-4)
