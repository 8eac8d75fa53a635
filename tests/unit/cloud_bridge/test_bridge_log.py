"""The log: a line for people, or a JSON object a line; no text of a message begins a line of its own."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_bridge.ingest.engines import engines_of
from cloud_bridge.ingest.session import CameraSession
from cloud_bridge.log import BoundedRate, JsonLines, LogConfig, TextLines, log_of, set_up
from cloud_bridge.store.records import CameraRecord
from cloud_bridge.webhooks.outbox import Letter, about
from tests.support.bridge_factory import DEVICE, OTHER, make_manifest, release
from tests.support.services import PATIENCE_S, ROOT

HOSTILE = [
    'x\n{"level": "ERROR", "message": "forged"}',
    "x\r\nERROR cloud_bridge: forged",
    "\x1b[2J\x1b]0;title\x07",
    "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg",
    '"}, {"',
    "half a pair: \ud800",
    "\x00\x7f\u202e\ufeff",
    "%s %d %(camera)s",
    "x" * 1_000_000,
]


def record(message: str, *args: Any, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("cloud_bridge", logging.WARNING, "", 0, message, args, None)
    made.__dict__.update(extra)
    return made


def of_json(line: str) -> dict[str, str]:
    """The object of a line, which is one to every program."""
    assert line.isascii() and line.isprintable() and len(line.splitlines()) == 1
    found = json.loads(line)
    assert isinstance(found, dict)
    for value in found.values():
        value.encode()
    return found


def test_a_record_is_one_object() -> None:
    made = record("%s: refused (%s)", "lab/door", "forged", camera="lab/door", trace="a" * 32)
    made.created = 1_764_417_815.25
    assert of_json(JsonLines().format(made)) == {
        "time": "2025-11-29T12:03:35.250Z",
        "level": "WARNING",
        "logger": "cloud_bridge",
        "message": "lab/door: refused (forged)",
        "camera": "lab/door",
        "trace": "a" * 32,
    }
    assert datetime.fromisoformat("2025-11-29T12:03:35.250Z").timestamp() == made.created
    assert of_json(JsonLines().format(record("x"))).keys() == {"time", "level", "logger", "message"}


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_one_line(text: str) -> None:
    for made in (record("refused: %s", text), record("x", camera=text), record(text)):
        assert len(JsonLines().format(made)) < 60_000
        of_json(JsonLines().format(made))
        line = TextLines().format(made)
        assert line.isprintable() and len(line) < 60_000 and line.startswith("WARNING cloud_bridge: ")


@given(st.text(st.characters(), max_size=200))
def test_any_text_is_one_line_and_all_of_it(text: str) -> None:
    found = of_json(JsonLines().format(record("%s", text, camera=text)))
    assert found["message"] == text.encode("utf-8", "replace").decode()
    assert TextLines().format(record("%s", text)).isprintable()


@pytest.mark.parametrize("kind", [JsonLines, TextLines])
def test_a_traceback_has_its_end_and_is_bounded(kind: type[logging.Formatter]) -> None:
    made = record("it failed")
    try:
        raise ValueError("a\nERROR forged\n" + "b" * 100_000 + " the end")
    except ValueError:
        made.exc_info = sys.exc_info()
    text = kind().format(made)
    assert "the end" in text and len(text) < 60_000
    if kind is JsonLines:
        assert of_json(text)["traceback"].endswith("the end")
    assert all(line.startswith(" ") for line in text.splitlines()[1:])


def test_a_camera_s_records_name_it(caplog: pytest.LogCaptureFixture) -> None:
    session = CameraSession("lab/door", DEVICE.public, engines_of(manifest := make_manifest()), CameraRecord())
    session.receive("features", release(0, manifest=manifest, key=OTHER), False, 0.0)
    (made,) = caplog.records
    found = of_json(JsonLines().format(made))
    assert found["camera"] == "lab/door" and found["message"].startswith("lab/door: a message is refused")


def test_a_letter_s_records_name_camera_alert_and_trace() -> None:
    body = json.dumps({"camera": "lab/door", "trace": "c" * 32})
    told = about(Letter("r", "d" * 32, 1, body, 0.0, 0))
    assert told == {"alert": "d" * 32, "camera": "lab/door", "trace": "c" * 32}
    former = about(Letter("r", "d" * 32, 1, json.dumps({"camera": "lab/door"}), 0.0, 0))
    assert "trace" not in of_json(JsonLines().format(record("x", **former)))


@pytest.mark.parametrize(("config", "lines"), [(LogConfig(), TextLines), (LogConfig("json"), JsonLines)])
def test_the_process_logs_at_a_bounded_rate(
    monkeypatch: pytest.MonkeyPatch, config: LogConfig, lines: type[logging.Formatter]
) -> None:
    made: list[logging.Handler] = []
    monkeypatch.setattr(logging, "basicConfig", lambda handlers, level: made.extend(handlers))
    monkeypatch.setattr(logging, "captureWarnings", lambda on: None)
    for module in (sys, threading):
        monkeypatch.setattr(module, "excepthook", module.excepthook)  # as it was, afterwards
    set_up(config)
    assert [type(each) for each in made[0].filters] == [BoundedRate] and type(made[0].formatter) is lines


def test_what_is_left_out_is_counted_in_json_too() -> None:
    bound, lines = BoundedRate(lambda: now[0]), JsonLines()
    now = [0.0]
    told = []
    for number in range(20):
        now[0] = 0.0 if number < 19 else 60.0
        made = record("%s: 100 %% of %s", "lab/door", "\n", camera="lab/door")
        told += [of_json(lines.format(made))] if bound.filter(made) else []
    assert len(told) == 6 and "(and 14 more like it, left out)" in told[-1]["message"]
    assert told[-1]["camera"] == "lab/door"


PROGRAM = """
import logging, threading, warnings
from cloud_bridge.log import LogConfig, log_of, set_up
set_up(LogConfig("json"))
log_of("lab/door").warning("%s: two\\nlines", "lab/door")
logging.getLogger("uvicorn.error").error("of a library")
warnings.warn("a warning\\nof Python", stacklevel=1)
def fail():
    raise ValueError("in a thread\\nforged")
each = threading.Thread(target=fail); each.start(); each.join()
raise RuntimeError("at the top")
"""


def test_a_process_writes_nothing_but_objects(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")],
        env={"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    told = [of_json(line) for line in done.stderr.splitlines()]
    assert [each["level"] for each in told] == ["WARNING", "ERROR", "WARNING", "CRITICAL", "CRITICAL"]
    assert [each["logger"] for each in told[:3]] == ["cloud_bridge", "uvicorn.error", "py.warnings"]
    assert told[0]["camera"] == "lab/door" and done.returncode == 1
    assert "in a thread" in told[3]["traceback"] and "at the top" in told[4]["traceback"]


def test_a_camera_s_log_is_that_of_the_bridge(caplog: pytest.LogCaptureFixture) -> None:
    log_of("lab/door").error("x")
    assert [(each.name, getattr(each, "camera", "")) for each in caplog.records] == [("cloud_bridge", "lab/door")]
