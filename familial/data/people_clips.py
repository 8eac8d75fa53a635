"""Clips of which only the people are known, as training data of their own kind: thousands in minutes, without a frame.

    seed --people_clip--> exact people, annotations, truth (cached) --detect--> LabelledClip with people, no frames

What the person network gets wrong is drawn when a clip is read, not stored: `with_new_errors` draws it again.
"""

from __future__ import annotations

import io
import json
import multiprocessing
from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from familial.data.clips import CACHE, Footage
from familial.data.events import Annotation, LabelledClip
from familial.data.labels import SUDDEN
from familial.synth.actions.catalogue import draw_among
from familial.synth.detector_errors import DETECTOR_VERSION, POOREST, RATES, detect, draw_close_framing
from familial.synth.exact_people import EXACT_VERSION, ExactPeople, Framing
from familial.synth.people_clip import people_clip
from familial.synth.truth import CELLS, POSE, Truth, truth_of
from familial.synth.version import RENDERER_VERSION
from wire.artifact.manifest import WindowSpec
from wire.files import write_whole

__all__ = ["PEOPLE_FPS", "exact_bytes", "people_clips", "read_exact", "with_new_errors"]

PEOPLE_FPS = 12.0
_NEAR, _POOREST = 0.35, 0.2  # how often people without a picture are seen from near, and by how many cameras so poor
_KIND = 3  # the stream of random numbers that draws what a clip shows
_ARRAYS = ("points", "visible", "length", "times_s", "shown", "sides", "window", "night")


def people_clips(
    seeds: Sequence[int],
    labels: Sequence[str],
    spec: WindowSpec,
    processes: int = 2,
    kinds: Sequence[str] = (),
    seconds: float | None = None,
) -> Generator[LabelledClip]:
    """The people of rendered clips, made or read from the cache.

    Args:
        seeds: one a clip; take them from `familial.data.splits`.
        labels: the family's; the renderer's labels have to be among them.
        spec: the frame size.
        processes: how many make what is not in the cache yet.
        kinds: what the clips show, each one of these (`catalogue.draw_among`); empty: whatever their seeds draw.
        seconds: their length; None: drawn.

    Yields:
        The clips in the order of `seeds`: no frames, uint8 (0, H, W), their times all the same; people with errors that
        depend on the seed alone; `exact` for others.
    """
    folder = CACHE / f"people-clips-{RENDERER_VERSION}-{EXACT_VERSION}-{CELLS}-{len(POSE)}"
    make = partial(_made, folder=folder, kinds=tuple(kinds), seconds=seconds)
    if processes < 2:
        yield from (_read(make(seed), labels, spec) for seed in seeds)
        return
    with multiprocessing.get_context("spawn").Pool(processes, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from (_read(stored, labels, spec) for stored in pool.imap(make, seeds, chunksize=16))


def with_new_errors(clip: LabelledClip, rng: np.random.Generator) -> LabelledClip:
    """The clip as the person network would give it another time; as it is where nothing exact is known.

    Args:
        clip: of `people_clips` or `sources.rendered_clips`.
        rng: draws the framing and the errors; a clip with frames keeps the framing that they have.
    """
    if clip.exact is None:
        return clip
    if len(clip.footage.frames):
        people = detect(clip.exact, rng, clip.exact.whole())
    else:
        framing = _near(clip.exact, clip.annotations or (), rng)
        people = detect(clip.exact, rng, framing, POOREST if rng.random() < _POOREST else RATES)
    return replace(clip, footage=replace(clip.footage, people=people, people_times=clip.exact.times_s))


def _near(exact: ExactPeople, notes: Sequence[Annotation], rng: np.random.Generator) -> Framing | None:
    """A view from near, of what the clip is about where it is about anything; None where another is to be drawn."""
    if not exact.points.shape[1] or rng.random() >= _NEAR:
        return None
    starts = [each.start for each in notes] or exact.times_s.tolist()
    return draw_close_framing(exact, rng, starts[int(rng.integers(len(starts)))])


def exact_bytes(people: ExactPeople) -> bytes:
    """Exact people as the bytes of an .npz."""
    out = io.BytesIO()
    arrays: dict[str, Any] = {name: np.asarray(getattr(people, name)) for name in _ARRAYS}
    np.savez(out, **arrays)
    return out.getvalue()


def read_exact(path: Path) -> ExactPeople:
    """What `exact_bytes` wrote to `path`."""
    with np.load(path) as known:
        found = {name: known[name] for name in _ARRAYS}
    height, width = found.pop("sides").tolist()
    top, left, bottom, right = found.pop("window").tolist()
    night = bool(found.pop("night"))
    return ExactPeople(sides=(height, width), window=(top, left, bottom, right), night=night, **found)


def _made(seed: int, folder: Path, kinds: Sequence[str], seconds: float | None = None) -> Path:
    """The cached clip of `seed`, of one of `kinds` where there are any; made where it is not there yet."""
    kind = draw_among(np.random.default_rng([seed, _KIND]), kinds) if kinds else None
    parts = [str(seed), *([kind] if kind else []), *([f"{seconds:g}s"] if seconds else [])]
    stored = folder / f"{seed % 1000:03d}" / f"{'-'.join(parts)}.npz"
    if stored.is_file():
        return stored
    made = people_clip(seed, kind, fps=PEOPLE_FPS, seconds=seconds)
    clip, truth, cells = made.clip, truth_of(made.clip), io.BytesIO()
    events = [(each.label, each.start_s, each.end_s) for each in clip.annotations]
    known = {"label": clip.label, "caption": clip.caption, "annotations": events}
    known |= {name: getattr(truth, name).tolist() for name in ("count", "tags", "pose")}
    stored.parent.mkdir(parents=True, exist_ok=True)
    write_whole(stored.with_suffix(".json"), json.dumps(known).encode())
    np.save(cells, truth.people)
    write_whole(stored.with_suffix(".npy"), cells.getvalue())
    write_whole(stored, exact_bytes(made.people))  # last: its being there says that the clip is whole
    return stored


def _read(stored: Path, labels: Sequence[str], spec: WindowSpec) -> LabelledClip:
    about, exact = json.loads(stored.with_suffix(".json").read_text()), read_exact(stored)
    annotations = tuple(
        Annotation(labels.index(label), float(start), float(end), label in SUDDEN)
        for label, start, end in about["annotations"]
        if label != labels[0]
    )
    cells = np.load(stored.with_suffix(".npy"), mmap_mode="r")
    truth = Truth(
        np.asarray(about["count"], np.int8),
        np.asarray(about["tags"], np.int8),
        np.asarray(about["pose"], np.float16),
        cells,
    )
    frames = np.zeros((0, spec.height, spec.width), np.uint8)
    footage = Footage(frames, exact.times_s, float(exact.times_s[-1]) + 1.0 / PEOPLE_FPS)
    clip = LabelledClip(footage, labels.index(about["label"]), about["caption"], "rendered", annotations, truth, exact)
    return with_new_errors(clip, np.random.default_rng([DETECTOR_VERSION, int(stored.stem.split("-")[0])]))
