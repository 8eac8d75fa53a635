"""More than a bridge can read, and one camera that floods: what `python -m benchmarks.cameras --overload 3` measures.

standing queue --> verdicts a second that it makes --times 0.8, 3--> so many cameras: how old verdicts are, what is shed
a hundred cameras, alone, beside one that floods, beside a stranger who floods in the name of one: what each waits

Each part has a broker, a bridge and a feeder of its own, as `cameras.py` makes them. `--short` is one part: so many
cameras, and one that floods beside them; only what is counted is judged then.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.cloud.bridge import verdicts_per_s
from wire.artifact.manifest import EngineManifest

__all__ = ["MOST_LOAD", "Counted", "Flooded", "Part", "judge", "lost", "measure", "row"]

MOST_LOAD = 0.8
"""Of what the bridge reads from a standing queue: up to there all must be read, in time."""

_NEIGHBOURS = 100
_FEW = {"cameras": 20, "slots": 24, "repeats": 1}
_OLDEST_MS = 5000.0
_DELAY_MS = 1000.0
_MOST_P99_MS = 1000.0  # while it can read all


@dataclass(frozen=True, slots=True)
class Part:
    """One part of it. A camera that floods is not among those that are counted.

    Attributes:
        name: What was done.
        cameras: That sent a release a second.
        verdicts_per_s: That a subscriber got.
        unread: Releases that the bridge has not read.
        missing: Verdicts that did not come,
        shed: and those that the bridge counted as left out.
        without_newest: Cameras whose last release has no verdict.
        p50_ms: From publishing a release to its verdict,
        p99_ms: likewise,
        most_ms: and of the slowest.
        load: Of the machine, at its end.
    """

    name: str
    cameras: int
    verdicts_per_s: float
    unread: int
    missing: int
    shed: int
    without_newest: int
    p50_ms: float
    p99_ms: float
    most_ms: float
    load: float


Flooded = Callable[[str, int, int, bool], Part]
"""(name, cameras, flood a second, by a stranger) -> what it came to."""


class Counted(Protocol):
    """What is counted of a run."""

    @property
    def unread(self) -> int:
        """Releases that the bridge has not read."""

    @property
    def missing(self) -> int:
        """Verdicts that did not come."""

    @property
    def shed(self) -> int:
        """Verdicts that the bridge counted as left out."""

    @property
    def without_newest(self) -> int:
        """Cameras whose last release has no verdict."""


def measure(
    times: float, engine: Path, checkpoint: Path, run: Flooded, short: bool = False
) -> tuple[float, Sequence[Part]]:
    """Verdicts a second that the bridge makes from a standing queue, and the parts. short: one, of everything."""
    able = verdicts_per_s(EngineManifest.load(engine), checkpoint, **(_FEW if short else {}))
    most = int(times * able)
    if short:
        return able, [run(f"{times:g} times what it reads, and one floods", most, most, False)]
    plan = (
        (f"{MOST_LOAD:g} of what it reads", int(MOST_LOAD * able), 0, False),
        (f"{times:g} times what it reads", most, 0, False),
        ("alone", _NEIGHBOURS, 0, False),
        ("one floods", _NEIGHBOURS, most, False),
        ("a stranger floods", _NEIGHBOURS, most, True),
    )
    parts = list[Part]()
    for name, cameras, flood, stranger in plan:
        parts.append(run(name, cameras, flood, stranger))
        print(f"{name}: slowest {parts[-1].most_ms:.0f} ms, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return able, parts


def lost(name: str, found: Counted) -> list[str]:
    """What was lost, or not counted."""
    wrong = [f"{name}: {found.unread} releases were not read"] if found.unread else []
    if found.missing != found.shed:
        wrong.append(f"{name}: {found.missing} verdicts are missing, and {found.shed} were counted as shed")
    if found.without_newest:
        wrong.append(f"{name}: {found.without_newest} cameras have no verdict on their newest release")
    return wrong


def judge(parts: Sequence[Part]) -> list[str]:
    """Which bounds on time do not hold."""
    able, much, alone, *floods = parts
    wrong = list[str]()
    if not able.p99_ms <= _MOST_P99_MS or able.shed:
        wrong.append(f"{able.name}: p99 {able.p99_ms:.0f} ms, {_MOST_P99_MS:.0f} at most; {able.shed} shed, not 0")
    if not much.most_ms <= _OLDEST_MS:
        wrong.append(f"a verdict was {much.most_ms:.0f} ms old; {_OLDEST_MS:.0f} at most")
    for part in floods:
        if not part.most_ms <= alone.most_ms + _DELAY_MS:
            wrong.append(f"{part.name}: a neighbour waited {part.most_ms:.0f} ms, {alone.most_ms:.0f} without it")
    return wrong


def row(part: Part) -> list[Any]:
    """Its line of the table."""
    numbers = [str(part.cameras), f"{part.verdicts_per_s:.0f}", str(part.unread), str(part.missing), str(part.shed)]
    times = [f"{part.p50_ms:.0f}", f"{part.p99_ms:.0f}", f"{part.most_ms:.0f}"]
    return [part.name, *numbers, *times, f"{part.load:.1f}"]
