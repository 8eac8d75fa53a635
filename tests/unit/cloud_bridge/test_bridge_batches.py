"""When a batch is taken: at its deadline, once enough is there, or at once where the bridge is to stop or to reload."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from cloud_bridge.__main__ import _Stop
from cloud_bridge.config import BridgeConfig, CameraConfig
from cloud_bridge.ingest.freshness import IngestRule
from cloud_bridge.ingest.transport import Inbound, Mailbox
from cloud_bridge.loop import run
from cloud_bridge.reload import Reload
from tests.support.bridge_factory import DEVICE
from tests.support.services import PATIENCE_S
from tests.unit.cloud_bridge.test_bridge_run import Fake
from wire.errors import ConfigError

NEVER_S = 1e6  # a wait that only a failing test sees to its end
CAMERAS = [f"lab/{number}" for number in range(100)]


class Script:
    """In the place of a mailbox's condition: each wait is noted, and what happens meanwhile is written down before."""

    def __init__(self, *meanwhile: Callable[[], object]) -> None:
        self.meanwhile, self.waits_s = list(meanwhile), list[float]()

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def notify(self) -> None: ...

    def wait_for(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        self.waits_s.append(timeout_s)
        if timeout_s and not holds() and self.meanwhile:
            self.meanwhile.pop(0)()
        return holds()


class Box:
    """A mailbox whose clock and condition are ours."""

    def __init__(self, enough: int = 64, wait_s: float = 0.05) -> None:
        self.now_s = 100.0
        self.mailbox = Mailbox(CAMERAS, enough=enough, wait_s=wait_s, clock=lambda: self.now_s)
        self.script = self.mailbox._ready = Script()  # type: ignore[assignment]

    def put(self, *cameras: int) -> None:
        for camera in cameras:
            self.mailbox.put(Inbound(CAMERAS[camera], "features", b"", False))

    def take(self) -> list[str]:
        return [item.camera for item in self.mailbox.take(0.5)]


def test_the_first_message_waits_for_those_of_other_cameras_until_its_deadline() -> None:
    box = Box()
    box.put(0)
    box.now_s += 0.02  # the batch before was read meanwhile
    box.script.meanwhile.append(lambda: box.put(1, 2))
    assert box.take() == CAMERAS[:3]
    assert box.script.waits_s == [0.5, pytest.approx(0.03)]
    box.put(3)  # the next deadline counts from here
    assert box.take() == CAMERAS[3:4]
    assert box.script.waits_s[2:] == [0.5, pytest.approx(0.05)]


def test_nothing_waits_beyond_its_deadline_nor_where_nothing_came() -> None:
    box = Box()
    box.put(0, 1)
    box.now_s += 0.05
    assert box.take() == CAMERAS[:2] and box.script.waits_s == [0.5, 0.0]
    assert box.take() == [] and box.script.waits_s[2:] == [0.5]


def test_a_wait_that_is_turned_off_is_none() -> None:
    box = Box(wait_s=0.0)
    box.put(0)
    assert box.take() == CAMERAS[:1] and box.script.waits_s == [0.5, 0.0]


def test_what_a_batch_leaves_of_a_burst_does_not_wait_anew() -> None:
    box = Box()
    box.put(*range(100), *range(100), *range(80))
    assert len(box.take()) == 256
    box.now_s += 0.05
    assert len(box.take()) == 24
    assert box.script.waits_s[3] == 0.0


def test_a_burst_does_not_wait() -> None:
    """On a real condition: it would wait for ever."""
    mailbox = Mailbox(CAMERAS, enough=64, wait_s=NEVER_S)
    for name in CAMERAS[:64]:
        mailbox.put(Inbound(name, "features", b"", False))
    assert len(mailbox.take(0)) == 64


def test_the_last_that_is_needed_ends_the_wait() -> None:
    mailbox, found = Mailbox(CAMERAS, enough=3, wait_s=NEVER_S), list[int]()
    mailbox.put(Inbound(CAMERAS[0], "features", b"", False))
    taker = threading.Thread(target=lambda: found.append(len(mailbox.take(NEVER_S))), daemon=True)
    taker.start()
    for name in CAMERAS[1:3]:
        mailbox.put(Inbound(name, "features", b"", False))
    taker.join(PATIENCE_S)
    assert found == [3]


def test_a_stop_ends_the_wait_and_what_is_there_is_read() -> None:
    mailbox, stop, begun = Mailbox(CAMERAS, enough=64, wait_s=NEVER_S), _Stop(), threading.Event()
    mailbox.put(Inbound(CAMERAS[0], "features", b"", False))
    stop.wake = mailbox.hurry
    bridge: Any = Fake()

    def take(timeout_s: float) -> Sequence[Inbound]:
        begun.set()
        return mailbox.take(timeout_s)

    loop = threading.Thread(target=run, args=(bridge, take, False, stop.is_set), daemon=True)
    loop.start()
    assert begun.wait(PATIENCE_S)
    stop.set()
    loop.join(PATIENCE_S)
    assert not loop.is_alive() and bridge.asked["handle"] == bridge.asked["close"] == 1


def test_a_bridge_to_which_nothing_comes_stops_at_once() -> None:
    mailbox = Mailbox(CAMERAS)
    mailbox.hurry()
    assert mailbox.take(NEVER_S) == []
    mailbox.put(Inbound(CAMERAS[0], "features", b"", False))
    assert len(mailbox.take(NEVER_S)) == 1


def test_a_sighup_wakes_the_bridge() -> None:
    former, woken = signal.getsignal(signal.SIGHUP), threading.Event()
    reload = Reload(lambda held: held)
    reload.wake = woken.set
    try:
        reload.on_signal()
        os.kill(os.getpid(), signal.SIGHUP)
        assert woken.wait(PATIENCE_S)
    finally:
        signal.signal(signal.SIGHUP, former)


@pytest.mark.parametrize("wait_ms", [-1.0, 501.0, float("nan"), float("inf")])
def test_a_deadline_that_cannot_be_is_refused(wait_ms: float) -> None:
    camera = {"site": "lab", "camera": "door", "public_key": DEVICE.public.hex}
    with pytest.raises(ConfigError, match=r"\[ingest\] batch_wait_ms is .*; (write milliseconds|expected a number)"):
        BridgeConfig.parse({"cameras": [camera], "ingest": {"batch_wait_ms": wait_ms}})
    with pytest.raises(ConfigError, match=r"write milliseconds from 0 \(wait for nothing\) to 500"):
        IngestRule(batch_wait_ms=wait_ms)
    assert IngestRule(batch_wait_ms=0).batch_wait_ms == 0


@pytest.mark.parametrize(("cameras", "enough"), [(1, 1), (3, 3), (100, 64)])
def test_no_more_is_waited_for_than_there_are_cameras(
    monkeypatch: pytest.MonkeyPatch, cameras: int, enough: int
) -> None:
    from cloud_bridge import service as module

    made = dict[str, Any]()

    class Stop(Exception): ...

    def mailbox(names: Sequence[str], **how: Any) -> None:
        made.update(how)
        raise Stop

    monkeypatch.setattr(module, "Mailbox", mailbox)
    monkeypatch.setattr(module, "first_of", lambda models: type("Model", (), {"manifest": None}))
    config = BridgeConfig(
        cameras=tuple(CameraConfig("lab", f"c{n}", DEVICE.public.hex) for n in range(cameras)),
        ingest=IngestRule(batch_wait_ms=20),
    )
    nothing: Any = None
    with pytest.raises(Stop):
        module.Service(config, nothing, nothing, nothing, nothing)
    assert (made["enough"], made["wait_s"]) == (enough, 0.02)
