"""fp16 and int8 forms of a traced graph: proved like any other, the core untouched, refused where they cannot hold."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from calibration.int8 import Material, calibrate
from export import parity, trace
from export.build_engine import main
from export.precision.convert import CALIBRATION, MARGIN, Calibration, calibration_hash, check_peaks, in_precision
from export.precision.half import FP16_MAX, half_tensors, rounded, to_fp16
from export.precision.network import Network, activations, measure, open_session, structure, types
from export.precision.quantise import Ranges, layers, output_axis, to_int8, unbiased
from export.proof.verify_graph import prove_decide, prove_encode
from familial.model.checkpoint import checkpoint_hash
from familial.model.config import FamilyConfig
from tests.support.family_factory import load_graphs
from wire.artifact.manifest import EngineManifest
from wire.errors import CheckpointError, EngineError, GraphError
from wire.privacy.noise_table import NoiseTable


@pytest.fixture(scope="module")
def checkpoint(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(small_checkpoint, tmp_path_factory.mktemp("checkpoint") / "small"))


@pytest.fixture(scope="module")
def manifest(checkpoint: Path) -> EngineManifest:
    config = FamilyConfig.load(checkpoint / "config.json")
    hashes = dict.fromkeys(("checkpoint", "encode", "decide", "noise_table", "certificate", "calibration"), "")
    return EngineManifest(
        family=config.family,
        labels=config.labels,
        window=config.window,
        tokens=config.tokens,
        width=config.width,
        event_releases=config.event_releases,
        clip_norm=config.clip_norm,
        sigma=NoiseTable.load(checkpoint / "noise_table.bin").sigma,
        profile="balanced",
        precision="int8",
        opset=18,
        hashes=hashes,
    )


@pytest.fixture(scope="module")
def traced(small_graphs: Path) -> dict[str, ModelProto]:
    return load_graphs(small_graphs)


@pytest.fixture(scope="module")
def feeds(manifest: EngineManifest) -> dict[str, list[dict[str, npt.NDArray[Any]]]]:
    """Made windows and noisy events."""
    rng = np.random.default_rng(3)
    silence = np.zeros((1, manifest.tokens, manifest.width), np.int32)
    event = (1, manifest.event_releases, manifest.tokens, manifest.width)
    return {
        "encode": [{"frames": w[None], "noise": silence} for w in parity.made_windows(manifest.window, 14)],
        "decide": [
            {"z": rng.normal(size=event, scale=70).astype(np.int32), "present": np.ones(event[:2], np.bool_)}
            for _ in range(8)
        ],
    }


@pytest.fixture(scope="module")
def ranges(traced: dict[str, ModelProto], feeds: dict[str, Any]) -> dict[str, Ranges]:
    """All layers in int8, ranges up to the largest magnitude."""
    found = {}
    for part, model in traced.items():
        peaks = measure(model, feeds[part])
        network = Network(model)
        held = {node.input[0]: peaks[node.input[0]] for node in layers(model)}
        for node in layers(model):
            if node.op_type == "Conv" and len(node.input) > 2:
                bias = float(np.abs(network.array(node.input[2])).max())
                held[unbiased(node.output[0])] = peaks[node.output[0]] + bias
        found[part] = Ranges(structure(model), held, tuple(node.name for node in layers(model)), peaks)
    return found


def _few_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parity on a few of its windows: enough to see what a test broke."""
    made = parity.made_windows
    monkeypatch.setattr(parity, "made_windows", lambda window: made(window, 16))


def core_of(model: ModelProto) -> list[bytes]:
    """The nodes after the code, as stored."""
    network = Network(model)
    return [network.nodes[index].SerializeToString(deterministic=True) for index in sorted(network.core)]


def outputs(model: ModelProto, feeds: list[dict[str, Any]], exact: bool = False) -> npt.NDArray[np.float64]:
    run = open_session(model, exact)
    return np.concatenate([run(feed)[0] for feed in feeds]).astype(np.float64)


# --- both


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_trusted_core_is_proved_and_untouched(
    traced: dict[str, ModelProto], ranges: dict[str, Ranges], manifest: EngineManifest, precision: str
) -> None:
    calibration = Calibration(manifest.hashes["checkpoint"], ranges)
    made = {part: in_precision(part, model, precision, calibration) for part, model in traced.items()}
    assert any("for any frames and any weights" in line for line in prove_encode(made["encode"], manifest))
    assert prove_decide(made["decide"], manifest)
    assert core_of(made["encode"]) == core_of(traced["encode"])
    for part, model in made.items():
        for kind in ("input", "output"):
            assert getattr(model.graph, kind) == getattr(traced[part].graph, kind)


def test_fp32_is_the_traced_graph_itself(traced: dict[str, ModelProto]) -> None:
    assert in_precision("encode", traced["encode"], "fp32") is traced["encode"]


def test_int8_without_ranges_is_refused(traced: dict[str, ModelProto]) -> None:
    with pytest.raises(GraphError, match="int8 with a calibration"):
        in_precision("encode", traced["encode"], "int8")


def test_weights_beyond_what_fits_into_one_piece_are_refused_before_anything_is_traced(
    checkpoint: Path, manifest: EngineManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """int8 is measured and made in memory: the calibration says so, before a build could ask for it."""
    monkeypatch.setattr(trace, "_ONE_PIECE", 1000)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("was traced"))
    windows = parity.made_windows(manifest.window, 12)
    with pytest.raises(GraphError, match="encode: .* GB of float32 weights.*--precision fp16 or fp32"):
        calibrate(checkpoint, Material([windows[i : i + 3] for i in range(0, 12, 3)], "made windows"))
    with pytest.raises(GraphError, match="decide: .* GB of float32 weights.*--precision fp16 or fp32"):
        trace.trace_decide(trace.load_family(checkpoint))


