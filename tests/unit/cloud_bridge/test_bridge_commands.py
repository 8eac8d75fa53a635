"""Commands by the API: who may order what, the number, the signature, the audit log, and the way to the broker."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cloud_bridge.alerts.scenes import SceneConfig
from cloud_bridge.api.config import ApiConfig
from cloud_bridge.api.server import ApiServer
from cloud_bridge.bridge import Bridge
from cloud_bridge.client import BridgeClient
from cloud_bridge.commands.desk import CommandConfig, CommandDesk
from cloud_bridge.config import BridgeConfig, CameraConfig
from cloud_bridge.service import Service
from cloud_bridge.store import tables
from cloud_bridge.store.commands import TooManyCommands, UnknownCamera, add_command, unsent
from cloud_bridge.store.database import StoreConfig, reading
from cloud_bridge.store.records import Work
from cloud_bridge.store.shard import Shard
from cloud_bridge.store.store import Store
from cloud_bridge.timeline import Timeline
from cloud_bridge.web.facts import Facts
from tests.support.api_server import MANIFEST, Api
from tests.support.bridge_factory import DEVICE, OTHER, FakeLink, FakeMember, Harness, a_state, models_of
from wire.broker import BrokerConfig
from wire.errors import ConfigError, StoreAway
from wire.protocol.command import Orders, open_command
from wire.protocol.keys import DeviceKey

OPERATOR = DeviceKey(b"p" * 32)
DOOR = "/v1/devices/lab/door/commands"


class Ordered(Api):
    """The API of a bridge with an operator's key."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        bridge = self.harness.bridge
        bridge._requests._sends_commands = True
        OPERATOR.save(folder / "operator.key")
        config = CommandConfig(str(folder / "operator.key"))
        desk = CommandDesk.of(config, bridge._store.engine, lambda camera: bridge.sessions[camera].profile)
        api = ApiConfig("127.0.0.1:0", str(folder / "tokens.json"), requests_per_s=1e6, burst=1e6)
        self.server._socket.close()
        self.server = ApiServer(api, bridge._store.engine, dict, Facts(lambda: bridge.models, {}), desk)
        self.http.base_url = f"http://127.0.0.1:{self.server.port}"

    def order(self, profile: str, who: str = "operator", path: str = DOOR) -> Any:
        return self.ask(path, who, "POST", json={"profile": profile})

    def sent(self) -> list[bytes]:
        self.harness.bridge._requests._looked_s = -1.0
        self.harness.bridge.tidy()
        return [m.payload for m in self.harness.link.sent if m.topic == "veilsight/v1/lab/door/command"]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Ordered]:
    made = Ordered(tmp_path)
    with made:
        yield made


def test_an_order_reaches_the_device_signed_and_once(api: Ordered, tmp_path: Path) -> None:
    told = api.order("strict")
    assert told.status_code == 202
    row = told.json()
    assert (row["camera"], row["profile"], row["who"], row["sent_s"]) == ("lab/door", "strict", "operator", 0.0)
    (payload,) = api.sent()
    assert api.sent() == [payload]  # once
    device = Orders(tmp_path / "last", OPERATOR.public, "lab/door", ["strict", "balanced"])
    assert device.take(payload) == "strict" and device.number == row["number"]
    (message,) = [m for m in api.harness.link.sent if m.payload == payload]
    assert (message.qos, message.retain) == (1, False)
    past = api.ask(DOOR, "operator").json()
    assert past["rows"][0]["sent_s"] > 0.0 and past["operator_key"] == OPERATOR.public.hex
    entry = api.ask("/v1/audit", "admin").json()[0]
    assert (entry["who"], entry["what"]) == ("operator", "command")
    assert entry["detail"] == f"lab/door: profile strict, number {row['number']}"


def test_the_python_client_orders(api: Ordered) -> None:
    async def order() -> dict[str, Any]:
        async with BridgeClient(str(api.http.base_url), api.tokens["operator"]) as bridge:
            return await bridge.order("lab/door", "strict")

    assert asyncio.run(order())["profile"] == "strict"
    assert len(api.sent()) == 1


