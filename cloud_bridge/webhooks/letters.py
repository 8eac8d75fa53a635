"""What is sent over HTTP: a letter for each receiver that wants a change of an alert. Pure.

alert --Letters.rows--> rows of the table `webhooks`, which the alert's own transaction writes
body, secret, time --headers--> what is sent with it: an id, the time, and a signature over time and body
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from cloud_bridge.alerts.quiet import QuietHours
from cloud_bridge.store.records import CameraRecord
from cloud_bridge.store.shard import lane_of
from cloud_bridge.webhooks.config import WebhookConfig
from wire import __version__
from wire.protocol.message import Alert, trace_id

__all__ = ["Letters", "headers"]


class Letters:
    """Writes letters."""

    def __init__(self, receivers: Sequence[WebhookConfig], quiet: QuietHours) -> None:
        self._receivers, self._quiet = receivers, quiet

    def rows(self, record: CameraRecord, alert: Alert, now_s: float) -> list[dict[str, Any]]:
        """A row for each receiver that wants this change; those of a quiet severity are due when the quiet ends."""
        wanted = [each for each in self._receivers if _wants(each, record.camera, alert)]
        due_s = self._quiet.until(alert.severity, now_s) if wanted else now_s
        letter = {
            "alert_id": alert.id,
            "lane": lane_of(record.camera),
            "camera_id": record.id,
            "number": sum(record.turns.values()),
            "body": _body(record.camera, alert, now_s) if wanted else "",
            "created_s": now_s,
            "due_s": due_s,
            "tries": 0,
            "next_s": due_s,
        }
        return [{"receiver": each.key, **letter} for each in wanted]


def headers(secret: bytes, alert_id: str, body: bytes, now_s: float) -> dict[str, str]:
    """What goes with a letter that is sent now; the id is the same at every attempt."""
    sent = str(int(now_s))
    signature = hmac.new(secret, sent.encode() + b"." + body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "User-Agent": f"veilsight/{__version__}",
        "Veilsight-Id": alert_id,
        "Veilsight-Time": sent,
        "Veilsight-Signature": f"v1={signature}",
    }


def _wants(receiver: WebhookConfig, camera: str, alert: Alert) -> bool:
    site = camera.partition("/")[0]
    asked = ((receiver.labels, alert.label), (receiver.severities, alert.severity), (receiver.sites, site))
    return all(not names or name in names for names, name in asked)


def _body(camera: str, alert: Alert, now_s: float) -> str:
    change = "cleared" if not alert.raised else "raised" if alert.id == alert.first_id else "escalated"
    at = datetime.fromtimestamp(now_s, timezone.utc).isoformat(timespec="milliseconds")
    return json.dumps(
        {
            "id": alert.id,
            "first_id": alert.first_id,
            "change": change,
            "camera": camera,
            "label": alert.label,
            "severity": alert.severity,
            "sentence": alert.sentence,
            "probability": round(alert.probability, 4),
            "time": at.replace("+00:00", "Z"),
            "device_time_s": alert.device_time_s,
            "boot_id": f"{alert.boot_id:016x}",
            "slot": alert.slot,
            "trace": trace_id(camera, alert.boot_id, alert.slot),
        }
    )
