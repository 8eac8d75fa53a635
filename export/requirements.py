"""What a device must have to run an engine: the manifest's `requires`. No torch.

    described graphs --constants, tensors alive at once, products--> memory, multiply-adds --+--> requires
    versions of runtimes that read them -----------------------------------------------------+

Everything here follows from the graphs alone, so that the same checkpoint gives the same manifest on every machine. How
many milliseconds a machine took is in parity.json.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from onnx import GraphProto, ModelProto, NodeProto, helper

__all__ = ["requirements"]

_RUNTIMES = {"jetpack": "6.1", "onnxruntime": "1.16", "tensorrt": "10.0"}  # the oldest that read opset 18, IR 8
_MB = 1 << 20


def requirements(graphs: Mapping[str, ModelProto]) -> dict[str, str]:
    """Compute the manifest's `requires`.

    Args:
        graphs: Part -> graph with the shape of every tensor in it (`describe.described`).

    Returns:
        Least versions of runtimes; "memory_mb": constants, and the tensors that are alive at once, of the graph that
        needs most of these, without what a runtime itself takes; of each graph the millions of multiply-adds of a run.
    """
    shapes = {part: _shapes(model.graph) for part, model in graphs.items()}
    stored = ((part, tensor.name) for part, model in graphs.items() for tensor in model.graph.initializer)
    constants = sum(_bytes(shapes[part], name) for part, name in stored)
    alive = max(_alive(model.graph, shapes[part]) for part, model in graphs.items())
    found = {**_RUNTIMES, "memory_mb": str(math.ceil((constants + alive) / _MB))}
    for part, model in graphs.items():
        products = sum(_products(node, shapes[part]) for node in model.graph.node)
        found[f"{part}_mmac"] = str(math.ceil(products / 1e6))
    return found


_Shapes = Mapping[str, tuple[int, tuple[int, ...]]]


def _shapes(graph: GraphProto) -> _Shapes:
    """Tensor -> bytes of an element, shape."""
    found = {tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in graph.initializer}
    for value in [*graph.value_info, *graph.input, *graph.output]:
        kind = value.type.tensor_type
        found[value.name] = (kind.elem_type, tuple(dim.dim_value for dim in kind.shape.dim))
    return {name: (helper.tensor_dtype_to_np_dtype(kind).itemsize, shape) for name, (kind, shape) in found.items()}


def _bytes(shapes: _Shapes, name: str) -> int:
    size, shape = shapes[name]
    return size * math.prod(shape)


def _alive(graph: GraphProto, shapes: _Shapes) -> int:
    """Bytes of all tensors that are still read, at the node where they are most; nodes run in the file's order."""
    last = {name: index for index, node in enumerate(graph.node) for name in node.input}
    constants, outputs = {tensor.name for tensor in graph.initializer}, {value.name for value in graph.output}
    now = most = sum(_bytes(shapes, value.name) for value in graph.input)
    for index, node in enumerate(graph.node):
        now += sum(_bytes(shapes, name) for name in node.output if name)
        most = max(most, now)
        done = {name for name in node.input if last.get(name) == index} - constants - outputs - {""}
        now -= sum(_bytes(shapes, name) for name in done)
    return most


def _products(node: NodeProto, shapes: _Shapes) -> int:
    """Multiply-adds of a node."""
    if node.op_type in ("MatMul", "Gemm"):
        first = shapes[node.input[0]][1]
        turned = any(each.name == "transA" and each.i for each in node.attribute)
        return math.prod(shapes[node.output[0]][1]) * first[0 if turned else -1]
    if node.op_type == "Conv":
        return math.prod(shapes[node.output[0]][1]) * math.prod(shapes[node.input[1]][1][1:])
    return 0
