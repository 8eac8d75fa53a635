"""Traces: spans of each stage under an id that anybody can compute, and a collector that can harm nothing."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from cloud_bridge.alerts.rules import AlertRule
from cloud_bridge.config import BridgeConfig
from cloud_bridge.telemetry import traces as module
from cloud_bridge.telemetry.capture import CaptureClock
from cloud_bridge.telemetry.config import TelemetryConfig
from cloud_bridge.telemetry.traces import Traces, span_number
from tests.support.bridge_factory import DEVICE, Harness, make_manifest, release
from tests.support.services import ROOT, free_port, until
from wire.errors import ConfigError
from wire.protocol.message import coarse_time, trace_id

MANIFEST = make_manifest(slot_s=1.0)
STAGES = {"event", "capture", "receive", "member", "store", "verdict"}
SAID = {"camera", "boot_id", "slot", "label", "probability", "late", "unsure", "member", "raised", "severity", "alert"}


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP; answers with `status`, after `wait` where that is set."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.status, self.wait = 200, threading.Event()
        self.wait.set()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1/traces"


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        import gzip

        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.wait.wait(60.0)
        body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.server.services |= {a.value.string_value for a in resource.resource.attributes}
            if self.server.status == 200:
                self.server.spans += [span for scope in resource.scope_spans for span in scope.spans]
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.wait.set()
        server.shutdown()
        thread.join()


@contextmanager
def traced(harness: Harness, url: str, share: float = 1.0) -> Iterator[Traces]:
    sessions = harness.bridge.sessions
    with Traces(
        TelemetryConfig(url, share=share), harness.bridge.stages, 1.0, lambda camera: sessions[camera].device_s
    ) as traces:
        harness.bridge.listeners.append(traces.tell)
        yield traces


def fall(harness: Harness, slots: range, value: int = 0) -> None:
    harness.send(*(release(slot, value, manifest=MANIFEST, time_s=coarse_time(time.time())) for slot in slots))


def values(span: Span) -> dict[str, Any]:
    return {a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in span.attributes}


def test_an_event_is_one_trace_from_capture_to_alert(tmp_path: Path, collector: Collector) -> None:
    harness = Harness(tmp_path, MANIFEST, AlertRule(raise_at=0.6, raise_for=2))
    harness.now_s = time.time()
    with traced(harness, collector.url) as traces:
        fall(harness, range(8))
        fall(harness, range(8, 10), 90)  # the second one raises the alert
        until(lambda: len(collector.spans) == 3 * len(STAGES) + 1)
    assert traces.counts() == {"sent": 19, "lost": 0, "waiting": 0} and collector.services == {"veilsight-bridge"}
    trace = trace_id("lab/door", 1, 9)
    spans = {span.name: span for span in collector.spans if span.trace_id.hex() == trace}
    assert spans.keys() == {*STAGES, "alert"}
    root = span_number(trace, "event").to_bytes(8, "big")
    assert {name: span.parent_span_id for name, span in spans.items() if name != "event"} == dict.fromkeys(
        spans.keys() - {"event"}, root
    )
    assert spans["event"].span_id == root and not spans["event"].parent_span_id
    assert (
        values(spans["verdict"])["label"] == "fall"
        and values(spans["alert"])["severity"] == harness.alerts()[0].severity
    )
    assert values(spans["alert"])["alert"] == harness.alerts()[0].id
    (told,) = [row for row in map(json.loads, harness.programs.getvalue().splitlines()) if row["type"] == "alert"]
    assert told["trace"] == trace and told["id"] == harness.alerts()[0].id
    begins = [spans[name].start_time_unix_nano for name in ("receive", "member", "store")]
    assert begins == sorted(begins) and all(s.end_time_unix_nano >= s.start_time_unix_nano for s in spans.values())
    assert spans["event"].start_time_unix_nano <= spans["capture"].start_time_unix_nano
    assert spans["event"].end_time_unix_nano >= spans["store"].end_time_unix_nano
    assert len({span.span_id for span in collector.spans}) == len(collector.spans)


def test_a_span_says_nothing_that_the_topics_do_not(tmp_path: Path, collector: Collector) -> None:
    harness = Harness(tmp_path, MANIFEST, AlertRule(raise_at=0.6, raise_for=2))
    harness.now_s = time.time()
    with traced(harness, collector.url):
        fall(harness, range(10), 90)
        until(lambda: len(collector.spans) >= 19)
    assert {key for span in collector.spans for key in values(span)} == SAID | {"clock", "unknown_s"}
    assert not any(span.events or span.links for span in collector.spans)


def test_a_share_of_the_events_is_traced_and_every_alert(tmp_path: Path, collector: Collector) -> None:
    harness = Harness(tmp_path, MANIFEST, AlertRule(raise_at=0.6, raise_for=2))
    harness.now_s = time.time()
    with traced(harness, collector.url, share=0.0):
        fall(harness, range(12), 90)
        until(lambda: len(collector.spans) == 1)
    assert [span.name for span in collector.spans] == ["alert"]


def test_a_dead_collector_is_counted_and_told_once(
    tmp_path: Path, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    harness = Harness(tmp_path, MANIFEST)
    harness.now_s = time.time()
    collector.status = 400
    with caplog.at_level(logging.DEBUG), traced(harness, collector.url) as traces:
        fall(harness, range(8))
        until(lambda: traces.lost == 6)
        fall(harness, range(8, 9))
        until(lambda: traces.lost == 12)
        collector.status = 200
        fall(harness, range(9, 10))
        until(lambda: traces.sent == 6)
    assert [record.getMessage() for record in caplog.records] == [
        "[telemetry] otlp: the collector takes no spans; they are lost, and nothing else is"
    ]
    assert len(harness.verdicts()) == 3


def test_the_bridge_does_not_wait_for_a_collector_and_the_queue_is_bounded(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WAITING", 20)
    monkeypatch.setattr(module, "_ANSWER_S", 60.0)
    harness = Harness(tmp_path, MANIFEST)
    harness.now_s = time.time()
    collector.wait.clear()  # it takes the request, and does not answer
    with traced(harness, collector.url) as traces:
        fall(harness, range(8))
        until(lambda: not traces.counts()["waiting"])  # on its way
        fall(harness, range(8, 60))
        assert len(harness.verdicts()) == 53 and traces.counts() == {"sent": 0, "lost": 52 * 6 - 20, "waiting": 20}
        collector.wait.set()


def test_nobody_listens_at_the_address(tmp_path: Path) -> None:
    harness = Harness(tmp_path, MANIFEST)
    harness.now_s = time.time()
    with traced(harness, f"http://127.0.0.1:{free_port()}/v1/traces") as traces:
        fall(harness, range(8))
        until(lambda: traces.lost == 6)
    assert len(harness.verdicts()) == 1


@given(st.floats(1e9, 2e9), st.sampled_from([0.5, 1.0, 2.0]), st.lists(st.integers(0, 300), min_size=1, max_size=60))
def test_the_capture_of_a_slot_is_within_its_bounds(began_s: float, slot_s: float, slots: list[int]) -> None:
    clock = CaptureClock(slot_s)
    for slot in sorted(set(slots)):
        found = clock.see(1, slot, coarse_time(began_s + (slot + 1) * slot_s))
        truth = began_s + slot * slot_s
        assert found.begin_s - 1e-3 <= truth <= found.begin_s + found.unknown_s + 1e-3
        assert math.isclose(found.end_s - found.begin_s, slot_s, abs_tol=1e-3) and found.unknown_s <= 60.0


def test_a_minute_that_passes_tells_the_clock_to_within_a_slot() -> None:
    clock = CaptureClock(1.0)
    found = [clock.see(1, slot, coarse_time(1e9 + 17.3 + slot + 1)) for slot in range(120)]
    assert found[0].unknown_s == 60.0 and found[-1].unknown_s <= 1.0
    assert clock.see(2, 0, coarse_time(1e9)).unknown_s == 60.0  # another start
    assert clock.see(2, 1, coarse_time(2e9)).unknown_s == 60.0  # a clock that was set


@pytest.mark.parametrize(
    ("telemetry", "cure"),
    [
        ({"otlp": "http://collector:4318/v1/traces"}, "which others can read"),
        ({"otlp": "https://name:secret@collector"}, "has a name or a password in it"),
        ({"otlp": "https://collector", "share": 1.5}, r"share is 1.5; write 0 to 1"),
        ({"oltp": ""}, r"\[telemetry\] oltp is unknown; did you mean \[telemetry\] otlp\?"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused(telemetry: dict[str, Any], cure: str) -> None:
    camera = {"site": "lab", "camera": "door", "public_key": DEVICE.public.hex}
    with pytest.raises(ConfigError, match=cure):
        BridgeConfig.parse({"cameras": [camera], "telemetry": telemetry})


def test_a_bridge_without_traces_loads_nothing_of_it() -> None:
    code = "import sys, cloud_bridge.service; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
