"""What the nodes of a graph may be: pairs of operator and element type, stored operands, lengths, sizes. No torch.

The promise does not rest on these rules: for the gate, a process of networks that dies, hangs or lies is a code inside
the ball. They close known ways by which a scene could stop or slow a native runtime, or make it read beside a buffer:
- an integer division traps (by zero, or INT_MIN by -1), so only floats are divided;
- an index, shape or axis that comes from pixels ends in an error whose text holds them, so each is stored in the file;
- a bias shorter than its channels, or a reflection wider than the picture, reads beside the buffer;
- denormal numbers slow a product 200 times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

from export.proof.structure import Graph, Shapes

__all__ = [
    "FORBIDDEN",
    "MOST_BYTES",
    "MOST_ELEMENTS",
    "MOST_NODES",
    "OPERATORS",
    "check_kinds",
    "check_operands",
    "denormal",
]

_FLOATS = ("FLOAT", "FLOAT16")
_NUMBERS = (*_FLOATS, "INT32")  # integer sums and products wrap around, they do not trap
_ANY = (*_NUMBERS, "BOOL")
_QUANTISERS = ("DequantizeLinear", "QuantizeLinear")
_OF_FLOATS = """
Abs AveragePool BatchNormalization Ceil Conv ConvTranspose Cos Div Elu Erf Exp Floor Gemm GlobalAveragePool
GlobalMaxPool HardSigmoid HardSwish InstanceNormalization LayerNormalization LeakyRelu Log MatMul MaxPool Neg Pow
Reciprocal ReduceMax ReduceMean ReduceMin Relu Round Sigmoid Sign Sin Softmax Softplus Sqrt Sum Tanh
"""
OPERATORS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(_OF_FLOATS.split(), frozenset(_FLOATS)),
    **dict.fromkeys(("Add", "Clip", "Max", "Min", "Mul", "ReduceSum", "Sub"), frozenset(_NUMBERS)),
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Where"), frozenset(_ANY)),
    **dict.fromkeys(["Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice"], frozenset(_ANY)),
    **dict.fromkeys(["Split", "Squeeze", "Transpose", "Unsqueeze"], frozenset(_ANY)),
    **dict.fromkeys(("And", "Not", "Or"), frozenset({"BOOL"})),
    **dict.fromkeys(_QUANTISERS, frozenset({"FLOAT", "INT8"})),
    "Cast": frozenset({*_ANY, "UINT8"}),
    "Constant": frozenset({*_ANY, "INT8", "INT64"}),
}
"""Operator -> element types that it may read and make; operands of `_STORED` are not counted.

