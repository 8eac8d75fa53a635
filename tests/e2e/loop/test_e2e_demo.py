"""The demo as a newcomer runs it: the shipped checkpoint, its engine, its own clip; and sources that cannot be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import demo
from benchmarks.broker import child_env
from tests.support.services import PATIENCE_S, ROOT

KEYS = {
    "source",
    "windows",
    "duration_s",
    "verdicts",
    "clip_label",
    "published_bytes",
    "bytes_per_window",
    "certified_bits_per_event",
    "latency_ms",
    "errors",
    "fall_onset_s",
    "first_fall_end_s",
}
ATTEMPTS = 3  # the noise is real: a run in which it hides the fall for a moment is allowed


def run(out: Path, *arguments: str) -> dict[str, Any]:
    """The demo at four times the speed; its document."""
    assert demo.main(["--speed", "4", "--json", str(out), *arguments]) == 0
    return dict(json.loads(out.read_text()))


def test_the_demo_names_the_fall_in_time(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    delays = []
    for _ in range(ATTEMPTS):
        document = run(tmp_path / "demo.json")
        output = capfd.readouterr()
        assert document.keys() >= KEYS
        windows = document["windows"]
        assert windows >= 12 and document["duration_s"] == windows
        assert document["errors"] == []
        assert not any(word in output.out + output.err for word in ("Traceback", "ERROR", "Warning"))
        spans = {(v["member"], v["start_s"], v["end_s"]) for v in document["verdicts"]}
        assert spans == {(m, end - 8.0, float(end)) for m in ("edge", "cloud") for end in range(8, windows + 1)}
        assert document["bytes_per_window"] <= 256
        assert document["latency_ms"]["p50"] <= document["latency_ms"]["p99"]
        end = document["first_fall_end_s"]
        delays.append(None if end is None else end - document["fall_onset_s"])
        if end is not None and 0.0 <= delays[-1] <= 4.0 and document["clip_label"] == "fall":
            return
    pytest.fail(f"no run in {ATTEMPTS} whose first fall verdict ended 0 to 4 s after the onset: {delays}")


@pytest.mark.parametrize("content", [None, b"", b"not a video" * 1000])
def test_a_source_that_cannot_be_played_is_one_clear_line(tmp_path: Path, content: bytes | None) -> None:
    clip = tmp_path / "clip.mp4"
    if content is not None:
        clip.write_bytes(content)
    command = [sys.executable, "-m", "benchmarks.demo", "--source", clip.name]
    result = subprocess.run(
        command, cwd=tmp_path, env=child_env(), capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert "clip.mp4" in result.stderr


def test_the_script_works_from_any_directory(tmp_path: Path) -> None:
    if not any((ROOT / ".venv" / f".veilsight-{kind}").is_file() for kind in ("all", "demo")):
        pytest.skip("scripts/setup has not made .venv")
    command = [str(ROOT / "scripts" / "demo"), "--source", "missing.mp4"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert result.returncode == 2
    assert "missing.mp4: no such file" in result.stderr
