"""What is proved of a graph: no state, and no known way in which a scene could stop, slow or mislead a runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.proof import operators
from export.proof.operators import FORBIDDEN, OPERATORS, denormal
from export.proof.structure import load_graph
from export.proof.verify_graph import main, prove_graph
from tests.support.engine_factory import make_engine
from tests.support.small_graph import FRAMES, MANIFEST, Builder, D, K, build
from wire.errors import GraphError

Change = Callable[[Builder], None]


def refused(model: onnx.ModelProto) -> str:
    """What the proof says of a graph that it must refuse, and that onnx itself takes as valid."""
    onnx.checker.check_model(model, full_check=True)
    with pytest.raises(GraphError) as refusal:
        prove_graph("encode", model, MANIFEST)
    return str(refusal.value)


def test_a_graph_without_state_is_proved_in_sentences() -> None:
    said = prove_graph("encode", build().model(), MANIFEST)
    assert any("inputs frames uint8 (1, 2, 4, 4); outputs mu int32 (1, 2, 8)" in sentence for sentence in said)
    assert any("no state goes in or out" in sentence for sentence in said)
    assert any("integers are never divided" in sentence for sentence in said)


# --- types


def _divides(b: Builder, by: int) -> None:
    """Row 1: the scene chooses INT_MIN or something else, and it is divided by -1 or by what the scene gives."""
    b.node("Div", ["a_int", b.constant("by", by, np.int32)], "quotient", before="a")
    b.reads("a", "quotient", "low", "high")


def _divides_by_pixels(b: Builder) -> None:
    b.node("Div", ["a_int", "b_int"], "quotient", before="a_square")
    b.reads("a", "quotient", "low", "high")
    b.nodes.sort(key=lambda node: [*_ORDER, node.output[0]].index(node.output[0]))


_ORDER = ["pixels", "row", "h", "x", "x_round", "a_int", "b_int", "quotient", "a", "a_square", "a_sum", "a_fits"]
_ORDER += ["b", "b_square", "b_sum", "b_fits", "b_or_zero", "mu"]


def _through(b: Builder, kind: str, to: int, *more: str) -> None:
    """The row goes through one operator in another element type."""
    b.node("Cast", ["row"], "other", before="h", to=to)
    b.node(kind, ["other", *more], "same", before="h")
    b.node("Cast", ["same"], "back", before="h", to=TensorProto.FLOAT)
    b.reads("h", "back", "w")


TYPES: dict[str, tuple[Change, str]] = {
    "an integer division by a constant": (
        lambda b: _divides(b, -1),
        "node 'n_quotient' (Div): 'a_int' is INT32",
    ),
    "an integer division by pixels": (_divides_by_pixels, "node 'n_quotient' (Div): 'a_int' is INT32"),
    "an absolute value of integers": (lambda b: _through(b, "Abs", TensorProto.INT32), "(Abs): 'other' is INT32"),
    "doubles": (lambda b: _through(b, "Sin", TensorProto.DOUBLE), "(Cast): 'other' is DOUBLE"),
    "long integers": (lambda b: _through(b, "Neg", TensorProto.INT64), "(Cast): 'other' is INT64"),
    "words": (lambda b: _through(b, "Identity", TensorProto.STRING), "(Cast): 'other' is STRING"),
}


@pytest.mark.parametrize("what", TYPES)
def test_an_element_type_that_the_operator_is_not_allowed_is_refused(what: str) -> None:
    change, says = TYPES[what]
    b = build()
    change(b)
    assert says in refused(b.model())


def test_bytes_are_read_by_a_cast_alone() -> None:
    b = build()
    b.node("Identity", ["frames"], "same", before="pixels")
    b.reads("pixels", "same")
    assert "types: node 'n_same' (Identity): 'frames' is UINT8" in refused(b.model())


def test_integers_are_divided_by_no_operator() -> None:
    """The table itself: whatever divides takes floats alone."""
    for kind in ("Div", "Reciprocal", "Pow", "ReduceMean", "AveragePool", "GlobalAveragePool", "Softmax"):
        assert {"FLOAT", "FLOAT16"} == OPERATORS[kind]
    assert "Mod" in FORBIDDEN and not {"BitShift", "BitwiseAnd", "GatherND", "TopK", "ArgMax"} & set(OPERATORS)


# --- operands


def _gathers_by_pixels(b: Builder) -> None:
    """Row 2: ONNX Runtime's message names an index that is out of bounds, and the index is made of pixels."""
    b.node("Cast", ["row"], "index", before="h", to=TensorProto.INT32)
    b.node("Gather", ["row", "index"], "chosen", before="h", axis=1)
    b.node("Reshape", ["chosen", b.constant("first", [32, 32], np.int64)], "square", before="h")
    b.node("ReduceMax", ["square", b.constant("down", [0], np.int64)], "kept", before="h", keepdims=1)
    b.reads("h", "kept", "w")


