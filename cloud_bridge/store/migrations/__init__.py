"""One module for each change of the store's tables, read by Alembic in the order that they name."""

from __future__ import annotations

__all__: list[str] = []
