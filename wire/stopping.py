"""How a process is asked to stop: SIGTERM and SIGINT set an event, and never block.

A handler runs in the main thread between two of its steps, which may be steps of `Event.wait`. There the main thread
holds the event's lock, so a handler that set the event itself would wait for its own thread, for ever.
"""

from __future__ import annotations

import _thread
import signal
import threading

__all__ = ["set_on_signals"]


def set_on_signals(event: threading.Event) -> None:
    """Set `event` at SIGTERM and SIGINT, from a thread of its own. For the main thread."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _thread.start_new_thread(event.set, ()) and None)
