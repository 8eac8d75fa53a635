"""What an engine is made from, and whether the present engine was made from it. No torch, no ONNX.

checkpoint folder, precision, backend, tools --Inputs.read--> hashes and names --why_build--> "" or what changed
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from export.graph_version import GRAPH_VERSION
from export.perceive import size
from export.precision.convert import calibration_hash
from wire.artifact.checkpoint import checkpoint_hash
from wire.artifact.manifest import EngineManifest
from wire.errors import CheckpointError, ManifestError
from wire.privacy.certificate import PROFILES

__all__ = ["Inputs", "why_build"]

_TOOLS = ("numpy", "onnx", "onnxruntime", "onnxscript", "torch", "transformers")


@dataclass(frozen=True, slots=True)
class Inputs:
    """What an engine is made from, as hashes, names and versions.

    Attributes:
        checkpoint: sha256 of the checkpoint, hex.
        noise_table: sha256 of noise_table.bin, hex.
        profile: Of noise.json: name of the profile.
        clip_norm: Of noise.json: C, lattice units.
        sigma: Of noise.json: noise parameter of the profile, lattice units.
        levels: Of noise.json: name -> sigma of the other profiles.
        precision: Of the graphs.
        calibration: sha256 of calibration.json, hex; "" where the precision needs none.
        backend: The backend that the engine is compared in.
        tools: Name -> version of the packages that build; "graphs" is GRAPH_VERSION.
        person_frame: Height and width of the person network's frame, pixels, for a family that sees people.
    """

    checkpoint: str
    noise_table: str
    profile: str
    clip_norm: int
    sigma: Fraction
    levels: Mapping[str, Fraction]
    precision: str
    calibration: str
    backend: str
    tools: Mapping[str, str]
    person_frame: tuple[int, int] = size.DEFAULT

    @classmethod
    def read(
        cls, checkpoint: Path, precision: str, backend_name: str, person_frame: tuple[int, int] = size.DEFAULT
    ) -> Inputs:
        """Read a checkpoint folder. Raises CheckpointError where a file is missing or noise.json contradicts itself."""
        noise = _Noise.read(checkpoint)
        return cls(
            checkpoint=checkpoint_hash(checkpoint),
            noise_table=hashlib.sha256(_bytes(checkpoint, "noise_table.bin")).hexdigest(),
            profile=noise.profile,
            clip_norm=noise.clip_norm,
            sigma=noise.sigma,
            levels=noise.levels,
            precision=precision,
            calibration=calibration_hash(checkpoint, precision),
            backend=backend_name,
            tools={**{name: _version(name) for name in _TOOLS}, "graphs": str(GRAPH_VERSION)},
            person_frame=person_frame,
        )


@dataclass(frozen=True, slots=True)
class _Noise:
    """The content of a checkpoint's noise.json."""

    profile: str
    clip_norm: int
    sigma: Fraction
    levels: Mapping[str, Fraction]

    @classmethod
    def read(cls, checkpoint: Path) -> _Noise:
        """Read and check it. Raises CheckpointError for a file that `calibration.noise` could not have written."""
        file, cure = checkpoint / "noise.json", _recalibrate(checkpoint)
        try:
            found = json.loads(_bytes(checkpoint, file.name))
            profile, clip_norm, sigma = found["profile"], found["clip_norm"], Fraction(found["sigma"])
            s_release, s_event = float(found["s_release"]), float(found["s_event"])
            levels = {str(name): Fraction(value) for name, value in found.get("levels", {}).items()}
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise CheckpointError(f"{file}: unreadable ({error!r}); {cure}") from error
        if not isinstance(clip_norm, int) or isinstance(clip_norm, bool) or not isinstance(profile, str) or sigma <= 0:
            raise CheckpointError(
                f"{file}: profile {profile!r}, clip_norm {clip_norm!r}, sigma {sigma} cannot be; {cure}"
            )
        if not math.isclose(s_release, clip_norm / sigma, rel_tol=1e-4):
            raise CheckpointError(
                f"{file}: s_release is {s_release}, but clip_norm {clip_norm} and sigma {sigma} give "
                f"{float(clip_norm / sigma):.6g}; {cure}"
            )
        if s_event > PROFILES.get(profile, math.inf) * (1 + 1e-9):
            raise CheckpointError(f"{file}: s_event is {s_event}, more than profile {profile} allows; {cure}")
        return cls(profile, clip_norm, sigma, levels)


def _recalibrate(checkpoint: Path) -> str:
    return f"run: python -m calibration.noise --checkpoint {checkpoint}"


def _bytes(checkpoint: Path, name: str) -> bytes:
    """Read one file of a checkpoint. Raises CheckpointError, with the cure, where it is missing."""
    try:
        return (checkpoint / name).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{checkpoint / name}: {error.strerror}; {_recalibrate(checkpoint)}") from error


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def why_build(out: Path, wanted: Inputs) -> str:
    """Return why the engine in `out` must be built again to be what `wanted` gives; "" where it is valid."""
    if not (out / "manifest.json").is_file():
        return "there is no engine yet"
    try:
        manifest = EngineManifest.load(out)
        manifest.check(out)
        ran_on = json.loads((out / "parity.json").read_text())["backend"]
    except (ManifestError, OSError, ValueError, KeyError, TypeError) as error:
        return f"the present engine is not valid: {error}"
    pairs = {
        "checkpoint": (manifest.hashes["checkpoint"], wanted.checkpoint),
        "noise table": (manifest.hashes["noise_table"], wanted.noise_table),
        "profile": (manifest.profile, wanted.profile),
        "clip_norm": (manifest.clip_norm, wanted.clip_norm),
        "sigma": (manifest.sigma, wanted.sigma),
        "levels": (dict(manifest.levels), dict(wanted.levels)),
        "precision": (manifest.precision, wanted.precision),
        "calibration": (manifest.hashes["calibration"], wanted.calibration),
        "backend": (ran_on, wanted.backend),
        "person frame": (manifest.person_frame, manifest.person_frame and wanted.person_frame),
    }
    names = sorted({*manifest.tools, *wanted.tools})
    pairs |= {f"tool {name}": (manifest.tools.get(name), wanted.tools.get(name)) for name in names}
    changed = [f"{name} changed ({_short(a)} -> {_short(b)})" for name, (a, b) in pairs.items() if a != b]
    return "; ".join(changed)


def _short(value: object) -> str:
    """A hash by its first 12 digits, anything else as it is."""
    text = str(value)
    return text[:12] if len(text) == 64 else text
