"""How well the machine keeps time while a test measures it: what may come later on a busy one is no failure."""

from __future__ import annotations

import threading
import time

import numpy as np

__all__ = ["Wakeups"]


class Wakeups:
    """Measures how late a sleeping thread of this process wakes, for the length of a block.

    with Wakeups() as wakeups:
        ...
    assert late_s < 0.02 + wakeups.late_s
    """

    def __init__(self) -> None:
        self._late: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._measure, daemon=True)

    @property
    def late_s(self) -> float:
        """What 95 of 100 wakeups did not exceed, in seconds."""
        return float(np.quantile(self._late, 0.95))

    @property
    def worst_s(self) -> float:
        """What no wakeup exceeded, in seconds."""
        return max(self._late)

    def _measure(self) -> None:
        while not self._stop.is_set():
            due = time.monotonic() + 0.005
            time.sleep(0.005)
            self._late.append(time.monotonic() - due)

    def __enter__(self) -> Wakeups:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
