"""A signal that asks for a stop is obeyed wherever the main thread is."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.services import PATIENCE_S, ROOT

# The signal comes while the main thread holds the event's lock, as it does within `Event.wait`.
HELD = """
import signal, sys, threading
from wire.stopping import set_on_signals
stop = threading.Event()
{install}
with stop._cond:
    signal.raise_signal(getattr(signal, sys.argv[1]))
sys.exit(0 if stop.wait(20) else 1)
"""


def end_of(install: str, name: str, patience_s: float) -> int:
    command = [sys.executable, "-c", HELD.format(install=install), name]
    return subprocess.run(command, cwd=ROOT, timeout=patience_s, check=False).returncode


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_stop_is_obeyed_while_the_lock_of_the_event_is_held(name: str) -> None:
    assert end_of("set_on_signals(stop)", name, PATIENCE_S) == 0


def test_a_handler_that_sets_the_event_itself_would_wait_for_ever() -> None:
    """What the other test can see."""
    with pytest.raises(subprocess.TimeoutExpired):
        end_of("signal.signal(signal.SIGTERM, lambda *_: stop.set())", "SIGTERM", 3.0)
