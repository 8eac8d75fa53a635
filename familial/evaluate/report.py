"""The result of an evaluation as one JSON document, and as a table for people.

    TrainingScores of one or more trainings --summarise--> JSON: overall, per set, per label, intervals, baselines
                                                      `--print_summary--> the table

Tables show the first noise sample of the first training; means, intervals and the calibration error are over all noise
samples of all trainings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from familial.evaluate.clip_scores import Decision, TrainingScores
from familial.evaluate.intervals import accuracy_and_f1_intervals
from familial.evaluate.metrics import baselines, calibration_error, risk_metrics
from wire.privacy.certificate import round_up

__all__ = ["print_summary", "summarise"]


def summarise(trainings: Sequence[TrainingScores], labels: Sequence[str]) -> dict[str, Any]:
    """Return the tables of all clips as a JSON document; metrics are those of `metrics.risk_metrics`.

    Args:
        trainings: one, or several with other seeds, that scored the same clips.
        labels: the first is no risk.
    """
    scores = trainings[0].clips
    of_each = zip(*(training.decisions() for training in trainings), strict=True)
    decisions = [[each for samples in of_clip for each in samples] for of_clip in of_each]  # per clip: every sample
    truth = np.array([labels.index(each.clip.label) for each in scores])  # (N,)
    predicted = np.array([[each.label for each in row] for row in decisions])  # (N, D)
    groups = np.array([f"{each.clip.set}/{each.clip.group}" for each in scores])
    set_of, whole = np.array([each.clip.set for each in scores]), np.arange(len(scores))
    rows_of = {name: np.flatnonzero(set_of == name) for name in sorted(set(set_of.tolist()))}
    risks = list(range(1, len(labels)))

    def tables(rows: npt.NDArray[np.int64]) -> list[dict[str, float]]:
        return [risk_metrics(truth[rows].tolist(), column.tolist(), risks) for column in predicted[rows].T]

    def interval(rows: npt.NDArray[np.int64]) -> dict[str, list[float]]:
        return accuracy_and_f1_intervals(truth[rows].tolist(), predicted[rows], groups[rows].tolist())

    samples, each_training = predicted.shape[1], predicted.shape[1] // len(trainings)
    by_sample, sets = tables(whole), {name: tables(rows) for name, rows in rows_of.items()}
    first = predicted[:, 0].tolist()
    calibrations = [each for training in trainings for each in training.calibrations]
    return {
        "overall": by_sample[0],
        "sets": {name: found[0] for name, found in sets.items()},
        "intervals": {**{name: interval(rows) for name, rows in rows_of.items()}, "overall": interval(whole)},
        "labels": {label: risk_metrics(truth.tolist(), first, [index]) for index, label in enumerate(labels)},
        "repeats": {"noise_samples": samples, **_spread(by_sample)},
        "sets_repeats": {name: _spread(found) for name, found in sets.items()},
        "trainings": [_spread(by_sample[k : k + each_training]) for k in range(0, samples, each_training)],
        "calibration_error": calibration_error(
            [each.probabilities for row in decisions for each in row], truth.repeat(samples).tolist()
        ),
        "clips": _clips(trainings[0], decisions, labels),
        "baselines": baselines([each.clip for each in scores], [each.duration_s for each in scores], labels),
        "temperature": [each.temperature for each in calibrations],
        "bias": [each.bias for each in calibrations],
        "decision_threshold": [each.decision_threshold for each in calibrations],
    }


def _clips(
    training: TrainingScores, decisions: Sequence[Sequence[Decision]], labels: Sequence[str]
) -> list[dict[str, Any]]:
    """Return one row for each clip, of the first noise sample."""
    return [
        {
            "file": scores.clip.name,
            "label": scores.clip.label,
            "predicted": labels[row[0].label],
            "probability": round(row[0].probability, 4),
            "releases": scores.releases,
        }
        for scores, row in zip(training.clips, decisions, strict=True)
    ]


def _spread(tables: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return mean and standard deviation, over noise samples, of accuracy and risk F1."""
    columns = {key: [table[key] for table in tables] for key in ("accuracy", "f1")}
    return {key: {"mean": float(np.mean(one)), "sd": float(np.std(one))} for key, one in columns.items()}


def print_summary(summary: dict[str, Any]) -> None:
    """Print the table of a summary."""
    print(
        f"{summary['member']} member, noise {summary['noise']}, profile {summary['profile']}, "
        f"S per event at most {round_up(summary['S_event'])}"
    )
    rows = [
        ("all", summary["overall"]),
        *summary["sets"].items(),
        *((f"label {label}", found) for label, found in summary["labels"].items()),
        ("chance", summary["baselines"]["chance"]),
        ("length only", summary["baselines"]["length_only"]),
    ]
    print(f"{'':16}{'n':>5}{'accuracy':>10}{'precision':>11}{'recall':>8}{'F1':>7}{'mean F1':>9}{'95 %':>16}")
    intervals = {"all": summary["intervals"]["overall"], **summary["intervals"]}
    means = {"all": summary["repeats"], **summary["sets_repeats"]}
    for name, m in rows:
        figures = f"{m['accuracy']:10.3f}{m['precision']:11.3f}{m['recall']:8.3f}{m['f1']:7.3f}"
        if name in means:
            low, high = intervals[name]["f1"]
            figures += f"{means[name]['f1']['mean']:9.3f}{f'{low:.3f} to {high:.3f}':>16}"
        print(f"{name:16}{m['n']:5}{figures}")
    print(f"expected calibration error of the clips' risk: {summary['calibration_error']:.3f}")
    trainings = summary["trainings"]
    print(_sentence(f"over {summary['repeats']['noise_samples']} noise samples", summary["repeats"]))
    for number, training in enumerate(trainings if len(trainings) > 1 else [], 1):
        print(_sentence(f"training {number}", training))


def _sentence(what: str, spread: dict[str, Any]) -> str:
    accuracy, f1 = spread["accuracy"], spread["f1"]
    return f"{what}: accuracy {accuracy['mean']:.3f} +- {accuracy['sd']:.3f}, F1 {f1['mean']:.3f} +- {f1['sd']:.3f}"
