"""Releases -> events -> alerts, for one camera. Pure: no clock, no network, no model.

    Release --EventReader--> Event (8 slots, gaps marked) --member--> probabilities --AlertBook--> raised / cleared
              `--OOD p-value--> how familiar the last minutes are, in each event

An event is whole once all its slots have passed since the first release of the stream; from then on there is one for
every release. Releases that would fall out of the window unread (a stream that ends early, or a long gap) are read
once: so every release is part of at least one event, and none is read out of order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cloud_bridge.config import AlertRule
from cloud_bridge.ingest.intake import Release
from familial.evaluate.ood_detector import OodDetector
from wire.protocol.event import EventWindow

__all__ = ["BLIND", "AlertBook", "AlertChange", "Event", "EventReader"]

BLIND = "blind"
"""The alert for a camera that sends cover noise alone, because its budget is spent."""


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """What is read together, oldest first. z: int32 (R, K, d), each release times its level's weight; zeros where
    `present`, bool (R,), is False. ood_p_value: of the stream so far, None where nobody knows."""

    camera: str
    boot_id: int
    first_slot: int
    last_slot: int
    z: npt.NDArray[np.int32]
    present: npt.NDArray[np.bool_]
    ood_p_value: float | None = None


class EventReader:
    """Releases of one camera, in slot order -> events. weights: per level, by what z is multiplied to be read.

    ood_p_value: begun anew with every stream; None where the checkpoint has no reference for it.
    """

    def __init__(
        self,
        camera: str,
        releases: int,
        tokens: int,
        width: int,
        weights: Sequence[float] = (1.0,),
        ood_p_value: OodDetector | None = None,
    ) -> None:
        self._camera = camera
        self._weights = weights
        self._ood_detector = ood_p_value
        self._shape = (releases, tokens, width)
        self._unread: int | None = None  # the oldest release that was in no event yet
        self._begin(-1, 0)

    def push(self, release: Release) -> list[Event]:
        """Take the next release; the events that it completes, at most two. One of noise alone counts as missing."""
        out: list[Event] = []
        if release.boot_id != self._boot_id:
            out = self.flush()
            self._begin(release.boot_id, release.slot)
        if release.spent:
            return out
        size = self._shape[0]
        if self._unread is not None and release.slot - size + 1 > self._unread:
            out += self.flush()
        self._window.push(release.slot, release.z, self._weights[release.level])
        if self._ood_detector is not None:
            self._ood_detector.push(release.slot, release.z, release.level)
        self._unread = release.slot if self._unread is None else self._unread
        if release.slot - self._start + 1 >= size:
            out += self.flush()
        return out

    def flush(self) -> list[Event]:
        """Read once what was in no event yet: none or one event. The stream may go on afterwards."""
        if self._unread is None:
            return []
        self._unread = None
        window = self._window
        first = max(window.first_slot, self._start)
        z, present = window.z.copy(), window.present.copy()
        ood_p_value = None if self._ood_detector is None else self._ood_detector.p_value
        return [Event(self._camera, self._boot_id, first, window.last_slot, z, present, ood_p_value)]

    def _begin(self, boot_id: int, slot: int) -> None:
        self._boot_id = boot_id
        self._start = slot
        self._window = EventWindow(*self._shape)
        self._unread = None
        if self._ood_detector is not None:
            self._ood_detector.begin()


@dataclass(frozen=True, slots=True)
class AlertChange:
    """An alert that is raised now (`raised` True) or cleared now."""

    label: str
    raised: bool
    probability: float


class AlertBook:
    """Which alerts of one camera are raised. `raised` is the caller's durable list and is kept current.

    For every label raise and clear alternate, whatever the probabilities do; values between `clear_at` and `raise_at`
    change nothing and break both rows.
    """

    def __init__(self, rule: AlertRule, raised: list[str]) -> None:
        self._rule = rule
        self._raised = raised
        self._row: dict[str, int] = {}  # label -> verdicts in a row that speak for a change

    def update(self, probabilities: Mapping[str, float]) -> list[AlertChange]:
        """Take the probabilities of the next event, in the model's order: the first label is no risk. What changes."""
        risks = list(probabilities.items())[1:]
        return [change for label, p in risks for change in self._step(label, p)]

    def blind(self, spent: bool) -> list[AlertChange]:
        """Raise BLIND with the first release of noise alone, clear it with the first that says something again."""
        return self._turn(BLIND, 1.0 if spent else 0.0) if spent != (BLIND in self._raised) else []

    def _step(self, label: str, p: float) -> list[AlertChange]:
        rule, up = self._rule, label in self._raised
        speaks = p <= rule.clear_at if up else p >= rule.raise_at
        self._row[label] = self._row.get(label, 0) + 1 if speaks else 0
        if self._row[label] < (rule.clear_for if up else rule.raise_for):
            return []
        return self._turn(label, p)

    def _turn(self, label: str, p: float) -> list[AlertChange]:
        self._row[label] = 0
        if label in self._raised:
            self._raised.remove(label)
        else:
            self._raised.append(label)
        return [AlertChange(label, label in self._raised, p)]
