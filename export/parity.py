"""Does the engine compute what torch computes? Exactly, where it can be exact; by distribution, where there is noise.

    code      engine with noise 0 against the trusted core in torch, integer for integer, on made and hostile windows
    noise     z - mu over thousands of draws against the discrete Gaussian of sigma: shape and spread
    verdict   the label logits of both, on events of such releases, gaps included

Zero noise exists here and in offline evaluation only. The windows are made, so that a build needs no clips.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edge_runtime.noise import Sampler
from familial.family import DecideGraph, EncodeGraph, Family
from wire.errors import EngineError
from wire.manifest import WindowSpec
from wire.noise_table import NoiseTable

from .engines import Runner

__all__ = ["WINDOWS", "compare", "made_windows", "words", "write"]

WINDOWS = 96
_DRAWS = 128  # releases of noise on one window: times n coordinates
_EVENTS = 32
_BATCH = 16
_OFF_BY_ONE = 0.005  # share of coordinates at most: a sum taken in another order may fall on the other side of .5
_LOGITS = 1e-4
_SIX_SIGMA = 6.0  # 1e-9: no sound build fails in its life


def made_windows(window: WindowSpec, count: int = WINDOWS) -> npt.NDArray[np.uint8]:
    """Frames uint8 (count, F, H, W), the same every time: hostile ones first, then shapes that move over textures."""
    rng = np.random.default_rng(20)
    shape = (window.frames, window.height, window.width)
    rows, columns = np.mgrid[: window.height, : window.width]
    checkers = np.broadcast_to(((rows + columns) % 2 * 255).astype(np.uint8), shape)
    flicker = np.broadcast_to((np.arange(window.frames) % 2 * 255).astype(np.uint8)[:, None, None], shape)
    one_pixel = np.zeros(shape, np.uint8)
    one_pixel[-1, 0, 0] = 255
    late = np.zeros(shape, np.uint8)
    late[window.frames // 2 :] = 200
    hostile = [np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8), np.full(shape, 1, np.uint8)]
    hostile += [checkers, flicker, one_pixel, late, late[::-1]]
    hostile += [rng.integers(0, 256, shape, dtype=np.uint8), rng.integers(0, 2, shape, dtype=np.uint8) * 255]
    made = hostile + [_moving(rng, window) for _ in range(count - len(hostile))]
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


def compare(family: Family, runner: Runner, table: NoiseTable) -> dict[str, Any]:
    """The report; raises EngineError, naming figure and limit, where engine and torch are apart."""
    config = family.config
    windows = made_windows(config.window)
    with torch.inference_mode():
        codes, code = _codes(family, runner, windows)
        noise = _noise(runner, Sampler(table, config.tokens, config.width), windows[-1:], codes[-1:])
        verdict = _verdicts(family, runner, Sampler(table, config.tokens, config.width), codes)
    report = {"code": code, "noise": noise, "verdict": verdict}
    problems = [f"{part}: {problem}" for part, found in report.items() for problem in found["problems"]]
    if problems:
        raise EngineError(
            f"parity: {'; '.join(problems)}; the engine does not compute what was trained: do not ship it, "
            "and report the backend's version"
        )
    return report


def _codes(
    family: Family, runner: Runner, windows: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.int32], dict[str, Any]]:
    """mu of the engine, int32 (B, K, d), and how it differs from torch's."""
    config = family.config
    graph = EncodeGraph(family).eval()
    silence = np.zeros((1, config.tokens, config.width), np.int32)
    ours = np.concatenate([runner.encode(window[None], silence) for window in windows])
    batches = torch.split(torch.from_numpy(windows), _BATCH)
    theirs = torch.cat([graph(batch, torch.from_numpy(silence)) for batch in batches]).numpy()
    apart = np.abs(ours.astype(np.int64) - theirs)
    norms = np.sqrt((ours.astype(np.int64) ** 2).sum(axis=(1, 2)))
    share = float((apart > 0).mean())
    silent = int((norms == 0).sum())
    problems = []
    if apart.max() > 1 or share > _OFF_BY_ONE:
        problems.append(
            f"coordinates differ by up to {apart.max()}, {share:.2%} of them (at most 1, {_OFF_BY_ONE:.1%})"
        )
    if norms.max() > config.clip_norm:
        problems.append(f"|mu| reaches {norms.max():.2f}, C is {config.clip_norm}")
    return ours, {
        "windows": len(windows),
        "differences": {str(int(value)): int((apart == value).sum()) for value in np.unique(apart)},
        "off_by_one": share,
        "norm_max": round(float(norms.max()), 3),
        "norm_mean": round(float(norms.mean()), 3),
        "zero_codes": silent,
        "problems": problems,
    }


