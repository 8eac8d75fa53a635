"""Confidence intervals: exact where they are called exact, and over groups where observations depend on each other."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from familial.evaluate.intervals import (
    accuracy_and_f1_intervals,
    auc_interval,
    binomial_interval,
    bonferroni_mean_interval,
    crossed_mean_interval,
    macro_accuracy_interval,
)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.9998]))
def test_binomial_tails_at_the_ends_are_the_rest_of_the_level(case: tuple[int, int], level: float) -> None:
    hits, trials = case
    low, high = binomial_interval(hits, trials, level)
    terms = [math.comb(trials, k) for k in range(trials + 1)]

    def mass(p: float, chosen: range) -> float:
        return float(mpmath.fsum(terms[k] * mpmath.mpf(p) ** k * mpmath.mpf(1 - p) ** (trials - k) for k in chosen))

    assert low <= hits / trials <= high
    tail = (1.0 - level) / 2.0
    assert hits == 0 or mass(low, range(hits, trials + 1)) == pytest.approx(tail, rel=1e-6)
    assert hits == trials or mass(high, range(hits + 1)) == pytest.approx(tail, rel=1e-6)


def test_auc_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(1)
    positive, groups = np.arange(200) % 2 == 1, np.arange(200) // 4 * 2 + np.arange(200) % 2
    scores = rng.normal(size=200) + positive
    value, (low, high) = auc_interval(scores, positive, groups, np.zeros(200, np.int64), 0)
    pairs = scores[positive][:, None] - scores[~positive]
    assert value == pytest.approx(float((pairs > 0).mean())) and low < value < high


def test_scores_of_two_classifiers_are_not_compared() -> None:
    scores = np.array([1.0, 0.0, 11.0, 10.0])
    positive, part = np.array([True, False, True, False]), np.array([0, 0, 1, 1])
    assert auc_interval(scores - positive * 0.5, positive, np.arange(4), part, 0)[0] == 1.0


def test_macro_accuracy_weighs_labels_alike_and_groups_widen_its_interval() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], (300, 100))
    by_group = np.repeat(rng.random(40) < 0.7, 10).astype(float)  # all ten of a group are right, or none
    value, grouped = macro_accuracy_interval(by_group, labels, np.repeat(np.arange(40), 10), 0)
    assert value == pytest.approx((by_group[:300].mean() + by_group[300:].mean()) / 2)
    _, alone = macro_accuracy_interval(by_group, labels, np.arange(400), 0)
    assert grouped[0] < value < grouped[1] and grouped[1] - grouped[0] > 2 * (alone[1] - alone[0])


def test_many_tests_of_nothing_find_nothing() -> None:
    """600 tests on pure noise, 20 audits of 30 each: one alarm is expected where they are counted together, not 15."""
    rng, groups = np.random.default_rng(4), np.repeat(np.arange(60), 4)
    alarms = [bonferroni_mean_interval(rng.normal(size=240), groups, seed, 30)[0] > 0 for seed in range(600)]
    assert sum(alarms) <= 6
    assert bonferroni_mean_interval(rng.normal(size=240) + 1.0, groups, 0, 30)[0] > 0


def test_crossed_means_spread_over_rows_and_columns() -> None:
    rng = np.random.default_rng(0)
    rows, columns = rng.normal(size=(50, 1)), rng.normal(size=(1, 40))
    value, (low, high) = crossed_mean_interval([rows + columns, rows - columns], seed=2, level=0.9)
    assert value == pytest.approx(float(rows.mean())) and low < value < high
    by_rows = crossed_mean_interval([rows + 0.0 * columns], seed=2, level=0.9)[1]
    assert high - low > by_rows[1] - by_rows[0] > 0


def test_accuracy_and_f1_intervals_cover_what_other_groups_would_give() -> None:
    rng = np.random.default_rng(1)
    truth = [int(value) for value in rng.integers(0, 2, 300)]
    said = np.where(rng.random((300, 4)) < 0.8, np.array(truth)[:, None], 1 - np.array(truth)[:, None])
    alone = accuracy_and_f1_intervals(truth, said, [str(index) for index in range(300)])
    assert alone["accuracy"][0] < 0.8 < alone["accuracy"][1] and alone["f1"][0] < 0.8 < alone["f1"][1]
    assert alone["accuracy"][1] - alone["accuracy"][0] == pytest.approx(4 * (0.8 * 0.2 / 300) ** 0.5, rel=0.3)
    one = np.array([[1]] * 150 + [[0]] * 150)  # two groups, one always right and one always wrong: nothing is known
    assert accuracy_and_f1_intervals([1] * 300, one, ["a"] * 150 + ["b"] * 150)["accuracy"] == [0.0, 1.0]
