"""Prints verdicts and alerts: a line for people, and a line of JSON for programs. Times count from slot 0.

In JSON, boot ids are 16 hex digits: as numbers of 64 bits, many readers would round them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TextIO

from cloud_bridge.alerts.lifecycle import CONDITIONS
from wire.protocol.message import Alert, Verdict, trace_id

__all__ = ["Timeline"]

_BAR = 20


class Timeline:
    """Writes to `people` and, where given, to `programs`; both are flushed line by line."""

    def __init__(self, people: TextIO, programs: TextIO | None = None) -> None:
        self._people = people
        self._programs = programs

    def show(self, camera: str, made: Verdict | Alert) -> None:
        """Print a verdict or an alert."""
        if isinstance(made, Verdict):
            self.verdict(camera, made)
        else:
            self.alert(camera, made)

    def verdict(self, camera: str, verdict: Verdict) -> None:
        """Print one line: span, camera, label, its probability as a bar, sentence, and what was missing.

        Where the verdict is unsure, that word is printed in place of the label that is no risk.
        """
        full = round(verdict.probability * _BAR)
        missing = len(verdict.present) - sum(verdict.present)
        note = f"  ({missing} of {len(verdict.present)} releases missing)" if missing else ""
        note += "  (late: not now)" if verdict.late else ""
        note += "  (the edge's exit)" if verdict.member == "edge" else ""
        words = f"  {verdict.sentence}" if verdict.sentence else ""
        self._say(
            f"{_clock(verdict.start_s)}-{_clock(verdict.end_s)}  {camera}  {verdict.says:<8}"
            f"{verdict.probability:4.2f} |{'#' * full}{'.' * (_BAR - full)}|{words}{note}"
        )
        self._write(
            type="verdict",
            camera=camera,
            member=verdict.member,
            boot_id=f"{verdict.boot_id:016x}",
            first_slot=verdict.first_slot,
            last_slot=verdict.last_slot,
            start_s=verdict.start_s,
            end_s=verdict.end_s,
            label=verdict.label,
            probability=verdict.probability,
            ood_p_value=verdict.ood_p_value,
            unsure=verdict.unsure,
            probabilities=dict(verdict.probabilities),
            attributes=dict(verdict.attributes),
            sentence=verdict.sentence,
            present=list(verdict.present),
            time_s=verdict.time_s,
            late=verdict.late,
            trace=trace_id(camera, verdict.boot_id, verdict.last_slot),
        )

    def alert(self, camera: str, alert: Alert) -> None:
        """Print one marked line; with the reason where the alert is about the camera, and not about a risk."""
        turn = "cleared" if not alert.raised else "RAISED" if alert.first_id == alert.id else f"now {alert.severity}"
        reason = f"  {alert.sentence}" if alert.label in CONDITIONS and alert.sentence else ""
        self._say(f"{_clock(alert.at_s)}  {camera}  >>> ALERT {alert.label} {turn} ({alert.probability:.2f}){reason}")
        self._write(
            type="alert",
            camera=camera,
            boot_id=f"{alert.boot_id:016x}",
            slot=alert.slot,
            at_s=alert.at_s,
            raised=alert.raised,
            label=alert.label,
            probability=alert.probability,
            sentence=alert.sentence,
            time_s=alert.time_s,
            id=alert.id,
            first_id=alert.first_id,
            severity=alert.severity,
            trace=trace_id(camera, alert.boot_id, alert.slot),
        )

    def note(self, text: str) -> None:
        """Print a line for people alone."""
        self._say(text)

    def stats(self, stats: Mapping[str, Any]) -> None:
        """Print the last line: what came, what was refused and why, what was missing, what was published."""
        refused = ", ".join(f"{why} {count}" for why, count in stats["refused"].items()) or "none"
        shed = f" ({stats['shed']} shed)" if stats["shed"] else ""
        self._say(
            f"received {stats['received']}, refused: {refused}; gaps {stats['gaps']}, dropped {stats['dropped']}, "
            f"verdicts {stats['verdicts']}{shed}, alerts {stats['alerts']}, unpublished {stats['unpublished']}"
        )
        self._write(type="stats", **stats)

    def _say(self, line: str) -> None:
        print(line, file=self._people, flush=True)

    def _write(self, **document: Any) -> None:
        if self._programs is not None:
            print(json.dumps(document), file=self._programs, flush=True)


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60):02d}:{seconds % 60:04.1f}"
