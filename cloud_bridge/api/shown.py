"""The form of what the API tells of alerts, and of what webhooks carry, for the OpenAPI document.

A row of the store --queries.py--> a dict --checked against these--> JSON, and the schemas of /openapi.json
"""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import FastAPI

__all__ = ["AlertPage", "AlertRow", "AlertWithComments", "CommentRow", "WebhookBody", "describe_webhooks"]


@dataclass(frozen=True, slots=True)
class AlertRow:
    """A change of an alert.

    Attributes:
        camera: `site/camera`.
        id: Of this change, 32 hex digits.
        first_id: Of the change that raised the alert.
        boot_id: Of the device's start, 16 hex digits.
        slot: Of the release at which it changed.
        made_s: The bridge's clock, UTC, seconds since 1970.
        device_s: The device's, in whole minutes; 0: unknown.
        seen_by: Who has acknowledged it first; "": nobody.
        trace: The OpenTelemetry trace of that release, 32 hex digits.
    """

    camera: str
    id: str
    first_id: str
    boot_id: str
    slot: int
    label: str
    raised: bool
    severity: str
    made_s: float
    device_s: float
    probability: float
    sentence: str
    seen_by: str
    seen_s: float
    trace: str


@dataclass(frozen=True, slots=True)
class CommentRow:
    """What somebody wrote about an alert."""

    who: str
    at_s: float
    words: str


@dataclass(frozen=True, slots=True)
class AlertWithComments(AlertRow):
    """A change of an alert with its comments, the oldest first."""

    comments: list[CommentRow]


@dataclass(frozen=True, slots=True)
class AlertPage:
    """A page of changes of alerts. next: names the last row, for `after`; "": it was the last page."""

    rows: list[AlertRow]
    next: str


@dataclass(frozen=True, slots=True)
class WebhookBody:
    """What a webhook carries. The names are those of a row; `time` is the bridge's clock, ISO 8601, UTC."""

    id: str
    first_id: str
    change: str
    camera: str
    label: str
    severity: str
    sentence: str
    probability: float
    time: str
    device_time_s: int
    boot_id: str
    slot: int
    trace: str


def describe_webhooks(app: FastAPI) -> None:
    """Say in the OpenAPI document what is posted to receivers (docs/webhooks.md)."""

    @app.webhooks.post("alert")
    def alert(body: WebhookBody) -> None:
        """A change of an alert: raised, escalated or cleared. Headers sign it; answer 2xx as soon as you have it."""
