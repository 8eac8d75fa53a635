"""Labelled clips for training, from two sources; their small grey frames are cached under build/cache.

seed --render_clip--> frames, people, annotations and truth known to the frame     `rendered_clips`
manifest row --OpenCV--> frames, the clip's label, an onset perhaps                `manifest_clips`
"""

from __future__ import annotations

import io
import json
import multiprocessing
from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from familial.data.clips import CACHE, FRAMES_VERSION, UNSCORED, Clip, Footage, fill_cache, read_clip, small_grey
from familial.data.events import Annotation, LabelledClip
from familial.data.labels import SUDDEN, plain_caption
from familial.data.people_clips import exact_bytes, read_exact, with_new_errors
from familial.synth.clip import render_clip
from familial.synth.detector_errors import DETECTOR_VERSION
from familial.synth.exact_people import EXACT_VERSION
from familial.synth.people_clip import people_clip
from familial.synth.truth import CELLS, POSE, Truth, truth_of
from familial.synth.version import RENDERER_VERSION
from wire.artifact.manifest import WindowSpec
from wire.files import write_whole

__all__ = ["manifest_clips", "rendered_clips"]

_RENDER_SIZE, _RENDER_FPS = (120, 160), 12.0
_MOST_FPS = 12.5


def manifest_clips(
    clips: Sequence[Clip],
    labels: Sequence[str],
    spec: WindowSpec,
    processes: int = 1,
    perceive: Path | None = None,
) -> list[LabelledClip]:
    """Decode the clips of a manifest; rows labelled `uncertain` are left out.

    Args:
        clips: rows, as `read_manifests` gives them. What happens when is known where a row has an onset.
        labels: the family's; a clip's label becomes its index in them.
        spec: the frame size.
        processes: how many read clips that are not in the cache yet.
        perceive: graph of the person network; None: people are not looked for.

    Returns:
        The clips with at most `_MOST_FPS` frames a second and the plain caption of their label.
    """
    found, kept = [], [clip for clip in clips if clip.label != UNSCORED]
    fill_cache([clip.file for clip in kept], spec, perceive=perceive, processes=processes)
    for clip in kept:
        label, footage = labels.index(clip.label), _thinned(read_clip(clip.file, spec, perceive=perceive))
        known = None
        if clip.onset_s is not None:
            known = (Annotation(label, clip.onset_s, footage.duration, clip.label in SUDDEN),)
        found.append(LabelledClip(footage, label, plain_caption(clip.label), clip.set, known))
    return found


def _thinned(footage: Footage) -> Footage:
    """At most `_MOST_FPS` frames a second: more would need memory, and windows hardly use them."""
    kept, last = [], -1.0
    for index, time in enumerate(footage.times):
        if index == 0 or time - last >= 1.0 / _MOST_FPS - 1e-6:
            kept.append(index)
            last = float(time)
    return replace(footage, frames=footage.frames[kept], times=footage.times[kept])


def rendered_clips(
    seeds: Sequence[int], labels: Sequence[str], spec: WindowSpec, processes: int = 2
) -> Generator[LabelledClip]:
    """Render clips, or map them from the cache.

    Args:
        seeds: one a clip; take them from `familial.data.splits`.
        labels: the family's; the renderer's labels have to be among them.
        spec: the frame size.
        processes: how many render what is not in the cache yet.

    Yields:
        The clips in the order of `seeds`. Their frames are mapped from the file, not held in memory. Their people have
        errors that depend on the seed alone; `people_clips.with_new_errors` draws others.
    """
    make = partial(_rendered, spec=spec, folder=CACHE / f"rendered-{_cache_key(spec)}")
    if processes < 2:
        yield from (_read(make(seed), labels) for seed in seeds)
        return
    with multiprocessing.get_context("spawn").Pool(processes, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from (_read(stored, labels) for stored in pool.imap(make, seeds, chunksize=4))


def _cache_key(spec: WindowSpec) -> str:
    """What cached clips depend on besides their seed: versions and sizes, readable in the folder's name."""
    size = f"{spec.width}x{spec.height}-of-{_RENDER_SIZE[1]}x{_RENDER_SIZE[0]}-at-{_RENDER_FPS:g}"
    return f"{RENDERER_VERSION}-frames-{FRAMES_VERSION}-{size}-truth-{CELLS}-{len(POSE)}"


def _rendered(seed: int, spec: WindowSpec, folder: Path) -> Path:
    """The cached clip of `seed`, rendered where it is not there yet."""
    stored = folder / f"{seed}.npy"
    if not _exact_of(stored).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(_exact_of(stored), exact_bytes(people_clip(seed, size=_RENDER_SIZE, fps=_RENDER_FPS).people))
    if stored.is_file():
        return stored
    clip = render_clip(seed, size=_RENDER_SIZE, fps=_RENDER_FPS)
    events = [(each.label, each.start_s, each.end_s) for each in clip.annotations]
    about = {"label": clip.label, "caption": clip.caption, "annotations": events, "times": clip.times_s.tolist()}
    write_whole(stored.with_suffix(".json"), json.dumps(about).encode())
    known, frames = io.BytesIO(), io.BytesIO()
    truth = truth_of(clip)
    np.savez(known, count=truth.count, tags=truth.tags, pose=truth.pose, people=truth.people)
    write_whole(stored.with_suffix(".npz"), known.getvalue())
    np.save(frames, np.stack([small_grey(frame, spec) for frame in clip.frames]))
    write_whole(stored, frames.getvalue())  # last: its being there says that the clip is whole
    return stored


def _exact_of(stored: Path) -> Path:
    """Where the exact people of a cached clip are: apart, since they have a version of their own."""
    return stored.with_suffix(f".exact-{EXACT_VERSION}.npz")


def _read(stored: Path, labels: Sequence[str]) -> LabelledClip:
    about = json.loads(stored.with_suffix(".json").read_text())
    frames, times = np.load(stored, mmap_mode="r"), np.asarray(about["times"])
    annotations = tuple(
        Annotation(labels.index(label), float(start), float(end), label in SUDDEN)
        for label, start, end in about["annotations"]
        if label != labels[0]
    )
    footage = Footage(frames, times, float(times[-1]) + 1.0 / _RENDER_FPS)
    with np.load(stored.with_suffix(".npz")) as known:
        truth = Truth(known["count"], known["tags"], known["pose"], known["people"])
    exact = read_exact(_exact_of(stored))
    clip = LabelledClip(footage, labels.index(about["label"]), about["caption"], "rendered", annotations, truth, exact)
    return with_new_errors(clip, np.random.default_rng([DETECTOR_VERSION, int(stored.stem)]))
