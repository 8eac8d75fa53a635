"""`python -m benchmarks.shift --data MANIFEST.csv`: are unknown scenes distinguished from known ones?

    known: rendered places that no training reads (and the sets named)   unknown: all other sets of the manifest
    five ordinary clips of a camera, one to five of them strung together --noise--> z --ood--> OOD p-value

For every fifth of the known cameras a reference is fitted on the rest, and both they and the unknown ones are compared
with it. The area under the curve says how often a stream of an unknown camera is farther from what is known than one of
a known camera; 0.5 is chance. Intervals (90 %) resample the cameras, known and unknown; a set has few. `unsure` is the
share of streams whose OOD p-value is below 0.05: 5 % for known scenes, also just after a fall. `--clips 5` leaves
out the cameras that show the same thing all the time. The column without noise says how well the clean code separates.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import add_checkpoint
from benchmarks.runner import Benchmark, Report
from wire.arguments import at_least_one
from wire.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from familial.evaluate.cameras import Room
    from familial.evaluate.ood_detector import Camera, ReferenceDistribution

__all__ = ["COMMAND", "Separation", "separate"]

_GOAL = 0.85
_UNSURE = 0.05
_FOLDS = 5
_BOOTSTRAPS = 1000


@dataclass(frozen=True, slots=True)
class Separation:
    """How known and unknown cameras lie, at each number of releases (A,).

    Attributes:
        spans: the numbers of releases.
        wins: set -> (A, known, unknown), how often a stream of the one is farther than one of the other.
        known: (A,), the share of known streams with an OOD p-value below 0.05.
        falls: (A,), the same share where the last release is of a fall.
        unsure: set -> (A,), the same share of unknown streams.
    """

    spans: tuple[int, ...]
    wins: Mapping[str, npt.NDArray[np.float64]]
    known: npt.NDArray[np.float64]
    falls: npt.NDArray[np.float64]
    unsure: Mapping[str, npt.NDArray[np.float64]]


def _options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="MANIFEST.csv")
    parser.add_argument("--known", nargs="+", default=[], metavar="SET", help="sets that the checkpoint was trained on")
    parser.add_argument("--rendered", type=at_least_one, default=150, metavar="N", help="known rendered places")
    parser.add_argument(
        "--clips", type=at_least_one, default=1, metavar="N", help="at least so many different ones a stream"
    )


def _measure(args: argparse.Namespace) -> Report:
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
    counts = {"rendered rooms": len(rooms), **{name: len(sets[name]) for name in args.known}}
    return _report(noisy, clean, cameras, counts, float(source.sigmas[0]))


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
    """Compare known cameras (rooms and `known`) and `unknown` ones, by set, with references fitted without them.

    Args:
        rooms: rendered places, with their falls.
        known: other cameras that count as known.
        unknown: set -> its cameras.
        sigma: of the noise, in lattice units; it may be 0.
        directions: of the code space, along which the reference is fitted.
        clip_norm: C of the codes.
        least: different clips in each stream.
        spans: numbers of releases to look at; empty: an event's and those of a reference.

    Raises:
        DataError: there are fewer cameras than a reference needs.
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


def _report(
    noisy: Separation, clean: Separation, cameras: Mapping[str, int], known: Mapping[str, int], sigma: float
) -> Report:
    from familial.evaluate.intervals import crossed_mean_interval

    groups = {"all sets": list(cameras), **{name: [name] for name in cameras}}
    last = noisy.spans[-1]
    rows = [["set", "cameras", *map(str, noisy.spans), "no noise", "unsure", f"... at {last}"]]
    auroc: dict[str, list[list[float]]] = {}
    without_noise: dict[str, list[float]] = {}
    for group, names in groups.items():
        curve = []
        for a in range(len(noisy.spans)):
            tables = [noisy.wins[name][a] for name in names]
            middle, (low, high) = crossed_mean_interval(tables, 2, _BOOTSTRAPS, 0.9)
            curve.append([round(middle, 3), round(low, 3), round(high, 3)])
        means = [[clean.wins[name][a].mean() for name in names] for a in range(len(noisy.spans))]
        auroc[group], without_noise[group] = curve, [round(float(sum(m) / len(m)), 3) for m in means]
        unsure = [sum(noisy.unsure[name][a] for name in names) / len(names) for a in (-2, -1)]
        cells = [f"{middle:.2f} ({low:.2f}-{high:.2f})" for middle, low, high in curve]
        count = str(sum(cameras[name] for name in names))
        rows.append([group, count, *cells, f"{without_noise[group][-1]:.2f}", *(f"{share:.2f}" for share in unsure)])
    figures = {
        "known": dict(known),
        "sigma": sigma,
        "releases": list(noisy.spans),
        "auroc": auroc,
        "without_noise": without_noise,
        "unsure": {name: [round(float(share), 3) for share in found] for name, found in noisy.unsure.items()},
        "unsure_known": [round(float(share), 3) for share in noisy.known],
        "unsure_fall": [round(float(share), 3) for share in noisy.falls],
    }
    return Report(auroc["all sets"][-1][0] / _GOAL, figures, rows, _notes(noisy, known, sigma))


def _notes(noisy: Separation, known: Mapping[str, int], sigma: float) -> list[str]:
    counts = ", ".join(f"{count} {name}" for name, count in known.items())
    shares = [
        ", ".join(f"{share:.3f} at {n}" for share, n in zip(each, noisy.spans, strict=True))
        for each in (noisy.known, noisy.falls)
    ]
    return [
        f"area under the curve by releases seen (90 % interval over cameras), sigma {sigma:g}; known: {counts}",
        f"no noise and unsure: after {noisy.spans[-1]} releases, and after {noisy.spans[-2]} and {noisy.spans[-1]}",
        f"known scenes that are unsure: {shares[0]}",
        f"... the last release being of a fall: {shares[1]}",
    ]


COMMAND = Benchmark(
    "shift",
    __doc__,
    f"an area under the curve of {_GOAL}, mean over unknown sets, after the most releases",
    _options,
    _measure,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
