"""A checkpoint's edge half as two ONNX graphs. Only this module and parity.py of this package import torch.

    checkpoint --load, every weight finite--> Family --torch.onnx (dynamo)--> tidy --> encode, decide

The graphs hold the computation and nothing else: no source paths, stack traces or producer. A node is named after the
module that made it, such as `tower.motion.stem/Conv`. The same checkpoint gives the same bytes; a change that alters
them must raise GRAPH_VERSION in `graph_version.py`.
"""

from __future__ import annotations

import ast
import contextlib
import logging
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import torch
from onnx import ModelProto, helper, numpy_helper
from torch import Tensor, nn

from export.proof.operators import denormal
from export.proof.structure import INLINE_BYTES, LARGE_BYTES, OPSET
from familial.model.checkpoint import load
from familial.model.code_space import prototypes
from familial.model.config import FamilyConfig
from familial.model.family import Family
from familial.model.graphs import DecideGraph, EncodeGraph
from familial.model.resources import require_disk, require_memory
from wire.errors import CheckpointError, GraphError
from wire.people.packed import VALUES
from wire.people.tracks import TRACKS

__all__ = [
    "Family",
    "directions",
    "load_family",
    "require_space",
    "tidy",
    "trace_decide",
    "trace_encode",
    "trace_module",
]

_ONE_PIECE = 2**31 - 2**20  # what protobuf can hold in one message
_SCOPES = "pkg.torch.onnx.name_scopes"
_IR_VERSION = 8  # what opset 18 came with: every ONNX Runtime and TensorRT that knows the opset reads it


def load_family(checkpoint: Path | str) -> Family:
    """Load the edge half of a checkpoint, in eval mode. Raises CheckpointError where a weight is not finite."""
    family = load(checkpoint, edge_only=True)
    for name, value in family.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            count = int((~torch.isfinite(value)).sum())
            raise CheckpointError(
                f"{checkpoint}: {name} holds {count} weights that are NaN or infinite; train it again"
            )
    return family


def require_space(weights: int, folder: Path, each: int, checkpoint: Path) -> None:
    """Raise CheckpointError unless memory and disk suffice to build an engine.

    Args:
        weights: Number of weights; memory has to hold them twice, in float32.
        folder: Where the engine is built.
        each: Bytes on the disk of `folder` for each weight.
        checkpoint: For the message.
    """
    require_memory(2 * 4 * weights, f"tracing {checkpoint}")
    require_disk(folder, each * weights, f"building {checkpoint}")


def directions(config: FamilyConfig) -> list[list[int]]:
    """For the level rule: each risk's class prototype minus that of no risk, rounded; a list of n integers each."""
    ends = prototypes(len(config.labels), config.tokens, config.width, config.clip_norm - 1.0).flatten(1)
    rows: list[list[int]] = torch.round(ends[1:] - ends[:1]).int().tolist()
    return rows


def trace_encode(family: Family, beside: Path | None = None) -> ModelProto:
    """frames uint8 (1, F, H, W) -> mu int32 (1, K, d). beside: as in `trace_module`.

    Where the tower `sees_people`, people int32 (1, F, TRACKS, VALUES) is a second input.
    """
    inputs = {"frames": _frames(family.config)}
    if family.tower.sees_people:
        inputs["people"] = torch.zeros(1, family.config.window.frames, TRACKS, VALUES, dtype=torch.int32)
    return trace_module(EncodeGraph(family), inputs, "mu", "encode", beside)


def trace_decide(family: Family, beside: Path | None = None) -> ModelProto:
    """z int32 (1, R, K, d), present bool (1, R) -> logits float32 (1, L). beside: as in `trace_module`."""
    config = family.config
    z = torch.zeros(1, config.event_releases, config.tokens, config.width, dtype=torch.int32)
    inputs = {"z": z, "present": torch.ones(1, config.event_releases, dtype=torch.bool)}
    return trace_module(DecideGraph(family), inputs, "logits", "decide", beside)


def _frames(config: FamilyConfig) -> Tensor:
    window = config.window
    count = window.frames * window.height * window.width
    return (torch.arange(count) % 251).to(torch.uint8).reshape(1, window.frames, window.height, window.width)


def trace_module(
    module: nn.Module,
    inputs: dict[str, Tensor],
    output: str,
    name: str,
    beside: Path | None = None,
    inline_bytes: int = INLINE_BYTES,
) -> ModelProto:
    """Trace `module` at fixed shapes, and tidy the graph.

    Args:
        module: In any mode; it is set to eval mode.
        inputs: Name -> an example, in the order of its forward.
        output: Name of its one output.
        name: Of the graph.
        beside: The file to which large weights go, if they are more than `inline_bytes`: a protobuf message holds 2 GB,
            and every copy of a graph would be a copy of them. The graph then refers to the file by its name.
        inline_bytes: See `beside`.

    Raises:
        GraphError: torch cannot export the module, or its weights do not fit into one message and `beside` is None.
    """
    size = sum(value.numel() * value.element_size() for value in module.parameters())
    if beside is None and size >= _ONE_PIECE:
        raise GraphError(
            f"{name}: {size / 1e9:.1f} GB of float32 weights; int8 is measured on and made of graphs of "
            f"{_ONE_PIECE / 1e9:.1f} GB at most: build with --precision fp16 or fp32"
        )
    with _quiet(), torch.inference_mode():
        try:
            program = torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=[output],
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            first = str(error).strip().splitlines()[0]
            raise GraphError(
                f"{name}: torch cannot export this network ({first}); use operations with fixed shapes"
            ) from error
    if program is None:
        raise GraphError(f"{name}: torch exported nothing")
    if beside is not None:
        _set_aside(program.model, beside, inline_bytes)
    return tidy(program.model_proto, name)


