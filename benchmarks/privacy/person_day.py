"""`python -m benchmarks.person_day`: a person's day as the unit of privacy, and what would make its bound small.

    time in view, cadence of the checkpoint, S of a profile --certificate--> releases touched, S, chance to be named
    the day's S asked for --> longest presence a day | slots between two releases | S per event that would keep it

Nothing is measured. A presence cap limits how long a person may be in view in a day; a duty cycle releases noise alone
in all slots but every N-th; both are compared at one S for the day, that of a single event (`--target`).
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import add_checkpoint
from benchmarks.runner import Benchmark, Report
from wire.privacy.certificate import GALLERIES, Certificate, guess_bound, round_up

__all__ = ["COMMAND", "PEOPLE", "Cures", "cures", "duty_shift"]

PEOPLE = {"resident": 16 * 3600.0, "worker": 8 * 3600.0, "visitor": 600.0, "passer-by": 10.0}
"""Who -> seconds in view of one camera in a day, in one stretch."""
_DUTIES = (1, 10, 60, 3600)


@dataclass(frozen=True, slots=True)
class Cures:
    """What would keep a person's day within an S.

    Attributes:
        cap_s: longest presence in view a day, in seconds, rounded down; 0 where one glance is too long.
        every: a release of the scene in every `every`-th slot at most, rounded up.
        event: S per event, at every slot, rounded down in the table.
    """

    cap_s: float
    every: int
    event: float


def duty_shift(certificate: Certificate, seconds: float, every: int) -> float:
    """Return S of a stretch in view where only every `every`-th slot is of the scene, at the worst phase."""
    return certificate.shift(math.ceil(certificate.releases_touched(seconds) / every))


def cures(certificate: Certificate, seconds: float, target: float) -> Cures:
    """Return what would keep so many seconds in view within S = `target` for the day."""
    affordable = math.floor((target / certificate.s_release) ** 2 + 1e-9)  # releases
    touched = certificate.releases_touched(seconds)
    cap = max(0.0, affordable * certificate.slot_s - certificate.receptive_field_s)
    event = target * math.sqrt(certificate.event_releases / touched)
    return Cures(cap, math.ceil(touched / max(1, affordable)), event)


def _options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--target", type=float, default=3.0, help="S of a day that the cures should keep")


def _measure(args: argparse.Namespace) -> Report:
    from calibration.bounds import of_checkpoint

    profile, certificates = of_checkpoint(args.checkpoint)
    certificate, points = certificates[profile], list[dict[str, Any]]()
    rows: list[tuple[str, ...]] = [
        ("who", "in view", *(f"one of {m:,}" for m in GALLERIES), *(f"S, 1 slot in {n:,}" for n in _DUTIES))
        + ("duty for the target", "S per event for it")
    ]
    for who, seconds in PEOPLE.items():
        shift, found = (
            certificate.shift(certificate.releases_touched(seconds)),
            cures(certificate, seconds, args.target),
        )
        named = {m: guess_bound(shift, 1.0 / m) for m in GALLERIES}
        duties = {n: duty_shift(certificate, seconds, n) for n in _DUTIES}
        rows.append(
            (who, _span(seconds), *(round_up(p) for p in named.values()), *(round_up(s) for s in duties.values()))
            + (f"1 slot in {found.every:,}", f"{math.floor(found.event * 1e3) / 1e3:g}")
        )
        points.append({"who": who, "seconds": seconds, "S": shift, "named": named, "duty_S": duties})
        points[-1] |= {"cap_s": found.cap_s, "every": found.every, "S_event": found.event}
    cap = math.floor(10.0 * points[0]["cap_s"]) / 10.0
    notes = [
        f"profile {profile}; the target is S = {args.target:g} for the whole day: one of 1,000 is named with a chance "
        f"of at most {round_up(guess_bound(args.target, 1e-3))}",
        f"a presence cap for the target: {cap:g} s in view in a day, for everybody alike",
        "residents are not hidden: no bound is left on who they are; what helps them would make the camera useless",
        "several stretches in a day pay the receptive field each time; several cameras add",
    ]
    figures = {"profile": profile, "target": args.target, "people": points}
    return Report(points[0]["S"] / certificate.s_event, figures, rows, notes)


def _span(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


COMMAND = Benchmark("person_day", __doc__, "S of one event (S of a resident's day)", _options, _measure)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
