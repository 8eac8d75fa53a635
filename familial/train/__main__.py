"""`python -m familial.train`: the command line of training.

command line, or each run of a --recipe --> TrainConfig, `material` --loop.train--> a checkpoint with its card
--folds N: N families, each of which leaves one part of the groups out, for `familial.evaluate --folds`
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import cv2
import torch

from familial.data.clips import grouped_folds
from familial.data.events import LabelledClip
from familial.data.people import PERCEIVE
from familial.model import checkpoint
from familial.model.adapter import ADAPTER
from familial.model.card import Card, write_card
from familial.model.config import FamilyConfig, nano
from familial.model.family import Family
from familial.model.weights import without_weights
from familial.train.attributes import with_attributes
from familial.train.budget import Budget
from familial.train.config import TrainConfig
from familial.train.labels import with_labels, with_words
from familial.train.loop import train
from familial.train.material import Material, gather
from familial.train.memory import require_weights_memory
from familial.train.progress import run_folder
from familial.train.recipe import FORMER_KEYS, trainings
from wire.arguments import former_name
from wire.errors import ConfigError, VeilsightError

__all__ = ["main", "run"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    try:
        run(argv)
    except VeilsightError as error:
        print(f"familial.train: {error}", file=sys.stderr)
        return 2
    return 0


def run(argv: Sequence[str] | None = None) -> None:
    """Train as the command line says.

    Raises:
        ConfigError: an option without a possible meaning.
        DataError: clips that are not as they should be.
        CheckpointError: --base or the saved state does not fit, or the loss is not finite.
    """
    parser, argv = _parser(), sys.argv[1:] if argv is None else argv
    args = parser.parse_args(argv)
    if args.recipe is None:
        _run(args)
        return
    for each in trainings(args.recipe, parser, argv, run_folder(args.out)):
        _run(each)


def _run(args: argparse.Namespace) -> None:
    """Make one training, or one for each fold."""
    _set_up_torch(args)
    of_args = {name: getattr(args, name) for name in TrainConfig.__slots__ if name != "warm_start"}
    train_config, config = TrainConfig(**of_args, warm_start=args.base is not None), _family_config(args)
    budget = Budget(args.minutes * (args.folds if args.fold is None and args.folds else 1))
    material = gather(args, config, budget)
    if args.folds:
        _train_folds(args, train_config, config, material, budget)
        return
    kept, held = material.split([True] * len(material.rows))
    _train_one(args, train_config, config, kept, held, args.out, budget)


def _train_folds(
    args: argparse.Namespace, train_config: TrainConfig, config: FamilyConfig, material: Material, budget: Budget
) -> None:
    """Train one family for each fold, and write down which clips it left out.

    What the clips took of the time is shared by all. Clips that are left out never calibrate their own probabilities.
    """
    fold_of = grouped_folds(material.rows, args.folds, args.whole_sets)
    chosen = range(args.folds) if args.fold is None else [args.fold]
    for fold in chosen:
        out = args.out / f"fold-{fold}"
        names = [row.name for row, where in zip(material.rows, fold_of, strict=True) if where == fold]
        kept, held = material.split([where != fold for where in fold_of])
        print(f"fold {fold}: {len(kept)} clips to train on, {len(names)} clips left out", flush=True)
        own = Budget(budget.left / 60 / (len(chosen) - chosen.index(fold)))
        _train_one(args, train_config, config, kept, held, out, own)
        (out / "left_out.json").write_text(json.dumps(names, indent=0) + "\n")


def _train_one(
    args: argparse.Namespace,
    train_config: TrainConfig,
    config: FamilyConfig,
    clips: Sequence[LabelledClip],
    held: Sequence[LabelledClip],
    out: Path,
    budget: Budget,
) -> None:
    """Train one family, and write its card."""
    made = train(_initial_family(clips, config, args), clips, held, train_config, out, args.resume, budget)
    sets = Counter(clip.set for clip in clips)
    card = Card("familial.train", made.family.config, dict(sets), len(held), made.scores, args.base)
    print(write_card(out, card), flush=True)


def _set_up_torch(args: argparse.Namespace) -> None:
    """Set threads, seed and memory allocation; refuse a device that torch does not have."""
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    torch.manual_seed(args.seed)
    try:
        torch.zeros((), device=args.device)
    except (AssertionError, RuntimeError) as error:  # torch's own for a device that is unknown or not there
        why = str(error).splitlines()[0]
        raise ConfigError(f"--device {args.device}: {why}; give cpu, or a torch built for the device") from error
    with suppress(AttributeError, OSError):  # glibc returns large blocks at once; asking for them anew costs a quarter
        ctypes.CDLL(None).mallopt(-4, 0)  # M_MMAP_MAX
        ctypes.CDLL(None).mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD, bytes


def _family_config(args: argparse.Namespace) -> FamilyConfig:
    """Return the sizes of the family: those of --base or of nano, as the options change them."""
    config = nano(("<pad>", "<end>")) if args.base is None else FamilyConfig.load(args.base / "config.json")
    if args.labels is not None:
        config = with_labels(config, args.labels.split(","))
    if args.attributes and not config.rank:
        raise ConfigError(
            f"--attributes: codes of {args.base} lie in all directions (rank 0), none is left for attributes"
        )
    if args.attributes and not config.attributes:
        config = with_attributes(config)
    if args.tower is not None:
        config = replace(config, tower=args.tower)
    if args.adapter is not None:
        config = replace(config, adapter=args.adapter)
    if args.code_bias and args.code_gain is None:
        raise ConfigError(f"--code-bias {args.code_bias}: it goes with --code-gain; give both, or neither")
    if args.code_gain is not None:
        config = replace(config, code_gain=args.code_gain, code_bias=_numbers("--code-bias", args.code_bias))
    if args.late_fusion:
        config = replace(config, late_fusion=_numbers("--late-fusion", args.late_fusion))
    if args.freeze_motion and (config.tower != "fused" or args.base is None):
        raise ConfigError("--freeze-motion: only with --base and a fused tower; give --tower fused")
    if args.context_frames is not None:
        config = replace(config, window=replace(config.window, context_frames=args.context_frames))
    return config


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part)
    except ValueError as error:
        raise ConfigError(f"{option} {text}: numbers with commas between them") from error


def _initial_family(clips: Sequence[LabelledClip], config: FamilyConfig, args: argparse.Namespace) -> Family:
    """Return a family with the words of all captions: fresh, or with the weights of --base."""
    config = with_words(config, clips, args.base is not None)
    if args.decision_threshold is not None:
        config = replace(config, decision_threshold=args.decision_threshold)
    with without_weights():
        count = sum(weight.numel() for weight in Family(config).parameters())
    require_weights_memory(count, f"training {count / 1e6:,.1f} M weights")
    family = Family(config)
    if args.base is not None:
        left = checkpoint.adopt(family, args.base)
        if f"{ADAPTER}.summary.weight" in left:
            family.point_adapter()
        print(f"began from {args.base}" + (f"; new: {', '.join(left)}" if left else ""), flush=True)
    return family


class _Parser(argparse.ArgumentParser):
    """Raises ConfigError where argparse would exit: a recipe's options are read by it too."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m familial.train", description="Train the family.")
    _add_inputs(parser)
    _add_hyperparameters(parser)
    parser.add_argument("--device", default="cpu", help="what computes, as torch names it: cpu, cuda")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare batches; default: a thread")
    parser.add_argument("--processes", type=int, default=2, help="that render clips, and read others")
    parser.add_argument("--resume", action="store_true", help="go on from the last saved state of this --out")
    options = {option.dest: option for option in parser._actions}
    for old, new in FORMER_KEYS.items():
        former_name(parser, f"--{old.replace('_', '-')}", options[new])
    return parser


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--data",
        nargs="+",
        type=Path,
        default=[],
        metavar="MANIFEST.csv",
        help="clips: file,label,set,group,note",
    )
    add("--perceive", type=Path, default=PERCEIVE, metavar="FILE", help="graph of the person network")
    add("--held-out", type=float, default=0.2, metavar="SHARE", help="of these clips, where no rendered ones calibrate")
    add("--labels", metavar="A,B,...", help="the base's, then new ones that your clips have")
    add("--rendered", type=int, default=0, metavar="N", help="clips to render and train on")
    add(
        "--people",
        type=int,
        default=0,
        metavar="N",
        help="people without a picture to train on: key points",
    )
    add("--encounters", type=int, default=0, metavar="N", help="likewise, of two who meet: one blow, or a greeting")
    add("--aided", type=int, default=0, metavar="N", help="likewise, of people in wheelchairs or at walking frames")
    add("--everyday", type=int, default=0, metavar="N", help="likewise, longer ones of what a camera sees on most days")
    add("--base", type=Path, metavar="DIR", help="begin from this checkpoint")
    add("--recipe", type=Path, metavar="FILE.toml", help="trainings one after the other; options win")
    add("--tower", metavar="NAME", help="of a family whose base has another: fused adds people to a base of snippets")
    add(
        "--adapter",
        metavar="NAME",
        help="how releases are read: tokens, or plane (a rank is needed); default: the base's",
    )
    add("--code-gain", type=float, metavar="GAIN", help="sharpen codes towards the prototypes; default: the base's")
    add("--code-bias", default="", metavar="A,B,...", help="of each label, with --code-gain")
    add("--late-fusion", default="", metavar="A,B,C", help="weights of motion's and people's logits; nobody's")
    add("--freeze-motion", action="store_true", help="of a fused tower, train the part that sees people alone")
    add("--context-frames", type=int, metavar="N", help="of a window; default: the base's, or 52")
    add("--out", type=Path, required=True, metavar="DIR", help="checkpoint folder to write")
    add("--folds", type=int, default=0, metavar="N", help="train N families, each leaving a part of the groups out")
    add("--whole-sets", action="store_true", help="of --folds, leave whole sets out, not groups of clips alone")
    add("--fold", type=int, metavar="K", help="of --folds, train this one only")


