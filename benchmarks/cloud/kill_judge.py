"""What must hold after the kills: the store against what the broker has acknowledged, and the rest against the store.

acknowledged releases --each once--> releases in the store --our own reading of them--> verdicts, `blind` alerts
                                     verdicts in the store --the bridge's own rule----> alerts of risks
store == this == what the subscriber got; what the nurse was told is seen, is seen in the store
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from benchmarks.cloud.kill_fleet import NURSE, Fleet, Subscriber, spent
from cloud_bridge.alerts.lifecycle import BLIND, DEGRADED, AlertBook
from cloud_bridge.alerts.rules import AlertRule
from cloud_bridge.ingest.events import EventReader, Release
from wire.artifact.manifest import EngineManifest
from wire.protocol.document import read_document
from wire.protocol.keys import PublicKey
from wire.protocol.message import open_alert, open_verdict

__all__ = ["judge"]

_UNWRITTEN_S = 3.0  # what a broker that is killed may not have written to its disk yet
_NEAR_S = 10.0  # of a message that it had from us, whose way to the subscriber ended there
_SHOWN = 5


def judge(
    store: sa.Engine,
    manifest: EngineManifest,
    fleet: Fleet,
    subscriber: Subscriber,
    folder: Path,
    rule: AlertRule,
    killed: Sequence[float],
    seen: Sequence[str] = (),
) -> tuple[dict[str, Any], list[str]]:
    """(figures, what is wrong).

    Args:
        store: To be read.
        manifest: Of the engine.
        fleet: What the broker has acknowledged, and when.
        subscriber: What it got.
        folder: Of the campaign, with the bridges' state.
        rule: The bridges'.
        killed: When the broker was killed, seconds since 1970.
        seen: Ids of alerts whose acknowledgement was confirmed.
    """
    judged = _Judge(store, manifest, PublicKey.parse(str(folder / "state" / "bridge.key.pub")), rule, killed)
    for camera, slots in fleet.acknowledged().items():
        judged.releases(camera, slots, fleet.when())
        judged.verdicts(camera, subscriber.heard("verdict/cloud").get(camera, []))
        judged.alerts(camera, subscriber.heard("alert").get(camera, []))
        judged.open(camera, subscriber.heard("alert/open").get(camera, []))
    judged.seen(seen)
    return dict(judged.figures), judged.wrong


class _Judge:
    def __init__(
        self, store: sa.Engine, manifest: EngineManifest, key: PublicKey, rule: AlertRule, killed: Sequence[float]
    ) -> None:
        self._store, self._manifest, self._key, self._killed = store, manifest, key, killed
        self._rule = rule
        self.figures, self.wrong = Counter[str](), list[str]()
        self._stored: list[int] = []
        self._expected: list[tuple[int, str, bool]] = []  # alerts of one camera: slot, label, whether it was raised
        self._open: list[str] = []

    def _rows(self, query: str, camera: str) -> Sequence[Any]:
        whole = sa.text(f"{query} JOIN cameras ON cameras.id = camera_id WHERE camera = :camera")
        with self._store.connect() as connection:
            return connection.execute(whole, {"camera": camera}).all()

    def _complain(self, camera: str, found: Sequence[Any], words: str) -> None:
        if found:
            self.wrong.append(f"{camera}: {len(found)} {words}: {[*found][:_SHOWN]}")

    def _excused(self, at_s: float, before_s: float) -> bool:
        return any(at_s - 0.1 <= killed <= at_s + before_s for killed in self._killed)

    def releases(self, camera: str, slots: Sequence[int], when: Mapping[tuple[str, int], float]) -> None:
        """Each acknowledged release is in the store once, and was read."""
        rows = self._rows("SELECT slot, refused FROM releases", camera)
        refused = sorted((slot, why) for slot, why in rows if why)
        self._stored = sorted(slot for slot, why in rows if not why)
        missing = sorted(set(slots) - set(self._stored))
        lost = [slot for slot in missing if self._excused(when[camera, slot], _UNWRITTEN_S)]
        self.figures["acknowledged"] += len(slots)
        self.figures["stored and read"] += len(set(slots) & set(self._stored))
        self.figures["lost by a broker that was killed"] += len(lost)
        self._complain(camera, sorted(set(missing) - set(lost)), "acknowledged releases are not in the store")
        self._complain(camera, refused, "releases in the store were not read")
        self._complain(camera, [s for s, n in Counter(self._stored).items() if n > 1], "releases are there twice")

    def verdicts(self, camera: str, heard: Sequence[bytes]) -> None:
        """Those of the releases in the store, each once, and heard."""
        shape = (self._manifest.event_releases, self._manifest.tokens, self._manifest.width)
        reader, z = EventReader(camera, *shape, self._manifest.weights), np.zeros(self._manifest.n, np.int16)
        read = [Release(camera, 1, slot, z, spent(slot), 0, 0, 0) for slot in self._stored]
        expected = {event.last_slot for release in read for event in reader.push(release)}
        stored = self._rows("SELECT last_slot, made_s, message FROM verdicts", camera)
        rows, found = [(row[0], row[1]) for row in stored], [row[0] for row in stored]
        self.figures["verdicts"] += len(found)
        self._complain(camera, sorted(expected - set(found)), "verdicts are missing")
        self._complain(camera, sorted(set(found) - expected), "verdicts follow from no release")
        self._complain(camera, [s for s, n in Counter(found).items() if n > 1], "verdicts are there twice")
        site, _, name = camera.partition("/")
        told = {each: open_verdict(each, self._key, site, name, self._manifest.model_id) for each in set(heard)}
        self._heard(camera, "verdicts", {v.last_slot for v in told.values()}, dict(map(tuple, rows)))
        twice = [slot for slot, n in Counter(v.last_slot for v in told.values()).items() if n > 1]
        self._complain(camera, twice, "verdicts were published with different bytes")
        self._follow(camera, [bytes(row[2]) for row in sorted(stored)])
        self.figures["verdicts of the edge's exit"] += sum(verdict.member == "edge" for verdict in told.values())
        self.figures["verdicts published again"] += len(heard) - len(told)

    def _follow(self, camera: str, verdicts: Sequence[bytes]) -> None:
        """Which alerts follow: `blind` of the releases in the store, risks of its verdicts by the bridge's own rule."""
        book, (site, _, name) = AlertBook(self._rule, []), camera.partition("/")
        self._expected = [
            (slot, change.label, change.raised)
            for slot in self._stored
            for change in book.condition(BLIND, spent(slot))
        ]
        for sealed in verdicts:
            verdict = open_verdict(sealed, self._key, site, name, self._manifest.model_id)
            changes = book.update(verdict.probabilities)
            self._expected += [(verdict.last_slot, change.label, change.raised) for change in changes]
        self._open = sorted(book.raised)

    def alerts(self, camera: str, heard: Sequence[bytes]) -> None:
        """Those that follow, each once, and heard; call `verdicts` first."""
        rows = self._rows("SELECT slot, raised, alerts.id, made_s, label FROM alerts", camera)
        judged = [row for row in rows if row[4] != DEGRADED]  # it follows from when a cluster answered
        found, expected = sorted((row[0], row[4], bool(row[1])) for row in judged), self._expected
        self.figures["alerts"] += len(rows)
        self.figures["alerts of risks"] += sum(label in self._manifest.labels for _, label, _ in found)
        self._complain(camera, sorted(set(expected) - set(found)), "alerts are missing")
        self._complain(camera, sorted(set(found) - set(expected)), "alerts follow from nothing")
        self._complain(camera, [s for s, n in Counter(found).items() if n > 1], "alerts are there twice")
        site, _, name = camera.partition("/")
        told = {each: open_alert(each, self._key, site, name, self._manifest.model_id) for each in set(heard)}
        self._heard(camera, "alerts", {a.id for a in told.values()}, {row[2]: row[3] for row in rows})
        twice = [number for number, n in Counter(a.id for a in told.values()).items() if n > 1]
        self._complain(camera, twice, "alerts were published with different bytes")
        self.figures["alerts published again"] += len(heard) - len(told)

    def _heard(self, camera: str, what: str, told: set[Any], stored: Mapping[Any, float]) -> None:
        """The subscriber got what is in the store, but for what a broker that was killed has taken with it."""
        missed = sorted(stored.keys() - told)
        excused = [each for each in missed if self._excused(stored[each], _NEAR_S)]
        self.figures[f"{what} that a killed broker did not deliver"] += len(excused)
        self._complain(camera, sorted(set(missed) - set(excused)), f"{what} were not heard")
        self._complain(camera, sorted(told - stored.keys()), f"{what} were heard that are not in the store")

    def open(self, camera: str, heard: Sequence[bytes]) -> None:
        """What is kept at the broker is what is open."""
        kept = str(read_document(heard[-1]).fields["open"]) if heard else ""
        found = sorted(label for label in kept.split(", ") if label not in ("", DEGRADED)) if heard else None
        if found != self._open:
            self.wrong.append(f"{camera}: {self._open} are open; the broker keeps: {found}")

    def seen(self, numbers: Sequence[str]) -> None:
        """Alerts whose acknowledgement was confirmed are acknowledged."""
        with self._store.connect() as connection:
            found = connection.scalars(sa.text("SELECT id FROM alerts WHERE seen_by = :who"), {"who": NURSE}).all()
        self.figures["alerts acknowledged over the API"] = len(numbers)
        self._complain("the API", sorted(set(numbers) - set(found)), "acknowledgements were confirmed and are gone")
