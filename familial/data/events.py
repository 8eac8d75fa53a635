"""What a stream shows, release by release and event by event: labelled clips -> the labels of releases and events.

    LabelledClip (footage, what happens in it) --stream start, slot ends--> labels of releases and of events

A labelled clip is rendered, where every happening is known to the frame, or real, where only the clip's label is
known. Black context, stream starts and the number of releases are drawn without a look at the label, so
that none predicts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from familial.data.clips import Footage
from familial.synth.truth import Truth, unknown
from wire.artifact.manifest import WindowSpec

__all__ = [
    "UNKNOWN",
    "Grid",
    "Happening",
    "LabelledClip",
    "augment",
    "sample_view",
    "event_label",
    "happening_now",
    "release_label",
    "sequence_frames",
]

UNKNOWN = -1  # a span that nobody can name fairly: it is not trained on
_BEFORE_S = 0.5  # a happening that began less than this before the end may not show yet
_SEEN_FALL_S = 0.6
_FIGHT_EVENT_S = 1.0
_FIGHT_RELEASE_S = 0.8
_EVENT_S = 8.0


@dataclass(frozen=True, slots=True)
class Happening:
    """Something with a risk label: index of the label (> 0), start and end in seconds, and whether it leaves a
    body lying."""

    label: int
    start: float
    end: float
    sudden: bool


@dataclass(frozen=True, slots=True)
class LabelledClip:
    """A clip for training. happenings: None where only the clip's label is known; truth: of every frame, where the clip
    is rendered."""

    footage: Footage
    label: int
    caption: str
    set: str
    happenings: tuple[Happening, ...] | None
    truth: Truth | None = None


def event_label(clip: LabelledClip, start: float, ends: Sequence[float], reach: float) -> int:
    """The label of the releases that end at `ends` in a stream from `start`, or UNKNOWN.

    `reach` as in WindowSpec, seconds.
    """
    last = ends[-1]
    seen_from = max(start, ends[0] - reach + 0.5)
    if clip.happenings is None:
        covers = seen_from <= clip.footage.duration / 2 and last >= clip.footage.duration - 0.75
        return clip.label if clip.label == 0 or covers else UNKNOWN
    labels = {_part_of_event(happening, seen_from, last) for happening in clip.happenings}
    labels.discard(0)
    return labels.pop() if len(labels) == 1 else (UNKNOWN if labels else 0)


def _part_of_event(happening: Happening, seen_from: float, last: float) -> int:
    if happening.start > last + 0.2:
        return 0
    if happening.sudden:
        shows = max(last - _EVENT_S, seen_from) <= happening.start <= last - _BEFORE_S
        return happening.label if shows else UNKNOWN
    overlap = min(happening.end, last) - max(happening.start, seen_from, last - _EVENT_S)
    if overlap >= _FIGHT_EVENT_S:
        return happening.label
    return 0 if happening.end < seen_from - 0.5 else UNKNOWN


def release_label(clip: LabelledClip, start: float, end: float, reach: float) -> int:
    """The label of one release that ends at `end` in a stream from `start`, or UNKNOWN."""
    if clip.happenings is None:
        seen = min(end, clip.footage.duration) - max(start, end - reach)
        return clip.label if clip.label == 0 or (clip.label != 1 and seen >= _FIGHT_RELEASE_S) else UNKNOWN
    seen_from = max(start, end - reach + 0.5)
    labels = set()
    for happening in clip.happenings:
        if happening.start > end:
            continue
        overlap = min(happening.end, end) - max(happening.start, seen_from)
        began = seen_from <= happening.start <= end - _SEEN_FALL_S
        shows = began if happening.sudden else overlap >= _FIGHT_RELEASE_S
        gone = not happening.sudden and happening.end < seen_from - 0.5
        labels.add(happening.label if shows else (0 if gone else UNKNOWN))
    labels.discard(0)
    return labels.pop() if len(labels) == 1 else (UNKNOWN if labels else 0)


def happening_now(
    clip: LabelledClip, times: npt.NDArray[np.float64], shown: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """The label of what happens at each of `times` (T,), seconds of the clip's clock, seen in the second before.

    UNKNOWN where nobody can say and where no frame is `shown`, bool (T,).
    """
    now = np.where(shown, 0 if clip.label == 0 or clip.happenings is not None else UNKNOWN, UNKNOWN)
    for happening in clip.happenings or ():
        # whoever lies does not fall any more
        end = min(happening.end, happening.start + 2.0) if happening.sudden else happening.end
        since, until = times - happening.start, times - end
        now[shown & (since > 0.0) & (until < 0.8)] = UNKNOWN
        now[shown & (since >= 0.35) & (until <= 0.4)] = happening.label
    return now.astype(np.int64)


_GRAIN = np.random.default_rng(7).normal(0.0, 1.0, 1 << 20).astype(np.float32)


def sample_view(height: int, width: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Where the pixels of a frame go, (2, 3) as OpenCV's warpAffine takes it: mirror, crop up to 25 %, shift, zoom."""
    scale_x, scale_y = 1.0 / rng.uniform(0.75, 1.06), 1.0 / rng.uniform(0.75, 1.06)
    span_x, span_y = width * (1 - scale_x), height * (1 - scale_y)
    shift_x = span_x * rng.uniform(0, 1) + rng.uniform(-2, 2)
    shift_y = span_y * rng.uniform(0, 1) + rng.uniform(-2, 2)
    matrix = np.array([[scale_x, 0, shift_x], [0, scale_y, shift_y]])
    if rng.random() < 0.5:
        matrix[0] = [-scale_x, 0, width - 1 - shift_x]
    return matrix


