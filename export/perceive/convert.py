"""The person network as an ONNX graph: TFLite operators -> standard operators of our whitelist, static shapes.

    frame uint8 (1, H, W, 3) RGB --> MobileNetV2 --> feature pyramid, stride 4 --> six heads, float32 (1, C, H/4, W/4)

What the original does behind the heads (peaks, gathers, arg max) is `wire.people.decode.decode`: indices that
come from pixels are not allowed in a graph of ours. Doubling a picture's sides (Resize) is two products with stored
matrices. The graph is made from the operators that the heads depend on; any other kind is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.perceive.tflite import Network, Operator, Table, read_network
from export.proof.structure import OPSET, Signature
from export.proof.verify_graph import check_graph
from wire.artifact.interface import GRAPHS, PERSON_FRAMES, is_person_frame, perceive
from wire.errors import ConfigError, GraphError

__all__ = ["FILE", "convert", "doubling", "interface"]

FILE = GRAPHS["perceive"]

# Tensor of the pinned TFLite file -> head.
_TENSORS: Mapping[int, str] = {
    300: "centres",
    288: "centre_offsets",
    291: "sizes",
    373: "heat",
    404: "joint_offsets",
    408: "regression",
}
_FRAME = 0  # the tensor that is the frame
_IR_VERSION = 8  # what opset 18 came with
_ACTIVATIONS = {0: "", 1: "Relu", 3: "Clip"}  # of the schema: none, RELU, RELU6
_FROM_NHWC = (0, 3, 1, 2)

_Array = npt.NDArray[np.float32]


def interface(height: int, width: int) -> tuple[Signature, Signature]:
    """Inputs and outputs of the graph for frames of `height` x `width`.

    Raises:
        ConfigError: The network takes no such frames.
    """
    if not is_person_frame(height, width):
        raise ConfigError(f"--size {height}x{width}: {PERSON_FRAMES}")
    graph = perceive(height, width)
    inputs, outputs = ({name: (kind, tuple(shape)) for name, (kind, shape) in graph[part].items()} for part in graph)
    return inputs, outputs


def convert(weights: bytes, height: int = 192, width: int = 256) -> ModelProto:
    """Make the graph, and prove it.

    Args:
        weights: The network's TFLite file.
        height: Of the frames, pixels.
        width: Of the frames, pixels.

    Raises:
        ConfigError: The network takes no such frames.
        GraphError: The file is no such network, or the graph is refused.
    """
    inputs, outputs = interface(height, width)
    model = _Conversion(read_network(weights), height, width).model(inputs, outputs)
    check_graph(model, FILE, inputs, outputs)
    return model


def doubling(count: int) -> _Array:
    """The matrix (2 count, count) that doubles a side as TensorFlow does, bilinear with half-pixel centres."""
    at = np.clip((np.arange(2 * count) + 0.5) / 2 - 0.5, 0, count - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, count - 1)
    made = np.zeros((2 * count, count), np.float32)
    rows = np.arange(2 * count)
    np.add.at(made, (rows, low), 1 - (at - low))
    np.add.at(made, (rows, high), at - low)
    return made


class _Conversion:
    def __init__(self, network: Network, height: int, width: int) -> None:
        self._network = network
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, _Array] = {}
        self._names: dict[int, str] = {}  # tensor of the file -> tensor of the graph
        self._sizes: dict[int, tuple[int, int]] = {_FRAME: (height, width)}
        self._values: dict[int, _Array] = {}  # constants of the file, in float32
        self._rules: Mapping[str, Callable[[Operator], None]] = {
            "ADD": self._arithmetic,
            "CAST": self._frame,
            "CONV_2D": self._convolution,
            "DEPTHWISE_CONV_2D": self._convolution,
            "LOGISTIC": self._logistic,
            "MUL": self._arithmetic,
            "RESIZE_BILINEAR": self._resize,
            "SUB": self._arithmetic,
        }

    def model(self, inputs: Signature, outputs: Signature) -> ModelProto:
        for operator in self._wanted():
            self._rules[operator.kind](operator)
        values = [
            [helper.make_tensor_value_info(name, kind, shape) for name, (_, shape) in part.items()]
            for part, kind in ((inputs, TensorProto.UINT8), (outputs, TensorProto.FLOAT))
        ]
        stored = [numpy_helper.from_array(self._constants[name], name) for name in sorted(self._constants)]
        graph = helper.make_graph(self._nodes, "perceive", values[0], values[1], stored)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION)

    def _wanted(self) -> list[Operator]:
        """The operators that the heads depend on, in order; constants are read on the way."""
        todo, found = set(_TENSORS), []
        for operator in reversed(self._network.operators):
            if not todo.intersection(operator.outputs):
                continue
            if operator.kind == "DEQUANTIZE":
                self._values[operator.outputs[0]] = self._stored(operator.inputs[0])
                continue
            if operator.kind not in self._rules:
                raise GraphError(f"the person network has an operator before its heads that is not known: {operator}")
            found.append(operator)
            # The size that a Resize is given follows from its input, so what computes it is not needed.
            todo.update(operator.inputs[:1] if operator.kind == "RESIZE_BILINEAR" else operator.inputs)
        return found[::-1]

    def _stored(self, tensor: int) -> _Array:
        value = self._network.tensors[tensor].value
        if value is None or not np.isfinite(value).all():
            raise GraphError(f"the person network's tensor {tensor} is no constant of finite numbers")
        return value.astype(np.float32)

    def _constant(self, name: str, value: _Array) -> str:
        self._constants[name] = np.ascontiguousarray(value)
        return name

    def _add(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def _name(self, operator: Operator) -> str:
        tensor = operator.outputs[0]
        return _TENSORS.get(tensor, f"{operator.kind.lower()}.{tensor}")

    def _made(self, operator: Operator, name: str, size: tuple[int, int]) -> None:
        self._names[operator.outputs[0]], self._sizes[operator.outputs[0]] = name, size

    def _frame(self, operator: Operator) -> None:
        numbers = self._add("Cast", ["frame"], "frame.float", to=TensorProto.FLOAT)
        self._made(operator, self._add("Transpose", [numbers], "frame.planes", perm=_FROM_NHWC), self._sizes[_FRAME])

    def _arithmetic(self, operator: Operator) -> None:
        self._activation(operator, 0, allowed=(0,))
        first, second = operator.inputs
        name = self._name(operator)
        if second in self._values:
            value = self._values[second]
            shaped = value.transpose(_FROM_NHWC) if value.ndim == 4 else value
            other = self._constant(f"{name}.by", shaped)
        else:
            other = self._names[second]
        kind = operator.kind.capitalize()
        self._made(operator, self._add(kind, [self._names[first], other], name), self._sizes[first])

    def _logistic(self, operator: Operator) -> None:
        (tensor,) = operator.inputs
        name = self._add("Sigmoid", [self._names[tensor]], self._name(operator))
        self._made(operator, name, self._sizes[tensor])

    def _convolution(self, operator: Operator) -> None:
        tensor, kernel, bias = operator.inputs
        options, deep = _options(operator), operator.kind == "CONV_2D"
        name, weights = self._name(operator), self._values[kernel]
        # (out, height, width, in) or, a kernel for each channel, (1, height, width, channels)
        weights = weights.transpose((0, 3, 1, 2) if deep else (3, 0, 1, 2))
        strides, (size, pads) = _strides(options), _padded(self._sizes[tensor], weights.shape[2:], options)
        activation = self._activation(operator, 3 if deep else 4, allowed=(0, 1, 3))
        made = f"{name}.sum" if activation else name
        stored = [self._constant(f"{name}.kernel", weights), self._constant(f"{name}.bias", self._values[bias])]
        attributes = {"group": 1 if deep else len(weights), "strides": strides, "pads": pads}
        self._add("Conv", [self._names[tensor], *stored], made, kernel_shape=weights.shape[2:], **attributes)
        if activation == "Relu":
            self._add("Relu", [made], name)
        elif activation:
            bounds = [self._constant("zero", np.array(0, np.float32)), self._constant("six", np.array(6, np.float32))]
            self._add("Clip", [made, *bounds], name)
        self._made(operator, name, size)

    def _activation(self, operator: Operator, field: int, allowed: tuple[int, ...]) -> str:
        number = operator.options.number(field, "<b") if operator.options else 0
        if number not in allowed:
            raise GraphError(f"the person network's {operator.kind} has activation {number}; known are {allowed}")
        return _ACTIVATIONS[number]

    def _resize(self, operator: Operator) -> None:
        options, tensor = _options(operator), operator.inputs[0]
        if options.number(2, "<b") or not options.number(3, "<b"):
            raise GraphError("the person network's RESIZE_BILINEAR has no half-pixel centres")
        name, (rows, columns) = self._name(operator), self._sizes[tensor]
        wide = self._constant(f"doubling.{columns}.columns", doubling(columns).T)
        high = self._constant(f"doubling.{rows}.rows", doubling(rows))
        across = self._add("MatMul", [self._names[tensor], wide], f"{name}.across")
        self._made(operator, self._add("MatMul", [high, across], name), (2 * rows, 2 * columns))


def _options(operator: Operator) -> Table:
    if operator.options is None:
        raise GraphError(f"the person network's {operator.kind} has no options")
    return operator.options


def _strides(options: Table) -> tuple[int, int]:
    return options.number(2), options.number(1)


def _padded(
    size: tuple[int, int], kernel: tuple[int, ...], options: Table
) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """Size of the output, and rows and columns of zeros (top, left, bottom, right): padding SAME or VALID."""
    made, before, after = [], [], []
    for side, width, stride in zip(size, kernel, _strides(options), strict=True):
        count = -(-side // stride) if options.number(0, "<b") == 0 else (side - width) // stride + 1
        missing = max((count - 1) * stride + width - side, 0)
        made.append(count)
        before.append(missing // 2)
        after.append(missing - missing // 2)
    return (made[0], made[1]), (before[0], before[1], after[0], after[1])
