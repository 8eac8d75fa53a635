"""Dependency rules: imports point down only, no circles, and each package uses the libraries of its row alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping

import pytest

from tests.support.services import PATIENCE_S, ROOT
from tests.support.source_tree import LAYERS, PACKAGES, imports, module_name, python_files

# Third-party libraries that a package, or one of its folders or files, may import. A row adds to those above it.
LIBRARIES: Mapping[str, set[str]] = {
    "wire": {"numpy"},
    "wire/mqtt.py": {"paho"},
    "wire/mqtt_bulk.py": {"paho"},
    "wire/protocol": {"google"},
    "wire/protocol/keys.py": {"cryptography"},
    "wire/settings.py": {"tomli"},
    "edge_runtime": {"numpy"},
    "edge_runtime/capture": {"cv2"},
    "edge_runtime/eye/engine/onnx.py": {"onnxruntime"},
    "edge_runtime/eye/engine/tensorrt.py": {"tensorrt", "pycuda"},
    "familial": {"numpy", "torch"},
    "familial/contour/decoder.py": {"safetensors"},
    "familial/data": {"cv2"},
    "familial/data/people.py": {"onnxruntime"},
    "familial/train/__main__.py": {"cv2"},
    "familial/synth": {"cv2"},
    "familial/evaluate": {"scipy"},
    "familial/model": {"transformers"},
    "familial/model/base_words.py": {"safetensors", "tokenizers"},
    "familial/model/causal_lm.py": {"tokenizers"},
    "familial/model/lora.py": {"peft", "safetensors"},
    "familial/model/weights.py": {"safetensors"},
    "export": {"numpy", "onnx"},
    "export/backends": {"onnxruntime", "tensorrt", "tensorrt_rtx_bindings", "pycuda"},
    "export/precision": {"onnxruntime"},
    "export/proof": {"google"},
    "export/parity.py": {"torch"},
    "export/trace.py": {"torch", "onnx_ir", "onnxscript"},
    "firmware_configs": set(),
    "calibration": {"numpy"},
    "calibration/int8.py": {"onnx", "torch"},
    "calibration/noise.py": {"mpmath"},
    "calibration/audit": {"cv2", "onnx", "onnxruntime", "torch"},
    "cloud_bridge": {"numpy"},
    "cloud_bridge/api": {"fastapi", "prometheus_client", "sqlalchemy", "sse_starlette", "starlette", "uvicorn"},
    "cloud_bridge/client.py": {"httpx"},
    "cloud_bridge/inference": {"httpx", "torch"},
    "cloud_bridge/inference/ray_replica.py": {"ray", "starlette"},
    "cloud_bridge/inference/ray_serve.py": {"ray"},
    "cloud_bridge/commands": {"sqlalchemy"},
    "cloud_bridge/store": {"alembic", "sqlalchemy"},
    "cloud_bridge/telemetry": {"opentelemetry"},
    "cloud_bridge/store/export.py": {"pyarrow"},
    "cloud_bridge/web": {"fastapi", "segno", "sqlalchemy", "starlette"},
    "cloud_bridge/webhooks": {"httpx", "sqlalchemy"},
    "benchmarks": {"cv2", "numpy", "onnxruntime", "paho", "torch", "transformers"},
    "benchmarks/broker.py": {"amqtt"},
    "benchmarks/cloud/fuzz.py": {"fastapi"},
    "benchmarks/cloud/fuzz_api.py": {"hypothesis", "requests", "schemathesis"},
    "benchmarks/cloud/kill_judge.py": {"sqlalchemy"},
    "benchmarks/cloud/kills.py": {"sqlalchemy"},
    "benchmarks/cloud/page_load.py": {"playwright"},
    "benchmarks/cloud/ray_cluster.py": {"psutil", "ray"},
    "benchmarks/device/noise.py": {"opendp"},
    "benchmarks/device/perceive.py": {"onnx"},
}
# `export` reaches the family, and with it torch, through these files alone: the rest runs on a device.
EXPORT_TRACING = {"export/parity.py", "export/trace.py"}
TORCH_AND_ONNX = {"torch", "transformers", "safetensors", "tokenizers", "onnx", "onnx_ir", "onnxscript"}


def libraries_of(name: str) -> set[str]:
    """The libraries that the file `name` may import: those of every row that is this file or a folder around it."""
    rows = (row for row in LIBRARIES if name == row or name.startswith(f"{row}/"))
    return set().union(*(LIBRARIES[row] for row in rows))


def broken_rules(name: str, source: str) -> list[str]:
    """What the file `name` imports against the rules, each with what to do about it."""
    package, found = name.split("/")[0], []
    for line, module in imports(ROOT / name, source):
        top = module.split(".")[0]
        if top in (package, "") or top in sys.stdlib_module_names:
            continue
        where = f"{name}:{line} imports {module}: "
        if top in LAYERS:
            if LAYERS[top] >= LAYERS[package]:
                layers = f"{package} is layer {LAYERS[package]}, {top} layer {LAYERS[top]}"
                found.append(f"{where}{layers}; move what it needs further down")
            elif package == "export" and top == "familial" and name not in EXPORT_TRACING:
                found.append(f"{where}export runs on devices; only {', '.join(sorted(EXPORT_TRACING))} use the family")
        elif package != "tests" and top not in libraries_of(name):
            allowed = ", ".join(sorted(libraries_of(name))) or "none"
            cure = f"do without, or add {top} to a row of LIBRARIES in this test and to an extra in setup.py"
            found.append(f"{where}allowed are {allowed}; {cure}")
    return found


def test_imports_follow_the_rules() -> None:
    files = python_files(*LAYERS)
    found = [broken for path in files for broken in broken_rules(path.relative_to(ROOT).as_posix(), path.read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("wire/a.py", "import edge_runtime.gate.loop"),
        ("wire/a.py", "from ..familial import config"),
        ("wire/a.py", "import paho.mqtt.client"),
        ("edge_runtime/a.py", "def f():\n    from familial.model.config import FamilyConfig"),
        ("edge_runtime/a.py", "import importlib\nimportlib.import_module('torch')"),
        ("edge_runtime/a.py", "import onnx.helper"),
        ("edge_runtime/gate/a.py", "import cv2"),
        ("familial/a.py", "from edge_runtime import noise"),
        ("export/build_engine.py", "import torch"),
        ("export/backends/runners.py", "import familial.model.family"),
        ("export/trace.py", "import calibration"),
        ("cloud_bridge/a.py", "import calibration.noise"),
        ("firmware_configs/a.py", "import export"),
        ("firmware_configs/a.py", "import numpy"),
        ("benchmarks/a.py", "import tests.conftest"),
    ],
)
def test_a_planted_import_is_found(file: str, source: str) -> None:
    assert broken_rules(file, source)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("wire/mqtt.py", "import ssl, paho.mqtt.client\nfrom wire.errors import BrokerError"),
        ("edge_runtime/eye/engine/onnx.py", "from wire.errors import ConfigError\nimport numpy, onnxruntime"),
        ("export/trace.py", "import torch, familial.model.family, wire.artifact.manifest"),
        ("calibration/audit/a.py", "import export.backends.runners, edge_runtime.gate.sampler, torch"),
    ],
)
def test_a_downward_import_is_allowed(file: str, source: str) -> None:
    assert not broken_rules(file, source)


def test_every_row_of_the_libraries_is_a_place() -> None:
    gone = [row for row in LIBRARIES if not (ROOT / row).exists()]
    assert not gone, f"nothing lies at {gone}: take the rows out of LIBRARIES"


def import_graph() -> dict[str, set[str]]:
    """module -> modules of ours that it imports, at its top, in a function or for its types alone."""
    sources = {module_name(path): path for path in python_files(*PACKAGES)}
    graph: dict[str, set[str]] = {name: set() for name in sources}
    for name, path in sources.items():
        for _, imported in imports(path, path.read_text()):
            target = imported if imported in sources else imported.rpartition(".")[0]
            if target in sources and target != name:
                graph[name].add(target)
    return graph


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The strongly connected components of more than one node (Tarjan 1972)."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        numbers[node] = lowest[node] = len(numbers)
        stack.append(node)
        for following in graph[node]:
            if following not in numbers:
                visit(following)
            if following in stack:
                lowest[node] = min(lowest[node], lowest[following])
        if lowest[node] == numbers[node]:
            component = stack[stack.index(node) :]
            del stack[-len(component) :]
            if len(component) > 1:
                found.append(sorted(component))

    for node in graph:
        if node not in numbers:
            visit(node)
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    found = [" <-> ".join(circle) for circle in circles(import_graph())]
    assert not found, "\n".join([*found, "Move what both need into a module below them, or use a registry."])


def test_a_circle_is_found() -> None:
    assert circles({"a": ["b"], "b": ["c"], "c": ["a", "d"], "d": []}) == [["a", "b", "c"]]


PROBE = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    for found in pkgutil.walk_packages(getattr(module, "__path__", ()), name + "."):
        if found.name.rpartition(".")[2] != "__main__":
            importlib.import_module(found.name)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
INSTALLER = ("export.backends.builder", "export.bundle", "export.install", "export.proof.verify_graph")


@pytest.mark.parametrize(
    ("modules", "barred"),
    [
        (("wire", "edge_runtime"), TORCH_AND_ONNX | {"export", "familial"}),
        (INSTALLER, TORCH_AND_ONNX - {"onnx"} | {"familial"}),
    ],
    ids=["runtime", "installer"],
)
def test_a_device_loads_no_torch(modules: tuple[str, ...], barred: set[str]) -> None:
    """In a process of its own: all these modules, then what came with them. Only the installer may load onnx."""
    command = [sys.executable, "-c", PROBE, *modules]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert result.returncode == 0, result.stderr
    loaded = set(result.stdout.split())
    assert modules[0].partition(".")[0] in loaded
    assert loaded.isdisjoint(barred), f"loaded on a device: {sorted(loaded & barred)}"