def _gathers(b: Builder, *indices: int) -> None:
    b.node("Gather", ["row", b.constant("index", [*indices], np.int64)], "chosen", before="h", axis=1)
    b.node("Concat", ["chosen", "row"], "longer", before="h", axis=1)
    b.node("Slice", ["longer", *(b.constant(n, [v], np.int64) for n, v in _PLACES)], "kept", before="h")
    b.reads("h", "kept", "w")


_PLACES = (("from", 0), ("to", 32), ("axis", 1))


def _convolves(b: Builder, bias: int, weights: int = 2) -> None:
    """Row 4: a bias of fewer numbers than the convolution has channels."""
    b.node(
        "Conv",
        ["pixels", b.constant("k", np.ones((weights, 2, 1, 1)), np.float32), b.constant("t", [0.5] * bias, np.float32)],
        "mapped",
        before="row",
    )
    b.reads("row", "mapped", "flat")


def _pads(b: Builder, mode: str, wide: int) -> None:
    """Row 4: a reflection wider than the picture."""
    pads = b.constant("pads", [0, 0, 0, wide, 0, 0, 0, -wide if wide < 0 else 0], np.int64)
    b.node("Pad", ["pixels", pads], "padded", before="row", mode=mode)
    ends = [b.constant(name, [value], np.int64) for name, value in (("f", 0), ("t", 4), ("d", 3))]
    b.node("Slice", ["padded", *ends], "cut", before="row")
    b.reads("row", "cut", "flat")


def _normalises(b: Builder, kind: str, count: int) -> None:
    scale = b.constant("scale", [1.0] * count, np.float32)
    if kind == "LayerNormalization":
        b.node(kind, ["row", scale], "normal", before="h", axis=-1)
        b.reads("h", "normal", "w")
        return
    more = [scale] * (4 if kind == "BatchNormalization" else 2)
    b.node(kind, ["pixels", *more], "normal", before="row")
    b.reads("row", "normal", "flat")


def _slices_by_pixels(b: Builder) -> None:
    b.node("Clip", ["x_round", "lows", "highs"], "held", before="a_int")
    b.constant("highs", 9.0, np.float32)
    b.node("ReduceMin", ["x_round"], "lows", before="held", keepdims=0)
    b.reads("a_int", "held")


OPERANDS: dict[str, tuple[Change, str]] = {
    "an index made of pixels": (_gathers_by_pixels, "(Gather): 'index' must be stored in the file"),
    "an index beyond the end": (lambda b: _gathers(b, 0, 32), "(Gather): an index lies outside of the 32 elements"),
    "an index before the beginning": (lambda b: _gathers(b, -33), "(Gather): an index lies outside"),
    "a bound made of pixels": (_slices_by_pixels, "(Clip): 'lows' must be stored"),
    "a bias shorter than its channels": (lambda b: _convolves(b, 1), "(Conv): 't' has shape (1,)"),
    "a bias longer than its channels": (lambda b: _convolves(b, 3), "(Conv): 't' has shape (3,)"),
    "a reflection beyond the picture": (lambda b: _pads(b, "reflect", 9), "(Pad): pads must not be negative, and"),
    "an edge repeated": (lambda b: _pads(b, "edge", 1), "the mode must be 'constant'"),
    "a short batch norm": (lambda b: _normalises(b, "BatchNormalization", 1), "BatchNormalization"),
    "a short instance norm": (lambda b: _normalises(b, "InstanceNormalization", 1), "(InstanceNormalization): 'scale'"),
    "a short layer norm": (lambda b: _normalises(b, "LayerNormalization", 31), "(LayerNormalization): 'scale' has"),
}


@pytest.mark.parametrize("what", OPERANDS)
def test_an_operand_that_reads_beside_its_tensor_or_comes_from_pixels_is_refused(what: str) -> None:
    change, says = OPERANDS[what]
    b = build()
    change(b)
    model = b.model()
    with pytest.raises(GraphError) as refusal:
        prove_graph("encode", model, MANIFEST)
    assert says in str(refusal.value)