TensorRT parses them from 9.0 on; they are deterministic, keep nothing between runs, and their shapes do not depend on
data. TensorRT reads uint8 by a Cast alone.
"""

FORBIDDEN: Mapping[str, str] = {
    **dict.fromkeys(("If", "Loop", "Scan", "SequenceMap"), "it carries a subgraph, which this proof does not enter"),
    **dict.fromkeys(
        ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"),
        "nothing is drawn in a graph: TensorRT ignores its seed",
    ),
    "Mod": "an integer division by zero ends the process",
    "Dropout": "a graph for running has none: the network was not in eval mode",
    **dict.fromkeys(("NonZero", "Unique", "Compress", "NonMaxSuppression"), "its output's shape depends on the frames"),
    **dict.fromkeys(("GatherND", "GatherElements"), "its indices could depend on the frames"),
    **dict.fromkeys(("ScatterND", "ScatterElements", "Scatter", "IsNaN", "IsInf"), "TensorRT before 10 lacks it"),
    **dict.fromkeys(("RMSNormalization", "Attention", "RotaryEmbedding"), "TensorRT's parser lacks it up to 10.1"),
}
"""Operators met in practice -> why they are refused. All others are refused for not being in OPERATORS."""

MOST_NODES = 20_000
"""Nodes of a graph, at most."""
MOST_ELEMENTS = 2**28
"""Elements of one tensor, at most: 1 GB in float32."""
MOST_BYTES = 2**34
"""Bytes of all stored constants of a graph, at most: 16 GiB."""

_STORED: Mapping[str, int] = {
    **dict.fromkeys(["Clip", "Expand", "Gather", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Unsqueeze"], 1),
    **dict.fromkeys(["ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "DequantizeLinear", "QuantizeLinear"], 1),
}
"""Operator -> from which operand on all are stored in the file itself: indices, shapes, axes, bounds, scales."""
_OTHERWISE = "write that layer with operators of export.proof.operators.OPERATORS, and export it again"
_PLAIN_ATTRIBUTES = (
    AttributeProto.FLOAT,
    AttributeProto.INT,
    AttributeProto.STRING,
    AttributeProto.TENSOR,
    AttributeProto.FLOATS,
    AttributeProto.INTS,
    AttributeProto.STRINGS,
)


def check_kinds(graph: Graph) -> None:
    """Raise GraphError unless every node is a standard operator of OPERATORS, and its attributes hold plain values."""
    step = "operators"
    for node in graph.nodes:
        if node.domain or node.overload or len(getattr(node, "device_configurations", ())):
            graph.fail(step, node, f"domain {node.domain!r}: only the standard operators, for no device in particular")
        if node.op_type not in OPERATORS:
            reason = FORBIDDEN.get(node.op_type, "not on the whitelist of operators for the device")
            graph.fail(step, node, f"{reason}; {_OTHERWISE}")
        names = [attribute.name for attribute in node.attribute]
        if len(set(names)) != len(names):
            graph.fail(step, node, "an attribute is given twice")
        for attribute in node.attribute:
            if attribute.type not in _PLAIN_ATTRIBUTES or attribute.ref_attr_name:
                graph.fail(step, node, f"attribute {attribute.name!r} holds a graph, a sparse tensor or a reference")
            if attribute.type == AttributeProto.TENSOR and attribute.t.data_location == TensorProto.EXTERNAL:
                graph.fail(step, node, "a Constant keeps its value in the file itself")
        if node.op_type == "Constant" and names != ["value"]:
            graph.fail(step, node, "a Constant has exactly one attribute, a tensor 'value'")
        if node.op_type in _QUANTISERS:
            _check_quantiser(graph, node)


def check_operands(graph: Graph, shapes: Shapes, folder: Path | str = "") -> list[str]:
    """Check types, stored operands, lengths and sizes.

    Args:
        graph: After `check_kinds`.
        shapes: Of every tensor.
        folder: Where external weights lie.

    Returns:
        What was proved, in sentences.

    Raises:
        GraphError: Names the node and the reason.
    """
    size = _sizes(graph, shapes)
    for node in graph.nodes:
        first = _STORED.get(node.op_type, len(node.input))
        _types(graph, node, [*node.input[:first], *node.output], shapes)
        stored = [graph.constant(name) if name else None for name in node.input[first:]]
        for name, value in zip(node.input[first:], stored, strict=True):
            if name and value is None:
                graph.fail("operands", node, f"{name!r} must be stored in the file: no frame may choose it")
        if (check := _RULES.get(node.op_type)) is not None:
            check(graph, node, stored, shapes)
    for name, tensor in _stored(graph):
        if tensor.data_type == TensorProto.FLOAT and (count := int(denormal(_value(graph, tensor, folder)).sum())):
            graph.fail("denormals", None, f"{name!r} holds {count}, which slow a product 200 times; trace it again")
    return [
        "integers are never divided; each operator has element types that it is allowed",
        "every index, shape and axis is stored in the file and inside its tensor; each channel has its own bias",
        f"at most {MOST_ELEMENTS} elements a tensor; {size} bytes of constants, none of them denormal",
    ]


def denormal(value: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Where a float32 array holds denormal numbers, by its bits: a thread may compute as if they were zero."""
    bits = np.ascontiguousarray(value, np.float32).view(np.uint32).reshape(value.shape)
    found: npt.NDArray[np.bool_] = ((bits & 0x7F800000) == 0) & ((bits & 0x007FFFFF) != 0)
    return found


def _sizes(graph: Graph, shapes: Shapes) -> int:
    """Refuse what is too large; returns the bytes of all constants."""
    if len(graph.nodes) > MOST_NODES:
        graph.fail("sizes", None, f"{len(graph.nodes)} nodes, at most {MOST_NODES} are allowed")
    for name, (_, shape) in shapes.items():
        if (elements := int(np.prod(shape, dtype=object))) > MOST_ELEMENTS:
            graph.fail("sizes", None, f"{name!r} has {elements} elements, at most {MOST_ELEMENTS} are allowed")
    size = 0
    for _, tensor in _stored(graph):
        size += int(np.prod(tensor.dims, dtype=object)) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    if size > MOST_BYTES:
        graph.fail("sizes", None, f"{size} bytes of constants, at most {MOST_BYTES} are allowed")
    return size


