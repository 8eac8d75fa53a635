"""`python -m benchmarks.detector [--data MANIFEST.csv]`: does the model of the person network's errors hold?

    rendered clips --network--> detections | truth --errors--> detections: found, scores, misplaced, by what is shown
    clips of the manifest --network--> detections, by set | rendered people --errors, good or poor camera--> detections

`familial.synth.detector_errors.ErrorRates` holds the numbers that this compares. Rendered bodies are found less often
and less surely than real ones, so the first half says how errors depend on size, posture and occlusion, with the
cameras' quality set to what rendered frames have; and the second, without labels, where scores and jitter must lie.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.runner import Benchmark, Report
from wire.arguments import at_least_one

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from familial.synth.exact_people import ExactPeople
    from wire.people.packed import Packed

__all__ = ["COMMAND", "Matches", "matched", "summary"]

_SIZE, _FPS, _SECONDS = (240, 320), 8.0, 11.0
_NEAR = 0.3  # of the height: mean distance of seen joints within which a detection is that person's
_GOAL, _ENOUGH = 0.1, 50
_TRUNK = (5, 6, 11, 12)


@dataclass(frozen=True, slots=True)
class Matches:
    """Exact people against detections, by person and frame (N,) and their joints (N, 17).

    size: pixels of the network's frame; shown: share of joints seen; rise: how far the trunk points up; near: distance
    of the next person, own heights; score: 0 where not found; level, error, mirrored: of joints, error if left were
    right; joint: scores; extra: detections a frame that are nobody's.
    """

    size: npt.NDArray[np.float64]
    shown: npt.NDArray[np.float64]
    rise: npt.NDArray[np.float64]
    near: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64]
    level: npt.NDArray[np.int64]
    error: npt.NDArray[np.float64]
    mirrored: npt.NDArray[np.float64]
    joint: npt.NDArray[np.float64]
    extra: float


def matched(pairs: Sequence[tuple[ExactPeople, Packed]]) -> Matches:
    """Give detections int16 (T, 6, VALUES) to exact people of the same frames, nearest first."""
    import numpy as np

    rows: dict[str, list[Any]] = {name: [] for name in Matches.__slots__ if name != "extra"}
    frames = extra = 0
    for exact, people in pairs:
        frames += len(people)
        for shown, found in zip(exact.shown, people, strict=True):
            extra += _match(exact, int(shown), found, rows)
    return Matches(**{name: np.array(values) for name, values in rows.items()}, extra=extra / max(1, frames))


def _match(exact: ExactPeople, frame: int, found: npt.NDArray[np.int16], rows: dict[str, list[Any]]) -> int:
    """Add one row for each person of a frame; returns how many detections are left over."""
    import numpy as np

    from familial.synth.detector_errors import Shown
    from wire.people.packed import SCORE, UNIT

    now = Shown.of(exact.at(frame), exact.whole())
    poses = found[:, :51].reshape(6, 17, 3) / UNIT
    points, level, length = now.points[0], now.level[0], now.length[0]
    seen = (level >= 2) & (level < 4)
    away = np.full((len(points), 6), np.inf)
    for some in np.flatnonzero(seen.sum(1) > 2):
        gaps = np.linalg.norm(poses[:, seen[some], :2] - points[some, seen[some]], axis=-1).mean(1)
        away[some] = np.where(found[:, SCORE] > 0, gaps / length[some], np.inf)
    owner, left = dict[int, int](), away.copy()
    while left.size and left.min() < _NEAR:
        best, row = divmod(int(left.argmin()), 6)
        owner[best] = row
        left[best], left[:, row] = np.inf, np.inf
    middle = points[:, _TRUNK].mean(1)
    for person in range(len(points)):
        apart = np.delete(np.linalg.norm(middle - middle[person], axis=-1), person) / length[person]
        pose = poses[owner[person]] if person in owner else np.full((17, 3), np.nan)
        other = pose[[0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]]
        values = {
            "size": length[person] * now.pixels,
            "shown": seen[person].mean(),
            "rise": now.rise[0, person],
            "near": min([9.0, *apart]),
            "score": found[owner[person], SCORE] / UNIT if person in owner else 0.0,
            "level": level[person],
            "error": np.linalg.norm(pose[:, :2] - points[person], axis=-1) / length[person],
            "mirrored": np.linalg.norm(other[:, :2] - points[person], axis=-1) / length[person],
            "joint": pose[:, 2],
        }
        for name, value in values.items():
            rows[name].append(value)
    return int((found[:, SCORE] > 0).sum()) - len(owner)


def summary(people: Iterable[Packed]) -> dict[str, float]:
    """What detections int16 (T, 6, VALUES) at `_FPS` look like without labels."""
    import numpy as np

    from wire.people.packed import SCORE, UNIT

    clips = [each for each in people if len(each) > 2]
    scores = np.concatenate([each[..., SCORE] for each in clips]) / UNIT
    rows = np.concatenate([each.reshape(-1, each.shape[-1]) for each in clips])
    joints = rows[rows[:, SCORE] > 0][:, 2:51:3] / UNIT
    jitter, turned = list[float](), list[bool]()
    for each in clips:
        moved, flips = _motion(each)
        jitter += moved
        turned += flips
    return {
        "somebody": float((scores.max(1) > 0).mean()),
        "surely": float((scores.max(1) >= 0.2).mean()),
        "people": float((scores > 0).sum(1).mean()),
        "score": _median(scores[scores > 0]),
        "joint score": _median(joints),
        "low joint score": float(np.quantile(joints, 0.1)) if joints.size else 0.0,
        "jitter": _median(np.array(jitter)),
        "flips": float(np.mean(turned)) if turned else 0.0,
    }


def _motion(people: Packed) -> tuple[list[float], list[bool]]:
    """Second differences of the surest person's joints in diagonals of its box, and whether its sides change places."""
    import numpy as np

    from wire.people.packed import BOX, SCORE, UNIT

    first = people[:, 0].astype(np.float64) / UNIT
    poses, box = first[:, :51].reshape(-1, 17, 3)[..., :2], first[:, BOX]
    size = np.maximum(np.hypot(box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]), 0.05)
    step = np.linalg.norm(np.diff(poses[:, _TRUNK].mean(1), axis=0), axis=-1) / size[1:]
    same = (first[1:, SCORE] > 0.3) & (first[:-1, SCORE] > 0.3) & (step < 0.25)
    both = np.flatnonzero(same[1:] & same[:-1])
    second = np.linalg.norm(poses[both] - 2 * poses[both + 1] + poses[both + 2], axis=-1) / np.sqrt(6)
    kept = poses[1:][:, _TRUNK] - poses[:-1][:, _TRUNK]
    swapped = poses[1:][:, (6, 5, 12, 11)] - poses[:-1][:, _TRUNK]
    flips = np.linalg.norm(swapped, axis=-1).sum(1) < 0.6 * np.linalg.norm(kept, axis=-1).sum(1)
    return list(np.median(second / size[both, None], axis=1)), list(flips[same])


