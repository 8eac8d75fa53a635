"""Signatures of a large batch are verified ahead, on several threads; what is taken and refused stays as it was."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from cloud_bridge.ingest.engines import engines_of
from cloud_bridge.ingest.freshness import Allowance, IngestRule
from cloud_bridge.ingest.session import CameraSession
from cloud_bridge.ingest.signatures import Signatures
from cloud_bridge.ingest.transport import Inbound
from cloud_bridge.store.records import CameraRecord
from tests.support.bridge_factory import DEVICE, OTHER, Harness, a_state, make_manifest, release
from wire.protocol.keys import KeyAhead, PublicKey

MANIFEST = make_manifest()
PATIENCE_S = 60.0


def inbound(payload: bytes, name: str = "features", camera: str = "lab/door") -> Inbound:
    return Inbound(camera, name, payload, False)


def genuine(slots: range) -> list[Inbound]:
    return [inbound(release(slot, manifest=MANIFEST)) for slot in slots]


def signatures(threads: int = 2, burst: float = 600.0) -> Signatures:
    allowance = Allowance(IngestRule(burst=burst), 1.0)
    session = CameraSession("lab/door", DEVICE.public, engines_of(MANIFEST), CameraRecord(), allowance=allowance)
    return Signatures({"lab/door": session}, threads)


def everything() -> list[Inbound]:
    """Of every kind that there is: genuine, forged, changed, cut, twice there, of another camera, no release."""
    good = genuine(range(100))
    forged = [inbound(release(slot, manifest=MANIFEST, key=OTHER)) for slot in range(100, 140)]
    changed = [inbound(each.payload[:60] + bytes([each.payload[60] ^ 1]) + each.payload[61:]) for each in good[:40]]
    swapped = [inbound(a.payload[:-64] + b.payload[-64:]) for a, b in zip(good[:20], good[20:40], strict=True)]
    rest = [inbound(each.payload[:-1]) for each in good[:9]] + good[:30]
    rest += [inbound(good[0].payload, camera="lab/none"), inbound(a_state("online"), "state"), inbound(b"")]
    return good + random.Random(5).sample(rest := [*forged, *changed, *swapped, *rest], len(rest))


def read(harness: Harness, threads: int, batch: Sequence[Inbound]) -> tuple[object, ...]:
    bridge = harness.bridge
    bridge._signatures = Signatures(bridge.sessions, threads)
    bridge.handle(batch)
    bridge.close()
    return bridge.stats(), harness.spans, [event.z.tolist() for event in harness.member.events]


def test_what_is_taken_and_refused_is_as_without_it(tmp_path: Path) -> None:
    batch = everything()
    usual = read(Harness(tmp_path / "a", MANIFEST), 1, batch)
    assert (
        read(Harness(tmp_path / "b", MANIFEST), 2, batch) == read(Harness(tmp_path / "c", MANIFEST), 4, batch) == usual
    )
    stats = usual[0]
    assert isinstance(stats, dict) and stats["refused"].keys() >= {"forged", "truncated", "duplicate"}


def test_a_batch_takes_its_signatures_from_what_was_verified_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified, verify = list[bytes](), PublicKey.verify

    def counted(self: PublicKey, signature: bytes, data: bytes) -> bool:
        verified.append(signature)
        return verify(self, signature, data)

    harness, batch = Harness(tmp_path, MANIFEST), genuine(range(130))
    harness.bridge._signatures = Signatures(harness.bridge.sessions, 2)
    monkeypatch.setattr(PublicKey, "verify", counted)
    harness.bridge.handle(batch)
    assert sorted(verified) == sorted(each.payload[-64:] for each in batch)


def test_several_threads_verify_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    together, look = threading.Barrier(3), KeyAhead.look

    def waiting(self: KeyAhead) -> None:
        together.wait(PATIENCE_S)  # until three threads are here
        look(self)

    monkeypatch.setattr(KeyAhead, "look", waiting)
    made = signatures(threads=3)
    assert all(made.ahead(genuine(range(129)), 0.0))
    made.close()


@pytest.mark.parametrize(("threads", "count"), [(1, 256), (2, 127)])
def test_a_small_batch_and_one_processor_start_no_thread(threads: int, count: int) -> None:
    before = threading.active_count()
    assert signatures(threads).ahead(genuine(range(count)), 0.0) == [None] * count
    assert threading.active_count() == before


def test_beyond_its_allowance_no_signature_is_looked_at() -> None:
    made = signatures(burst=50.0)
    assert [key is not None for key in made.ahead(genuine(range(200)), 0.0)] == [True] * 50 + [False] * 150
    made.close()


def test_an_error_of_a_thread_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeyAhead, "look", lambda self: 1 / 0)
    made = signatures()
    with pytest.raises(ZeroDivisionError):
        made.ahead(genuine(range(200)), 0.0)
    made.close()


def test_its_threads_end_with_the_bridge(tmp_path: Path) -> None:
    harness, before = Harness(tmp_path, MANIFEST), threading.active_count()
    harness.bridge._signatures = Signatures(harness.bridge.sessions, 4)
    harness.bridge.handle(genuine(range(200)))
    assert threading.active_count() > before
    harness.bridge.close()
    assert threading.active_count() == before


def test_a_key_answers_for_the_very_bytes_that_it_verified() -> None:
    data = b"a release"
    good, bad = DEVICE.sign(data), OTHER.sign(data)
    key, forged = KeyAhead(DEVICE.public, good, data), KeyAhead(DEVICE.public, bad, data)
    for _ in range(2):  # before it has looked, and after
        assert key.verify(good, data) and not key.verify(bad, data) and not key.verify(good, data + b"!")
        assert not forged.verify(bad, data) and forged.verify(good, data)
        key.look()
        forged.look()
    assert key == DEVICE.public and hash(key) == hash(DEVICE.public)
