"""A small `encode` graph, node by node: a linear network before an integer core, as torch exports it.

b = build()
b.node("Neg", ["h"], "more", before="x")                 a new node in front of the one that makes x
prove_graph("encode", b.model(), MANIFEST)
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from wire.artifact.manifest import EngineManifest, WindowSpec

__all__ = ["FRAMES", "MANIFEST", "Builder", "D", "K", "build"]

K, D, C = 2, 8, 32
FRAMES = (1, 2, 4, 4)
HASHES = dict.fromkeys(("checkpoint", "encode", "decide", "noise_table", "certificate", "calibration"), "")
MANIFEST = EngineManifest(
    family="test",
    labels=("normal", "fall"),
    window=WindowSpec(4, 4, 1.0, 2, 0, 0.0, 0.5),
    tokens=K,
    width=D,
    event_releases=8,
    clip_norm=C,
    sigma=Fraction(30),
    profile="balanced",
    precision="fp32",
    opset=18,
    hashes=HASHES,
)


class Builder:
    """A graph under construction: nodes in order, constants by name."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, npt.NDArray[Any]] = {}

    def node(self, kind: str, inputs: list[str], name: str, before: str = "", **attributes: Any) -> str:
        """Add a node that makes `name`, at the end or before the one that makes `before`; returns `name`."""
        made = helper.make_node(kind, inputs, [name], name=f"n_{name}", **attributes)
        place = self.nodes.index(self.find(before)) if before else len(self.nodes)
        self.nodes.insert(place, made)
        return name

    def constant(self, name: str, value: Any, dtype: Any) -> str:
        """Store `value` as `name`; returns `name`."""
        self.constants[name] = np.asarray(value, dtype)
        return name

    def find(self, name: str) -> NodeProto:
        """The node that makes `name`."""
        return next(node for node in self.nodes if node.output[0] == name)

    def reads(self, name: str, *inputs: str) -> None:
        """The node that makes `name` reads `inputs` instead."""
        self.find(name).input[:] = inputs

    def model(self) -> onnx.ModelProto:
        """The graph."""
        values = (
            [helper.make_tensor_value_info("frames", TensorProto.UINT8, FRAMES)],
            [helper.make_tensor_value_info("mu", TensorProto.INT32, (1, K, D))],
        )
        stored = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        graph = helper.make_graph(self.nodes, "encode", *values, stored)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def build() -> Builder:
    """frames -> pixels (1, 2, 4, 4) float -> row (1, 32) -> h (1, 16) -> x (1, K, D) -> mu (1, K, D)."""
    b = Builder()
    b.node("Cast", ["frames"], "pixels", to=TensorProto.FLOAT)
    b.node("Reshape", ["pixels", b.constant("flat", [1, 32], np.int64)], "row")
    b.node("MatMul", ["row", b.constant("w", np.full((32, K * D), 0.01), np.float32)], "h")
    b.node("Reshape", ["h", b.constant("code", [1, K, D], np.int64)], "x")
    b.constant("low", -C, np.int32)
    b.constant("high", C, np.int32)
    b.constant("axes", [1, 2], np.int64)
    b.constant("c2", C * C, np.int32)
    b.node("Round", ["x"], "x_round")
    for name, source in {"a": "x_round", "b": "x"}.items():
        b.node("Cast", [source], f"{name}_int", to=TensorProto.INT32)
        b.node("Clip", [f"{name}_int", "low", "high"], name)
        b.node("Mul", [name, name], f"{name}_square")
        b.node("ReduceSum", [f"{name}_square", "axes"], f"{name}_sum", keepdims=1)
        b.node("LessOrEqual", [f"{name}_sum", "c2"], f"{name}_fits")
    b.node("Where", ["b_fits", "b", b.constant("zero", 0, np.int32)], "b_or_zero")
    b.node("Where", ["a_fits", "a", "b_or_zero"], "mu")
    return b
