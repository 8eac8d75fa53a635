"""Cameras for the OOD detector, known or not: a few clips of each, as clean codes in the plane of the class prototypes.

Codes are for noise to be added to; they stay in this process.

    seed --rendered_footage, five ordinary kinds, a fall, a fight--> clips of one room, by one camera
    manifest --clips labelled as no risk, five neighbours of a set at a time--> clips that represent one camera
    clips --clip_codes--> (S, K, d) --in_plane--> complex (S,)
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from familial.data.clips import Footage, read_manifests
from familial.data.splits import clip_seeds
from familial.evaluate.clip_inference import clip_codes, sigma_of
from familial.evaluate.footage import family_footage, rendered_footage
from familial.evaluate.ood_detector import Camera, in_plane
from familial.model import checkpoint
from familial.model.desensitizer import code_plane
from familial.model.family import Family
from familial.synth.actions.catalogue import draw_kind
from wire.errors import CheckpointError, DataError

__all__ = ["Room", "Source"]

_CLIPS = 5  # of one camera
_SIZE, _FPS = (120, 160), 12.0


@dataclass(frozen=True, slots=True)
class Room:
    """A rendered room: clips in which nothing happens, and clips of a fall and of a fight."""

    ordinary: Camera
    risks: Camera


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint that turns clips into codes.

    Attributes:
        family: the model.
        checkpoint: hash of the weights.
        sigmas: of its profile, then of its other noise levels, in lattice units.
        directions: (n, 2), of the plane of the class prototypes.
    """

    family: Family
    checkpoint: str
    sigmas: tuple[Fraction, ...]
    directions: npt.NDArray[np.float64]

    @classmethod
    def open(cls, folder: Path) -> Source:
        """Load a checkpoint.

        Raises:
            CheckpointError: it or its noise.json is damaged.
        """
        family = checkpoint.load(folder)
        own, levels = sigma_of(folder, family, None)[1], list[Fraction]()
        if (folder / "noise.json").is_file():
            try:
                found = json.loads((folder / "noise.json").read_text()).get("levels", {})
                levels = [Fraction(sigma) for sigma in found.values()]
            except (ValueError, AttributeError, TypeError) as error:
                raise CheckpointError(f"{folder}/noise.json: {error!r}; write it with calibration.noise") from error
        config = family.config
        plane = code_plane(config.tokens, config.width).flatten(0, 1).double().numpy()
        return cls(family, checkpoint.checkpoint_hash(folder), (own, *levels), plane)

    @property
    def clip_norm(self) -> int:
        """C."""
        return self.family.config.clip_norm

    def rendered(self, count: int) -> list[Room]:
        """Render `count` rooms that no training sees."""
        return list(_with_progress(map(self._room, clip_seeds("ood_reference", count)), count))

    def sets(self, data: Sequence[Path], names: Sequence[str] = ()) -> dict[str, list[Camera]]:
        """Return set -> cameras, of the manifests' clips of no risk.

        Neighbours of a set, by group and name, five at a time, represent one camera.

        Args:
            data: manifests.
            names: of the sets to be read; none: all.

        Raises:
            DataError: no such set.
        """
        labels = self.family.config.labels
        clips = [clip for clip in (read_manifests(data, labels) if data else []) if clip.label == labels[0]]
        known = sorted({clip.set for clip in clips})
        absent = [name for name in names if name not in known]
        if absent:
            raise DataError(f"no clips of no risk in set {', '.join(absent)}; there are {', '.join(known)}")
        found = dict[str, list[Camera]]()
        for name in names or known:
            rows = sorted((clip for clip in clips if clip.set == name), key=lambda clip: (clip.group, clip.name))
            codes = [self._codes(family_footage(row.file, self.family.config)) for row in rows]
            whole = max(1, len(codes) // _CLIPS)  # the last takes what is left over
            ends = [*range(_CLIPS, whole * _CLIPS, _CLIPS), len(codes)]
            found[name] = [codes[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        return found

    def _room(self, seed: int) -> Room:
        rng = np.random.default_rng([seed, 1])
        labels = ("normal",) * _CLIPS + ("fall", "fight")
        clips = [self._rendered(seed, draw_kind(rng, label)) for label in labels]
        return Room(clips[:_CLIPS], clips[_CLIPS:])

    def _rendered(self, seed: int, kind: str) -> npt.NDArray[np.complex128]:
        return self._codes(rendered_footage(seed, kind, self.family.config, size=_SIZE, fps=_FPS)[0])

    def _codes(self, footage: Footage) -> npt.NDArray[np.complex128]:
        """Return the codes complex (S,) of the releases during which the clip plays."""
        playing = max(1, math.ceil(footage.duration / self.family.config.window.slot_s))
        codes = clip_codes(self.family, footage)[:playing]
        return in_plane(codes.numpy(), self.directions, self.clip_norm)


def _with_progress(rooms: Iterator[Room], count: int) -> Iterator[Room]:
    for number, room in enumerate(rooms, 1):
        if sys.stderr.isatty():
            print(f"\r{number}/{count}", end="" if number < count else "\n", file=sys.stderr, flush=True)
        yield room
