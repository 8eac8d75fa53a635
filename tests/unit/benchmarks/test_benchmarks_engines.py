"""A lower precision costs a point of accuracy at most, under the same noise; every engine has a row that says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from onnx import ModelProto

from benchmarks.device import engine_accuracy, engines
from calibration.int8 import Material, calibrate
from edge_runtime.eye.engine import tensorrt as engine_tensorrt
from edge_runtime.eye.engine.onnx import OnnxEngine
from edge_runtime.reader.member import EdgeMember
from export import parity, trace
from export.backends import builder
from export.inputs import Inputs
from export.precision.convert import CALIBRATION, Calibration, in_precision
from export.precision.network import open_session
from familial.model.config import FamilyConfig
from tests.support.fake_tensorrt import World
from tests.support.family_factory import load_graphs
from tests.support.services import ROOT
from wire.errors import EngineError

NANO = ROOT / "checkpoints" / "nano-motion"


class InMemory:
    """The two graphs of one precision, without a folder."""

    def __init__(self, graphs: dict[str, ModelProto], manifest: Any) -> None:
        self.manifest = manifest
        self._run = {part: open_session(model) for part, model in graphs.items()}

    def run_encode(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
        mu: npt.NDArray[np.int32] = self._run["encode"]({"frames": frames})[0]
        return mu

    def logits(self, z: npt.NDArray[np.int32], present: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        logits: npt.NDArray[np.float32] = self._run["decide"]({"z": z, "present": present})[0]
        return logits


@pytest.mark.slow
def test_lower_precision_costs_a_point_at_most() -> None:
    """The shipped weights on rendered clips that chose no range; the same noise for each engine."""
    family = trace.load_family(NANO)
    traced = {"encode": trace.trace_encode(family), "decide": trace.trace_decide(family)}
    wanted = Inputs.read(NANO, "int8", "onnxruntime")
    calibration = Calibration.load(NANO, wanted.checkpoint)
    config = family.config
    manifest = SimpleNamespace(tokens=config.tokens, width=config.width, sigma=wanted.sigma)
    rows = []
    for precision in ("fp32", "fp16", "int8"):
        graphs = {part: in_precision(part, model, precision, calibration) for part, model in traced.items()}
        both = InMemory(graphs, manifest)
        opened = cast(OnnxEngine, both), cast(EdgeMember, both)
        rows.append(engine_accuracy.EngineRow(precision, Path(precision), 0.0, *opened))
    clips = engine_accuracy.read_windows(NANO, [], 8)
    engine_accuracy.compare(rows, NANO, clips, samples=60)
    for row in rows:
        assert row.found["zero_codes"] == 0
        assert row.found["mu_norm_max"] <= config.clip_norm
        # Few clips here: what is left of chance after pairing by clip and noise sample is allowed for.
        for member in ("edge", "cloud"):
            allowed = 1.0 + 2.0 * row.found[f"points_lost_{member}_se"]
            assert row.found[f"points_lost_{member}"] <= allowed
    assert rows[1].found["mu_p99"] <= 1
    # twice what calibration allows on clips that it drew itself
    assert rows[2].found["mu_p99"] <= config.clip_norm / 16


@pytest.fixture(scope="module")
def calibrated(small_checkpoint: Path, small_graphs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small calibrated checkpoint."""
    folder = Path(shutil.copytree(small_checkpoint, tmp_path_factory.mktemp("calibrated") / "small"))
    window = FamilyConfig.load(folder / "config.json").window
    feeds = [{"frames": made[None]} for made in parity.made_windows(window, 16)]
    with pytest.MonkeyPatch.context() as patch:
        use_graphs(patch, small_graphs)
        document = calibrate(folder, Material([feeds[i : i + 4] for i in range(0, 16, 4)], "made windows"))
    (folder / CALIBRATION).write_text(json.dumps(document))
    return folder


