"""Metrics of scores and labels: accuracy, precision, recall, F1, area under the ROC curve, calibration error.

true and predicted labels (N,) --> risk_metrics              "risk" is every label but the first
scores (N,) and the truth      --> area_under_curve
label probabilities (N, L)     --> calibration_error
clips and their durations      --> baselines                 what is reached without looking at the picture
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from familial.data.clips import Clip, grouped_folds

__all__ = ["area_under_curve", "baselines", "calibration_error", "risk_metrics"]

_NEIGHBOURS = 9  # clips of the nearest length that vote


def risk_metrics(truth: Sequence[int], predicted: Sequence[int], positive: Sequence[int]) -> dict[str, float]:
    """Count n, accuracy over all labels, and precision, recall and F1 of "one of `positive`" against the rest.

    Args:
        truth: label index of each clip (N,).
        predicted: label index that was said of each clip (N,).
        positive: the label indices that count as found.

    Returns:
        n, accuracy, precision, recall, f1; 0 where one is undefined.
    """
    t, p = np.asarray(truth), np.asarray(predicted)
    is_true, is_said = np.isin(t, positive), np.isin(p, positive)
    hits = int((is_true & is_said).sum())
    precision = hits / int(is_said.sum()) if is_said.any() else 0.0
    recall = hits / int(is_true.sum()) if is_true.any() else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    accuracy = float((t == p).mean()) if len(t) else 0.0
    return {"n": len(t), "accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1}


def area_under_curve(normal: npt.NDArray[np.float64], risk: npt.NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve of risk against normal; NaN where one of them is missing.

    Args:
        normal: float (N,), the probability of the first label: the lower, the riskier.
        risk: bool (N,), the truth.
    """
    positives, negatives = int(risk.sum()), int((~risk).sum())
    if not positives or not negatives:
        return float("nan")
    _, place, counts = np.unique(-normal, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place.reshape(-1)]  # ties share their mean rank
    return float((ranks[risk].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def calibration_error(probabilities: Sequence[npt.NDArray[np.float64]], truth: Sequence[int], bins: int = 10) -> float:
    """Return the expected calibration error of risk (Guo et al., "On Calibration of Modern Neural Networks", 2017).

    The mean distance, weighted by what is in each bin, between the stated risk 1 - P(label 0) and the share of risks.

    Args:
        probabilities: label probabilities (L,) of each clip.
        truth: label index of each clip.
        bins: of equal width.
    """
    risk, real = 1.0 - np.array([row[0] for row in probabilities]), np.asarray(truth) > 0
    place = np.minimum((risk * bins).astype(int), bins - 1)
    gaps = [abs(risk[place == k].mean() - real[place == k].mean()) * (place == k).mean() for k in np.unique(place)]
    return float(sum(gaps))


def baselines(
    clips: Sequence[Clip], durations: Sequence[float], labels: Sequence[str], folds: int = 3
) -> dict[str, Any]:
    """Score, on grouped folds, two guesses that do not look at the picture.

    Returns:
        Metrics of the commonest label ("chance") and of the labels of the clips of the nearest length ("length_only",
        "length_only_sets").
    """
    truth = np.array([labels.index(clip.label) for clip in clips])
    length = np.log(np.asarray(durations))
    fold = np.array(grouped_folds(clips, folds))
    common, nearest = np.zeros_like(truth), np.zeros_like(truth)
    for index in range(len(truth)):
        rest = np.flatnonzero(fold != fold[index])
        if len(rest) == 0:
            continue
        common[index] = np.bincount(truth[rest]).argmax()
        close = rest[np.argsort(np.abs(length[rest] - length[index]), kind="stable")[:_NEIGHBOURS]]
        nearest[index] = np.bincount(truth[close]).argmax()
    risks = list(range(1, len(labels)))
    sets = sorted({clip.set for clip in clips})
    of_set = {name: np.array([clip.set == name for clip in clips]) for name in sets}
    return {
        "chance": risk_metrics(truth.tolist(), common.tolist(), risks),
        "length_only": risk_metrics(truth.tolist(), nearest.tolist(), risks),
        "length_only_sets": {
            name: risk_metrics(truth[mine].tolist(), nearest[mine].tolist(), risks) for name, mine in of_set.items()
        },
        "folds": folds,
    }
