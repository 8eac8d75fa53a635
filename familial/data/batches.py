"""Batches: which releases and events a step is trained on, balanced by label and by set, and blind to length.

takes --draw label, count, set, take, run--> Releases (windows + labels)          trains tower and desensitizer
takes --tower, once--> CodeBank (clean codes of many runs) --draw--> Events       trains lifter and backbone
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wire.manifest import WindowSpec

from .events import UNKNOWN, Run, Take, draw_run, event_label, release_label, run_windows

__all__ = ["CodeBank", "Events", "Releases", "draw_releases", "make_bank"]

_TRIES = 40
_Codes = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Releases:
    """Windows u8 (B, F, H, W); labels int64 (B,), UNKNOWN where only the event's is known; event int64 (B,): which
    event
    each belongs to; event_labels int64 (E,)."""

    windows: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    event: npt.NDArray[np.int64]
    event_labels: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Events:
    """Clean codes int16 (B, R, K, d), zero where missing; present bool (B, R); labels int64 (B,); take int64 (B,)."""

    codes: _Codes
    present: npt.NDArray[np.bool_]
    labels: npt.NDArray[np.int64]
    take: npt.NDArray[np.int64]


def _cells(takes: Sequence[Take], labels: int) -> list[dict[str, list[int]]]:
    """Per label: set -> takes that can show it. A rendered take of a risk is normal before it happens."""
    cells: list[dict[str, list[int]]] = [defaultdict(list) for _ in range(labels)]
    for index, take in enumerate(takes):
        cells[take.label][take.set].append(index)
        if take.label and take.happenings is not None:
            cells[0][take.set].append(index)
    return cells


def _draw(
    takes: Sequence[Take],
    cell: dict[str, list[int]],
    label: int,
    releases: int,
    spec: WindowSpec,
    rng: np.random.Generator,
) -> tuple[int, float, tuple[float, ...]] | None:
    """A take, stream start and slot ends of an event of this label with a number of releases drawn first, blind to
    the label."""
    count = int(rng.integers(1, releases + 1))
    sets = sorted(cell)
    for _ in range(_TRIES):
        members = cell[sets[int(rng.integers(len(sets)))]]
        index = members[int(rng.integers(len(members)))]
        run = draw_run(takes[index], spec, rng)
        if len(run.ends) < count:
            continue
        last = int(rng.integers(count, len(run.ends) + 1))
        ends = run.ends[last - count : last]
        if event_label(takes[index], run.start, ends, spec.reach_s) == label:
            return index, run.start, ends
    return None


def draw_releases(
    takes: Sequence[Take],
    shares: Sequence[float],
    events: int,
    releases: int,
    spec: WindowSpec,
    rng: np.random.Generator,
) -> Releases:
    """A batch of `events` events, of each label a share, and at most two releases of each.

    Where only an event's label is known, up to four of its releases are taken.
    """
    labels = len(shares)
    cells = _cells(takes, labels)
    windows: list[npt.NDArray[np.uint8]] = []
    known: list[int] = []
    owner: list[int] = []
    owners: list[int] = []
    while len(owners) < events:
        label = int(rng.choice(labels, p=shares))
        drawn = _draw(takes, cells[label], label, releases, spec, rng) if cells[label] else None
        if drawn is None:
            continue
        index, start, ends = drawn
        named = np.array([release_label(takes[index], start, end, spec.reach_s) for end in ends])
        choice = np.flatnonzero(named != UNKNOWN)
        chosen = rng.permutation(choice)[:2] if len(choice) else rng.permutation(len(ends))[:4]
        windows.append(run_windows(takes[index], start, [ends[i] for i in chosen], spec, rng))
        known.extend(int(named[i]) for i in chosen)
        owner.extend([len(owners)] * len(chosen))
        owners.append(label)
    return Releases(np.concatenate(windows), np.array(known), np.array(owner), np.array(owners))


class CodeBank:
    """Clean codes of many runs of many takes, and every event in them, sorted by label, number of releases and set."""

    def __init__(
        self,
        takes: Sequence[Take],
        runs: Sequence[tuple[int, Run]],
        codes: Sequence[_Codes],
        releases: int,
        reach: float,
    ) -> None:
        self.codes, self.releases = codes, releases
        self.owner = [index for index, _ in runs]
        cells: dict[tuple[int, int], dict[str, list[tuple[int, int]]]] = {}
        for place, (index, run) in enumerate(runs):
            take = takes[index]
            for count in range(1, min(releases, len(run.ends)) + 1):
                for last in range(count, len(run.ends) + 1):
                    label = event_label(take, run.start, run.ends[last - count : last], reach)
                    if label != UNKNOWN:
                        cells.setdefault((label, count), {}).setdefault(take.set, []).append((place, last))
        self.cells = cells

    def has(self, labels: int, whole: bool) -> bool:
        """Whether every label has an event of every number of releases, or a whole one."""
        counts = [self.releases] if whole else range(1, self.releases + 1)
        return all((label, count) in self.cells for label in range(labels) for count in counts)

    def draw(self, shares: Sequence[float], size: int, rng: np.random.Generator, full: float = 0.0) -> Events:
        """`size` events: label and number of releases drawn independently, then set, then event.

        A share `full` is whole.
        """
        shape = self.codes[0].shape[1:]
        codes = np.zeros((size, self.releases, *shape), np.int16)
        present = np.zeros((size, self.releases), np.bool_)
        named, owner = np.zeros(size, np.int64), np.zeros(size, np.int64)
        filled = 0
        while filled < size:
            label = int(rng.choice(len(shares), p=shares))
            count = self.releases if rng.random() < full else int(rng.integers(1, self.releases + 1))
            cell = self.cells.get((label, count))
            if not cell:
                continue
            sets = sorted(cell)
            members = cell[sets[int(rng.integers(len(sets)))]]
            place, last = members[int(rng.integers(len(members)))]
            codes[filled, self.releases - count :] = self.codes[place][last - count : last]
            present[filled, self.releases - count :] = True
            named[filled], owner[filled] = label, self.owner[place]
            filled += 1
        return Events(codes, present, named, owner)


def make_bank(
    takes: Sequence[Take],
    encode: Callable[[npt.NDArray[np.uint8]], _Codes],
    spec: WindowSpec,
    releases: int,
    runs_per_take: int,
    rng: np.random.Generator,
    plain: bool = False,
) -> CodeBank:
    """Encode `runs_per_take` runs of each take; `encode`: windows u8 (S, F, H, W) -> codes int16 (S, K, d).

    Plain: unchanged frames.
    """
    runs: list[tuple[int, Run]] = []
    codes: list[_Codes] = []
    for index, take in enumerate(takes):
        for _ in range(runs_per_take):
            run = draw_run(take, spec, rng)
            if len(run.ends) > 24:  # long clips would fill the bank with one room
                first = int(rng.integers(0, len(run.ends) - 23)) if take.label == 0 else 0
                run = Run(run.start, run.ends[first : first + 24])
            runs.append((index, run))
            codes.append(encode(run_windows(take, run.start, run.ends, spec, None if plain else rng)))
    return CodeBank(takes, runs, codes, releases, spec.reach_s)
