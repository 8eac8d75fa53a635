"""The person network: weights of others, converted to a graph that passes our proof."""

from __future__ import annotations

__all__: list[str] = []
