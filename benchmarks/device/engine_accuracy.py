"""Accuracy of both members behind each of several engines, on the same clips and under the same noise.

clips --windows--> encode of each engine --> codes --+ the same noise samples--> verdicts --> points lost
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

    from edge_runtime.eye.engine.base import Engine
    from edge_runtime.reader.member import EdgeMember
    from familial.model.family import Family

__all__ = ["EDGE_SAMPLES", "EngineRow", "WindowedClip", "compare", "read_windows"]

EDGE_SAMPLES = 20
"""Noise samples a clip for the edge member, which runs in the engine itself, one event at a time."""


@dataclass(slots=True)
class EngineRow:
    """One engine, and what was found out about it."""

    precision: str
    folder: Path
    build_s: float
    engine: Engine
    member: EdgeMember
    backend: str = "onnxruntime"
    latency: dict[str, list[float]] = field(default_factory=lambda: {"encode": [], "decide": []})
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As the table names it."""
        return f"{self.backend} {self.precision}"


@dataclass(frozen=True, slots=True)
class WindowedClip:
    """A clip as windows, the inputs of `encode`; its label's index and its set."""

    windows: Sequence[Mapping[str, npt.NDArray[Any]]]
    label: int
    set: str


class _Members:
    """Both members under the names that `familial.evaluate` asks for: the edge's runs in an engine."""

    def __init__(self, family: Family, member: EdgeMember) -> None:
        self.config, self.cloud_logits, self._member = family.config, family.cloud_logits, member

    def edge_logits(self, z: Tensor, present: Tensor) -> Tensor:
        """z float (B, R, K, d), whole numbers, present bool (B, R) -> label logits (B, L), event by event."""
        import torch

        events = z.numpy().clip(-32768, 32767).astype(np.int32)
        there = present.numpy()
        rows = [self._member.logits(events[i : i + 1], there[i : i + 1]) for i in range(len(events))]
        return torch.from_numpy(np.concatenate(rows))


def read_windows(checkpoint: Path, data: Sequence[Path], rendered: int) -> list[WindowedClip]:
    """The scored clips of the manifests `data`, then as many rendered ones, cut into windows."""
    from familial.data.clips import UNSCORED, Footage, read_clip, read_manifests, slots
    from familial.data.feeds import Feed, encode_feeds
    from familial.data.people import PERCEIVE
    from familial.data.sources import rendered_clips
    from familial.data.splits import clip_seeds
    from familial.model.config import FamilyConfig
    from familial.model.towers.registry import tower_class

    config = FamilyConfig.load(checkpoint / "config.json")
    spec, labels, sees = config.window, config.labels, tower_class(config.tower).sees_people
    perceive = PERCEIVE if sees else None

    def cut(footage: Footage) -> list[Feed]:
        ends = [spec.slot_s * (slot + 1) for slot in range(slots(footage.duration, spec))]
        return encode_feeds(footage, ends, spec, sees)

    listed = [clip for clip in (read_manifests(data, labels) if data else []) if clip.label != UNSCORED]
    read = (read_clip(clip.file, spec, perceive=perceive) for clip in listed)
    found = [
        WindowedClip(cut(footage), labels.index(clip.label), clip.set)
        for clip, footage in zip(listed, read, strict=True)
    ]
    clips = rendered_clips(clip_seeds("engines", rendered), labels, spec, processes=1) if rendered else ()
    return found + [WindowedClip(cut(clip.footage), clip.label, clip.set) for clip in clips]


def compare(rows: Sequence[EngineRow], checkpoint: Path, clips: Sequence[WindowedClip], samples: int) -> None:
    """Write into each row's `found` the accuracy of both members behind its engine, and how its codes differ.

    The first row is the reference. `samples` noise samples of each clip are the same for every engine.
    """
    import torch

    from familial.evaluate.clip_inference import clip_verdict, event_probabilities
    from familial.model import checkpoint as folder
    from familial.model.code_space import rounded_gaussian

    family = folder.load(checkpoint)
    sigma, threshold = float(rows[0].engine.manifest.sigma), family.config.decision_threshold
    correct: dict[tuple[str, str], list[list[bool]]] = {}
    codes: dict[str, list[npt.NDArray[np.int32]]] = {row.name: [] for row in rows}
    torch.manual_seed(0)
    for clip in clips:
        noise = None
        for row in rows:
            mu = _encode(row.engine, clip.windows)
            codes[row.name].append(mu)
            clean = torch.from_numpy(mu).float()[None]
            if noise is None:
                noise = rounded_gaussian(clean.expand(samples, *clean.shape[1:]), sigma)
            members = cast("Family", _Members(family, row.member))
            for member, count in (("cloud", samples), ("edge", min(samples, EDGE_SAMPLES))):
                read = event_probabilities(members, clean + noise[:count], member)
                hits = [clip_verdict(events, threshold)[0] == clip.label for events in read]
                correct.setdefault((row.name, member), []).append(hits)
    for row in rows:
        row.found |= _apart(codes[row.name], codes[rows[0].name], sigma)
        for member in ("edge", "cloud"):
            row.found |= _points_lost(member, correct[row.name, member], correct[rows[0].name, member])


def _points_lost(
    member: str, correct: Sequence[Sequence[bool]], reference: Sequence[Sequence[bool]]
) -> dict[str, float]:
    """Accuracy of a member by what it got right (clips, samples), and points lost to the reference, clip by clip."""
    this, fp32 = (np.array(each).mean(axis=1) for each in (correct, reference))
    lost = 100 * (fp32 - this)
    return {
        f"accuracy_{member}": round(float(this.mean()), 4),
        f"points_lost_{member}": round(float(lost.mean()), 3),
        f"points_lost_{member}_se": round(float(lost.std() / max(1, len(lost)) ** 0.5), 3),
    }


def _encode(engine: Engine, windows: Sequence[Mapping[str, npt.NDArray[Any]]]) -> npt.NDArray[np.int32]:
    return np.concatenate([engine.run_encode(**window) for window in windows])


def _apart(
    codes: Sequence[npt.NDArray[np.int32]], exact: Sequence[npt.NDArray[np.int32]], sigma: float
) -> dict[str, float]:
    """How far the codes of an engine are from fp32's, in lattice units, and how many of them are zero."""
    ours, theirs = (np.concatenate(part).astype(np.float64) for part in (codes, exact))
    apart = np.abs(ours - theirs)
    norms = np.sqrt((apart**2).sum(axis=(1, 2)))
    lengths = np.sqrt((ours**2).sum(axis=(1, 2)) * (theirs**2).sum(axis=(1, 2)))
    return {
        "windows": len(ours),
        "mu_p50": float(np.percentile(apart, 50)),
        "mu_p99": float(np.percentile(apart, 99)),
        "mu_norm_p99_in_sigma": round(float(np.percentile(norms, 99)) / sigma, 4),
        "mu_cosine_mean": round(float(((ours * theirs).sum(axis=(1, 2)) / np.maximum(lengths, 1e-9)).mean()), 5),
        "mu_norm_max": round(float(np.sqrt((ours**2).sum(axis=(1, 2))).max()), 3),
        "zero_codes": int((ours == 0).all(axis=(1, 2)).sum()),
    }
