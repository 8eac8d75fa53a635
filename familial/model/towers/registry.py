"""The towers by the name that a config gives them: `FamilyConfig.tower` -> class, imported when it is needed.

To add a tower: write one file here with a subclass of `Tower`, give it a row in `TOWERS`, a row in the table of towers
in docs/checkpoints.md and a small config in tests/unit/familial/test_familial_towers.py, which names what is missing.
"""

from __future__ import annotations

import importlib

from familial.model.config import FamilyConfig
from familial.model.towers.base import Tower
from wire.errors import CheckpointError

__all__ = ["TOWERS", "make_tower", "tower_class"]

TOWERS = {
    "snippets": "familial.model.towers.motion:SnippetTower",
    "fused": "familial.model.towers.fused:FusedTower",
    "qwen": "familial.model.towers.qwen:QwenTower",
}


def tower_class(name: str) -> type[Tower]:
    """The class of the tower called `name`; CheckpointError for a name that has no row in `TOWERS`."""
    if name not in TOWERS:
        raise CheckpointError(f"tower is {name!r}; known are {sorted(TOWERS)}: give one of them in config.json")
    module, _, attribute = TOWERS[name].partition(":")
    found: type[Tower] = getattr(importlib.import_module(module), attribute)
    return found


def make_tower(config: FamilyConfig) -> Tower:
    """A freshly initialised tower as the config names and sizes it; an unknown name raises CheckpointError."""
    return tower_class(config.tower).of_config(config)
