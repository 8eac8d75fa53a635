"""Targets of the attacks: clips of known people, faces and places -> their clean codes by the ENGINE.

    rendered people, cast again and again in new rooms ─┐
    face pictures, moved about, filling the frame ──────┼─► windows ─► encode.onnx ─► mu ─► Gallery (test harness)
    clips of a manifest; a group of clips is a place ───┘      (and people, by the engine's own person network)

Clean codes exist here only: the attackers add fresh noise to them, of the sigma that gives the attacked S. Pictures
of real people or places stay in this process and its cache; `Gallery.public` says whose pictures may be shown.
"""

from __future__ import annotations

import hashlib
import io
import math
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.eye.engine.onnx import OnnxEngine
from familial.data.clips import Clip, Footage, read_clip, small_grey, store
from familial.data.feeds import encode_feeds
from familial.data.people import PeopleOfClip, person_network
from familial.data.splits import clip_seeds, identities
from familial.synth.clip import body_of, render_clip
from wire.artifact.interface import GRAPHS
from wire.artifact.manifest import WindowSpec
from wire.errors import DataError

__all__ = [
    "GALLERIES",
    "GALLERY_VERSION",
    "PICTURE",
    "WINDOWS",
    "Gallery",
    "Shot",
    "bodies",
    "body_traits",
    "faces",
    "encode_shots",
    "fingerprint",
    "people",
    "places",
]

GALLERIES = ("people", "bodies", "faces", "places")
"""Names of the galleries that an attack can ask for."""
GALLERY_VERSION = 1
"""Part of the key under which galleries are kept. Raise it when the same shots would give other codes, pictures, owners
or enrolment: a change of this module, of the renderer (familial/synth), or of how clips are read and cut into windows
(familial/data/clips.py). The engine, its window and the shots themselves are in the key already."""
PICTURE = 24  # pixels a side of the picture that the inversion attack is after: the window's last frame, shrunk
_FPS = 12.0  # of rendered clips and faces
_SIZE = (120, 160)
WINDOWS = 14
"""Windows of every clip, all with full context: a clip's length must not reveal where it was filmed."""
_ROOMS = 1000  # rooms that each person may be seen in
# What one person does in a clip; the clip's number decides, so that the action says nothing about the identity.
_ACTS = ("walk", "bend", "exercise", "fall_forward", "sit", "crouch", "wave", "fall_side", "stand", "lie_floor")
_ENROL = 0.6  # share of each owner's clips from which the attacker learns
_MIN_CLIPS = 4  # of one place, two to enrol and two to test

U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Gallery:
    """Clean codes of many clips, each of one owner (a person, a place).

    Attributes:
        codes: int16 (N, n), one row a window, clips in order.
        pictures: uint8 (N, PICTURE, PICTURE).
        clip: int64 (N,).
        owner: int64 (clips,), index into `names`.
        enrol: bool (clips,), what the attacker learns from.
        names: of the owners.
        traits: name -> int64 (clips,), 1 has it, 0 has it not, -1 unknown.
        public: whether the pictures may be shown.
    """

    codes: npt.NDArray[np.int16]
    pictures: U8
    clip: npt.NDArray[np.int64]
    owner: npt.NDArray[np.int64]
    enrol: npt.NDArray[np.bool_]
    names: tuple[str, ...]
    traits: Mapping[str, npt.NDArray[np.int64]]
    public: bool

    def save(self, path: Path) -> None:
        """Write it atomically."""
        traits = {f"trait {name}": value for name, value in self.traits.items()}
        store(
            path,
            codes=self.codes,
            pictures=self.pictures,
            clip=self.clip,
            owner=self.owner,
            enrol=self.enrol,
            names=np.array(self.names),
            public=np.bool_(self.public),
            **traits,
        )

    @classmethod
    def load(cls, path: Path) -> Gallery:
        """Read what `save` wrote."""
        with np.load(path) as found:
            traits = {name[6:]: found[name] for name in found.files if name.startswith("trait ")}
            arrays = {name: found[name] for name in ("codes", "pictures", "clip", "owner", "enrol")}
            return cls(**arrays, names=tuple(found["names"].tolist()), traits=traits, public=bool(found["public"]))


# --- the clips --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shot:
    """One clip to be made or read: a person in a room, a picture of a face, or a file."""

    seed: int = 0
    identity: int = 0
    act: str = ""
    face: bytes = b""
    file: Path | None = None

    def footage(self, spec: WindowSpec, perceive: Path | None = None) -> Footage:
        """Return at least `_seconds(spec)`; a shorter clip is played forwards and backwards.

        Args:
            spec: the frame size.
            perceive: graph of the person network; None: people are not looked for.
        """
        if self.file is not None:
            return _forth_and_back(read_clip(self.file, spec, perceive=perceive), _seconds(spec))
        if self.face:
            return _seen(_face_pictures(self.face, self.seed, spec), spec, perceive)
        seconds = _seconds(spec)
        clip = render_clip(self.seed, self.act, size=_SIZE, fps=_FPS, seconds=seconds, cast=[self.identity])
        return _seen(clip.frames, spec, perceive)


