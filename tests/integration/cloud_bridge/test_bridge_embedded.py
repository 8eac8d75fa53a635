"""The bridge's connection on the demo's embedded broker, which speaks MQTT 3.1.1 alone."""

from __future__ import annotations

import queue
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cloud_bridge.ingest.transport import MqttTransport
from tests.support.services import PATIENCE_S, free_port, until, wait_for_port
from wire.broker import BrokerConfig
from wire.mqtt import Message

SERVE = """
import asyncio, sys
from amqtt.broker import Broker
async def serve():
    listener = {"type": "tcp", "bind": f"127.0.0.1:{sys.argv[1]}"}
    plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    await Broker({"listeners": {"default": listener}, "plugins": plugins}).start()
    await asyncio.Event().wait()
asyncio.run(serve())
"""


@pytest.fixture
def embedded() -> Iterator[int]:
    """The port of an amqtt broker in a process of its own."""
    port = free_port()
    with subprocess.Popen([sys.executable, "-c", SERVE, str(port)], stderr=subprocess.DEVNULL) as process:
        wait_for_port(port, process)
        yield port
        process.kill()


def test_the_connection_falls_back_to_mqtt_3_1_1(embedded: int) -> None:
    got = queue.Queue[tuple[str, bytes, bool]]()
    topic = "veilsight/v1/lab/door/features"
    url = f"mqtt://127.0.0.1:{embedded}"
    with MqttTransport(BrokerConfig(url), "vsb-test", [(topic, 1)], lambda *message: got.put(message[:3])) as transport:
        transport.publish(Message(topic, b"one", 1, False))
        transport.publish(Message("veilsight/v1/lab/door/state", b"{}", 1, True))
        assert got.get(timeout=PATIENCE_S) == (topic, b"one", False)
        until(transport.flush)
