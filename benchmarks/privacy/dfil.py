"""`python -m benchmarks.dfil`: Fisher information of a release of the shipped encoder about the pixels of its window.

    rendered windows --tower, desensitizer, with gradients--> code before rounding --> Jacobian J (n, pixels)
        --trace(J^T J) / (pixels sigma^2)--> dFIL --> 1 / dFIL: least squared error of a pixel, for unbiased rebuilds

It says how much the shipped weights pass on of tiny changes of a picture, in grey levels. The box that follows what
moves has steep edges: a window that lies on one has a derivative a thousand times that of others, which holds for a
tiny change alone. So it is local (about the windows that were tried), for one network, and says nothing of rebuilds
that know what rooms look like; the bounds of the certificate need none of these conditions. The rounded code itself
has no derivative: what is taken is the code before rounding.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING

from benchmarks.harness import MOTION, add_checkpoint
from benchmarks.runner import Benchmark, Report
from calibration.measures import fisher_leakage
from wire.arguments import at_least_one
from wire.errors import ConfigError
from wire.privacy.certificate import PROFILES, round_up, sigma_for

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from familial.data.clips import Footage
    from familial.model.family import Family

__all__ = ["COMMAND", "jacobian", "window_of"]

_SPREAD = 50.0  # of a grey level about its best guess, as of a picture of a room


def _options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser, "the checkpoint; its tower sees no people (default: checkpoints/nano-motion)")
    parser.set_defaults(checkpoint=MOTION)
    parser.add_argument("--windows", type=at_least_one, default=24, help="rendered windows, each of another clip")


def _measure(args: argparse.Namespace) -> Report:

    from familial.data.sources import rendered_clips
    from familial.data.splits import clip_seeds
    from familial.model import checkpoint

    family = checkpoint.load(args.checkpoint)
    config = family.config
    if family.tower.sees_people:
        raise ConfigError(
            f"{args.checkpoint}: pixels reach its codes through key points too, which have no derivative; give a "
            "checkpoint whose tower sees no people"
        )
    clips = rendered_clips(clip_seeds("dfil", args.windows), config.labels, config.window, processes=1)
    found = [jacobian(family, window_of(family, clip.footage)) for clip in clips]
    rows: list[tuple[str, ...]] = [("profile", "sigma", "windows", "dFIL", "1 / dFIL", "clearest pattern", "patterns")]
    points = dict[str, dict[str, dict[str, float]]]()
    for name, shift in PROFILES.items():
        sigma = sigma_for(config.clip_norm, shift, config.event_releases)
        leaks = sorted((fisher_leakage(each, float(sigma)) for each in found), key=lambda leak: leak.dfil)
        shown = {"median": leaks[len(leaks) // 2], "worst": leaks[-1]}
        points[name] = {which: dataclasses.asdict(leak) for which, leak in shown.items()}
        for which, leak in shown.items():
            cells = (f"{leak.dfil:.2e}", f"{leak.error:.2e}", f"{leak.clearest:.3g}", str(leak.directions))
            rows.append((name, f"{float(sigma):g}", which, *cells))
    known = 1.0 / (points[config.profile]["worst"]["dfil"] + _SPREAD**-2)
    least = round_up(-known, 6).lstrip("-")  # a lower bound is rounded down
    pixels = found[0].shape[1]
    notes = [
        f"{len(found)} rendered windows of {pixels:,} pixels, one release; errors in squared grey levels (of 255)",
        "clearest pattern: with this standard deviation, in grey levels over the whole pattern, an unbiased reader "
        "sees the pattern of pixels that the code tells best",
        f"who knows each pixel to {_SPREAD:g} grey levels beforehand has a squared error of {_SPREAD**2:g} without the "
        f"release, and of {least} at least with it (van Trees, independent normal pixels, worst window)",
        f"an event has {config.event_releases} releases about overlapping frames: dFIL at most {config.event_releases} "
        "times as large",
    ]
    figures = {"windows": len(found), "pixels": pixels, "profile": config.profile, "points": points, "notes": notes}
    return Report(known / _SPREAD**2, figures, rows, notes)


def window_of(family: Family, footage: Footage) -> npt.NDArray[np.uint8]:
    """Frames uint8 (F, H, W) of the window of a clip's middle slot."""
    import numpy as np

    from familial.data.clips import slots
    from familial.data.events import Grid

    spec = family.config.window
    count = slots(footage.duration, spec)
    grid = Grid.of(spec, count)
    picked = spec.held(footage.times, spec.slot_s * len(grid.index) - grid.before_s)
    frames: npt.NDArray[np.uint8] = footage.frames[np.maximum(picked, 0)].copy()
    frames[picked < 0] = 0
    return np.asarray(frames[grid.index[count // 2]])


def jacobian(family: Family, window: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Derivative of the code before rounding with respect to the pixels, float (r, F * H * W).

    Where codes lie in a plane of r orthonormal directions, the derivative is that of the coordinates in the plane,
    which has the same J^T J; else r is n.
    """
    import numpy as np
    import torch

    tower, desensitizer = family.tower.for_export(), family.desensitizer.eval()
    frames = torch.as_tensor(window[None]).float().requires_grad_(True)
    code = desensitizer(tower(frames)).flatten()
    if desensitizer.plane is not None:
        code = desensitizer.plane @ code
    rows = [torch.autograd.grad(value, frames, retain_graph=True)[0].flatten() for value in code]
    return np.asarray(torch.stack(rows).double().numpy(), np.float64)


COMMAND = Benchmark(
    "dfil",
    __doc__,
    "the squared error of a pixel without the release (of somebody who knows it to 50 grey levels)",
    _options,
    _measure,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