def _median(values: npt.NDArray[np.float64]) -> float:
    import numpy as np

    values = values[~np.isnan(values)]
    return float(np.median(values)) if values.size else 0.0


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--perceive", type=Path, metavar="FILE", help="the network's graph (default: build/perceive)")
    parser.add_argument("--rendered", type=at_least_one, default=60, metavar="N", help="rendered clips")
    parser.add_argument("--data", nargs="*", default=[], type=Path, metavar="MANIFEST.csv")


def _measure(args: argparse.Namespace) -> Report:
    import numpy as np

    from familial.data.people import PERCEIVE, person_network
    from familial.data.splits import clip_seeds
    from familial.synth.clip import render_clip
    from familial.synth.detector_errors import RATES, detect
    from familial.synth.people_clip import people_clip

    graph, seeds = args.perceive or PERCEIVE, clip_seeds("detector", args.rendered)
    network = person_network(graph)
    exact = [people_clip(seed, size=_SIZE, fps=_FPS, seconds=_SECONDS).people for seed in seeds]
    films = (render_clip(seed, size=_SIZE, fps=_FPS, seconds=_SECONDS).frames for seed in seeds)
    real = [np.stack([network.people(frame) for frame in film]) for film in films]
    rates = replace(RATES, poor_share=1.0, poor=(-0.18, 0.22), sure=(2.1, 0.35))  # rendered frames' quality
    made = [detect(each, np.random.default_rng(i), each.whole(), rates) for i, each in enumerate(exact)]
    found = {
        "network": matched(list(zip(exact, real, strict=True))),
        "model": matched(list(zip(exact, made, strict=True))),
    }
    by = {name: _conditions(each) for name, each in found.items()}
    looks = {"rendered": summary(real), "model as rendered": summary(made)}
    for share, name in ((0.0, "model: good camera"), (1.0, "model: poor camera")):
        kind = replace(RATES, poor_share=share)
        looks[name] = summary(detect(each, np.random.default_rng(i), None, kind) for i, each in enumerate(exact))
    looks |= {f"real: {name}": summary(people) for name, people in _real(args.data, graph).items()}
    return _report(by, looks)


