"""`python -m benchmarks.trade_off --out FILE.svg`: the errors that any test of a release or an event must make.

    S --Phi(Phi^-1(1 - a) - S)--> least share of misses at each share of false alarms

A curve for a release and for an event of each profile. The test asks: is this the scene that I think of, or nothing but
noise? Nothing is measured: no test of any kind lies below its curve.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

from benchmarks.harness import add_checkpoint
from benchmarks.runner import Picture
from calibration.audit.drawing import Axis, Curve, chart
from calibration.bounds import of_checkpoint
from calibration.measures import trade_off
from wire.privacy.certificate import Certificate

__all__ = ["COMMAND", "draw"]

_COLOURS = ("#6c757d", "#7a3fb5", "#198754", "#0a58ca", "#b02a37", "#b4541a")
_STEPS = 200
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def draw(profile: str, certificates: Mapping[str, Certificate]) -> str:
    """The curves as SVG text: a release at the default profile, and an event of each."""
    shifts = {f"a release, {profile}": certificates[profile].s_release}
    shifts |= {f"an event, {name}": each.s_event for name, each in certificates.items()}
    alarms = [index / _STEPS for index in range(_STEPS + 1)]
    curves = [Curve("guessing", [(0.0, 1.0), (1.0, 0.0)], "#adb5bd")]
    for (name, shift), colour in zip(shifts.items(), _COLOURS, strict=False):
        curves.append(Curve(f"{name}: S = {shift:.3g}", [(a, trade_off(shift, a)) for a in alarms], colour))
    along = Axis("false alarms (type I error)", 0.0, 1.0, _TICKS)
    return chart(curves, along, Axis("misses (type II error), at least", 0.0, 1.0, _TICKS), marks={})


def _options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)


COMMAND = Picture("trade_off", __doc__, _options, lambda args: draw(*of_checkpoint(args.checkpoint)))

if __name__ == "__main__":
    sys.exit(COMMAND.main())
