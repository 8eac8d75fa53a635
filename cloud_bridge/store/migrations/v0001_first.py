"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "downgrade", "revision", "upgrade"]

revision, down_revision = "0001", None


def upgrade() -> None:
    """Make all tables."""
    _bridge_and_cameras()
    _releases_and_verdicts()
    _alerts()
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
        sa.Column("camera_id", sa.Integer, nullable=False),
        sa.Column("topic", sa.String(300), nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("qos", sa.Integer, nullable=False),
        sa.Column("retain", sa.Boolean, nullable=False),
        sa.Column("created_s", sa.Float, nullable=False),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at_s", sa.Float, nullable=False),
        sa.Column("who", sa.String(64), nullable=False),
        sa.Column("what", sa.String(64), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_index("audit_by_time", "audit", ["at_s"])


def _bridge_and_cameras() -> None:
    op.create_table(
        "bridge",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("batch", sa.BigInteger, nullable=False),
        sa.Column("until_s", sa.Float, nullable=False),
    )
    op.create_table(
        "cameras",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("camera", sa.String(130), nullable=False),
        sa.Column("public_key", sa.String(64), nullable=False),
        sa.Column("boot_id", sa.String(16), nullable=False),
        sa.Column("next_slot", sa.BigInteger, nullable=False),
        sa.Column("state_boot_id", sa.String(16), nullable=False),
        sa.Column("state_count", sa.BigInteger, nullable=False),
        sa.Column("alerts", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.UniqueConstraint("camera", "public_key", name="one_record_a_key"),
    )


def _releases_and_verdicts() -> None:
    op.create_table(
        "releases",
        sa.Column("camera_id", sa.Integer, primary_key=True),
        sa.Column("boot_id", sa.String(16), primary_key=True),
        sa.Column("slot", sa.BigInteger, primary_key=True),
        sa.Column("received_s", sa.Float, nullable=False),
        sa.Column("refused", sa.String(16), nullable=False),
        sa.Column("message", sa.LargeBinary, nullable=False),
    )
    op.create_index("releases_by_time", "releases", ["received_s"])
    op.create_table(
        "verdicts",
        sa.Column("camera_id", sa.Integer, primary_key=True),
        sa.Column("boot_id", sa.String(16), primary_key=True),
        sa.Column("last_slot", sa.BigInteger, primary_key=True),
        sa.Column("made_s", sa.Float, nullable=False),
        sa.Column("label", sa.String(64), nullable=False),
        sa.Column("probability", sa.Float, nullable=False),
        sa.Column("late", sa.Boolean, nullable=False),
        sa.Column("unsure", sa.Boolean, nullable=False),
        sa.Column("sentence", sa.Text, nullable=False),
        sa.Column("message", sa.LargeBinary, nullable=False),
    )
    op.create_index("verdicts_by_time", "verdicts", ["made_s"])


def _alerts() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("camera_id", sa.Integer, nullable=False),
        sa.Column("boot_id", sa.String(16), nullable=False),
        sa.Column("slot", sa.BigInteger, nullable=False),
        sa.Column("label", sa.String(64), nullable=False),
        sa.Column("raised", sa.Boolean, nullable=False),
        sa.Column("made_s", sa.Float, nullable=False),
        sa.Column("probability", sa.Float, nullable=False),
        sa.Column("sentence", sa.Text, nullable=False),
        sa.Column("message", sa.LargeBinary, nullable=False),
        sa.Column("seen_by", sa.String(64), nullable=False),
        sa.Column("seen_s", sa.Float, nullable=False),
    )
    op.create_index("alerts_by_time", "alerts", ["made_s"])
    op.create_index("alerts_by_place", "alerts", ["camera_id", "boot_id", "slot"])
    op.create_table(
        "comments",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("alert_id", sa.String(32), nullable=False),
        sa.Column("who", sa.String(64), nullable=False),
        sa.Column("at_s", sa.Float, nullable=False),
        sa.Column("words", sa.Text, nullable=False),
    )
    op.create_index("ix_comments_alert_id", "comments", ["alert_id"])


def downgrade() -> None:
    """Drop all tables."""
    for name in ("audit", "outbox", "comments", "alerts", "verdicts", "releases", "cameras", "bridge"):
        op.drop_table(name)
