"""A small `encode` graph, node by node: a linear network before a true trusted core, in every spelling of exporters.

model = build(weights, **SPELLINGS["Not Greater"]).model()      prove_encode(model, MANIFEST)
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import NodeProto, TensorProto, helper, numpy_helper

from wire.artifact.manifest import EngineManifest, WindowSpec

__all__ = ["FRAMES", "MANIFEST", "SPELLINGS", "Builder", "C", "D", "K", "build", "clip", "fits", "network", "run"]

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
    """A graph under construction: nodes by name, constants by name, in the order in which they are added."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, npt.NDArray[Any]] = {}

    def node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=f"n_{name}", **attributes))
        return name

    def constant(self, name: str, value: Any, dtype: Any) -> str:
        self.constants[name] = np.asarray(value, dtype)
        return name

    def model(self) -> onnx.ModelProto:
        values = (
            [helper.make_tensor_value_info("frames", TensorProto.UINT8, FRAMES)]
            + [helper.make_tensor_value_info("noise", TensorProto.INT32, (1, K, D))],
            [helper.make_tensor_value_info("z", TensorProto.INT32, (1, K, D))],
        )
        stored = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        graph = helper.make_graph(self.nodes, "encode", *values, stored)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def network(b: Builder, weights: npt.NDArray[np.float32]) -> None:
    """frames -> x: a linear map, then the Reshape that fixes the code's shape."""
    b.node("Cast", ["frames"], "pixels", to=TensorProto.FLOAT)
    b.node("Reshape", ["pixels", b.constant("flat", [1, -1], np.int64)], "row")
    b.node("MatMul", ["row", b.constant("w", weights, np.float32)], "h")
    b.node("Reshape", ["h", b.constant("code", [1, K, D], np.int64)], "x")


def clip(b: Builder, how: str, source: str, name: str, low: str, high: str) -> None:
    if how == "Clip":
        b.node("Clip", [source, low, high], name)
    elif how == "MinMax":
        b.node("Max", [source, low], f"{name}_max")
        b.node("Min", [high, f"{name}_max"], name)
    else:
        b.node("Min", [source, high], f"{name}_min")
        b.node("Max", [f"{name}_min", low], name)


def fits(b: Builder, how: str, total: str, name: str) -> None:
    operator, first, second = {
        "LessOrEqual": ("LessOrEqual", total, "c2"),
        "GreaterOrEqual": ("GreaterOrEqual", "c2", total),
        "NotGreater": ("Greater", total, "c2"),
        "NotLess": ("Less", "c2", total),
    }[how]
    if how.startswith("Not"):
        b.node(operator, [first, second], f"{name}_over")
        b.node("Not", [f"{name}_over"], name)
    else:
        b.node(operator, [first, second], name)


def build(
    weights: npt.NDArray[np.float32] | None = None,
    clipping: str = "Clip",
    truncate: str = "Sign",
    compare: str = "LessOrEqual",
    axes: tuple[int, ...] = (1, 2),
    keepdims: int = 1,
    identity: bool = False,
    stored: str = "initializer",
) -> Builder:
    """A true core after a linear network, in one of the spellings that exporters write."""
    b = Builder()
    network(b, np.full((32, K * D), 0.01, np.float32) if weights is None else weights)
    b.constant("low", -C, np.int32)
    b.constant("high", C, np.int32)
    b.constant("axes", axes, np.int64)
    b.constant("zero", np.zeros((1, K, D)) if keepdims else 0, np.int32)
    if stored == "initializer":
        b.constant("c2", C * C, np.int32)
    else:
        b.node("Constant", [], "c2", value=numpy_helper.from_array(np.array(C * C, np.int32)))
    b.node("Round", ["x"], "x_round")
    whole = {"a": "x_round", "b": "x"}
    if truncate == "Sign":
        b.node("Abs", ["x"], "x_abs")
        b.node("Floor", ["x_abs"], "x_floor")
        b.node("Sign", ["x"], "x_sign")
        whole["b"] = b.node("Mul", ["x_floor", "x_sign"], "x_trunc")
    for name, source in whole.items():
        b.node("Cast", [source], f"{name}_int", to=TensorProto.INT32)
        clip(b, clipping, f"{name}_int", name, "low", "high")
        b.node("Mul", [name, name], f"{name}_square")
        b.node("ReduceSum", [f"{name}_square", "axes"], f"{name}_sum", keepdims=keepdims)
        fits(b, compare, f"{name}_sum", f"{name}_fits")
    b.node("Where", ["b_fits", "b", "zero"], "b_or_zero")
    b.node("Where", ["a_fits", "a", "b_or_zero"], "mu")
    if identity:
        b.node("Identity", ["mu"], "mu_copy")
    b.node("Add", ["noise", "mu_copy"] if identity else ["mu", "noise"], "noised")
    b.constant("z_low", -32768, np.int32)
    b.constant("z_high", 32767, np.int32)
    clip(b, clipping, "noised", "z_clipped" if identity else "z", "z_low", "z_high")
    if identity:
        b.node("Identity", ["z_clipped"], "z")
    return b


SPELLINGS: dict[str, dict[str, Any]] = {
    "as torch exports it": {},
    "Min of Max": {"clipping": "MinMax"},
    "Max of Min": {"clipping": "MaxMin"},
    "Cast truncates": {"truncate": "Cast"},
    "GreaterOrEqual": {"compare": "GreaterOrEqual"},
    "Not Greater": {"compare": "NotGreater"},
    "Not Less": {"compare": "NotLess"},
    "negative axes": {"axes": (-1, -2)},
    "all axes, dropped": {"axes": (0, 1, 2), "keepdims": 0},
    "axes dropped": {"keepdims": 0},
    "Identity nodes": {"identity": True},
    "Constant node": {"stored": "node"},
}


def run(model: onnx.ModelProto, frames: npt.NDArray[np.uint8], noise: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """z - noise, int64 (1, K, D)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    z = session.run(["z"], {"frames": frames, "noise": noise})[0]
    assert z.shape == (1, K, D) and z.dtype == np.int32
    return np.asarray(z.astype(np.int64) - noise)
