"""Reads `[model]` and `[[models]]` of the bridge's file anew while the bridge runs, at SIGHUP.

    SIGHUP --ask--> step, on the bridge's thread --> a thread loads what is new --> step: the models, or why they stay
           --wake-> a bridge that waits for messages

Loading takes seconds, so it has a thread of its own; the bridge goes on reading with the models that it has. An error
changes nothing but `trouble`.
"""

from __future__ import annotations

import _thread
import logging
import signal
import threading
from collections.abc import Callable

from cloud_bridge.models import Models
from wire.errors import VeilsightError

__all__ = ["Reload"]

_LOG = logging.getLogger("cloud_bridge")


class Reload:
    """What is asked for, and what came of it.

    Attributes:
        trouble: Why the newest attempt changed nothing; "" where it succeeded, or before any.
        wake: Called once something is asked for, by whoever asks.
    """

    def __init__(self, load: Callable[[Models], Models]) -> None:
        """Begin with nothing asked. load: Loads what the file names now, beside what is held; see `open_models`."""
        self._load, self._asked, self.trouble = load, False, ""
        self.wake: Callable[[], None] = lambda: None
        self._thread: threading.Thread | None = None
        self._found: Models | None = None

    def on_signal(self) -> None:
        """Ask at each SIGHUP, from a thread of its own: the main thread may hold what `wake` takes. For that one."""
        signal.signal(signal.SIGHUP, lambda *_: _thread.start_new_thread(self.ask, ()) and None)

    def ask(self) -> None:
        """Read the file anew, at the next step; any thread may ask."""
        self._asked = True
        self.wake()

    def step(self, held: Models) -> Models | None:
        """Go on, without waiting; call it regularly, on one thread.

        Returns:
            The models from now on, once; None: nothing has changed.
        """
        if self._thread is not None and not self._thread.is_alive():
            self._thread.join()
            found, self._thread, self._found = self._found, None, None
            return found
        if self._thread is None and self._asked:
            self._asked = False
            self._thread = threading.Thread(target=self._run, args=(held,), name="models", daemon=True)
            self._thread.start()
        return None

    def _run(self, held: Models) -> None:
        try:
            self._found, self.trouble = self._load(held), ""
        except VeilsightError as error:
            self.trouble = str(error)
            _LOG.error("the models stay as they are: %s", error)
        except Exception as error:  # noqa: BLE001 - the top of a thread: whatever a file makes a library raise
            self.trouble = repr(error)
            _LOG.exception("the models stay as they are")
