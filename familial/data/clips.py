"""Clips: rows of a manifest (`manifests`) -> small grey frames with times -> windows, slot by slot; splits by group.

    clip --OpenCV--> frames u8 (T, H, W), times (T,) --WindowSpec.pick--> windows u8 (S, F, H, W), one per slot
                 --person network, where asked for--> people int16 (Tp, 6, 56), their times (Tp,)

Small frames are cached under build/cache by the file's hash, the frame size and `FRAMES_VERSION`, people by the hashes
of the file and of the network's graph and `people.PEOPLE_VERSION`, so a clip is decoded once. Errors are DataError and
name the file.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from familial.data.manifests import UNSCORED, Clip, read_manifests
from familial.data.people import PeopleOfClip, PersonNetwork, person_network
from wire.artifact.manifest import WindowSpec
from wire.errors import DataError
from wire.files import whole_file
from wire.people.packed import Packed

__all__ = [
    "CACHE",
    "FRAMES_VERSION",
    "UNSCORED",
    "Clip",
    "Footage",
    "check_folds",
    "fill_cache",
    "grouped_folds",
    "read_clip",
    "read_manifests",
    "slots",
    "small_grey",
    "store",
    "windows",
]

CACHE = Path(__file__).resolve().parents[2] / "build" / "cache"
FRAMES_VERSION = 1
"""Of the small grey frames: raise it whenever `small_grey` or the decoding gives other bytes for the same clip."""

_FEW = 16  # clips: processes of their own would take longer to start
_SAY_S = 10.0  # between lines of progress


@dataclass(frozen=True, slots=True)
class Footage:
    """The decoded frames of a clip.

    Attributes:
        frames: u8 (T, H, W), small and grey.
        times: float64 (T,), seconds from the first frame.
        duration: seconds.
        people: int16 (Tp, 6, VALUES) of `wire.people.packed`; None where the person network was not run.
        people_times: float64 (Tp,), of the frames that they were found in, seconds from the first frame; None likewise.
    """

    frames: npt.NDArray[np.uint8]
    times: npt.NDArray[np.float64]
    duration: float
    people: Packed | None = None
    people_times: npt.NDArray[np.float64] | None = None


def small_grey(frame: npt.NDArray[np.uint8], spec: WindowSpec) -> npt.NDArray[np.uint8]:
    """BGR u8 (h, w, 3) or grey u8 (h, w) -> grey u8 (H, W): resized to the window's size as on the device."""
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) if frame.ndim == 3 else frame
    return np.asarray(cv2.resize(grey, (spec.width, spec.height), interpolation=cv2.INTER_AREA), np.uint8)


def read_clip(path: Path, spec: WindowSpec, cache: Path | None = CACHE, perceive: Path | None = None) -> Footage:
    """Decode a clip to small grey frames, and find its people, or read both from the cache.

    Args:
        path: a film that OpenCV reads.
        spec: the frame size.
        cache: folder of decoded clips; None decodes anew.
        perceive: graph of the person network; None: people are not looked for.

    Raises:
        DataError: the clip is missing, empty or corrupt, or has no frame rate.
        EngineError: the graph is missing, or not the person network's.
    """
    network = None if perceive is None else person_network(perceive)
    stored = _stored(path, spec, cache, network)
    if stored and all(file.is_file() for file in stored.values()):
        return _from_cache(stored)
    footage = _decode(path, spec, network)
    if "frames" in stored:
        store(stored["frames"], frames=footage.frames, times=footage.times, duration=np.float64(footage.duration))
    if "people" in stored:
        store(stored["people"], people=footage.people, times=footage.people_times)
    return footage


def fill_cache(
    files: Sequence[Path],
    spec: WindowSpec,
    cache: Path | None = CACHE,
    perceive: Path | None = None,
    processes: int = 1,
) -> None:
    """Do `read_clip` for every clip that is not in the cache yet; says how far it is where that takes long.

    Args:
        files: the clips.
        spec: the frame size.
        cache: folder of decoded clips; None: nothing is done.
        perceive: graph of the person network; None: people are not looked for.
        processes: how many work where many clips are missing.
    """
    network = None if perceive is None else person_network(perceive)
    places = {file: _stored(file, spec, cache, network) for file in files}
    missing = [file for file, stored in places.items() if not all(place.is_file() for place in stored.values())]
    make, began, shown = partial(_fill, spec=spec, cache=cache, perceive=perceive), time.monotonic(), time.monotonic()
    with ExitStack() as stack:
        done: Iterable[None] = map(make, missing)
        if processes > 1 and len(missing) > _FEW:
            spawned = multiprocessing.get_context("spawn").Pool(processes, cv2.setNumThreads, (1,))
            done = stack.enter_context(spawned).imap_unordered(make, missing)
        for count, _ in enumerate(done, 1):
            now = time.monotonic()
            if now - shown > _SAY_S:
                shown, left = now, (now - began) * (len(missing) - count) / count
                print(f"read {count}/{len(missing)} clips in {now - began:.0f} s, about {left:.0f} s left", flush=True)