def _stored(graph: Graph) -> Iterator[tuple[str, TensorProto]]:
    """Name and tensor of every constant, whether an initializer or a node makes it."""
    yield from graph.initializers.items()
    yield from ((node.output[0], node.attribute[0].t) for node in graph.nodes if node.op_type == "Constant")


def _value(graph: Graph, tensor: TensorProto, folder: Path | str) -> npt.NDArray[Any]:
    try:
        return numpy_helper.to_array(tensor, str(folder))
    except (OSError, ValueError, TypeError, onnx.checker.ValidationError) as error:
        graph.fail("constants", None, f"{tensor.name!r} cannot be read ({error})")


def _types(graph: Graph, node: NodeProto, names: Sequence[str], shapes: Shapes) -> None:
    """Refuse a node that reads or makes an element type which its operator is not allowed."""
    for name in filter(None, names):
        kind = TensorProto.DataType.Name(shapes[name][0])
        if kind not in OPERATORS[node.op_type]:
            allowed = ", ".join(sorted(OPERATORS[node.op_type]))
            graph.fail("types", node, f"{name!r} is {kind}; this operator is allowed {allowed}; cast it first")


_Stored = Sequence[npt.NDArray[Any] | None]


def _gather(graph: Graph, node: NodeProto, stored: _Stored, shapes: Shapes) -> None:
    """Every index lies inside the gathered dimension."""
    (indices,), shape = stored, shapes[node.input[0]][1]
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    if indices is None or not ((-shape[axis] <= indices) & (indices < shape[axis])).all():
        graph.fail("operands", node, f"an index lies outside of the {shape[axis]} elements of axis {axis}")


def _pad(graph: Graph, node: NodeProto, stored: _Stored, shapes: Shapes) -> None:
    """Only constants are added: reflections and edges wider than the tensor read beside it."""
    modes = [attribute.s for attribute in node.attribute if attribute.name == "mode"]
    if modes not in ([], [b"constant"]) or stored[0] is None or (stored[0] < 0).any():
        graph.fail("operands", node, "pads must not be negative, and the mode must be 'constant'")


def _channels(graph: Graph, node: NodeProto, stored: _Stored, shapes: Shapes) -> None:
    """Operands of one number a channel have one for every channel."""
    last = node.op_type in ("Conv", "ConvTranspose")
    wanted = (shapes[node.output[0] if last else node.input[0]][1][1],)
    for name in filter(None, node.input[2 if last else 1 :]):
        if shapes[name][1] != wanted:
            graph.fail("operands", node, f"{name!r} has shape {shapes[name][1]}; one for each channel is {wanted}")


def _layer_norm(graph: Graph, node: NodeProto, stored: _Stored, shapes: Shapes) -> None:
    """Scale and bias have the shape of what is normalised."""
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), -1)
    wanted = shapes[node.input[0]][1][axis:]
    for name in filter(None, node.input[1:]):
        if shapes[name][1] != wanted:
            graph.fail("operands", node, f"{name!r} has shape {shapes[name][1]}, what is normalised has {wanted}")


def _check_quantiser(graph: Graph, node: NodeProto) -> None:
    """Q/DQ is symmetric int8 with stored scales: the one form that ONNX Runtime and TensorRT read alike."""
    step = "quantisation"
    if len(node.input) != 3 or not all(node.input):
        graph.fail(step, node, "needs a scale and a zero point, or its type is a matter of defaults")
    scale, zero = (graph.constant(name) for name in node.input[1:])
    if scale is None or scale.dtype != np.float32 or not (np.isfinite(scale) & (scale > 0)).all():
        graph.fail(step, node, f"scale {node.input[1]!r} must be stored, float32, finite and above zero")
    if zero is None or zero.dtype != np.int8 or zero.any() or zero.shape != scale.shape:
        graph.fail(step, node, f"zero point {node.input[2]!r} must be stored: int8 zeros of the scale's shape")


_RULES = {
    "Gather": _gather,
    "Pad": _pad,
    **dict.fromkeys(("BatchNormalization", "Conv", "ConvTranspose", "InstanceNormalization"), _channels),
    "LayerNormalization": _layer_norm,
}