def test_the_passes_leave_their_input_alone(traced: dict[str, ModelProto], ranges: dict[str, Ranges]) -> None:
    before = traced["encode"].SerializeToString(deterministic=True)
    to_fp16(traced["encode"])
    to_int8(traced["encode"], ranges["encode"])
    assert traced["encode"].SerializeToString(deterministic=True) == before


def test_layers_are_what_training_made(traced: dict[str, ModelProto], checkpoint: Path) -> None:
    """Products with masks of zeros and ones prepare the pixels: they are no layers, nor is the last before the code."""
    found = [node.input[1] for node in layers(traced["encode"])]
    network = Network(traced["encode"])
    products = [node for node in network.nodes if node.op_type in ("Conv", "Gemm", "MatMul")]
    last = {network.nodes[index].input[1] for index in network.tail}
    named = [n.input[1] for n in products if n.input[1].startswith(("tower.", "desensitizer."))]
    assert found == [name for name in named if name not in last]
    assert any(node.op_type == "MatMul" for node in products)
    assert network.tail and network.tail.isdisjoint(network.layers)


# --- fp16


def test_layers_are_half_and_sums_are_not(traced: dict[str, ModelProto]) -> None:
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
    """With every tensor rounded where it is stored, which a CPU's runtime by itself does not do."""
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


def test_what_float16_cannot_hold_is_refused(traced: dict[str, ModelProto]) -> None:
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
    """The weights fit into float16, what they make of the windows does not."""
    _few_windows(monkeypatch)
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


# --- int8


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
            assert adds & {bias, f"{bias}.row"}  # float32, behind the product


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


def one_layer(weights: npt.NDArray[np.float32], transposed: bool = False) -> ModelProto:
    """x float (1, n) -> Gemm or MatMul -> h -> Neg -> y."""
    kind, attributes = ("Gemm", {"transB": 1}) if transposed else ("MatMul", {})
    nodes = [helper.make_node(kind, ["x", "w"], ["h"], "layer", **attributes)]
    nodes.append(helper.make_node("Neg", ["h"], ["n"], "negate"))
    nodes.append(helper.make_node("Neg", ["n"], ["y"], "again"))
    width = weights.shape[0 if transposed else 1]
    values = (
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, k])]
        for n, k in (("x", weights.shape[1 if transposed else 0]), ("y", width))
    )
    graph = helper.make_graph(nodes, "decide", *values, [numpy_helper.from_array(weights, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


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


# --- what lint and proof say to Q/DQ


def _constant(model: ModelProto, name: str, value: Any) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))


def _quantise_code(model: ModelProto) -> None:
    """x -> Q -> DQ -> trusted core: a code on a coarse lattice."""
    code = next(iter(Network(model).code))
    place = next(i for i, node in enumerate(model.graph.node) if code in node.output) + 1
    for node in list(model.graph.node)[place:]:
        node.input[:] = [f"{code}.dq" if name == code else name for name in node.input]
    _constant(model, "code.scale", np.float32(1))
    _constant(model, "code.zero", np.int8(0))
    pair = [("QuantizeLinear", code, "code.q"), ("DequantizeLinear", "code.q", f"{code}.dq")]
    for kind, source, target in reversed(pair):
        model.graph.node.insert(place, helper.make_node(kind, [source, "code.scale", "code.zero"], [target], target))


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
    "Q/DQ after the code": (_quantise_code, "expected Reshape or Cast"),
    "a scale that the frames choose": (_scale_from_frames, "must be stored"),
    "a scale of zero": (_own(1, np.float32(0)), "above zero"),
    "a scale of NaN": (_own(1, np.float32(np.nan)), "finite"),
    "a scale per pixel": (_own(1, np.ones(3, np.float32)), "of the scale's shape"),
    "a zero point of 3": (_own(2, np.int8(3)), "int8 zeros"),
    "an unsigned zero point": (_own(2, np.uint8(0)), "int8 zeros"),
    "no zero point": (_drop_zero, "matter of defaults"),
}


@pytest.mark.parametrize("what", MUTANTS)
def test_a_doubtful_quantiser_is_refused(
    traced: dict[str, ModelProto], ranges: dict[str, Ranges], manifest: EngineManifest, what: str
) -> None:
    model = to_int8(traced["encode"], ranges["encode"])
    assert prove_encode(model, manifest)
    change, says = MUTANTS[what]
    change(model)
    with pytest.raises(GraphError, match=says):
        prove_encode(model, manifest)


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
def test_a_calibration_that_does_not_belong_is_refused_with_the_cure(
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


def test_fp16_heeds_what_calibration_saw(traced: dict[str, ModelProto], ranges: dict[str, Ranges]) -> None:
    name = next(iter(half_tensors(to_fp16(traced["encode"]))))
    loud = {**ranges, "encode": dataclasses.replace(ranges["encode"], peaks={name: 3e4})}
    in_precision("encode", traced["encode"], "fp16", Calibration("", ranges))
    with pytest.raises(GraphError, match="nearer to that"):
        in_precision("encode", traced["encode"], "fp16", Calibration("", loud))


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
    _few_windows(monkeypatch)
    run = {part: open_session(model) for part, model in traced.items()}

    class Moved:
        def encode(self, frames: npt.NDArray[np.uint8], noise: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
            z: npt.NDArray[np.int32] = run["encode"]({"frames": frames, "noise": noise})[0].copy()
            z.reshape(-1)[:2] -= np.where(z.reshape(-1)[:2] > 0, shift, -shift)
            return z

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
