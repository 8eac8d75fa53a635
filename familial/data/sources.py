"""Clips for training, from two sources, cached as small grey frames under build/cache.

seed --render_clip--> happenings known to the frame          manifest row --OpenCV--> the clip's label alone
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from familial.data.clips import CACHE, UNSCORED, Clip, Footage, read_clip, small_grey
from familial.data.events import Happening, LabelledClip
from familial.synth import actions as scenes
from familial.synth import bodies as motion
from familial.synth import clip as render
from familial.synth import scene as rooms
from familial.synth import tags, things
from familial.synth.truth import CELLS, POSE, Truth, truth_of
from wire.artifact.manifest import WindowSpec

__all__ = ["manifest_clips", "rendered_clips"]

_SUDDEN = "fall"
_RENDER_SIZE, _RENDER_FPS = (120, 160), 12.0
_KEPT_FPS = 12.5
_CAPTIONS = {"normal": "nothing unusual happens", "fall": "a person falls", "fight": "two people fight"}


def manifest_clips(clips: Sequence[Clip], labels: Sequence[str], spec: WindowSpec) -> list[LabelledClip]:
    """Real clips, at most `_KEPT_FPS` frames a second of them; rows labelled `uncertain` are left out.

    What happens when is known where a manifest says it (`Clip.onset_s`). The captions are as plain as the labels.
    """
    found = []
    for clip in clips:
        if clip.label == UNSCORED:
            continue
        label, footage = labels.index(clip.label), _thinned(read_clip(clip.file, spec))
        known = None
        if clip.onset_s is not None:
            known = (Happening(label, clip.onset_s, footage.duration, clip.label == _SUDDEN),)
        found.append(LabelledClip(footage, label, _CAPTIONS.get(clip.label, clip.label), clip.set, known))
    return found


def _thinned(footage: Footage) -> Footage:
    """At most `_KEPT_FPS` frames a second: what the windows hardly use needs no memory."""
    kept, last = [], -1.0
    for index, time in enumerate(footage.times):
        if index == 0 or time - last >= 1.0 / _KEPT_FPS - 1e-6:
            kept.append(index)
            last = float(time)
    return Footage(footage.frames[kept], footage.times[kept], footage.duration)


def rendered_clips(
    seeds: Sequence[int], labels: Sequence[str], spec: WindowSpec, processes: int = 2
) -> Iterator[LabelledClip]:
    """Rendered clips as clips, in the order of `seeds`; their frames are mapped from the cache, not held.

    Those not in the cache yet are rendered by `processes` workers.
    """
    modules = (motion, rooms, scenes, things, tags, render)
    source = b"".join(Path(str(module.__file__)).read_bytes() for module in modules)
    sizes = json.dumps([spec.height, spec.width, _RENDER_SIZE, _RENDER_FPS, CELLS, POSE]).encode()
    folder = CACHE / f"rendered-{hashlib.sha256(source + sizes).hexdigest()[:16]}"
    make = partial(_rendered, spec=spec, folder=folder)
    if processes < 2:
        yield from (_read(make(seed), labels) for seed in seeds)
        return
    with multiprocessing.get_context("spawn").Pool(processes, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from (_read(stored, labels) for stored in pool.imap(make, seeds, chunksize=4))


def _rendered(seed: int, spec: WindowSpec, folder: Path) -> Path:
    """The cached clip of `seed`, rendered where it is not there yet."""
    stored = folder / f"{seed}.npy"
    if not stored.is_file():
        clip = render.render_clip(seed, size=_RENDER_SIZE, fps=_RENDER_FPS)
        events = [(h.label, h.start_s, h.end_s) for h in clip.annotations]
        about = {"label": clip.label, "caption": clip.caption, "happenings": events, "times": clip.times_s.tolist()}
        folder.mkdir(parents=True, exist_ok=True)
        _whole(stored.with_suffix(".json"), json.dumps(about).encode())
        known, frames = io.BytesIO(), io.BytesIO()
        truth = truth_of(clip)
        np.savez(known, count=truth.count, tags=truth.tags, pose=truth.pose, people=truth.people)
        _whole(stored.with_suffix(".npz"), known.getvalue())
        np.save(frames, np.stack([small_grey(frame, spec) for frame in clip.frames]))
        _whole(stored, frames.getvalue())
    return stored


def _whole(path: Path, content: bytes) -> None:
    """Write in one move, so that two processes never read half of it."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)


def _read(stored: Path, labels: Sequence[str]) -> LabelledClip:
    about = json.loads(stored.with_suffix(".json").read_text())
    frames, times = np.load(stored, mmap_mode="r"), np.asarray(about["times"])
    happenings = tuple(
        Happening(labels.index(label), float(start), float(end), label == _SUDDEN)
        for label, start, end in about["happenings"]
        if label != labels[0]
    )
    footage = Footage(frames, times, float(times[-1]) + 1.0 / _RENDER_FPS)
    with np.load(stored.with_suffix(".npz")) as known:
        truth = Truth(known["count"], known["tags"], known["pose"], known["people"])
    return LabelledClip(footage, labels.index(about["label"]), about["caption"], "rendered", happenings, truth)
