"""`python -m familial.quantize --checkpoint DIR --bits 4 --out DIR`: quantise the cloud member of a checkpoint.

    --checkpoint --load--> family --rendered or real clips--> noised events --`calibration.quantise`--> integers, --out
    its other weights, and files about its codes (contour, OOD reference, noise) --as they are------------------> --out

What the edge computes stays as it is, to the bit. Where an engine is of --checkpoint, the bridge reads with --out.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from familial.data.clips import read_manifests
from familial.data.labels import LABELS
from familial.data.sources import rendered_clips
from familial.data.splits import clip_seeds
from familial.evaluate.footage import family_footage
from familial.model import checkpoint
from familial.model.card import Card, write_card
from familial.model.config import FamilyConfig, Quantization
from familial.model.family import Family
from familial.model.packed import Packed, packed_plan
from familial.model.weights import Planned, Weights
from familial.quantize.calibration import quantise
from familial.quantize.member import MemberCalibration, noised_events
from wire.arguments import at_least_one, former_name
from wire.artifact.checkpoint import CONFIG, checkpoint_hash, weight_files
from wire.errors import CheckpointError, ConfigError, VeilsightError

__all__ = ["main", "quantised_member", "write_quantised"]

_BESIDE = ("noise.json", "contour.safetensors", "ood_reference.json")  # about codes, which do not change
_CURE = "copy or train it again"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 2 with the reason in one line."""
    try:
        _run(_parser().parse_args(argv))
    except VeilsightError as error:
        print(f"familial.quantize: {error}", file=sys.stderr)
        return 2
    return 0


def _run(args: argparse.Namespace) -> None:
    if args.out.resolve() == args.checkpoint.resolve():
        raise ConfigError(f"--out {args.out}: is --checkpoint itself; give another folder")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    how = Quantization(args.bits, args.group, args.method, checkpoint_hash(args.checkpoint))
    if FamilyConfig.load(args.checkpoint / CONFIG).quantization is not None:
        raise CheckpointError(f"{args.checkpoint}: is quantised already; give the checkpoint that it was made from")
    family = checkpoint.load(args.checkpoint)
    z, present = _events(family, args)
    print(f"{len(z)} events to calibrate on", flush=True)
    packed = quantised_member(family, how, z, present, args.seed)
    write_quantised(args.checkpoint, args.out, how, packed)
    for name in _BESIDE:
        if (args.checkpoint / name).is_file():
            shutil.copyfile(args.checkpoint / name, args.out / name)
    before, after = (sum((each / file).stat().st_size for file in weight_files(each)) for each in _folders(args))
    config = dataclasses.replace(family.config, quantization=how)
    print(write_card(args.out, Card("familial.quantize", config, base=args.checkpoint)), flush=True)
    print(
        f"{args.out}: {after / 1e6:.3f} MB of weights, {before / 1e6:.3f} MB before; hash {checkpoint_hash(args.out)}"
    )


def _folders(args: argparse.Namespace) -> tuple[Path, Path]:
    return args.checkpoint, args.out


def _events(family: Family, args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Noised events of the clips that the options name."""
    config = family.config
    if args.data:
        files = [row.file for row in read_manifests(args.data, config.labels)]
        return noised_events(family, [family_footage(file, config) for file in files], args.noise_samples)
    seeds = clip_seeds("quantization", args.rendered)
    clips = rendered_clips(seeds, LABELS, config.window, args.processes)
    return noised_events(family, [clip.footage for clip in clips], args.noise_samples)


def quantised_member(
    family: Family,
    how: Quantization,
    z: Tensor,
    present: Tensor,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: print(line, flush=True),
) -> dict[str, Packed]:
    """Quantise the blocks of `family` behind the edge's exit, in place; return name of a matrix -> its integers."""
    member = MemberCalibration(family, z, present, seed)
    found = quantise(member, how.bits, how.group, how.method, say)
    return {
        f"backbone.layers.{family.shared + number}.{name}.weight": packed for (number, name), packed in found.items()
    }


def write_quantised(base: Path, out: Path, how: Quantization, packed: Mapping[str, Packed]) -> None:
    """Write the checkpoint `out`: the matrices `packed`, and all other weights as `base` has them.

    Raises:
        CheckpointError: `base` is missing or damaged.
    """
    config, weights = FamilyConfig.load(base / CONFIG), Weights.open(base, _CURE)
    plan, parts = dict[str, Planned](), dict[str, tuple[str, Packed]]()
    for name, shape in weights.shapes.items():
        if name not in packed:
            plan[name] = (shape, weights.read(name).dtype)
            continue
        for part, planned in packed_plan(name, shape, how).items():
            plan[part], parts[part] = planned, (name, packed[name])

    def read(name: str) -> Tensor:
        if name not in parts:
            return weights.read(name)
        matrix, integers = parts[name]
        return integers.tensors(matrix, how.bits)[name]

    checkpoint.save_with(dataclasses.replace(config, quantization=how), out, plan, read)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m familial.quantize",
        description="Write a checkpoint whose blocks behind the edge's exit are integers; the bridge reads with it.",
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, default=Path("checkpoints/nano"), metavar="DIR", help="default: checkpoints/nano")
    add("--out", type=Path, required=True, metavar="DIR", help="checkpoint folder to write")
    add("--bits", type=int, choices=Quantization.BITS, default=4, help="of a weight (default: 4)")
    add("--group", type=int, default=64, metavar="N", help="weights that share a scale (default: 64)")
    add("--method", choices=Quantization.METHODS, default="vlmq", help="how they are rounded (default: vlmq)")
    add("--rendered", type=at_least_one, default=120, metavar="N", help="clips to render and calibrate on")
    add("--data", nargs="+", type=Path, default=[], metavar="MANIFEST.csv", help="calibrate on these clips instead")
    count = add("--noise-samples", type=at_least_one, default=4, metavar="N", help="of each event")
    former_name(parser, "--draws", count)
    add("--seed", type=int, default=0)
    add("--threads", type=at_least_one, default=2, help="of torch")
    add("--processes", type=at_least_one, default=2, help="that render clips")
    return parser


if __name__ == "__main__":
    sys.exit(main())
