"""A release clock without real time, so that tests that do not measure timing pass on a machine under any load."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from edge_runtime.capture.clock import SlotClock

__all__ = ["PatientClock"]


class PatientClock(SlotClock):
    """Time advances when the main thread waits: at once, when `ready` says that the other threads have caught up."""

    def __init__(self, slot_s: float) -> None:
        super().__init__(slot_s, 0.2)
        self.ready: Callable[[float], bool] = lambda until: True
        self._time = 0.0

    def now(self) -> float:
        return self._time

    def left(self, until: float) -> float:
        return 10.0

    def wait(self, until: float) -> bool:
        main = threading.current_thread() is threading.main_thread()
        if main:
            self._time = max(self._time, until)
        while (not self.ready(until) if main else self._time < until) and not self.stop.is_set():
            time.sleep(0.001)
        return not self.stop.is_set()
