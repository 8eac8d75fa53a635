"""Graphs for tests of the reader: of one operator, and in an engine folder whose manifest pins them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edge_runtime.reader.graph import parse
from edge_runtime.reader.member import Program
from wire.artifact.manifest import EngineManifest, sha256_file

__all__ = ["KINDS", "decide_graph", "one_node", "pinned", "program"]

Array = npt.NDArray[Any]

KINDS = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "int8": TensorProto.INT8,
    "int32": TensorProto.INT32,
    "bool": TensorProto.BOOL,
}


def program(model: ModelProto) -> Program:
    """The graph as the reader runs it."""
    return Program(parse(model.SerializeToString(deterministic=True)))


def one_node(
    kind: str, given: Sequence[Array | None], stored: int, out: str = "", **attributes: Any
) -> tuple[ModelProto, dict[str, Array]]:
    """A graph of one operator.

    Args:
        kind: The operator.
        given: Its operands; None: left out.
        stored: From which operand on they are constants.
        out: dtype of the result; "": that of the first operand.
        attributes: Of the node.

    Returns:
        The graph, whose result is called "y", and its inputs.
    """
    names = ["" if value is None else f"x{place}" for place, value in enumerate(given)]
    there = {name: value for name, value in zip(names, given, strict=True) if value is not None}
    feed = {name: value for name, value in there.items() if int(name[1:]) < stored}
    inputs = [helper.make_tensor_value_info(n, KINDS[str(v.dtype)], list(v.shape)) for n, v in feed.items()]
    constants = [numpy_helper.from_array(value, name) for name, value in there.items() if name not in feed]
    made = helper.make_tensor_value_info("y", KINDS[out or str(next(iter(there.values())).dtype)], None)
    graph = helper.make_graph([helper.make_node(kind, names, ["y"], **attributes)], "one", inputs, [made], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), feed


def decide_graph(
    manifest: EngineManifest, nodes: Sequence[NodeProto], constants: Mapping[str, Array] | None = None
) -> ModelProto:
    """A graph with the interface of `decide`: nodes that make "logits" of "z" and "present"."""
    event = [1, manifest.event_releases, manifest.tokens, manifest.width]
    inputs = [
        helper.make_tensor_value_info("z", TensorProto.INT32, event),
        helper.make_tensor_value_info("present", TensorProto.BOOL, event[:2]),
    ]
    made = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, len(manifest.labels)])
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "decide", inputs, [made], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def pinned(folder: Path, data: bytes) -> EngineManifest:
    """Make `data` the `decide` of an engine folder; returns the manifest that pins it."""
    (folder / "decide.onnx").write_bytes(data)
    document = json.loads((folder / "manifest.json").read_text())
    document["hashes"]["decide"] = sha256_file(folder / "decide.onnx")
    (folder / "manifest.json").write_text(json.dumps(document))
    return EngineManifest.load(folder)
