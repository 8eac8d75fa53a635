"""The campaigns' own parts: the same seed gives the same messages, and a judge overlooks nothing."""

from __future__ import annotations

import math
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from benchmarks.broker import held_ports
from benchmarks.cloud.fuzz_messages import READ, Fuzzer, Hostile
from benchmarks.cloud.kill_fleet import NURSE, Nurse, spent, wavering
from benchmarks.cloud.kill_judge import judge
from benchmarks.cloud.kills import too_late
from cloud_bridge.alerts.lifecycle import AlertBook
from cloud_bridge.alerts.rules import AlertRule
from cloud_bridge.bridge import SUBSCRIPTIONS
from cloud_bridge.ingest.engines import engines_of
from cloud_bridge.ingest.freshness import IngestRule
from cloud_bridge.ingest.session import CameraSession
from cloud_bridge.store.records import CameraRecord
from tests.support.api_server import Api
from tests.support.bridge_factory import FakeMember, Harness, a_state, make_manifest, release
from tests.support.services import until
from wire.protocol.keys import DeviceKey
from wire.protocol.message import FLAG_SPENT
from wire.protocol.topics import TOPICS, parse_topic

MANIFEST = make_manifest()
LIARS = {f"liar-{number}": DeviceKey(bytes([number]) * 32) for number in (1, 2)}
SLOTS = 40
ALERTS = AlertRule()
COLUMNS = (
    "first_id, camera_id, boot_id, slot, label, raised, severity, made_s, device_s, probability, sentence, message, "
    "seen_by, seen_s"
)
NOW_S = 960


def hostile(count: int, seed: int = 3) -> list[Hostile]:
    fuzzer = Fuzzer(seed, MANIFEST, "lab", ["door", "hall"], LIARS)
    for slot in range(8):
        fuzzer.remember("features", release(slot, manifest=MANIFEST))
    fuzzer.remember("state", a_state("online"))
    fuzzer.remember("certificate", MANIFEST.certificate().to_json().encode())
    return [fuzzer.next() for _ in range(count)]


def test_a_bridge_reads_what_is_attacked() -> None:
    assert sorted(READ) == sorted(SUBSCRIPTIONS)


def test_the_same_seed_gives_the_same_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1e9)
    assert hostile(400) == hostile(400) != hostile(400, seed=4)


def test_all_topics_kinds_and_qualities_of_service_are_there() -> None:
    made = hostile(4000)
    names = {parsed[2] for each in made if (parsed := parse_topic(each.topic)) is not None}
    assert names == set(TOPICS)
    kinds = Counter(each.kind for each in made)
    assert len(kinds) == 10 and min(kinds.values()) > 50
    assert {(each.qos, each.retain) for each in made} == {(0, False), (1, False), (0, True), (1, True)}


def lied(seed: int) -> dict[str, CameraSession]:
    """The sessions of the liars after a campaign's messages of one seed."""
    sessions = {
        name: CameraSession(f"lab/{name}", key.public, engines_of(MANIFEST), CameraRecord())
        for name, key in LIARS.items()
    }
    for number, each in enumerate(hostile(6000, seed)):
        parsed = parse_topic(each.topic)
        if parsed is not None and parsed[1] in sessions:
            sessions[parsed[1]].receive(parsed[2], each.payload, each.retain, float(number), float(number))
    return sessions


def test_liars_are_read_and_reach_every_refusal() -> None:
    """A campaign whose lies all end at the signature would try nothing. Some refusals are met once in thousands."""
    sessions = [session for seed in (3, 4, 5) for session in lied(seed).values()]
    refused = sum((session.refused for session in sessions), Counter[str]())
    assert refused.keys() >= {"model", "flags", "level", "values", "clock", "replayed", "schema", "malformed"}
    assert all(session.place[1] or session.place[0] for session in sessions)


# --- the judge


class Fleet:
    """What the cameras say that the broker has."""

    def __init__(self, slots: Sequence[int]) -> None:
        self._slots = slots

    def acknowledged(self) -> Mapping[str, Sequence[int]]:
        return {"lab/door": self._slots}

    def when(self) -> Mapping[tuple[str, int], float]:
        return {("lab/door", slot): 1000.0 + slot for slot in self._slots}


class Subscriber:
    """What the subscriber has got."""

    def __init__(self, harness: Harness) -> None:
        self.got = [(m.topic.removeprefix("veilsight/v1/lab/door/"), m.payload) for m in harness.link.sent]

    def heard(self, name: str) -> Mapping[str, Sequence[bytes]]:
        return {"lab/door": [payload for topic, payload in self.got if topic == name]}


class Run:
    """A bridge that nobody has killed, and a judge."""

    def __init__(self, folder: Path, slots: Sequence[int] = range(SLOTS)) -> None:
        self.harness = Harness(folder / "state", MANIFEST, ALERTS)
        self.harness.now_s = float(NOW_S)
        (folder / "state" / "bridge.key.pub").write_text(self.harness.key.public.hex)
        for slot in slots:
            flags, value = FLAG_SPENT if spent(slot) else 0, 90 if slot in range(20, 25) else 30
            self.harness.send(release(slot, value, manifest=MANIFEST, flags=flags, time_s=NOW_S))
        self.folder, self.subscriber, self.fleet = folder, Subscriber(self.harness), Fleet([*slots])
        self.store = sa.create_engine(f"sqlite:///{folder}/state/store.sqlite", isolation_level="AUTOCOMMIT")

    def change(self, statement: str) -> None:
        with self.store.connect() as connection:
            assert connection.execute(sa.text(statement)).rowcount == 1

    def judged(self, killed: Sequence[float] = (), seen: Sequence[str] = ()) -> tuple[dict[str, Any], list[str]]:
        return judge(self.store, MANIFEST, self.fleet, self.subscriber, self.folder, ALERTS, killed, seen)  # type: ignore[arg-type]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path)
    yield run
    run.store.dispose()


