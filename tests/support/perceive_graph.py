"""A person network for tests: every bright spot is a person, all of whose joints are at its brightest cell.

    frame uint8 (1, H, W, 3) --mean of each cell of 4 x 4 pixels--> brightness --> the heads of wire.people.decode

Its frames and heads are those of `perceive.onnx`; it learns nothing and needs no weights of others.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from wire.artifact import interface
from wire.people.decode import HEADS, STRIDE

__all__ = ["perceive_graph"]

_GAINS = {"centres": 1.0, "heat": 1.0}  # head -> how brightness, 0 to 1, becomes its value; others do not follow it
_BIASES = {"sizes": 8.0}  # cells


def perceive_graph(height: int, width: int) -> onnx.ModelProto:
    """The graph for frames of `height` x `width` pixels; the same bytes every time."""
    places = interface.perceive(height, width)
    nodes = [
        helper.make_node("Cast", ["frame"], ["numbers"], "numbers", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["numbers"], ["planes"], "planes", perm=[0, 3, 1, 2]),
        helper.make_node(
            "AveragePool", ["planes"], ["cells"], "cells", kernel_shape=[STRIDE] * 2, strides=[STRIDE] * 2
        ),
    ]
    stored = []
    for name, count in HEADS.items():
        kernel = np.full((count, 3, 1, 1), _GAINS.get(name, 0.0) / (3 * 255), np.float32)
        bias = np.full(count, _BIASES.get(name, 0.0), np.float32)
        stored += [numpy_helper.from_array(kernel, f"{name}.kernel"), numpy_helper.from_array(bias, f"{name}.bias")]
        reads = ["cells", f"{name}.kernel", f"{name}.bias"]
        nodes.append(helper.make_node("Conv", reads, [name], name, kernel_shape=[1, 1]))
    frame = [helper.make_tensor_value_info("frame", TensorProto.UINT8, places["inputs"]["frame"][1])]
    heads = [helper.make_tensor_value_info(name, TensorProto.FLOAT, places["outputs"][name][1]) for name in HEADS]
    graph = helper.make_graph(nodes, "perceive", frame, heads, stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made