@pytest.mark.parametrize(
    ("who", "status"), [("viewer", 403), ("nurse", 403), ("operator", 202), ("admin", 202), ("", 401), ("old", 401)]
)
def test_operators_and_admins_alone_may_order(api: Ordered, who: str, status: int) -> None:
    assert api.order("strict", who).status_code == status
    assert api.ask(DOOR, who).status_code == (200 if status == 202 else status)
    assert len(api.sent()) == (status == 202)


def test_another_site_s_camera_is_not_there(api: Ordered) -> None:
    assert api.order("strict", "stranger").status_code == 404 == api.ask(DOOR, "stranger").status_code
    assert api.order("strict", "operator", "/v1/devices/lab/nowhere/commands").status_code == 404
    assert api.sent() == [] and api.count(tables.commands) == 0 == api.count(tables.audit)


@pytest.mark.parametrize("profile", ["loud", "", "strict ", "balanced\n", "x" * 5000, None, 3, ["strict"]])
def test_a_profile_that_is_none_is_refused(api: Ordered, profile: Any) -> None:
    assert api.order(profile).status_code == 422
    assert api.count(tables.commands) == 0


def test_without_a_key_nobody_is_obeyed(tmp_path: Path) -> None:
    with Api(tmp_path) as api:
        answer = api.ask(DOOR, "operator", "POST", json={"profile": "strict"})
        assert answer.status_code == 409 and "[commands] operator_key" in answer.json()["detail"]
    assert CommandDesk.of(CommandConfig(), sa.create_engine("sqlite://"), str) is None


def test_what_is_in_force_is_what_the_device_has_signed(api: Ordered) -> None:
    assert api.ask(DOOR, "operator").json()["in_force"] == ""
    api.harness.send(a_state("online", profile="strict"), name="state")
    assert api.ask(DOOR, "operator").json()["in_force"] == "strict"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    OPERATOR.save(tmp_path / "operator.key")
    (tmp_path / "operator.key").chmod(mode)
    with pytest.raises(
        ConfigError, match=rf"\[commands\] operator_key: .*mode {mode:04o} lets others (read|write) it; chmod"
    ):
        CommandDesk.of(CommandConfig(str(tmp_path / "operator.key")), sa.create_engine("sqlite://"), str)


def test_a_key_that_is_missing_short_or_a_link_is_refused(tmp_path: Path) -> None:
    file, engine = tmp_path / "operator.key", sa.create_engine("sqlite://")
    config = CommandConfig(str(file))
    with pytest.raises(ConfigError, match="there is no such file; make one"):
        CommandDesk.of(config, engine, str)
    file.write_bytes(b"short")
    file.chmod(0o600)
    with pytest.raises(ConfigError, match="5 bytes, expected 32"):
        CommandDesk.of(config, engine, str)
    file.unlink()
    file.symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="operator_key"):
        CommandDesk.of(config, engine, str)


def test_the_section_of_the_file() -> None:
    camera = {"site": "lab", "camera": "door", "public_key": DEVICE.public.hex}
    found = BridgeConfig.parse({"cameras": [camera], "commands": {"operator_key": "/k"}})
    assert found.commands.operator_key == "/k"
    with pytest.raises(ConfigError, match="operator_keys"):
        BridgeConfig.parse({"cameras": [camera], "commands": {"operator_keys": "/k"}})


# --- the number


@pytest.fixture
def store(config: StoreConfig, tmp_path: Path, every_engine_is_closed: None) -> Store:
    store = Store.open(config, tmp_path)
    store.commit(Work({"lab/door": store.record("lab/door", DEVICE.public.hex)}))
    return store


def numbers(store: Store) -> list[int]:
    with reading(store.engine) as connection:
        return list(connection.scalars(sa.select(tables.commands.c.number).order_by(tables.commands.c.number)))


def test_numbers_grow_though_the_clock_is_set_back(store: Store) -> None:
    for now_s in (2000.0, 2000.0, 1000.0, 3000.0):
        add_command(store.engine, "o", "lab/door", "strict", lambda n: b"%d" % n, now_s)
    assert numbers(store) == [2_000_000, 2_000_001, 2_000_002, 3_000_000]
    again = Store(store.engine)
    assert add_command(again.engine, "o", "lab/door", "strict", bytes, 1.0)["number"] == 3_000_001


