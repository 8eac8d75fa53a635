"""Alerts have a severity, the change that raised them, and the device's clock."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "downgrade", "revision", "upgrade"]

revision, down_revision = "0002", "0001"


def upgrade() -> None:
    """Add the columns; what was raised before has no severity and is its own first change."""
    op.add_column("bridge", sa.Column("wrote_s", sa.Float, nullable=False, server_default="0"))
    op.add_column("alerts", sa.Column("first_id", sa.String(32), nullable=False, server_default=""))
    op.add_column("alerts", sa.Column("severity", sa.String(16), nullable=False, server_default=""))
    op.add_column("alerts", sa.Column("device_s", sa.Float, nullable=False, server_default="0"))
    op.execute("UPDATE alerts SET first_id = id WHERE raised")
    op.create_index("ix_alerts_first_id", "alerts", ["first_id"])


def downgrade() -> None:
    """Take them out again."""
    op.drop_index("ix_alerts_first_id", "alerts")
    for column in ("first_id", "severity", "device_s"):
        op.drop_column("alerts", column)
    op.drop_column("bridge", "wrote_s")
