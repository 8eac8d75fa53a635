"""`python -m benchmarks.first_verdict`: how soon the family says `fall` on the demo clip, over noise draws.

The clip is encoded once; each draw puts fresh noise on its codes and reads every whole event, as edge and cloud do. The
ratio is the weaker member's share of draws whose first `fall` ends 0 to 4 s after the onset, over certainty; what is
missing is the noise's doing, or the family's. `--onset` moves the fall: one before which whole events were read can
also be called too early.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import CHECKPOINT, fail, report
from wire.errors import VeilsightError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report; 0, or 2 with the reason."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_verdict", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, metavar="DIR")
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--onset", type=float, default=7.02, metavar="S")
    args = parser.parse_args(argv)
    try:
        return _measure(args.checkpoint, args.draws, args.onset)
    except VeilsightError as error:
        return fail(error)


def _measure(folder: Path, draws: int, onset_s: float) -> int:
    import numpy as np  # these load torch, which the help text does not need

    from familial.data.clips import Footage, small_grey
    from familial.evaluate.clip_inference import first_verdicts
    from familial.model import checkpoint
    from familial.synth.clip import demo_clip

    family = checkpoint.load(folder)
    seconds = onset_s + 7.98
    clip = demo_clip(onset_s=onset_s, seconds=seconds)
    frames = np.stack([small_grey(frame, family.config.window) for frame in clip.frames])
    footage = Footage(frames, clip.times_s, seconds)
    found = {
        member: first_verdicts(family, footage, onset_s, member, family.config.sigma, draws)
        for member in ("edge", "cloud")
    }
    rows = [("member", "in time", "early", "late", "never", "median delay")]
    for member, shares in found.items():
        cells = [f"{shares[name]:.3f}" for name in ("in_time", "early", "late", "never")]
        rows.append((member, cells[0], cells[1], cells[2], cells[3], f"{shares['delay_s']:.2f} s"))
    report(
        "first_verdict",
        ratio=min(shares["in_time"] for shares in found.values()),
        of="certainty",
        figures={"draws": draws, "onset_s": onset_s, **found},
        rows=rows,
        notes=[f"{draws} draws of noise, profile {family.config.profile}, onset at {onset_s} s"],
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
