"""The certificate's formulas against Google's accountant, and against small mechanisms enumerated completely.

A mechanism of one or two coordinates is small enough to be written out: every code, every outcome, its probability, and
the optimal attacker. No bound may be below what that attacker reaches, nor far above it.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt
import pytest

from wire.privacy.certificate import Certificate, bits, eps_at_delta, guess_bound, zcdp_rho

Floats = npt.NDArray[np.float64]
Point = tuple[int, ...]


def line(mu: int, sigma: float, largest: int) -> Floats:
    """P(z) for z in -largest to largest of mu + a discrete Gaussian; what lies beyond is below 1e-15."""
    z = np.arange(-largest, largest + 1)
    weights = np.exp(-((z - mu) ** 2) / (2 * sigma**2))
    made: Floats = weights / np.exp(-(z.astype(float) ** 2) / (2 * sigma**2)).sum()
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


@pytest.mark.parametrize(("clip_norm", "sigma"), [(1, 1.0), (2, 2.0), (3, 2.0), (3, 1.5)])
@pytest.mark.parametrize("people", [2, 3])
def test_no_placement_of_people_on_a_line_beats_the_bound(clip_norm: int, sigma: float, people: int) -> None:
    """Every assignment of codes to people: the optimal attacker on the worst assignment stays below."""
    table = {code: outcomes(code, sigma, clip_norm) for code in ball(clip_norm, 1)}
    best = max(best_guess(np.stack([table[code] for code in codes])) for codes in itertools.combinations(table, people))
    assert best <= guess_bound(clip_norm / sigma, 1 / people)


@pytest.mark.parametrize(("clip_norm", "sigma"), [(2, 2.0), (2, 4.0)])
@pytest.mark.parametrize("people", [2, 3])
def test_no_placement_of_people_in_a_plane_beats_the_bound(clip_norm: int, sigma: float, people: int) -> None:
    table = {code: outcomes(code, sigma, clip_norm) for code in ball(clip_norm, 2)}
    placements: Iterable[tuple[Point, ...]] = itertools.combinations(table, people)
    best = max(best_guess(np.stack([table[code] for code in codes])) for codes in placements)
    assert best <= guess_bound(clip_norm / sigma, 1 / people)


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


def test_the_bound_is_near_what_an_attacker_reaches() -> None:
    """Two people at +-C: the optimal attacker reaches more than three quarters of the gain that the bound allows."""
    for shift in (0.1, 0.25, 0.5):
        clip_norm = 8
        rows = np.stack([outcomes((mu,), clip_norm / shift, clip_norm) for mu in (-clip_norm, clip_norm)])
        gained = best_guess(rows) - 0.5
        assert 0.75 <= gained / (guess_bound(shift, 0.5) - 0.5) <= 1.0


@pytest.mark.parametrize("prior", [1e-5, 1e-3, 0.1])
@pytest.mark.parametrize("shift", [0.5, 1.0, 2.0])
def test_the_bound_is_near_the_best_test_of_its_size(prior: float, shift: float) -> None:
    """A half-space of probability `prior` under noise alone has Phi(Phi^-1(prior) + S) under a code there."""
    quantile = mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(prior) - 1)
    reached = float(mpmath.ncdf(quantile + shift))
    assert reached <= guess_bound(shift, prior) <= 2.2 * reached


@pytest.mark.parametrize(("clip_norm", "sigma"), [(2, 1.0), (3, 2.0), (5, 2.5)])
def test_mutual_information_is_below_the_bits(clip_norm: int, sigma: float) -> None:
    """Capacity of the enumerated channel, by Blahut and Arimoto."""
    rows = np.stack([outcomes(code, sigma, clip_norm) for code in ball(clip_norm, 1)])
    prior = np.full(len(rows), 1 / len(rows))
    for _ in range(500):
        apart = (rows * np.log2(np.maximum(rows, 1e-300) / np.maximum(prior @ rows, 1e-300))).sum(axis=1)
        prior = prior * 2**apart
        prior /= prior.sum()
    assert 0 < float(apart.max()) <= bits(clip_norm / sigma)  # the largest is never below the capacity


@pytest.mark.parametrize(("clip_norm", "sigma"), [(1, 0.8), (3, 2.0), (6, 3.0)])
def test_renyi_divergences_are_within_their_bounds(clip_norm: int, sigma: float) -> None:
    """Of order a from noise alone: at most a S^2 / 2; between two codes: at most a rho."""
    shift = clip_norm / sigma
    still = outcomes((0,), sigma, clip_norm)
    ends = [outcomes((mu,), sigma, clip_norm) for mu in (-clip_norm, clip_norm)]
    for order in (1.1, 2.0, 5.0):
        assert renyi(ends[0], still, order) <= order * shift**2 / 2 + 1e-9
        assert renyi(ends[0], ends[1], order) <= order * zcdp_rho(shift) + 1e-9


def renyi(p: Floats, q: Floats, order: float) -> float:
    with np.errstate(divide="ignore", under="ignore"):
        logs = order * np.log(p) + (1 - order) * np.log(q)
    return float(np.log(np.exp(logs[np.isfinite(logs)]).sum()) / (order - 1))


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


@pytest.mark.parametrize("releases", [1, 8, 15, 305])
@pytest.mark.parametrize("delta", [1e-9, 1e-6, 1e-3])
def test_epsilon_is_not_below_that_of_the_accountant(accounting: Any, releases: int, delta: float) -> None:
    """zCDP composed by dp-accounting and converted by its tighter rule: below ours, and not by much."""
    from dp_accounting import rdp

    certificate = Certificate(clip_norm=64, sigma=Fraction(1931, 32), n=64, slot_s=1.0, receptive_field_s=5.0)
    orders = [1 + 10 ** (x / 20) for x in range(-80, 61)]
    accountant = rdp.RdpAccountant(orders)
    accountant.compose(accounting.ZCDpEvent(zcdp_rho(certificate.s_release)), releases)
    theirs, ours = accountant.get_epsilon(delta), eps_at_delta(certificate.shift(releases), delta)
    assert theirs <= ours * (1 + 1e-9)
    assert theirs >= 0.85 * ours


@pytest.mark.parametrize("releases", [1, 8])
@pytest.mark.parametrize("delta", [1e-6, 1e-3])
def test_epsilon_covers_the_discrete_gaussian_itself(accounting: Any, releases: int, delta: float) -> None:
    """The privacy loss of +C against -C in one coordinate, distribution composed numerically by dp-accounting."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    clip_norm, sigma = 4, 8.0
    loss = pld.from_discrete_gaussian_mechanism(sigma, 2 * clip_norm, value_discretization_interval=1e-3)
    exact = loss.self_compose(releases).get_epsilon_for_delta(delta)
    ours = eps_at_delta(clip_norm / sigma * math.sqrt(releases), delta)
    assert exact <= ours
    assert exact >= 0.7 * ours
