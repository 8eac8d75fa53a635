"""int8: what is quantised and how, which ranges are refused, and which Q/DQ the proof refuses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, helper, numpy_helper

from export.precision.network import Network, open_session, structure
from export.precision.quantise import Ranges, layers, output_axis, to_int8
from export.proof.verify_graph import prove_graph
from tests.support.small_export import one_layer
from wire.artifact.manifest import EngineManifest
from wire.errors import GraphError

pytest_plugins = ("tests.support.small_export_fixtures",)


def test_quantisation_is_symmetric_and_per_channel(traced: dict[str, ModelProto], ranges: dict[str, Ranges]) -> None:
    made = to_int8(traced["encode"], ranges["encode"])
    network = Network(made)
    pairs = [node for node in made.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {network.array(node.input[2]).dtype for node in pairs} == {np.dtype(np.int8)}
    assert not any(network.array(node.input[2]).any() for node in pairs)
    adds = {name for node in made.graph.node if node.op_type == "Add" for name in node.input}
    for node in layers(traced["encode"]):
        stored = network.array(f"{node.input[1]}.int8")
        scales = network.array(f"{node.input[1]}.scale")
        assert stored.dtype == np.int8 and scales.shape == (stored.shape[output_axis(node)],)
        for bias in node.input[2:]:
            assert adds & {bias, f"{bias}.row"}  # float32, after the product


def test_a_layer_that_is_not_named_stays_float(traced: dict[str, ModelProto], ranges: dict[str, Ranges]) -> None:
    first = layers(traced["encode"])[0]
    made = to_int8(traced["encode"], dataclasses.replace(ranges["encode"], int8=(first.name,)))
    stored = {tensor.name for tensor in made.graph.initializer}
    assert f"{first.input[1]}.int8" in stored
    assert {node.input[1] for node in layers(traced["encode"])[1:]} <= stored


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6), st.booleans())
def test_a_quantised_product_is_as_near_as_its_steps_allow(seed: int, size: float, transposed: bool) -> None:
    rng = np.random.default_rng(seed)
    weights = (rng.normal(size=(6, 5)) * size * 10.0 ** rng.uniform(-3, 0, (6, 5))).astype(np.float32)
    model = one_layer(weights.T.copy() if transposed else weights, transposed)
    x = rng.uniform(-3, 3, (1, 6)).astype(np.float32)
    made = to_int8(model, Ranges(structure(model), {"x": 3.0}, ("layer",)))
    got = open_session(made)({"x": x})[0]
    steps = np.abs(weights).max(axis=0) / 127
    bound = (np.abs(x) @ np.ones((6, 5)) * steps + 3 / 127 * np.abs(weights).sum(axis=0)) / 2
    assert (np.abs(got - x @ weights) <= bound * 1.1 + 1e-6).all()


def test_layers_that_share_weights_get_a_copy_each() -> None:
    weights = np.linspace(0, 1, 36, dtype=np.float32).reshape(6, 6)
    model = one_layer(weights)
    model.graph.node.insert(1, helper.make_node("MatMul", ["h", "w"], ["g"], "other"))
    model.graph.node[2].input[0] = "g"
    made = to_int8(model, Ranges(structure(model), {"x": 1.0, "h": 6.0}, ("layer", "other")))
    used = [node.input[0] for node in made.graph.node if node.op_type == "DequantizeLinear"]
    assert len(used) == len(set(used)) == 4
    x = np.linspace(-1, 1, 6, dtype=np.float32)[None]
    assert np.allclose(open_session(made)({"x": x})[0], x @ weights @ weights, atol=0.1)


Change = Callable[[Ranges], Ranges]
REFUSED: dict[str, tuple[Change, str]] = {
    "another graph's names": (lambda r: dataclasses.replace(r, structure="0" * 64), "another structure"),
    "a layer that is none": (lambda r: dataclasses.replace(r, int8=("none",)), "'none' is no layer"),
    "no range": (lambda r: dataclasses.replace(r, ranges={}), "is None, not a finite number"),
    "a range of NaN": (lambda r: dataclasses.replace(r, ranges=dict.fromkeys(r.ranges, math.nan)), "is nan"),
    "an endless range": (lambda r: dataclasses.replace(r, ranges=dict.fromkeys(r.ranges, math.inf)), "is inf"),
    "a range below zero": (lambda r: dataclasses.replace(r, ranges=dict.fromkeys(r.ranges, -1.0)), "is -1"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_ranges_that_do_not_fit_are_refused(
    traced: dict[str, ModelProto], ranges: dict[str, Ranges], what: str
) -> None:
    change, says = REFUSED[what]
    with pytest.raises(GraphError, match=f"{says}.*calibration.int8"):
        to_int8(traced["encode"], change(ranges["encode"]))


# --- the proof of graphs with Q/DQ


def _constant(model: ModelProto, name: str, value: Any) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))


def _first(model: ModelProto) -> NodeProto:
    return next(node for node in model.graph.node if node.op_type == "QuantizeLinear")


def _own(place: int, value: Any) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        _constant(model, "own", value)
        _first(model).input[place] = "own"

    return change


def _drop_zero(model: ModelProto) -> None:
    del _first(model).input[2]


def _scale_from_frames(model: ModelProto) -> None:
    node = _first(model)
    place = list(model.graph.node).index(node)
    model.graph.node.insert(place, helper.make_node("ReduceMax", [node.input[0]], ["seen"], "seen", keepdims=0))
    node.input[1] = "seen"


MUTANTS: dict[str, tuple[Callable[[ModelProto], None], str]] = {
    "a scale that the frames choose": (_scale_from_frames, "must be stored"),
    "a scale of zero": (_own(1, np.float32(0)), "above zero"),
    "a scale of NaN": (_own(1, np.float32(np.nan)), "finite"),
    "a scale per pixel": (_own(1, np.ones(3, np.float32)), "of the scale's shape"),
    "a zero point of 3": (_own(2, np.int8(3)), "int8 zeros"),
    "an unsigned zero point": (_own(2, np.uint8(0)), "int8 zeros"),
    "no zero point": (_drop_zero, "matter of defaults"),
}


@pytest.mark.parametrize("what", MUTANTS)
def test_an_ambiguous_quantiser_is_refused(
    traced: dict[str, ModelProto], ranges: dict[str, Ranges], manifest: EngineManifest, what: str
) -> None:
    model = to_int8(traced["encode"], ranges["encode"])
    assert prove_graph("encode", model, manifest)
    change, says = MUTANTS[what]
    change(model)
    with pytest.raises(GraphError, match=says):
        prove_graph("encode", model, manifest)
