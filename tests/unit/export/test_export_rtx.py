"""NVIDIA's own parser and builder accept our graphs, in all three precisions, on a machine without a GPU."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

from export import parity, trace
from export.backends import builder
from export.backends import runners as engines
from export.backends.builder import Options, build_engine_file, keep_or_make, load_rtx, make
from export.build_engine import main
from export.precision.convert import PRECISIONS, Calibration, in_precision
from export.precision.quantise import Ranges
from familial.model.checkpoint import checkpoint_hash
from tests.support.engine_factory import make_engine, put_weights_outside
from tests.support.services import ROOT
from wire.artifact.engine_record import EngineRecord, engine_key
from wire.artifact.manifest import FILES, EngineManifest
from wire.errors import ConfigError, EngineError, ManifestError

NANO = ROOT / "checkpoints" / "nano-motion"
PARTS = ("encode", "decide")
FACTS = {"tensorrt": "RTX", "gpu": "", "compute_capability": "8.6", "l4t": ""}
OPTIONS = Options(workspace_mb=256, targets=("8.6",))
pytest_plugins = ("tests.support.small_export_fixtures",)


@pytest.fixture(scope="module")
def trt() -> Any:
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("TensorRT-RTX is not installed: pip install 'veilsight[rtx]' (x86-64 Linux)")
    return load_rtx()


@pytest.fixture(scope="module")
def calibration(checkpoint: Path, ranges: dict[str, Ranges]) -> Calibration:
    """Every layer in int8."""
    return Calibration(checkpoint_hash(checkpoint), ranges)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_engine(tmp_path / "engine")
    return tmp_path / "engine"


@pytest.mark.parametrize("target", ["8.6", "8.9"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_both_graphs_become_engine_files(
    trt: Any, traced: dict[str, ModelProto], calibration: Calibration, tmp_path: Path, precision: str, target: str
) -> None:
    for part in PARTS:
        graph = in_precision(part, traced[part], precision, calibration if precision == "int8" else None)
        file = tmp_path / FILES[part]
        file.write_bytes(graph.SerializeToString(deterministic=True))
        said: list[str] = []
        data, timing = build_engine_file(trt, file, Options(256, 3, (target,)), said.append)
        assert len(data) > 10_000 and timing == b""
        assert said[-1].startswith(f"{part}: ") and " steps in " in said[-1]


def test_the_shipped_graphs_become_engine_files(trt: Any, tmp_path: Path) -> None:
    """nano-motion, with its own calibration, for both capabilities."""
    family = trace.load_family(NANO)
    traced = {"encode": trace.trace_encode(family), "decide": trace.trace_decide(family)}
    calibration = Calibration.load(NANO, checkpoint_hash(NANO))
    for precision in PRECISIONS:
        for part in PARTS:
            file = tmp_path / FILES[part]
            graph = in_precision(part, traced[part], precision, calibration)
            file.write_bytes(graph.SerializeToString(deterministic=True))
            data, _ = build_engine_file(trt, file, Options(256, 3, ("8.6", "8.9")), lambda text: None)
            assert len(data) > 100_000


def test_the_command_makes_them_and_uses_them_again(
    trt: Any,
    checkpoint: Path,
    traced: dict[str, ModelProto],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Parity is tested in `test_export_engine.py`, and left out here."""
    monkeypatch.setattr(parity, "compare", lambda *_: {"code": {}, "verdict": {}})
    monkeypatch.setattr(parity, "words", lambda report: [])
    for part in PARTS:
        monkeypatch.setattr(trace, f"trace_{part}", lambda *_, part=part: traced[part])
    out = tmp_path / "engine"
    command = ["--checkpoint", str(checkpoint), "--out", str(out), "--backend", "tensorrt-rtx"]
    assert main(command) == 0
    record, manifest = EngineRecord.load(out), EngineManifest.load(out)
    assert record.key["compute_capability"] == "8.6 8.9" and record.key["encode"] == manifest.hashes["encode"]
    assert json.loads((out / "parity.json").read_text())["ran_in"] == "onnxruntime"
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("reused: ")
    engine = engines.backend("tensorrt-rtx")
    assert engine.why_stale(out, manifest) == ""
    other = engines.backend("tensorrt-rtx", Options(targets=("8.9",)))
    assert other.why_stale(out, manifest) == "compute_capability changed (8.6 8.9 -> 8.9)"
    (out / "encode.engine").write_bytes(b"")
    assert "encode.engine: not the file" in engine.why_stale(out, manifest)


def test_a_stale_engine_file_is_made_again_and_the_reason_reported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, cache, said = EngineManifest.load(folder), tmp_path / "cache", list[str]()
    key = engine_key(manifest, "tensorrt-rtx", FACTS)
    monkeypatch.setattr(builder, "build_engine_file", lambda trt, file, *_: (file.read_bytes(), b"timing"))

    def keep(changed: dict[str, str] | None = None) -> bool:
        said.clear()
        return keep_or_make(None, folder, manifest, cache, {**key, **(changed or {})}, OPTIONS, said.append)

    assert not keep() and "engine.json: No such file" in said[0]
    assert keep() and not said
    for name in ("tensorrt", "gpu", "compute_capability", "l4t", "precision", "calibration", "encode", "external"):
        assert not keep({name: "other"}) and f"building: {name} changed (" in said[0]
        assert not keep() and f"{name} changed (other -> " in said[0]
    (cache / "encode.engine").write_bytes(b"x")
    assert not keep() and "encode.engine: not the file that engine.json records" in said[0]
    assert keep()