def _noise(
    runner: Runner, sampler: Sampler, window: npt.NDArray[np.uint8], mu: npt.NDArray[np.int32]
) -> dict[str, Any]:
    """z - mu of one window under many draws against the discrete Gaussian of sigma."""
    found = []
    for _ in range(_DRAWS):
        with sampler.draw() as noise:
            found.append(runner.encode(window, noise) - mu)
    k = np.concatenate(found).reshape(-1).astype(np.int64)
    sigma = float(sampler.sigma)
    reach = np.arange(-int(14 * sigma) - 2, int(14 * sigma) + 3)
    weights = np.exp(-(reach**2) / (2 * sigma**2))
    probability = weights / weights.sum()
    variance = float((probability * reach**2).sum())
    fourth = float((probability * reach**4).sum())
    spread = (float((k**2).mean()) - variance) / math.sqrt((fourth - variance**2) / len(k))
    shift = float(k.mean()) / math.sqrt(variance / len(k))
    shape = _chi_square(k, reach, probability)
    problems = [
        f"{name} is {value:.1f} standard deviations from the discrete Gaussian of sigma {sigma:g}"
        for name, value in (("mean", shift), ("spread", spread), ("shape", shape))
        if not abs(value) < _SIX_SIGMA and not (name == "shape" and value < 0)
    ]
    return {
        "draws": len(k),
        "sigma": sigma,
        "deviation": round(float(k.std()), 3),
        "mean_z": round(shift, 3),
        "variance_z": round(spread, 3),
        "chi_square_z": round(shape, 3),
        "problems": problems,
    }


def _chi_square(k: npt.NDArray[np.int64], reach: npt.NDArray[np.int64], probability: npt.NDArray[np.float64]) -> float:
    """Chi-square over bins of about equal probability, as a normal score (Wilson and Hilferty 1931)."""
    bins = np.minimum((np.cumsum(probability) * 32).astype(np.int64), 31)
    expected = np.bincount(bins, weights=probability, minlength=32) * len(k)
    counts = np.bincount(bins[np.clip(k, reach[0], reach[-1]) - reach[0]], minlength=32)
    kept = expected > 5
    freedom = int(kept.sum()) - 1
    if freedom < 1:
        return 0.0
    statistic = float(((counts[kept] - expected[kept]) ** 2 / expected[kept]).sum())
    return (math.pow(statistic / freedom, 1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))


def _verdicts(family: Family, runner: Runner, sampler: Sampler, codes: npt.NDArray[np.int32]) -> dict[str, Any]:
    """Label logits of engine and torch on events of noised codes, some with gaps."""
    config = family.config
    rng = np.random.default_rng(22)
    z = np.zeros((_EVENTS, config.event_releases, config.tokens, config.width), np.int32)
    present = rng.random((_EVENTS, config.event_releases)) < np.where(np.arange(_EVENTS) % 2, 1.0, 0.6)[:, None]
    for event, release in np.argwhere(present):
        with sampler.draw() as noise:
            z[event, release] = np.clip(codes[rng.integers(len(codes))] + noise[0], -32768, 32767)
    ours = np.concatenate([runner.decide(z[i : i + 1], present[i : i + 1]) for i in range(_EVENTS)])
    theirs = DecideGraph(family).eval()(torch.from_numpy(z), torch.from_numpy(present)).numpy()
    worst = float(np.abs(ours - theirs).max()) if np.isfinite(ours).all() else math.inf
    same = int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum())
    problems = [] if worst <= _LOGITS else [f"logits differ by {worst:.2e} (at most {_LOGITS:g})"]
    return {"events": _EVENTS, "logit_difference_max": worst, "same_label": same, "problems": problems}


def write(report: Mapping[str, Any], backend: str, folder: Path) -> None:
    """parity.json of an engine folder."""
    (folder / "parity.json").write_text(json.dumps({"backend": backend, **report}, indent=1) + "\n")


def words(report: Mapping[str, Any]) -> list[str]:
    """The report in three phrases."""
    code, noise, verdict = report["code"], report["noise"], report["verdict"]
    return [
        f"codes of {code['windows']} windows equal but for {code['off_by_one']:.2%} off by one",
        f"noise of {noise['draws']} draws fits sigma",
        f"logits within {verdict['logit_difference_max']:.0e}",
    ]
