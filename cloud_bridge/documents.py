"""The bridge's JSON documents, which the broker keeps for later subscribers: its own status, and the open alerts.

    {site}/{camera}/alert/open       {"time_s", "count", "open": "fall, stale", and lists in this order: see `_lists`}
    bridges/{name of ours}/bridge    {"status", "reason", "count", "time_s", "cameras", "software", "public_key"}

Both are signed (wire/protocol/document.py). The Last Will is signed before the connection is made and has count 0:
whoever controls the broker can publish it at any time, so it is a hint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cloud_bridge.store.records import OpenAlert
from wire import __version__
from wire.mqtt import Message
from wire.protocol.document import MAX_DOCUMENT, seal_document
from wire.protocol.keys import DeviceKey
from wire.protocol.message import MAX_SENTENCE, coarse_time
from wire.protocol.topics import BRIDGES, TOPICS, topic

__all__ = ["BridgeStatus", "fill_open_alerts"]

_MOST = MAX_DOCUMENT - 158  # bytes of the fields; the rest is for schema and signature
_MOST_REASON = 200
_FEWEST = 16  # characters of a sentence, of which fewer say nothing
_STEP = 8  # characters, by which sentences are shortened
_UNKNOWN = OpenAlert("", "", -1.0, 0.0)  # of a store of an earlier version


def fill_open_alerts(
    labels: Sequence[str], opened: Mapping[str, OpenAlert], time_s: int, key: DeviceKey, site: str, camera: str
) -> bytes:
    """Make the signed list of a camera's open alerts.

    Sentences are shortened until all fits. Alerts that do not fit without any are counted only.

    Args:
        labels: Of the alerts, the oldest first.
        opened: Label -> what is known of it.
        time_s: Now, UTC, in whole minutes.
        key: The bridge's.
        site: As in the topic.
        camera: Likewise.
    """
    shown, longest = [(label, opened.get(label, _UNKNOWN)) for label in labels if label.isprintable()], MAX_SENTENCE
    fields: dict[str, Any] = {"time_s": time_s, "count": len(labels)}
    while len(json.dumps(fields | _lists(shown, longest))) > _MOST:
        shown = shown if longest else shown[:-1]
        longest = longest - _STEP if longest > _FEWEST else 0
    return seal_document("alert/open", fields | _lists(shown, longest), key, site, camera)


def _lists(shown: Sequence[tuple[str, OpenAlert]], longest: int) -> dict[str, str]:
    """The lists of a document, which is flat: all in one order. No sentence has a line feed, and no other a comma."""
    return {
        "open": ", ".join(label for label, _ in shown),
        "ids": ", ".join(each.id for _, each in shown),
        "severities": ", ".join(each.severity for _, each in shown),
        "raised_s": ", ".join(str(coarse_time(each.raised_s)) if each.raised_s else "" for _, each in shown),
        "sentences": "\n".join(_shortened(each.sentence, longest) for _, each in shown),
    }


def _shortened(sentence: str, longest: int) -> str:
    return sentence if len(sentence) <= longest else f"{sentence[: longest - 3]}..." if longest else ""


class BridgeStatus:
    """Makes the messages under the bridge's own topic. Its name is the beginning of its public key, and its shard."""

    def __init__(self, key: DeviceKey, cameras: int, suffix: str = "") -> None:
        self._key, self._cameras, self._count = key, cameras, 0
        self.name = key.public.hex[:16] + suffix

    def will(self, time_s: int) -> Message:
        """What the broker publishes when the connection breaks."""
        return self._make("offline", "connection lost", 0, time_s)

    def online(self, time_s: int, trouble: str = "") -> Message:
        """The first message of a connection, and what is said when `trouble` begins or ends."""
        return self._next("online", trouble[:_MOST_REASON], time_s)

    def offline(self, reason: str, time_s: int) -> Message:
        """The last message of a connection."""
        return self._next("offline", reason, time_s)

    def _next(self, status: str, reason: str, time_s: int) -> Message:
        self._count += 1
        return self._make(status, reason, self._count, time_s)

    def _make(self, status: str, reason: str, count: int, time_s: int) -> Message:
        fields = {
            "status": status,
            "reason": reason,
            "count": count,
            "time_s": time_s,
            "cameras": self._cameras,
            "software": f"veilsight {__version__}",
            "public_key": self._key.public.hex,
        }
        row, where = TOPICS["bridge"], topic(BRIDGES, self.name, "bridge")
        return Message(where, seal_document("bridge", fields, self._key, BRIDGES, self.name), row.qos, row.retain)
