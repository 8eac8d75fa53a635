"""Sentences that the API was asked for have a table."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "downgrade", "revision", "upgrade"]

revision, down_revision = "0004", "0003"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "sentence_requests",
        sa.Column("camera", sa.String(130), primary_key=True),
        sa.Column("lane", sa.Integer, nullable=False),
        sa.Column("asked_s", sa.Float, nullable=False),
    )


def downgrade() -> None:
    """Take it out again."""
    op.drop_table("sentence_requests")
