"""A ward without devices: cameras, verdicts and alerts that somebody asks for, in a real store behind the real API.

    verdict(camera), alert(camera, label) --Work--> Store --> ApiServer.tell --> whoever listens
    contour(camera, figure) --> ApiServer.show --> whoever looks at that camera

What a bridge does between a message and a commit is left out; what a page sees is the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloud_bridge.alerts.severity import next_severity, severity_of
from cloud_bridge.api.config import ApiConfig
from cloud_bridge.api.server import ApiServer
from cloud_bridge.api.tokens import ROLES, add_token
from cloud_bridge.inference.member import Reading
from cloud_bridge.ingest.engines import Engine
from cloud_bridge.ingest.events import Event
from cloud_bridge.models import Model, by_id
from cloud_bridge.store.database import StoreConfig
from cloud_bridge.store.records import Accepted, CameraRecord, Work
from cloud_bridge.store.store import Store
from cloud_bridge.web.facts import Facts
from wire.artifact.manifest import EngineManifest
from wire.mqtt import Message
from wire.protocol.contour import Contour
from wire.protocol.message import Alert, Verdict, coarse_time

__all__ = ["SimulatedWard"]

_NOTHING = Message("", b"", 0, False)


class _Unasked:
    """A member in a ward whose verdicts are given."""

    def read(self, events: Sequence[Event]) -> list[Reading]:
        raise AssertionError("nothing is read here")

    def describe(self, events: Sequence[Event]) -> list[str]:
        raise AssertionError("nothing is read here")


@dataclass(frozen=True, slots=True)
class _Simulated(Facts):
    """Devices without sessions. count: as `Facts.device`; drawn: as `Facts.draws`."""

    count: Callable[[str], dict[str, Any] | None] = lambda camera: None
    drawn: bool = True

    def device(self, camera: str) -> dict[str, Any] | None:
        return self.count(camera)

    @property
    def draws(self) -> bool:
        return self.drawn


class SimulatedWard:
    """Cameras in a store, and the API on a port of its own; for a `with` block.

    Attributes:
        tokens: Role -> token.
        counts: Camera -> what its session would count.
        trouble: Why the store cannot be written; "": it can.
        server: The API.
        url: Of the API.
    """

    def __init__(
        self, folder: Path, manifest: EngineManifest, cameras: Sequence[str], port: int = 0, draws: bool = True
    ) -> None:
        """Make what is not there yet: a folder that was used before goes on. draws: whether it has contours."""
        self._manifest = manifest
        self._store = Store.open(StoreConfig(), folder)
        self._records = {name: self._store.record(name, f"{n:064x}") for n, name in enumerate(cameras, 1)}
        for record in self._records.values():
            record.boot_id = max(1, record.boot_id)
        self._store.commit(Work(records=dict(self._records)))
        tokens = folder / "tokens.json"
        self.tokens = {role: add_token(tokens, f"{role}-{time.time():.6f}", role, ["*"], 1.0) for role in ROLES}
        self.counts = dict[str, dict[str, Any]]()
        self.trouble = ""
        models = by_id(Model(Engine(manifest), _Unasked()))
        facts = _Simulated(lambda: models, {}, count=self._count, drawn=draws)
        config = ApiConfig(f"127.0.0.1:{port}", str(tokens), requests_per_s=1e6, burst=1e6)
        self.server = ApiServer(config, self._store.engine, self._health, facts)
        self.url = f"http://127.0.0.1:{self.server.port}"

    def _health(self) -> dict[str, Any]:
        return {
            "received": 0,
            "gaps": 0,
            "shed": 0,
            "skewed": 0,
            "verdicts": 0,
            "alerts": 0,
            "refused": {},
            "trouble": self.trouble,
        }

    def _count(self, camera: str) -> dict[str, Any] | None:
        fresh = {"offline": False, "heard_s": 0.0, "received": 0, "gaps": 0, "refused": {}}
        return {**fresh, **self.counts.get(camera, {})}

    def __enter__(self) -> SimulatedWard:
        self.server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.__exit__()
        self._store.close()

    def verdict(self, *cameras: str, label: str = "", p: float = 0.97, at_s: float | None = None, **more: Any) -> None:
        """One verdict on each of these cameras, all in one commit; `more` are fields of a Verdict."""
        work, told = Work(), list[tuple[str, Verdict, str]]()
        for name in cameras:
            record = self._records[name]
            verdict = self._make(record, label or self._manifest.labels[0], p, at_s, more)
            made_s = time.time() if at_s is None else at_s
            work.records[name] = record
            work.release(record, Accepted(record.boot_id, record.next_slot - 1, b""), made_s)
            work.verdict(record, verdict, _NOTHING, made_s)
            told.append((name, verdict, ""))
        self._commit(work, told)

    def _make(self, record: CameraRecord, label: str, p: float, at_s: float | None, more: dict[str, Any]) -> Verdict:
        slot, labels = record.next_slot, self._manifest.labels
        record.next_slot += 1
        others = [each for each in labels if each != label]
        shares = {each: (1.0 - p) / max(1, len(others)) for each in others}
        fields: dict[str, Any] = {
            "boot_id": record.boot_id,
            "first_slot": max(0, slot - 7),
            "last_slot": slot,
            "model_id": self._manifest.model_id,
            "member": "cloud",
            "present": (True,) * self._manifest.event_releases,
            "probabilities": {label: p, **shares},
            "sentence": "",
            "start_s": 0.0,
            "end_s": 8.0,
            "time_s": coarse_time(time.time() if at_s is None else at_s),
        }
        return Verdict(**{**fields, **more})

    def alert(self, camera: str, label: str, raised: bool = True, sentence: str = "", at_s: float | None = None) -> str:
        """Raise or clear an alert, or tell it again where it is raised; returns the id of the change."""
        record = self._records[camera]
        was = record.open.get(label)
        if raised != (label in record.raised):
            (record.raised.append if raised else record.raised.remove)(label)
        made_s = time.time() if at_s is None else at_s
        made = Alert(
            boot_id=record.boot_id,
            slot=max(0, record.next_slot - 1),
            model_id=self._manifest.model_id,
            raised=raised,
            label=label,
            probability=0.9 if raised else 0.1,
            sentence=sentence,
            at_s=0.0,
            time_s=coarse_time(made_s),
            severity=(next_severity(was.severity) or was.severity) if was and raised else severity_of(label),
        )
        work, changed = Work(records={camera: record}), record.change(made, made_s)
        work.alert(record, changed, _NOTHING, made_s)
        self._commit(work, [(camera, changed, changed.id)])
        return changed.id

    def contour(self, camera: str, contour: Contour) -> None:
        """A figure of a camera, for whoever looks at it."""
        self.server.show(camera, contour)

    def _commit(self, work: Work, told: Sequence[tuple[str, Verdict | Alert, str]]) -> None:
        work.outbox.clear()  # nobody publishes here
        self._store.commit(work)
        for each in told:
            self.server.tell(*each)
