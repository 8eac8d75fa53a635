"""A clip as a family reads it: small grey frames, and people where its tower sees them.

file     --`family_footage`--> Footage          through the cache
pictures --`picture_footage`--> Footage         rendered ones; the person network looks at them as at a film
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from familial.data.clips import Footage, read_clip, small_grey
from familial.data.people import PERCEIVE, PeopleOfClip, person_network
from familial.model.config import FamilyConfig
from familial.model.towers.registry import tower_class

__all__ = ["family_footage", "graph_for", "picture_footage"]


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


def picture_footage(
    pictures: npt.NDArray[np.uint8], rate: float, config: FamilyConfig, perceive: Path = PERCEIVE
) -> Footage:
    """Return pictures as a family of `config` reads them.

    Args:
        pictures: BGR u8 (T, h, w, 3), or grey u8 (T, h, w).
        rate: Pictures a second.
        config: of the family.
        perceive: graph of the person network.

    Raises:
        EngineError: the graph is needed and missing, or not the person network's.
    """
    frames, times = np.stack([small_grey(each, config.window) for each in pictures]), np.arange(len(pictures)) / rate
    graph = graph_for(config, perceive)
    if graph is None:
        return Footage(frames, times, len(pictures) / rate)
    looking = PeopleOfClip(person_network(graph), rate)
    for each in pictures:
        looking.see(each)
    return Footage(frames, times, len(pictures) / rate, *looking.found())
