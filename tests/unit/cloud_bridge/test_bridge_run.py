"""The loop: what time alone decides is not asked after every batch, and is asked while batches come without a break."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from cloud_bridge import loop as module


class Fake:
    """A bridge that counts what is asked of it."""

    finished = False
    publisher = SimpleNamespace(waiting=0)

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        def count(*_: Any) -> bool:
            self.asked[name] += 1
            return True

        return count


@pytest.mark.parametrize(("every_s", "looks"), [(0.0, 50), (1e9, 1)])
def test_a_look_at_every_camera_is_not_one_after_every_batch(
    monkeypatch: pytest.MonkeyPatch, every_s: float, looks: int
) -> None:
    monkeypatch.setattr(module, "_WATCH_S", every_s)
    bridge: Any = Fake()
    module.run(bridge, lambda timeout_s: ["batch"], False, lambda: bridge.asked["handle"] == 50)  # type: ignore[list-item]
    assert (bridge.asked["handle"], bridge.asked["watch"], bridge.asked["close"]) == (50, looks, 1)


def test_the_outbox_goes_out_while_nothing_comes() -> None:
    """Not only a window of it after each wait for messages: the verdicts of a backlog came at 512 a second."""
    bridge: Any = Fake()
    bridge.publisher = SimpleNamespace(waiting=5)

    def pump() -> None:
        bridge.publisher.waiting -= 1

    bridge.publisher.pump = pump
    waited = list[float]()

    def take(timeout_s: float) -> list[Any]:
        waited.append(timeout_s)
        return []

    module.run(bridge, take, False, lambda: bridge.asked["settle"] == 1)
    assert bridge.publisher.waiting == 0 and bridge.asked["rest"] == 1
    assert waited[:5] == [module._PUMP_S] * 5 and waited[5:] == [module._IDLE_S]


def test_a_broker_that_is_away_does_not_keep_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE_S", 0.05)
    bridge: Any = Fake()
    bridge.publisher = SimpleNamespace(waiting=1, pump=lambda: None)
    module.run(bridge, lambda timeout_s: [], False, lambda: bridge.asked["settle"] == 2)
    assert bridge.asked["rest"] == 2
