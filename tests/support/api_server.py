"""The API on a real port over a harness of two cameras, with a token for each role."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

from cloud_bridge.api.config import ApiConfig
from cloud_bridge.api.server import ApiServer
from cloud_bridge.api.tokens import ROLES, add_token
from cloud_bridge.store.database import reading
from cloud_bridge.web.facts import Facts
from tests.support.bridge_factory import OTHER, Harness, make_manifest, release

__all__ = ["MANIFEST", "Api"]

MANIFEST = make_manifest(slot_s=1.0)


class Api:
    """A server over a harness of lab/door and lab/hall, with a token for each role, and one of another site."""

    def __init__(
        self,
        folder: Path,
        per_s: float = 1e6,
        burst: float = 1e6,
        views: int = 1,
        shard_name: Callable[[str], str] = str,
    ) -> None:
        self.harness = Harness(folder, MANIFEST)
        self.tokens = {role: add_token(folder / "tokens.json", role, role, ["*"], 1.0) for role in ROLES}
        self.tokens["stranger"] = add_token(folder / "tokens.json", "stranger", "admin", ["ward-9"], 1.0)
        self.tokens["lab"] = add_token(folder / "tokens.json", "lab", "admin", ["lab"], 1.0)
        self.tokens["old"] = add_token(folder / "tokens.json", "old", "admin", ["*"], 0.0)
        config = ApiConfig("127.0.0.1:0", str(folder / "tokens.json"), requests_per_s=per_s, burst=burst)
        bridge = self.harness.bridge
        bridge.look()
        facts = Facts(lambda: bridge.models, bridge.sessions, views)
        about = (lambda: bridge.health, facts, None, bridge.stages, shard_name)
        self.server = ApiServer(config, bridge._store.engine, *about)
        bridge.listeners.append(self.server.tell)
        self.url = f"http://127.0.0.1:{self.server.port}"
        self.http = httpx.Client(base_url=self.url, timeout=60.0)

    def fall(self, slots: int = 12) -> None:
        """Verdicts on both cameras, and a fall at the door."""
        for slot in range(slots):
            self.harness.now_s = 1000.0 + slot
            self.harness.send(release(slot, 90 if slot > 8 else 0, manifest=MANIFEST, time_s=960))
            hall = release(slot, manifest=MANIFEST, time_s=960, key=OTHER, camera="hall")
            self.harness.send(hall, camera="lab/hall")

    def ask(self, path: str, who: str = "viewer", method: str = "GET", **how: Any) -> httpx.Response:
        token = {"Authorization": f"Bearer {self.tokens.get(who, who)}"} if who else {}
        return self.http.request(method, path, headers={**token, **how.pop("headers", {})}, **how)

    def rows(self, path: str, who: str = "viewer") -> list[dict[str, Any]]:
        answer = self.ask(path, who)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["rows"])

    @property
    def alert(self) -> str:
        return str(self.rows("/v1/alerts?label=fall")[0]["id"])

    def count(self, table: sa.Table) -> int:
        with reading(self.harness.bridge._store.engine) as connection:
            return int(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0)

    def __enter__(self) -> Api:
        self.server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.server.__exit__()
        self.harness.bridge._store.close()
