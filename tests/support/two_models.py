"""Two models for the tests of one bridge: manifests of two engines, and a member that reads its own events alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa

from cloud_bridge.inference.member import Reading
from cloud_bridge.ingest.engines import Engine
from cloud_bridge.ingest.events import Event
from cloud_bridge.models import Model
from cloud_bridge.store import tables
from cloud_bridge.store.database import reading
from tests.support.bridge_factory import FakeMember, Harness, make_manifest, release
from wire.artifact.manifest import EngineManifest
from wire.privacy.certificate import sigma_for
from wire.protocol.message import Verdict

__all__ = ["FEWER", "NOISY", "A", "B", "Percent", "expected", "feed", "of", "spans", "stored", "two"]

A, B = make_manifest(), make_manifest(checkpoint="b" * 64)
FEWER = dataclasses.replace(A, tokens=2, family="fewer", levels={"strict": sigma_for(64, 2.0)})  # n = 32, not 64
FEWER = dataclasses.replace(FEWER, hashes={**A.hashes, "certificate": FEWER.certificate().sha256()})
NOISY = dataclasses.replace(A, sigma=sigma_for(64, 2.0), profile="strict")  # no level of A's
NOISY = dataclasses.replace(NOISY, hashes={**A.hashes, "certificate": NOISY.certificate().sha256()})


class Percent(FakeMember):
    """Reads as `FakeMember`, and counts only what is its own model's."""

    def __init__(self, manifest: EngineManifest) -> None:
        super().__init__()
        self.own = manifest.model_id

    def read(self, events: Sequence[Event]) -> list[Reading]:
        assert {event.model_id for event in events} == {self.own}
        return super().read(events)


def two(folder: Path, *, second: EngineManifest = B, **more: object) -> tuple[Harness, Percent]:
    """A bridge of two models: A, whose member is the harness's, and another."""
    member = Percent(second)
    harness = Harness(folder, A, more=[Model(Engine(second), member)], **more)  # type: ignore[arg-type]
    return harness, member


def of(manifest: EngineManifest, boot: int, slots: Sequence[int], value: int = 0) -> list[bytes]:
    return [release(slot, value or slot % 100, boot=boot, manifest=manifest) for slot in slots]


def spans(verdicts: Sequence[Verdict]) -> list[tuple[int, int, int, int]]:
    return [(v.model_id, v.boot_id, v.first_slot, v.last_slot) for v in verdicts]


def expected(manifest: EngineManifest, boot: int, slots: int) -> list[tuple[int, int, int, int]]:
    """The rule: an event ends with each release from the eighth on; a shorter stream is read once."""
    last = range(7, slots) if slots >= 8 else [slots - 1]
    return [(manifest.model_id, boot, max(0, slot - 7), slot) for slot in last]


def stored(harness: Harness) -> dict[tuple[int, int], str]:
    """(boot id, slot) -> why it was not read, of every release of the door in the store."""
    table = tables.releases
    with reading(harness.bridge._store.engine) as connection:
        rows = connection.execute(sa.select(table).where(table.c.camera_id == 1)).mappings().all()
    return {(int(row["boot_id"], 16), row["slot"]): row["refused"] for row in rows}


def feed(harness: Harness, manifest: EngineManifest, boot: int, values: Sequence[int]) -> None:
    harness.send(*(release(slot, value, boot=boot, manifest=manifest) for slot, value in enumerate(values)))
