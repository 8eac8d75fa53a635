"""Weights beside the graph: the same graph, proof and results as with the weights in it."""

from __future__ import annotations

import json
import re
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from calibration import noise
from edge_runtime.eye.engine.base import self_test
from edge_runtime.eye.engine.onnx import OnnxEngine
from export import build_engine, parity, trace
from export.precision.half import to_fp16
from export.proof.structure import LARGE_BYTES, external_files, load_graph, save_graph
from export.proof.verify_graph import prove_graph
from export.trace import trace_module
from familial.model import checkpoint, resources
from familial.model.config import FamilyConfig
from familial.model.family import Family
from familial.model.graphs import EncodeGraph
from familial.model.resources import require_memory
from tests.support.defaults import set_defaults
from tests.support.qwen_factory import qwen_family_config
from wire.artifact.manifest import FILES, EngineManifest
from wire.errors import CheckpointError, ManifestError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's exporter warns about itself


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Family]:
    """A folder with encode.onnx and its weights beside it, and the family that it was traced from."""
    folder = tmp_path_factory.mktemp("external")
    torch.manual_seed(0)
    family = Family(qwen_family_config(size=32)).eval()
    frames = torch.zeros(1, 8, 32, 32, dtype=torch.uint8)
    graph = trace_module(
        EncodeGraph(family), {"frames": frames}, "mu", "encode", folder / "encode.weights", inline_bytes=10_000
    )
    save_graph(graph, folder / "encode.onnx")
    return folder, family


def manifest_of(config: FamilyConfig) -> EngineManifest:
    """A manifest for graphs of `config` that are in no engine folder."""
    return EngineManifest(
        family=config.family,
        labels=config.labels,
        window=config.window,
        tokens=config.tokens,
        width=config.width,
        event_releases=config.event_releases,
        clip_norm=config.clip_norm,
        sigma=Fraction(60),
        profile="balanced",
        precision="fp32",
        opset=18,
        hashes=dict.fromkeys(("checkpoint", "encode", "decide", "noise_table", "certificate", "calibration"), ""),
    )


def run(file: Path, frames: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"frames": frames})[0])


def test_a_graph_with_weights_beside_it_computes_what_torch_computes(traced: tuple[Path, Family]) -> None:
    folder, family = traced
    graph = load_graph(folder / "encode.onnx")
    assert external_files(graph) == {"encode.weights"}
    assert (folder / "encode.onnx").stat().st_size < 200_000 < (folder / "encode.weights").stat().st_size
    assert prove_graph("encode", graph, manifest_of(family.config), folder)
    frames = np.random.default_rng(0).integers(0, 256, (1, 8, 32, 32), dtype=np.uint8)
    with torch.inference_mode():
        expected = EncodeGraph(family).eval()(torch.from_numpy(frames))
    assert np.abs(run(folder / "encode.onnx", frames) - expected.numpy()).max() <= 1


def test_every_weight_lies_on_a_page_of_its_own(traced: tuple[Path, Family]) -> None:
    """So that a reader can map it; indices and the constants of the integer core are in the graph itself."""
    graph = load_graph(traced[0] / "encode.onnx").graph
    outside = [tensor for tensor in graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in outside]
    ends = 0
    for place in sorted(places, key=lambda place: int(place["offset"])):
        assert int(place["offset"]) % LARGE_BYTES == 0 and int(place["offset"]) >= ends
        ends = int(place["offset"]) + int(place["length"])
    assert len(outside) > 10
    assert not [tensor.name for tensor in outside if tensor.data_type != onnx.TensorProto.FLOAT]


def test_half_precision_reads_the_weights_from_beside(traced: tuple[Path, Family], tmp_path: Path) -> None:
    """mu of the typed fp16 graph is within one lattice unit of fp32's."""
    half = to_fp16(load_graph(traced[0] / "encode.onnx"), str(traced[0]))
    assert not external_files(half), "a weight that stays float32 still lies in the other folder"
    save_graph(half, tmp_path / "encode.onnx", inline_bytes=10_000)
    assert external_files(half) == {"encode.weights"}
    size = [(folder / "encode.weights").stat().st_size for folder in (tmp_path, traced[0])]
    assert size[0] < 0.7 * size[1]
    frames = np.random.default_rng(1).integers(0, 256, (1, 8, 32, 32), dtype=np.uint8)
    assert np.abs(run(tmp_path / "encode.onnx", frames) - run(traced[0] / "encode.onnx", frames)).max() <= 1