def test_what_nobody_disturbed_is_whole(run: Run) -> None:
    figures, wrong = run.judged()
    assert wrong == [] and IngestRule().burst > SLOTS
    assert (figures["acknowledged"], figures["stored and read"]) == (SLOTS, SLOTS)
    assert figures["verdicts"] > 15 and figures["alerts"] == 9 and figures["alerts of risks"] == 2


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DELETE FROM releases WHERE slot = 22", "1 acknowledged releases are not in the store: [22]"),
        (
            "UPDATE releases SET refused = 'late' WHERE slot = 22",
            "1 releases in the store were not read: [(22, 'late')]",
        ),
        ("DELETE FROM verdicts WHERE last_slot = 22", "1 verdicts are missing: [22]"),
        ("UPDATE verdicts SET last_slot = 99 WHERE last_slot = 22", "1 verdicts follow from no release: [99]"),
        ("DELETE FROM alerts WHERE slot = 15", "1 alerts are missing: [(15, 'blind', True)]"),
        (
            "UPDATE alerts SET slot = 16 WHERE slot = 15",
            "1 alerts follow from nothing: [(16, 'blind', True)]",
        ),
        (
            "DELETE FROM alerts WHERE label = 'fall' AND raised",
            "1 alerts are missing: [(21, 'fall', True)]",
        ),
        (
            "UPDATE alerts SET label = 'fight' WHERE label = 'fall' AND NOT raised",
            "1 alerts follow from nothing: [(33, 'fight', False)]",
        ),
        (
            f"INSERT INTO alerts (id, {COLUMNS}) SELECT 'x', {COLUMNS} FROM alerts WHERE slot = 15",
            "1 alerts are there twice: [(15, 'blind', True)]",
        ),
    ],
)
def test_a_store_that_is_wrong_is_told(run: Run, statement: str, words: str) -> None:
    run.change(statement)
    assert f"lab/door: {words}" in run.judged()[1]


def test_what_the_subscriber_lacks_is_told(run: Run) -> None:
    lost = next(number for number, (name, _) in enumerate(run.subscriber.got) if name == "alert")
    kept = run.subscriber.got.pop(lost)
    assert ["1 alerts were not heard" in each for each in run.judged()[1]] == [True]
    assert run.judged(killed=[NOW_S + 5.0])[1] == []
    run.subscriber.got.insert(0, kept)
    run.subscriber.got = [each for each in run.subscriber.got if each[0] != "alert/open"]
    assert run.judged()[1] == ["lab/door: ['blind'] are open; the broker keeps: None"]


def test_an_acknowledgement_that_is_gone_is_told(run: Run) -> None:
    with run.store.connect() as connection:
        number = str(connection.scalar(sa.text("SELECT id FROM alerts WHERE label = 'fall' AND raised")))
    words = f"the API: 1 acknowledgements were confirmed and are gone: ['{number}']"
    assert run.judged(seen=[number])[1] == [words]
    run.change(f"UPDATE alerts SET seen_by = '{NURSE}' WHERE id = '{number}'")
    figures, wrong = run.judged(seen=[number])
    assert wrong == [] and figures["alerts acknowledged over the API"] == 1


def test_the_fleets_noise_turns_risks_by_its_rule() -> None:
    """As a member reads it that looks at the first number of the newest release alone."""
    member = FakeMember()
    book = AlertBook(wavering(member, MANIFEST, 3), [])
    turns = [change for reading in member.read([*member.events]) for change in book.update(reading.probabilities)]
    assert {change.raised for change in turns} == {True, False}


def test_a_place_taken_over_too_late_and_a_subscriber_that_waits_are_told() -> None:
    assert too_late([6.0, 10.0], [0.1, 1.0]) == []
    assert too_late([6.0, 10.1], [math.inf, 0.1]) == [
        "a killed bridge's cameras were read on after 10.1 s; 10 at most",
        "a late subscriber knew what is open after inf s; 1 at most",
    ]


def test_a_held_port_is_free_for_a_server_again_and_again() -> None:
    with held_ports(2) as ports:
        assert len(set(ports)) == 2
        for _ in range(3):
            with socket.create_server(("127.0.0.1", ports[0])) as server:
                assert server.getsockname()[1] == ports[0]


def test_a_nurse_asks_whoever_answers_and_notes_what_was_confirmed(tmp_path: Path) -> None:
    api = Api(tmp_path)
    with api, held_ports(1) as (nobody,):
        api.fall()
        with Nurse([api.server.port, nobody], api.tokens[NURSE], 3) as nurse:
            until(lambda: len(nurse.seen) > 0)
        rows = {row["id"]: row["seen_by"] for row in api.rows("/v1/alerts")}
        assert nurse.seen and all(rows[number] == NURSE for number in nurse.seen)


def test_a_broker_that_was_killed_excuses_three_seconds_and_no_more(run: Run) -> None:
    run.change("DELETE FROM releases WHERE slot = 22")
    excused, wrong = run.judged(killed=[1022.5])
    assert excused["lost by a broker that was killed"] == 1
    assert not [each for each in wrong if "not in the store" in each]
    assert [each for each in run.judged(killed=[1025.5, 1021.0])[1] if "not in the store" in each]
