"""`python -m familial.train.lora`: train an adopted Qwen3-VL by LoRA, and write it merged.

--base DIR --opened_with_lora--> Family --`loop`--> OUT/lora: the LoRA alone; OUT: base and LoRA merged, calibrated
clips: as those of `familial.train`

`torchrun --nproc-per-node N -m familial.train.lora ...` trains in N processes (`peers`, scripts/lora); the first
of them merges and calibrates.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from familial.data.events import LabelledClip
from familial.data.people import PERCEIVE
from familial.model.card import Card, write_card
from familial.model.checkpoint import checkpoint_hash
from familial.model.config import FamilyConfig
from familial.model.family import Family
from familial.model.lora import in_bf16, merge, opened_with_lora, restore_trained, save_lora, trained_state, weights_of
from familial.model.resources import map_large_arrays, require_memory
from familial.model.steps import recomputed, set_step
from familial.train.budget import Budget
from familial.train.config import TrainConfig
from familial.train.labels import with_labels, with_words
from familial.train.lora.loop import LoraTraining
from familial.train.lora.peers import Peers, peers_of_environment
from familial.train.material import gather
from familial.train.validation import ValidationSet
from wire.errors import ConfigError, VeilsightError

__all__ = ["main"]

_CALIBRATION = 0.85  # of what is left at the end; the files take the rest
_STATES = 4  # float32 copies of what is trained: itself, gradient, two moments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    args = _parser().parse_args(argv)
    try:
        with peers_of_environment(args.device) as peers, torch.device(peers.device):
            _run(args, peers)
    except VeilsightError as error:
        print(f"familial.train.lora: {error}", file=sys.stderr)
        return 2
    return 0


def _run(args: argparse.Namespace, peers: Peers) -> None:
    """Train, then let the first process calibrate, merge and write."""
    if args.out.resolve() == args.base.resolve():
        raise ConfigError(f"--out {args.out}: is --base itself, which stays as it is; give another folder")
    if args.steps < 1:
        raise ConfigError(f"--steps {args.steps}: give 1 or more")
    map_large_arrays()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    config, budget = FamilyConfig.load(args.base / "config.json"), Budget(args.minutes)
    if args.labels is not None:
        config = with_labels(config, args.labels.split(","))
    frozen, trained = weights_of(config, args.rank)
    require_memory(frozen + 4 * _STATES * trained, f"training a LoRA of rank {args.rank} on {args.base}")
    with torch.device("cpu"):
        material = gather(args, config, budget)
        clips, held = material.split([True] * len(material.rows))
        family = opened_with_lora(args.base, with_words(config, clips, of_base=True), args.rank)
    if peers.rank == 0:
        print(_plan(args, frozen, trained, peers), flush=True)
    family = family.to(peers.device)
    torch.manual_seed(args.seed + 1 + peers.rank)  # the noise of each process is its own
    train = _train_config(args, peers)
    validation = ValidationSet(family, held, train)
    training = LoraTraining(family, clips, validation, train, peers, args.out, args.resume, budget)
    steps = training.run()
    if peers.rank == 0:
        _finish(args, training, validation, steps, clips, held)


def _finish(
    args: argparse.Namespace,
    training: LoraTraining,
    validation: ValidationSet,
    steps: int,
    clips: Sequence[LabelledClip],
    held: Sequence[LabelledClip],
) -> None:
    """Calibrate, and write the LoRA, the merged checkpoint and its card."""
    budget, family = training.budget, _whole(training, args)
    base_hash = checkpoint_hash(args.base)
    save_lora(family, args.out / "lora", args.base, base_hash)  # what was trained is safe before anything else
    config, scores = validation.calibrated(family, _CALIBRATION * budget.left, budget.now)
    save_lora(family.with_config(config), args.out / "lora", args.base, base_hash)
    with torch.device("cpu"):
        merge(args.base, args.out / "lora", args.out)
    print(f"{steps} steps in {budget.spent / 60:.1f} min; LoRA in {args.out / 'lora'}, merged in {args.out}")
    sets = Counter(clip.set for clip in clips)
    card = Card("familial.train.lora", config, dict(sets), len(held), scores, args.base)
    print(write_card(args.out, card), flush=True)


def _whole(training: LoraTraining, args: argparse.Namespace) -> Family:
    """The trained family with all weights in this process: sharded ones are read from the base again."""
    if training.peers.count == 1:
        return training.family
    state = {name: value.detach().clone() for name, value in trained_state(training.family).items()}
    with torch.device("cpu"):
        family = opened_with_lora(args.base, training.family.config, args.rank)
    family = family.to(training.peers.device)
    set_step(family, recomputed(torch.device(training.peers.device).type, in_bf16(family)))
    restore_trained(family, state)
    return family


def _plan(args: argparse.Namespace, frozen: int, trained: int, peers: Peers) -> str:
    shared = f" in {peers.count} processes" if peers.count > 1 else ""
    return (
        f"LoRA of rank {args.rank} on {args.base}{shared}: {frozen / 1e9:.2f} GB frozen, {trained / 1e6:.2f} M weights "
        f"trained with {4 * _STATES * trained / 1e9:.2f} GB"
    )


def _train_config(args: argparse.Namespace, peers: Peers) -> TrainConfig:
    """The config of the loop that this one shares its losses with."""
    return TrainConfig(
        minutes=args.minutes,
        steps=args.steps,
        batch_size=args.batch_size,
        samples_per_sequence=args.samples_per_sequence,
        stage_1=args.stage_1,
        clip_stage=0.0,
        bodies=0.0,
        adversary=args.adversary,
        lr=args.lr,
        seed=args.seed,
        bf16=False,
        warm_start=True,
        device=peers.device,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m familial.train.lora", description="Train an adopted Qwen3-VL by LoRA, and write it merged."
    )
    add = parser.add_argument
    add("--base", type=Path, required=True, metavar="DIR", help="the adopted checkpoint; it is not changed")
    add("--out", type=Path, required=True, metavar="DIR", help="checkpoint folder to write; the LoRA is in its lora/")
    add("--rank", type=int, default=16, metavar="R", help="of the LoRA (default: 16)")
    add("--data", nargs="+", type=Path, default=[], metavar="MANIFEST.csv", help="clips: file,label,set,group,note")
    add("--rendered", type=int, default=0, metavar="N", help="clips to render and train on")
    add("--held-out", type=float, default=0.2, metavar="SHARE", help="of these clips, where no rendered ones calibrate")
    add("--labels", metavar="A,B,...", help="the base's, then new ones that your clips have")
    add("--perceive", type=Path, default=PERCEIVE, metavar="FILE", help="graph of the person network")
    add("--steps", type=int, default=200, help="at most so many steps")
    add("--minutes", type=float, default=20.0, help="wall clock, at most: clips, steps, calibration")
    add("--batch-size", type=int, default=4, metavar="N", help="sequences of 8 slots in a step, of each process")
    add("--samples-per-sequence", type=int, default=6, metavar="N", help="noisy events of each sequence in stage 2")
    add("--stage-1", type=float, default=0.3, metavar="SHARE", help="of the steps, for single windows")
    add("--adversary", type=float, default=0.3, metavar="WEIGHT", help="of the re-identification adversary")
    add("--learning-rate", dest="lr", type=float, default=2e-4, help="highest learning rate")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="what computes")
    add("--threads", type=int, default=2, help="of torch, in each process")
    add("--processes", type=int, default=2, help="that render clips, and read others")
    add("--seed", type=int, default=1)
    add("--resume", action="store_true", help="go on from the last saved state of this --out")
    parser.set_defaults(freeze_motion=False, tower_steps=0)  # what `gather` asks of other trainings
    return parser


if __name__ == "__main__":
    sys.exit(main())