def use_graphs(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Use the graphs in `folder` in place of tracing the family."""
    graphs = load_graphs(folder)
    patch.setattr(trace, "trace_encode", lambda family, beside=None: graphs["encode"])
    patch.setattr(trace, "trace_decide", lambda family, beside=None: graphs["decide"])


@pytest.fixture
def checkpoint(calibrated: Path, small_graphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A calibrated checkpoint that a test may change, traced already."""
    use_graphs(monkeypatch, small_graphs)
    made = parity.made_windows
    monkeypatch.setattr(parity, "made_windows", lambda window, count=12: made(window, min(count, 12)))
    return Path(shutil.copytree(calibrated, tmp_path / "small"))


def test_every_engine_has_a_row(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_ahead_of_time", lambda row: {"target": "8.6", "build_s": 0.1, "bytes": 1000})
    monkeypatch.setattr(engine_tensorrt, "load_libraries", absent)
    monkeypatch.setattr(engines, "_RENDERED", 2)
    arguments = [
        "--checkpoint",
        str(checkpoint),
        "--out",
        str(tmp_path / "out"),
        "--windows",
        "20",
        "--noise-samples",
        "3",
    ]
    assert engines.COMMAND.main(arguments) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    found = json.loads(lines[-1])
    assert {"name", "ratio", "of", "figures", "machine"} <= found.keys()
    assert found["ratio"] > 0 and "fp32" in found["of"]
    for precision in ("fp32", "fp16", "int8"):
        row = found["figures"]["onnxruntime"][precision]
        assert 0 < row["encode_ms"]["p50"] <= row["encode_ms"]["p99"]
        assert row["S_event"] == pytest.approx(3.0, abs=0.01) and row["bytes"] > 0 and row["memory_mb"] > 0
        assert 0 <= row["accuracy_cloud"] <= 1 and row["zero_codes"] == 0
        assert any(line.startswith(f"onnxruntime {precision}") for line in lines)
        assert any(line.startswith(f"tensorrt-rtx {precision}") for line in lines)
    sizes = [found["figures"]["onnxruntime"][name]["bytes"] for name in ("fp32", "fp16")]
    assert sizes[1] < sizes[0]
    assert found["figures"]["clips"] == 2 and found["figures"]["tensorrt"]["state"].startswith("TensorRT is not")
    assert any("tensorrt: not measured: TensorRT is not installed" in line for line in lines)


def absent() -> Any:
    raise EngineError("TensorRT is not installed for this Python; install it")


def test_engines_on_a_gpu_have_rows_too(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a simulated GPU whose builder returns the graph itself: nothing may differ from ONNX Runtime's rows.

    `--draws` is the former name of `--noise-samples`.
    """
    world = World()
    monkeypatch.setattr(engines, "_ahead_of_time", lambda row: {"state": "not installed"})
    monkeypatch.setattr(engine_tensorrt, "load_libraries", world.libraries)
    monkeypatch.setattr(builder, "build_engine_file", lambda trt, file, *_: (file.read_bytes(), b""))
    arguments = ["--checkpoint", str(checkpoint), "--out", str(tmp_path / "out"), "--windows", "5"]
    assert engines.COMMAND.main([*arguments, "--rendered", "1", "--draws", "2"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    figures = json.loads(lines[-1])["figures"]
    for precision in ("fp32", "fp16", "int8"):
        ours, other = figures["tensorrt"][precision], figures["onnxruntime"][precision]
        assert ours["encode_ms"]["p50"] > 0 and ours["bytes"] > 0
        same = ("accuracy_edge", "accuracy_cloud", "mu_p99", "S_event", "bits_event")
        assert [ours[name] for name in same] == [other[name] for name in same]
        assert any(line.startswith(f"tensorrt {precision}") for line in lines)
    assert not any("not measured" in line for line in lines)


def test_bad_input_is_refused_with_the_cure(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkpoint / CALIBRATION).unlink()
    assert engines.COMMAND.main(["--checkpoint", str(checkpoint), "--out", str(tmp_path / "out")]) == 2
    assert "python -m calibration.int8" in capsys.readouterr().err
    for flag, value in (("--windows", "0"), ("--noise-samples", "0"), ("--rendered", "-1")):
        assert engines.COMMAND.main([flag, value]) == 2
        assert f"{flag} is {value}" in capsys.readouterr().err