def test_engine_files_carry_no_prefix(trt: Any, folder: Path, tmp_path: Path) -> None:
    """TensorRT's own tools can read the file itself; everything about it is in engine.json."""
    manifest = EngineManifest.load(folder)
    make(trt, folder, manifest, tmp_path, {}, OPTIONS, lambda text: None)
    data, _ = build_engine_file(trt, folder / "encode.onnx", OPTIONS, lambda text: None)
    assert (tmp_path / "encode.engine").read_bytes()[:16] == data[:16]


def test_external_weights_are_built_from_verified_bytes(trt: Any, folder: Path, tmp_path: Path) -> None:
    manifest = put_weights_outside(folder)
    make(trt, folder, manifest, tmp_path / "cache", {}, OPTIONS, lambda text: None)
    file = folder / "encode.weights"
    file.write_bytes(b"\x01" + file.read_bytes()[1:])
    with pytest.raises(ManifestError, match=r"encode\.weights: sha256"):
        make(trt, folder, manifest, tmp_path / "cache", {}, OPTIONS, lambda text: None)
    assert not (tmp_path / "cache" / "engine.json").exists()  # so the files that were there are not run


def test_a_build_that_fails_leaves_nothing_that_runs(
    trt: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = EngineManifest.load(folder)
    make(trt, folder, manifest, tmp_path, {}, OPTIONS, lambda text: None)

    def fails(*_: object) -> None:
        raise EngineError("decide.onnx: no memory")

    monkeypatch.setattr(builder, "build_engine_file", fails)
    with pytest.raises(EngineError, match="no memory"):
        make(trt, folder, manifest, tmp_path, {}, OPTIONS, lambda text: None)
    with pytest.raises(EngineError, match=r"engine\.json"):
        EngineRecord.load(tmp_path)


def test_the_parsers_message_is_reported(trt: Any, folder: Path, tmp_path: Path) -> None:
    """A uint8 tensor that another node than a Cast reads, which TensorRT does not support."""
    model = onnx.load(folder / "encode.onnx")
    shape = numpy_helper.from_array(np.array([1, 16, 32, 32], np.int64), "same")
    model.graph.initializer.append(shape)
    model.graph.node[0].input[0] = "reshaped"
    model.graph.node.insert(0, helper.make_node("Reshape", ["frames", "same"], ["reshaped"]))
    onnx.save(model, tmp_path / "encode.onnx")
    with pytest.raises(EngineError, match=r"encode\.onnx: TensorRT 1\.7\.1\.116 does not parse it: .*UInt8"):
        build_engine_file(trt, tmp_path / "encode.onnx", OPTIONS, lambda text: None)
    (tmp_path / "decide.onnx").write_bytes(b"")
    with pytest.raises(EngineError, match=r"decide\.onnx: .*(builds no engine|does not parse it)"):
        build_engine_file(trt, tmp_path / "decide.onnx", OPTIONS, lambda text: None)


def test_an_unknown_compute_capability_is_refused(trt: Any, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"--compute-capability 8\.7: .* 8\.6, 8\.9, .*export\.install"):
        build_engine_file(trt, folder / "encode.onnx", Options(targets=("8.7",)), lambda text: None)
    with pytest.raises(ConfigError, match=r"--compute-capability 8\.7"):
        engines.backend("tensorrt-rtx", Options(targets=("8.6", "8.7")))  # before anything is traced


def test_progress_is_reported_while_it_builds(trt: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(builder, "_SAID_EVERY_S", 0.0)
    build_engine_file(trt, folder / "encode.onnx", OPTIONS, said.append)
    assert len(said) > 10
    assert any("Building engine" in line and "/" in line for line in said)


def test_a_cancelled_build_ends_as_cancelled(trt: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of a callback reaches the caller, not the library's C++."""
    monkeypatch.setattr(builder, "_SAID_EVERY_S", 0.0)

    def interrupted(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine_file(trt, folder / "encode.onnx", OPTIONS, interrupted)


# --- without any library


@pytest.mark.parametrize(
    ("memory", "disk", "says"),
    [(1 << 20, 1 << 40, "MB of memory available"), (1 << 40, 1000, "MB free"), (None, 1 << 40, "")],
)
def test_too_little_memory_or_disk_is_reported_before_anything_starts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int | None, disk: int, says: str
) -> None:
    monkeypatch.setattr(builder, "_available_memory", lambda: memory)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 41, 0, disk))

    def started(*_: object) -> None:
        raise EngineError("it was started")

    monkeypatch.setattr(builder, "build_engine_file", started)
    with pytest.raises(EngineError, match=says or "it was started"):
        make(None, folder, EngineManifest.load(folder), tmp_path / "cache", {}, OPTIONS, lambda text: None)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ModuleNotFoundError("No module named 'tensorrt_rtx_bindings'"), r"pip install 'veilsight\[rtx\]'"),
        (ImportError("libtensorrt_rtx.so.1: cannot open"), "does not load .*glibc"),
    ],
)
def test_a_missing_library_is_reported(error: Exception, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise error

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(EngineError, match=says):
        load_rtx()


def test_a_builder_without_its_gpu_is_reported(folder: Path) -> None:
    class Module:
        __version__ = "10.3.0"
        ILogger = type("ILogger", (), {"ERROR": 1, "INTERNAL_ERROR": 0})

        @staticmethod
        def Builder(logger: Any) -> None:
            logger.log(1, "CUDA initialization failure with error: 100")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    with pytest.raises(EngineError, match=r"makes no builder here \(CUDA initialization failure.*needs the GPU"):
        build_engine_file(Module, folder / "encode.onnx", OPTIONS)


class Builds:
    """A fake of TensorRT's builder that records its options. Unlike TensorRT-RTX it has no targets."""

    __version__ = "10.3.0"
    ILogger = type("ILogger", (), {"ERROR": 1, "INTERNAL_ERROR": 0})
    IProgressMonitor = type("IProgressMonitor", (), {})
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    MemoryPoolType, BuilderFlag = SimpleNamespace(WORKSPACE="workspace"), SimpleNamespace(TF32="tf32")

    def __init__(self, plan: bytes | None = b"plan", foreign: bytes = b"") -> None:
        self.plan, self.foreign, self.options = plan, foreign, dict[str, Any]()
        self.timing = b""

    def Builder(self, logger: Any) -> Any:
        self.logger = logger
        return SimpleNamespace(
            create_network=lambda flags: self.options.update(network=flags),
            create_builder_config=lambda: self.config,
            build_serialized_network=self._build,
        )

    def OnnxParser(self, network: Any, logger: Any) -> Any:
        return SimpleNamespace(parse=lambda data, path: self.options.update(path=path) or True)

    @property
    def config(self) -> Any:
        def use(cache: bytes, ignore_mismatch: bool) -> bool:
            assert not ignore_mismatch
            self.timing = cache
            return cache != self.foreign or not cache

        self._config = SimpleNamespace(
            set_memory_pool_limit=lambda pool, size: self.options.update({pool: size}),
            clear_flag=lambda flag: self.options.update({flag: False}),
            set_flag=lambda flag: self.options.update({flag: True}),
            create_timing_cache=lambda blob: blob,
            set_timing_cache=use,
            get_timing_cache=lambda: SimpleNamespace(serialize=lambda: self.timing + b" and more"),
        )
        return self._config

    def _build(self, network: Any, config: Any) -> bytes | None:
        monitor = config.progress_monitor
        monitor.phase_start("Building engine", None, 2)
        assert monitor.step_complete("Building engine", 0)
        monitor.phase_finish("Building engine")
        self.options["level"] = config.builder_optimization_level
        if self.plan is None:
            self.logger.log(1, "Could not find any implementation for node conv1")
        return self.plan


def test_the_devices_builder_gets_types_workspace_and_timing_cache(folder: Path) -> None:
    """Strongly typed, TF32 off, no other flag: a version-compatible or hardware-compatible file is never asked for."""
    trt, said = Builds(), list[str]()
    made = build_engine_file(trt, folder / "encode.onnx", Options(256, 4), said.append, b"measured")
    assert made == (b"plan", b"measured and more")
    assert trt.options == {
        "network": 1 << 1,
        "path": str(folder / "encode.onnx"),
        "workspace": 256 << 20,
        "tf32": False,
        "level": 4,
    }
    assert said[-1].startswith("encode: 0 kB, 1 steps in ")


def test_a_timing_cache_of_another_gpu_is_left_out(folder: Path) -> None:
    made = build_engine_file(Builds(foreign=b"other"), folder / "encode.onnx", OPTIONS, lambda text: None, b"other")
    assert made == (b"plan", b" and more")


def test_a_failure_of_the_devices_builder_is_reported_with_the_cure(folder: Path) -> None:
    says = r"encode\.onnx: TensorRT 10\.3\.0 builds no engine: .*node conv1; .*--workspace"
    with pytest.raises(EngineError, match=says):
        build_engine_file(Builds(plan=None), folder / "encode.onnx", OPTIONS, lambda text: None)


def test_the_timing_cache_is_kept_beside_the_engine_files(folder: Path, tmp_path: Path) -> None:
    """One build's measurements are used for the next one."""
    manifest, trt, cache = EngineManifest.load(folder), Builds(), tmp_path / "cache"
    for expected in (b" and more", b" and more and more"):
        make(trt, folder, manifest, cache, {}, OPTIONS, lambda text: None)
        assert (cache / "timing.cache").read_bytes() == expected


def test_a_missing_tensorrt_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    if "tensorrt" in sys.modules or importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed here")
    assert main(["--backend", "tensorrt"]) == 1
    assert "build_engine: TensorRT is not installed for this Python" in capsys.readouterr().err
