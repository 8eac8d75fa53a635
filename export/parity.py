"""Checks that an engine computes what torch computes: codes integer by integer, logits by value.

    code      the engine against the integer core in torch, on synthetic windows (and people)
    verdict   the label logits of both, on events of such codes as the gate releases them, some with gaps
    half      fp16 only: the largest magnitudes against float16's range, and the codes with every tensor rounded to it

TOLERANCES states for each precision how far codes and logits may be apart. The windows are synthetic, so a build needs
no clips.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edge_runtime.gate.core import release
from edge_runtime.gate.sampler import Sampler
from export.backends.runners import Runner
from export.made_people import EXTREME, made_people
from export.precision.convert import check_peaks
from export.precision.half import FP16_MAX, half_tensors, rounded
from export.precision.network import measure, open_session
from familial.model.config import FamilyConfig
from familial.model.family import Family
from familial.model.graphs import DecideGraph, EncodeGraph
from wire.artifact.manifest import WindowSpec
from wire.errors import EngineError
from wire.privacy.noise_table import NoiseTable

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = [
    "TOLERANCES",
    "WINDOWS",
    "Tolerance",
    "compare",
    "compare_half",
    "made_feeds",
    "made_windows",
    "words",
    "write",
]

WINDOWS = 96
_EVENTS = 32
_LARGE = 50_000_000  # with more weights, a window takes seconds instead of milliseconds: fewer are compared
_WINDOWS_LARGE = 16
_BATCH = 16


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far an engine may be from torch.

    Attributes:
        p99: Difference of a coordinate of mu at the 99th percentile, in lattice units.
        most: Largest such difference.
        share: Of the coordinates that differ at all.
        cosine: Least mean over windows of the cosine between the codes.
        logits: Largest difference of a label logit.
    """

    p99: float
    most: float
    share: float
    cosine: float
    logits: float


TOLERANCES: Mapping[str, Tolerance] = {
    # A sum taken in another order may fall on the other side of .5.
    "fp32": Tolerance(p99=0, most=1, share=0.005, cosine=0.999, logits=1e-4),
    "fp16": Tolerance(p99=1, most=math.inf, share=1.0, cosine=0.99, logits=0.02),
    # On synthetic windows, which no calibration has seen; calibration.int8 is stricter, on clips.
    "int8": Tolerance(p99=8, most=math.inf, share=1.0, cosine=0.97, logits=0.5),
}


def made_windows(window: WindowSpec, count: int = WINDOWS) -> npt.NDArray[np.uint8]:
    """Frames uint8 (count, F, H, W), the same every time: extreme pictures first, then shapes moving over textures."""
    rng = np.random.default_rng(20)
    shape = (window.frames, window.height, window.width)
    rows, columns = np.mgrid[: window.height, : window.width]
    checkers = np.broadcast_to(((rows + columns) % 2 * 255).astype(np.uint8), shape)
    flicker = np.broadcast_to((np.arange(window.frames) % 2 * 255).astype(np.uint8)[:, None, None], shape)
    one_pixel = np.zeros(shape, np.uint8)
    one_pixel[-1, 0, 0] = 255
    late = np.zeros(shape, np.uint8)
    late[window.frames // 2 :] = 200
    extreme = [np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8), np.full(shape, 1, np.uint8)]
    extreme += [checkers, flicker, one_pixel, late, late[::-1]]
    extreme += [rng.integers(0, 256, shape, dtype=np.uint8), rng.integers(0, 2, shape, dtype=np.uint8) * 255]
    made = extreme + [_moving(rng, window) for _ in range(count - len(extreme))]
    return np.stack(made[:count])


def _moving(rng: np.random.Generator, window: WindowSpec) -> npt.NDArray[np.uint8]:
    """A bright or dark ellipse that crosses a gradient with grain; uint8 (F, H, W)."""
    rows, columns = np.mgrid[: window.height, : window.width]
    slopes = rng.uniform(-0.8, 0.8, 2)
    ground = rng.uniform(40, 200) + slopes[0] * rows + slopes[1] * columns
    start, step = rng.uniform(0.1, 0.9, 2), rng.uniform(-0.04, 0.04, 2)
    size, level = rng.uniform(0.06, 0.3, 2), rng.uniform(-120, 120)
    frames = []
    for t in range(window.frames):
        place = (start + step * t) * (window.height, window.width)
        inside = ((rows - place[0]) / (size[0] * window.height)) ** 2
        inside = inside + ((columns - place[1]) / (size[1] * window.width)) ** 2 < 1
        frames.append(ground + level * inside + rng.normal(scale=rng.uniform(0, 8), size=ground.shape))
    window_frames: npt.NDArray[np.uint8] = np.clip(np.stack(frames), 0, 255).astype(np.uint8)
    return window_frames


