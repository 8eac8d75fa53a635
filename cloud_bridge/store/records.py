"""What the store takes in one commit, and what it knows of a camera. Plain values; no database here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from cloud_bridge.store.commands import Unsent
from wire.mqtt import Message
from wire.protocol.message import Alert, Verdict

__all__ = ["Accepted", "CameraRecord", "OpenAlert", "Stored", "Work", "boot_number", "boot_text"]


class Accepted(NamedTuple):
    """A verified release that is new, as it came."""

    boot_id: int
    slot: int
    message: bytes


class Stored(NamedTuple):
    """A release in the store. refused: the reason why it was not read after all; "" where it was, or may be."""

    slot: int
    refused: str
    message: bytes


class OpenAlert(NamedTuple):
    """An alert that is open.

    Attributes:
        id: Of the change that raised it.
        severity: Of its newest change.
        told_s: When it was told last, UTC; -1: somebody has seen it.
        probability: Of its newest change.
        raised_s: When it was raised, UTC; 0: that is not known any more. The store has it in the alert's own row, as it
        sentence: has what was said then; so deleting that row deletes both.
    """

    id: str
    severity: str
    told_s: float
    probability: float
    raised_s: float = 0.0
    sentence: str = ""


@dataclass(slots=True)
class CameraRecord:
    """How far one camera's stream was read under one key, and what its alerts and its event are.

    Attributes:
        id: Its number in the store.
        camera: `site/camera`.
        public_key: Hex.
        boot_id: Of the stream; -1: nothing was ever read.
        next_slot: The first slot that was not read yet. Stored releases from here on wait for an earlier slot.
        raised: Labels of the alerts that are raised.
        state_boot_id: Of the newest state; -1: none was ever read.
        state_count: Its number within that start.
        in_a_row: As `AlertBook` counts.
        turns: Label -> how often its alert has changed.
        open: Label of a raised alert -> its id, severity, and when it was told.
        event: As `CameraSession.saved` says.
        described: Boot id and last slot of the newest sentence.
    """

    id: int = 0
    camera: str = ""
    public_key: str = ""
    boot_id: int = -1
    next_slot: int = 0
    raised: list[str] = field(default_factory=list)
    state_boot_id: int = -1
    state_count: int = -1
    in_a_row: dict[str, int] = field(default_factory=dict)
    turns: dict[str, int] = field(default_factory=dict)
    open: dict[str, OpenAlert] = field(default_factory=dict)
    event: dict[str, Any] = field(default_factory=dict)
    described: tuple[int, int] = (-1, 0)

    def row(self) -> dict[str, Any]:
        """Its row of the table `cameras`."""
        opened = {label: each[:4] for label, each in self.open.items()}
        alerts = {"raised": self.raised, "in_a_row": self.in_a_row, "turns": self.turns, "open": opened}
        return {
            "id": self.id,
            "camera": self.camera,
            "public_key": self.public_key,
            "boot_id": boot_text(self.boot_id),
            "next_slot": self.next_slot,
            "state_boot_id": boot_text(self.state_boot_id),
            "state_count": self.state_count,
            "alerts": json.dumps(alerts),
            "event": json.dumps({**self.event, "described": [boot_text(self.described[0]), self.described[1]]}),
        }

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> CameraRecord:
        """Read a row. Raises KeyError, TypeError or ValueError where it cannot be one."""
        alerts, event = json.loads(row["alerts"]), json.loads(row["event"])
        boot, slot = event.pop("described")
        return cls(
            id=row["id"],
            camera=row["camera"],
            public_key=row["public_key"],
            boot_id=boot_number(row["boot_id"]),
            next_slot=row["next_slot"],
            raised=[str(label) for label in alerts["raised"]],
            state_boot_id=boot_number(row["state_boot_id"]),
            state_count=row["state_count"],
            in_a_row={str(label): int(count) for label, count in alerts["in_a_row"].items()},
            turns={str(label): int(count) for label, count in alerts["turns"].items()},
            open={str(label): OpenAlert(*each) for label, each in alerts.get("open", {}).items()},
            event=event,
            described=(boot_number(boot), int(slot)),
        )

    def change(self, alert: Alert, now_s: float) -> Alert:
        """Count a change of an alert, and give it its ids. One that is cleared has the severity that it had.

        The id follows from camera, key, boot id, slot, label, and how often this label's alert has changed.
        """
        turn = self.turns[alert.label] = self.turns.get(alert.label, 0) + 1
        what = [self.camera, self.public_key, boot_text(alert.boot_id), alert.slot, alert.label, turn]
        number = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]
        was = self.open.pop(alert.label, None)
        first = was.id if was else number
        if alert.raised:
            since = (was.raised_s, was.sentence) if was else (now_s, alert.sentence)
            self.open[alert.label] = OpenAlert(first, alert.severity, now_s, alert.probability, *since)
        severity = alert.severity if alert.raised or not was else was.severity
        return replace(alert, id=number, first_id=first, severity=severity)


@dataclass(slots=True)
class Work:
    """What one commit writes: all of it, or nothing. Rows are those of `tables.py`.

    Attributes:
        records: Camera -> its record, where it may have changed.
        commands: That are in the outbox now.
        answered: Camera -> when the sentence was asked for that a verdict of it has now.
        outbox: (camera's number in the store, message), in the order in which they are to be published.
    """

    records: dict[str, CameraRecord] = field(default_factory=dict)
    releases: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    outbox: list[tuple[int, Message]] = field(default_factory=list)
    webhooks: list[dict[str, Any]] = field(default_factory=list)
    commands: list[Unsent] = field(default_factory=list)
    answered: dict[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.records or self.outbox)

    def release(self, record: CameraRecord, taken: Accepted, received_s: float) -> None:
        """Add a verified release."""
        place = {"camera_id": record.id, "boot_id": boot_text(taken.boot_id), "slot": taken.slot}
        self.releases.append({**place, "received_s": received_s, "refused": "", "message": taken.message})

    def refuse(self, record: CameraRecord, boot_id: int, slot: int, reason: str) -> None:
        """Say of a release that was added, now or before, that it was not read."""
        place = {"of_camera": record.id, "of_boot": boot_text(boot_id), "of_slot": slot}
        self.refused.append({**place, "refused": reason})

    def verdict(self, record: CameraRecord, verdict: Verdict, message: Message, made_s: float) -> None:
        """Add a verdict, and what is published of it."""
        row = {
            "camera_id": record.id,
            "boot_id": boot_text(verdict.boot_id),
            "last_slot": verdict.last_slot,
            "made_s": made_s,
            "label": verdict.label,
            "probability": verdict.probability,
            "late": verdict.late,
            "unsure": verdict.unsure,
            "sentence": verdict.sentence,
            "message": message.payload,
        }
        self.verdicts.append(row)
        self.outbox.append((record.id, message))

    def alert(self, record: CameraRecord, alert: Alert, message: Message, made_s: float) -> None:
        """Add a change of an alert, and what is published of it."""
        row = {
            "id": alert.id,
            "first_id": alert.first_id,
            "camera_id": record.id,
            "boot_id": boot_text(alert.boot_id),
            "slot": alert.slot,
            "label": alert.label,
            "raised": alert.raised,
            "severity": alert.severity,
            "made_s": made_s,
            "device_s": alert.device_time_s,
            "probability": alert.probability,
            "sentence": alert.sentence,
            "message": message.payload,
            "seen_by": "",
            "seen_s": 0.0,
        }
        self.alerts.append(row)
        self.outbox.append((record.id, message))


def boot_text(boot_id: int) -> str:
    """A boot id as the store has it; "" for none."""
    return "" if boot_id < 0 else f"{boot_id:016x}"


def boot_number(text: str) -> int:
    """The boot id; -1 for none. Raises ValueError."""
    return int(text, 16) if text else -1
