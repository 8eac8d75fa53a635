"""The parts of a family that no base has, freshly initialised without making the family that they belong to.

config --tower, blocks as small as they can be--> Family --> desensitizer, adapter, edge exit, words
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from familial.model.adapter import ADAPTER
from familial.model.config import FamilyConfig
from familial.model.family import Family
from wire.errors import CheckpointError

__all__ = ["FRESH", "WORDS", "fresh_parts"]

FRESH = ("desensitizer.", f"{ADAPTER}.", "exit_")
"""How the names of weights begin that no base has."""

WORDS = ("embed.", "head.")
"""How those of the words begin, which are the family's own and few."""


def fresh_parts(config: FamilyConfig) -> dict[str, Tensor]:
    """Name -> tensor of all that is neither tower, block nor last norm; CheckpointError without a Qwen tower."""
    if config.vision is None:
        raise CheckpointError("tower is 'qwen', but there is no vision")
    vision = replace(config.vision, depth=1, hidden=4, heads=1, mlp=1, positions=1)
    small: dict[str, Any] = {"layers": 1, "exit_at": 1, "exit_block": "shared", "heads": 1, "kv_heads": 1}
    family = Family(replace(config, vision=vision, head_dim=2, mlp=1, experts=0, **small))
    return {name: value for name, value in family.state_dict().items() if name.startswith(FRESH + WORDS)}
