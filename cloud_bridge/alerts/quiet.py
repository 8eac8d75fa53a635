"""Quiet hours: when which severities are held back from webhooks. Pure: it is told the time.

    "22:00-06:00 info warning", a zone --QuietHours--> until(severity, now): now, or the end of the quiet

Only webhooks wait: store, topic and page have every alert at once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from wire.errors import ConfigError
from wire.protocol.message import SEVERITIES

__all__ = ["QuietHours"]

_SPAN = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)((?: [a-z]+)+)")
_MOST = timedelta(hours=23)  # of quiet without a break


@dataclass(frozen=True, slots=True)
class _Span:
    begin: time
    end: time
    severities: frozenset[str]

    def ends(self, at: datetime) -> datetime | None:
        """When the span around a moment ends; None where there is none."""
        clock, over_midnight = at.time(), self.begin > self.end
        inside = clock >= self.begin or clock < self.end if over_midnight else self.begin <= clock < self.end
        if not inside:
            return None
        day = at.date() + timedelta(days=1 if over_midnight and clock >= self.begin else 0)
        return datetime.combine(day, self.end, at.tzinfo)


class QuietHours:
    """Which severities wait, and until when."""

    def __init__(self, spans: Sequence[str], zone: str) -> None:
        """Read the spans. Raises ConfigError where one cannot be meant."""
        try:
            self._zone = timezone.utc if zone == "UTC" else ZoneInfo(zone)  # UTC needs no tables of the system
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ConfigError(f'quiet_zone is {zone!r}; write a zone such as "Europe/Berlin", or "UTC"') from error
        self._spans = [_read(span) for span in spans]
        for severity in SEVERITIES if spans else ():
            self._check(severity)

    def until(self, severity: str, now_s: float) -> float:
        """When an alert of this severity, made now, may be sent; both UTC, seconds since 1970."""
        now = moment = datetime.fromtimestamp(now_s, self._zone)
        wanted = [span for span in self._spans if severity in span.severities]
        while moment - now <= _MOST and (ends := [end for span in wanted if (end := span.ends(moment))]):
            moment = max(ends)
        return moment.astimezone(timezone.utc).timestamp() if moment > now else now_s

    def _check(self, severity: str) -> None:
        """Refuse hours that never end."""
        wanted = [span for span in self._spans if severity in span.severities]
        minutes = [time(minute // 60, minute % 60) for minute in range(24 * 60)]
        midday = datetime(2026, 1, 1, tzinfo=timezone.utc)
        quiet = sum(any(span.ends(midday.replace(hour=m.hour, minute=m.minute)) for span in wanted) for m in minutes)
        if quiet > _MOST / timedelta(minutes=1):
            raise ConfigError(f"quiet leaves {severity} less than an hour a day; it would be told a day late")


def _read(span: str) -> _Span:
    match = _SPAN.fullmatch(span) if isinstance(span, str) else None
    if match is None or match[1] + match[2] == match[3] + match[4]:
        raise ConfigError(f'quiet has {span!r}; write a span and severities: "22:00-06:00 info warning"')
    severities = frozenset(match[5].split())
    if wrong := sorted(severities - set(SEVERITIES[:-1])):
        raise ConfigError(f"quiet has {', '.join(wrong)}; what can wait is {', '.join(SEVERITIES[:-1])}")
    return _Span(time(int(match[1]), int(match[2])), time(int(match[3]), int(match[4])), severities)
