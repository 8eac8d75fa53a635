"""Breaches of the promise in the graph: the trusted core of an engine is taken apart, in one named way each.

breach, change, says, runs = GRAPHS["the norm guard is dropped"]
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from wire.artifact.manifest import FILES, sha256_file

__all__ = ["GRAPHS", "drop_guard", "pin", "prune", "skip_clip"]


def _made_by(model: onnx.ModelProto, name: str) -> NodeProto:
    return next(node for node in model.graph.node if name in node.output)


def _readers(model: onnx.ModelProto, name: str) -> list[NodeProto]:
    return [node for node in model.graph.node if name in node.input]


def _redirect(nodes: list[NodeProto], old: str, new: str) -> None:
    for node in nodes:
        for index, name in enumerate(node.input):
            node.input[index] = new if name == old else name


def _insert(model: onnx.ModelProto, before: NodeProto, kind: str, inputs: list[str], output: str, **more: Any) -> str:
    place = next(index for index, node in enumerate(model.graph.node) if node == before)
    model.graph.node.insert(place, helper.make_node(kind, inputs, [output], name=f"planted_{output}", **more))
    return output


def prune(model: onnx.ModelProto) -> None:
    """Remove nodes and constants that nothing reads any more; the proof would refuse them alone."""
    while dead := [n for n in model.graph.node if not any(_readers(model, o) or o == "z" for o in n.output)]:
        for node in dead:
            model.graph.node.remove(node)
    for constant in [c for c in model.graph.initializer if not _readers(model, c.name)]:
        model.graph.initializer.remove(constant)


def _addition(model: onnx.ModelProto) -> tuple[NodeProto, str]:
    """The node that adds the noise, and the name of the code that it is added to."""
    (node,) = _readers(model, "noise")
    assert node.op_type == "Add"
    return node, next(name for name in node.input if name != "noise")


def skip_clip(model: onnx.ModelProto) -> None:
    made = {output: node for node in model.graph.node for output in node.output}
    clips = [n for n in model.graph.node if n.op_type == "Clip" and made.get(n.input[0], n).op_type == "Cast"]
    assert len(clips) == 2
    for node in clips:
        _redirect(_readers(model, node.output[0]), node.output[0], node.input[0])


def drop_guard(model: onnx.ModelProto) -> None:
    node, mu = _addition(model)
    choice = _made_by(model, mu)
    assert choice.op_type == "Where"
    _redirect([node], mu, choice.input[1])


def _add_in_floats(model: onnx.ModelProto) -> None:
    node, mu = _addition(model)
    floats = [_insert(model, node, "Cast", [name], f"{name}_f", to=TensorProto.FLOAT) for name in (mu, "noise")]
    whole = node.output[0]
    node.input[:], node.output[:] = floats, ["sum_f"]
    _insert(model, _readers(model, whole)[0], "Cast", ["sum_f"], whole, to=TensorProto.INT32)


def _let_the_network_read(model: onnx.ModelProto) -> None:
    """The code that is rounded becomes x + noise / 1000, so the noise that is added later is no longer independent."""
    rounded = next(node for node in model.graph.node if node.op_type == "Round")
    x = rounded.input[0]
    reading = _readers(model, x)
    first = next(node for node in model.graph.node if node in reading)
    model.graph.initializer.append(numpy_helper.from_array(np.array(1e-3, np.float32), "thousandth"))
    _insert(model, first, "Cast", ["noise"], "noise_f", to=TensorProto.FLOAT)
    _insert(model, first, "Mul", ["noise_f", "thousandth"], "faint_noise")
    _insert(model, first, "Add", [x, "faint_noise"], "x_with_noise")
    _redirect(reading, x, "x_with_noise")


def _halve_noise(model: onnx.ModelProto) -> None:
    node, _ = _addition(model)
    model.graph.initializer.append(numpy_helper.from_array(np.array(2, np.int32), "two"))
    _redirect([node], "noise", _insert(model, node, "Div", ["noise", "two"], "halved"))


def _unbind_noise(model: onnx.ModelProto) -> None:
    """The addition reads a buffer that nobody fills."""
    node, _ = _addition(model)
    shape = next(value for value in model.graph.input if value.name == "noise").type.tensor_type.shape
    blank = np.zeros([dim.dim_value for dim in shape.dim], np.int32)
    model.graph.initializer.append(numpy_helper.from_array(blank, "never_filled"))
    _redirect([node], "noise", "never_filled")


GRAPHS: dict[str, tuple[str, Callable[[onnx.ModelProto], None], str, bool]] = {
    "the clip after the cast is skipped": ("clip skipped", skip_clip, "step 1", True),
    "the norm guard is dropped": ("guard dropped", drop_guard, "step 2", True),
    "code and noise are added as floats": ("noise in floats", _add_in_floats, "step 3", False),
    "the code is computed from the noise": ("a network that reads the noise", _let_the_network_read, "noise", True),
    "the graph halves the noise": ("half sigma", _halve_noise, "step 3", True),
    "the graph reads another buffer": ("an unbound noise buffer", _unbind_noise, "noise", True),
}
"""Name -> (breach, what is done to the graph, what the proof says, whether the self-test alone notices it)."""


def pin(folder: Path, part: str) -> None:
    """Write the hash of a changed file into the manifest, as an attacker with the signing key would."""
    file = folder / "manifest.json"
    document = json.loads(file.read_text())
    document["hashes"][part] = sha256_file(folder / FILES[part])
    file.write_text(json.dumps(document))
