"""At which level a release is made: that of the profile in force, or what the engine's level rule says.

    ordered profile ──────────┐
    published z, levels ──────┴──► Choice (level, flag) ──► charge, noise, message

The rule itself, and why its price is public, is in `wire/privacy/level_rule.py`; here it meets the loop.
"""

from __future__ import annotations

from typing import NamedTuple

from edge_runtime.uplink.publisher import Release
from wire.artifact.manifest import EngineManifest
from wire.privacy.budget import Terms
from wire.protocol.message import FLAG_ADAPTIVE

__all__ = ["Choice", "Levels"]


class Choice(NamedTuple):
    """level: of the next release. flags: of its message."""

    level: int
    flags: int


class Levels:
    """One per start of the device. For each slot: `choose` before anything of it is charged, then `made`, once."""

    def __init__(self, manifest: EngineManifest, terms: Terms) -> None:
        self._terms, self._own = terms, manifest.level
        self._adaptive_level = manifest.make_adaptive_level() if terms.adaptive_level else None
        self._level = 0

    def choose(self, profile: str) -> Choice:
        """For the profile in force: its level, or the rule's where it is the engine's own; never above the rule's."""
        ordered = self._terms.profiles[profile]
        if self._adaptive_level is None:
            return Choice(ordered, 0)
        chosen = ordered == self._own
        self._level = self._adaptive_level.level if chosen else min(ordered, self._adaptive_level.level)
        return Choice(self._level, FLAG_ADAPTIVE if chosen else 0)

    def made(self, z: Release | None) -> None:
        """The chosen level was charged; z as it was published, None where nothing was, or noise alone."""
        if self._adaptive_level is not None:
            self._adaptive_level.advance(self._level, z)
