"""What a stream shows, release by release and event by event: labelled clips -> the labels of releases and events.

    LabelledClip (footage, what happens in it) --stream start, slot ends--> labels of releases and of events

A labelled clip is rendered, and then annotated to the frame, or real, where often only the clip's label is known. Black
context, stream starts and the number of releases are drawn without regard to the label, so none of them predicts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from familial.data.clips import Footage
from familial.synth.exact_people import ExactPeople
from familial.synth.truth import Truth, unknown
from wire.artifact.manifest import WindowSpec

__all__ = [
    "UNKNOWN",
    "Annotation",
    "Grid",
    "LabelledClip",
    "augment",
    "sample_view",
    "event_label",
    "labels_now",
    "release_label",
    "sequence_frames",
]

UNKNOWN = -1
"""The label of a span that cannot be labelled fairly; it is not trained on."""

_BEFORE_S = 0.5  # what began less than this before the end may not show yet
_SEEN_FALL_S = 0.6
_FIGHT_EVENT_S = 1.0
_FIGHT_RELEASE_S = 0.8
_EVENT_S = 8.0


@dataclass(frozen=True, slots=True)
class Annotation:
    """A risk in a clip, and when it happens.

    Attributes:
        label: index of its label, above 0.
        start: seconds of the clip's clock.
        end: seconds of the clip's clock.
        sudden: over in a moment, after which a body lies.
    """

    label: int
    start: float
    end: float
    sudden: bool


@dataclass(frozen=True, slots=True)
class LabelledClip:
    """A clip for training.

    Attributes:
        footage: its frames.
        label: index of the clip's label.
        caption: its sentence.
        set: the data set it comes from.
        annotations: every risk in it; None where only the clip's label is known.
        truth: what is known of every frame; None where the clip is real.
        exact: where people are at `footage.people_times`, before the person network's errors; None where the clip is
            real. `people_clips.with_new_errors` draws the errors anew.
    """

    footage: Footage
    label: int
    caption: str
    set: str
    annotations: tuple[Annotation, ...] | None
    truth: Truth | None = None
    exact: ExactPeople | None = None


def event_label(clip: LabelledClip, start: float, ends: Sequence[float], receptive_field_s: float) -> int:
    """The label of one event of a clip.

    Args:
        clip: what is played.
        start: where the stream begins, seconds of the clip's clock.
        ends: when the event's releases end, seconds of the clip's clock.
        receptive_field_s: how far back one release sees, seconds.

    Returns:
        Index of the label, or UNKNOWN.
    """
    last = ends[-1]
    seen_from = max(start, ends[0] - receptive_field_s + 0.5)
    if clip.annotations is None:
        covers = seen_from <= clip.footage.duration / 2 and last >= clip.footage.duration - 0.75
        return clip.label if clip.label == 0 or covers else UNKNOWN
    labels = {_part_of_event(annotation, seen_from, last) for annotation in clip.annotations}
    labels.discard(0)
    return labels.pop() if len(labels) == 1 else (UNKNOWN if labels else 0)


def _part_of_event(annotation: Annotation, seen_from: float, last: float) -> int:
    if annotation.start > last + 0.2:
        return 0
    if annotation.sudden:
        shows = max(last - _EVENT_S, seen_from) <= annotation.start <= last - _BEFORE_S
        return annotation.label if shows else UNKNOWN
    overlap = min(annotation.end, last) - max(annotation.start, seen_from, last - _EVENT_S)
    if overlap >= _FIGHT_EVENT_S:
        return annotation.label
    return 0 if annotation.end < seen_from - 0.5 else UNKNOWN


def release_label(clip: LabelledClip, start: float, end: float, receptive_field_s: float) -> int:
    """The label of the one release that ends at `end`, or UNKNOWN; arguments as in `event_label`."""
    if clip.annotations is None:
        seen = min(end, clip.footage.duration) - max(start, end - receptive_field_s)
        return clip.label if clip.label == 0 or (clip.label != 1 and seen >= _FIGHT_RELEASE_S) else UNKNOWN
    seen_from = max(start, end - receptive_field_s + 0.5)
    labels = set()
    for annotation in clip.annotations:
        if annotation.start > end:
            continue
        overlap = min(annotation.end, end) - max(annotation.start, seen_from)
        began = seen_from <= annotation.start <= end - _SEEN_FALL_S
        shows = began if annotation.sudden else overlap >= _FIGHT_RELEASE_S
        gone = not annotation.sudden and annotation.end < seen_from - 0.5
        labels.add(annotation.label if shows else (0 if gone else UNKNOWN))
    labels.discard(0)
    return labels.pop() if len(labels) == 1 else (UNKNOWN if labels else 0)


def labels_now(
    clip: LabelledClip, times: npt.NDArray[np.float64], shown: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """The label of what happens at each instant, as the second before it shows it.

    Args:
        clip: what is played.
        times: float64 (T,), seconds of the clip's clock.
        shown: bool (T,), whether there is a frame.

    Returns:
        int64 (T,), indices of labels; UNKNOWN where there is no frame and where the label is unclear.
    """
    now = np.where(shown, 0 if clip.label == 0 or clip.annotations is not None else UNKNOWN, UNKNOWN)
    for annotation in clip.annotations or ():
        # somebody who lies does not fall any more
        end = min(annotation.end, annotation.start + 2.0) if annotation.sudden else annotation.end
        since, until = times - annotation.start, times - end
        now[shown & (since > 0.0) & (until < 0.8)] = UNKNOWN
        now[shown & (since >= 0.35) & (until <= 0.4)] = annotation.label
    return now.astype(np.int64)


_GRAIN = np.random.default_rng(7).normal(0.0, 1.0, 1 << 20).astype(np.float32)


def sample_view(height: int, width: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw a random view (mirror, crop up to 25 %, shift, zoom) as the (2, 3) matrix of OpenCV's warpAffine."""
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
    """Change small frames u8 (N, H, W) of one stream: all by the same `view` and tone, each by grain of its own."""
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

    Attributes:
        before_s: float64 (T,), seconds before the end of the last slot, oldest first.
        index: int64 (slots, F), the place of each window's frames among the T instants.
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
) -> tuple[npt.NDArray[np.uint8], Truth, npt.NDArray[np.float64] | None]:
    """The frames of one sequence, as a window would pick them.

    Args:
        clip: what is played.
        start: where the stream begins, seconds of the clip's clock; nothing before it is seen.
        last: when the last slot ends, seconds of the clip's clock.
        grid: the instants.
        spec: of the windows.
        rng: drops frames and changes them at random; None leaves them as they are.

    Returns:
        Frames u8 (T, H, W), black where there is none; what is known of each; and the view (2, 3) that was drawn. A
        clip of people alone has no frames: all are black.
    """
    times, index = clip.footage.times, np.flatnonzero(clip.footage.times >= start - 1e-6)
    if rng is not None and rng.random() < 0.3:
        kept = index[rng.random(len(index)) > rng.uniform(0.05, 0.4)]
        index = kept if len(kept) else index
    picked = spec.held(times[index], last - grid.before_s)
    made = np.zeros((len(picked), spec.height, spec.width), np.uint8)
    there = picked >= 0
    view = None if rng is None else sample_view(spec.height, spec.width, rng)
    if there.any() and len(clip.footage.frames):
        used, places = np.unique(index[picked[there]], return_inverse=True)
        frames = np.ascontiguousarray(clip.footage.frames[used])
        made[there] = (frames if rng is None or view is None else augment(frames, view, rng))[places.reshape(-1)]
    if there.any() and clip.truth is not None:
        known = clip.truth.at(np.where(there, index[picked], -1))
        return made, known if view is None else known.moved(view, spec.height, spec.width), view
    return made, unknown(len(made)), view
