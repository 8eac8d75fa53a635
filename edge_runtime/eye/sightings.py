"""Which pictures the person network sees, and whom it found, for as long as a window may need them.

    capture --add--> newest picture --an instant takes it--> waiting --next--> perception --found--> its people

An instant of a window takes the newest frame that is not younger (`WindowSpec.held`). So a picture is kept only until
the next one comes, unless an instant lies between the two, or a window asks for it at its slot's end: at most one
picture an instant is seen, and exactly those that a window takes. A picture is overwritten when it is handed out, and
people with their frame.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wire.artifact.manifest import WindowSpec
from wire.errors import ManifestError
from wire.people.packed import Packed, nobody

__all__ = ["FAILED", "SEEN", "UNSEEN", "Sightings", "Waiting"]

UNSEEN, SEEN, FAILED = range(3)
"""What is known of a frame's people: nothing, all, or that the person network failed."""

_NONE = -1  # the number of no frame


@dataclass(frozen=True, slots=True)
class Waiting:
    """A picture that was handed out.

    Attributes:
        number: Of its frame.
        height: Of the camera's picture, pixels.
        width: The same.
    """

    number: int
    height: int
    width: int


class Sightings:
    """The pictures that wait for the person network, and the people of the frames of one `FrameBuffer`.

    For a capture thread that adds, a perception thread that takes, and the eye that asks for a window's people.

    Args:
        spec: Which frames a window takes.
        frame: Height and width of the person network's frame.
        kept: Frames that the buffer holds; frame k is in place k % kept.
        ahead_s: How long before its capture time a frame may be added.

    Attributes:
        lock: Guards it, and its buffer.
        lost: Pictures that were overwritten before they were seen: the network is too slow.

    Raises:
        ManifestError: The context of a window lies between the instants at which the person network runs.
    """

    def __init__(self, spec: WindowSpec, frame: tuple[int, int], kept: int, ahead_s: float) -> None:
        self._spec = spec
        self._instants_s = np.asarray(spec.offsets_s[-spec.new_frames :])  # before a slot's end
        self._check_context()
        count = math.ceil((ahead_s + spec.slot_s) * spec.new_frames / spec.slot_s) + 2
        self._pictures = np.zeros((count, *frame, 3), np.uint8)
        self._numbers, self._times = np.full(count, _NONE, np.int64), np.zeros(count)
        self._sizes, self._waits = np.zeros((count, 2), np.int64), np.zeros(count, np.bool_)
        self._of, self._states = np.full(kept, _NONE, np.int64), np.zeros(kept, np.int8)
        self._people = nobody(kept)
        self.lock = threading.Condition()
        self._newest, self._running, self._closed, self.lost = 0, _NONE, False, 0
        self._wanted, self._end_s = frozenset[int](), -math.inf

    def _check_context(self) -> None:
        step_s = self._spec.slot_s / self._spec.new_frames
        steps = np.asarray(self._spec.offsets_s) / step_s
        if np.abs(steps - steps.round()).max() > 1e-6:
            raise ManifestError(
                f"window.context_step_s is {self._spec.context_step_s}: the person network runs {step_s:g} s apart, "
                "and the context must lie on multiples of that; train the family with such a step"
            )

    def add(self, number: int, time_s: float, picture: npt.NDArray[np.uint8], size: tuple[int, int]) -> None:
        """Keep a copy of a picture as the newest; the one before it is kept only where an instant takes it.

        Args:
            number: Of its frame, one more than the last.
            time_s: When it was captured.
            picture: uint8 (h, w, 3), RGB.
            size: Height and width of the camera's own picture.
        """
        with self.lock:
            newest = self._newest
            if self._numbers[newest] != _NONE and not self._waits[newest]:
                self._waits[newest] = self._is_taken(float(self._times[newest]), time_s)
            if self._waits[newest]:
                newest = self._free_place()
            self._pictures[newest] = picture
            self._numbers[newest], self._times[newest], self._sizes[newest] = number, time_s, size
            self._newest = newest
            place = number % len(self._of)
            self._of[place], self._states[place], self._people[place] = number, UNSEEN, 0
            self.lock.notify_all()

    def _is_taken(self, time_s: float, next_s: float) -> bool:
        """Whether some instant takes the frame of `time_s`, where the next one is of `next_s`."""
        slot_s = self._spec.slot_s
        until_s = min(next_s, time_s + self._spec.hold_s)
        ends_s = np.arange(math.floor(time_s / slot_s), math.floor(until_s / slot_s) + 2) * slot_s
        instants_s = (ends_s[:, None] - self._instants_s).ravel()
        return bool((self._spec.held(np.array([time_s, next_s]), instants_s) == 0).any())

    def _free_place(self) -> int:
        """A place without a picture, or that of the oldest."""
        free = np.flatnonzero(self._numbers == _NONE)
        if len(free):
            return int(free[0])
        self.lost += 1
        place = int(self._times.argmin())
        self._waits[place] = False
        return place

    def want(self, numbers: npt.NDArray[np.int64], newest: npt.NDArray[np.int64], end_s: float) -> None:
        """Ask for the people of the frames of a window, which ends at `end_s`; of its newest ones before any others."""
        with self.lock:
            self._wanted, self._end_s = frozenset(newest.tolist()), end_s
            self._waits |= (self._numbers != _NONE) & np.isin(self._numbers, numbers)
            self.lock.notify_all()

    def next(self, into: npt.NDArray[np.uint8]) -> Waiting | None:
        """Move the most urgent picture into `into`, uint8 (h, w, 3), as soon as there is one.

        Most urgent are those that a window waits for, then those of slots to come, oldest first; what an earlier window
        would have needed comes last.

        Returns:
            Whose picture it is; None: the end.
        """
        with self.lock:
            self.lock.wait_for(lambda: self._closed or self._waits.any())
            if self._closed:
                return None
            place = min(np.flatnonzero(self._waits).tolist(), key=self._urgency)
            into[:] = self._pictures[place]
            self._pictures[place] = 0
            height, width = self._sizes[place].tolist()
            self._running = int(self._numbers[place])
            self._numbers[place], self._waits[place] = _NONE, False
            return Waiting(self._running, height, width)

    def _urgency(self, place: int) -> tuple[bool, bool, float]:
        time_s = float(self._times[place])
        return int(self._numbers[place]) not in self._wanted, time_s <= self._end_s, time_s

    def found(self, number: int, people: Packed | None) -> None:
        """Note the people of frame `number`, int16 (6, VALUES); None: the person network failed."""
        with self.lock:
            place, self._running = number % len(self._of), _NONE
            if self._of[place] == number:
                self._states[place] = FAILED if people is None else SEEN
                self._people[place] = 0 if people is None else people
            self.lock.notify_all()

    def wait(self, numbers: npt.NDArray[np.int64], timeout_s: float) -> None:
        """Wait until each of these frames was seen, has failed, or cannot be seen any more, or until the end."""
        with self.lock:
            self.lock.wait_for(lambda: self._closed or not self._can_come(numbers), timeout_s)
            self._wanted = frozenset()

    def _can_come(self, numbers: npt.NDArray[np.int64]) -> bool:
        open_ = numbers[(numbers != _NONE) & (self.states(numbers) == UNSEEN)]
        return bool((np.isin(open_, self._numbers) | (open_ == self._running)).any())

    def states(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
        """UNSEEN, SEEN or FAILED for each frame; the black frame, number -1, is seen."""
        with self.lock:
            places = numbers % len(self._of)
            known = np.where(self._of[places] == numbers, self._states[places], UNSEEN)
            return np.where(numbers == _NONE, SEEN, known).astype(np.int8)

    def people(self, numbers: npt.NDArray[np.int64]) -> Packed:
        """The people of each frame, int16 (F, 6, VALUES); nobody in a black one, and where none are known."""
        with self.lock:
            there = (numbers != _NONE) & (self.states(numbers) == SEEN)
            found: Packed = np.where(there[:, None, None], self._people[numbers % len(self._of)], np.int16(0))
            return found

    def forget(self, places: npt.NDArray[np.bool_]) -> None:
        """Forget the people of the frames in `places` of the buffer, bool (kept,)."""
        with self.lock:
            self._people[places], self._of[places] = 0, _NONE

    def close(self) -> None:
        """End `next` and `wait`."""
        with self.lock:
            self._closed = True
            self.lock.notify_all()

    @property
    def closed(self) -> bool:
        """Whether nobody will be seen any more."""
        return self._closed

    def wipe(self) -> None:
        """Zero all pictures and people."""
        with self.lock:
            for array in (self._pictures, self._people, self._waits):
                array.fill(0)
            self._numbers.fill(_NONE)
            self._of.fill(_NONE)
