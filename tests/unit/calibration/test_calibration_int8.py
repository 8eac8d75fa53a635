"""calibration.int8: ranges, layers kept in float32, branches of the norm guard, and unusable input."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from calibration import int8
from calibration.int8 import Material, Part, calibrate, choose_layers, choose_ranges, gather, main
from export import parity, trace
from export.build_engine import main as build
from export.precision.convert import CALIBRATION
from export.proof.structure import load_graph
from familial.model.config import FamilyConfig
from tests.support.family_factory import load_graphs
from tests.support.services import ROOT
from wire.artifact.manifest import EngineManifest
from wire.errors import DataError, EngineError


@pytest.fixture(scope="module")
def checkpoint(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(small_checkpoint, tmp_path_factory.mktemp("checkpoint") / "small"))


@pytest.fixture(scope="module", autouse=True)
def traced(small_graphs: Path) -> Iterator[dict[str, ModelProto]]:
    """Both graphs, traced once for all tests."""
    graphs = load_graphs(small_graphs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "trace_encode", lambda family, beside=None: graphs["encode"])
        patch.setattr(trace, "trace_decide", lambda family, beside=None: graphs["decide"])
        yield graphs


@pytest.fixture(scope="module")
def material(checkpoint: Path) -> Material:
    """Six clips of five made windows."""
    config = FamilyConfig.load(checkpoint / "config.json")
    feeds = [{"frames": window[None]} for window in parity.made_windows(config.window, 30)]
    return Material([feeds[i : i + 5] for i in range(0, 30, 5)], "made windows")


@pytest.fixture(scope="module")
def document(checkpoint: Path, material: Material) -> dict[str, Any]:
    return calibrate(checkpoint, material)


# --- what is chosen


def test_a_calibration_makes_an_engine_that_pins_it(
    checkpoint: Path, document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From calibration.json to an engine folder that is proved and within its tolerance."""
    made = parity.made_windows
    monkeypatch.setattr(parity, "made_windows", lambda window: made(window, 20))
    file = checkpoint / CALIBRATION
    file.write_text(json.dumps(document))
    out = tmp_path / "int8"
    try:
        assert build(["--checkpoint", str(checkpoint), "--precision", "int8", "--out", str(out)]) == 0
        manifest = EngineManifest.load(out)
        assert manifest.precision == "int8"
        assert manifest.hashes["calibration"] == hashlib.sha256(file.read_bytes()).hexdigest()
        kinds = [node.op_type for node in load_graph(out / "encode.onnx").graph.node]
        assert kinds.count("QuantizeLinear") >= len(document["encode"]["int8"]) > 0
        assert json.loads((out / "parity.json").read_text())["code"]["p99"] <= parity.TOLERANCES["int8"].p99
    finally:
        file.unlink()


def test_the_same_clips_give_the_same_ranges(checkpoint: Path, material: Material, document: dict[str, Any]) -> None:
    assert calibrate(checkpoint, material) == document


def test_the_report_holds_every_layer_and_the_guard(document: dict[str, Any], material: Material) -> None:
    for part in ("encode", "decide"):
        report, chosen = document["report"][part], set(document[part]["int8"])
        assert {row["layer"] for row in report["layers"]} == chosen | set(report["kept_float"])
        assert max(report["together"]["p99"], report["unseen"]["p99"]) <= report["limit_p99"]
        assert all(math.isfinite(row["own_sqnr_db"]) for row in report["layers"])
    for row in document["report"]["codes"].values():
        assert sum(row["guard"].values()) == sum(map(len, material.clips))
        assert row["guard"]["zero"] == 0
    assert document["report"]["codes"]["fp16"]["p99"] <= 1
    assert "biases" in document["float32_always"]
    assert "kept in float32" in int8.words(document) or "7 of 7" in int8.words(document)


