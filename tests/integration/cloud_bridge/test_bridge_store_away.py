"""A store that cannot be written for longer than the mailbox lasts: everything waits, and nothing is lost."""

from __future__ import annotations

import io
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from cloud_bridge.config import BridgeConfig, CameraConfig
from cloud_bridge.ingest.transport import Mailbox
from cloud_bridge.service import Service
from cloud_bridge.store.database import StoreConfig
from cloud_bridge.store.records import Work
from cloud_bridge.store.store import Store
from cloud_bridge.timeline import Timeline
from tests.support.bridge_factory import DEVICE, FakeMember, make_manifest, models_of, release
from tests.support.bridge_process import Peer
from tests.support.services import until
from wire.broker import BrokerConfig
from wire.errors import StoreAway
from wire.mqtt import Message
from wire.protocol.keys import DeviceKey
from wire.protocol.message import coarse_time

MANIFEST = make_manifest(slot_s=1.0)


class Fragile(Store):
    """A store that cannot be written while it is `away`."""

    away = False

    def commit(self, work: Work, delivered: int = 0) -> list[tuple[int, Message]]:
        if self.away:
            raise StoreAway("the disk is full")
        return super().commit(work, delivered)


def test_nothing_falls_out_of_the_mailbox_while_the_store_is_away(
    mosquitto: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mailbox takes 16 messages of a camera, and 60 come."""
    monkeypatch.setattr("cloud_bridge.service.Mailbox", partial(Mailbox, depth=16))
    now_s = coarse_time(time.time())
    store = Fragile.open(StoreConfig(), tmp_path)
    assert isinstance(store, Fragile)
    member, stop, key = FakeMember(), threading.Event(), DeviceKey(b"b" * 32)
    config = BridgeConfig(
        cameras=(CameraConfig("lab", "door", DEVICE.public.hex),), broker=BrokerConfig(f"mqtt://127.0.0.1:{mosquitto}")
    )
    service = Service(config, models_of(MANIFEST, member), key, store, Timeline(io.StringIO()))
    running = threading.Thread(target=service.run, args=(stop.is_set,))
    running.start()
    with Peer(mosquitto) as peer:
        until(lambda: peer.documents(key, "bridge", "bridges", key.public.hex[:16]))
        peer.publish("features", *(release(slot, manifest=MANIFEST, time_s=now_s) for slot in range(9)))
        until(lambda: len(peer.verdicts(key, MANIFEST)) == 2)
        store.away = True
        peer.publish("features", release(9, manifest=MANIFEST, time_s=now_s))
        until(lambda: service.bridge.trouble)
        peer.publish("features", *(release(slot, manifest=MANIFEST, time_s=now_s) for slot in range(10, 70)))
        until(lambda: service._mailbox._count == 60)
        store.away = False
        until(lambda: len(peer.verdicts(key, MANIFEST)) >= 63)
        stop.set()
        running.join()
        assert [verdict.last_slot for verdict in peer.verdicts(key, MANIFEST)] == list(range(7, 70))
        assert all(all(verdict.present) for verdict in peer.verdicts(key, MANIFEST))
    store.close()
