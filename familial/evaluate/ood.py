"""How familiar the last minutes of a camera are: means over many releases of z, held against those of known scenes.
No torch, no clean codes, no model: what was released is all that is read.

    z int (K, d) --two directions, / C--> c complex --with b, the mean of the seven before--> features (7,) of a release
    features --mean over the last 60, 300, 1200 releases--> (7,) --how far from the known cameras' means?--> OOD p-value

The two directions are those in which the labels' class prototypes lie (`desensitizer.code_plane`). The features are
c, c b,
Re(c b*) and c^2. Noise is drawn anew for each release and is the same in both directions, so the expectation of each
feature is the clean code's own, at any level of noise; only their spread depends on it. One release says little:
`benchmarks.shift` measures what a minute says, and what twenty do.

The distance is Mahalanobis', with the spread of the known cameras' means at the noise that was there. OOD p-value is
the share of left-out known cameras as far away or farther: a conformal p-value (Vovk et al., 2005), so that 5 % of
known scenes are below 0.05. A risk is no strange scene: it lasts seconds, and some of what is known holds one.

    python -m familial.evaluate.ood --checkpoint DIR     fits the reference, writes ood_reference.json into the
    checkpoint
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wire.artifact.manifest import EngineManifest
from wire.errors import CheckpointError, DataError, VeilsightError

__all__ = ["FILE", "SPANS", "Camera", "OodDetector", "Reference", "distances", "fit", "in_plane", "main", "summaries"]

FILE = "ood_reference.json"
SPANS = (60, 300, 1200)
"""Releases over which features are averaged; the longest that a stream has is read."""

_BEFORE = 7  # releases whose mean goes with each: an event without its last
_FEATURES = 7
_STREAMS = 8  # of each known camera
_FOLDS = 5
_LADDER = 199  # distances of left-out known cameras that are kept
_RISKY = 0.25  # of the known streams hold a risk
_FEWEST = 20  # cameras: fewer tell nothing of how cameras differ

Camera = Sequence[npt.NDArray[np.complex128]]
"""Clips of one camera, no risk in them: clean codes complex (S,), in units of C. They never leave the process."""


def in_plane(
    codes: npt.NDArray[Any], directions: npt.NDArray[np.float64], clip_norm: int
) -> npt.NDArray[np.complex128]:
    """Codes or releases (..., K, d) or (..., n), directions (n, 2) -> complex (...), in units of C."""
    flat = np.asarray(codes, np.float64)
    if flat.shape[-1] != len(directions):
        flat = flat.reshape(*flat.shape[:-2], len(directions))
    pair = flat @ directions / clip_norm
    return np.asarray(pair[..., 0] + 1j * pair[..., 1])


def _features(c: npt.NDArray[np.complex128], before: npt.NDArray[np.complex128]) -> npt.NDArray[np.float64]:
    """Releases c and the means of those before each, complex (...) -> features (..., 7)."""
    product, steady, square = c * before, (c * before.conj()).real, c * c
    return np.stack([c.real, c.imag, product.real, product.imag, steady, square.real, square.imag], axis=-1)


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What is known: per span, where known cameras' means lie, how far they spread at each noise, how far left-out
    ones were. A = number of spans, N = number of sigmas.

    checkpoint: hash of the weights whose codes these are. known: what it was made of, in words. sigmas: exact, in
    lattice units. directions (n, 2), orthonormal. mean (A, 7), spread (A, N, 7, 7), ladder (A, 199), rising.
    """

    checkpoint: str
    known: str
    clip_norm: int
    sigmas: tuple[Fraction, ...]
    spans: tuple[int, ...]
    directions: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]
    ladder: npt.NDArray[np.float64]

    def save(self, folder: Path | str) -> Path:
        """Write ood_reference.json beside the weights, of whose hash it is no part."""
        arrays = {name: getattr(self, name) for name in ("directions", "mean", "spread", "ladder")}
        document = {
            "checkpoint": self.checkpoint,
            "known": self.known,
            "clip_norm": self.clip_norm,
            "sigmas": [str(sigma) for sigma in self.sigmas],
            "spans": list(self.spans),
            **{name: _rounded(array.tolist()) for name, array in arrays.items()},
        }
        path = Path(folder) / FILE
        path.write_text(json.dumps(document) + "\n")
        return path

    @classmethod
    def load(cls, folder: Path | str, manifest: EngineManifest) -> Reference | None:
        """The reference of the checkpoint that `manifest` names; None where there is none.

        Raises CheckpointError for one that is damaged, of other weights, or without a level of the engine's noise.
        """
        path = Path(folder) / FILE
        cure = f"run: python -m familial.evaluate.ood --checkpoint {folder}; or delete the file to do without"
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_text())
            arrays = {name: np.array(found[name], float) for name in ("directions", "mean", "spread", "ladder")}
            sigmas, spans = tuple(map(Fraction, found["sigmas"])), tuple(map(int, found["spans"]))
            made = cls(str(found["checkpoint"]), str(found["known"]), int(found["clip_norm"]), sigmas, spans, **arrays)
            wrong = made._problem()
        except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
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

    def ood_p_value(self, mean: npt.NDArray[np.float64], span: int, shares: npt.NDArray[np.float64]) -> float:
        """Of a mean (7,) over the span of index `span`, whose releases had the sigmas in these shares (N,): 0..1."""
        spread = np.tensordot(shares, self.spread[span], axes=1)
        distance = float(distances(mean, self.mean[span], spread))
        ladder = self.ladder[span]
        farther = len(ladder) - int(np.searchsorted(ladder, distance, side="left"))
        return (1 + farther) / (1 + len(ladder))

    def _problem(self) -> str:
        """What makes these arrays no reference; empty where nothing does."""
        spans, sigmas, features = len(self.spans), len(self.sigmas), self.mean.shape[-1]
        shapes = {
            "directions": (len(self.directions), 2),
            "mean": (spans, _FEATURES),
            "spread": (spans, sigmas, features, features),
            "ladder": (spans, self.ladder.shape[-1]),
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape or 0 in shape or not np.isfinite(array).all():
                return f"{name} is {array.shape}; expected {shape}, finite"
        if list(self.spans) != sorted(set(self.spans)) or self.spans[0] < 1 or self.clip_norm < 1:
            return f"spans are {self.spans}, clip_norm is {self.clip_norm}; expected rising and positive ones"
        if (np.diff(self.ladder) < 0).any() or (np.linalg.eigvalsh(self.spread) <= 0).any():
            return "ladder does not rise, or spread is no covariance"
        return ""


class OodDetector:
    """The OOD p-value of one camera's stream, from its releases alone.

    sigmas: of every level at which a release can be made, as in the manifest; each is one of the reference's.
    """

    def __init__(self, reference: Reference, sigmas: Sequence[Fraction]) -> None:
        self._reference = reference
        self._kind = [reference.sigmas.index(sigma) for sigma in sigmas]
        self._rows = np.zeros((reference.spans[-1], _FEATURES))
        self._kinds = np.zeros(reference.spans[-1], np.int64)
        self.begin()

    def begin(self) -> None:
        """Forget all: another stream begins."""
        self._count = 0
        self._last: deque[tuple[int, complex]] = deque(maxlen=_BEFORE)

    def push(self, slot: int, z: npt.NDArray[np.int16], level: int = 0) -> None:
        """Take the release of `slot`, int16 (n,), as it was sent. What is older than the longest span is forgotten."""
        if self._last and slot - self._last[-1][0] > len(self._rows):
            self.begin()
        c = complex(in_plane(z, self._reference.directions, self._reference.clip_norm))
        before = [other for at, other in self._last if slot - at <= _BEFORE]
        self._last.append((slot, c))
        if not before:
            return  # nothing that it could go with
        place = self._count % len(self._rows)
        self._rows[place] = _features(np.array(c), np.array(sum(before) / len(before)))
        self._kinds[place] = self._kind[level]
        self._count += 1

    @property
    def score(self) -> float | None:
        """Share of known scenes that are as strange as this one, 1/200 to 1; None before the shortest span is over."""
        reference = self._reference
        fitting = [index for index, span in enumerate(reference.spans) if span <= self._count]
        if not fitting:
            return None
        latest = np.arange(self._count - reference.spans[fitting[-1]], self._count) % len(self._rows)
        shares = np.bincount(self._kinds[latest], minlength=len(reference.sigmas)) / len(latest)
        return reference.ood_p_value(self._rows[latest].mean(axis=0), fitting[-1], shares)


# --- the reference, from clean codes of known cameras


def summaries(
    cameras: Sequence[Camera],
    sigma: float,
    spans: Sequence[int],
    rng: np.random.Generator,
    *,
    streams: int = _STREAMS,
    least: int = 1,
    risks: Camera = (),
) -> npt.NDArray[np.float64]:
    """Features averaged over the first releases of streams of each camera: (cameras, streams, spans, 7).

    sigma: of the noise, in units of C. A stream repeats at least `least` of its camera's clips, drawn anew, in random
    order: by default a camera sees one thing for twenty minutes as often as five. risks: clips of which every fourth
    stream shows one, once, within any of the spans.
    """
    c = np.array([[_strung(clips, spans[-1] + 1, rng, least) for _ in range(streams)] for clips in cameras])
    for stream in c.reshape(-1, c.shape[-1]) if len(risks) else ():
        if rng.random() < _RISKY:
            start, risk = int(rng.integers(rng.choice(spans))), risks[int(rng.integers(len(risks)))]
            stream[start : start + len(risk)] = risk[: len(stream) - start]
    c = c + sigma * (rng.standard_normal(c.shape) + 1j * rng.standard_normal(c.shape))
    sums = np.concatenate([np.zeros_like(c[..., :1]), np.cumsum(c, axis=-1)], axis=-1)
    at = np.arange(1, c.shape[-1])
    first = np.maximum(at - _BEFORE, 0)
    rows = _features(c[..., 1:], (sums[..., at] - sums[..., first]) / (at - first))
    return np.stack([rows[:, :, :span].mean(axis=2) for span in spans], axis=2)


def _strung(clips: Camera, length: int, rng: np.random.Generator, least: int) -> npt.NDArray[np.complex128]:
    """`least` or more of the clips, in random order, again and again until there are `length` releases."""
    some = int(rng.integers(min(least, len(clips)), 1 + len(clips)))
    chosen, parts, count = rng.permutation(len(clips))[:some], list[npt.NDArray[np.complex128]](), 0
    while count < length:
        for index in rng.permutation(chosen):
            parts.append(clips[index])
            count += len(clips[index])
    return np.concatenate(parts)[:length]


def distances(
    means: npt.NDArray[np.float64], centre: npt.NDArray[np.float64], spread: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Squared Mahalanobis distances (...) of means (..., 7) from a centre (7,), spread (7, 7)."""
    gap = means - centre
    return np.asarray((gap * np.linalg.solve(spread, gap[..., None])[..., 0]).sum(axis=-1))


def fit(
    cameras: Sequence[Camera],
    sigmas: Sequence[Fraction],
    directions: npt.NDArray[np.float64],
    clip_norm: int,
    *,
    risks: Camera = (),
    checkpoint: str = "",
    known: str = "",
    spans: Sequence[int] = SPANS,
    seed: int = 0,
) -> Reference:
    """A reference from clean codes of at least 20 known cameras, and of risks; noise of each of `sigmas` is drawn here.

    The ladder holds distances of cameras from references that were made without them. Raises DataError for too few
    cameras, or codes that do not vary.
    """
    if len(cameras) < _FEWEST:
        raise DataError(f"{len(cameras)} known cameras; at least {_FEWEST} are needed: give more with --rendered")
    rng = np.random.default_rng(seed)
    levels = [float(sigma) / clip_norm for sigma in sigmas]
    seen = np.stack([summaries(cameras, level, spans, rng, risks=risks) for level in levels])  # (N, ...)
    mean, spread = _moments(seen)
    if (np.linalg.eigvalsh(spread) <= 0).any():
        raise DataError("the codes of the known cameras do not vary; is the checkpoint trained?")
    fold = np.arange(len(cameras)) % _FOLDS
    far = np.empty(seen.shape[:-1])  # (N, cameras, streams, A)
    for left_out in range(_FOLDS):
        centre, around = _moments(seen[:, fold != left_out])
        for a in range(len(spans)):
            for n in range(len(sigmas)):
                far[n, fold == left_out, :, a] = distances(seen[n, fold == left_out, :, a], centre[a], around[a, n])
    steps = (np.arange(_LADDER) + 0.5) / _LADDER
    ladder = np.stack([np.quantile(far[..., a], steps) for a in range(len(spans))])
    return Reference(checkpoint, known, clip_norm, tuple(sigmas), tuple(spans), directions, mean, spread, ladder)


def _moments(seen: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Summaries (N, cameras, streams, A, 7) -> their mean (A, 7), which no noise changes, and spread (A, N, 7, 7)."""
    levels, spans = seen.shape[0], seen.shape[3]
    spread = [[np.cov(seen[n, :, :, a].reshape(-1, _FEATURES).T) for n in range(levels)] for a in range(spans)]
    return seen.mean(axis=(0, 1, 2)), np.array(spread)


def _rounded(value: Any) -> Any:
    """Nested lists of floats with nine significant digits, so that the file stays small."""
    return [_rounded(part) for part in value] if isinstance(value, list) else float(f"{value:.9g}")


def main(argv: Sequence[str] | None = None) -> int:
    """Fit the reference of a checkpoint and write it there; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m familial.evaluate.ood", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR")
    parser.add_argument("--rendered", type=int, default=150, metavar="N", help="rendered rooms that are known")
    parser.add_argument("--data", nargs="+", type=Path, default=[], metavar="MANIFEST.csv", help="known real clips")
    parser.add_argument("--known", nargs="+", default=[], metavar="SET", help="sets of --data; default: all of them")
    args = parser.parse_args(argv)
    try:
        path, known = _fit_checkpoint(args.checkpoint, args.rendered, args.data, args.known)
    except VeilsightError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{path}: {known}")
    return 0


def _fit_checkpoint(folder: Path, rendered: int, data: Sequence[Path], known: Sequence[str]) -> tuple[Path, str]:
    from familial.evaluate import cameras

    family = cameras.Source.open(folder)
    rooms = family.rendered(rendered)
    sets = family.sets(data, known)
    every = [*(room.ordinary for room in rooms), *(camera for found in sets.values() for camera in found)]
    risks = [risk for room in rooms for risk in room.risks]
    said = f"{len(rooms)} rendered rooms" + "".join(f", {len(found)} of {name}" for name, found in sets.items())
    made = fit(
        every,
        family.sigmas,
        family.directions,
        family.clip_norm,
        risks=risks,
        checkpoint=family.checkpoint,
        known=said,
    )
    return made.save(folder), said


if __name__ == "__main__":
    sys.exit(main())
