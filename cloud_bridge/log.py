"""What the process writes to its log, at a bounded rate: whoever sends messages or requests must not fill a disk.

record --the same words about the same camera: five, then one a minute--> handler
`--all the others--> counted, and the count is told with the next one
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["BoundedRate", "set_up"]

_BURST, _PER_S = 5.0, 1.0 / 60.0
_MOST_KEYS = 1024


class BoundedRate(logging.Filter):
    """Lets five records of one text and first argument through, then one a minute. Errors with a traceback as well.

    What differs in the text itself is no other text: `msg` before its arguments are put in counts. The memory is
    bounded: beyond 1,024 keys the one that was quiet longest is forgotten.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock, self._lock = clock, threading.Lock()
        self._left = OrderedDict[tuple[str, str, str], tuple[float, float, int]]()  # left, when, left out since

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written; the first one after some were left out says how many."""
        args = record.args if isinstance(record.args, tuple) else ()
        key, now_s = (record.name, str(record.msg)[:200], str(args[0])[:200] if args else ""), self._clock()
        with self._lock:
            left, then_s, out = self._left.pop(key, (_BURST, now_s, 0))
            left = min(_BURST, left + max(0.0, now_s - then_s) * _PER_S)
            passes = left >= 1.0
            self._left[key] = (left - 1.0, now_s, 0) if passes else (left, now_s, out + 1)
            if len(self._left) > _MOST_KEYS:
                self._left.popitem(last=False)
        if passes and out:
            record.msg, record.args = f"{record.getMessage()} (and {out} more like it, left out)", ()
        return passes


def set_up() -> None:
    """Write warnings and errors of this process to stderr, a line each, at a bounded rate."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    handler.addFilter(BoundedRate())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