def compare(family: Family, runner: Runner, table: NoiseTable, precision: str = "fp32") -> dict[str, Any]:
    """Compare an engine with torch.

    Args:
        family: The family that the engine was traced from.
        runner: The engine.
        table: The noise of the events.
        precision: Which row of TOLERANCES applies.

    Returns:
        The report, for parity.json: "code" and "verdict", each with its figures.

    Raises:
        EngineError: A figure is beyond its tolerance; names both.
    """
    config, tolerance = family.config, TOLERANCES[precision]
    with torch.inference_mode():
        codes, code = _codes(family, runner, made_feeds(family), tolerance)
        verdict = _verdicts(family, runner, Sampler(table, config.tokens * config.width), codes, tolerance)
    report = {"code": code, "verdict": verdict}
    problems = [f"{part}: {problem}" for part, found in report.items() for problem in found["problems"]]
    if problems:
        raise EngineError(
            f"parity: {'; '.join(problems)}; the engine does not compute what was trained: do not ship it, "
            "and report the backend's version, or build another --precision"
        )
    return report


def _is_large(family: Family) -> bool:
    return sum(weight.numel() for weight in family.parameters()) > _LARGE


def made_feeds(family: Family) -> list[dict[str, npt.NDArray[Any]]]:
    """Inputs of `encode`, a window each: frames uint8 (1, F, H, W), and people int32 (1, F, P, VALUES) if it sees them.

    The extreme people come twice: with extreme pictures, and with common ones.
    """
    spec = family.config.window
    frames = made_windows(spec, _WINDOWS_LARGE) if _is_large(family) else made_windows(spec)
    if not family.tower.sees_people:
        return [{"frames": window[None]} for window in frames]
    people = made_people(spec, len(frames))
    people[-EXTREME:] = people[:EXTREME]
    return [{"frames": window[None], "people": who[None]} for window, who in zip(frames, people, strict=True)]


def _codes(
    family: Family, runner: Runner, feeds: Sequence[Mapping[str, npt.NDArray[Any]]], tolerance: Tolerance
) -> tuple[npt.NDArray[np.int32], dict[str, Any]]:
    """mu of the engine, int32 (B, K, d), and how it differs from torch's."""
    config = family.config
    graph = EncodeGraph(family).eval()
    codes, spent = [], []
    for feed in feeds:
        began = time.perf_counter()
        codes.append(runner.encode(**feed))
        spent.append(1000 * (time.perf_counter() - began))
    ours = np.concatenate(codes)
    batches = [feeds[first : first + _BATCH] for first in range(0, len(feeds), _BATCH)]
    theirs = torch.cat([graph(**_batch(feeds)) for feeds in batches]).numpy()
    apart = np.abs(ours.astype(np.int64) - theirs)
    norms = np.sqrt((ours.astype(np.int64) ** 2).sum(axis=(1, 2)))
    share = float((apart > 0).mean())
    p50, p99 = (float(value) for value in np.percentile(apart, [50, 99]))
    cosine = float(_cosines(ours, theirs).mean())
    problems = []
    if p99 > tolerance.p99 or apart.max() > tolerance.most or share > tolerance.share:
        problems.append(
            f"coordinates differ by {p99:g} at p99 and up to {apart.max()}, {share:.2%} of them at all "
            f"(at most {tolerance.p99:g}, {tolerance.most:g}, {tolerance.share:.1%})"
        )
    if not cosine >= tolerance.cosine:
        problems.append(f"codes point elsewhere: mean cosine {cosine:.4f} (at least {tolerance.cosine:g})")
    if norms.max() > config.clip_norm:
        problems.append(f"|mu| reaches {norms.max():.2f}, C is {config.clip_norm}")
    return ours, {
        "windows": len(feeds),
        "milliseconds_p50": round(float(np.median(spent)), 2),
        "differences": {str(int(value)): int((apart == value).sum()) for value in np.unique(apart)},
        "off_by_one": share,
        "p50": p50,
        "p99": p99,
        "cosine_mean": round(cosine, 5),
        "norm_max": round(float(norms.max()), 3),
        "norm_mean": round(float(norms.mean()), 3),
        "zero_codes": int((norms == 0).sum()),
        "problems": problems,
    }


def _batch(feeds: Sequence[Mapping[str, npt.NDArray[Any]]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.concatenate([feed[name] for feed in feeds])) for name in feeds[0]}


