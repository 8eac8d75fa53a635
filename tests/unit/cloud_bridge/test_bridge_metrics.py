"""What Prometheus reads: the names that there were before, kinds and words for each, and no line of a stranger."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cloud_bridge.api.metrics import CONTENT_TYPE, Metrics
from cloud_bridge.ingest.reasons import REASONS
from cloud_bridge.ingest.transport import Inbound
from cloud_bridge.telemetry.stages import Stages
from tests.support.api_server import MANIFEST, Api
from tests.support.bridge_factory import OTHER, Harness, release

FOUND: Mapping[str, Any] = {
    **{name: place for place, name in enumerate(("received", "gaps", "shed", "skewed", "verdicts", "alerts"), 10)},
    "degraded": 16,
    "dropped": 17,
    "refused": {"forged": 3, "unknown": 4},
    "shard": "2/8",
    "webhooks": {"pager.example": {"delivered": 5, "failed": 6, "given_up": 7}},
    "traces": {"sent": 1, "lost": 2, "waiting": 3},
    "connected": True,
    "silent": ["lab/door"],
    "models": {"00000000000000ff": 2},
    "unknown_models": {"lab/hall": "00000000000000aa"},
    "reload": "",
    "trouble": "",
}
ROWS = {"outbox": 8, "webhooks_waiting": 9, "open_alerts": 1}
FORMER = """
veilsight_bridge_received_total 10
veilsight_bridge_gaps_total 11
veilsight_bridge_shed_total 12
veilsight_bridge_skewed_total 13
veilsight_bridge_verdicts_total 14
veilsight_bridge_alerts_total 15
veilsight_bridge_dropped_total 17
veilsight_bridge_refused_total{reason="forged"} 3
veilsight_bridge_refused_total{reason="unknown"} 4
veilsight_bridge_outbox 8
veilsight_bridge_webhooks_waiting 9
veilsight_bridge_open_alerts 1
veilsight_bridge_place{shard="2/8"} 1
veilsight_bridge_webhooks_total{receiver="pager.example",outcome="delivered"} 5
veilsight_bridge_webhooks_total{receiver="pager.example",outcome="failed"} 6
veilsight_bridge_webhooks_total{receiver="pager.example",outcome="given_up"} 7
veilsight_bridge_spans_sent 1
veilsight_bridge_spans_lost 2
veilsight_bridge_spans_waiting 3
veilsight_bridge_connected 1
veilsight_bridge_silent 1
veilsight_bridge_cameras{model="00000000000000ff"} 2
veilsight_bridge_unknown_models 1
veilsight_bridge_models_well 1
veilsight_bridge_listeners 4
veilsight_bridge_well 1
"""
HISTOGRAMS = {f"veilsight_bridge_{name}" for name in ("verdict_seconds", "batch_events", "member_seconds")}

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def page(found: Mapping[str, Any] = FOUND, stages: Stages | None = None) -> str:
    return Metrics(stages or Stages()).page(found, ROWS, 4).decode()


def samples(text: str) -> Samples:
    """(name, labels) -> value, as Prometheus reads it."""
    each = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in each}
    assert len(found) == len(each)
    return found


def value(text: str, name: str, **labels: str) -> float:
    return samples(text)[f"veilsight_bridge_{name}", tuple(sorted(labels.items()))]


def test_every_name_of_before_is_there_with_its_value() -> None:
    assert samples(FORMER).items() <= samples(page()).items()


def test_each_has_a_kind_and_words() -> None:
    text = page()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert all(family.documentation.endswith(".") for family in families.values())
    assert {name for name, family in families.items() if family.type == "histogram"} == HISTOGRAMS
    named = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}
    assert named == {line.split()[2] for line in text.splitlines() if line.startswith("# HELP ")}
    untyped = {name for name, family in families.items() if family.type == "unknown"}
    assert untyped == {"veilsight_bridge_spans_sent", "veilsight_bridge_spans_lost"}
    assert all("_created" not in line for line in text.splitlines())


def test_a_bridge_without_webhooks_traces_and_shard_has_what_it_has() -> None:
    few = {name: FOUND[name] for name in ("received", "gaps", "shed", "skewed", "verdicts", "alerts", "refused")}
    text = page(few)
    assert value(text, "models_well") == 1.0 and value(text, "connected") == 0.0
    assert "spans" not in text and "\nveilsight_bridge_place{" not in text


HOSTILE = 'ward"} 1\nveilsight_bridge_well{x="\\'


def test_no_text_of_a_camera_is_in_it() -> None:
    """Neither as a line, nor as a label: a thousand names add nothing."""
    names = [f"{HOSTILE}{number}" for number in range(1000)]
    many = {
        **FOUND,
        "silent": names,
        "unknown_models": dict.fromkeys(names, HOSTILE),
        "refused_by_camera": {name: {"forged": 1} for name in names},
        "refused": {**FOUND["refused"], **dict.fromkeys(names, 1)},
        "trouble": HOSTILE,
    }
    text = page(many)
    assert "ward" not in text and samples(text).keys() == samples(page()).keys()
    assert value(text, "silent") == 1000.0 and value(text, "well") == 0.0


def test_what_an_operator_configures_is_one_label() -> None:
    text = page({**FOUND, "webhooks": {HOSTILE: {"delivered": 1}}})
    assert value(text, "webhooks_total", receiver=HOSTILE, outcome="delivered") == 1.0
    assert value(text, "well") == 1.0


def test_reasons_are_those_of_the_table() -> None:
    text = page({**FOUND, "refused": dict.fromkeys(REASONS, 2)})
    assert {value(text, "refused_total", reason=reason) for reason in REASONS} == {2.0}


# --- histograms


def test_a_batch_is_counted_with_its_events(tmp_path: Path) -> None:
    harness = Harness(tmp_path, MANIFEST)
    metrics = Metrics(harness.bridge.stages)
    harness.bridge.listeners.append(lambda camera, made, number: metrics.tell(camera, made))
    batch = list[Inbound]()
    for slot in range(9):
        batch.append(Inbound("lab/door", "features", release(slot, manifest=MANIFEST), False))
        hall = release(slot, manifest=MANIFEST, key=OTHER, camera="hall")
        batch.append(Inbound("lab/hall", "features", hall, False))
    harness.bridge.handle(batch[:14])  # nothing for the member
    text = metrics.page(harness.bridge.stats(), ROWS, 0).decode()
    assert value(text, "batch_events_count") == value(text, "member_seconds_count") == 0.0
    harness.bridge.handle(batch[14:])
    harness.bridge._store.close()
    text = metrics.page(harness.bridge.stats(), ROWS, 0).decode()
    assert harness.member.batches[-1] == 4
    assert (value(text, "batch_events_sum"), value(text, "batch_events_count")) == (4.0, 1.0)
    assert value(text, "batch_events_bucket", le="4.0") == 1.0 and value(text, "batch_events_bucket", le="2.0") == 0.0
    assert value(text, "member_seconds_count") == 1.0
    assert value(text, "verdict_seconds_count") == value(text, "verdicts_total") == 4.0


def test_a_verdict_s_age_begins_with_the_receipt(tmp_path: Path) -> None:
    """What waited for a minute in the mailbox is a minute old, whatever the device's clock said."""
    harness = Harness(tmp_path, MANIFEST)
    metrics = Metrics(harness.bridge.stages)
    harness.bridge.listeners.append(lambda camera, made, number: metrics.tell(camera, made))
    for slot in range(8):
        item = Inbound("lab/door", "features", release(slot, 90, manifest=MANIFEST), False, None, time.time() - 65.0)
        harness.bridge.handle([item])
    harness.bridge._store.close()
    text = metrics.page(harness.bridge.stats(), ROWS, 0).decode()
    assert value(text, "verdict_seconds_count") == 1.0 and value(text, "verdict_seconds_bucket", le="60.0") == 0.0
    assert value(text, "verdict_seconds_sum") >= 65.0


