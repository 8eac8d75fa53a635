"""Databases of the bridge's tests, both kinds and none that stays open, and the API over a harness."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cloud_bridge.store.database import StoreConfig
from tests.support.api_server import Api
from tests.support.databases import Postgres, running_postgres


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def config(request: pytest.FixtureRequest) -> StoreConfig:
    if request.param == "sqlite":
        return StoreConfig()
    return StoreConfig(request.getfixturevalue("postgres").new_database())


@pytest.fixture
def every_engine_is_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """At the end of a test, whatever it has left open as a crash would."""
    made, make = list[sa.Engine](), sa.create_engine

    def keep(*what: Any, **how: Any) -> sa.Engine:
        made.append(make(*what, **how))
        return made[-1]

    monkeypatch.setattr(sa, "create_engine", keep)
    yield
    for engine in made:
        engine.dispose()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """For tests that only read."""
    with Api(tmp_path_factory.mktemp("api")) as api:
        api.fall()
        yield api


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with Api(tmp_path) as api:
        api.fall()
        yield api