SOUND: dict[str, Change] = {
    "indices inside": lambda b: _gathers(b, 0, -32, 31),
    "a bias for each channel": lambda b: _convolves(b, 2),
    "zeros around a picture": lambda b: _pads(b, "constant", 1),
    "a batch norm": lambda b: _normalises(b, "BatchNormalization", 2),
    "an instance norm": lambda b: _normalises(b, "InstanceNormalization", 2),
    "a layer norm": lambda b: _normalises(b, "LayerNormalization", 32),
}


@pytest.mark.parametrize("what", SOUND)
def test_the_same_operators_used_soundly_are_proved(what: str) -> None:
    b = build()
    SOUND[what](b)
    model = b.model()
    onnx.checker.check_model(model, full_check=True)
    assert prove_graph("encode", model, MANIFEST)


def test_the_planted_gather_does_put_pixels_into_the_runtimes_words() -> None:
    """The control of row 2: with ONNX Runtime's own checks, the pixel's value stands in the message."""
    import onnxruntime

    b = build()
    _gathers_by_pixels(b)
    session = onnxruntime.InferenceSession(b.model().SerializeToString(), providers=["CPUExecutionProvider"])
    with pytest.raises(Exception, match="217"):
        session.run(None, {"frames": np.full(FRAMES, 217, np.uint8)})


# --- sizes, denormal numbers


LIMITS = {"MOST_NODES": "sizes: .* nodes", "MOST_ELEMENTS": "sizes: 'w' has 512", "MOST_BYTES": "bytes of constants"}


@pytest.mark.parametrize("limit", LIMITS)
def test_a_graph_beyond_a_size_is_refused(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert prove_graph("encode", build().model(), MANIFEST)
    monkeypatch.setattr(operators, limit, {"MOST_NODES": 15, "MOST_ELEMENTS": 511, "MOST_BYTES": 2000}[limit])
    with pytest.raises(GraphError, match=LIMITS[limit]):
        prove_graph("encode", build().model(), MANIFEST)


def test_denormal_weights_are_refused_wherever_they_are_stored(tmp_path: Path) -> None:
    b = build()
    b.constants["w"][3, 5] = 1e-40
    model = b.model()
    assert "denormals: 'w' holds 1" in refused(model)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
    (tmp_path / "w.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    with pytest.raises(GraphError, match="'w' cannot be read"):  # not found is not proved
        prove_graph("encode", model, MANIFEST, tmp_path / "elsewhere")
    with pytest.raises(GraphError, match="denormals: 'w' holds 1"):
        prove_graph("encode", model, MANIFEST, tmp_path)
    b = build()
    tiny = numpy_helper.from_array(np.array(1e-40, np.float32))
    b.node("Constant", [], "tiny", before="h", value=tiny)
    b.node("Add", ["row", "tiny"], "moved", before="h")
    b.reads("h", "moved", "w")
    assert "denormals: 'tiny' holds 1" in refused(b.model())


def test_denormal_numbers_are_told_by_their_bits() -> None:
    tiny = float(np.finfo(np.float32).tiny)
    values = np.array([[0.0, -0.0, tiny, -tiny], [tiny / 2, -tiny / 2, 1e-45, 1.0]], np.float32)
    values = np.concatenate([values, np.array([[np.nan, np.inf, -np.inf, 3e38]], np.float32)])
    assert denormal(values).tolist() == [[False] * 4, [True, True, True, False], [False] * 4]


# --- folders


def test_the_command_prints_what_it_proves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_engine(tmp_path)
    assert main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "proved  encode: no state goes in or out" in said and "proved  decide: no state goes in or out" in said
    (tmp_path / "decide.onnx").write_bytes(b"other")
    assert main([str(tmp_path)]) == 1
    assert "decide.onnx: sha256" in capsys.readouterr().err


def test_decide_with_another_interface_is_refused(tmp_path: Path) -> None:
    manifest = make_engine(tmp_path)
    model = load_graph(tmp_path / "decide.onnx")
    assert prove_graph("decide", model, manifest)
    model.graph.output.append(helper.make_tensor_value_info("seen", TensorProto.FLOAT, (1, 8, 4, 16)))
    with pytest.raises(GraphError, match="interface: outputs"):
        prove_graph("decide", model, manifest)


def test_the_code_shape_is_the_manifests() -> None:
    assert (MANIFEST.tokens, MANIFEST.width) == (K, D)
    model = build().model()
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("mu", TensorProto.INT32, (1, K * D, 1)))
    with pytest.raises(GraphError, match="interface: mu is"):
        prove_graph("encode", model, MANIFEST)