def _seen(pictures: Iterable[U8], spec: WindowSpec, perceive: Path | None) -> Footage:
    """Return what a device keeps of pictures, `_FPS` a second: small frames, and people where there is a network."""
    small, found = list[U8](), None if perceive is None else PeopleOfClip(person_network(perceive), _FPS)
    for picture in pictures:
        small.append(small_grey(picture, spec))
        if found is not None:
            found.see(picture)
    people = (None, None) if found is None else found.found()
    return Footage(np.stack(small), np.arange(len(small)) / _FPS, len(small) / _FPS, *people)


def _seconds(spec: WindowSpec) -> float:
    """Return how long a clip must be for `WINDOWS` windows with full context."""
    return math.ceil(spec.receptive_field_s / spec.slot_s) * spec.slot_s + WINDOWS * spec.slot_s


def _forth_and_back(footage: Footage, seconds: float) -> Footage:
    if footage.duration >= seconds:
        return footage
    count = len(footage.times)
    step = footage.duration / count
    rounds = np.concatenate([np.arange(count), np.arange(count - 2, 0, -1)]) if count > 2 else np.arange(count)
    index = np.resize(rounds, math.ceil(seconds / step))
    times: npt.NDArray[np.float64] = np.arange(len(index), dtype=np.float64) * step
    if footage.people is None or footage.people_times is None:
        return Footage(footage.frames[index], times, len(index) * step)
    held = np.searchsorted(footage.people_times, footage.times + 1e-6, side="right") - 1
    people = footage.people[np.maximum(held, 0)]  # of every frame: those of the newest that the network saw
    return Footage(footage.frames[index], times, len(index) * step, people[index], times)


def _face_pictures(data: bytes, seed: int, spec: WindowSpec) -> Iterator[U8]:
    """Yield a video of a still face picture, moved, tilted and scaled a little, as a head in front of the camera."""
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise DataError("faces: a picture cannot be decoded; give the archive as it was published, or PNG and JPEG")
    height, width = picture.shape
    rng, count = np.random.default_rng([seed, 7]), round(_seconds(spec) * _FPS)
    path = np.cumsum(rng.normal(size=(count, 4)), axis=0)
    path = (path - path.mean(axis=0)) / path.std(axis=0)
    for x, y, tilt, zoom in path:
        middle = (width / 2 + 0.02 * width * x, height / 2 + 0.02 * height * y)
        turn = cv2.getRotationMatrix2D(middle, 3.0 * float(tilt), 1.15 + 0.05 * float(zoom))
        moved = cv2.warpAffine(picture, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
        yield np.asarray(moved, np.uint8)


def people(count: int, clips: int) -> tuple[list[Shot], npt.NDArray[np.int64], tuple[str, ...]]:
    """Return shots, owners and names of `count` rendered people, each in `clips` rooms of their own."""
    rooms = clip_seeds("audit_people", count * _ROOMS)
    shots = [
        Shot(seed=rooms[person * _ROOMS + clip], identity=identity, act=_ACTS[clip % len(_ACTS)])
        for person, identity in enumerate(identities("audit_people", count))
        for clip in range(clips)
    ]
    return shots, np.repeat(np.arange(count), clips), tuple(f"person {index}" for index in range(count))


def bodies(count: int) -> tuple[list[Shot], npt.NDArray[np.int64], tuple[str, ...]]:
    """Return shots, owners and names of `count` rendered people in one clip each, for attributes of unknown people."""
    seeds = zip(clip_seeds("audit_bodies", count), identities("audit_bodies", count), strict=True)
    shots = [
        Shot(seed=seed, identity=identity, act=_ACTS[index % len(_ACTS)])
        for index, (seed, identity) in enumerate(seeds)
    ]
    return shots, np.arange(count), tuple(f"body {index}" for index in range(count))


def faces(source: Path) -> tuple[list[Shot], npt.NDArray[np.int64], tuple[str, ...], npt.NDArray[np.int64]]:
    """Return shots, owners, names and who wears glasses; pictures `subject.condition` in a folder or tar archive."""
    shots, owners, glasses = [], list[str](), list[int]()
    for index, (name, data) in enumerate(sorted(_face_files(source))):
        subject, _, condition = name.partition(".")
        shots.append(Shot(seed=index, face=data))
        owners.append(subject)
        glasses.append({"glasses": 1, "noglasses": 0}.get(condition.partition(".")[0], -1))
    names = tuple(sorted(set(owners)))
    return shots, np.array([names.index(owner) for owner in owners], np.int64), names, np.array(glasses, np.int64)


def _face_files(source: Path) -> Iterator[tuple[str, bytes]]:
    try:
        if source.is_dir():
            found = [(file.name, file.read_bytes()) for file in source.iterdir() if file.is_file()]
        else:
            with tarfile.open(fileobj=io.BytesIO(source.read_bytes())) as archive:
                members = [member for member in archive.getmembers() if member.isfile()]
                found = [(Path(m.name).name, file.read()) for m in members if (file := archive.extractfile(m))]
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"--faces {source}: not readable ({error}); give a folder or a tar archive") from error
    found = [(name, data) for name, data in found if "." in name and not name.endswith((".md", ".txt"))]
    if len({name.partition(".")[0] for name, _ in found}) < 3:
        raise DataError(f"--faces {source}: fewer than 3 people; name the pictures subject.condition")
    yield from found


