"""ONNX Runtime reports to its maker unless it is told not to before it is imported: every package tells it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_runtime.confine import clean_environment
from tests.support.services import ROOT
from tests.support.source_tree import PACKAGES

SWITCH = "ORT_DISABLE_TELEMETRY"


def _imports_it(package: str) -> bool:
    files = [*(ROOT / package).rglob("*.py")]
    return any("import onnxruntime" in path.read_text() for path in files)


def test_the_packages_that_import_it_are_known() -> None:
    assert {"edge_runtime", "export", "calibration", "familial", "benchmarks"} <= {*filter(_imports_it, PACKAGES)}


@pytest.mark.parametrize("package", sorted({*filter(_imports_it, PACKAGES), "cloud_bridge"}))
def test_a_package_switches_the_reports_off_before_anything_of_it_is_imported(package: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != SWITCH} | {"PYTHONPATH": str(ROOT)}
    ask = f"import {package}, os, sys; print(os.environ.get({SWITCH!r}), 'onnxruntime' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", ask], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout.split() == ["1", "False"], run.stderr


def test_a_confined_child_keeps_the_switch() -> None:
    assert clean_environment({SWITCH: "1", "SECRET": "s"}) == {SWITCH: "1"}
