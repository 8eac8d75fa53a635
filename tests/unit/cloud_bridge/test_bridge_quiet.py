"""Quiet hours: which severities wait, until when, over midnight and over a change of the clocks."""

from __future__ import annotations

from datetime import datetime, timezone
from zoneinfo import ZoneInfo

import pytest

from cloud_bridge.alerts.quiet import QuietHours
from cloud_bridge.alerts.rules import AlertRule
from wire.errors import ConfigError

BERLIN = ZoneInfo("Europe/Berlin")


def until(hours: QuietHours, severity: str, at: datetime) -> datetime:
    return datetime.fromtimestamp(hours.until(severity, at.timestamp()), at.tzinfo)


def utc(hour: int, minute: int = 0, day: int = 10) -> datetime:
    return datetime(2026, 3, day, hour, minute, tzinfo=timezone.utc)


NIGHT = QuietHours(["22:00-06:00 info warning"], "UTC")


@pytest.mark.parametrize(
    ("at", "ends"),
    [
        (utc(21, 59), utc(21, 59)),
        (utc(22), utc(6, day=11)),
        (utc(23, 59), utc(6, day=11)),
        (utc(0), utc(6)),
        (utc(5, 59), utc(6)),
        (utc(6), utc(6)),
    ],
)
def test_a_night_ends_in_the_morning(at: datetime, ends: datetime) -> None:
    assert until(NIGHT, "warning", at) == ends
    assert until(NIGHT, "critical", at) == at == until(QuietHours([], "UTC"), "info", at)


def test_spans_that_touch_are_one(tmp_path: object) -> None:
    hours = QuietHours(["12:00-14:00 info", "14:00-15:30 info", "13:00-13:30 info"], "UTC")
    assert until(hours, "info", utc(12, 30)) == utc(15, 30)


def test_the_hours_are_those_of_the_zone_also_where_the_clocks_change() -> None:
    hours = QuietHours(["22:00-06:00 info"], "Europe/Berlin")
    before = datetime(2026, 3, 28, 23, 0, tzinfo=BERLIN)  # the night has seven hours
    assert until(hours, "info", before) == datetime(2026, 3, 29, 6, 0, tzinfo=BERLIN)
    assert hours.until("info", before.timestamp()) - before.timestamp() == 6 * 3600.0


@pytest.mark.parametrize(
    ("spans", "words"),
    [
        (["22-6 info"], 'write a span and severities: "22:00-06:00 info warning"'),
        (["22:00-06:00"], "write a span and severities"),
        (["24:00-06:00 info"], "write a span and severities"),
        (["06:00-06:00 info"], "write a span and severities"),
        ([3], "write a span and severities"),
        (["22:00-06:00 loud"], "quiet has loud; what can wait is info, warning, critical"),
        (["22:00-06:00 emergency"], "quiet has emergency"),
        (["00:00-12:00 info", "12:00-00:00 info"], "leaves info less than an hour a day"),
    ],
)
def test_hours_that_cannot_be_meant_are_refused(spans: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        AlertRule(quiet=spans)


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(ConfigError, match="quiet_zone is 'Berlin'"):
        AlertRule(quiet_zone="Berlin")
    with pytest.raises(ConfigError, match="quiet_zone is"):
        AlertRule(quiet_zone="../../etc/passwd")
