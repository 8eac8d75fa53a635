"""How urgent an alert is. A risk is critical; a camera that does not watch is a warning; nobody looks: one step up."""

from __future__ import annotations

from collections.abc import Mapping

from cloud_bridge.alerts.lifecycle import CLOCK_SKEW, CONDITIONS
from wire.protocol.message import SEVERITIES

__all__ = ["next_severity", "severity_of"]

_INFO, _WARNING, _CRITICAL, _ = SEVERITIES
_OF: Mapping[str, str] = {**dict.fromkeys(CONDITIONS, _WARNING), CLOCK_SKEW: _INFO}


def severity_of(label: str) -> str:
    """The severity with which an alert is raised."""
    return _OF.get(label, _CRITICAL)


def next_severity(severity: str) -> str:
    """The severity of an alert that nobody has seen; "" where it goes no further: from the highest, and from info."""
    if severity not in SEVERITIES[1:-1]:
        return ""
    return SEVERITIES[SEVERITIES.index(severity) + 1]
