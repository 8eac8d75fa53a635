"""Out-of-distribution (OOD) detection on what was released: are the last minutes of a camera like known scenes?

    z int (K, d) --two directions, / C--> c complex --with b, the mean of the seven before--> features (7,) of a release
    features --mean over the last 60, 300, 1200 releases--> (7,) --Mahalanobis distance from the reference
    distribution of known cameras' means--> OOD p-value

No torch, no clean codes, no model: only releases are read. The two directions are those in which the labels' class
prototypes lie (`desensitizer.code_plane`). The features are c, c b, Re(c b*) and c^2. Noise is independent from release
to release and has the same variance in both directions, so the expectation of each feature is the clean code's own, at
any noise level; only the covariance depends on it. One release says little: `benchmarks.shift` measures what a minute
says, and what twenty do.

The p-value is the share of left-out known cameras that are as far away or farther: a conformal p-value (Vovk, Gammerman
and Shafer, "Algorithmic Learning in a Random World", 2005), so 5 % of known scenes are below 0.05. A risk does not make
a scene unknown: it lasts seconds, and some of the known streams hold one.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wire.artifact.manifest import EngineManifest
from wire.errors import CheckpointError

__all__ = [
    "FEATURES",
    "FILE",
    "PRECEDING",
    "Camera",
    "OodDetector",
    "ReferenceDistribution",
    "in_plane",
    "mahalanobis",
    "release_features",
]

FILE = "ood_reference.json"
PRECEDING = 7
"""Releases whose mean goes with each: an event without its last."""
FEATURES = 7

_RENAMED = {"spread": "covariance", "ladder": "quantiles"}  # what older files call them
_ARRAYS = ("directions", "mean", "covariance", "quantiles")

Floats = npt.NDArray[np.float64]
Camera = Sequence[npt.NDArray[np.complex128]]
"""Clips of one camera, no risk in them: clean codes complex (S,), in units of C. They never leave the process."""


def in_plane(codes: npt.NDArray[Any], directions: Floats, clip_norm: int) -> npt.NDArray[np.complex128]:
    """Project codes or releases (..., K, d) or (..., n) on directions (n, 2): complex (...), in units of C."""
    flat = np.asarray(codes, np.float64)
    if flat.shape[-1] != len(directions):
        flat = flat.reshape(*flat.shape[:-2], len(directions))
    pair = flat @ directions / clip_norm  # (..., 2)
    return np.asarray(pair[..., 0] + 1j * pair[..., 1])


def release_features(c: npt.NDArray[np.complex128], preceding: npt.NDArray[np.complex128]) -> Floats:
    """Return the features (..., 7) of releases, complex (...), and of the means of those before each."""
    product, steady, square = c * preceding, (c * preceding.conj()).real, c * c
    return np.stack([c.real, c.imag, product.real, product.imag, steady, square.real, square.imag], axis=-1)


def mahalanobis(means: Floats, centre: Floats, covariance: Floats) -> Floats:
    """Return the squared Mahalanobis distances (...) of means (..., 7) from a centre (7,), covariance (7, 7)."""
    gap = means - centre
    return np.asarray((gap * np.linalg.solve(covariance, gap[..., None])[..., 0]).sum(axis=-1))


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceDistribution:
    """What the means of known cameras are like. A = number of spans, N = number of sigmas, Q = number of quantiles.

    Attributes:
        checkpoint: hash of the weights whose codes these are.
        known: what it was made of, in words.
        clip_norm: C.
        sigmas: of the noise levels, exact, in lattice units.
        spans: releases over which features are averaged, rising.
        directions: (n, 2), orthonormal.
        mean: (A, 7).
        covariance: (A, N, 7, 7), of known cameras' means, by noise level.
        quantiles: (A, Q), rising: distances of known cameras from references that were made without them.
    """

    checkpoint: str
    known: str
    clip_norm: int
    sigmas: tuple[Fraction, ...]
    spans: tuple[int, ...]
    directions: Floats
    mean: Floats
    covariance: Floats
    quantiles: Floats

    def save(self, folder: Path | str) -> Path:
        """Write ood_reference.json beside the weights; it is no part of their hash."""
        document = {
            "checkpoint": self.checkpoint,
            "known": self.known,
            "clip_norm": self.clip_norm,
            "sigmas": [str(sigma) for sigma in self.sigmas],
            "spans": list(self.spans),
            **{name: _rounded(getattr(self, name).tolist()) for name in _ARRAYS},
        }
        path = Path(folder) / FILE
        path.write_text(json.dumps(document) + "\n")
        return path

    @classmethod
    def load(cls, folder: Path | str, manifest: EngineManifest) -> ReferenceDistribution | None:
        """Read the reference of the checkpoint that `manifest` names; None where there is none.

        Raises:
            CheckpointError: it is damaged, of other weights, or without a noise level of the engine.
        """
        path = Path(folder) / FILE
        cure = f"run: python -m familial.evaluate.ood --checkpoint {folder}; or delete the file to do without"
        if not path.exists():
            return None
        try:
            found = {_RENAMED.get(key, key): value for key, value in json.loads(path.read_text()).items()}
            arrays = {name: np.array(found[name], float) for name in _ARRAYS}
            sigmas, spans = tuple(map(Fraction, found["sigmas"])), tuple(map(int, found["spans"]))
            made = cls(str(found["checkpoint"]), str(found["known"]), int(found["clip_norm"]), sigmas, spans, **arrays)
            wrong = made._problem()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
            raise CheckpointError(f"{path}: unreadable ({error!r}); {cure}") from error
        if wrong:
            raise CheckpointError(f"{path}: {wrong}; {cure}")
        if made.checkpoint != manifest.hashes["checkpoint"]:
            raise CheckpointError(f"{path}: made for weights {made.checkpoint[:12]}..., these are others; {cure}")
        lacking = [str(sigma) for sigma in manifest.sigmas if sigma not in made.sigmas]
        if lacking or (made.clip_norm, len(made.directions)) != (manifest.clip_norm, manifest.n):
            raise CheckpointError(
                f"{path}: for C {made.clip_norm}, n {len(made.directions)}, sigma {', '.join(map(str, made.sigmas))}; "
                f"the engine has C {manifest.clip_norm}, n {manifest.n} and also sigma {', '.join(lacking)}; {cure}"
            )
        return made

    def p_value(self, mean: Floats, span: int, shares: Floats) -> float:
        """Return the OOD p-value, above 0 and at most 1.

        Args:
            mean: of the features (7,) over the span.
            span: index of the span.
            shares: (N,), which share of the releases had each of the sigmas.
        """
        covariance = np.tensordot(shares, self.covariance[span], axes=1)  # (7, 7)
        distance = float(mahalanobis(mean, self.mean[span], covariance))
        quantiles = self.quantiles[span]
        farther = len(quantiles) - int(np.searchsorted(quantiles, distance, side="left"))
        return (1 + farther) / (1 + len(quantiles))

    def _problem(self) -> str:
        """Say what makes these arrays no reference; empty where nothing does."""
        spans, sigmas, features = len(self.spans), len(self.sigmas), self.mean.shape[-1]
        shapes = {
            "directions": (len(self.directions), 2),
            "mean": (spans, FEATURES),
            "covariance": (spans, sigmas, features, features),
            "quantiles": (spans, self.quantiles.shape[-1]),
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape or 0 in shape or not np.isfinite(array).all():
                return f"{name} is {array.shape}; expected {shape}, finite"
        if list(self.spans) != sorted(set(self.spans)) or self.spans[0] < 1 or self.clip_norm < 1:
            return f"spans are {self.spans}, clip_norm is {self.clip_norm}; expected rising and positive ones"
        if (np.diff(self.quantiles) < 0).any() or (np.linalg.eigvalsh(self.covariance) <= 0).any():
            return "quantiles do not rise, or covariance is not positive definite"
        return ""


def _rounded(value: Any) -> Any:
    """Round nested lists of floats to nine significant digits, so that the file stays small."""
    return [_rounded(part) for part in value] if isinstance(value, list) else float(f"{value:.9g}")


class OodDetector:
    """The OOD p-value of one camera's stream, from its releases alone.

    Args:
        reference: of the checkpoint.
        sigmas: of every level at which a release can be made, as in the manifest; each is one of the reference's.
    """

    def __init__(self, reference: ReferenceDistribution, sigmas: Sequence[Fraction]) -> None:
        self._reference = reference
        self._sigma_of_level = [reference.sigmas.index(sigma) for sigma in sigmas]
        self._rows = np.zeros((reference.spans[-1], FEATURES))  # a ring of the last releases
        self._sigmas = np.zeros(reference.spans[-1], np.int64)
        self.begin()

    def begin(self) -> None:
        """Forget all: another stream begins."""
        self._count = 0
        self._last: deque[tuple[int, complex]] = deque(maxlen=PRECEDING)

    def push(self, slot: int, z: npt.NDArray[np.int16], level: int = 0) -> None:
        """Add the release of `slot`, int16 (n,), as it was sent. Releases before the longest span are forgotten."""
        if self._last and slot - self._last[-1][0] > len(self._rows):
            self.begin()
        c = complex(in_plane(z, self._reference.directions, self._reference.clip_norm))
        preceding = [other for at, other in self._last if slot - at <= PRECEDING]
        self._last.append((slot, c))
        if not preceding:
            return  # nothing that it could go with
        place = self._count % len(self._rows)
        self._rows[place] = release_features(np.array(c), np.array(sum(preceding) / len(preceding)))
        self._sigmas[place] = self._sigma_of_level[level]
        self._count += 1

    @property
    def p_value(self) -> float | None:
        """Share of known scenes that are as far out as this one, 1/200 to 1; None before the shortest span is over."""
        reference = self._reference
        complete = [index for index, span in enumerate(reference.spans) if span <= self._count]
        if not complete:
            return None
        latest = np.arange(self._count - reference.spans[complete[-1]], self._count) % len(self._rows)
        shares = np.bincount(self._sigmas[latest], minlength=len(reference.sigmas)) / len(latest)
        return reference.p_value(self._rows[latest].mean(axis=0), complete[-1], shares)
