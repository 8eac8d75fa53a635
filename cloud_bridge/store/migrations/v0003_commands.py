"""Commands to devices have a table."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "downgrade", "revision", "upgrade"]

revision, down_revision = "0003", "0002"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "commands",
        sa.Column("camera", sa.String(130), primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True),
        sa.Column("lane", sa.Integer, nullable=False),
        sa.Column("profile", sa.String(32), nullable=False),
        sa.Column("who", sa.String(64), nullable=False),
        sa.Column("made_s", sa.Float, nullable=False),
        sa.Column("sent_s", sa.Float, nullable=False),
        sa.Column("message", sa.LargeBinary, nullable=False),
    )
    op.create_index("commands_by_time", "commands", ["made_s"])


def downgrade() -> None:
    """Take it out again."""
    op.drop_table("commands")
