"""fp32 graph -> fp16 graph: the type of every tensor is written in it, so no builder has to choose. No torch.

    layers, products of attention, arithmetic between them      float16
    preparation, sums, norms, softmax, what feeds them          float32        each border is one explicit Cast
    from the code's Reshape on                                  as it was

`rounded` is that graph in float32, with every float16 tensor rounded where it is written: what a device computes whose
products add up in float32, as tensor cores do. ONNX Runtime on a CPU keeps float32 between neighbouring nodes, which
would hide the rounding.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from export.precision.network import WEIGHTED, Network, types, without_tensors
from wire.errors import GraphError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["FP16_MAX", "half_tensors", "rounded", "to_fp16"]

FP16_MAX = 65504.0
# Computed in float32: long sums, and what divides by them.
_SENSITIVE = """
AveragePool BatchNormalization Exp GlobalAveragePool InstanceNormalization LayerNormalization Log Pow ReduceMean
ReduceSum Reciprocal Softmax Softplus Sqrt
"""
# Arithmetic on single numbers: in float32 where a neighbour is, else in float16.
_ARITHMETIC = """
Abs Add Ceil Clip Cos Div Elu Equal Erf Floor Greater GreaterOrEqual HardSigmoid HardSwish LeakyRelu Less LessOrEqual
Max Min Mul Neg Relu Round Sigmoid Sign Sin Sub Sum Tanh Where
"""
_WIDE, _POINTWISE = frozenset(_SENSITIVE.split()), frozenset(_ARITHMETIC.split())


def to_fp16(model: ModelProto, folder: str = "") -> ModelProto:
    """Convert an fp32 graph to fp16.

    Args:
        model: The fp32 graph, which is not changed.
        folder: Where its external weights lie; the new graph contains them.

    Raises:
        GraphError: A weight is beyond float16's range.
    """
    return _Half(Network(model, folder)).graph()


class _Half:
    def __init__(self, network: Network) -> None:
        self.network = network
        self.wide = self._choose()
        self.nodes: list[NodeProto] = []
        self.made: dict[str, Any] = {}  # constants of the new graph
        self.cast: set[str] = set()

    def _choose(self) -> set[int]:
        """Indices of the nodes that compute in float32."""
        net = self.network
        after = net.after_layers()
        products = {i for i, node in enumerate(net.nodes) if node.op_type in WEIGHTED and i in after}
        heavy = products - net.core - net.tail
        wide = {i for i, node in enumerate(net.nodes) if i not in heavy and self._must(i, node, after)}
        before = -1
        while len(wide) != before:
            before = len(wide)
            for index, node in enumerate(net.nodes):
                if index not in heavy and index not in wide and self._follows(node, wide):
                    wide.add(index)
        return wide

    def _must(self, index: int, node: NodeProto, after: set[int]) -> bool:
        net = self.network
        if index not in after or index in net.core | net.tail or node.op_type in _WIDE or node.op_type == "Cast":
            return True
        scalars = [
            net.array(n) for n in node.input if n in net.constants and net.is_float(n) and not net.constants[n].dims
        ]
        return any(not _survives(float(value)) for value in scalars)

    def _follows(self, node: NodeProto, wide: set[int]) -> bool:
        """Whether a node is float32 for its neighbours: arithmetic for one float32 input, any node for all readers."""
        net = self.network
        makers = [net.maker[n] for n in node.input if n in net.maker and net.is_float(n)]
        if makers and (any if node.op_type in _POINTWISE else all)(i in wide for i in makers):
            return True
        readers = [i for name in node.output for i in net.readers.get(name, [])]
        return all(i in wide for i in readers)

    def graph(self) -> ModelProto:
        from onnx import ModelProto, TensorProto, helper

        net = self.network
        for index, node in enumerate(net.nodes):
            made = type(node)()
            made.CopyFrom(node)
            half = index not in self.wide
            for place, name in enumerate(node.input):
                if name and net.is_float(name):
                    made.input[place] = self._constant(name, half) if name in net.constants else self._read(name, half)
                elif name in net.constants:
                    self.made[name] = net.held(name)
            self.nodes.append(made)
            for place, name in enumerate(node.output):
                if half and name in net.outputs and net.is_float(name):
                    made.output[place] = _half_name(name)
                    self.nodes.append(
                        helper.make_node("Cast", [_half_name(name)], [name], f"{name}.float", to=TensorProto.FLOAT)
                    )
        made_model = ModelProto()
        made_model.CopyFrom(without_tensors(net.model))
        del made_model.graph.node[:]
        made_model.graph.node.extend(self.nodes)
        made_model.graph.initializer.extend(self.made[name] for name in sorted(self.made))
        return made_model

    def _read(self, name: str, half: bool) -> str:
        """The name under which a node, in float16 if `half`, reads the tensor `name`; a Cast is added where needed."""
        from onnx import TensorProto, helper

        index = self.network.maker.get(name)  # None: an input of the graph, float32
        if (index is not None and index not in self.wide) == half:
            return name
        target = _half_name(name) if half else f"{name}.float"
        if target not in self.cast:
            self.cast.add(target)
            to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
            self.nodes.append(helper.make_node("Cast", [name], [target], target, to=to))
        return target

    def _constant(self, name: str, half: bool) -> str:
        from onnx import numpy_helper

        if not half:
            self.made[name] = self.network.held(name)
            return name
        target = _half_name(name)
        if target not in self.made:
            value = self.network.array(name)
            top = float(np.abs(value[np.isfinite(value)]).max(initial=0.0))
            if top > FP16_MAX:
                raise GraphError(
                    f"{self.network.model.graph.name}: constant {name!r} reaches {top:g}, fp16 holds up to "
                    f"{FP16_MAX:g}; build with --precision fp32 or int8"
                )
            self.made[target] = numpy_helper.from_array(value.astype(np.float16), target)
        return target


def _half_name(name: str) -> str:
    return f"{name}.half"


def _survives(value: float) -> bool:
    """Whether float16 holds a scalar to a relative error of 1e-3."""
    with np.errstate(over="ignore"):
        rounded = float(np.float16(value))
    return math.isclose(rounded, value, rel_tol=1e-3) or not math.isfinite(value)


def half_tensors(model: ModelProto) -> set[str]:
    """Names of the tensors that nodes of an fp16 graph make in float16."""
    from onnx import TensorProto

    kinds = types(model)
    return {name for node in model.graph.node for name in node.output if kinds.get(name) == TensorProto.FLOAT16}


def rounded(model: ModelProto) -> ModelProto:
    """Make a float32 graph that rounds to float16 wherever the fp16 graph `model` stores float16.

    For measurements on a CPU: run it with the runtime's optimisations off, so that no rounding is optimised away.
    """
    from onnx import TensorProto, helper

    halves = half_tensors(model)
    made = without_tensors(model)
    del made.graph.node[:]
    for tensor in model.graph.initializer:  # stored in float16: they may be large, and lie beside the graph
        stored = made.graph.initializer.add()
        stored.CopyFrom(tensor)
        if tensor.data_type == TensorProto.FLOAT16:
            stored.name = f"{tensor.name}.stored"
            widen = helper.make_node("Cast", [stored.name], [tensor.name], stored.name, to=TensorProto.FLOAT)
            made.graph.node.append(widen)
    for node in model.graph.node:
        kept = type(node)()
        kept.CopyFrom(node)
        name = node.output[0]
        if name in halves:  # the only operator here with several outputs is Split, which rounds nothing
            kept.output[0] = f"{name}.exact"
            if node.op_type == "Cast":
                kept.attribute[0].i = TensorProto.FLOAT
        made.graph.node.append(kept)
        if name in halves:
            inner = f"{name}.rounded"
            made.graph.node.append(helper.make_node("Cast", [f"{name}.exact"], [inner], inner, to=TensorProto.FLOAT16))
            made.graph.node.append(helper.make_node("Cast", [inner], [name], f"{inner}.back", to=TensorProto.FLOAT))
    return made
