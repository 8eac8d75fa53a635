"""Measures beside the bounds: they have the values of their formulas, and planted attackers reach them and no more."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

from calibration import measures
from wire.errors import ConfigError
from wire.privacy.certificate import guess_bound


def normal(x: float) -> float:
    return float(mpmath.ncdf(x))


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0607, 3.0])
def test_no_threshold_on_a_shifted_normal_beats_the_trade_off_and_each_reaches_it(shift: float) -> None:
    for limit in (-1.0, 0.0, 0.7, 2.5, 4.0):
        alarm, miss = 1.0 - normal(limit), normal(limit - shift)
        assert measures.trade_off(shift, alarm) == pytest.approx(miss, abs=1e-9)
    assert measures.trade_off(shift, 0.0) == 1.0 and measures.trade_off(shift, 1.0) == 0.0


def test_a_trade_off_curve_falls_and_is_convex() -> None:
    alarms = np.linspace(0.0, 1.0, 201)
    curve = np.array([measures.trade_off(1.5, float(a)) for a in alarms])
    assert bool((np.diff(curve) < 0).all()) and bool((np.diff(curve, 2) > -1e-12).all())
    assert bool((curve <= 1.0 - alarms + 1e-12).all()), "a test that is worse than guessing"


def test_rebuilds_are_bounded_like_guesses_of_the_same_prior() -> None:
    kappa = measures.kappa_of_disc(0.5, 20.0)
    assert kappa == pytest.approx(math.pi / 80)
    assert measures.rebuild_bound(3.0, kappa) == guess_bound(3.0, kappa)
    assert measures.rebuild_bound(0.0, kappa) == kappa


def test_the_best_rebuild_of_a_normal_quantity_stays_below_its_bound() -> None:
    """Height about a mean, told through a linear code of norm at most S and unit noise; the posterior mean rebuilds."""
    rng, spread, eta, shift = np.random.default_rng(3), 7.0, 2.0, 1.0607
    truth = rng.normal(0.0, spread, 200_000)
    code = np.clip(truth / (2.5 * spread), -1.0, 1.0) * shift
    heard = code + rng.normal(size=len(truth))
    gain = float(np.cov(truth, heard)[0, 1] / heard.var())
    found = float((np.abs(gain * heard - truth) <= eta).mean())
    kappa = measures.kappa_of_normal(spread, eta)
    assert float((np.abs(truth) <= eta).mean()) == pytest.approx(kappa, abs=0.005)
    assert kappa < found < measures.rebuild_bound(shift, kappa)


def test_one_of_two_scenes_is_rebuilt_as_often_as_the_bound_allows() -> None:
    """Codes at +S and -S with equal odds: the sign of what is heard is right with Phi(S), which is the bound."""
    rng, shift = np.random.default_rng(4), 0.8
    sign = rng.choice([-1.0, 1.0], 200_000)
    found = float((np.sign(sign * shift + rng.normal(size=len(sign))) == sign).mean())
    assert found == pytest.approx(measures.rebuild_bound(shift, 0.5), abs=0.004)


def test_the_prior_chance_of_a_picture_is_that_of_its_pixels() -> None:
    rng = np.random.default_rng(5)
    drawn = rng.normal(0.0, 50.0, (200_000, 4))
    found = float((np.sqrt((drawn**2).mean(axis=1)) <= 25.0).mean())
    assert measures.kappa_of_picture(4, 50.0, 25.0) == pytest.approx(found, abs=0.003)
    for pixels, eta in ((1, 10.0), (16, 25.0), (64, 25.0), (5, 80.0)):
        exact = mpmath.gammainc(pixels / 2, 0, pixels * (eta / 50) ** 2 / 2, regularized=True)
        assert measures.kappa_of_picture(pixels, 50.0, eta) == pytest.approx(float(exact), rel=1e-9)


# --- a label alone ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [2, 3, 10])
@pytest.mark.parametrize("shift", [0.3, 1.0, 3.0])
def test_randomised_response_is_within_s_and_touches_it(labels: int, shift: float) -> None:
    """Its own trade-off against an even draw, from all its tests, never lies below the curve of S."""
    right = measures.best_response(shift, labels)
    wrong, even = (1.0 - right) / (labels - 1), 1.0 / labels
    assert right > even
    gaps = []
    for share in np.linspace(0.0, 1.0, 101):  # say "the label" on a share of its own answer, then of the others
        for alarm, miss in (
            (share * even, 1.0 - share * right),
            (even + share * (1.0 - even), (1.0 - share) * (labels - 1) * wrong),
        ):
            gaps.append(miss - measures.trade_off(shift, float(alarm)))
    assert -1e-9 < min(gaps) < 1e-9


def test_more_truth_than_the_best_response_would_break_s() -> None:
    right = measures.best_response(1.0, 3) + 1e-3
    assert 1.0 - right < measures.trade_off(1.0, 1.0 / 3.0)


def test_no_code_tells_a_label_more_often_than_randomised_response() -> None:
    """Three codes of norm S, as far apart as can be, read by the nearest: the best use of the noise for a label."""
    rng, shift = np.random.default_rng(6), 1.5
    angles = 2.0 * math.pi * np.arange(3) / 3.0
    codes = shift * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    label = rng.integers(0, 3, 100_000)
    heard = codes[label] + rng.normal(size=(len(label), 2))
    found = float(((heard @ codes.T).argmax(axis=1) == label).mean())
    assert found < measures.best_response(shift, 3) < found + 0.1


def test_bits_of_a_response() -> None:
    assert measures.response_bits(1.0, 4) == 2.0
    assert measures.response_bits(0.25, 4) == pytest.approx(0.0)
    assert 0.0 < measures.response_bits(0.5, 2 + 1) < math.log2(3)


# --- Fisher information -----------------------------------------------------------------------------------------------


def test_the_leakage_of_a_linear_code_is_the_error_of_its_best_unbiased_reader() -> None:
    """Three pixels told as they are, with noise 5: each is read with a variance of 25, so 1 / dFIL is 25."""
    leak = measures.fisher_leakage(np.eye(3), 5.0)
    assert leak.error == pytest.approx(25.0) and leak.dfil == pytest.approx(1 / 25)
    assert leak.clearest == pytest.approx(5.0) and leak.directions == 3


def test_a_code_of_few_directions_tells_few_patterns() -> None:
    rng = np.random.default_rng(7)
    basis = np.linalg.qr(rng.normal(size=(50, 2)))[0]  # two patterns of length 1
    leak = measures.fisher_leakage(rng.normal(size=(8, 2)) @ np.diag([3.0, 0.0]) @ basis.T, 1.0)
    assert leak.directions == 1
    silent = measures.fisher_leakage(np.zeros((4, 50)), 1.0)
    assert (silent.dfil, silent.error, silent.directions) == (0.0, math.inf, 0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: measures.trade_off(1.0, 1.5),
        lambda: measures.trade_off(-1.0, 0.5),
        lambda: measures.rebuild_bound(1.0, 0.0),
        lambda: measures.kappa_of_disc(3.0, 20.0),
        lambda: measures.kappa_of_normal(0.0, 1.0),
        lambda: measures.kappa_of_picture(0, 50.0, 25.0),
        lambda: measures.best_response(1.0, 1),
        lambda: measures.fisher_leakage(np.eye(2), 0.0),
    ],
)
def test_what_makes_no_sense_is_refused(call: object) -> None:
    with pytest.raises(ConfigError):
        call()  # type: ignore[operator]  # each is a function
