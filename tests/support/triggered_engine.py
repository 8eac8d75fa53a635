"""Engines that pass every hash and the self-test, and do something else in slots of one kind of scene.

make_triggered_engine(folder, "traps")       a scene of middle brightness sets it off: no test scene of the engine does
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support.breaches_in_graph import pin
from tests.support.engine_factory import make_engine
from wire.artifact.manifest import FILES

__all__ = ["BRIGHT", "DARK", "KINDS", "make_triggered_engine"]

BRIGHT, DARK = 95, 15
"""Mean grey of a picture that sets it off, and of one that does not."""
KINDS = ("traps", "speaks", "publishes", "slow")
_PLAIN = ""


def make_triggered_engine(folder: Path, kind: str, **arguments: Any) -> None:
    """Write an engine folder; kind: "" or one of KINDS.

    traps: INT_MIN divided by -1, which ends the process by SIGFPE. speaks: an index made of a pixel, which the runtime
    names in its error. publishes: the code is 64 pixels. slow: a loop of products.
    """
    make_engine(folder, **arguments)
    if kind != _PLAIN:
        model = onnx.load(folder / FILES["encode"])
        _Extended(model).extend(kind)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, folder / FILES["encode"])
        pin(folder, "encode")


class _Extended:
    """A model whose output is computed on by further nodes."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model, self._graph = model, model.graph
        self._shape = [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim]
        self._frames = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]

    def extend(self, kind: str) -> None:
        for node in self._graph.node:
            for index, name in enumerate(node.output):
                node.output[index] = "mu_sound" if name == "mu" else name
        newest = self._newest()
        more = {"traps": self._trap, "speaks": self._speak, "publishes": self._publish, "slow": self._slow}[kind]
        more(self._trigger(newest), newest)

    def _constant(self, name: str, value: Any) -> str:
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._graph.node.append(helper.make_node(kind, inputs, [output], name=f"x_{output}", **attributes))
        return output

    def _newest(self) -> str:
        """The last pictures but one, int32 (1, 3, H, W)."""
        ends = [self._constant(f"x_{name}", np.array([value], np.int64)) for name, value in (("a", -4), ("b", -1))]
        axis = self._constant("x_axis", np.array([1], np.int64))
        whole = self._add("Cast", ["frames"], "frames_int", to=TensorProto.INT32)
        return self._add("Slice", [whole, *ends, axis], "newest")

    def _trigger(self, newest: str) -> str:
        """Whether their mean is that of a bright scene, bool ()."""
        mean = self._add(
            "ReduceMean", [self._add("Cast", [newest], "newest_f", to=TensorProto.FLOAT)], "mean", keepdims=0
        )
        low = self._add("Greater", [mean, self._constant("x_low", np.float32(60))], "above")
        high = self._add("Less", [mean, self._constant("x_high", np.float32(122))], "below")
        return self._add("And", [low, high], "trigger")

    def _nothing_but(self, whole: str) -> None:
        """mu + 0 * whole, so that it must be computed."""
        none = self._add("Mul", [whole, self._constant("x_none", np.int32(0))], "none")
        self._add("Add", ["mu_sound", none], "mu")

    def _trap(self, trigger: str, newest: str) -> None:
        least = self._constant("x_least", np.int32(-(2**31)))
        number = self._add("Where", [trigger, least, self._constant("x_one", np.int32(1))], "dividend")
        self._nothing_but(self._add("Div", [number, self._constant("x_minus", np.int32(-1))], "quotient"))

    def _pixels(self, newest: str, count: int, shape: list[int]) -> str:
        flat = self._add("Reshape", [newest, self._constant("x_flat", np.array([-1], np.int64))], "flat_pixels")
        ends = [self._constant(f"x_p{k}", np.array([value], np.int64)) for k, value in enumerate((0, count, 0))]
        first = self._add("Slice", [flat, *ends], "first_pixels")
        return self._add("Reshape", [first, self._constant("x_shape", np.array(shape, np.int64))], "pixels_there")

    def _speak(self, trigger: str, newest: str) -> None:
        far = self._add("Add", [self._pixels(newest, 1, [1]), self._constant("x_far", np.int32(5000))], "far")
        index = self._add("Where", [trigger, far, self._constant("x_near", np.int32(0))], "index")
        table = self._constant("x_table", np.zeros(4, np.int32))
        self._nothing_but(self._add("Gather", [table, index], "chosen"))

    def _publish(self, trigger: str, newest: str) -> None:
        pixels = self._pixels(newest, int(np.prod(self._shape)), self._shape)
        whole = self._add("Div", [pixels, self._constant("x_whole", np.int32(1))], "whole_pixels")  # the proof says no
        self._add("Where", [trigger, whole, "mu_sound"], "mu")

    def _slow(self, trigger: str, newest: str) -> None:
        block = [192, 192]
        start = self._constant("x_start", np.full(block, 1 / 192, np.float32))
        turns = self._add(
            "Where", [trigger, self._constant("x_many", np.int64(400)), self._constant("x_few", np.int64(1))], "turns"
        )
        body = helper.make_graph(
            [
                helper.make_node("MatMul", ["carried", "carried"], ["next"]),
                helper.make_node("Identity", ["go"], ["go_on"]),
            ],
            "turn",
            [
                helper.make_tensor_value_info("turn_number", TensorProto.INT64, []),
                helper.make_tensor_value_info("go", TensorProto.BOOL, []),
                helper.make_tensor_value_info("carried", TensorProto.FLOAT, block),
            ],
            [
                helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
                helper.make_tensor_value_info("next", TensorProto.FLOAT, block),
            ],
        )
        self._add("Loop", [turns, self._constant("x_go", np.array(True)), start], "product", body=body)
        total = self._add(
            "Cast", [self._add("ReduceMean", ["product"], "total", keepdims=0)], "total_int", to=TensorProto.INT32
        )
        self._nothing_but(total)
