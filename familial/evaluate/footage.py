"""A clip as a family reads it: small grey frames, and people where its tower sees them."""

from __future__ import annotations

from pathlib import Path

from familial.data.clips import Footage, read_clip
from familial.data.people import PERCEIVE
from familial.model.config import FamilyConfig
from familial.model.towers.registry import tower_class

__all__ = ["family_footage", "graph_for"]


def graph_for(config: FamilyConfig, perceive: Path = PERCEIVE) -> Path | None:
    """Return the person network's graph, `perceive`, where the config's tower sees people; else None."""
    return perceive if tower_class(config.tower).sees_people else None


def family_footage(file: Path, config: FamilyConfig, perceive: Path = PERCEIVE) -> Footage:
    """Read a clip as a family of `config` does.

    Args:
        file: the clip.
        config: of the family.
        perceive: graph of the person network.

    Raises:
        DataError: the clip cannot be read.
        EngineError: the graph is needed and missing, or not the person network's.
    """
    return read_clip(file, config.window, perceive=graph_for(config, perceive))