def _fill(path: Path, spec: WindowSpec, cache: Path | None, perceive: Path | None) -> None:
    read_clip(path, spec, cache, perceive)


def _stored(path: Path, spec: WindowSpec, cache: Path | None, network: PersonNetwork | None) -> dict[str, Path]:
    """Where the cache keeps the clip's `frames` and, with a network, its `people`; nothing without a cache."""
    try:
        digest = hashlib.sha256(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: not readable ({error})") from error
    if cache is None:
        return {}
    stored = {} if network is None else {"people": cache / network.key / f"{digest.hexdigest()[:32]}.npz"}
    digest.update(f"{FRAMES_VERSION} {spec.height}x{spec.width}".encode())
    return {"frames": cache / "clips" / f"{digest.hexdigest()[:32]}.npz", **stored}


def _from_cache(stored: Mapping[str, Path]) -> Footage:
    people = people_times = None
    if "people" in stored:
        with np.load(stored["people"]) as found:
            people, people_times = found["people"], found["times"]
    with np.load(stored["frames"]) as found:
        return Footage(found["frames"], found["times"], float(found["duration"]), people, people_times)


def store(path: Path, **arrays: Any) -> None:
    """Write an .npz atomically, in a folder that is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as beside:
        np.savez(beside, **arrays)


def _decode(path: Path, spec: WindowSpec, network: PersonNetwork | None) -> Footage:
    capture = cv2.VideoCapture(str(path))
    try:
        rate = capture.get(cv2.CAP_PROP_FPS)
        plausible = 0.5 <= rate <= 1000
        looking = PeopleOfClip(network, rate) if network is not None and plausible else None
        frames = []
        while True:
            there, picture = capture.read()
            if not there:
                break
            frames.append(small_grey(np.asarray(picture, np.uint8), spec))
            if looking is not None:
                looking.see(np.asarray(picture, np.uint8))
    finally:
        capture.release()
    if not frames:
        raise DataError(f"{path}: no frame could be decoded; the file is empty, corrupt or no video")
    if not plausible:
        raise DataError(f"{path}: the frame rate is {rate}; re-encode the clip with a constant rate")
    people, people_times = (None, None) if looking is None else looking.found()
    return Footage(np.stack(frames), np.arange(len(frames)) / rate, len(frames) / rate, people, people_times)


def slots(duration: float, spec: WindowSpec) -> int:
    """How many releases a clip of `duration` seconds fills: until its last frame leaves the receptive field."""
    return spec.releases_of(duration)


def windows(footage: Footage, ends: Sequence[float], spec: WindowSpec) -> npt.NDArray[np.uint8]:
    """Windows u8 (S, F, H, W) of the S slots that end at `ends`, in seconds; instants without a frame are black."""
    picked = np.stack([spec.pick(footage.times, float(end)) for end in ends])
    made = footage.frames[np.maximum(picked, 0)]
    made[picked < 0] = 0
    return np.ascontiguousarray(made)


def grouped_folds(clips: Sequence[Clip], count: int, whole_sets: bool = False) -> list[int]:
    """Assign each clip a fold 0..count-1, the same in every call.

    Groups stay whole, and each set and label spreads over the folds: groups are dealt, largest first, to the fold that
    has least of their set and label.

    Args:
        clips: rows of manifests.
        count: of folds.
        whole_sets: keep sets whole too: each fold leaves out sources that the others know.

    Raises:
        DataError: fewer than two folds, or fewer sets than folds where sets stay whole.
    """
    if count < 2:
        raise DataError(f"folds is {count}; at least 2 are needed")
    groups: dict[tuple[str, str], list[Clip]] = {}
    for clip in clips:
        groups.setdefault((clip.set, "" if whole_sets else clip.group), []).append(clip)
    if whole_sets and len(groups) < count:
        raise DataError(f"folds is {count}, but there are {len(groups)} sets: give --folds {len(groups)} or less")
    load = [dict[tuple[str, str], int]() for _ in range(count)]
    fold_of: dict[tuple[str, str], int] = {}
    for key, members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        kinds = [(clip.set, clip.label) for clip in members]
        costs = [
            (sum(held.get(kind, 0) for kind in kinds), sum(held.values()), index) for index, held in enumerate(load)
        ]
        fold = min(costs)[2]
        fold_of[key] = fold
        for kind in kinds:
            load[fold][kind] = load[fold].get(kind, 0) + 1
    folds = [fold_of[clip.set, "" if whole_sets else clip.group] for clip in clips]
    check_folds(clips, folds)
    return folds


def check_folds(clips: Sequence[Clip], folds: Sequence[int]) -> None:
    """Raise DataError where a group lies in two folds: the same people or room would be trained on and tested on."""
    seen: dict[tuple[str, str], int] = {}
    for clip, fold in zip(clips, folds, strict=True):
        first = seen.setdefault((clip.set, clip.group), fold)
        if first != fold:
            raise DataError(
                f"group {clip.group!r} of set {clip.set!r} lies in folds {first} and {fold}; "
                "a group never crosses a split"
            )
