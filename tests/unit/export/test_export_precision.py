"""Every precision: proved like any other graph, the integer core unchanged, refused where it is not accurate."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import ModelProto

from calibration.int8 import Material, calibrate
from export import parity, trace
from export.build_engine import main
from export.precision.convert import CALIBRATION, Calibration, calibration_hash, in_precision
from export.precision.half import to_fp16
from export.precision.network import Network, open_session
from export.precision.quantise import Ranges, layers, to_int8
from export.proof.verify_graph import prove_graph
from familial.model.checkpoint import checkpoint_hash
from tests.support.small_export import core_of, few_windows, one_layer
from wire.artifact.manifest import EngineManifest
from wire.errors import CheckpointError, EngineError, GraphError
from wire.privacy.noise_table import NoiseTable

pytest_plugins = ("tests.support.small_export_fixtures",)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_graphs_are_proved_and_the_integer_core_is_unchanged(
    traced: dict[str, ModelProto], ranges: dict[str, Ranges], manifest: EngineManifest, precision: str
) -> None:
    calibration = Calibration(manifest.hashes["checkpoint"], ranges)
    made = {part: in_precision(part, model, precision, calibration) for part, model in traced.items()}
    assert all(prove_graph(part, model, manifest) for part, model in made.items())
    assert core_of(made["encode"]) and core_of(made["encode"]) == core_of(traced["encode"])
    for part, model in made.items():
        for kind in ("input", "output"):
            assert getattr(model.graph, kind) == getattr(traced[part].graph, kind)


def test_fp32_is_the_traced_graph_itself(traced: dict[str, ModelProto]) -> None:
    assert in_precision("encode", traced["encode"], "fp32") is traced["encode"]


def test_int8_without_ranges_is_refused(traced: dict[str, ModelProto]) -> None:
    with pytest.raises(GraphError, match="int8.* needs a calibration"):
        in_precision("encode", traced["encode"], "int8")


def test_weights_that_do_not_fit_into_one_message_are_refused_before_anything_is_traced(
    checkpoint: Path, manifest: EngineManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """int8 is measured and made in memory: the calibration refuses before a build could ask for it."""
    monkeypatch.setattr(trace, "_ONE_PIECE", 1000)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("was traced"))
    feeds = [{"frames": window[None]} for window in parity.made_windows(manifest.window, 12)]
    with pytest.raises(GraphError, match="encode: .* GB of float32 weights.*--precision fp16 or fp32"):
        calibrate(checkpoint, Material([feeds[i : i + 3] for i in range(0, 12, 3)], "made windows"))
    with pytest.raises(GraphError, match="decide: .* GB of float32 weights.*--precision fp16 or fp32"):
        trace.trace_decide(trace.load_family(checkpoint))


def test_a_conversion_does_not_change_its_input(traced: dict[str, ModelProto], ranges: dict[str, Ranges]) -> None:
    before = traced["encode"].SerializeToString(deterministic=True)
    to_fp16(traced["encode"])
    to_int8(traced["encode"], ranges["encode"])
    assert traced["encode"].SerializeToString(deterministic=True) == before


def test_layers_are_the_products_with_trained_weights(traced: dict[str, ModelProto], checkpoint: Path) -> None:
    """Products with masks prepare the pixels and are not layers; nor is the last one before the code."""
    found = [node.input[1] for node in layers(traced["encode"])]
    network = Network(traced["encode"])
    products = [node for node in network.nodes if node.op_type in ("Conv", "Gemm", "MatMul")]
    last = {network.nodes[index].input[1] for index in network.tail}
    named = [n.input[1] for n in products if n.input[1].startswith(("tower.", "desensitizer."))]
    assert found == [name for name in named if name not in last]
    assert any(node.op_type == "MatMul" for node in products)
    assert network.tail and network.tail.isdisjoint(network.layers)


# --- calibration.json


def document(ranges: dict[str, Ranges], checkpoint: Path) -> dict[str, Any]:
    parts = {
        part: {"structure": r.structure, "int8": list(r.int8), "ranges": dict(r.ranges), "peaks": dict(r.peaks)}
        for part, r in ranges.items()
    }
    return {"version": 1, "checkpoint": checkpoint_hash(checkpoint), **parts}


def _set(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(found: dict[str, Any]) -> None:
        *where, last = path
        for key in where:
            found = found[key]
        found[last] = value

    return change


SPOILED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "another checkpoint's": (_set("checkpoint", value="f" * 64), "made for checkpoint ffffffffffff"),
    "of another version": (_set("version", value=9), "version is 9"),
    "without decide": (lambda found: found.pop("decide"), "unreadable"),
    "a range of NaN": (_set("encode", "ranges", "x", value=math.nan), "encode.ranges: 'x' is nan"),
    "a range below zero": (_set("decide", "ranges", "x", value=-1), "decide.ranges: 'x' is -1"),
    "an endless peak": (_set("decide", "peaks", "x", value=math.inf), "decide.peaks: 'x' is inf"),
    "a range in words": (_set("encode", "ranges", "x", value="wide"), "unreadable"),
    "of another structure": (_set("encode", "structure", value="0"), "another structure"),
    "no object": (lambda found: found.update(encode=[]), "unreadable"),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_calibration_that_does_not_fit_is_refused_with_the_cure(
    checkpoint: Path,
    ranges: dict[str, Ranges],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    traced: dict[str, ModelProto],
    what: str,
) -> None:
    monkeypatch.setattr(trace, "trace_encode", lambda family, beside=None: traced["encode"])
    monkeypatch.setattr(trace, "trace_decide", lambda family, beside=None: traced["decide"])
    change, says = SPOILED[what]
    found = document(ranges, checkpoint)
    change(found)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in checkpoint.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / CALIBRATION).write_text(json.dumps(found))
    assert main(["--checkpoint", str(copy), "--precision", "int8", "--out", str(tmp_path / "engine")]) == 1
    error = capsys.readouterr().err
    assert says in error and "python -m calibration.int8" in error
    assert not (tmp_path / "engine").exists()


def test_int8_needs_the_file_and_fp16_does_not(checkpoint: Path, tmp_path: Path) -> None:
    assert calibration_hash(checkpoint, "fp32") == calibration_hash(checkpoint, "fp16") == ""
    with pytest.raises(CheckpointError, match="needs its ranges; run: python -m calibration.int8"):
        calibration_hash(checkpoint, "int8")


# --- tolerances


@pytest.mark.parametrize(("precision", "shift", "holds"), [("fp16", 1, True), ("fp16", 2, False), ("int8", 9, False)])
def test_an_engine_beyond_its_tolerance_is_refused(
    checkpoint: Path,
    traced: dict[str, ModelProto],
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    shift: int,
    holds: bool,
) -> None:
    """The code moved by `shift` in two of its 64 coordinates."""
    few_windows(monkeypatch)
    run = {part: open_session(model) for part, model in traced.items()}

    class Moved:
        def perceive(self, frame: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
            raise AssertionError("this family sees no people")

        def encode(
            self, frames: npt.NDArray[np.uint8], people: npt.NDArray[np.int32] | None = None
        ) -> npt.NDArray[np.int32]:
            mu: npt.NDArray[np.int32] = run["encode"]({"frames": frames})[0].copy()
            mu.reshape(-1)[:2] -= np.where(mu.reshape(-1)[:2] > 0, shift, -shift)
            return mu

        def decide(self, z: npt.NDArray[np.int32], present: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
            logits: npt.NDArray[np.float32] = run["decide"]({"z": z, "present": present})[0]
            return logits

    family, table = trace.load_family(checkpoint), NoiseTable.load(checkpoint / "noise_table.bin")
    if holds:
        assert parity.compare(family, Moved(), table, precision)["code"]["p99"] == shift
        return
    with pytest.raises(EngineError, match=f"code: coordinates differ by {shift}"):
        parity.compare(family, Moved(), table, precision)


def test_what_the_runtime_refuses_is_an_engine_error() -> None:
    model = one_layer(np.ones((4, 4), np.float32))
    onnx.helper.set_model_props(model, {})
    model.graph.node[1].op_type = "NoSuchOperator"
    with pytest.raises(EngineError, match="cannot be opened"):
        open_session(model)
