"""What is open, and what nobody has seen, is found without reading every change of every alert."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "downgrade", "revision", "upgrade"]

revision, down_revision = "0005", "0004"

_UNSEEN = sa.text(
    "raised AND seen_by = '' AND label NOT IN ('blind', 'late', 'not watching', 'stale', 'untrusted key', "
    "'clock skew', 'bridge lost', 'degraded')"
)


def upgrade() -> None:
    """Make the two indexes."""
    op.create_index("alerts_by_label", "alerts", ["camera_id", "label", "made_s"])
    columns = ["camera_id", "made_s"]
    op.create_index("alerts_unseen_risks", "alerts", columns, sqlite_where=_UNSEEN, postgresql_where=_UNSEEN)


def downgrade() -> None:
    """Take them out again."""
    op.drop_index("alerts_unseen_risks", "alerts")
    op.drop_index("alerts_by_label", "alerts")
