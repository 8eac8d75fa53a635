"""`python -m familial.evaluate`: accuracy, precision, recall and F1 of a checkpoint, or of a training in folds.

manifests -> clips -> clip_scores (noise on, as on the device) -> report: JSON and a table
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from familial.data.clips import UNSCORED, read_manifests
from familial.data.people import PERCEIVE
from familial.evaluate.clip_inference import sigma_of
from familial.evaluate.clip_scores import (
    FoldFamily,
    TrainingScores,
    fit_folds,
    load_folds,
    mean_calibration,
    score_clips,
)
from familial.evaluate.report import print_summary, summarise
from familial.evaluate.score_calibration import ScoreCalibration
from familial.model import checkpoint
from familial.model.config import FamilyConfig
from wire.arguments import former_name
from wire.artifact.checkpoint import CONFIG
from wire.errors import CheckpointError, ConfigError, VeilsightError
from wire.privacy.certificate import PROFILES

__all__ = ["main", "run"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    try:
        run(argv)
    except VeilsightError as error:
        print(f"familial.evaluate: {error}", file=sys.stderr)
        return 2
    return 0


def run(argv: Sequence[str] | None = None) -> None:
    """Evaluate as the command line says: write the JSON, print the table.

    Raises:
        VeilsightError: an argument, a checkpoint or a clip is not as it should be.
    """
    args = _parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    if args.fit is not None and not args.folds:
        raise ConfigError("--fit: what is fitted comes from folds; give --folds DIR too")
    trained: list[list[FoldFamily]] = [load_folds(folder) for folder in args.folds]
    trained = trained or [[(checkpoint.load(folder), None)] for folder in args.checkpoint]
    family = trained[0][0][0]
    labels = family.config.labels
    if any(other.config.labels != labels for families in trained for other, _ in families):
        raise CheckpointError(f"not every family has the labels {', '.join(labels)}; evaluate them one by one")
    profile, exact = sigma_of(args.checkpoint[0], family, args.profile)
    if args.noise_samples < 1:
        raise ConfigError(f"--noise-samples {args.noise_samples}: noise samples of each clip; give 1 or more")
    trainings = _score_all(trained, args, float(exact) if args.noise == "on" else 0.0)
    if args.fit is not None:
        _write_calibration(args.fit, [each for training in trainings for each in training.calibrations])
    s_release = float(family.config.clip_norm / exact)
    summary: dict[str, Any] = {
        "member": args.member,
        "noise": args.noise,
        "profile": profile,
        "S_release": s_release,
        "S_event": s_release * family.config.event_releases**0.5,
        "S_used": s_release * max(scores.releases for scores in trainings[0].clips) ** 0.5,
        **summarise(trainings, labels),
        "left_out": bool(args.folds),
    }
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(summary, indent=1) + "\n")
    print_summary(summary)


def _score_all(trained: list[list[FoldFamily]], args: argparse.Namespace, sigma: float) -> list[TrainingScores]:
    """Score all clips by each training; folds are calibrated on each other, a checkpoint is taken as it is."""
    config = trained[0][0][0].config
    clips = [clip for clip in read_manifests(args.data, config.labels) if clip.label != UNSCORED]
    found = []
    for families in trained:
        scores = score_clips(families, clips, args.member, sigma, args.noise_samples, args.perceive, args.processes)
        own = ScoreCalibration(decision_threshold=families[0][0].config.decision_threshold)
        found.append(TrainingScores(scores, fit_folds(scores, config.labels) if args.folds else [own]))
    return found


def _write_calibration(folder: Path, found: Sequence[ScoreCalibration]) -> None:
    """Write the folds' mean calibration into the config of `folder`, on top of its own."""
    made = mean_calibration(found).applied_to(FamilyConfig.load(folder / CONFIG))
    made.save(folder / CONFIG)
    print(
        f"{folder}: temperature {made.temperature}, label bias {made.label_bias}, "
        f"decision threshold {made.decision_threshold}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m familial.evaluate", description="Accuracy, precision, recall, F1 per label and set."
    )
    default = Path(__file__).resolve().parents[2] / "checkpoints" / "nano"
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        type=Path,
        default=[default],
        metavar="DIR",
        help="several: the same training with other seeds",
    )
    parser.add_argument(
        "--folds",
        nargs="+",
        type=Path,
        default=[],
        metavar="DIR",
        help="score each clip by the family of familial.train --folds that left it out; several: as --checkpoint",
    )
    parser.add_argument(
        "--fit",
        type=Path,
        metavar="DIR",
        help="with --folds: write their temperature, bias and decision threshold into this checkpoint of all clips",
    )
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="MANIFEST.csv")
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--member", choices=("edge", "cloud"), default="cloud")
    parser.add_argument("--noise", choices=("on", "off"), default="on")
    parser.add_argument("--profile", metavar="NAME", help=f"one of {', '.join(PROFILES)}; default: the checkpoint's")
    samples = parser.add_argument("--noise-samples", type=int, default=5, metavar="N", help="of each clip")
    former_name(parser, "--draws", samples)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processes", type=int, default=2, help="that read clips for the first time")
    parser.add_argument(
        "--perceive",
        type=Path,
        default=PERCEIVE,
        metavar="FILE",
        help="graph of the person network, for a family that sees people (default: that of python -m export.perceive)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
