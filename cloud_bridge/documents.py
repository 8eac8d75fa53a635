"""The bridge's JSON documents, which the broker keeps for later subscribers: its own status, and the open alerts.

    {site}/{camera}/alert/open       {"time_s", "count", "open": "fall, stale"}
    bridges/{name of ours}/bridge    {"status", "reason", "count", "time_s", "cameras", "software", "public_key"}

Both are signed (wire/protocol/document.py). The Last Will is signed before the connection is made and has count 0:
whoever controls the broker can publish it at any time, so it is a hint.
"""

from __future__ import annotations

from collections.abc import Sequence

from wire import __version__
from wire.mqtt import Message
from wire.protocol.document import seal_document
from wire.protocol.keys import DeviceKey
from wire.protocol.topics import BRIDGES, TOPICS, topic

__all__ = ["BridgeStatus", "fill_open_alerts"]

_MOST = 600  # characters of labels in a document
_MOST_REASON = 200


def fill_open_alerts(labels: Sequence[str], time_s: int, key: DeviceKey, site: str, camera: str) -> bytes:
    """Make the signed list of a camera's open alerts; those that do not fit are counted only."""
    words = ", ".join(label for label in labels if label.isprintable())
    while len(words.encode()) > _MOST:
        words = words.rpartition(", ")[0]
    return seal_document("alert/open", {"time_s": time_s, "count": len(labels), "open": words}, key, site, camera)


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
