"""What every attack is made of: the plan, the setting, pieces of work, and the attack itself. Knows no attack.

Attack.pieces(Setting) --> Piece, ...      Attack.run(Bench of one piece) --> Finding, ...
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.audit import classifiers
from calibration.audit.classifiers import Effort, Outcome
from calibration.audit.findings import Finding
from calibration.audit.targets import GALLERIES, WINDOWS, Gallery
from wire.artifact.manifest import EngineManifest
from wire.errors import ConfigError
from wire.privacy.certificate import sigma_for

__all__ = [
    "ATTRIBUTE_CONTROL",
    "CONTROL_SHIFT",
    "NAMING_CONTROL",
    "VIEWS",
    "Attack",
    "Bench",
    "Piece",
    "Plan",
    "Setting",
    "training_detail",
]

VIEWS = {"release": 1, "event": 0, "sequence": WINDOWS}
"""View -> how many releases the attacker reads together; 0: as many as an event has."""
CONTROL_SHIFT = 60.0
"""S per event of the controls: practically no noise."""
NAMING_CONTROL = 0.5
"""What the control of a naming attack must reach: half of all named right."""
ATTRIBUTE_CONTROL = 0.9
"""What the control of an attribute attack must reach, as AUC."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done.

    Attributes:
        name: of the plan, for the page.
        levels: S per event.
        people: rendered people to be named.
        clips: of each of them.
        bodies: rendered people whose attributes are asked for.
        place_clips: clips of a place, at most.
        classifiers: effort of the classifiers.
        decoders: effort of the decoders of pictures.
        galleries: sizes of the matched filter's galleries.
        trials: of the matched filter.
        frames: windows tried against |mu|.
        averaged: numbers of releases to average.
        slots: of each device that runs with a hostile eye.
        seed: of everything that is drawn.
    """

    name: str
    levels: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 3.0)
    people: int = 20
    clips: int = 10
    bodies: int = 400
    place_clips: int = 20
    classifiers: Effort = Effort(turns=3)
    decoders: Effort = Effort(windows=102_400)
    galleries: tuple[int, ...] = (10, 1_000, 100_000)
    trials: int = 2_000
    frames: int = 400
    averaged: tuple[int, ...] = (1, 10, 100, 1_000)
    slots: int = 900
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Setting:
    """What every piece is given.

    Attributes:
        engine: folder of the engine.
        engines: precision and folder of each engine, the first included.
        galleries: name and file of each gallery there is.
        plan: how much is done.
    """

    engine: Path
    engines: tuple[tuple[str, Path], ...]
    galleries: tuple[tuple[str, Path], ...]
    plan: Plan

    def has(self, name: str) -> bool:
        """Return whether there is a gallery of this name."""
        return name in dict(self.galleries)

    def gallery(self, name: str) -> Gallery:
        """Return a gallery, loaded once a process."""
        return _load(dict(self.galleries)[name])


@cache
def _load(path: Path) -> Gallery:
    return Gallery.load(path)


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of work: which attack, on what, from which view, and at which S per event (0: at all of the plan)."""

    attack: str
    target: str
    view: str = ""
    shift: float = 0.0

    @property
    def name(self) -> str:
        """All of it in words, the same for the same piece."""
        level = f"S={self.shift:g}" if self.shift else ""
        return " ".join(part for part in (self.attack, self.target, self.view, level) if part)


_LEAKY: dict[tuple[str, bytes], npt.NDArray[np.int16]] = {}


@dataclass(slots=True)
class Bench:
    """What a running piece works with: its setting, the engine's numbers, the noise of each S, and its pictures.

    Attributes:
        setting: of the audit.
        piece: that is run.
        manifest: of the engine.
        releases: how many the attacker reads together in the piece's view.
        pictures: view -> rows to show on the page, of rendered people only; the attack fills it.
    """

    setting: Setting
    piece: Piece
    pictures: dict[str, Any] = field(default_factory=dict)
    manifest: EngineManifest = field(init=False)
    releases: int = field(init=False)

    def __post_init__(self) -> None:
        self.manifest = EngineManifest.load(self.setting.engine)
        self.releases = VIEWS.get(self.piece.view, 0) or self.manifest.event_releases

    @property
    def plan(self) -> Plan:
        """How much is done."""
        return self.setting.plan

    def sigma(self, shift: float) -> Fraction:
        """Return the noise that the device would use at this S per event."""
        return sigma_for(self.manifest.clip_norm, shift, self.manifest.event_releases)

    def total_shift(self, shift: float, releases: int) -> float:
        """Return S of `releases` releases at S = `shift` per event."""
        return float(self.manifest.clip_norm / self.sigma(shift)) * math.sqrt(releases)

    def leaky_codes(self, gallery: Gallery, label: npt.NDArray[np.int64]) -> npt.NDArray[np.int16]:
        """Return the gallery's codes from a desensitizer trained to leak `label`; trained once a process."""
        key = (self.piece.target, label.tobytes())
        if key not in _LEAKY:
            _LEAKY[key] = classifiers.leak(gallery, label, self.manifest.clip_norm)
        return _LEAKY[key]


def training_detail(effort: Effort, outcome: Outcome, releases: int) -> dict[str, Any]:
    """Return what a row says about its classifiers: windows of the training, value of each, clips of the test."""
    per_step = max(128, effort.batch // releases)
    trained = math.ceil(effort.windows / per_step) * per_step * releases
    return {"noised_windows": trained, "classifiers": dict(outcome.classifiers), "test_clips": outcome.units}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One attack, whole: an attack that lacks a part cannot be made.

    Attributes:
        name: in rows, on the command line and in cache keys.
        title: heading of its section on the page.
        text: what it does and what it is compared with, for the page.
        galleries: which galleries it can attack; empty where it needs none.
        pieces: the pieces of work that a setting has galleries and engines for.
        run: does one piece, and yields its rows.
        weight: how long its longest piece takes, beside other attacks'; the heaviest are started first.

    Raises:
        ConfigError: a part is missing, or a gallery is unknown.
    """

    name: str
    title: str
    text: str
    galleries: frozenset[str]
    pieces: Callable[[Setting], Iterable[Piece]]
    run: Callable[[Bench], Iterator[Finding]]
    weight: int = 0

    def __post_init__(self) -> None:
        missing = [part for part in ("name", "title", "text") if not str(getattr(self, part) or "").strip()]
        missing += [part for part in ("pieces", "run") if not callable(getattr(self, part))]
        if missing:
            raise ConfigError(f"attack {self.name!r}: {', '.join(missing)} is missing; see calibration/audit/attacks")
        if unknown := sorted(self.galleries - set(GALLERIES)):
            raise ConfigError(
                f"attack {self.name!r}: galleries are {unknown}; expected some of {', '.join(GALLERIES)}, or make a "
                "new one in calibration/audit/targets.py and auditor.py"
            )

    def work(self, setting: Setting) -> list[Piece]:
        """Return its pieces for a setting; none only where none of its galleries is there.

        Raises:
            ConfigError: it yields no pieces though it could, or pieces of another attack.
        """
        if self.galleries and not any(map(setting.has, self.galleries)):
            return []
        made = list(self.pieces(setting))
        if not made:
            there = sorted(filter(setting.has, self.galleries))
            given = f"galleries {', '.join(there)} are there" if there else "it needs no gallery"
            raise ConfigError(
                f"attack {self.name!r}: `pieces` yields nothing, but {given}; it would not be made at all"
            )
        if foreign := sorted({piece.attack for piece in made} - {self.name}):
            raise ConfigError(f"attack {self.name!r}: a piece names the attack {foreign[0]!r}; name it {self.name!r}")
        return made