def _conditions(m: Matches) -> dict[str, tuple[float, int]]:
    """Figures under conditions, each with how many people or joints it is of."""
    clear = (m.shown > 0.7) & (m.rise > 0.7)
    figures: dict[str, tuple[float, int]] = {}

    def found(name: str, where: npt.NDArray[np.bool_]) -> None:
        figures[f"found, {name}"] = (float((m.score[where] > 0).mean()) if where.any() else 0.0, int(where.sum()))

    for low, high in ((0.0, 50.0), (50.0, 80.0), (80.0, 120.0), (120.0, 400.0)):
        found(f"{low:g} to {high:g} pixels", clear & (m.size >= low) & (m.size < high))
    for low, high in ((0.2, 0.5), (0.5, 0.8), (0.8, 1.01)):
        found(f"{low:g} to {min(high, 1):g} seen", (m.size > 70) & (m.shown >= low) & (m.shown < high))
    for low, high in ((-1.01, 0.3), (0.3, 0.7), (0.7, 1.01)):
        found(f"trunk {max(low, -1):g} to {min(high, 1):g} up", (m.shown > 0.7) & (m.rise >= low) & (m.rise < high))
    for low, high in ((0.0, 0.15), (0.15, 0.45), (0.45, 10.0)):
        found(f"{low:g} to {high:g} apart", clear & (m.near >= low) & (m.near < high))
    there = m.score > 0
    for level, name in ((1, "hidden"), (2, "behind the body"), (3, "seen"), (4, "out of sight")):
        of = there[:, None] & (m.level == level)
        figures[f"joint error, {name}"] = (_median(m.error[of]), int(of.sum()))
        figures[f"joint score, {name}"] = (_median(m.joint[of]), int(of.sum()))
    wide = m.mirrored[:, _TRUNK].sum(1) < 0.6 * m.error[:, _TRUNK].sum(1)
    figures["left for right"] = (float(wide[there].mean()) if there.any() else 0.0, int(there.sum()))
    figures["nobody's, a frame"] = (m.extra, len(m.score))
    return figures


def _real(manifests: Sequence[Path], graph: Path) -> Mapping[str, list[Packed]]:
    """Set -> detections of its clips."""
    from familial.data.clips import read_clip, read_manifests
    from familial.synth.actions.base import LABELS
    from wire.artifact.manifest import WindowSpec

    found: dict[str, list[Packed]] = {}
    if not manifests:
        return found
    spec = WindowSpec(128, 128, 1.0, 8, 8, 0.5, 0.5)
    for clip in read_manifests(manifests, LABELS):
        people = read_clip(clip.file, spec, perceive=graph).people
        if people is not None:
            found.setdefault(clip.set, []).append(people)
    return found


def _report(by: Mapping[str, Mapping[str, tuple[float, int]]], looks: Mapping[str, Mapping[str, float]]) -> Report:
    known = [["people whose place is known", "network", "model", "of"]]
    known += [[name, f"{v:.3f}", f"{by['model'][name][0]:.3f}", str(of)] for name, (v, of) in by["network"].items()]
    seen = [["without labels", *next(iter(looks.values()))]]
    seen += [[name, *(f"{value:.3f}" for value in each.values())] for name, each in looks.items()]
    figures = {
        "known": {name: dict(each) for name, each in by.items()},
        "looks": {k: dict(v) for k, v in looks.items()},
    }
    found = [
        abs(by["model"][name][0] - value)
        for name, (value, count) in by["network"].items()
        if name.startswith("found") and count >= _ENOUGH
    ]
    ratio = sum(found) / max(1, len(found)) / _GOAL
    width = max(len(row) for row in seen)
    rows = [[*row, *[""] * (width - len(row))] for row in [*known, [""], *seen]]
    return Report(ratio, figures, rows, page_rows=_page(looks))


def _page(looks: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """The table without labels, some columns of it."""
    kept = ("somebody", "score", "jitter", "flips")
    rows = [["", *kept]]
    for name, each in looks.items():
        if "rendered" not in name:
            rows.append([name.replace(" ", ""), *(f"{each[column]:.3f}" for column in kept)])
    return rows


COMMAND = Benchmark("detector", __doc__, f"a mean difference of {_GOAL} of the shares found", _options, _measure)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
