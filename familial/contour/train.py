"""`python -m familial.contour.train --checkpoint DIR`: train the contour of a checkpoint on rendered clips.

rendered clips of seeds of their own --the checkpoint's codes, noise of its profile--> contour.safetensors beside it
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from familial.contour.samples import gather
from familial.contour.training import Plan, train
from familial.data.splits import clip_seeds
from familial.evaluate.clip_inference import sigma_of
from familial.model import checkpoint
from wire.arguments import at_least_one
from wire.errors import VeilsightError

__all__ = ["main"]

_HELD_OUT = 5  # every fifth clip


def main(argv: Sequence[str] | None = None) -> int:
    """Train the contour of a checkpoint and write it there; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m familial.contour.train",
        description="Train the outline figure that the cloud draws from noised codes, on rendered clips.",
    )
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR")
    parser.add_argument("--clips", type=at_least_one, default=1000, help="rendered clips; a fifth of them is held out")
    parser.add_argument("--steps", type=at_least_one, default=Plan().steps)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=at_least_one, default=1, help="that render what is not in the cache yet")
    args = parser.parse_args(argv)
    try:
        _run(args)
    except VeilsightError as error:
        print(f"familial.contour.train: {error}", file=sys.stderr)
        return 2
    return 0


def _run(args: argparse.Namespace) -> None:
    began = time.monotonic()
    family = checkpoint.load(args.checkpoint)
    seeds = clip_seeds("contour", max(args.clips, 2 * _HELD_OUT))
    _, sigma = sigma_of(args.checkpoint, family, None)
    samples = gather(family, [seed for seed in seeds if seed % _HELD_OUT], args.processes, say=True)
    held_out = gather(family, [seed for seed in seeds if not seed % _HELD_OUT], args.processes, say=True)
    torch.manual_seed(args.seed)
    plan = Plan(steps=args.steps, seed=args.seed)
    digest = checkpoint.checkpoint_hash(args.checkpoint)
    decoder, lines = train(family.config, samples, held_out, float(sigma), digest, plan)
    print(*lines, sep="\n")
    path = decoder.save(args.checkpoint)
    knows = ", ".join(decoder.knows) or "nothing but outlines"
    print(f"{path}: knows {knows}; {len(seeds)} clips, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
