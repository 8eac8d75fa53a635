"""Small graphs and helpers to inspect graphs, for the tests of precisions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export import parity
from export.precision.network import Network, open_session

__all__ = ["core_of", "few_windows", "one_layer", "outputs"]


def few_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parity on a few of its windows: enough to see what a test broke."""
    made = parity.made_windows
    monkeypatch.setattr(parity, "made_windows", lambda window: made(window, 16))


def core_of(model: ModelProto) -> list[bytes]:
    """The nodes after the code, as stored."""
    network = Network(model)
    return [network.nodes[index].SerializeToString(deterministic=True) for index in sorted(network.core)]


def outputs(model: ModelProto, feeds: list[dict[str, Any]], exact: bool = False) -> npt.NDArray[np.float64]:
    run = open_session(model, exact)
    return np.concatenate([run(feed)[0] for feed in feeds]).astype(np.float64)


def one_layer(weights: npt.NDArray[np.float32], transposed: bool = False) -> ModelProto:
    """x float (1, n) -> Gemm or MatMul -> h -> Neg -> y."""
    kind, attributes = ("Gemm", {"transB": 1}) if transposed else ("MatMul", {})
    nodes = [helper.make_node(kind, ["x", "w"], ["h"], "layer", **attributes)]  # type: ignore[arg-type]  # of the node
    nodes.append(helper.make_node("Neg", ["h"], ["n"], "negate"))
    nodes.append(helper.make_node("Neg", ["n"], ["y"], "again"))
    width = weights.shape[0 if transposed else 1]
    given, made = (
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, k])]
        for n, k in (("x", weights.shape[1 if transposed else 0]), ("y", width))
    )
    graph = helper.make_graph(nodes, "decide", given, made, [numpy_helper.from_array(weights, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
