"""The bridge's process: read the configuration, load the model, run.

    python -m cloud_bridge --config bridge.toml [--json-lines FILE]

Its exit code is 0, or 2 with the reason on stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from cloud_bridge.bridge import SUBSCRIPTIONS, Bridge, run
from cloud_bridge.config import BridgeConfig
from cloud_bridge.documents import BridgeStatus
from cloud_bridge.inference.member import FamilyMember
from cloud_bridge.ingest.transport import Inbound, Mailbox, MqttTransport
from cloud_bridge.store.folder import own_folder
from cloud_bridge.store.store import Store
from cloud_bridge.timeline import Timeline
from familial.evaluate.ood_detector import ReferenceDistribution
from wire.artifact.manifest import EngineManifest
from wire.errors import ConfigError, VeilsightError
from wire.mqtt import Message, Receipt
from wire.protocol.keys import DeviceKey
from wire.protocol.message import coarse_time
from wire.protocol.topics import TOPICS, parse_topic, topic

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bridge; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m cloud_bridge", description="Read noised features from MQTT; publish verdicts and alerts."
    )
    parser.add_argument("--config", default="bridge.toml", help="the bridge's TOML file (default: bridge.toml)")
    parser.add_argument(
        "--json-lines", metavar="FILE", help="also write verdicts, alerts and counts as JSON, one document a line"
    )
    options = parser.parse_args(argv)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    try:
        _serve(BridgeConfig.load(options.config), options.json_lines)
    except VeilsightError as error:
        print(f"cloud_bridge: {error}", file=sys.stderr)
        return 2
    return 0


def _serve(config: BridgeConfig, json_lines: str | None) -> None:
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    with contextlib.ExitStack() as stack:
        stack.enter_context(own_folder(Path(config.state.dir)))
        timeline = Timeline(sys.stdout, _open(stack, json_lines))
        counts = _run(config, timeline, stop)
        timeline.stats(counts)


def _run(config: BridgeConfig, timeline: Timeline, stop: threading.Event) -> dict[str, Any]:
    """Load, connect and serve; returns the counts."""
    manifest = EngineManifest.load(config.model.engine)
    folder = Path(config.state.dir)
    key = DeviceKey.load_or_make(folder / "bridge.key")
    member = FamilyMember.load(config.model.checkpoint, manifest, config.model.threads)
    reference = ReferenceDistribution.load(config.model.checkpoint, manifest)
    store = Store.open(config.store, folder)
    mailbox, status = Mailbox(camera.name for camera in config.cameras), BridgeStatus(key, len(config.cameras))
    left = threading.Event()  # a message was left to the broker, unread and not acknowledged

    def hold(name: str, payload: bytes, retained: bool, receipt: Receipt) -> None:
        site, camera, last = parse_topic(name) or ("", "", "")
        dropped = mailbox.put(Inbound(f"{site}/{camera}", last, payload, retained, receipt, time.time()))
        if dropped is None or dropped.receipt is None:
            return
        if bridge.trouble:
            left.set()
        else:
            transport.acknowledge([dropped.receipt])

    def greeting() -> list[Message]:
        return [status.online(_now(), bridge.trouble), *bridge.open_alerts()]

    def take(timeout_s: float) -> list[Inbound]:
        if left.is_set():
            left.clear()
            transport.renew()
        return mailbox.take(timeout_s)

    def settled(message: Message) -> None:
        bridge.publisher.settled(message)

    def told(trouble: str) -> None:
        transport.publish(status.online(_now(), trouble))

    topics = [(topic(c.site, c.camera, name), TOPICS[name].qos) for c in config.cameras for name in SUBSCRIPTIONS]
    name, will = f"vsb-{key.public.hex[:16]}", status.will(_now())
    transport = MqttTransport(config.broker, name, topics, hold, will, greeting, settled)
    bridge = Bridge(config, manifest, member, key, store, transport, timeline, reference, told=told)
    with transport:
        timeline.note(f"ready: {len(config.cameras)} camera(s) on {config.broker.url}, bridge key {key.public.hex}")
        run(bridge, take, config.run.exit_when_offline, stop.is_set)
        transport.publish(status.offline("stopped", _now()))
    counts = {**bridge.stats(), "dropped": sum(mailbox.dropped.values()), "unpublished": bridge.publisher.waiting}
    store.close()
    return counts


def _now() -> int:
    return coarse_time(time.time())


def _open(stack: contextlib.ExitStack, json_lines: str | None) -> TextIO | None:
    """Open the file of JSON lines until the stack ends."""
    try:
        return stack.enter_context(open(json_lines, "w")) if json_lines else None
    except OSError as error:
        raise ConfigError(f"--json-lines {json_lines}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
