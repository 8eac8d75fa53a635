"""Alerts about one camera itself, whatever its verdicts say. Pure: it is told the time.

releases, states --take--> late, blind, not watching, stale and bridge lost end
silence, strange signatures, a clock that is ahead --watch--> stale, untrusted key, clock skew
verdicts of the edge's exit --answered, watch--> degraded
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from cloud_bridge.alerts.lifecycle import (
    BLIND,
    BRIDGE_LOST,
    CLOCK_SKEW,
    DEGRADED,
    LATE,
    NOT_WATCHING,
    STALE,
    UNTRUSTED_KEY,
    AlertBook,
    AlertChange,
)
from cloud_bridge.ingest.events import Taken
from cloud_bridge.ingest.session import CameraSession

__all__ = ["CameraConditions", "Turn"]

_KEY_S = 600.0  # without a strange signature, until the alert is cleared
_SKEW_S = 150.0  # times are whole minutes: a clock that is a little ahead shows it once in each
_DEGRADED_S = 30.0  # without a verdict of the edge's exit, until the alert is cleared: a server that comes and goes
_OFFLINE = "the device is offline, or has lost its connection"
_SILENT = "look at the device, and whether the broker's access list lets the bridge read it"
_OTHER = "its messages are made by model {}, which no engine of this bridge is: add it as [[models]], then SIGHUP"
_NO_BUDGET = "noise alone: the budget is spent"
_NO_EYE = "the device's eye does not answer: nothing is seen"
_EDGE = "the cloud member's server does not answer, or answers nonsense: the edge's exit reads; look at the server"
_STRANGE = "messages signed by another key: the device has a new one to register, or somebody writes in its name"


class Turn(NamedTuple):
    """An alert that changes: where in the stream, how, and why."""

    boot_id: int
    slot: int
    change: AlertChange
    sentence: str


class CameraConditions:
    """What is wrong with one camera."""

    def __init__(self, session: CameraSession, book: AlertBook, stale_after_s: float) -> None:
        self._session, self._book, self._stale_after_s = session, book, stale_after_s
        self._edge_s, self._answered = -math.inf, False  # the last verdict of the edge's exit; none since

    def begin(self, away_s: float) -> list[Turn]:
        """Say that no bridge was there before this one, where that was for long."""
        lost = away_s > self._stale_after_s
        words = f"no bridge was there for {away_s:.0f} s: of what happened then, only the newest can raise an alert"
        return self._turns(self._session.place, self._book.condition(BRIDGE_LOST, True), words) if lost else []

    def take(self, taken: Taken) -> list[Turn]:
        """What a message of the camera changes."""
        book, out = self._book, list[Turn]()
        if taken.releases:
            newest = taken.releases[-1]
            out += self._turns((newest.boot_id, newest.slot), book.condition(STALE, False))
        for release in taken.releases:
            place, complaint = (release.boot_id, release.slot), release.complaint
            out += self._turns(place, book.condition(LATE, bool(complaint)), complaint)
            if not complaint:
                out += self._turns(place, book.condition(BRIDGE_LOST, False))
                out += self._turns(place, book.condition(BLIND, release.spent), _NO_BUDGET)
        if taken.state is not None:
            out += self._turns(self._session.place, book.condition(NOT_WATCHING, not taken.state.watching), _NO_EYE)
        return out

    def answered(self, cloud: bool, now_s: float) -> None:
        """Take note of whose exit has read an event of now."""
        self._answered = cloud
        self._edge_s = self._edge_s if cloud else now_s

    def watch(self, now_s: float, began_s: float) -> list[Turn]:
        """What time alone changes. began_s: since when the bridge has listened without a break."""
        session, place = self._session, self._session.place
        skew = f"the device's clock is {session.ahead_s:.0f} s ahead of this machine's, or more; set both (NTP)"
        turns = self._stale(now_s, began_s)
        strange = self._lately(UNTRUSTED_KEY, session.forged_at_s, _KEY_S, now_s, began_s)
        turns += self._turns(place, self._book.condition(UNTRUSTED_KEY, strange), _STRANGE)
        degraded = now_s - self._edge_s < _DEGRADED_S or (DEGRADED in self._book.raised and not self._answered)
        turns += self._turns(place, self._book.condition(DEGRADED, degraded), _EDGE)
        ahead = self._lately(CLOCK_SKEW, session.ahead_at_s, _SKEW_S, now_s, began_s)
        return turns + self._turns(place, self._book.condition(CLOCK_SKEW, ahead), skew)

    def silent_s(self, now_s: float, began_s: float) -> float:
        """For how long nothing new has come, as far as we have listened."""
        return now_s - max(self._session.fresh_s, began_s)

    def _stale(self, now_s: float, began_s: float) -> list[Turn]:
        session, silent_s = self._session, self.silent_s(now_s, began_s)
        if silent_s <= self._stale_after_s and not (session.ended and self._book.risk):
            return []
        cause = _OTHER.format(session.unknown_model) if session.unknown_model else _SILENT
        words = f"nothing has come for {silent_s:.0f} s; {_OFFLINE if session.offline else cause}"
        return self._turns(session.place, self._book.condition(STALE, True), words)

    def _lately(self, label: str, at_s: float, hold_s: float, now_s: float, began_s: float) -> bool:
        """Whether something was there in the last `hold_s`; where it was before a restart, from then on."""
        last_s = max(at_s, began_s) if label in self._book.raised else at_s
        return now_s - last_s < hold_s

    def _turns(self, place: tuple[int, int], changes: Iterable[AlertChange], words: str = "") -> list[Turn]:
        return [Turn(*place, change, words if change.raised else "") for change in changes]
