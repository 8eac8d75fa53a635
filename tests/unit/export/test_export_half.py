"""fp16: what becomes float16 and what stays float32, what float16 cannot represent, and how far a code moves."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from export import parity, trace
from export.precision.convert import MARGIN, Calibration, check_peaks, in_precision
from export.precision.half import FP16_MAX, half_tensors, rounded, to_fp16
from export.precision.network import Network, activations, types
from export.precision.quantise import Ranges, layers
from tests.support.small_export import few_windows, one_layer, outputs
from wire.artifact.manifest import EngineManifest
from wire.errors import GraphError
from wire.privacy.noise_table import NoiseTable

pytest_plugins = ("tests.support.small_export_fixtures",)


def test_layers_are_float16_and_sums_are_float32(traced: dict[str, ModelProto]) -> None:
    for model in traced.values():
        made = to_fp16(model)
        kinds, network = types(made), Network(model)
        for index in network.layers:
            name = network.nodes[index].output[0]
            assert TensorProto.FLOAT16 in (kinds.get(name), kinds.get(f"{name}.half"))
        for node in made.graph.node:
            if node.op_type in ("ReduceMean", "ReduceSum", "Softmax", "Sqrt", "Reciprocal", "Pow"):
                assert kinds[node.output[0]] in (TensorProto.FLOAT, TensorProto.INT32)
        halved = {tensor.name for tensor in made.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
        assert {f"{network.nodes[index].input[1]}.half" for index in network.layers} <= halved


def test_half_precision_moves_a_code_by_one_at_most(
    traced: dict[str, ModelProto], feeds: dict[str, Any], manifest: EngineManifest
) -> None:
    """With every tensor rounded where it is stored, which ONNX Runtime on a CPU does not do by itself."""
    exact = outputs(traced["encode"], feeds["encode"])
    for ours in (to_fp16(traced["encode"]), rounded(to_fp16(traced["encode"]))):
        apart = np.abs(outputs(ours, feeds["encode"], exact=True) - exact)
        assert np.percentile(apart, 99) <= 1
    moved = outputs(rounded(to_fp16(traced["decide"])), feeds["decide"], exact=True)
    apart = np.abs(moved - outputs(traced["decide"], feeds["decide"]))
    assert 0 < apart.max() <= parity.TOLERANCES["fp16"].logits


def test_rounded_rounds_where_float16_is_stored() -> None:
    """Three times 1 + 2^-10 lies between two numbers of float16."""
    model = rounded(to_fp16(one_layer(np.full((3, 3), 1 + 2**-10, np.float32))))
    value = next(activations(model, [{"x": np.ones((1, 3), np.float32)}], ["h"], exact=True))["h"]
    assert (value == np.float16(3 * (1 + 2**-10))).all()
    assert (value != 3 * (1 + 2**-10)).all()


def test_what_exceeds_float16_is_refused(traced: dict[str, ModelProto]) -> None:
    halves = to_fp16(traced["encode"])
    name = sorted(half_tensors(halves))[0]
    check_peaks(halves, {name: FP16_MAX / MARGIN, "in float32 anyway": 1e9})
    for peak in (FP16_MAX / MARGIN * 1.01, math.inf, math.nan):
        with pytest.raises(GraphError, match=f"{name}.*--precision fp32"):
            check_peaks(halves, {name: peak})
    spoiled = ModelProto()
    spoiled.CopyFrom(traced["encode"])
    tensor = next(t for t in spoiled.graph.initializer if t.name == layers(spoiled)[1].input[1])
    weights = numpy_helper.to_array(tensor).copy()
    weights.flat[0] = 70000
    tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    with pytest.raises(GraphError, match="reaches 70000, fp16 holds up to 65504"):
        to_fp16(spoiled)


def test_a_network_that_grows_too_large_inside_is_refused(
    checkpoint: Path, traced: dict[str, ModelProto], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights fit into float16, the activations do not."""
    few_windows(monkeypatch)
    loud = ModelProto()
    loud.CopyFrom(traced["encode"])
    for node, factor in zip(layers(loud)[:2], (1e4, 1e4), strict=True):
        tensor = next(t for t in loud.graph.initializer if t.name == node.input[1])
        weights = numpy_helper.to_array(tensor) * np.float32(factor)
        tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    graphs = {"encode": loud, "decide": traced["decide"]}
    typed = {part: to_fp16(model) for part, model in graphs.items()}
    family = trace.load_family(checkpoint)
    table = NoiseTable.load(checkpoint / "noise_table.bin")
    with pytest.raises(GraphError, match="fp16 holds up to 65504"):
        parity.compare_half(family, graphs, typed, table)
    quiet = {part: to_fp16(model) for part, model in traced.items()}
    report = parity.compare_half(family, traced, quiet, table)
    assert report["encode"]["headroom"] > MARGIN and report["encode"]["p99"] <= 1


def test_fp16_is_checked_against_the_peaks_of_the_calibration(
    traced: dict[str, ModelProto], ranges: dict[str, Ranges]
) -> None:
    name = next(iter(half_tensors(to_fp16(traced["encode"]))))
    loud = {**ranges, "encode": dataclasses.replace(ranges["encode"], peaks={name: 3e4})}
    in_precision("encode", traced["encode"], "fp16", Calibration("", ranges))
    with pytest.raises(GraphError, match="nearer to that"):
        in_precision("encode", traced["encode"], "fp16", Calibration("", loud))
