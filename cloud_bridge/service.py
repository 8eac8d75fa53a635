"""The running bridge: its parts and the connection between them.

broker <--> MqttTransport --hold--> Mailbox --take--> Bridge --work--> Store --outbox--> Publisher --> MqttTransport
                                                                         `-> Courier --> receivers of webhooks
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud_bridge.bridge import SUBSCRIPTIONS, Bridge
from cloud_bridge.commands.desk import CommandDesk
from cloud_bridge.config import BridgeConfig
from cloud_bridge.documents import BridgeStatus
from cloud_bridge.garbage import Garbage
from cloud_bridge.home_assistant import Discovery, entities
from cloud_bridge.inference.member import MAX_BATCH
from cloud_bridge.ingest.transport import Inbound, Mailbox, MqttTransport
from cloud_bridge.loop import run
from cloud_bridge.models import Models, first_of
from cloud_bridge.reload import Reload
from cloud_bridge.store.store import Store
from cloud_bridge.timeline import Timeline
from wire.errors import StoreError
from wire.mqtt import Message, Receipt
from wire.protocol.keys import DeviceKey
from wire.protocol.message import coarse_time
from wire.protocol.topics import TOPICS, parse_topic, topic

if TYPE_CHECKING:
    from cloud_bridge.telemetry.traces import Traces
    from cloud_bridge.webhooks.courier import Courier

__all__ = ["Service"]


class Service:
    """A bridge with its connection.

    Attributes:
        bridge: Everything between the mailbox and the store.
    """

    def __init__(
        self,
        config: BridgeConfig,
        models: Models,
        key: DeviceKey,
        store: Store,
        timeline: Timeline,
        reload: Reload | None = None,
    ) -> None:
        """Put the parts together; nothing is connected yet.

        The arguments are those of `Bridge`, and what reads the models anew; None: nothing does.
        """
        self._config, self._key, self._store, self._timeline = config, key, store, timeline
        self._manifest, self._reload = first_of(models).manifest, reload or Reload(lambda held: held)
        names, wait_s = [camera.name for camera in config.cameras], config.ingest.batch_wait_ms / 1000.0
        self._mailbox = Mailbox(names, wanted=self._wanted, enough=min(MAX_BATCH, len(names)), wait_s=wait_s)
        self._reload.wake = self.hurry
        self._courier: Courier | None = None
        self._traces: Traces | None = None
        self._desk = CommandDesk.of(config.commands, store.engine, self._in_force, config.shard_name)
        shard = store.place.shard
        self._status = BridgeStatus(key, len(config.cameras), f"-{shard.number}.{shard.of}" if shard.fenced else "")
        self._discovery = self._discover()
        topics = [(topic(c.site, c.camera, name), TOPICS[name].qos) for c in config.cameras for name in SUBSCRIPTIONS]
        self._topics = {topic(c.site, c.camera, name): (c.name, name) for c in config.cameras for name in SUBSCRIPTIONS}
        # A shard's name is the same in whoever reads it: the broker goes on with its session, and ends the former one.
        name = f"vsb-{key.public.hex[:10]}-{shard.number}.{shard.of}" if shard.fenced else f"vsb-{key.public.hex[:16]}"
        listens = (self._hold, self._status.will(_now()), self._greeting, self._settled)
        self._transport = MqttTransport(config.broker, name, topics, *listens, may_connect=lambda: store.place.held)
        self.bridge = Bridge(config, models, key, store, self._transport, timeline, told=self._tell)
        self._garbage = Garbage()

    def run(self, stopped: Callable[[], bool]) -> dict[str, Any]:
        """Connect and serve until `stopped()`, or as `[run]` says; returns the counts. Raises as its parts do."""
        cameras, broker = len(self._config.cameras), self._config.broker.url
        ready = f"ready: {cameras} camera(s) on {broker}, bridge key {self._key.public.hex}{self._shard}"
        with self._transport, self._traced(), self._webhooks(), self._api(), self._garbage:
            self._timeline.note(ready)
            ends = (self._config.run.exit_when_offline, lambda: stopped() or self._broken)
            run(self.bridge, self._mailbox.take, *ends, self._follow)
            if self._broken:
                raise StoreError("the thread of the webhooks has ended; its error is above: please report it")
            self._transport.publish(self._status.offline("stopped", _now()))
            if self._transport.flush():
                self._discovery.delivered()
        waiting = self.bridge.publisher.waiting
        return {**self.bridge.stats(), "dropped": self._dropped, "unpublished": waiting}

    def hurry(self) -> None:
        """Let the loop look now whether it is to stop, or to read models anew. Any thread; no signal handler."""
        self._mailbox.hurry()

    def _follow(self) -> None:
        """Between two batches: collect garbage where it is due; take the models that were read anew, if there are."""
        self._garbage.look()
        former = self.bridge.models
        models = self._reload.step(former)
        if models is None:
            return
        self.bridge.change(models)
        self._garbage.renew()
        for line in (line for number, model in models.items() if number not in former for line in model.told()):
            self._timeline.note(line)
        self._timeline.note(f"models: {', '.join(f'{number:016x}' for number in models)}")

    def _discover(self) -> Discovery:
        """What Home Assistant is told, where that is asked for."""
        home, cameras = self._config.home_assistant, [(each.site, each.camera) for each in self._config.cameras]
        told = entities(home.prefix, cameras, self._manifest.labels[1:], self._status.name) if home.enabled else {}
        return Discovery(told, Path(self._config.state.dir))

    def _webhooks(self) -> AbstractContextManager[object]:
        """Who delivers webhooks, where there are any."""
        if not self._config.webhooks:
            return nullcontext()
        from cloud_bridge.webhooks.courier import Courier  # httpx, which a bridge without webhooks does not load

        self._courier = Courier(self._config.webhooks, self._store)
        self.bridge.listeners.append(lambda camera, made, number: self._wake() if number else None)
        return self._courier

    def _traced(self) -> AbstractContextManager[object]:
        """Who sends traces, where that is asked for."""
        if not self._config.telemetry.otlp:
            return nullcontext()
        from cloud_bridge.telemetry.traces import Traces  # OpenTelemetry, which a bridge without traces does not load

        sessions, slot_s = self.bridge.sessions, self._manifest.window.slot_s
        self._traces = traces = Traces(
            self._config.telemetry, self.bridge.stages, slot_s, lambda camera: sessions[camera].device_s
        )
        self.bridge.listeners.append(traces.tell)
        return traces

    def _wake(self) -> None:
        if self._courier is not None:
            self._courier.wake()

    @property
    def _broken(self) -> bool:
        return self._courier is not None and self._courier.ended

    def _health(self) -> dict[str, Any]:
        told = self._courier.counts() if self._courier is not None else {}
        traced = self._traces.counts() if self._traces is not None else {}
        own = {"dropped": self._dropped, "shard": str(self._store.place.shard), "reload": self._reload.trouble}
        return {**self.bridge.health, **own, "webhooks": told, "traces": traced}

    @property
    def _dropped(self) -> int:
        """Messages that nobody has read."""
        return sum(self._mailbox.dropped.copy().values())

    @property
    def _shard(self) -> str:
        shard = self._store.place.shard
        return f", shard {shard}" if shard.fenced else ""

    def _api(self) -> AbstractContextManager[object]:
        """The API where there is one."""
        if not self._config.api.listen:
            return nullcontext()
        from cloud_bridge.api.server import ApiServer  # FastAPI, which a bridge without an API does not load
        from cloud_bridge.web.facts import Facts

        views = max((len(scene.cameras) for scene in self._config.scenes), default=1)
        facts = Facts(lambda: self.bridge.models, self.bridge.sessions, views)
        about = (self._health, facts, self._desk, self.bridge.stages, self._config.shard_name)
        server = ApiServer(self._config.api, self._store.engine, *about)
        self.bridge.listeners.append(server.tell)
        self.bridge.viewers.append(server.show)
        return server

    # --- the network's thread

    def _hold(self, name: str, payload: bytes, retained: bool, receipt: Receipt) -> None:
        """Put a message into the mailbox. What falls out of it is lost by its camera's own flood, and acknowledged;
        not so while the store keeps us waiting.
        """
        camera, last = self._topics.get(name) or _unknown(name)
        if not receipt.mid:  # QoS 0, as no device sends: it would overtake, and push out, what waits at QoS 1
            self._mailbox.leave(camera)
            return
        item, waits = Inbound(camera, last, payload, retained, receipt, time.time()), self.bridge.trouble
        dropped = self._mailbox.put(item, keep=bool(waits))
        if dropped is not None and dropped.receipt is not None and not waits:
            self._transport.acknowledge([dropped.receipt])

    def _wanted(self, item: Inbound) -> bool:
        session = self.bridge.sessions.get(item.camera)
        return session is not None and session.wants(item.name, item.payload)

    # --- the API's threads

    def _in_force(self, camera: str) -> str:
        session = self.bridge.sessions.get(camera)
        return session.profile if session is not None else ""

    # --- the bridge's thread

    def _greeting(self) -> list[Message]:
        own = [self._status.online(_now(), self.bridge.trouble), *self.bridge.open_alerts()]
        return own + self._discovery.messages()

    def _settled(self, number: int) -> None:
        self.bridge.publisher.settled(number)

    def _tell(self, trouble: str) -> None:
        self._transport.publish(self._status.online(_now(), trouble))


def _unknown(name: str) -> tuple[str, str]:
    """Camera and last part of a topic that we have not asked for."""
    site, camera, last = parse_topic(name) or ("", "", "")
    return f"{site}/{camera}", last


def _now() -> int:
    return coarse_time(time.time())
