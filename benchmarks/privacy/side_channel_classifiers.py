"""Classifiers that try to name the scene of a slot from what a listener saw, and how well they did.

some slots --fit--> logistic regression, forest of random trees --name--> the other slots --> share, interval
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.privacy.side_channel_streams import Labels
from benchmarks.privacy.side_channel_view import Floats, Seen
from familial.evaluate.intervals import auc_interval, binomial_interval

__all__ = ["FALSE_ALARM", "LAGS_OF_AN_EYE", "Finding", "classify_slots", "forest", "logistic", "told_by_time", "worst"]

FALSE_ALARM = 1e-4
"""Probability that the lower end of a confidence interval is above the true share."""

_LAGS = (0, 1, 2, 5)  # a file is decoded ahead: a later scene's load may delay what is released now
LAGS_OF_AN_EYE = (-2, -1, 0, 1)
"""For what an eye did: it acts when it sees a scene, and dies or loads the processor into later slots."""
_FOLDS, _TREES, _DEPTH = 5, 30, 4


def _design(rows: Floats) -> Floats:
    """Columns that vary: value, rank, and whether it was missing; each scaled."""
    made = []
    for column in rows.T:
        gone = np.isnan(column)
        known = np.where(gone, np.nanmedian(column) if not gone.all() else 0.0, column)
        made += [known, np.argsort(np.argsort(known)).astype(float), gone.astype(float)]
    stacked = np.stack([c for c in made if np.ptp(c) > 0] or [np.zeros(len(rows))], axis=1)
    scaled = (stacked - stacked.mean(axis=0)) / (stacked.std(axis=0) + 1e-12)
    return np.asarray(np.clip(scaled, -6, 6))


def logistic(x: Floats, y: Labels, asked: Floats, kinds: int) -> Labels:
    """Multinomial logistic regression with squares, ridge, by gradient descent with momentum."""
    x, asked = (np.hstack([part, part**2 - 1, np.ones((len(part), 1))]) for part in (x, asked))
    weights, speed = np.zeros((x.shape[1], kinds)), np.zeros((x.shape[1], kinds))
    truth = np.eye(kinds)[y]
    rate = 1.0 / (0.25 * np.linalg.norm(x, 2) ** 2 / len(x) + 0.01)
    for _ in range(200):
        logits = x @ weights
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        gradient = x.T @ (p / p.sum(axis=1, keepdims=True) - truth) / len(x) + 0.01 * weights
        speed = 0.9 * speed - 0.5 * rate * gradient
        weights = weights + speed
    return np.asarray((asked @ weights).argmax(axis=1))


def forest(x: Floats, y: Labels, asked: Floats, kinds: int) -> Labels:
    """Extremely randomised trees (Geurts et al. 2006): the best of a few random cuts at every node."""
    rng = np.random.default_rng(0)
    votes = np.zeros((len(asked), kinds))
    for _ in range(_TREES):
        _grow(x, y, np.arange(len(x)), asked, np.arange(len(asked)), votes, kinds, _DEPTH, rng)
    return np.asarray(votes.argmax(axis=1))


def _grow(
    x: Floats, y: Labels, here: Labels, asked: Floats, there: Labels, votes: Floats, kinds: int, depth: int, rng: Any
) -> None:
    counts = np.bincount(y[here], minlength=kinds)
    if depth == 0 or counts.max() == len(here) or len(here) < 8 or len(there) == 0:
        votes[there] += counts / len(here)
        return
    best, gain = (0, 0.0), -1.0
    for column in rng.integers(0, x.shape[1], math.isqrt(x.shape[1]) + 2):
        low, high = x[here, column].min(), x[here, column].max()
        if low == high:
            continue
        cut = rng.uniform(low, high)
        left = x[here, column] <= cut
        sides = [np.bincount(y[here[side]], minlength=kinds) for side in (left, ~left)]
        purity = sum(float((side.astype(float) ** 2).sum()) / max(1, int(side.sum())) for side in sides)
        if purity > gain:
            best, gain = (int(column), float(cut)), purity
    if gain < 0:
        votes[there] += counts / len(here)
        return
    for side in (True, False):
        mine = here[(x[here, best[0]] <= best[1]) == side]
        its = there[(asked[there, best[0]] <= best[1]) == side]
        if len(mine):
            _grow(x, y, mine, asked, its, votes, kinds, depth - 1, rng)


_CLASSIFIERS: Mapping[str, Callable[[Floats, Labels, Floats, int], Labels]] = {"logistic": logistic, "forest": forest}


@dataclass(frozen=True, slots=True)
class Finding:
    """Share of slots whose scene a classifier named.

    Attributes:
        classifier: its name.
        lag: it named the scene of so many slots later; below 0: earlier.
        count: of slots.
        share: of them that it named.
        low: lower end of the exact interval of the share.
        high: upper end.
        chance: the share that always saying the commonest scene gets right.
    """

    classifier: str
    lag: int
    count: int
    share: float
    low: float
    high: float
    chance: float

    @property
    def leaks(self) -> bool:
        """Whether the whole interval is above chance."""
        return self.low > self.chance


def classify_slots(
    seen: Seen, labels: Labels, keep: npt.NDArray[np.bool_] | None = None, lags: Sequence[int] = _LAGS
) -> list[Finding]:
    """Cross-validate every classifier on a run, over five folds in time.

    Args:
        seen: the table of the run.
        labels: int64 (slots,), the scene of each slot; -1 for unknown.
        keep: bool (slots,), the slots to use; None: all.
        lags: how many slots later the scene to be named is; below 0: earlier.
    """
    found = []
    for lag in lags:
        usable = np.zeros(len(seen.rows), bool)
        first, there = max(0, -lag), min(len(seen.rows), len(labels) - lag)
        usable[first:there] = labels[first + lag : there + lag] >= 0
        if keep is not None:
            usable &= keep
        at = np.flatnonzero(usable)
        x, y = _design(seen.rows[at]), labels[at + lag]
        fold = np.arange(len(at)) * _FOLDS // len(at)
        kinds = int(labels.max()) + 1
        for name, classifier in _CLASSIFIERS.items():
            said = np.empty_like(y)
            for k in range(_FOLDS):
                said[fold == k] = classifier(x[fold != k], y[fold != k], x[fold == k], kinds)
            right = int((said == y).sum())
            low, high = binomial_interval(right, len(y), 1.0 - 2.0 * FALSE_ALARM)
            found.append(Finding(name, lag, len(y), right / len(y), low, high, float(np.bincount(y).max() / len(y))))
    return found


def told_by_time(seen: Seen, positive: npt.NDArray[np.bool_]) -> tuple[float, tuple[float, float]]:
    """Area under the ROC curve of the releases' lateness as a test of a scene, and its interval.

    positive: bool (slots,), the slots of that scene; slots beyond its end are left out.
    """
    late = seen.rows[: len(positive), seen.columns.index("features: late")]
    there = ~np.isnan(late)
    truth, groups = positive[: len(late)][there], np.arange(int(there.sum()))
    return auc_interval(late[there], truth, groups, np.zeros(len(groups), np.int64), seed=0)


def worst(found: Sequence[Finding]) -> Finding:
    """The finding whose lower end is farthest above its chance."""
    return max(found, key=lambda each: each.low - each.chance)
