"""Confidence intervals: the one set that evaluation, audit and benchmarks use.

    hits of independent trials -------------> binomial_interval          exact (Clopper and Pearson 1934)
    scores or hits of grouped observations -> the other functions        bootstrap over whole groups

Observations of one group (a clip, a person, a place) depend on each other, so the bootstrap draws whole groups anew,
never single observations (Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8). Every
function draws from its own seeded generator: the same data give the same interval. No torch; scipy is loaded where it
is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = [
    "accuracy_and_f1_intervals",
    "auc_interval",
    "binomial_interval",
    "bonferroni_mean_interval",
    "crossed_mean_interval",
    "macro_accuracy_interval",
    "quantile_interval",
    "slope_interval",
]

_LEVEL = 0.95
_RESAMPLES = 1000

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Interval = tuple[float, float]


def binomial_interval(hits: int, trials: int, level: float = _LEVEL) -> Interval:
    """Return the exact interval of a share, after Clopper and Pearson.

    Each end is wrong with a probability of at most (1 - level) / 2.
    """
    from scipy.special import betaincinv

    tail = (1.0 - level) / 2.0
    low = 0.0 if hits == 0 else float(betaincinv(hits, trials - hits + 1, tail))
    high = 1.0 if hits == trials else float(betaincinv(hits + 1, trials - hits, 1.0 - tail))
    return low, high


def quantile_interval(resampled: npt.ArrayLike, level: float = _LEVEL) -> Interval:
    """Return the central `level` of resampled values (R,): the percentile bootstrap."""
    low, high = np.quantile(np.asarray(resampled), [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def macro_accuracy_interval(
    hits: Floats, labels: Integers, groups: Integers, seed: int, level: float = _LEVEL
) -> tuple[float, Interval]:
    """Return the mean over labels of each label's share of hits, and its interval.

    Args:
        hits: float (N,), 1 where an observation was right, or any score to be averaged.
        labels: int (N,), the true label of each observation.
        groups: int (N,), the group of each; whole groups are resampled within each label.
        seed: of the resampling.
        level: of the interval. Levels other than 0.95 lie farther out, so they use eight times the resamples.
    """
    rng = np.random.default_rng([seed, 0])
    resamples = _RESAMPLES if level == _LEVEL else 8 * _RESAMPLES
    mean, resampled = 0.0, np.zeros(resamples)
    names = np.unique(labels)
    for name in names:
        mine = labels == name
        _, group_of = np.unique(groups[mine], return_inverse=True)
        total, count = np.bincount(group_of, weights=hits[mine]), np.bincount(group_of)  # (groups,)
        mean += float(total.sum() / count.sum()) / len(names)
        chosen = rng.integers(0, len(count), (resamples, len(count)))  # (R, groups)
        resampled += total[chosen].sum(axis=1) / count[chosen].sum(axis=1) / len(names)
    return mean, quantile_interval(resampled, level)


def bonferroni_mean_interval(values: Floats, groups: Integers, seed: int, tests: int) -> Interval:
    """Return the interval of the mean of `values` (N,) that holds in all of `tests` such tests together.

    Its low end is above a true mean of 0 with a probability of 0.05 in all the tests together (Bonferroni), not in
    each: an audit of many attacks would otherwise find something in nothing.
    """
    level = 1.0 - 2.0 * (1.0 - _LEVEL) / tests
    return macro_accuracy_interval(values, np.zeros(len(values), np.int64), groups, seed, level)[1]


def auc_interval(
    scores: Floats, positive: npt.NDArray[np.bool_], groups: Integers, parts: Integers, seed: int
) -> tuple[float, Interval]:
    """Return the area under the ROC curve and its interval.

    Args:
        scores: float (N,), higher where the observation looks more positive.
        positive: bool (N,), the truth.
        groups: int (N,), such as people; whole groups are resampled among the positive and among the negative.
        parts: int (N,). Only pairs within one part are compared: each part was scored by its own classifier.
        seed: of the resampling.
    """
    wins, pairs, sizes = _pair_tables(scores, positive, groups, parts)
    rng = np.random.default_rng([seed, 1])
    counts = [rng.multinomial(size, np.full(size, 1.0 / size), _RESAMPLES).astype(float) for size in sizes]
    won, of = (np.einsum("rp,pn,rn->r", counts[0], table, counts[1], optimize=True) for table in (wins, pairs))
    return float(wins.sum() / pairs.sum()), quantile_interval(won / np.maximum(of, 1e-9))


def _pair_tables(
    scores: Floats, positive: npt.NDArray[np.bool_], groups: Integers, parts: Integers
) -> tuple[Floats, Floats, tuple[int, int]]:
    """Count pairs of each positive group (P,) with each negative one (N,): those in order, and all, float (P, N)."""
    yes, no = (sorted({*zip(groups[m], parts[m], strict=True)}) for m in (positive, ~positive))
    wins, pairs = np.zeros((len(yes), len(no))), np.zeros((len(yes), len(no)))
    of_no = [np.sort(scores[(groups == group) & (parts == part) & ~positive]) for group, part in no]
    for i, (group, part) in enumerate(yes):
        mine = scores[(groups == group) & (parts == part) & positive]
        for j, (_, other) in enumerate(no):
            if other != part:
                continue
            twice = np.searchsorted(of_no[j], mine, "left") + np.searchsorted(of_no[j], mine, "right")
            wins[i, j], pairs[i, j] = twice.sum() / 2.0, len(mine) * len(of_no[j])  # a tie counts half
    return wins, pairs, (len(yes), len(no))


def crossed_mean_interval(
    tables: Sequence[Floats], seed: int, resamples: int = _RESAMPLES, level: float = _LEVEL
) -> tuple[float, Interval]:
    """Return the mean over tables of each table's mean, and its interval over rows and columns drawn anew.

    Args:
        tables: float (rows, columns) each; all have the same rows (groups of one kind), and columns of their own.
        seed: of the resampling.
        resamples: how many.
        level: of the interval.
    """
    rng, resampled = np.random.default_rng(seed), []
    for _ in range(resamples):
        rows = rng.integers(len(tables[0]), size=len(tables[0]))
        columns = [rng.integers(table.shape[1], size=table.shape[1]) for table in tables]
        means = [table[rows][:, chosen].mean() for table, chosen in zip(tables, columns, strict=True)]
        resampled.append(np.mean(means))
    return float(np.mean([table.mean() for table in tables])), quantile_interval(resampled, level)


def accuracy_and_f1_intervals(
    truth: Sequence[int], predicted: Integers, groups: Sequence[str], resamples: int = 2000
) -> dict[str, list[float]]:
    """Return 95 % intervals of accuracy and risk F1, rounded to four digits.

    They say how far other clips of the same kind could be, no more.

    Args:
        truth: label index of each clip (N,); 0 is no risk.
        predicted: int (N, D), the label index of each clip for each of D noise samples.
        groups: group of each clip (N,); the clips of a group stay together, and a noise sample is drawn for each clip.
        resamples: how many.
    """
    rng, (names, group_of) = np.random.default_rng(0), np.unique(np.asarray(groups), return_inverse=True)
    times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), resamples)[:, group_of]  # (R, N)
    said = predicted[:, rng.integers(0, predicted.shape[1], resamples)].T  # (R, N)
    real = np.asarray(truth)
    hits = (times * ((said > 0) & (real > 0))).sum(axis=1)
    f1 = 2 * hits / np.maximum(1, (times * (said > 0)).sum(axis=1) + (times * (real > 0)).sum(axis=1))
    accuracy = (times * (said == real)).sum(axis=1) / np.maximum(1, times.sum(axis=1))
    return {
        name: [round(end, 4) for end in quantile_interval(values)]
        for name, values in (("accuracy", accuracy), ("f1", f1))
    }


def slope_interval(x: Floats, y: Floats, seed: int, level: float = _LEVEL) -> tuple[float, Interval]:
    """Return the slope of the least-squares line through a series, and its interval.

    Neighbours in a series depend on each other, so blocks of residuals are drawn anew: N^(1/2) values each, from any
    place (Davison and Hinkley, section 8.2.3).

    Args:
        x: float (N,), rising; N is at least 4.
        y: float (N,).
        seed: of the resampling.
        level: of the interval.
    """
    centred, count = x - x.mean(), len(x)
    slope = float(centred @ y / (centred @ centred))
    residuals = y - y.mean() - slope * centred
    length = max(2, round(count**0.5))
    blocks = -(-count // length)
    starts = np.random.default_rng([seed, 2]).integers(0, count - length + 1, (_RESAMPLES, blocks))
    drawn = residuals[starts[..., None] + np.arange(length)].reshape(_RESAMPLES, -1)[:, :count]
    return slope, quantile_interval(slope + drawn @ centred / (centred @ centred), level)
