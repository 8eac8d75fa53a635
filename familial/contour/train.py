"""`python -m familial.contour.train --checkpoint DIR`: train the contour of a checkpoint on rendered clips.

rendered clips of seeds of their own --the checkpoint's codes, noise of its profile--> contour.safetensors beside it
--rebind: the same contour, for a checkpoint whose encoder is the same, and what reads its codes is not
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from familial.contour.decoder import ContourDecoder
from familial.contour.samples import gather
from familial.contour.training import Plan, train
from familial.data.splits import clip_seeds
from familial.evaluate.clip_inference import sigma_of
from familial.model import checkpoint
from familial.model.family import Family
from wire.arguments import at_least_one
from wire.errors import CheckpointError, VeilsightError

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
    parser.add_argument(
        "--rebind",
        action="store_true",
        help="train nothing: keep the contour that is there, where the encoder is the same",
    )
    args = parser.parse_args(argv)
    try:
        _rebind(args.checkpoint) if args.rebind else _run(args)
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
    named = {"checkpoint": checkpoint.checkpoint_hash(args.checkpoint), "encoder": _encoder_hash(family)}
    decoder, lines = train(family.config, samples, held_out, float(sigma), named, plan)
    print(*lines, sep="\n")
    path = decoder.save(args.checkpoint)
    knows = ", ".join(decoder.knows) or "nothing but outlines"
    print(f"{path}: knows {knows}; {len(seeds)} clips, {time.monotonic() - began:.0f} s")


def _rebind(folder: Path) -> None:
    """Bind the contour in a folder to the checkpoint there. Raises CheckpointError where its codes are others."""
    family, decoder = checkpoint.load(folder), ContourDecoder.load(folder, None)
    if decoder is None:
        raise CheckpointError(f"{folder} has no contour to keep; leave --rebind out to train one")
    if decoder.about["encoder"] != _encoder_hash(family):
        raise CheckpointError(f"{folder}: its contour was trained for another encoder; leave --rebind out to train one")
    decoder.about.update(checkpoint=checkpoint.checkpoint_hash(folder), family=family.config.family)
    print(f"{decoder.save(folder)}: bound to {decoder.about['checkpoint'][:12]}...")


def _encoder_hash(family: Family) -> str:
    """sha256, in hex, of all that a code depends on: weights of tower and desensitizer, and the shape of the code."""
    config, digest = family.config, hashlib.sha256()
    shape = (config.tokens, config.width, config.clip_norm, config.rank, config.aside, config.labels, config.window)
    digest.update(repr((shape, config.tower, config.code_gain, config.code_bias, config.late_fusion)).encode())
    for name, value in sorted(family.state_dict().items()):
        if name.startswith(("tower.", "desensitizer.")):
            digest.update(f"{name} {tuple(value.shape)}\n".encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
