"""A slot on trial, judged by a real gate's local page: kept when a real broker accepts its releases, else left."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from firmware_configs.update.machine import Machine
from firmware_configs.update.published import published
from firmware_configs.update.trial import boot, confirm
from tests.support.engine_factory import make_edge_config, make_engine
from tests.support.services import PATIENCE_S, ROOT, Broker, find, free_port, until
from tests.support.update_device import Device, Reboot

WANTED = 10


@contextmanager
def gate(folder: Path, broker: int) -> Iterator[tuple[Path, int]]:
    """A gate that publishes to a port: its edge.toml and the port of its page."""
    make_engine(folder / "engine", slot_s=0.1)
    port = free_port()
    listen = {"listen": f"127.0.0.1:{port}"}
    config = make_edge_config(folder, engine=folder / "engine", port=broker, health=listen)
    command = [sys.executable, "-m", "edge_runtime", "--config", str(config)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        yield config, port
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.fixture
def on_trial(tmp_path: Path) -> Device:
    (tmp_path / "device").mkdir()
    device = Device(tmp_path / "device")
    device.live()
    device.install(7, floor=7)
    device.at = device.jetson.power_on()
    boot(device.machine)
    return device


def with_config(device: Device, config: Path) -> Machine:
    return replace(device.machine, config=config)


def test_a_slot_whose_releases_the_broker_accepts_is_kept(tmp_path: Path, on_trial: Device) -> None:
    broker = Broker(find("mosquitto"), tmp_path)
    broker.start()
    try:
        with gate(tmp_path / "gate", broker.port) as (config, port):
            said = confirm(with_config(on_trial, config), WANTED, PATIENCE_S)
            seen = published("127.0.0.1", port)
        assert seen is not None and seen.enough(WANTED)
        assert "slot B is kept" in said
    finally:
        broker.stop()
    assert (on_trial.record.floor, on_trial.record.trial) == (7, "")


def test_a_slot_whose_broker_is_away_is_left(tmp_path: Path, on_trial: Device) -> None:
    with gate(tmp_path / "gate", free_port()) as (config, port):

        def releases() -> bool:
            seen = published("127.0.0.1", port)
            return seen is not None and seen.seen >= WANTED  # it releases, and nothing of it arrives

        until(releases)
        with pytest.raises(Reboot):
            confirm(with_config(on_trial, config), WANTED, 1.0)
        seen = published("127.0.0.1", port)
    assert seen is not None and not seen.connected
    assert on_trial.live() == "A"


def test_a_slot_whose_releases_the_brokers_access_list_refuses_is_left(tmp_path: Path, on_trial: Device) -> None:
    """MQTT 5 says so in the PUBACK; the gate counts it."""
    (tmp_path / "acl").write_text("topic write veilsight/+/+/+/state\ntopic write veilsight/+/+/+/certificate\n")
    broker = Broker(find("mosquitto"), tmp_path)
    with (tmp_path / "mosquitto.conf").open("a") as file:
        file.write(f"acl_file {tmp_path / 'acl'}\nuser root\n")
    broker.start()
    try:
        with gate(tmp_path / "gate", broker.port) as (config, port):

            def releases() -> bool:
                seen = published("127.0.0.1", port)
                return seen is not None and seen.connected and seen.seen >= 2 * WANTED

            until(releases)
            with pytest.raises(Reboot):
                confirm(with_config(on_trial, config), WANTED, 1.0)
    finally:
        broker.stop()
    assert on_trial.live() == "A"