def augment(
    frames: npt.NDArray[np.uint8], view: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Small frames u8 (N, H, W) of one stream, all changed alike: `view`, tone. Grain per frame."""
    height, width = frames.shape[1:]
    levels = np.linspace(0, 1, 256) ** rng.uniform(0.6, 1.6)
    levels = np.clip(levels * rng.uniform(0.6, 1.3) + rng.uniform(-0.02, 0.1), 0.02, 1) * 255
    table = levels.astype(np.uint8)
    grain = float(rng.uniform(0, 4)) if rng.random() < 0.5 else 0.0
    out = np.empty_like(frames)
    for index, frame in enumerate(frames):
        moved = cv2.warpAffine(frame, view, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        toned = cv2.LUT(moved, table)
        if grain:
            offset = int(rng.integers(0, len(_GRAIN) - height * width))
            noise = _GRAIN[offset : offset + height * width].reshape(height, width)
            toned = np.clip(toned + grain * noise, 1, 255).astype(np.uint8)
        out[index] = toned
    return out


@dataclass(frozen=True, slots=True)
class Grid:
    """The instants of a sequence of consecutive slots, each once: windows of neighbouring slots share most of them.

    before_s: seconds before the end of the last slot, float64 (T,), oldest first; index: int64 (slots, F), where each
    window's frames lie among them.
    """

    before_s: npt.NDArray[np.float64]
    index: npt.NDArray[np.int64]

    @classmethod
    def of(cls, spec: WindowSpec, slots: int) -> Grid:
        """The grid of `slots` consecutive slots."""
        last = spec.slot_s * np.arange(slots - 1, -1, -1)[:, None] + np.asarray(spec.offsets_s)  # (slots, F)
        instants, index = np.unique(-np.round(last, 6), return_inverse=True)
        return cls(-instants, index.reshape(last.shape).astype(np.int64))


def sequence_frames(
    clip: LabelledClip, start: float, last: float, grid: Grid, spec: WindowSpec, rng: np.random.Generator | None
) -> tuple[npt.NDArray[np.uint8], Truth]:
    """Frames u8 (T, H, W) at the instants of `grid` of a stream from `start` whose last slot ends at `last`, and what
    is known of them.

    Black where there is none. With `rng`, frames are dropped and changed at random.
    """
    times, index = clip.footage.times, np.flatnonzero(clip.footage.times >= start - 1e-6)
    if rng is not None and rng.random() < 0.3:
        kept = index[rng.random(len(index)) > rng.uniform(0.05, 0.4)]
        index = kept if len(kept) else index
    picked = spec.held(times[index], last - grid.before_s)
    made = np.zeros((len(picked), spec.height, spec.width), np.uint8)
    there = picked >= 0
    if there.any():
        used, places = np.unique(index[picked[there]], return_inverse=True)
        frames = np.ascontiguousarray(clip.footage.frames[used])
        view = None if rng is None else sample_view(spec.height, spec.width, rng)
        made[there] = (frames if rng is None or view is None else augment(frames, view, rng))[places.reshape(-1)]
        if clip.truth is not None:
            known = clip.truth.at(np.where(there, index[picked], -1))
            return made, known if view is None else known.moved(view, spec.height, spec.width)
    return made, unknown(len(made))
