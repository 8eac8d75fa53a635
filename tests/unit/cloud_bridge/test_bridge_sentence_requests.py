"""A sentence that is asked for by API: who may ask, which verdict has it, and that nothing that is asked gets lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from cloud_bridge.client import BridgeClient
from cloud_bridge.requests import Requests
from cloud_bridge.store import tables
from cloud_bridge.store.commands import UnknownCamera
from cloud_bridge.store.database import StoreConfig, writing
from cloud_bridge.store.records import CameraRecord, Work
from cloud_bridge.store.sentence_requests import answered, ask_sentence, asked
from cloud_bridge.store.shard import Shard
from cloud_bridge.store.store import Store
from tests.support.api_server import MANIFEST, Api
from tests.support.bridge_factory import DEVICE, OTHER, Harness, release
from wire.errors import StoreAway

SELDOM_S = 1e6  # between two sentences that nobody has asked for
DOOR = "/v1/cameras/lab/door/sentence"


class Quiet(Api):
    """An API over a bridge that says a camera's first sentence, and then none unasked."""

    def __init__(self, folder: Path, **how: Any) -> None:
        super().__init__(folder, **how)
        self.harness.bridge._requests._every_s = SELDOM_S
        read(self.harness, range(8))
        self.harness.member.described.clear()

    def request(self, who: str = "nurse", path: str = DOOR) -> Any:
        return self.ask(path, who, "POST")


def read(harness: Harness, slots: range, camera: str = "door") -> None:
    """Read releases of lab/`camera`, and look at what is asked for after each of them."""
    key = DEVICE if camera == "door" else OTHER
    for slot in slots:
        harness.now_s = 1000.0 + slot
        made = release(slot, 55, manifest=MANIFEST, time_s=960, key=key, camera=camera)
        harness.send(made, camera=f"lab/{camera}")
        look(harness)


def look(harness: Harness) -> None:
    harness.bridge._requests._looked_s = -1.0
    harness.bridge.tidy()


def said(harness: Harness, camera: str = "door") -> list[int]:
    """Last slots of the verdicts that have a sentence, after the first, which always has one."""
    return [each.last_slot for each in harness.verdicts(camera) if each.sentence and each.last_slot > 7]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Quiet]:
    made = Quiet(tmp_path)
    with made:
        yield made


def test_the_next_verdict_of_that_camera_has_the_sentence_once(api: Quiet) -> None:
    read(api.harness, range(8), "hall")
    answer = api.request()
    assert answer.status_code == 202
    assert answer.json() == {"camera": "lab/door", "asked_s": pytest.approx(answer.json()["asked_s"])}
    look(api.harness)
    read(api.harness, range(8, 10), "hall")
    read(api.harness, range(8, 12))
    assert said(api.harness) == [8] and said(api.harness, "hall") == []
    assert api.count(tables.sentence_requests) == 0
    assert [row["sentence"] != "" for row in api.rows("/v1/verdicts?camera=lab/door")][:4] == [False] * 3 + [True]


def test_who_asks_twice_gets_one_sentence(api: Quiet) -> None:
    assert [api.request(who).status_code for who in ("nurse", "operator", "nurse")] == [202] * 3
    look(api.harness)
    read(api.harness, range(8, 11))
    assert len(api.harness.member.described) == 1 and said(api.harness) == [8]


def test_who_asks_while_it_is_answered_gets_another(api: Quiet) -> None:
    """The answer to the first may have been made before the second has asked."""
    api.request("nurse")
    look(api.harness)
    api.request("operator")
    read(api.harness, range(8, 12))
    assert said(api.harness) == [8, 9]


def test_the_python_client_asks(api: Quiet) -> None:
    async def ask() -> dict[str, Any]:
        async with BridgeClient(api.url, api.tokens["nurse"]) as bridge:
            return await bridge.ask_sentence("lab/door")

    assert asyncio.run(ask())["camera"] == "lab/door"
    look(api.harness)
    read(api.harness, range(8, 9))
    assert said(api.harness) == [8]


@pytest.mark.parametrize(
    ("who", "status"), [("viewer", 403), ("nurse", 202), ("operator", 202), ("admin", 202), ("", 401), ("old", 401)]
)
def test_nurses_and_above_may_ask(api: Quiet, who: str, status: int) -> None:
    assert api.request(who).status_code == status
    assert api.count(tables.sentence_requests) == (status == 202)


def test_another_site_s_camera_and_an_unknown_one_are_not_there(api: Quiet) -> None:
    assert api.request("stranger").status_code == 404
    assert api.request("admin", "/v1/cameras/lab/nowhere/sentence").status_code == 404
    assert api.request("lab").status_code == 202
    for name in ("lab/do'or", "lab/.door", f"lab/{'x' * 64}"):
        assert api.request("admin", f"/v1/cameras/{name}/sentence").status_code == 422
    assert api.count(tables.sentence_requests) == 1


def test_requests_are_limited_as_all_others(tmp_path: Path) -> None:
    api = Quiet(tmp_path, per_s=1e-6, burst=2.0)
    with api:
        assert [api.request().status_code for _ in range(3)] == [202, 202, 429]


def test_it_is_described_in_the_openapi_document(api: Quiet) -> None:
    (found,) = api.ask("/openapi.json", "").json()["paths"]["/v1/cameras/{site}/{camera}/sentence"].values()
    assert {"202", "422"} <= found["responses"].keys()


