"""fp32 graph + measured quantisation ranges -> graph with explicit Q/DQ around the named layers. No torch.

    a layer's input              --Q, DQ, one scale, zero point 0--> layer <--DQ, one scale a channel-- int8 weights
    a convolution's output, before its bias            --Q, DQ--> + bias, float32

Everything else stays float32. Because of the second line ONNX Runtime can fuse Q/DQ and convolution into one integer
kernel without a quantised bias, which TensorRT does not accept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from export.precision.network import Network, structure, without_tensors
from wire.errors import GraphError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["RECALIBRATE", "Ranges", "along_channels", "layers", "output_axis", "to_int8", "unbiased"]

RECALIBRATE = "calibrate it again: python -m calibration.int8"
_LEAST = 1e-20  # a range of zero, such as that of a channel without weights, still needs a scale


@dataclass(frozen=True, slots=True)
class Ranges:
    """The quantisation ranges of one graph, measured on it.

    Attributes:
        structure: Hash of the fp32 graph that the names belong to, by `network.structure`.
        ranges: Tensor -> largest magnitude that int8 shall represent.
        int8: Names of the layers to quantise; every other layer stays in float32.
        peaks: Tensor -> largest magnitude seen.
    """

    structure: str
    ranges: Mapping[str, float]
    int8: tuple[str, ...]
    peaks: Mapping[str, float] = field(default_factory=dict)


def layers(model: ModelProto) -> list[NodeProto]:
    """The layers that int8 may quantise, in the graph's order."""
    return Network(model).quantisable()


def to_int8(model: ModelProto, ranges: Ranges) -> ModelProto:
    """Convert an fp32 graph, which is not changed, to int8: Q/DQ around the layers that `ranges` names.

    Weights are stored as int8 with a scale for each output channel; a layer's input is quantised with one scale and
    zero point 0. Biases stay float32 and are added after the layer.

    Raises:
        GraphError: The ranges belong to another graph, or one is not a finite number.
    """
    return _Quantised(Network(model), ranges).graph()


class _Quantised:
    def __init__(self, network: Network, ranges: Ranges) -> None:
        self.network, self.ranges = network, ranges
        if ranges.structure != structure(network.model):
            self._fail("the ranges were measured on a graph of another structure")
        unknown = sorted(set(ranges.int8) - {node.name for node in network.quantisable()})
        if unknown:
            self._fail(f"{unknown[0]!r} is no layer that can be quantised")
        self.nodes: list[NodeProto] = []
        self.made: dict[str, Any] = {}
        self.quantised: set[str] = set()

    def graph(self) -> ModelProto:
        from onnx import ModelProto

        chosen = set(self.ranges.int8)
        for node in self.network.nodes:
            made = type(node)()
            made.CopyFrom(node)
            if node.name in chosen:
                self._layer(made)
            else:
                self.nodes.append(made)
        for node in self.nodes:
            self.made |= {name: self.network.held(name) for name in node.input if name in self.network.constants}
        model = ModelProto()
        model.CopyFrom(without_tensors(self.network.model))
        del model.graph.node[:]
        model.graph.node.extend(self.nodes)
        model.graph.initializer.extend(self.made[name] for name in sorted(self.made))
        return model

    def _layer(self, node: NodeProto) -> None:
        """Add one layer: Q/DQ on its input, int8 weights, its bias as an addition after it."""
        from onnx import helper

        node.input[0] = self._activation(node.input[0], self.ranges.ranges.get(node.input[0]))
        bias = node.input[2] if len(node.input) > 2 else ""
        dimensions = len(self.network.constants[node.input[1]].dims)
        node.input[1] = self._weight(node)
        output, inner = node.output[0], unbiased(node.output[0])
        if not bias or (node.op_type == "Conv" and inner not in self.ranges.ranges):
            self.nodes.append(node)
            return
        del node.input[2]
        node.output[0] = inner
        self.nodes.append(node)
        if node.op_type == "Conv":
            inner = self._activation(inner, self.ranges.ranges[inner])
            bias = self._store(f"{bias}.row", along_channels(self.network.array(bias), dimensions))
        self.nodes.append(helper.make_node("Add", [inner, bias], [output], f"{node.name}.bias"))

    def _activation(self, name: str, top: float | None) -> str:
        """Add Q/DQ with one scale and zero point 0 after `name`; the name of the result."""
        if top is None or not 0.0 <= top < math.inf:
            self._fail(f"the range of {name!r} is {top}, not a finite number")
        target = f"{name}.dq"
        if target not in self.quantised:
            self.quantised.add(target)
            scale = self._store(f"{name}.scale", np.float32(max(top, _LEAST) / 127.0))
            zero = self._store("int8.zero", np.int8(0))
            self._node("QuantizeLinear", [name, scale, zero], f"{name}.q")
            self._node("DequantizeLinear", [f"{name}.q", scale, zero], target)
        return target

    def _weight(self, node: NodeProto) -> str:
        """Store a layer's weights as int8 with a scale for each output channel; the name after DQ.

        Layers that share weights get a copy each: ONNX Runtime refuses shared ones where it makes them unsigned (x86-64
        without VNNI, graph_utils.cc: "Attempt to replace the existing tensor").
        """
        axis = output_axis(node)
        value = self.network.array(node.input[1])
        others = tuple(i for i in range(value.ndim) if i != axis)
        scales = np.maximum(np.abs(value).max(axis=others), _LEAST).astype(np.float32) / np.float32(127.0)
        spread = scales.reshape([-1 if i == axis else 1 for i in range(value.ndim)])
        steps = np.clip(np.round(value / spread), -127, 127).astype(np.int8)
        name = node.input[1] if f"{node.input[1]}.dq" not in self.quantised else f"{node.input[1]}.{node.name}"
        self.quantised.add(f"{name}.dq")
        inputs = [self._store(f"{name}.int8", steps), self._store(f"{name}.scale", scales)]
        inputs.append(self._store(f"{name}.zero", np.zeros(len(scales), np.int8)))
        self._node("DequantizeLinear", inputs, f"{name}.dq", axis=axis)
        return f"{name}.dq"

    def _store(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        self.made[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def _node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))

    def _fail(self, reason: str) -> NoReturn:
        raise GraphError(f"{self.network.model.graph.name}: {reason}; {RECALIBRATE}")


def unbiased(output: str) -> str:
    """Name of a convolution's output before its bias is added; where `ranges` has that name, it is quantised."""
    return f"{output}.unbiased"


def along_channels(bias: npt.NDArray[Any], dimensions: int) -> npt.NDArray[Any]:
    """A convolution's bias (C,) as an array that adds to its output: (1, C, 1, ...)."""
    return bias.reshape(1, -1, *[1] * (dimensions - 2))


def output_axis(node: NodeProto) -> int:
    """The axis of a layer's weights that counts its output channels."""
    if node.op_type == "Conv":
        return 0
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if transposed else 1
