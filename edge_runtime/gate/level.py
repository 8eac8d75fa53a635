"""The privacy level of each release: that of the profile in force, or what the engine's level rule says.

    ordered profile ──────────┐
    published z, levels ──────┴──► Choice (level, flag) ──► charge, noise, message

The rule, and why its choices are public, is in `wire/privacy/level_rule.py`; the loop applies it through this module.
"""

from __future__ import annotations

from typing import NamedTuple

from edge_runtime.uplink.publisher import Release
from wire.artifact.manifest import EngineManifest
from wire.privacy.budget import Terms
from wire.protocol.message import FLAG_ADAPTIVE

__all__ = ["Choice", "Levels"]


class Choice(NamedTuple):
    """The level of the next release, and the flags of its message."""

    level: int
    flags: int


class Levels:
    """The levels of one start of the device. For each slot call `choose` before it is charged, and `made` after it."""

    def __init__(self, manifest: EngineManifest, terms: Terms) -> None:
        self._terms, self._own = terms, manifest.level
        self._adaptive_level = manifest.make_adaptive_level() if terms.adaptive_level else None
        self._level = 0

    def choose(self, profile: str) -> Choice:
        """Choose the level of the next release.

        Without the rule: the profile's level. With it: the rule's level where the profile is the engine's own, else the
        profile's, but never more revealing than the rule's.
        """
        ordered = self._terms.profiles[profile]
        if self._adaptive_level is None:
            return Choice(ordered, 0)
        chosen = ordered == self._own
        self._level = self._adaptive_level.level if chosen else min(ordered, self._adaptive_level.level)
        return Choice(self._level, FLAG_ADAPTIVE if chosen else 0)

    def made(self, z: Release | None) -> None:
        """Tell the rule what was published at the chosen level: z, or None for nothing or noise alone."""
        if self._adaptive_level is not None:
            self._adaptive_level.advance(self._level, z)
