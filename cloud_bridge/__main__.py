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
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from cloud_bridge.bridge import SUBSCRIPTIONS, Bridge, run
from cloud_bridge.config import BridgeConfig
from cloud_bridge.inference.member import FamilyMember
from cloud_bridge.ingest.transport import Inbound, Mailbox, MqttTransport
from cloud_bridge.store.journal import Journal
from cloud_bridge.timeline import Timeline
from familial.evaluate.ood_detector import ReferenceDistribution
from wire.artifact.manifest import EngineManifest
from wire.errors import ConfigError, VeilsightError
from wire.protocol.keys import DeviceKey
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
    manifest = EngineManifest.load(config.model.engine)
    folder = Path(config.state.dir)
    journal = Journal.open(folder / "journal.json")
    key = DeviceKey.load_or_make(folder / "bridge.key")
    member = FamilyMember.load(config.model.checkpoint, manifest, config.model.threads)
    reference = ReferenceDistribution.load(config.model.checkpoint, manifest)
    mailbox = Mailbox(camera.name for camera in config.cameras)

    def receive(name: str, payload: bytes, retained: bool) -> None:
        parts = parse_topic(name)
        if parts is not None:
            mailbox.put(Inbound(f"{parts[0]}/{parts[1]}", parts[2], payload, retained))

    topics = [(topic(c.site, c.camera, name), TOPICS[name].qos) for c in config.cameras for name in SUBSCRIPTIONS]
    transport = MqttTransport(config.broker, f"vsb-{key.public.hex[:16]}", topics, receive)

    def take(timeout_s: float) -> list[Inbound]:
        transport.pump()
        return mailbox.take(timeout_s)

    with contextlib.ExitStack() as stack:
        timeline = Timeline(sys.stdout, _open(stack, json_lines))
        bridge = Bridge(config, manifest, member, key, journal, transport.publish, timeline, reference)
        with transport:
            timeline.note(f"ready: {len(config.cameras)} camera(s) on {config.broker.url}, bridge key {key.public.hex}")
            run(bridge, take, config.run.exit_when_offline, stop.is_set)
        dropped = sum(mailbox.dropped.values())
        timeline.stats({**bridge.stats(), "dropped": dropped, "unpublished": transport.unpublished})


def _open(stack: contextlib.ExitStack, json_lines: str | None) -> TextIO | None:
    """Open the file of JSON lines until the stack ends."""
    try:
        return stack.enter_context(open(json_lines, "w")) if json_lines else None
    except OSError as error:
        raise ConfigError(f"--json-lines {json_lines}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