def test_an_engine_folder_pins_the_weights_beside_its_graphs(
    traced: tuple[Path, Family], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """build_engine end to end; the device's own engine opens the folder, and refuses it when a weight is changed."""
    set_defaults(monkeypatch, trace_module, inline_bytes=10_000)
    checkpoint.save(traced[1], tmp_path / "checkpoint")
    assert noise.main(["--checkpoint", str(tmp_path / "checkpoint"), "--target", "balanced"]) == 0
    out = tmp_path / "engine"
    assert build_engine.main(["--checkpoint", str(tmp_path / "checkpoint"), "--out", str(out)]) == 0
    manifest = EngineManifest.load(out)
    assert set(manifest.external) == {"encode.weights", "decide.weights"}
    engine = OnnxEngine(out)
    self_test(engine)
    engine.close()
    weights = bytearray((out / "encode.weights").read_bytes())
    weights[5000] ^= 1
    (out / "encode.weights").write_bytes(weights)
    with pytest.raises(ManifestError, match=r"encode\.weights"):
        OnnxEngine(out)


def test_half_precision_of_a_large_family_is_built_from_weights_beside_the_graphs(
    traced: tuple[Path, Family], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """build_engine --precision fp16: measured, rounded, proved and run, with no graph holding its weights."""
    set_defaults(monkeypatch, trace_module, inline_bytes=10_000)
    set_defaults(monkeypatch, save_graph, inline_bytes=10_000)
    monkeypatch.setattr(parity, "_LARGE", 1000)
    checkpoint.save(traced[1], tmp_path / "checkpoint")
    assert noise.main(["--checkpoint", str(tmp_path / "checkpoint"), "--target", "balanced"]) == 0
    out = tmp_path / "engine"
    command = ["--checkpoint", str(tmp_path / "checkpoint"), "--out", str(out), "--precision", "fp16"]
    assert build_engine.main(command) == 0
    manifest, report = EngineManifest.load(out), json.loads((out / "parity.json").read_text())
    assert set(manifest.external) == {"encode.weights", "decide.weights"} and manifest.precision == "fp16"
    assert all((out / FILES[part]).stat().st_size < 300_000 for part in ("encode", "decide"))
    assert report["half"]["encode"]["tensors_fp16"] > 10 and report["half"]["encode"]["headroom"] > 4
    assert report["half"]["encode"]["p99"] <= 1 and report["half"]["decide"]["p99"] > 0
    assert report["code"]["windows"] == 16
    engine = OnnxEngine(out)
    self_test(engine)
    engine.close()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(("lacks", "says"), [("memory", "tracing .* needs 0.0 GB"), ("disk", "building .* writes 0.0")])
def test_too_little_memory_or_disk_is_found_before_anything_is_traced(
    traced: tuple[Path, Family],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lacks: str,
    says: str,
) -> None:
    checkpoint.save(traced[1], tmp_path / "checkpoint")
    assert noise.main(["--checkpoint", str(tmp_path / "checkpoint"), "--target", "balanced"]) == 0
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("was traced"))
    loaded = trace.load_family(tmp_path / "checkpoint")
    monkeypatch.setattr(trace, "load_family", lambda folder: loaded)
    if lacks == "memory":
        monkeypatch.setattr(resources, "available_memory", lambda: 1000)
    else:
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=1000))
    assert build_engine.main(["--checkpoint", str(tmp_path / "checkpoint"), "--out", str(tmp_path / "engine")]) == 1
    assert re.search(says, capsys.readouterr().err)
    assert not (tmp_path / "engine").exists()


def test_a_small_graph_keeps_its_weights(tmp_path: Path) -> None:
    module = torch.nn.Linear(64, 64)
    graph = trace_module(module, {"x": torch.zeros(1, 64)}, "y", "small", tmp_path / "small.weights")
    assert not external_files(graph) and not list(tmp_path.iterdir())


def test_a_full_disk_is_found_before_the_weights_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=1000))
    module, beside = torch.nn.Linear(64, 64), tmp_path / "small.weights"
    with pytest.raises(CheckpointError, match="tracing small writes 0.0 GB, 0.0 GB are free"):
        trace_module(module, {"x": torch.zeros(1, 64)}, "y", "small", beside, inline_bytes=1000)
    assert not beside.exists()


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(CheckpointError, match="tracing needs 1000000.0 GB of memory"):
        require_memory(10**15, "tracing")
