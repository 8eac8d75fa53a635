"""The contour's decoder: noised releases of an event -> an outline figure with its certainty. NumPy alone.

z (N, R, K, d), present (N, R), sigma --plane of codes--> (N, R, P) --two hidden layers--> chances, outlines, spreads

What is in z outside the plane in which codes lie is noise alone, so nothing is lost by leaving it out. Nothing but z,
which releases came, and the noise's public sigma goes in: a contour is post-processing of z, and says nothing that z
does not. The file is bound to the checkpoint that it was trained for, by its hash.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from wire.errors import CheckpointError
from wire.files import write_whole
from wire.protocol.contour import LONGEST, RAYS, WIDEST

__all__ = [
    "CONTOUR",
    "CONTOUR_VERSION",
    "HEADS",
    "SPREADS",
    "ContourDecoder",
    "Contours",
    "inputs",
    "split",
    "strength",
]

CONTOUR = "contour.safetensors"
"""The file's name in a checkpoint's folder."""
CONTOUR_VERSION = 1
"""Of the file: raise it when the same numbers would be read as another figure."""
HEADS = {"posture": 4, "count": 3, "moving": 1, "way": 1}
"""What is said besides outlines -> outputs of the network."""
SHAPES, SPREADS = 12, 9
"""Numbers of an outline, and of its spread: the spread is a smooth function of the direction."""

Floats = npt.NDArray[np.float32]

_OUTPUTS = sum(HEADS.values()) + 2 * (SHAPES + SPREADS)
_STRONGEST = 8.0  # S per event from which the noise is taken for none
_MOST_BYTES = 4 << 20
_FIELDS = {"version", "checkpoint", "encoder", "family", "clip_norm", "releases", "tokens", "width", "knows", "priors"}
_CURE = "train it anew: python -m familial.contour.train --checkpoint DIR"


@dataclass(frozen=True, slots=True)
class Contours:
    """N figures.

    Attributes:
        posture: float32 (N, 4) chances, in the order of `POSTURES`; the prior's where it is not known.
        count: float32 (N, 3) chances, in the order of `COUNTS`; likewise.
        moving: float32 (N,) the chance that it moves; likewise.
        way: float32 (N,) the chance that it goes to the right, if it moves; likewise.
        first: float32 (N, RAYS) outline of the one who is drawn, body heights.
        first_spread: float32 (N, RAYS) how far from it the body's own is on average, body heights.
        second: float32 (N, RAYS) outline of the other one, if there is one.
        second_spread: float32 (N, RAYS) likewise.
    """

    posture: Floats
    count: Floats
    moving: Floats
    way: Floats
    first: Floats
    first_spread: Floats
    second: Floats
    second_spread: Floats


class ContourDecoder:
    """Reads figures from noised releases.

    Attributes:
        knows: What it reads better than a guess without looking, of HEADS; the rest of HEADS is the prior's.
        about: What the file says of itself.
    """

    def __init__(self, tensors: Mapping[str, npt.NDArray[Any]], about: Mapping[str, Any]) -> None:
        """Take the parts of a file.

        Raises:
            CheckpointError: They do not fit each other.
        """
        self.about = dict(about)
        self._tensors = {name: np.asarray(value, np.float32) for name, value in tensors.items()}
        self._check()
        self.knows = tuple(str(name) for name in about["knows"])
        self._clip_norm, self._releases = int(about["clip_norm"]), int(about["releases"])

    @classmethod
    def load(cls, folder: Path | str, checkpoint: str | None) -> ContourDecoder | None:
        """Read the contour beside a checkpoint; None where it has none.

        Args:
            folder: Of the checkpoint.
            checkpoint: Its hash, as `checkpoint_hash` gives it; None: whatever it was trained for.

        Raises:
            CheckpointError: The file is damaged, or was trained for another checkpoint.
        """
        path = Path(folder) / CONTOUR
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
        try:
            tensors, about = _parsed(data)
            decoder = cls(tensors, about)
        except (
            SafetensorError,
            CheckpointError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            ArithmeticError,
        ) as error:
            raise CheckpointError(f"{path}: no contour of ours ({error}); {_CURE}") from error
        if checkpoint is not None and about["checkpoint"] != checkpoint:
            raise CheckpointError(
                f"{path}: the contour of {about['family']!r}, checkpoint {str(about['checkpoint'])[:12]}..., and this "
                f"checkpoint is {checkpoint[:12]}...: a contour reads the codes of its own family alone; {_CURE}"
            )
        return decoder

    def save(self, folder: Path) -> Path:
        """Write it beside a checkpoint, in half precision; returns the file."""
        # safetensors writes an array's memory as it lies, whatever order of rows and columns that is
        tensors = {name: np.ascontiguousarray(value, np.float16) for name, value in sorted(self._tensors.items())}
        about = json.dumps(self.about, sort_keys=True)
        write_whole(folder / CONTOUR, save_tensors(tensors, {"contour": about}))
        return folder / CONTOUR

    def read(self, z: npt.NDArray[Any], present: npt.NDArray[np.bool_], sigma: float) -> Contours:
        """Read figures at the end of N events.

        Args:
            z: (N, R, K, d) noised releases, oldest first.
            present: (N, R), which of them came.
            sigma: Of the noise in them, in lattice units; 0: none.

        Returns:
            N figures.
        """
        x = inputs(z, present, sigma, self._tensors["plane"], self._clip_norm, self._releases)
        for layer in ("0", "1"):
            x = _gelu(x @ self._tensors[f"weight_{layer}"].T + self._tensors[f"bias_{layer}"])
        parts = split(x @ self._tensors["weight_2"].T + self._tensors["bias_2"])
        chances = {name: self._chances(name, parts[name]) for name in HEADS}
        first, second = (self._outline(name, parts[name]) for name in ("first", "second"))
        spreads = [
            np.clip(np.exp(parts[f"{name}_spread"] @ self._tensors["smooth"]), 0.0, WIDEST)
            for name in ("first", "second")
        ]
        return Contours(
            chances["posture"],
            chances["count"],
            chances["moving"][:, 0],
            chances["way"][:, 0],
            first,
            spreads[0],
            second,
            spreads[1],
        )

    def saying_all(self) -> ContourDecoder:
        """The same decoder, as if it knew all of HEADS: to measure what is left out."""
        return ContourDecoder(self._tensors, {**self.about, "knows": list(HEADS)})

    def guess(self, count: int) -> Contours:
        """What there is to say without looking, of `count` events: the priors, and the best constant outlines."""
        priors = {name: np.tile(np.asarray(self.about["priors"][name], np.float32), (count, 1)) for name in HEADS}
        means = [np.tile(self._tensors[f"{name}_mean"], (count, 1)) for name in ("first", "second")]
        nothing = np.zeros((count, RAYS), np.float32)
        chances = (priors["posture"], priors["count"], priors["moving"][:, 0], priors["way"][:, 0])
        return Contours(*chances, means[0], nothing, means[1], nothing)

    def _chances(self, name: str, logits: Floats) -> Floats:
        if name not in self.knows:
            return np.broadcast_to(np.asarray(self.about["priors"][name], np.float32), logits.shape)
        if logits.shape[1] == 1:
            return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -30.0, 30.0))), np.float32)
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=1, keepdims=True), np.float32)

    def _outline(self, name: str, shape: Floats) -> Floats:
        return np.asarray(np.clip(self._tensors[f"{name}_mean"] + shape @ self._tensors[f"{name}_basis"], 0.0, LONGEST))

    def _check(self) -> None:
        """Raise CheckpointError where a tensor is missing, of another shape, or not finite."""
        about, found = self.about, {name: value.shape for name, value in self._tensors.items()}
        if set(about) != _FIELDS or about["version"] != CONTOUR_VERSION or not set(about["knows"]) <= set(HEADS):
            raise CheckpointError(f"it says {sorted(about)} of itself, version {about.get('version')}")
        if any(np.shape(about["priors"][name]) != (size,) for name, size in HEADS.items()):
            raise CheckpointError("its priors are of other heads")
        n, releases = int(about["tokens"]) * int(about["width"]), int(about["releases"])
        plane, hidden = found.get("plane", (0, 0))[-1], found.get("bias_0", (0,))[0]
        outlines: dict[str, tuple[int, ...]] = {f"{name}_mean": (RAYS,) for name in ("first", "second")}
        outlines |= {f"{name}_basis": (SHAPES, RAYS) for name in ("first", "second")}
        wanted = outlines | {
            "plane": (n, plane),
            "weight_0": (hidden, releases * (plane + 1) + 1),
            "bias_0": (hidden,),
            "weight_1": (hidden, hidden),
            "bias_1": (hidden,),
            "weight_2": (_OUTPUTS, hidden),
            "bias_2": (_OUTPUTS,),
            "smooth": (SPREADS, RAYS),
        }
        if found != wanted:
            raise CheckpointError(f"tensors {sorted(found.items())}, expected {sorted(wanted.items())}")
        if not all(np.isfinite(value).all() for value in self._tensors.values()):
            raise CheckpointError("a number in it is not finite")


def inputs(
    z: npt.NDArray[Any], present: npt.NDArray[np.bool_], sigma: float, plane: Floats, clip_norm: int, releases: int
) -> Floats:
    """What the network sees, float32 (N, R * (P + 1) + 1): places in the plane, who came, and how strong the noise is.

    Raises:
        ValueError: z or present has another shape.
    """
    count = len(z)
    if (
        z.shape != (count, releases, *z.shape[2:])
        or present.shape != (count, releases)
        or z[:1, :1].size not in (0, len(plane))
    ):
        raise ValueError(f"z {z.shape}, present {present.shape}; expected (N, {releases}, ...) of {len(plane)} numbers")
    there = present.astype(np.float32)
    along = z.reshape(count, releases, -1).astype(np.float32) @ plane / np.hypot(clip_norm, sigma)
    flat = (along * there[..., None]).reshape(count, -1)
    level = np.full((count, 1), strength(sigma, clip_norm, releases), np.float32)
    return np.concatenate((flat, there, level), axis=1).astype(np.float32)


def strength(sigma: float, clip_norm: int, releases: int) -> float:
    """S per event as a share of the largest that is told apart, 0 to 1."""
    return 1.0 if sigma <= 0 else min(1.0, float(clip_norm * np.sqrt(releases) / sigma / _STRONGEST))


def split(outputs: Any) -> dict[str, Any]:
    """The network's outputs (N, ...) by what they say: HEADS, `first`, `first_spread`, `second`, `second_spread`."""
    sizes = {**HEADS, "first": SHAPES, "first_spread": SPREADS, "second": SHAPES, "second_spread": SPREADS}
    found, at = {}, 0
    for name, size in sizes.items():
        found[name] = outputs[:, at : at + size]
        at += size
    return found


def _gelu(x: Floats) -> Floats:
    """The form with tanh, as torch's gelu(approximate="tanh")."""
    return np.asarray(0.5 * x * (1.0 + np.tanh(0.7978845608 * (x + 0.044715 * x**3))), np.float32)


def _parsed(data: bytes) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Tensors and description of a file's bytes."""
    if len(data) > _MOST_BYTES:
        raise ValueError(f"{len(data)} bytes, at most {_MOST_BYTES} are read")
    tensors = load_tensors(data)
    size = int.from_bytes(data[:8], "little")
    about = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["contour"])
    return tensors, dict(about)
