"""Alerts have a severity, the change that raised them, and the device's clock; webhooks wait in a table; shards."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "downgrade", "revision", "upgrade"]

revision, down_revision = "0002", "0001"


def upgrade() -> None:
    """Add the columns; what was raised before has no severity and is its own first change."""
    op.add_column("bridge", sa.Column("wrote_s", sa.Float, nullable=False, server_default="0"))
    op.add_column("bridge", sa.Column("shards", sa.Integer, nullable=False, server_default="1"))
    _give_lanes()
    op.add_column("alerts", sa.Column("first_id", sa.String(32), nullable=False, server_default=""))
    op.add_column("alerts", sa.Column("severity", sa.String(16), nullable=False, server_default=""))
    op.add_column("alerts", sa.Column("device_s", sa.Float, nullable=False, server_default="0"))
    op.execute("UPDATE alerts SET first_id = id WHERE raised")
    op.create_index("ix_alerts_first_id", "alerts", ["first_id"])
    op.create_table(
        "webhooks",
        sa.Column("receiver", sa.String(16), primary_key=True),
        sa.Column("alert_id", sa.String(32), primary_key=True),
        sa.Column("lane", sa.Integer, nullable=False),
        sa.Column("camera_id", sa.Integer, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("created_s", sa.Float, nullable=False),
        sa.Column("due_s", sa.Float, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("next_s", sa.Float, nullable=False),
    )
    op.create_index("webhooks_in_order", "webhooks", ["receiver", "camera_id", "number"])


def _give_lanes() -> None:
    """Say of each message that waits to which shard it belongs, as shard.py does."""
    op.add_column("outbox", sa.Column("lane", sa.Integer, nullable=False, server_default="0"))
    cameras = sa.table("cameras", sa.column("id"), sa.column("camera"))
    outbox = sa.table("outbox", sa.column("lane"), sa.column("camera_id"))
    for number, name in op.get_bind().execute(sa.select(cameras.c.id, cameras.c.camera)).all():
        lane = int.from_bytes(hashlib.sha256(name.encode()).digest()[2:4], "big")
        op.execute(sa.update(outbox).where(outbox.c.camera_id == number).values(lane=lane))


def downgrade() -> None:
    """Take them out again."""
    op.drop_table("webhooks")
    op.drop_index("ix_alerts_first_id", "alerts")
    for column in ("first_id", "severity", "device_s"):
        op.drop_column("alerts", column)
    op.drop_column("outbox", "lane")
    for column in ("wrote_s", "shards"):
        op.drop_column("bridge", column)