def test_what_no_message_completed_has_no_age(tmp_path: Path) -> None:
    """The releases of the store, read at a start before anything comes: an age since 1970 would be the whole sum."""
    harness = Harness(tmp_path, MANIFEST)
    metrics = Metrics(harness.bridge.stages)
    harness.send(*(release(slot, manifest=MANIFEST) for slot in range(8)))
    (verdict,) = harness.verdicts()
    metrics.tell("lab/hall", verdict)
    metrics.tell("lab/door", verdict)
    harness.bridge._store.close()
    assert value(metrics.page(FOUND, ROWS, 0).decode(), "verdict_seconds_count") == 1.0


def test_a_clock_that_is_set_back_gives_no_negative_age() -> None:
    stages = Stages()
    metrics = Metrics(stages)
    metrics.read(1, -5.0)
    text = metrics.page(FOUND, ROWS, 0).decode()
    assert value(text, "member_seconds_sum") == 0.0


def test_the_api_serves_them_as_prometheus_expects(shared: Api) -> None:
    answer = shared.ask("/metrics")
    assert answer.headers["content-type"] == CONTENT_TYPE and "version=0.0.4" in CONTENT_TYPE
    assert value(answer.text, "verdict_seconds_count") > 0.0 and value(answer.text, "batch_events_count") > 0.0
    described = shared.ask("/openapi.json", "").json()["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
    assert json.dumps([*described]) == '["text/plain"]'


@pytest.mark.parametrize("name", sorted(HISTOGRAMS))
def test_a_histogram_s_buckets_grow(name: str) -> None:
    metrics = Metrics(Stages())
    for number in range(1, 200):
        metrics.read(number, number / 50.0)
    found = samples(metrics.page(FOUND, ROWS, 0).decode())
    each = [(float(dict(labels)["le"]), count) for (full, labels), count in found.items() if full == f"{name}_bucket"]
    counts = [count for _, count in sorted(each)]
    assert counts == sorted(counts) and len(counts) >= 10 and sorted(each)[-1][0] == float("inf")