# --- the bridge


def test_the_edge_s_exit_has_no_sentence_so_the_request_waits_for_the_cloud(api: Quiet) -> None:
    api.request()
    look(api.harness)
    api.harness.member.exit = "edge"
    read(api.harness, range(8, 10))
    assert said(api.harness) == [] and api.count(tables.sentence_requests) == 1
    api.harness.member.exit = "cloud"
    read(api.harness, range(10, 11))
    assert said(api.harness) == [10] and api.count(tables.sentence_requests) == 0


def test_a_request_outlives_a_bridge_and_a_store_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Harness(tmp_path, MANIFEST, sentences_s=SELDOM_S)
    read(first, range(8))
    ask_sentence(first.bridge._store.engine, "lab/door")
    first.bridge._store.close()
    again = Harness(tmp_path, MANIFEST, sentences_s=SELDOM_S)

    def away(*what: object, **how: object) -> object:
        raise StoreAway("gone")

    with monkeypatch.context() as patch:
        patch.setattr("cloud_bridge.store.store.asked", away)
        read(again, range(8, 10))
    with monkeypatch.context() as patch:
        look(again)
        patch.setattr(again.bridge._store, "commit", away)
        read(again, range(10, 11))
    assert again.bridge.trouble and said(again) == []
    assert again.bridge.retry()
    read(again, range(11, 13))
    assert said(again) == [10] and asked(again.bridge._store.engine, Shard()) == {}
    again.bridge._store.close()


# --- the store, SQLite and PostgreSQL


@pytest.fixture
def store(config: StoreConfig, tmp_path: Path, every_engine_is_closed: None) -> Store:
    store = Store.open(config, tmp_path)
    store.commit(Work({name: store.record(name, DEVICE.public.hex) for name in ("lab/door", "lab/hall")}))
    return store


def test_a_row_stays_until_what_it_asked_last_is_answered(store: Store) -> None:
    for now_s in (1000.0, 1000.25):
        assert ask_sentence(store.engine, "lab/door", now_s) == {"camera": "lab/door", "asked_s": now_s}
    ask_sentence(store.engine, "lab/hall", 7.0)
    store.commit(Work(answered={"lab/door": 1000.0}, records={"lab/hall": store.record("lab/hall", DEVICE.public.hex)}))
    assert store.asked_sentences() == {"lab/door": 1000.25, "lab/hall": 7.0}
    with writing(store.engine) as connection:
        answered(connection, {"lab/door": 1000.25})
    assert store.asked_sentences() == {"lab/hall": 7.0}


def test_a_shard_is_asked_of_its_own_cameras(store: Store) -> None:
    ask_sentence(store.engine, "lab/door", 5.0)
    found = [list(asked(store.engine, Shard(number, 2, True))) for number in (1, 2)]
    assert found == [["lab/door"], []]


def test_a_camera_of_a_scene_is_asked_in_the_shard_that_reads_the_scene(tmp_path: Path) -> None:
    """All cameras of a scene fall to the shard of the first, whatever their own names say."""
    assert not Shard(1, 2, True).has("lab/hall") and Shard(1, 2, True).has("lab/door")
    with Api(tmp_path, shard_name=lambda camera: "lab/door") as api:
        assert api.ask("/v1/cameras/lab/hall/sentence", "nurse", "POST").status_code == 202
        engine = api.harness.bridge._store.engine
        found = [list(asked(engine, Shard(number, 2, True))) for number in (1, 2)]
    assert found == [["lab/hall"], []]


def test_a_camera_that_was_never_here_cannot_be_asked(store: Store) -> None:
    with pytest.raises(UnknownCamera, match="lab/yard"):
        ask_sentence(store.engine, "lab/yard")
    with writing(store.engine) as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(tables.sentence_requests)) == 0


def batch(requests: Requests, records: list[CameraRecord], slot: int, changes: bool = False) -> list[int]:
    """A batch with an event of each camera: whose verdicts have a sentence."""
    requests.begin(len(records))
    events: list[Any] = [SimpleNamespace(camera=f"c{n}", boot_id=1, last_slot=slot) for n in range(len(records))]
    return [
        n
        for n, (event, record) in enumerate(zip(events, records, strict=True))
        if requests.wants_words(event, changes, record, Work())
    ]


def test_the_first_sentences_of_a_ward_that_begins_at_once_come_one_by_one() -> None:
    """Of 60 cameras and 30 s three a second, none of them twice before its time; and all that an alert needs."""
    nothing: Any = None
    requests, records = Requests(nothing, False, 30.0, 1.0), [CameraRecord() for _ in range(60)]
    told = [batch(requests, records, slot) for slot in range(7, 67)]
    assert [len(each) for each in told[:20]] == [3] * 20 and sorted(sum(told[:20], [])) == list(range(60))
    assert all(len(each) <= 3 for each in told) and sorted(sum(told[30:50], [])) == list(range(60))
    assert batch(requests, records, 67, changes=True) == list(range(60))


def test_where_every_verdict_is_to_have_a_sentence_each_has_one() -> None:
    nothing: Any = None
    requests, records = Requests(nothing, False, 0.0, 1.0), [CameraRecord() for _ in range(60)]
    assert batch(requests, records, 7) == batch(requests, records, 8) == list(range(60))