def test_the_zero_branch_of_the_guard_stops_the_calibration(
    checkpoint: Path, material: Material, traced: dict[str, ModelProto], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network whose codes exceed C even when truncated: its releases would be pure noise."""
    radius = FamilyConfig.load(checkpoint / "config.json").clip_norm - 1
    wide = ModelProto()
    wide.CopyFrom(traced["encode"])
    for tensor in wide.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.shape == () and value == radius:
            tensor.CopyFrom(numpy_helper.from_array(value * 3, tensor.name))
    monkeypatch.setattr(trace, "trace_encode", lambda family, beside=None: wide)
    with pytest.raises(EngineError, match="precision fp32: the guard's zero branch fired on"):
        calibrate(checkpoint, material)


def test_a_sensitive_layer_stays_in_float32() -> None:
    """One input of a thousand times the others' size, which the weights ignore: one scale cannot hold both."""
    model, feeds = outlier_model()
    part = Part(model, feeds[:20], feeds[20:], "y", limit=1e9)
    ranges, peaks = choose_ranges(part)
    chosen, report = choose_layers(part, ranges, peaks)
    assert chosen.int8 == ("sound",)
    assert "dB is the least" in report["kept_float"]["spoiled"]
    assert peaks["x2"] == pytest.approx(1000, rel=0.5)


def test_errors_on_fitting_windows_count() -> None:
    """A layer's error is large on one fitting feed only; the judging feeds do not show it."""
    model, feeds = outlier_model(outlier=1.0)
    loud = [*feeds[:20], {"input": np.full((1, 8), 40.0, np.float32)}]
    part = Part(model, loud, feeds[20:], "y", limit=0.2)
    ranges, peaks = choose_ranges(part)
    narrow = dict.fromkeys(ranges, 1.0)  # what the judging feeds need
    chosen, report = choose_layers(part, narrow, peaks)
    assert chosen.int8 == () and "is allowed" in report["kept_float"]["sound"]
    chosen, report = choose_layers(Part(model, feeds[:20], feeds[20:], "y", limit=0.2), narrow, peaks)
    assert chosen.int8 == ("sound", "spoiled") and report["unseen"]["p99"] <= 0.2


def test_the_layer_of_the_largest_error_is_left_out_first() -> None:
    model, feeds = outlier_model(outlier=1.0)
    part = Part(model, feeds[:20], feeds[20:], "y", limit=0.0)
    chosen, report = choose_layers(part, *choose_ranges(part))
    assert chosen.int8 == () and report["together"]["p99"] == 0.0
    alone = {row["layer"]: row["p99"] for row in report["layers"]}
    assert [*report["kept_float"]] == sorted(alone, key=lambda name: -alone[name])


def outlier_model(outlier: float = 1000.0) -> tuple[ModelProto, list[dict[str, npt.NDArray[Any]]]]:
    """input (1, 8) -> x -> MatMul "sound" -> y1; x with one coordinate scaled -> MatMul "spoiled" -> y2; y1 + y2."""
    rng = np.random.default_rng(5)
    weights = {name: rng.normal(size=(8, 8)).astype(np.float32) for name in ("w1", "w2")}
    weights["w2"][0] = 0.0
    stretch = np.ones(8, np.float32)
    stretch[0] = outlier
    stored = [numpy_helper.from_array(value, name) for name, value in {**weights, "stretch": stretch}.items()]
    nodes = [
        helper.make_node("Neg", ["input"], ["x"], "first"),
        helper.make_node("MatMul", ["x", "w1"], ["y1"], "sound"),
        helper.make_node("Mul", ["x", "stretch"], ["x2"], "stretching"),
        helper.make_node("MatMul", ["x2", "w2"], ["y2"], "spoiled"),
        helper.make_node("Add", ["y1", "y2"], ["y"], "sum"),
    ]
    given, made = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8])] for name in ("input", "y"))
    graph = helper.make_graph(nodes, "outlier", given, made, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    return model, [{"input": np.clip(rng.normal(size=(1, 8)), -1, 1).astype(np.float32)} for _ in range(30)]


def test_a_network_that_turns_nan_is_named() -> None:
    model, feeds = outlier_model()
    feeds[3] = {"input": np.full((1, 8), np.nan, np.float32)}
    with pytest.raises(EngineError, match="becomes NaN or infinite"):
        choose_ranges(Part(model, feeds[:20], feeds[20:], "y", limit=1.0))


def test_a_range_cuts_rare_outliers_and_keeps_what_is_common() -> None:
    rng = np.random.default_rng(0)
    common = np.histogram(rng.uniform(0, 1, 100000), int8._BINS, (0, 1))[0].astype(np.float64)
    rare = np.histogram(np.append(np.abs(rng.normal(0, 0.05, 100000)), 1.0), int8._BINS, (0, 1))[0].astype(np.float64)
    assert int8._best_part(common) > 0.98
    assert int8._best_part(rare) < 0.8


# --- what is refused


def write_clip(path: Path, seed: int, light: bool = True) -> None:
    rng = np.random.default_rng(seed)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 64))
    for index in range(25):
        frame = rng.integers(0, 90, (64, 64, 3)).astype(np.uint8) if light else np.zeros((64, 64, 3), np.uint8)
        frame[10 + index : 20 + index, 20:30] = 255 if light else 0
        writer.write(frame)
    writer.release()