def _set_aside(model: Any, beside: Path, inline_bytes: int) -> None:
    """Write the large constants of a traced model into `beside`, if they are more than `inline_bytes` in sum."""
    values = sorted(model.graph.initializers.values(), key=lambda value: str(value.name))
    values = [value for value in values if value.dtype != onnx_ir.DataType.INT64]  # indices stay in the graph
    large = [value for value in values if value.const_value.nbytes >= LARGE_BYTES]
    total = sum(value.const_value.nbytes for value in large)
    if total <= inline_bytes:
        return
    require_disk(beside.parent, total + LARGE_BYTES * len(large), f"tracing {beside.stem}")
    with beside.open("wb") as out:
        for value in large:
            tensor = value.const_value
            out.write(bytes(-out.tell() % LARGE_BYTES))
            offset = out.tell()
            np.ascontiguousarray(_flushed(tensor.numpy())).tofile(out)
            value.const_value = onnx_ir.ExternalTensor(
                beside.name,
                offset,
                tensor.nbytes,
                tensor.dtype,
                shape=tensor.shape,
                name=str(value.name),
                base_dir=beside.parent,
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's warnings about packages that it does not need."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)


def tidy(model: ModelProto, name: str) -> ModelProto:
    """Return the same computation, tidied.

    Without metadata, with nodes named after their modules, fixed shapes in every Reshape, denormal weights set to zero
    and constants sorted by name.
    """
    made = ModelProto(ir_version=_IR_VERSION, producer_name="veilsight")
    made.opset_import.append(helper.make_opsetid("", OPSET))
    graph = made.graph
    graph.CopyFrom(model.graph)
    graph.name, graph.doc_string = name, ""
    del graph.value_info[:], graph.metadata_props[:]
    names = _node_names(graph)
    described: list[Any] = [*graph.node, *graph.input, *graph.output, *graph.initializer]
    for item in described:
        item.ClearField("doc_string")
        item.ClearField("metadata_props")
    for node, unique in zip(graph.node, names, strict=True):
        node.name = unique
    _fix_reshapes(made)
    _flush_denormals(graph)
    _sort_constants(graph)
    return made


def _node_names(graph: onnx.GraphProto) -> list[str]:
    """A name for each node: its module's place in the network and its operator, numbered where there are several."""
    names, used = [], Counter[str]()
    for node in graph.node:
        name = f"{_scope(node)}/{node.op_type}".lstrip("/")
        used[name] += 1
        names.append(name if used[name] == 1 else f"{name}_{used[name]}")
    return names


def _scope(node: onnx.NodeProto) -> str:
    """Such as "tower.stem": torch's list of scopes ends with the module and the operation; "" where there is none."""
    found = [entry.value for entry in node.metadata_props if entry.key == _SCOPES]
    scopes = ast.literal_eval(found[0]) if found else []
    return str(scopes[-2]) if len(scopes) > 1 else ""


def _fix_reshapes(model: ModelProto) -> None:
    """Replace a dimension that a Reshape leaves to be inferred (-1) by the dimension itself."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*inferred.graph.value_info, *inferred.graph.output]
    }
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        asked = numpy_helper.to_array(constants[node.input[1]])
        shape = shapes.get(node.output[0], [])
        if (asked > 0).all() or len(shape) != len(asked) or min(shape, default=0) < 1:
            continue
        node.input[1] = f"{node.output[0]}.shape"
        model.graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), node.input[1]))


def _flush_denormals(graph: onnx.GraphProto) -> None:
    """Set weights to zero that are too small to be normal float32 numbers: they slow a product 200 times."""
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.data_location != onnx.TensorProto.EXTERNAL:
            value = numpy_helper.to_array(tensor)
            if denormal(value).any():
                tensor.CopyFrom(numpy_helper.from_array(_flushed(value), tensor.name))


def _flushed(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """`value` with denormal float32 numbers set to zero."""
    return np.where(denormal(value), np.float32(0.0), value) if value.dtype == np.float32 else value


def _sort_constants(graph: onnx.GraphProto) -> None:
    """Sort the constants by name, and drop those that no node reads."""
    read = {name for node in graph.node for name in node.input}
    kept: Iterable[onnx.TensorProto] = sorted(graph.initializer, key=lambda tensor: tensor.name)
    used = [tensor for tensor in kept if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(used)
