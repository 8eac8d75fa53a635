"""`python -m benchmarks.first_verdict`: how soon the family says `fall` on the demo clip, over many noise samples.

    demo clip --encoded once--> codes --+ a fresh noise sample--> every whole event --edge, cloud--> first `fall`

The ratio is the weaker member's share of noise samples whose first `fall` ends 0 to 4 s after the onset, over 1. What
is missing is due to the noise, or to the family. `--onset` moves the fall: after an onset before which whole events
were read, a verdict can also come too early.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.harness import add_checkpoint
from benchmarks.runner import Benchmark, Report
from wire.arguments import at_least_one, former_name

__all__ = ["COMMAND"]

_FPS = 15.0


def _options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    count = parser.add_argument(
        "--noise-samples", type=at_least_one, default=2000, metavar="N", help="how many (default 2000)"
    )
    former_name(parser, "--draws", count)
    parser.add_argument("--onset", type=float, default=7.02, metavar="S", help="when the fall begins (default 7.02)")


def _measure(args: argparse.Namespace) -> Report:
    from familial.evaluate.clip_inference import first_verdicts  # these load torch, which the help text does not need
    from familial.evaluate.footage import picture_footage
    from familial.model import checkpoint
    from familial.synth.clip import demo_clip

    family = checkpoint.load(args.checkpoint)
    seconds = args.onset + 7.98
    clip = demo_clip(fps=_FPS, onset_s=args.onset, seconds=seconds)
    footage = picture_footage(clip.frames, _FPS, family.config)
    found = {
        member: first_verdicts(family, footage, args.onset, member, family.config.sigma, args.noise_samples)
        for member in ("edge", "cloud")
    }
    rows = [["member", "in time", "early", "late", "never", "median delay"]]
    for member, shares in found.items():
        cells = [f"{shares[name]:.3f}" for name in ("in_time", "early", "late", "never")]
        rows.append([member, *cells, f"{shares['delay_s']:.2f} s"])
    note = f"{args.noise_samples} noise samples, profile {family.config.profile}, onset at {args.onset} s"
    figures = {"noise_samples": args.noise_samples, "onset_s": args.onset, **found}
    return Report(min(shares["in_time"] for shares in found.values()), figures, rows, [note])


COMMAND = Benchmark("first_verdict", __doc__, "certainty", _options, _measure)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