def places(clips: Sequence[Clip]) -> tuple[list[Shot], npt.NDArray[np.int64], tuple[str, ...]]:
    """Return shots, owners and names of places: groups of at least 4 clips; clips of smaller groups are left out."""
    count = Counter((clip.set, clip.group) for clip in clips)
    names = sorted(key for key, size in count.items() if size >= _MIN_CLIPS)
    chosen = [clip for clip in clips if (clip.set, clip.group) in names]
    owners = np.array([names.index((clip.set, clip.group)) for clip in chosen], np.int64)
    return [Shot(file=clip.file) for clip in chosen], owners, tuple("/".join(key) for key in names)


# --- windows to clean codes -------------------------------------------------------------------------------------------

_OPEN: dict[Path, OnnxEngine] = {}  # one engine a process


def _encode_shot(job: tuple[Path, Shot]) -> tuple[npt.NDArray[np.int16], U8]:
    """Return clean codes int16 (S, n) and pictures of one shot's last windows, slot by slot as the device would."""
    folder, shot = job
    cv2.setNumThreads(1)
    engine = _OPEN.get(folder) or _OPEN.setdefault(folder, OnnxEngine(folder))
    spec, sees = engine.manifest.window, engine.manifest.person_frame is not None
    footage = shot.footage(spec, folder / GRAPHS["perceive"] if sees else None)
    first = round(_seconds(spec) / spec.slot_s) - WINDOWS
    ends = [spec.slot_s * (first + slot + 1) for slot in range(WINDOWS)]
    made = encode_feeds(footage, ends, spec, sees)
    codes = np.stack([engine.encode(**feed) for feed in made])
    last = [feed["frames"][0, -1] for feed in made]
    pictures = [cv2.resize(frame, (PICTURE, PICTURE), interpolation=cv2.INTER_AREA) for frame in last]
    return codes, np.stack(pictures).astype(np.uint8)


def encode_shots(
    engine: Path,
    shots: Sequence[Shot],
    owner: npt.NDArray[np.int64],
    names: tuple[str, ...],
    workers: int,
    *,
    traits: Mapping[str, npt.NDArray[np.int64]] | None = None,
    public: bool = False,
) -> Gallery:
    """Make or read every clip and encode it.

    Args:
        engine: folder of the engine.
        shots: the clips.
        owner: int64 (clips,).
        names: of the owners.
        workers: processes.
        traits: of `Gallery`.
        public: of `Gallery`.
    """
    work = [(engine, shot) for shot in shots]
    if workers > 1:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            parts = list(pool.map(_encode_shot, work, chunksize=4))
    else:
        parts = [_encode_shot(job) for job in work]
    return Gallery(
        codes=np.concatenate([codes for codes, _ in parts]),
        pictures=np.concatenate([pictures for _, pictures in parts]),
        clip=np.repeat(np.arange(len(parts)), [len(codes) for codes, _ in parts]),
        owner=owner,
        enrol=_enrolled(owner),
        names=names,
        traits=traits or {},
        public=public,
    )


def _enrolled(owner: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return the clips to enrol: a fixed random share of each owner's; a single clip of every second owner."""
    rng = np.random.default_rng(11)
    enrol = np.zeros(len(owner), np.bool_)
    for name in np.unique(owner):
        mine = rng.permutation(np.flatnonzero(owner == name))
        enrol[mine[: max(1, round(_ENROL * len(mine)))]] = len(mine) > 1 or name % 2 == 0
    return enrol


def body_traits(shots: Sequence[Shot]) -> dict[str, npt.NDArray[np.int64]]:
    """Return the traits of rendered bodies: taller, heavier, more stooped than the median of these."""
    built = [body_of(shot.identity) for shot in shots]
    values = {
        "tall": np.array([body.height for body in built]),
        "heavy": np.array([body.mass for body in built]),
        "stooped": np.array([body.stoop for body in built]),
    }
    return {name: (value > np.median(value)).astype(np.int64) for name, value in values.items()}


def fingerprint(shots: Sequence[Shot]) -> str:
    """Return a hash of what would be encoded, in 16 hex digits: files by path, size and modification time."""
    digest = hashlib.sha256()
    for shot in shots:
        stat = shot.file.stat() if shot.file else None
        about = (stat.st_size, stat.st_mtime_ns) if stat else hashlib.sha256(shot.face).hexdigest()
        digest.update(f"{shot.seed} {shot.identity} {shot.act} {shot.file} {about}\n".encode())
    return digest.hexdigest()[:16]
