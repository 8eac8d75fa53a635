"""`python -m benchmarks.shift --data MANIFEST.csv`: are scenes told from which nothing was learned?

    known: rendered rooms that no training sees (and the sets named)     unknown: all other sets of the manifest
    five ordinary clips of a camera, one to five of them strung together --noise--> z --ood--> OOD p-value

For every fifth of the known cameras a reference is fitted on the rest, and both they and the unknown are held against
it: the area under the curve says how often a stream of an unknown camera is farther from what is known than one of a
known camera; 0.5 is chance. Intervals (90 %) come from drawing the cameras again, known and unknown; a set has few.
`unsure` is the share of streams below OOD p-value 0.05: of known scenes 5 %, also while a fall is fresh. `--clips 5`
leaves out the cameras that show the same thing all the time. Without noise: what the code itself can tell.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import CHECKPOINT, fail, report
from wire.errors import DataError, VeilsightError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from familial.evaluate.cameras import Room
    from familial.evaluate.ood_detector import Camera, ReferenceDistribution

__all__ = ["Separation", "main", "separate"]

_GOAL = 0.85
_UNSURE = 0.05
_FOLDS = 5
_BOOTSTRAPS = 1000


@dataclass(frozen=True, slots=True)
class Separation:
    """At each number of releases (A,): how known and unknown cameras lie. wins: set -> (A, known, unknown), how often a
    stream of the one is farther than one of the other. known, falls (A,) and unsure, set -> (A,): shares below 0.05."""

    spans: tuple[int, ...]
    wins: Mapping[str, npt.NDArray[np.float64]]
    known: npt.NDArray[np.float64]
    falls: npt.NDArray[np.float64]
    unsure: Mapping[str, npt.NDArray[np.float64]]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shift", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, metavar="DIR")
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="MANIFEST.csv")
    parser.add_argument("--known", nargs="+", default=[], metavar="SET", help="sets that the checkpoint was trained on")
    parser.add_argument("--rendered", type=int, default=150, metavar="N", help="known rendered rooms")
    parser.add_argument("--clips", type=int, default=1, metavar="N", help="at least so many different ones a stream")
    args = parser.parse_args(argv)
    try:
        return _measure(args)
    except VeilsightError as error:
        return fail(error)


def _measure(args: argparse.Namespace) -> int:
    import torch

    from familial.evaluate.cameras import Source

    torch.set_num_threads(1)
    source = Source.open(args.checkpoint)
    sets = source.sets(args.data)
    absent = sorted(set(args.known) - set(sets))
    unknown = {name: cameras for name, cameras in sets.items() if name not in args.known}
    if absent or not unknown:
        raise DataError(f"--known {', '.join(args.known)}: sets are {', '.join(sets)}, and one must be unknown")
    rooms = source.rendered(args.rendered)
    known = [camera for name in args.known for camera in sets[name]]
    plane = source.directions, source.clip_norm
    noisy = separate(rooms, known, unknown, source.sigmas[0], *plane, least=args.clips)
    clean = separate(rooms, known, unknown, Fraction(0), *plane, least=args.clips)
    cameras = {name: len(found) for name, found in unknown.items()}
    figures = {"known": {"rendered rooms": len(rooms), **{name: len(sets[name]) for name in args.known}}}
    _report(noisy, clean, cameras, figures, float(source.sigmas[0]))
    return 0


def separate(
    rooms: Sequence[Room],
    known: Sequence[Camera],
    unknown: Mapping[str, Sequence[Camera]],
    sigma: Fraction,
    directions: npt.NDArray[np.float64],
    clip_norm: int,
    least: int = 1,
    spans: Sequence[int] = (),
) -> Separation:
    """Hold known cameras (rooms and `known`) and `unknown` ones, by set, against references made without them.

    sigma, of the noise in lattice units, may be 0. least: different clips in each stream. spans: releases to look at;
    none: an event's and those of a reference. Raises DataError for fewer cameras than a reference needs.
    """
    import numpy as np

    from familial.evaluate.ood_detector import mahalanobis
    from familial.evaluate.ood_reference import SPANS, fit, summaries

    rng, spans, noise = np.random.default_rng(1), tuple(spans or (8, *SPANS)), float(sigma) / clip_norm
    every = [*(room.ordinary for room in rooms), *known]
    seen = summaries(every, noise, spans, rng, least=least)  # (known, streams, A, 7)
    fallen = _fallen(rooms, noise, spans, rng)  # (rooms, A, 7)
    strange = {name: summaries(found, noise, spans, rng, least=least) for name, found in unknown.items()}
    fold = np.arange(len(every)) % _FOLDS
    wins = {name: np.zeros((len(spans), len(every), len(found))) for name, found in unknown.items()}
    shares = {name: np.zeros((_FOLDS, len(spans))) for name in ("known", "falls", *(f"set {name}" for name in unknown))}
    for left in range(_FOLDS):
        rest = [camera for index, camera in enumerate(every) if fold[index] != left]
        risks = [risk for index, room in enumerate(rooms) if fold[index] != left for risk in room.risks]
        reference = fit(rest, [sigma], directions, clip_norm, risks=risks, spans=spans, seed=left)
        shares["known"][left] = _below(reference, seen[fold == left])
        shares["falls"][left] = _below(reference, fallen[fold[: len(rooms)] == left])
        for name, found in strange.items():
            shares[f"set {name}"][left] = _below(reference, found)
        for a in range(len(spans)):
            where = reference.mean[a], reference.covariance[a, 0]
            near = mahalanobis(seen[fold == left, :, a], *where)
            for name, found in strange.items():
                far = mahalanobis(found[:, :, a], *where)
                wins[name][a, fold == left] = _wins(near, far)
    mean = {name: rows.mean(axis=0) for name, rows in shares.items()}
    return Separation(spans, wins, mean["known"], mean["falls"], {name: mean[f"set {name}"] for name in unknown})


def _fallen(
    rooms: Sequence[Room], noise: float, spans: Sequence[int], rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Means (rooms, A, 7) over streams of each room, each of which ends with the clip of its fall."""
    import numpy as np

    from familial.evaluate.ood_reference import summaries

    found = []
    for span in spans:
        long = span // min(len(clip) for room in rooms for clip in room.ordinary) + 1
        before = [np.concatenate([clip for _ in range(long) for clip in room.ordinary]) for room in rooms]
        whole = [np.concatenate([w, room.risks[0]])[-(span + 1) :] for w, room in zip(before, rooms, strict=True)]
        found.append(summaries([[stream] for stream in whole], noise, (span,), rng, streams=1)[:, 0, 0])
    return np.stack(found, axis=1)


