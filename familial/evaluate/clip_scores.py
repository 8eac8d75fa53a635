"""Labelled clips scored by a checkpoint, or each by the fold of a training that left its group out.

folder of folds --load_folds--> families and the clips that each may score --score_clips--> ClipScores of every clip
ClipScores of the OTHER folds --fit_folds--> one ScoreCalibration for each fold --TrainingScores--> decisions
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from familial.data.clips import Clip, fill_cache
from familial.data.people import PERCEIVE
from familial.evaluate.clip_inference import (
    RAREST,
    Probabilities,
    clip_codes,
    clip_probabilities,
    decide,
    event_probabilities,
)
from familial.evaluate.footage import family_footage, graph_for
from familial.evaluate.score_calibration import (
    ScoreCalibration,
    balanced_loss,
    fit_decision_threshold,
    fit_temperature_and_bias,
    rescaled,
)
from familial.model import checkpoint
from familial.model.code_space import rounded_gaussian
from familial.model.family import Family
from wire.errors import CheckpointError
from wire.protocol.event import level_weight

__all__ = [
    "ClipScores",
    "Decision",
    "FoldFamily",
    "TrainingScores",
    "fit_folds",
    "load_folds",
    "mean_calibration",
    "score_clips",
]

FoldFamily = tuple[Family, set[str] | None]
"""A family, and the names of the clips that it may score; None: all."""


@dataclass(frozen=True, slots=True)
class ClipScores:
    """One clip as one family read it.

    Attributes:
        clip: the row of the manifest.
        events: label probabilities (D, E, L) of its events for each noise sample.
        fold: index of the family that read it.
        releases: how many were read.
        duration_s: of the clip.
    """

    clip: Clip
    events: Probabilities
    fold: int
    releases: int
    duration_s: float

    def probabilities(self, temperature: float = 1.0, bias: float = 0.0) -> Probabilities:
        """Return the clip's label probabilities (D, L), of logits over `temperature`, `bias` added to the risks'."""
        return clip_probabilities(rescaled(self.events, temperature, bias))


@dataclass(frozen=True, slots=True)
class Decision:
    """What is said of a clip under one noise sample: label probabilities (L,), the label index, its probability."""

    probabilities: Probabilities
    label: int
    probability: float


@dataclass(frozen=True, slots=True)
class TrainingScores:
    """All clips as the families of one training read them, and the calibration of each of its folds."""

    clips: list[ClipScores]
    calibrations: list[ScoreCalibration]

    def decisions(self) -> list[list[Decision]]:
        """Decide on each clip under each noise sample."""
        found = []
        for scores in self.clips:
            used = self.calibrations[scores.fold]
            rows = scores.probabilities(used.temperature, used.bias)  # (D, L)
            found.append([Decision(row, *decide(row, used.decision_threshold)) for row in rows])
        return found


def load_folds(folder: Path) -> list[FoldFamily]:
    """Load the families of a training in folds; each may score the clips that it left out.

    Raises:
        CheckpointError: no folds in the folder.
    """
    parts = sorted(folder.glob("fold-*/left_out.json"))
    if not parts:
        raise CheckpointError(
            f"{folder}: no fold-*/left_out.json; make them with familial.train --folds N --out {folder}"
        )
    return [(checkpoint.load(part.parent), set(json.loads(part.read_text()))) for part in parts]


def score_clips(
    families: Sequence[FoldFamily],
    clips: Sequence[Clip],
    member: str,
    sigma: float,
    samples: int,
    perceive: Path = PERCEIVE,
    processes: int = 1,
) -> list[ClipScores]:
    """Score every clip.

    Args:
        families: of one training; the first that may score a clip does.
        clips: to be scored.
        member: "edge" or "cloud".
        sigma: of the noise, in lattice units; 0 adds none.
        samples: noise samples of each clip.
        perceive: graph of the person network, for families that see people.
        processes: how many read clips that are not in the cache yet.

    Raises:
        CheckpointError: a clip that no fold left out.
        DataError: a clip that cannot be read.
        EngineError: the families see people, and `perceive` is missing or not the person network's.
    """
    config, found = families[0][0].config, []
    fill_cache([clip.file for clip in clips], config.window, perceive=graph_for(config, perceive), processes=processes)
    for number, clip in enumerate(clips, 1):
        found.append(_score(families, clip, member, sigma, samples, perceive))
        if sys.stderr.isatty():
            print(f"\r{number}/{len(clips)}", end="", file=sys.stderr, flush=True)
    return found


def _score(
    families: Sequence[FoldFamily], clip: Clip, member: str, sigma: float, samples: int, perceive: Path
) -> ClipScores:
    fold = next((i for i, (_, names) in enumerate(families) if names is None or clip.name in names), None)
    if fold is None:
        raise CheckpointError(f"{clip.name} was left out of no fold: it would be scored by a family trained on it")
    family = families[fold][0]
    footage = family_footage(clip.file, family.config, perceive)
    clean = clip_codes(family, footage)  # (S, K, d)
    z = clean[None].repeat(samples if sigma else 1, 1, 1, 1)
    if sigma:  # another profile's noise is scaled by its weight, as the bridge does
        z = (z + rounded_gaussian(z, sigma)) * level_weight(family.config.sigma, sigma)
    return ClipScores(clip, event_probabilities(family, z, member), fold, len(clean), footage.duration)


def fit_folds(clips: Sequence[ClipScores], labels: Sequence[str]) -> list[ScoreCalibration]:
    """Fit each fold's calibration on what the OTHER folds left out: no clip influences its own calibration."""
    found = []
    for fold in range(1 + max(scores.fold for scores in clips)):
        others = [scores for scores in clips if scores.fold != fold]
        found.append(_fit(others, labels) if others else ScoreCalibration())
    return found


def _fit(clips: Sequence[ClipScores], labels: Sequence[str]) -> ScoreCalibration:
    truth = np.array([labels.index(scores.clip.label) for scores in clips])

    def cross_entropies(temperature: float, bias: float) -> Probabilities:
        said = np.stack([scores.probabilities(temperature, bias) for scores in clips])  # (N, D, L)
        of_truth = np.take_along_axis(said, truth[:, None, None], axis=2)[:, :, 0]
        return np.asarray(-np.log(np.clip(of_truth, RAREST, None)).mean(axis=1))  # (N,)

    temperature, bias = fit_temperature_and_bias(balanced_loss(cross_entropies, truth))
    rows, of_row, sets = list[Probabilities](), list[int](), list[str]()
    for label, scores in zip(truth.tolist(), clips, strict=True):
        for row in scores.probabilities(temperature, bias):
            rows.append(row)
            of_row.append(label)
            sets.append(scores.clip.set)
    return ScoreCalibration(temperature, bias, fit_decision_threshold(of_row, rows, sets))


def mean_calibration(found: Sequence[ScoreCalibration]) -> ScoreCalibration:
    """Return the mean of the folds' calibrations, for the family trained on all clips."""
    columns = zip(*((each.temperature, each.bias, each.decision_threshold) for each in found), strict=True)
    return ScoreCalibration(*(float(np.mean(column)) for column in columns))
