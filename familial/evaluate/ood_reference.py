"""The reference distribution of an OOD detector, fitted on clean codes of known cameras.

Camera (clips as complex codes) --repeated at random to streams, + noise--> features --mean over each span--> (7,)
means of all cameras --mean, covariance by noise level, quantiles of left-out distances--> ReferenceDistribution
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from familial.evaluate.ood_detector import (
    FEATURES,
    PRECEDING,
    Camera,
    ReferenceDistribution,
    mahalanobis,
    release_features,
)
from wire.errors import DataError

__all__ = ["SPANS", "fit", "summaries"]

SPANS = (60, 300, 1200)
"""Releases over which features are averaged; the longest that a stream has is read."""

_STREAMS = 8  # of each known camera
_FOLDS = 5
_QUANTILES = 199  # of the distances of left-out known cameras
_RISKY = 0.25  # share of the known streams that hold a risk
_FEWEST = 20  # cameras: fewer do not show how cameras differ

Floats = npt.NDArray[np.float64]


def summaries(
    cameras: Sequence[Camera],
    sigma: float,
    spans: Sequence[int],
    rng: np.random.Generator,
    *,
    streams: int = _STREAMS,
    least: int = 1,
    risks: Camera = (),
) -> Floats:
    """Average features over the first releases of random streams of each camera.

    Args:
        cameras: their clips.
        sigma: of the noise, in units of C.
        spans: in releases, rising.
        rng: draws streams and noise.
        streams: of each camera.
        least: clips of which a stream is made at least, in random order: with 1, a camera sees one thing for twenty
            minutes as often as five.
        risks: clips of which every fourth stream shows one, once, within any of the spans.

    Returns:
        float (cameras, streams, spans, 7).
    """
    length = spans[-1] + 1
    c = np.array([[_stream(clips, length, rng, least) for _ in range(streams)] for clips in cameras])
    for stream in c.reshape(-1, length) if len(risks) else ():
        if rng.random() < _RISKY:
            start, risk = int(rng.integers(rng.choice(spans))), risks[int(rng.integers(len(risks)))]
            stream[start : start + len(risk)] = risk[: len(stream) - start]
    c = c + sigma * (rng.standard_normal(c.shape) + 1j * rng.standard_normal(c.shape))
    sums = np.concatenate([np.zeros_like(c[..., :1]), np.cumsum(c, axis=-1)], axis=-1)
    at = np.arange(1, length)
    first = np.maximum(at - PRECEDING, 0)
    rows = release_features(c[..., 1:], (sums[..., at] - sums[..., first]) / (at - first))
    return np.stack([rows[:, :, :span].mean(axis=2) for span in spans], axis=2)


def _stream(clips: Camera, length: int, rng: np.random.Generator, least: int) -> npt.NDArray[np.complex128]:
    """Repeat `least` or more of the clips, in random order, until there are `length` releases."""
    some = int(rng.integers(min(least, len(clips)), 1 + len(clips)))
    chosen, parts, count = rng.permutation(len(clips))[:some], list[npt.NDArray[np.complex128]](), 0
    while count < length:
        for index in rng.permutation(chosen):
            parts.append(clips[index])
            count += len(clips[index])
    return np.concatenate(parts)[:length]


def fit(
    cameras: Sequence[Camera],
    sigmas: Sequence[Fraction],
    directions: Floats,
    clip_norm: int,
    *,
    risks: Camera = (),
    checkpoint: str = "",
    known: str = "",
    spans: Sequence[int] = SPANS,
    seed: int = 0,
) -> ReferenceDistribution:
    """Fit a reference distribution.

    The quantiles are of distances of cameras from references that were made without them.

    Args:
        cameras: at least 20 known ones, clean codes.
        sigmas: noise levels, in lattice units; noise of each is added here.
        directions: (n, 2), orthonormal.
        clip_norm: C.
        risks: clips of risks that known cameras show now and then.
        checkpoint: hash of the weights.
        known: what the cameras are, in words.
        spans: in releases, rising.
        seed: of streams and noise.

    Raises:
        DataError: too few cameras, or codes that do not vary.
    """
    if len(cameras) < _FEWEST:
        raise DataError(f"{len(cameras)} known cameras; at least {_FEWEST} are needed: give more with --rendered")
    rng = np.random.default_rng(seed)
    levels = [float(sigma) / clip_norm for sigma in sigmas]
    seen = np.stack([summaries(cameras, level, spans, rng, risks=risks) for level in levels])  # (N, ...)
    mean, covariance = _moments(seen)
    if (np.linalg.eigvalsh(covariance) <= 0).any():
        raise DataError("the codes of the known cameras do not vary; is the checkpoint trained?")
    steps = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    distances = _left_out_distances(seen)
    quantiles = np.stack([np.quantile(distances[..., a], steps) for a in range(len(spans))])
    return ReferenceDistribution(
        checkpoint, known, clip_norm, tuple(sigmas), tuple(spans), directions, mean, covariance, quantiles
    )


def _left_out_distances(seen: Floats) -> Floats:
    """Return distances (N, cameras, streams, A) of each camera from the moments of the folds that it is not in."""
    levels, cameras, _, spans, _ = seen.shape
    fold = np.arange(cameras) % _FOLDS
    found = np.empty(seen.shape[:-1])
    for left_out in range(_FOLDS):
        mean, covariance = _moments(seen[:, fold != left_out])
        for a in range(spans):
            for n in range(levels):
                mine = seen[n, fold == left_out, :, a]
                found[n, fold == left_out, :, a] = mahalanobis(mine, mean[a], covariance[a, n])
    return found


def _moments(seen: Floats) -> tuple[Floats, Floats]:
    """Return the mean (A, 7) of summaries (N, cameras, streams, A, 7), and their covariance (A, N, 7, 7).

    Noise changes the covariance alone, so the mean is over all levels.
    """
    levels, spans = seen.shape[0], seen.shape[3]
    covariance = [[np.cov(seen[n, :, :, a].reshape(-1, FEATURES).T) for n in range(levels)] for a in range(spans)]
    return seen.mean(axis=(0, 1, 2)), np.array(covariance)
