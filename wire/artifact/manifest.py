"""The engine manifest: what was built, from what, with which hashes; JSON beside the ONNX graphs.

    engine folder = encode.onnx + decide.onnx + noise_table.bin + certificate.json + manifest.json
                    (+ perceive.onnx, the person network of a family that sees people)
                    (+ manifest.sig, external weights, parity.json, and engine.json with the engine files of a device)

`EngineManifest.load(folder)` reads it, with its signer's signature where one is asked for; `.check(folder)` compares
every file with its hash; `.open_verified(folder)` gives the graphs' own bytes. `model_id`, the first 8 bytes of the
manifest's own hash, is in every message: it names C, sigma, the cadence and the certificate behind that message.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wire.artifact import interface, pinned
from wire.artifact.interface import GRAPHS
from wire.artifact.pinned import CURE
from wire.artifact.signature import SIGNATURE, check_signature
from wire.errors import ManifestError
from wire.files import write_whole
from wire.privacy.certificate import Certificate
from wire.privacy.level_rule import AdaptiveLevel, LevelRule, Witness
from wire.privacy.noise_table import NoiseTable
from wire.protocol.event import level_weight
from wire.protocol.keys import PublicKey

__all__ = ["FILES", "EngineManifest", "WindowSpec", "sha256_file"]

FILES: Mapping[str, str] = {
    "encode": GRAPHS["encode"],
    "decide": GRAPHS["decide"],
    "noise_table": "noise_table.bin",
    "certificate": "certificate.json",
}
"""Part of every engine folder -> file name; each part's hash is in the manifest under the part's name."""

_MANIFEST = "manifest.json"
_EXTERNAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}")
_VERSION = 5  # of the schema: since 5 there may be a graph `perceive`, whose people `encode` reads
_CHUNK = 1 << 20
_EPSILON_S = 1e-6  # times are sums of fractions of a second and of 1/fps: closer than a microsecond counts as equal


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """Which instants make a window, and the size of its frames.

    The window of slot s ends at e = (s + 1) slot_s. It holds, oldest first, `context_frames` frames
    `context_step_s` apart, the last of them one slot before e, then `new_frames` frames evenly over the slot,
    the last of them at e. Each instant takes the newest frame that is not younger than the instant, if it is
    less than `hold_s` older; else a black frame. So no pixel is part of a release for longer than `receptive_field_s`.
    """

    height: int
    width: int
    slot_s: float
    new_frames: int
    context_frames: int
    context_step_s: float
    hold_s: float

    def __post_init__(self) -> None:
        for name in ("height", "width", "new_frames"):
            if getattr(self, name) < 1:
                raise ManifestError(f"window.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("slot_s", "hold_s"):
            if not getattr(self, name) > 0:
                raise ManifestError(f"window.{name} is {getattr(self, name)}; it must be positive (seconds)")
        if self.context_frames < 0 or (self.context_frames and not self.context_step_s > 0):
            raise ManifestError(
                f"window.context_frames is {self.context_frames}, context_step_s is {self.context_step_s}; "
                "no context, or frames a positive step apart"
            )

    @property
    def frames(self) -> int:
        """Frames in a window, context included."""
        return self.context_frames + self.new_frames

    @property
    def offsets_s(self) -> tuple[float, ...]:
        """Seconds before the slot's end of each instant, oldest first."""
        context = (self.slot_s + self.context_step_s * j for j in reversed(range(self.context_frames)))
        new = (self.slot_s * k / self.new_frames for k in reversed(range(self.new_frames)))
        return (*context, *new)

    @property
    def receptive_field_s(self) -> float:
        """Seconds from a moment to the end of the last window that can hold it (open at that end)."""
        return max(self.slot_s, max(self.offsets_s) + self.hold_s)

    def releases_of(self, duration_s: float) -> int:
        """How many slots of a stream can hold a picture of its first `duration_s` seconds; at least 1.

        An incident is charged for all of them. A source that ends is therefore read until its last picture has left the
        receptive field.
        """
        return max(1, math.ceil((duration_s + self.receptive_field_s) / self.slot_s - _EPSILON_S) - 1)

    def pick(self, frame_times_s: npt.NDArray[np.float64], slot_end_s: float) -> npt.NDArray[np.int64]:
        """Choose the frame for each instant of a window.

        Args:
            frame_times_s: Sorted capture times in seconds, float64 (any,), on the clock of `slot_end_s`.
            slot_end_s: End of the slot in seconds.

        Returns:
            Index of the frame for each instant, or -1 for black; int64 (frames,).
        """
        return self.held(frame_times_s, slot_end_s - np.asarray(self.offsets_s))

    def held(
        self, frame_times_s: npt.NDArray[np.float64], instants_s: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.int64]:
        """Do as `pick` for given instants, float64 (any,); int64 of the same shape."""
        if len(frame_times_s) == 0:
            return np.full(len(instants_s), -1, np.int64)
        index = np.searchsorted(frame_times_s, instants_s + _EPSILON_S, side="right") - 1
        age = instants_s - frame_times_s[np.maximum(index, 0)]
        return np.where((index >= 0) & (age < self.hold_s - _EPSILON_S), index, -1).astype(np.int64)


