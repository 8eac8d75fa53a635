"""What is open or unseen is found by an index, however many changes of alerts a store has."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from cloud_bridge.alerts.lifecycle import CONDITIONS
from cloud_bridge.api.queries import Wanted, alerts, open_alerts
from cloud_bridge.api.tokens import Caller
from cloud_bridge.store import tables
from cloud_bridge.store.database import StoreConfig, open_engine, writing

NURSE = Caller("a nurse", "nurse", frozenset({"*"}), 0.0)

pytestmark = pytest.mark.usefixtures("every_engine_is_closed")


def change(number: int, label: str, raised: bool = True, seen_by: str = "", **others: Any) -> dict[str, Any]:
    """A row of the table of alerts."""
    name = f"{number:032x}"
    told = {"severity": "warning", "device_s": 0.0, "probability": 0.5, "sentence": "", "message": b"", "seen_s": 0.0}
    place = {"camera_id": 1, "boot_id": f"{7:016x}", "slot": number, "made_s": time.time() - 600 + number}
    return {
        "id": name,
        "first_id": name,
        "label": label,
        "raised": raised,
        "seen_by": seen_by,
        **told,
        **place,
        **others,
    }


@pytest.fixture
def engine(config: StoreConfig, tmp_path: Path) -> Engine:
    """A store of one camera with a fall open, a fight that nobody has seen, and conditions that came and went."""
    made = open_engine(config, tmp_path)
    camera = {"id": 1, "camera": "lab/door", "public_key": "k", "boot_id": f"{7:016x}", "next_slot": 5}
    camera |= {
        "state_boot_id": f"{7:016x}",
        "state_count": 0,
        "event": "{}",
        "alerts": json.dumps({"raised": ["fall"]}),
    }
    changes = [change(number, CONDITIONS[number % len(CONDITIONS)], number % 2 == 0) for number in range(100)]
    changes += [change(100, "fight"), change(101, "fall"), change(102, "fight", seen_by="a nurse")]
    changes += [change(103, "fight", False), change(104, "fight", made_s=time.time() - 13 * 3600)]
    with writing(made) as connection:
        connection.execute(sa.insert(tables.cameras), [camera])
        connection.execute(sa.insert(tables.alerts), changes)
    return made


def test_what_is_open_comes_first_then_the_risk_that_nobody_has_seen(engine: Engine) -> None:
    found = open_alerts(engine, NURSE)
    assert [(each["label"], each["id"], each["open"]) for each in found] == [
        ("fall", f"{101:032x}", True),
        ("fight", f"{100:032x}", False),
    ]


def test_the_index_leaves_out_every_condition_of_a_camera_and_nothing_else() -> None:
    labels = str(tables.UNSEEN_RISK).partition("NOT IN ")[2]
    assert tuple(re.findall(r"'([^']+)'", labels)) == CONDITIONS


def plans_of(engine: Engine, ask: Callable[[], object]) -> list[str]:
    """How the database finds the rows of each query about alerts that `ask` makes."""
    plans, postgres = list[str](), engine.dialect.name == "postgresql"

    def explain(connection: Connection, query: Any, *args: Any) -> None:
        if "FROM alerts" in str(query):
            text = query.compile(connection, compile_kwargs={"render_postcompile": True})
            how = "EXPLAIN" if postgres else "EXPLAIN QUERY PLAN"
            cursor = connection.connection.cursor()
            if postgres:
                cursor.execute("SET LOCAL enable_seqscan = off")
            values = text.params if postgres else tuple(text.params[name] for name in text.positiontup)
            cursor.execute(f"{how} {text}", values)
            plans.append(" ".join(str(row) for row in cursor.fetchall()))

    sa.event.listen(engine, "before_execute", explain)
    ask()
    sa.event.remove(engine, "before_execute", explain)
    return plans


def test_both_queries_use_their_index(engine: Engine) -> None:
    plans = plans_of(engine, lambda: open_alerts(engine, NURSE))
    newest = [plan for plan in plans if "alerts_by_label" in plan]
    assert newest and not any("ORDER BY" in plan or "Sort" in plan for plan in newest), plans
    assert any("alerts_unseen_risks" in plan for plan in plans), plans


def test_a_page_of_all_alerts_is_read_by_time(engine: Engine) -> None:
    plans = plans_of(engine, lambda: alerts(engine, NURSE, Wanted(limit=10)))
    assert len(plans) == 1 and "alerts_by_time" in plans[0], plans
    rows = alerts(engine, NURSE, Wanted(limit=200))["rows"]
    assert len(rows) == 105 and [row["made_s"] for row in rows] == sorted((row["made_s"] for row in rows), reverse=True)
