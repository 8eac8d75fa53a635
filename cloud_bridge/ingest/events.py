"""Releases of one camera -> events. Pure: no clock, no network, no model.

    Release --EventReader--> Event (8 slots, gaps marked, with the OOD p-value of the last minutes)

An event is whole once all its slots have passed since the first release of the stream; from then on there is one for
every release. Releases that would leave the window unread (a stream that ends early, or a long gap) are read once. So
every release is part of at least one event, and events are in the order of their slots.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cloud_bridge.store.records import Accepted
from familial.evaluate.ood_detector import OodDetector
from wire.protocol.event import EventWindow
from wire.protocol.state import State

__all__ = ["NOTHING", "Event", "EventReader", "Release", "Taken"]


@dataclass(frozen=True, slots=True, eq=False)
class Release:
    """One verified release.

    Attributes:
        camera: `site/camera`.
        boot_id: Names the device's start.
        slot: Number of the release since that start.
        z: Noised code, int16 (n,).
        spent: The budget is spent, and z is noise alone.
        gap: Slots missing before this one.
        level: The noise in z: an index into the manifest's levels.
        time_s: The device's clock, rounded down to a minute.
        complaint: Why it is not read as now; "" where it is.
    """

    camera: str
    boot_id: int
    slot: int
    z: npt.NDArray[np.int16]
    spent: bool
    gap: int
    level: int = 0
    time_s: int = 0
    complaint: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """What is read together for one verdict, oldest release first.

    Attributes:
        z: int32 (R, K, d), each release times the weight of its level; zeros where `present` is False.
        present: bool (R,).
        ood_p_value: Of the stream so far; None where it is not known.
        time_s: Of its newest release.
        late: It is not read as now.
        model_id: Of the model that made all of it.
        weights: float64 (R,), what each release of `z` was multiplied by; None: 1, all of them.
    """

    camera: str
    boot_id: int
    first_slot: int
    last_slot: int
    z: npt.NDArray[np.int32]
    present: npt.NDArray[np.bool_]
    ood_p_value: float | None = None
    time_s: int = 0
    late: bool = False
    model_id: int = 0
    weights: npt.NDArray[np.float64] | None = None


class Taken(NamedTuple):
    """What a message gave.

    Attributes:
        releases: That are now in order, oldest first.
        events: That they complete.
        state: The newest one of the device.
        accepted: Verified releases that are new, in order of arrival; some wait for an earlier slot.
        unread: Boot id, slot and reason of accepted ones, now or before, that turned out not to be read.
    """

    releases: list[Release]
    events: list[Event]
    state: State | None = None
    accepted: Sequence[Accepted] = ()
    unread: Sequence[tuple[int, int, str]] = ()


NOTHING = Taken([], [])


class EventReader:
    """Turns the releases of one camera and model, in slot order, into events.

    Attributes:
        shed: Events that were left out.
        owes: The newest one waits to be left out, or read.
    """

    def __init__(
        self,
        camera: str,
        releases: int,
        tokens: int,
        width: int,
        weights: Sequence[float] = (1.0,),
        detector: OodDetector | None = None,
        model_id: int = 0,
    ) -> None:
        """Begin without a stream.

        Args:
            camera: `site/camera`.
            releases: Slots of an event, R.
            tokens: Rows of a code, K.
            width: Columns of a code, d.
            weights: Per level, the factor that z is multiplied by.
            detector: Computes the OOD p-value and restarts with every stream; None: events have none.
            model_id: Of the model.
        """
        self._camera, self._model_id = camera, model_id
        self._weights = weights
        self._detector = detector
        self._shape = (releases, tokens, width)
        self._turn = zlib.crc32(camera.encode())
        self.shed, self.owes = 0, False
        self._unread: int | None = None  # the oldest release that was in no event yet
        self._begin(-1, 0)

    def push(self, release: Release, shed: bool = False) -> list[Event]:
        """Take the next release and return the events that it completes, at most two.

        A release of noise alone counts as missing. `shed`: leave the event to a later release whose event has all of it
        that was in none yet; to the next one in turn, as else all cameras would come to their last chance at once.
        """
        out: list[Event] = []
        if release.boot_id != self._boot_id:
            out = self.flush()
            self._begin(release.boot_id, release.slot)
        if release.spent:
            return out
        size = self._shape[0]
        if self._unread is not None and release.slot - size + 1 > self._unread:
            out += self.flush()
        self.shed, self.owes = self.shed + self.owes, False
        self._window.push(release.slot, release.z, self._weights[release.level])
        if self._detector is not None:
            self._detector.push(release.slot, release.z, release.level)
        self._time_s = release.time_s
        self._unread = release.slot if self._unread is None else self._unread
        if release.slot - self._start + 1 >= size:
            self.owes = shed and (release.slot + self._turn) % size != 0
            out += [] if self.owes else self.flush()
        return out

    def flush(self) -> list[Event]:
        """Make an event of the releases that were in none yet, if there are any. The stream may go on afterwards."""
        if self._unread is None:
            return []
        self._unread, self.owes = None, False
        window = self._window
        first = max(window.first_slot, self._start)
        z, present, weights = window.z.copy(), window.present.copy(), window.weights.copy()
        ood_p_value = None if self._detector is None else self._detector.p_value
        place = (self._camera, self._boot_id, first, window.last_slot)
        return [Event(*place, z, present, ood_p_value, self._time_s, model_id=self._model_id, weights=weights)]

    def saved(self) -> dict[str, Any]:
        """What `resume` needs besides the releases, as JSON; empty where there was no stream."""
        if self._window.last_slot < 0:
            return {}
        return {"start": self._start, "unread": self._unread, "time_s": self._time_s}

    def resume(self, saved: Mapping[str, Any], boot_id: int, releases: Iterable[Release]) -> None:
        """Go on with a stream as it was `saved`.

        Args:
            saved: As `saved` returned it.
            boot_id: Of the stream.
            releases: Its newest ones that were read, in slot order.

        Raises:
            KeyError, TypeError, ValueError: `saved` is something else.
        """
        start, time_s, unread = saved["start"], saved["time_s"], saved["unread"]
        if any(type(number) is not int or number < 0 for number in (start, time_s, unread or 0)):
            raise ValueError("numbers that cannot be")
        self._begin(boot_id, start)
        for release in releases:
            if not release.spent:
                self._window.push(release.slot, release.z, self._weights[release.level])
        self._time_s, self._unread = time_s, unread
        self.owes = unread is not None and self._window.last_slot - start + 1 >= self._shape[0]

    def _begin(self, boot_id: int, slot: int) -> None:
        self._boot_id = boot_id
        self._start = slot
        self._time_s = 0
        self._window: EventWindow = EventWindow(*self._shape)
        self._unread = None
        if self._detector is not None:
            self._detector.begin()