def write_manifest(folder: Path, names: list[str]) -> Path:
    manifest = folder / "manifest.csv"
    rows = [f"{name},normal,set,{index}," for index, name in enumerate(names)]
    manifest.write_text("\n".join(["file,label,set,group,note", *rows]) + "\n")
    return manifest


def _one(folder: Path) -> list[str]:
    write_clip(folder / "a.mp4", 0)
    return ["a.mp4"]


def _copies(folder: Path) -> list[str]:
    write_clip(folder / "a.mp4", 0)
    for name in "bcde":
        (folder / f"{name}.mp4").write_bytes((folder / "a.mp4").read_bytes())
    return [f"{name}.mp4" for name in "abcde"]


def _dark(folder: Path) -> list[str]:
    for name in "abcde":
        write_clip(folder / f"{name}.mp4", 0, light=False)
    return [f"{name}.mp4" for name in "abcde"]


@pytest.mark.parametrize(("make", "says"), [(_one, "1 different"), (_copies, "1 different"), (_dark, "0 different")])
def test_too_few_clips_are_refused(
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], list[str]],
    says: str,
) -> None:
    manifest = write_manifest(tmp_path, make(tmp_path))
    assert main(["--checkpoint", str(checkpoint), "--data", str(manifest)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("calibration.int8: ") and says in error and "give at least 4" in error
    assert not (checkpoint / CALIBRATION).exists()


def test_one_rendered_clip_is_refused(checkpoint: Path) -> None:
    config = FamilyConfig.load(checkpoint / "config.json")
    with pytest.raises(DataError, match="1 different clips"):
        gather(config, [], 1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--rendered", "-1"], "--rendered is -1"),
        (["--rendered", "0"], "0 different clips"),
        (["--data", "nowhere.csv"], "nowhere.csv: not readable"),
        (["--checkpoint", "nowhere"], "config.json"),
    ],
)
def test_wrong_arguments_are_reported(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert main(["--checkpoint", str(checkpoint), *arguments]) == 1
    assert says in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        int8._write(tmp_path / "none" / CALIBRATION, {})


# --- what is shipped


@pytest.mark.parametrize("name", ["nano", "nano-motion", "nano-research"])
def test_shipped_calibrations_belong_to_the_shipped_weights(name: str) -> None:
    from export.inputs import Inputs
    from export.precision.convert import Calibration

    folder = ROOT / "checkpoints" / name
    calibration = Calibration.load(folder, Inputs.read(folder, "int8", "onnxruntime").checkpoint)
    assert len(calibration.parts["encode"].int8) > 2
    report = json.loads((folder / CALIBRATION).read_text())["report"]
    assert report["codes"]["int8"]["guard"]["zero"] == 0
