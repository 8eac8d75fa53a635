"""Takes for training, from two sources, cached as small grey frames under build/cache.

seed --render_clip--> happenings known to the frame          manifest row --OpenCV--> the clip's label alone
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from wire.manifest import WindowSpec

from . import motion, render, rooms, scenes
from .clips import CACHE, UNSCORED, Clip, Footage, read_clip, small_grey, store
from .events import Happening, Take

__all__ = ["clip_takes", "rendered_takes"]

_SUDDEN = "fall"
_RENDER_SIZE, _RENDER_FPS = (120, 160), 12.0
_CAPTIONS = {"normal": "nothing unusual happens", "fall": "a person falls", "fight": "two people fight"}


def clip_takes(clips: Sequence[Clip], labels: Sequence[str], spec: WindowSpec) -> list[Take]:
    """Real clips as takes; rows labelled `uncertain` are left out. The captions are as plain as the labels."""
    return [
        Take(
            read_clip(clip.file, spec),
            labels.index(clip.label),
            _CAPTIONS.get(clip.label, clip.label),
            clip.set,
            None,
        )
        for clip in clips
        if clip.label != UNSCORED
    ]


def rendered_takes(
    seeds: Sequence[int], labels: Sequence[str], spec: WindowSpec, processes: int = 2
) -> Iterator[Take]:
    """Rendered clips as takes, in the order of `seeds`.

    Those not in the cache yet are rendered by `processes` workers.
    """
    source = b"".join(Path(str(module.__file__)).read_bytes() for module in (motion, rooms, scenes, render))
    key = hashlib.sha256(source + json.dumps(asdict(spec)).encode()).hexdigest()[:16]
    make = partial(_rendered, labels=tuple(labels), spec=spec, folder=CACHE / f"rendered-{key}")
    if processes < 2:
        yield from map(make, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(
        processes, initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        yield from pool.imap(make, seeds, chunksize=4)


def _rendered(seed: int, labels: tuple[str, ...], spec: WindowSpec, folder: Path) -> Take:
    stored = folder / f"{seed}.npz"
    if not stored.is_file():
        clip = render.render_clip(seed, size=_RENDER_SIZE, fps=_RENDER_FPS)
        events = [(h.label, h.start_s, h.end_s) for h in clip.happenings]
        store(
            stored,
            frames=np.stack([small_grey(frame, spec) for frame in clip.frames]),
            times=clip.times_s,
            meta=np.array(json.dumps({"label": clip.label, "caption": clip.caption, "happenings": events})),
        )
    with np.load(stored) as found:
        frames, times, meta = found["frames"], found["times"], json.loads(str(found["meta"]))
    happenings = tuple(
        Happening(labels.index(label), float(start), float(end), label == _SUDDEN)
        for label, start, end in meta["happenings"]
        if label != labels[0]
    )
    footage = Footage(frames, times, float(times[-1]) + 1.0 / _RENDER_FPS)
    return Take(footage, labels.index(meta["label"]), meta["caption"], "rendered", happenings)