def _below(reference: ReferenceDistribution, seen: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Means (..., A, 7) -> at each span, the share whose OOD p-value is too low (A,)."""
    import numpy as np

    shares = np.ones(1)
    spans = range(len(reference.spans))
    rows = [seen[..., a, :].reshape(-1, seen.shape[-1]) for a in spans]
    return np.array([np.mean([reference.p_value(row, a, shares) < _UNSURE for row in rows[a]]) for a in spans])


def _wins(near: npt.NDArray[np.float64], far: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Distances (known, streams) and (unknown, streams) -> how often the latter is the larger, (known, unknown)."""
    import numpy as np

    return np.asarray((far[None, :, None, :] > near[:, None, :, None]).mean(axis=(2, 3)))


def _interval(tables: Sequence[npt.NDArray[np.float64]]) -> tuple[float, float, float]:
    """Wins (known, unknown) of some sets -> the mean over sets, and the 90 % interval of cameras drawn again."""
    import numpy as np

    rng, drawn = np.random.default_rng(2), []
    for _ in range(_BOOTSTRAPS):
        rows = rng.integers(len(tables[0]), size=len(tables[0]))
        columns = [rng.integers(table.shape[1], size=table.shape[1]) for table in tables]
        drawn.append(np.mean([table[rows][:, some].mean() for table, some in zip(tables, columns, strict=True)]))
    low, high = np.quantile(drawn, [0.05, 0.95])
    return float(np.mean([table.mean() for table in tables])), float(low), float(high)


def _report(
    noisy: Separation, clean: Separation, cameras: Mapping[str, int], figures: dict[str, Any], sigma: float
) -> None:
    groups = {"all sets": list(cameras), **{name: [name] for name in cameras}}
    last = noisy.spans[-1]
    rows = [["set", "cameras", *map(str, noisy.spans), "no noise", "unsure", f"... at {last}"]]
    figures |= {"sigma": sigma, "releases": list(noisy.spans), "auroc": {}, "without_noise": {}}
    for group, names in groups.items():
        curve = [_interval([noisy.wins[name][a] for name in names]) for a in range(len(noisy.spans))]
        ceiling = [_interval([clean.wins[name][a] for name in names])[0] for a in range(len(noisy.spans))]
        figures["auroc"][group] = [[round(value, 3) for value in point] for point in curve]
        figures["without_noise"][group] = [round(value, 3) for value in ceiling]
        unsure = [sum(noisy.unsure[name][a] for name in names) / len(names) for a in (-2, -1)]
        cells = [f"{middle:.2f} ({low:.2f}-{high:.2f})" for middle, low, high in curve]
        count = sum(cameras[name] for name in names)
        rows.append([group, str(count), *cells, f"{ceiling[-1]:.2f}", *(f"{share:.2f}" for share in unsure)])
    figures["unsure"] = {name: [round(float(share), 3) for share in found] for name, found in noisy.unsure.items()}
    figures["unsure_known"] = [round(float(share), 3) for share in noisy.known]
    figures["unsure_fall"] = [round(float(share), 3) for share in noisy.falls]
    known = ", ".join(f"{count} {name}" for name, count in figures["known"].items())
    told = [
        ", ".join(f"{share:.3f} at {n}" for share, n in zip(s, noisy.spans, strict=True))
        for s in (noisy.known, noisy.falls)
    ]
    report(
        "shift",
        ratio=figures["auroc"]["all sets"][-1][0] / _GOAL,
        of=f"an area under the curve of {_GOAL}, mean over unknown sets, after {last} releases",
        figures=figures,
        rows=rows,
        notes=[
            f"area under the curve by releases seen (90 % interval over cameras), sigma {sigma:g}; known: {known}",
            f"no noise and unsure: after {last} releases, and after {noisy.spans[-2]} and {last}",
            f"known scenes that are unsure: {told[0]}",
            f"... the last release being of a fall: {told[1]}",
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