def _cosines(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Cosine of the angle between codes int (B, K, d), window by window; 1 where both are zero."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.sqrt((a**2).sum(axis=(1, 2)) * (b**2).sum(axis=(1, 2)))
    same = (a == b).all(axis=(1, 2))
    found: npt.NDArray[np.float64] = np.where(same, 1.0, (a * b).sum(axis=(1, 2)) / np.maximum(lengths, 1e-9))
    return found


def _events(
    config: FamilyConfig, sampler: Sampler, codes: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """Events of released codes, some with gaps: z int32 (E, R, K, d), present bool (E, R)."""
    rng = np.random.default_rng(22)
    z = np.zeros((_EVENTS, config.event_releases, config.tokens, config.width), np.int32)
    present = rng.random((_EVENTS, config.event_releases)) < np.where(np.arange(_EVENTS) % 2, 1.0, 0.6)[:, None]
    for event, index in np.argwhere(present):
        with sampler.draw() as noise:
            code = codes[rng.integers(len(codes))]
            z[event, index] = release(code.reshape(-1).astype(np.int16), noise, config.clip_norm).reshape(code.shape)
    return z, present


def _verdicts(
    family: Family, runner: Runner, sampler: Sampler, codes: npt.NDArray[np.int32], tolerance: Tolerance
) -> dict[str, Any]:
    """Label logits of engine and torch on events of noised codes, some with gaps."""
    z, present = _events(family.config, sampler, codes)
    ours = np.concatenate([runner.decide(z[i : i + 1], present[i : i + 1]) for i in range(_EVENTS)])
    theirs = DecideGraph(family).eval()(torch.from_numpy(z), torch.from_numpy(present)).numpy()
    worst = float(np.abs(ours - theirs).max()) if np.isfinite(ours).all() else math.inf
    same = int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum())
    problems = [] if worst <= tolerance.logits else [f"logits differ by {worst:.2e} (at most {tolerance.logits:g})"]
    return {"events": _EVENTS, "logit_difference_max": worst, "same_label": same, "problems": problems}


def compare_half(
    family: Family,
    traced: Mapping[str, ModelProto],
    typed: Mapping[str, ModelProto],
    table: NoiseTable,
    traced_in: str = "",
    typed_in: str = "",
) -> dict[str, Any]:
    """Measure how far float16 moves the output of both graphs, on synthetic windows and events.

    A CPU's runtime keeps float32 between neighbouring nodes, so the rounding is made explicit (`half.rounded`).

    Args:
        family: The family that the graphs were traced from.
        traced: "encode" and "decide" -> fp32 graph; others are not read.
        typed: Likewise, the fp16 graphs.
        table: Noise for the events.
        traced_in: Folder of the fp32 graphs' external weights.
        typed_in: Folder of the fp16 graphs' external weights.

    Returns:
        The report, for parity.json: figures of each graph.

    Raises:
        GraphError: A magnitude comes near the end of float16's range.
        EngineError: Codes or logits are further apart than TOLERANCES allow.
    """
    config, tolerance = family.config, TOLERANCES["fp16"]
    windows = made_feeds(family)
    run = open_session(traced["encode"], folder=traced_in)
    codes = np.concatenate([run(feed)[0] for feed in windows])
    z, present = _events(config, Sampler(table, config.tokens * config.width), codes)
    events = [{"z": z[i : i + 1], "present": present[i : i + 1]} for i in range(len(z))]
    report: dict[str, Any] = {}
    for part, feeds, limit in (("encode", windows, tolerance.p99), ("decide", events, tolerance.logits)):
        peaks = measure(traced[part], feeds, traced_in)
        check_peaks(typed[part], peaks)
        halves = {name: peak for name, peak in peaks.items() if name in half_tensors(typed[part])}
        exact = open_session(traced[part], folder=traced_in)
        ours = open_session(rounded(typed[part]), exact=True, folder=typed_in)
        apart = np.concatenate([np.abs(ours(feed)[0].astype(np.float64) - exact(feed)[0]) for feed in feeds])
        p50, p99 = (float(value) for value in np.percentile(apart, [50, 99]))
        largest = max(halves, key=lambda name: halves[name], default="")
        report[part] = {
            "tensors_fp16": len(halves),
            "largest": largest,
            "peak": halves.get(largest, 0.0),
            "headroom": FP16_MAX / max(halves.get(largest, 0.0), 1e-9),
            "p50": p50,
            "p99": p99,
        }
        if not p99 <= limit:
            raise EngineError(
                f"{part}: float16 moves the output by {p99:.3g} at p99 (at most {limit:g}); build with --precision fp32"
            )
    return report


def write(report: Mapping[str, Any], backend: str, folder: Path) -> None:
    """Write parity.json of an engine folder; backend: the one that the build was called with."""
    (folder / "parity.json").write_text(json.dumps({"backend": backend, **report}, indent=1) + "\n")


def words(report: Mapping[str, Any]) -> list[str]:
    """The report in phrases, for the build's progress line."""
    code, verdict, people = report["code"], report["verdict"], report.get("people")
    apart = "off by one" if max(map(int, code["differences"])) <= 1 else f"p99 {code['p99']:g} units"
    return [
        f"codes of {code['windows']} windows equal but for {code['off_by_one']:.2%}, {apart}",
        f"logits within {verdict['logit_difference_max']:.0e}",
        *([f"heads within {max(people['apart_p99'].values()):.0e}"] if people else []),
    ]
