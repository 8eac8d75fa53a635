"""Graphs that pass every hash and signature and are refused all the same: each fails, or slows, in one known way.

breach, change, says = GRAPHS["an integer division that the scene makes trap"]
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

__all__ = ["GRAPHS", "pin"]


def _first(model: onnx.ModelProto, kind: str) -> NodeProto:
    return next(node for node in model.graph.node if node.op_type == kind)


def _store(model: onnx.ModelProto, name: str, value: Any) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def _before(model: onnx.ModelProto, node: NodeProto, kind: str, inputs: list[str], output: str, **more: Any) -> str:
    place = next(index for index, other in enumerate(model.graph.node) if other == node)
    model.graph.node.insert(place, helper.make_node(kind, inputs, [output], name=f"planted_{output}", **more))
    return output


def _divide_integers(model: onnx.ModelProto) -> None:
    """INT_MIN, which a Cast makes of what is beyond int32, divided by -1: the processor traps."""
    clip = next(node for node in model.graph.node if node.op_type == "Clip" and node.input[0] in _whole(model))
    clip.input[0] = _before(model, clip, "Div", [clip.input[0], _store(model, "minus_one", np.int32(-1))], "quotient")


def _whole(model: onnx.ModelProto) -> set[str]:
    return {node.output[0] for node in model.graph.node if node.op_type == "Cast"}


def _gather_by_pixels(model: onnx.ModelProto) -> None:
    """An index out of bounds stands in ONNX Runtime's error text, and this one is a pixel."""
    node = _first(model, "Round")
    wide = _before(model, node, "Reshape", [node.input[0], _store(model, "wide", np.array([-1], np.int64))], "wide_x")
    index = _before(model, node, "Cast", [wide], "index", to=TensorProto.INT32)
    shape = [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim]
    chosen = _before(model, node, "Gather", [wide, index], "chosen")
    node.input[0] = _before(
        model, node, "Reshape", [chosen, _store(model, "code_again", np.array(shape, np.int64))], "chosen_x"
    )


def _float_frames(model: onnx.ModelProto) -> tuple[NodeProto, list[int]]:
    """The node that casts the frames, and their shape."""
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return next(node for node in model.graph.node if "frames" in node.input), shape


def _around(model: onnx.ModelProto, kind: str, more: list[str], **attributes: Any) -> None:
    """Put one operator between the cast frames and all that reads them."""
    cast, _ = _float_frames(model)
    readers = [node for node in model.graph.node if cast.output[0] in node.input]
    made = _before(model, readers[0], kind, [cast.output[0], *more], "planted", **attributes)
    for node in readers:
        node.input[:] = [made if name == cast.output[0] else name for name in node.input]


def _short_bias(model: onnx.ModelProto) -> None:
    frames = _float_frames(model)[1][1]
    weights = np.eye(frames, dtype=np.float32).reshape(frames, frames, 1, 1)
    _around(model, "Conv", [_store(model, "kernel", weights), _store(model, "short", np.zeros(1, np.float32))])


def _wide_reflection(model: onnx.ModelProto) -> None:
    width = _float_frames(model)[1][3]
    pads = np.array([0, 0, 0, 2 * width, 0, 0, 0, -2 * width], np.int64)
    _around(model, "Pad", [_store(model, "pads", pads)], mode="reflect")


def _denormal_weights(model: onnx.ModelProto) -> None:
    weights = max(
        (tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT),
        key=lambda tensor: len(tensor.raw_data),
    )
    value = numpy_helper.to_array(weights).copy()
    value.reshape(-1)[::2] = 1e-40
    weights.CopyFrom(numpy_helper.from_array(value, weights.name))


def _carry_state(model: onnx.ModelProto) -> None:
    """The code of one window is added to the next one's."""
    last = model.graph.output[0]
    kept, made = onnx.ValueInfoProto(), onnx.ValueInfoProto()
    kept.CopyFrom(last)
    made.CopyFrom(last)
    kept.name, made.name = "kept", "kept_on"
    model.graph.input.append(kept)
    model.graph.output.append(made)
    model.graph.node.append(helper.make_node("Add", [last.name, "kept"], ["kept_on"], name="planted_kept_on"))


def _draw(model: onnx.ModelProto) -> None:
    node = _first(model, "Round")
    drawn = _before(model, node, "RandomNormalLike", [node.input[0]], "drawn")
    node.input[0] = _before(model, node, "Add", [node.input[0], drawn], "blurred")


GRAPHS: dict[str, tuple[str, Callable[[onnx.ModelProto], None], str]] = {
    "an integer division that the scene makes trap": ("a trap", _divide_integers, r"\(Div\): .* is INT32"),
    "an index made of pixels": ("pixels in an error", _gather_by_pixels, r"\(Gather\): 'index' must be stored"),
    "a bias shorter than its channels": ("a read beside a buffer", _short_bias, r"\(Conv\): 'short' has shape \(1,\)"),
    "a reflection beyond the picture": ("a read beside a buffer", _wide_reflection, r"\(Pad\): .*'constant'"),
    "denormal weights": ("slow by scene", _denormal_weights, "denormals: "),
    "a state that is carried on": ("an eye that remembers", _carry_state, "interface: inputs"),
    "numbers drawn in the graph": ("a graph that draws", _draw, r"\(RandomNormalLike\): nothing is drawn"),
}
"""Name -> (breach, what is done to the graph, what the proof says)."""


def pin(folder: Path, part: str) -> None:
    """Write the hash of a changed file into the manifest, as an attacker with the signing key would."""
    file = folder / "manifest.json"
    document = json.loads(file.read_text())
    document["hashes"][part] = sha256_file(folder / FILES[part])
    file.write_text(json.dumps(document))
