"""The structure of a graph and of its file: whatever two readers could interpret differently is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.proof.operators import FORBIDDEN, OPERATORS
from export.proof.structure import load_graph
from export.proof.verify_graph import prove_graph
from tests.support.small_graph import FRAMES, MANIFEST, D, K, build
from wire.errors import GraphError


def _add_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("state", TensorProto.INT32, (1, K, D)))


def _add_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("a", TensorProto.INT32, (1, K, D)))


def _function(model: onnx.ModelProto) -> None:
    body = [helper.make_node("Neg", ["v"], ["u"])]
    made = helper.make_function("ours", "Round", ["v"], ["u"], body, [helper.make_opsetid("", 18)])
    model.functions.append(made)


def _subgraph(model: onnx.ModelProto) -> None:
    value = helper.make_tensor_value_info("leak", TensorProto.INT32, (1, K, D))
    body = helper.make_graph([helper.make_node("Identity", ["a"], ["leak"])], "body", [], [value])
    node = next(node for node in model.graph.node if node.output[0] == "mu")
    node.attribute.append(helper.make_attribute("then_branch", body))


def _conditional(model: onnx.ModelProto) -> None:
    value = helper.make_tensor_value_info("leak", TensorProto.INT32, (1, K, D))
    body = helper.make_graph([helper.make_node("Identity", ["a"], ["leak"])], "body", [], [value])
    node = helper.make_node("If", ["a_fits"], ["leaked"], name="n_if", then_branch=body, else_branch=body)
    model.graph.node.insert(len(model.graph.node) - 2, node)


def _stored_twice(model: onnx.ModelProto) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "c2")
    tensor.int32_data.append(2**30)


def _shape(value: onnx.ValueInfoProto, *dims: int | str) -> None:
    kind = value.type.tensor_type.elem_type
    value.CopyFrom(helper.make_tensor_value_info(value.name, kind, dims))


def _initializer(name: str, value: Any) -> Callable[[onnx.ModelProto], None]:
    return lambda m: m.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.int32), name))


def _external(model: onnx.ModelProto) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "high")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="high.bin")


def _state(model: onnx.ModelProto) -> None:
    """What a run leaves behind is what the next one begins with."""
    _add_input(model)
    model.graph.output.append(helper.make_tensor_value_info("next_state", TensorProto.INT32, (1, K, D)))
    model.graph.node.append(helper.make_node("Add", ["a", "state"], ["next_state"], name="n_state"))


def _unread(model: onnx.ModelProto) -> None:
    """The frames lead nowhere."""
    model.graph.node.remove(model.graph.node[0])
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(FRAMES, np.float32), "pixels"))


BESIDE: dict[str, tuple[Callable[[onnx.ModelProto], object], str]] = {
    "a state that is carried on": (_state, "interface: inputs"),
    "an extra input": (_add_input, "interface: inputs"),
    "frames that lead nowhere": (_unread, "dead code: input 'frames'"),
    "dead code": (lambda m: m.graph.node.append(helper.make_node("Neg", ["x"], ["y"], name="n_y")), "dead code"),
    "an extra output": (_add_output, "interface: outputs"),
    "another output": (lambda m: setattr(m.graph.output[0], "name", "a"), "interface: outputs"),
    "frames of another type": (lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 6), "interface: fr"),
    "a dynamic batch size": (lambda m: _shape(m.graph.input[0], "N", *FRAMES[1:]), "interface: frames"),
    "an output of another shape": (lambda m: _shape(m.graph.output[0], 1, K * D), "interface: mu"),
    "a local function": (_function, "file: local functions"),
    "a subgraph in an attribute": (_subgraph, "holds a graph"),
    "a conditional": (_conditional, "operators: node 'n_if' (If): it carries a subgraph"),
    "a default for the frames": (_initializer("frames", np.zeros(FRAMES)), "names: 'frames' is made twice"),
    "two constants of one name": (_initializer("c2", 2**30), "names: 'c2' is made twice"),
    "a sparse constant": (lambda m: m.graph.sparse_initializer.add(), "file: sparse"),
    "a custom domain": (lambda m: m.opset_import.append(helper.make_opsetid("com.microsoft", 1)), "file: opsets"),
    "another opset": (lambda m: setattr(m.opset_import[0], "version", 17), "file: opsets"),
    "an old IR": (lambda m: setattr(m, "ir_version", 3), "file: IR version"),
    "metadata": (lambda m: m.metadata_props.add(key="ort_config", value="{}"), "file: metadata"),
    "training information": (lambda m: m.training_info.add(), "file: training"),
    "a constant stored twice": (_stored_twice, "constants: 'c2'"),
    "a bound of the core stored elsewhere": (_external, "'high' must be stored in the file"),
    "two nodes of one name": (lambda m: setattr(m.graph.node[-1], "name", "n_b_or_zero"), "names: node"),
    "one tensor made twice": (lambda m: m.graph.node[-2].output.__setitem__(0, "b"), "names: node"),
    "read before it is made": (lambda m: m.graph.node.insert(0, m.graph.node.pop()), "which nothing before it makes"),
    "an operator of another domain": (lambda m: setattr(m.graph.node[4], "domain", "com.example"), "operators"),
    "an operator of the other default domain": (lambda m: setattr(m.graph.node[4], "domain", "ai.onnx"), "operators"),
    "a false note on a shape": (
        lambda m: m.graph.value_info.append(helper.make_tensor_value_info("mu", TensorProto.INT32, (1, 1, 1))),
        "shapes: 'mu' is said to be",
    ),
}


@pytest.mark.parametrize("case", BESIDE)
def test_what_is_stored_besides_the_nodes_is_refused(case: str) -> None:
    change, says = BESIDE[case]
    model = build().model()
    change(model)
    with pytest.raises(GraphError) as refusal:
        prove_graph("encode", model, MANIFEST)
    assert says in str(refusal.value)


@pytest.mark.parametrize("kind", [*FORBIDDEN, "Gelu", "EyeLike", "NoSuchOperator"])
def test_an_operator_outside_the_whitelist_is_named_with_the_cure(kind: str) -> None:
    model = build().model()
    model.graph.node[0].op_type = kind
    with pytest.raises(GraphError) as refusal:
        prove_graph("encode", model, MANIFEST)
    message = str(refusal.value)
    assert f"({kind}): {FORBIDDEN.get(kind, 'not on the whitelist')}" in message
    assert message.endswith("write that layer with operators of export.proof.operators.OPERATORS, and export it again")


@pytest.mark.parametrize("version", [11, 17, 19, 23])
def test_another_opset_is_named_with_the_cure(version: int) -> None:
    model = build().model()
    model.opset_import[0].version = version
    with pytest.raises(GraphError, match=rf"\('', {version}\).*at 18 are allowed; .*python -m export\.build_engine"):
        prove_graph("encode", model, MANIFEST)


def test_no_forbidden_operator_is_on_the_whitelist() -> None:
    assert not set(OPERATORS) & set(FORBIDDEN)
    known = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}
    assert set(OPERATORS) <= known


# --- files


def test_only_canonical_bytes_are_read(tmp_path: Path) -> None:
    model = build().model()
    data = model.SerializeToString(deterministic=True)
    file = tmp_path / "encode.onnx"
    onnx.save(model, file)
    assert load_graph(file) == model
    for trick in (
        data + b"\xf8\x7f\x01",
        data + model.opset_import[0].SerializeToString(),
        data + b"\x08\x0a",
        b"\0" + data,
        b"",
    ):
        file.write_bytes(trick)
        with pytest.raises(GraphError):
            prove_graph("encode", load_graph(file), MANIFEST)
    with pytest.raises(GraphError, match="cannot be read"):
        load_graph(tmp_path / "none.onnx")


@pytest.mark.parametrize("place", ["../w.bin", "/etc/hostname", "", "sub/w.bin", "link.bin", "absent.bin", "short.bin"])
def test_weights_elsewhere_than_beside_the_model_are_refused(tmp_path: Path, place: str) -> None:
    model = build().model()
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
    (tmp_path / "w.bin").write_bytes(tensor.raw_data)
    (tmp_path / "short.bin").write_bytes(tensor.raw_data[1:])
    (tmp_path / "link.bin").symlink_to(tmp_path / "w.bin")
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "w.bin"), ("offset", "0"), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)
    onnx.save(model, tmp_path / "encode.onnx")
    assert prove_graph("encode", load_graph(tmp_path / "encode.onnx"), MANIFEST, tmp_path)
    tensor.external_data[0].value = place
    onnx.save(model, tmp_path / "encode.onnx")
    with pytest.raises(GraphError, match="beside the model|too short"):
        load_graph(tmp_path / "encode.onnx")