def test_two_operators_at_once_get_two_numbers(store: Store) -> None:
    def order(who: int) -> int:
        return int(add_command(store.engine, f"o{who}", "lab/door", "strict", lambda n: b"", 5000.0)["number"])

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(order, range(20))) == list(range(5_000_000, 5_000_020))


def test_a_device_is_not_ordered_about_for_ever(store: Store) -> None:
    for number in range(60):
        add_command(store.engine, "o", "lab/door", "strict", lambda n: b"", 5000.0 + number)
    with pytest.raises(TooManyCommands, match="60 times within an hour"):
        add_command(store.engine, "o", "lab/door", "strict", lambda n: b"", 5100.0)
    add_command(store.engine, "o", "lab/door", "strict", lambda n: b"", 5000.0 + 3601.0)
    with pytest.raises(UnknownCamera):
        add_command(store.engine, "o", "lab/hall", "strict", lambda n: b"", 5100.0)
    assert len(numbers(store)) == 61


def test_a_command_that_cannot_be_signed_leaves_nothing(store: Store) -> None:
    def fail(number: int) -> bytes:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        add_command(store.engine, "o", "lab/door", "strict", fail)
    with reading(store.engine) as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(tables.audit)) == 0
    assert numbers(store) == []


def test_a_shard_sends_the_commands_of_its_own_cameras(store: Store) -> None:
    add_command(store.engine, "o", "lab/door", "strict", lambda n: b"p", time.time())
    found = [[each.camera for each in unsent(store.engine, Shard(number, 2, True))] for number in (1, 2)]
    assert found == [["lab/door"], []]


def test_a_command_to_a_camera_of_a_scene_is_sent_by_the_shard_that_reads_the_scene(
    store: Store, tmp_path: Path
) -> None:
    """All cameras of a scene fall to the shard of the first, whatever their own names say."""
    assert [Shard(1, 2, True).has(name) for name in ("lab/door", "lab/hall")] == [True, False]
    OPERATOR.save(tmp_path / "operator.key")
    store.commit(Work({"lab/hall": store.record("lab/hall", OTHER.public.hex)}))
    cameras = (CameraConfig("lab", "door", DEVICE.public.hex), CameraConfig("lab", "hall", OTHER.public.hex))
    config = BridgeConfig(
        cameras=cameras,
        broker=BrokerConfig("mqtt://127.0.0.1:1"),
        scenes=(SceneConfig("ward", ("lab/door", "lab/hall")),),
        commands=CommandConfig(str(tmp_path / "operator.key")),
    )
    timeline = Timeline(io.StringIO())
    service = Service(config, models_of(MANIFEST, FakeMember()), DeviceKey(b"b" * 32), store, timeline)
    assert service._desk is not None
    service._desk.order("o", "lab/hall", "strict")
    found = [[each.camera for each in unsent(store.engine, Shard(number, 2, True))] for number in (1, 2)]
    assert found == [["lab/hall"], []]


# --- the bridge


def test_a_commit_that_fails_sends_a_command_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(tmp_path, MANIFEST)
    bridge: Bridge = harness.bridge
    bridge._requests._sends_commands = True
    seal = CommandDesk(OPERATOR, bridge._store.engine, str)
    seal.order("o", "lab/door", "strict")
    link: FakeLink = harness.link

    def away(*what: object, **how: object) -> object:
        raise StoreAway("gone")

    with monkeypatch.context() as patch:
        patch.setattr(bridge._store, "commit", away)
        for _ in range(3):
            bridge._requests._looked_s = -1.0
            bridge.tidy()
    assert bridge.trouble and not any(m.topic.endswith("/command") for m in link.sent)
    assert bridge.retry()
    bridge._requests._looked_s = -1.0
    bridge.tidy()
    (payload,) = [m.payload for m in link.sent if m.topic.endswith("/command")]
    assert open_command(payload, OPERATOR.public, "lab/door").profile == "strict"
    again = Harness(tmp_path, MANIFEST)
    again.bridge._requests._sends_commands = True
    again.bridge.tidy()
    assert not any(m.topic.endswith("/command") for m in again.link.sent)