@dataclass(frozen=True)
class EngineManifest:
    """What was built.

    Attributes:
        family: Name of the model family.
        labels: The family's labels in its order; the first is no risk.
        window: Which frames make a window.
        tokens: Rows of a code, K.
        width: Columns of a code, d; n = K * d.
        event_releases: Releases that are read together for one verdict.
        clip_norm: C, the largest Euclidean norm of a code, lattice units.
        sigma: Noise parameter of the profile, lattice units, exact.
        profile: Name of the profile for which the engine is certified.
        precision: fp32, fp16 or int8.
        opset: Of the ONNX graphs.
        hashes: sha256 hex of `checkpoint`, `encode`, `decide`, `noise_table`, `certificate`, and `calibration`
            ("" where the precision needs none); of `perceive`, where there is a `person_frame`.
        tools: Name -> version of what built it.
        levels: Name -> sigma of the other profiles whose noise tables are in the folder.
        adaptive_level: The rule that may choose among all levels, or None.
        external: Name -> sha256 hex of each file of weights that the graphs keep outside themselves.
        person_frame: Height and width of the person network's frame, pixels; None where the family sees no people.
        requires: What a device must have to run this engine, such as "tensorrt" -> the least version.

    Raises:
        ManifestError: The fields contradict each other.
    """

    family: str
    labels: tuple[str, ...]
    window: WindowSpec
    tokens: int
    width: int
    event_releases: int
    clip_norm: int
    sigma: Fraction
    profile: str
    precision: str
    opset: int
    hashes: Mapping[str, str]
    tools: Mapping[str, str] = field(default_factory=dict)
    levels: Mapping[str, Fraction] = field(default_factory=dict)
    adaptive_level: LevelRule | None = None
    external: Mapping[str, str] = field(default_factory=dict)
    person_frame: tuple[int, int] | None = None
    requires: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise ManifestError(f"labels are {list(self.labels)}; at least two different ones are needed; {CURE}")
        if self.tokens < 1 or self.width < 1:
            raise ManifestError(f"tokens is {self.tokens}, width is {self.width}; both must be at least 1; {CURE}")
        missing = sorted({*self.files, "checkpoint", "calibration"} - set(self.hashes))
        if "perceive" in self.hashes and self.person_frame is None:
            raise ManifestError(f"hashes.perceive is there, but person_frame is null; {CURE}")
        if self.person_frame is not None and not interface.is_person_frame(*self.person_frame):
            height, width = self.person_frame
            raise ManifestError(f"person_frame is {height} x {width}; {interface.PERSON_FRAMES}; {CURE}")
        if missing:
            raise ManifestError(f"hashes: {', '.join(missing)} missing; {CURE}")
        for name in self.external:
            if not _EXTERNAL.fullmatch(name) or name in {*FILES.values(), *GRAPHS.values(), _MANIFEST, SIGNATURE}:
                raise ManifestError(f"external: {name!r} is no name for a file of weights; {CURE}")
        if len(set(self.sigmas)) <= len(self.levels):
            raise ManifestError(f"levels: a sigma of {dict(self.levels)} is there twice, or is the profile's; {CURE}")
        self.certificate()  # raises where C, sigma and the cadence are out of range
        if self.adaptive_level is not None:
            directions = self.adaptive_level.directions
            if (len(directions), len(directions[0])) != (len(self.labels) - 1, self.n):
                raise ManifestError(
                    f"adaptive_level.directions: {len(directions)} rows of {len(directions[0])} integers; "
                    f"{len(self.labels) - 1} risks of n = {self.n} are needed; {CURE}"
                )
            self.make_adaptive_level()

    @property
    def files(self) -> dict[str, str]:
        """Part of this engine's folder -> file name: FILES, and `perceive` where there is a person network."""
        return dict(FILES) if self.person_frame is None else {"perceive": GRAPHS["perceive"], **FILES}

    @property
    def n(self) -> int:
        """Coordinates of a code."""
        return self.tokens * self.width

    @cached_property
    def sigmas(self) -> tuple[Fraction, ...]:
        """The sigma of every level, most noise first; a message's `level` is an index into it."""
        return tuple(sorted({self.sigma, *self.levels.values()}, reverse=True))

    @property
    def level(self) -> int:
        """The level of the profile for which this engine was built."""
        return self.sigmas.index(self.sigma)

    def allowed(self, maximum: str = "") -> dict[str, int]:
        """Return profile -> level of all profiles that reveal no more than `maximum`, that one last.

        Args:
            maximum: Name of a profile; "" for the certified one.

        Raises:
            ManifestError: `maximum` reveals more than the certificate, or its noise is not in the folder.
        """
        sigmas = {self.profile: self.sigma, **self.levels}
        least = sigmas.get(maximum or self.profile, Fraction(0))
        if least < self.sigma:
            known = ", ".join(name for name, sigma in sigmas.items() if sigma >= self.sigma)
            raise ManifestError(
                f"profile {maximum!r}: this engine is certified for {self.profile} and has the noise of {known}; "
                "choose one of these, or build an engine for it: python -m calibration.noise, then export.build_engine"
            )
        found = {name: self.sigmas.index(sigma) for name, sigma in sigmas.items() if sigma >= least}
        return dict(sorted(found.items(), key=lambda item: item[1]))

    def tables(self, folder: Path | str) -> list[NoiseTable]:
        """The pinned noise tables of a folder, one for each level. Raises NoiseError for any other file."""
        found = NoiseTable.load_all(Path(folder) / FILES["noise_table"], self.hashes["noise_table"])
        return sorted(found, key=lambda table: -table.sigma)

    def covers(self, certificate: bytes, cameras: int = 1) -> bool:
        """Whether a device of this engine may publish `certificate`: its own, its rule's, or that of more noise.

        Args:
            certificate: As it was published.
            cameras: That are known to see the same people. A certificate of a smaller scene is refused, since it states
                too little; that of a camera alone says so itself.
        """
        if hashlib.sha256(certificate).hexdigest() == self.hashes["certificate"]:
            return True
        try:
            found, document = Certificate.read(certificate)
        except ManifestError:
            return False
        if 1 < found.scene_cameras < cameras:
            return False
        return found.of_scene(1) in self.accepted and not found.difference(document)

    @property
    def accepted(self) -> list[Certificate]:
        """The certificates of no less noise than this engine's own, and that of its level rule."""
        noisier = [self.certificate().at(sigma) for sigma in self.sigmas[: self.level + 1]]
        return noisier if self.adaptive_level is None else [*noisier, self.certificate(adaptive_level=True)]

    @cached_property  # a bridge asks for it at each start of each camera
    def weights(self) -> tuple[float, ...]:
        """Per level, the factor that z is multiplied by before it is read."""
        return tuple(level_weight(self.sigma, sigma) for sigma in self.sigmas)

    def make_adaptive_level(self) -> AdaptiveLevel:
        """The level rule at the beginning of a stream. Raises ManifestError where this engine has none."""
        if self.adaptive_level is None:
            raise ManifestError(
                f"this engine has no level rule (profile {self.profile}); turn [privacy] adaptive_level off"
            )
        return AdaptiveLevel(self.adaptive_level, self.clip_norm, self.sigmas, self.event_releases)

    def make_witness(self) -> Witness | None:
        """Make what checks the levels of one stream against the level rule; None where this engine has no rule."""
        if self.adaptive_level is None:
            return None
        return Witness(self.adaptive_level, self.clip_norm, self.sigmas, self.event_releases)

    def certificate(self, adaptive_level: bool = False) -> Certificate:
        """Compute the certificate that C, sigma and the cadence give; with `adaptive_level`, that of the level rule."""
        limits = self.make_adaptive_level().limits if adaptive_level else None
        return Certificate(
            clip_norm=self.clip_norm,
            sigma=self.sigma,
            n=self.n,
            slot_s=self.window.slot_s,
            receptive_field_s=self.window.receptive_field_s,
            event_releases=self.event_releases,
            adaptive_level=limits,
        )

    @cached_property
    def sha256(self) -> str:
        """Hash of the manifest's canonical JSON, hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def model_id(self) -> int:
        """The first 8 bytes of `sha256` as an unsigned integer: the name of this model in every message."""
        return int(self.sha256[:16], 16)

    def to_json(self) -> str:
        """Canonical JSON: the same text for the same manifest."""
        return json.dumps(self._document(), indent=1, sort_keys=True) + "\n"

    def _document(self) -> dict[str, Any]:
        window = {name: getattr(self.window, name) for name in WindowSpec.__dataclass_fields__}
        return {
            "version": _VERSION,
            "family": self.family,
            "labels": list(self.labels),
            "window": window,
            "tokens": self.tokens,
            "width": self.width,
            "event_releases": self.event_releases,
            "clip_norm": self.clip_norm,
            "sigma": str(self.sigma),
            "profile": self.profile,
            "precision": self.precision,
            "opset": self.opset,
            "hashes": dict(self.hashes),
            "tools": dict(self.tools),
            "levels": {name: str(sigma) for name, sigma in self.levels.items()},
            "adaptive_level": self.adaptive_level.document() if self.adaptive_level is not None else {},
            "external": dict(self.external),
            "person_frame": self.person_frame and list(self.person_frame),
            "requires": dict(self.requires),
            "graphs": self.graphs(),
        }

    def graphs(self) -> dict[str, Any]:
        """Graph -> names, dtypes and shapes of its inputs and outputs; `perceive` is there with a `person_frame`."""
        window, frame = self.window, self.person_frame
        frames, people = (window.frames, window.height, window.width), frame is not None
        return {
            **({} if frame is None else {"perceive": interface.perceive(*frame)}),
            "encode": interface.encode(frames, self.tokens, self.width, people),
            "decide": interface.decide(self.event_releases, self.tokens, self.width, len(self.labels)),
        }

    @classmethod
    def from_json(cls, text: str) -> EngineManifest:
        """Parse and validate; another version, unknown or missing fields are errors (ManifestError)."""
        try:
            found = json.loads(text)
            if found["version"] != _VERSION:
                raise ManifestError(
                    f"{_MANIFEST}: version is {found['version']!r}, this software reads version {_VERSION}; {CURE}"
                )
            manifest = cls(
                family=str(found["family"]),
                labels=tuple(str(label) for label in found["labels"]),
                window=WindowSpec(**found["window"]),
                tokens=int(found["tokens"]),
                width=int(found["width"]),
                event_releases=int(found["event_releases"]),
                clip_norm=int(found["clip_norm"]),
                sigma=Fraction(found["sigma"]),
                profile=str(found["profile"]),
                precision=str(found["precision"]),
                opset=int(found["opset"]),
                hashes={str(k): str(v) for k, v in found["hashes"].items()},
                tools={str(k): str(v) for k, v in found["tools"].items()},
                levels={str(k): Fraction(v) for k, v in found["levels"].items()},
                adaptive_level=LevelRule.of(found["adaptive_level"]) if found["adaptive_level"] else None,
                external={str(k): str(v) for k, v in found["external"].items()},
                person_frame=_person_frame(found["person_frame"]),
                requires={str(k): str(v) for k, v in found["requires"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            raise ManifestError(f"{_MANIFEST}: unreadable ({error!r}); {CURE}") from error
        if manifest._document() != found:
            expected = manifest._document()
            different = sorted(name for name in {*found, *expected} if expected.get(name) != found.get(name))
            raise ManifestError(f"{_MANIFEST}: {', '.join(different)} is not what the other fields give; {CURE}")
        return manifest

    @classmethod
    def load(cls, folder: Path | str, signer: PublicKey | None = None) -> EngineManifest:
        """Read `manifest.json` of an engine folder.

        Args:
            folder: The engine folder.
            signer: Whose signature the manifest must carry; None: none is asked for.

        Raises:
            ManifestError: The manifest cannot be read, is malformed, or is not signed by `signer`.
        """
        file = Path(folder) / _MANIFEST
        try:
            data = file.read_bytes()
            if signer is not None:
                check_signature(data, file.with_name(SIGNATURE), signer)
            return cls.from_json(data.decode())
        except (OSError, UnicodeDecodeError) as error:
            raise ManifestError(f"{file}: {error}; {CURE}") from error

    def save(self, folder: Path | str) -> None:
        """Write `manifest.json` into an engine folder."""
        write_whole(Path(folder) / _MANIFEST, self.to_json())

    def check(self, folder: Path | str) -> None:
        """Compare every file of the folder with this manifest. Raises ManifestError, CertificateError or NoiseError."""
        hashes = {name: self.hashes[part] for part, name in self.files.items()}
        for name, expected in {**hashes, **self.external}.items():
            pinned.same(name, sha256_file(Path(folder) / name), expected)
        certificate = Certificate.from_json((Path(folder) / FILES["certificate"]).read_text())
        if certificate != self.certificate():
            raise ManifestError(
                f"{FILES['certificate']}: not what C, sigma and the cadence of the manifest give; {CURE}"
            )
        tables = NoiseTable.load_all(Path(folder) / FILES["noise_table"], self.hashes["noise_table"])
        first, others = tables[0].sigma, {table.sigma for table in tables[1:]}
        if first != self.sigma or others != set(self.levels.values()) or len(tables) != len(self.sigmas):
            raise ManifestError(
                f"{FILES['noise_table']}: made for sigma {first} and {len(others)} levels, the manifest says "
                f"{self.sigma} and {dict(self.levels)}; {CURE}"
            )

    def read_graph(self, folder: Path | str, part: str) -> bytes:
        """Read a graph of `graphs()` once: what is returned has the hash that the manifest says.

        Raises:
            ManifestError: The file cannot be read, or has another hash.
        """
        return pinned.read(Path(folder) / GRAPHS[part], self.hashes[part])

    def open_verified(self, folder: Path | str, scratch: Path | str | None = None) -> AbstractContextManager[Path]:
        """Give a folder with the graphs and their external weights whose bytes cannot change after they were hashed.

        It is a private copy, deleted at the end of the block: what is read from it is what the manifest pins, whatever
        happens to `folder` meanwhile.

        Args:
            folder: The engine folder.
            scratch: Where to put the copy; None: where the system keeps temporary files.

        Raises:
            ManifestError: A file has another hash than the manifest says, or cannot be copied.
        """
        graphs = {GRAPHS[part]: self.hashes[part] for part in self.graphs()}
        return pinned.copied(folder, {**graphs, **self.external}, scratch)


def sha256_file(path: Path | str) -> str:
    """Hash a file; sha256 in hex. Raises ManifestError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}; {CURE}") from error
    return digest.hexdigest()


def _person_frame(found: Any) -> tuple[int, int] | None:
    if found is None:
        return None
    height, width = found
    return int(height), int(width)
