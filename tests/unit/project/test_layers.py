"""The floors: imports point down only, lazy ones included, with no exceptions list."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.services import PATIENCE_S, ROOT

FLOORS = {
    "tests": 5,  # half a stair above the benchmarks, which they run; never the other way
    "benchmarks": 4,
    "calibration": 3,
    "cloud_bridge": 3,
    "export": 2,
    "firmware_configs": 2,
    "familial": 1,
    "edge_runtime": 1,
    "wire": 0,
}
# Where torch may be imported: these rooms, and these files of rooms that otherwise never do.
TORCH = {"torch", "transformers", "safetensors", "onnxscript"}
TORCH_ROOMS = {"familial", "cloud_bridge", "calibration", "tests", "benchmarks"}
TORCH_FILES = {"export/trace.py", "export/parity.py"}
ONNX = {"onnx", "onnx_ir", "onnxscript"}
IMPORTERS = {"importlib.import_module", "import_module", "__import__"}
DEVICE_ROOMS = ("wire", "edge_runtime")


def files() -> list[Path]:
    """Every Python file of every room, generated code included."""
    return sorted(path for room in FLOORS for path in (ROOT / room).rglob("*.py"))


def imports(path: Path, source: str) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of every import statement and every importlib call with a literal name."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(source, str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            yield node.lineno, ".".join([*base, *([node.module] if node.module else [])])
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in IMPORTERS and node.args:
            yield node.lineno, str(getattr(node.args[0], "value", ""))


def offences(path: Path, source: str) -> list[str]:
    """What `path` imports against the floors."""
    name = path.relative_to(ROOT).as_posix()
    room = name.split("/")[0]
    may_torch = room in TORCH_ROOMS or name in TORCH_FILES
    found = []
    for line, module in imports(path, source):
        top = module.split(".")[0]
        up = top in FLOORS and top != room and FLOORS[top] >= FLOORS[room]
        # The tracer is the one door through which export reaches the family's torch.
        family = room == "export" and top == "familial" and not may_torch
        heavy = (top in TORCH and not may_torch) or (top in ONNX and room in DEVICE_ROOMS)
        if up or family or heavy:
            found.append(f"{name}:{line} imports {module}")
    return found


def test_imports_point_down_only() -> None:
    found = [offence for path in files() for offence in offences(path, path.read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("wire/a.py", "import edge_runtime.gate.loop"),
        ("wire/a.py", "from ..familial import config"),
        ("edge_runtime/a.py", "def f():\n    from familial.model.config import FamilyConfig"),
        ("edge_runtime/a.py", "import importlib\nimportlib.import_module('torch')"),
        ("edge_runtime/a.py", "import onnx.helper"),
        ("familial/a.py", "from edge_runtime import noise"),
        ("export/build_engine.py", "import torch"),
        ("export/backends/runners.py", "import familial.model.family"),
        ("export/trace.py", "import calibration"),
        ("cloud_bridge/a.py", "import calibration.noise"),
        ("firmware_configs/a.py", "import export"),
        ("benchmarks/a.py", "import tests.conftest"),
    ],
)
def test_a_planted_import_is_found(file: str, source: str) -> None:
    assert offences(ROOT / file, source)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("edge_runtime/a.py", "from wire.errors import ConfigError\nimport onnxruntime, tensorrt"),
        ("export/trace.py", "import torch, familial.model.family, wire.artifact.manifest"),
        ("calibration/a.py", "import export.backends.runners, edge_runtime.gate.sampler, torch"),
    ],
)
def test_a_downward_import_is_allowed(file: str, source: str) -> None:
    assert not offences(ROOT / file, source)


DEVICE_PROBE = """
import importlib, pkgutil, sys
for room in ("wire", "edge_runtime"):
    package = importlib.import_module(room)
    for found in pkgutil.walk_packages(package.__path__, room + "."):
        if found.name.rpartition(".")[2] == "engine_tensorrt":
            importlib.import_module(found.name)  # must import where TensorRT is not installed
        elif found.name.rpartition(".")[2] != "__main__":
            importlib.import_module(found.name)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_the_device_loads_no_torch_and_no_onnx() -> None:
    """In a process of its own: every module of edge_runtime and wire, then what came with them."""
    result = subprocess.run(
        [sys.executable, "-c", DEVICE_PROBE], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert result.returncode == 0, result.stderr
    loaded = set(result.stdout.split())
    assert "edge_runtime" in loaded
    barred = (TORCH | ONNX | FLOORS.keys()) - set(DEVICE_ROOMS)
    assert not loaded & barred
