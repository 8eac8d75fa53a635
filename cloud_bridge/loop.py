"""The loop of the bridge's one thread: take, read, write, publish, look at the clock.

while not stopped:
bridge.handle(take)                     # or, where nothing comes, settle and rest
bridge.tidy()
bridge.watch()                          # twice a second
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from cloud_bridge.bridge import Bridge
from cloud_bridge.ingest.transport import Inbound

__all__ = ["run"]

_IDLE_S = 0.5  # the mailbox must be empty for so long before the bridge may end
_PUMP_S = 0.01  # between two looks at what the broker has confirmed, while something waits for it
_WATCH_S = 0.5  # between two looks at what time alone decides: each is a look at every camera
_PAUSE_S = 0.5  # between attempts to write to the store


def run(
    bridge: Bridge,
    take: Callable[[float], Sequence[Inbound]],
    exit_when_offline: bool,
    stopped: Callable[[], bool],
    between: Callable[[], None] = lambda: None,
) -> None:
    """Serve until `stopped()`, or until all cameras are offline where that ends it; a batch that was taken is read.

    Args:
        bridge: The bridge.
        take: As `Mailbox.take`.
        exit_when_offline: Whether to end once every camera is offline and was read to its end.
        stopped: Whether to end now.
        between: Called between batches, while the store can be written.
    """
    watched_s = -math.inf
    while not stopped():
        if not bridge.retry():
            bridge.look()
            time.sleep(_PAUSE_S)
            continue
        between()
        batch = _next(bridge, take)
        if batch:
            bridge.handle(batch)
        else:
            bridge.settle()
            bridge.rest()
        bridge.tidy()
        if not exit_when_offline and time.monotonic() - watched_s >= _WATCH_S:
            watched_s = time.monotonic()
            bridge.watch()
        if exit_when_offline and not batch and bridge.finished:
            break
    bridge.close()


def _next(bridge: Bridge, take: Callable[[float], Sequence[Inbound]]) -> Sequence[Inbound]:
    """The next batch, [] where none comes for a while; meanwhile the outbox goes out as fast as the broker takes it."""
    give_up = time.monotonic() + _IDLE_S
    while True:
        waits = bool(bridge.publisher.waiting)
        batch = take(_PUMP_S if waits else _IDLE_S)
        if batch or not waits or time.monotonic() >= give_up:
            return batch
        bridge.publisher.pump()