def _add_hyperparameters(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--minutes", type=float, default=20.0, help="wall clock of one family, all of it: clips, stages, calibration")
    add("--steps", type=int, default=0, help="at most so many steps")
    add("--batch-size", type=int, default=16, metavar="N", help="sequences of 8 slots in a step")
    add("--samples-per-sequence", type=int, default=6, metavar="N", help="noisy events of each sequence in stage 2")
    add("--lr", type=float, default=2e-3, help="highest learning rate")
    add("--stage-1", type=float, default=0.6, metavar="SHARE", help="of the time, for single windows")
    add(
        "--tower-steps",
        type=int,
        default=0,
        metavar="N",
        help="tune a late fusion on whole clips; no stages 1, 2",
    )
    add("--set-variance", type=float, default=0.0, metavar="WEIGHT", help="with --tower-steps: of the sets' losses")
    add("--interpolate", type=float, default=1.0, metavar="SHARE", help="of the way from the base's weights")
    add("--clip-stage", type=float, default=0.12, metavar="SHARE", help="of the time, for whole clips at the end")
    add("--bodies", type=float, default=0.3, metavar="WEIGHT", help="of what rendered clips know of bodies")
    add("--adversary", type=float, default=0.3, metavar="WEIGHT", help="of the re-identification adversary")
    add("--attributes", action="store_true", help="train attributes too: how many people, low, running")
    add("--decision-threshold", type=float, metavar="RISK", help="from which a clip is called a risk; default: fitted")
    add(
        "--logit-bias",
        type=float,
        default=0.0,
        help="added to a risk's log odds; a fitted decision threshold moves along",
    )
    add("--bf16", action="store_true", help="tower in bfloat16: for CPUs that multiply it fast")
    add("--seed", type=int, default=1)


if __name__ == "__main__":
    sys.exit(main())
