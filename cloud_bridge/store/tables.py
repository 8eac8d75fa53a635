"""The tables of the store. A migration (migrations/) makes them; a test compares the two.

    bridge     of each shard the one bridge that may write, the number of its last commit, and when that was
    cameras    per camera and key: how far its stream was read, what is raised, the state of its event
    releases   every verified release, as it came                    (camera, boot id, slot)
    verdicts   every verdict, signed                                 (camera, boot id, last slot)
    alerts     every change of an alert, signed, and who has seen it (an id that follows from camera, boot id and slot)
    comments   what people wrote about an alert
    outbox     what the broker has not confirmed yet, in order; numbers below 0: what a bridge is still to number
    webhooks   what has not been delivered over HTTP yet, for each receiver; in order within each camera
    commands   what devices were ordered to do, signed, and whether the outbox has it
    sentence_requests  cameras whose next verdict is to have a sentence, as the API was asked
    audit      who read, changed or deleted what

A lane says to which shard a camera belongs (shard.py). Boot ids are 16 hex digits, so that they sort as numbers and no
database rounds them. Times are UTC, seconds since 1970.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

__all__ = [
    "UNSEEN_RISK",
    "alerts",
    "audit",
    "bridge",
    "cameras",
    "commands",
    "comments",
    "metadata",
    "outbox",
    "releases",
    "sentence_requests",
    "verdicts",
    "webhooks",
]

metadata = MetaData()

bridge = Table(
    "bridge",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("shards", Integer, nullable=False),
    Column("owner", String(200), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("batch", BigInteger, nullable=False),
    Column("until_s", Float, nullable=False),
    Column("wrote_s", Float, nullable=False),
)

cameras = Table(
    "cameras",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("camera", String(130), nullable=False),
    Column("public_key", String(64), nullable=False),
    Column("boot_id", String(16), nullable=False),
    Column("next_slot", BigInteger, nullable=False),
    Column("state_boot_id", String(16), nullable=False),
    Column("state_count", BigInteger, nullable=False),
    Column("alerts", Text, nullable=False),
    Column("event", Text, nullable=False),
    UniqueConstraint("camera", "public_key", name="one_record_a_key"),
)

releases = Table(
    "releases",
    metadata,
    Column("camera_id", Integer, primary_key=True),
    Column("boot_id", String(16), primary_key=True),
    Column("slot", BigInteger, primary_key=True),
    Column("received_s", Float, nullable=False),
    Column("refused", String(16), nullable=False),
    Column("message", LargeBinary, nullable=False),
    Index("releases_by_time", "received_s"),
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("camera_id", Integer, primary_key=True),
    Column("boot_id", String(16), primary_key=True),
    Column("last_slot", BigInteger, primary_key=True),
    Column("made_s", Float, nullable=False),
    Column("label", String(64), nullable=False),
    Column("probability", Float, nullable=False),
    Column("late", Boolean, nullable=False),
    Column("unsure", Boolean, nullable=False),
    Column("sentence", Text, nullable=False),
    Column("message", LargeBinary, nullable=False),
    Index("verdicts_by_time", "made_s"),
)

UNSEEN_RISK = text(
    "raised AND seen_by = '' AND label NOT IN ('blind', 'late', 'not watching', 'stale', 'untrusted key', "
    "'clock skew', 'bridge lost', 'degraded')"
)
"""Of an alert's change: it raised a risk, not a condition of a camera, and nobody has seen it. As text without bound
values, so that both databases know a query's condition as that of their index."""

alerts = Table(
    "alerts",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("first_id", String(32), nullable=False, index=True),
    Column("camera_id", Integer, nullable=False),
    Column("boot_id", String(16), nullable=False),
    Column("slot", BigInteger, nullable=False),
    Column("label", String(64), nullable=False),
    Column("raised", Boolean, nullable=False),
    Column("severity", String(16), nullable=False),
    Column("made_s", Float, nullable=False),
    Column("device_s", Float, nullable=False),
    Column("probability", Float, nullable=False),
    Column("sentence", Text, nullable=False),
    Column("message", LargeBinary, nullable=False),
    Column("seen_by", String(64), nullable=False),
    Column("seen_s", Float, nullable=False),
    Index("alerts_by_time", "made_s"),
    Index("alerts_by_place", "camera_id", "boot_id", "slot"),
    Index("alerts_by_label", "camera_id", "label", "made_s"),
    Index("alerts_unseen_risks", "camera_id", "made_s", sqlite_where=UNSEEN_RISK, postgresql_where=UNSEEN_RISK),
)

comments = Table(
    "comments",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("alert_id", String(32), nullable=False, index=True),
    Column("who", String(64), nullable=False),
    Column("at_s", Float, nullable=False),
    Column("words", Text, nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("lane", Integer, nullable=False),
    Column("camera_id", Integer, nullable=False),
    Column("topic", String(300), nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("qos", Integer, nullable=False),
    Column("retain", Boolean, nullable=False),
    Column("created_s", Float, nullable=False),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("receiver", String(16), primary_key=True),
    Column("alert_id", String(32), primary_key=True),
    Column("lane", Integer, nullable=False),
    Column("camera_id", Integer, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_s", Float, nullable=False),
    Column("due_s", Float, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("next_s", Float, nullable=False),
    Index("webhooks_in_order", "receiver", "camera_id", "number"),
)

commands = Table(
    "commands",
    metadata,
    Column("camera", String(130), primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("lane", Integer, nullable=False),
    Column("profile", String(32), nullable=False),
    Column("who", String(64), nullable=False),
    Column("made_s", Float, nullable=False),
    Column("sent_s", Float, nullable=False),
    Column("message", LargeBinary, nullable=False),
    Index("commands_by_time", "made_s"),
)

sentence_requests = Table(
    "sentence_requests",
    metadata,
    Column("camera", String(130), primary_key=True),
    Column("lane", Integer, nullable=False),
    Column("asked_s", Float, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at_s", Float, nullable=False),
    Column("who", String(64), nullable=False),
    Column("what", String(64), nullable=False),
    Column("detail", Text, nullable=False),
    Index("audit_by_time", "at_s"),
)
