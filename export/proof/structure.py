"""The structure that every graph must have, so that each reader of its file understands the same. No torch.

A graph that passes has tensor names made once and in order, no function, custom operator or default of an input,
exactly the manifest's inputs and outputs, no dead node and no dynamic shape; its file is protobuf in canonical form.
What its nodes may be is in `export.proof.operators`. `Graph` finds the node that makes a tensor.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, NodeProto, TensorProto, numpy_helper

from wire.errors import GraphError

__all__ = [
    "INLINE_BYTES",
    "LARGE_BYTES",
    "METADATA",
    "OPSET",
    "WEIGHTS_SUFFIX",
    "Graph",
    "Shapes",
    "Signature",
    "check_complete",
    "check_unambiguous",
    "external_files",
    "load_graph",
    "save_graph",
    "static_shapes",
]

OPSET = 18
"""Version of the standard operators in every graph."""

WEIGHTS_SUFFIX = ".weights"
"""Of the files in which a graph's large constants lie: encode.weights, decide.weights."""

METADATA = ("veilsight.checkpoint", "veilsight.certificate")
"""Keys of a graph's metadata: the SHA-256 of what it was made of and belongs to."""

_HASH = re.compile("[0-9a-f]{64}")
_AGAIN = "export the checkpoint again: python -m export.build_engine"
_IR_VERSIONS = range(8, 11)  # TensorRT 10.3's parser and ONNX Runtime 1.16 read these
_MAX_RANK = 8
_DTYPES: Mapping[str, int] = {
    "uint8": TensorProto.UINT8,
    "int32": TensorProto.INT32,
    "float32": TensorProto.FLOAT,
    "bool": TensorProto.BOOL,
}
INLINE_BYTES = 1 << 30
"""Where the large constants are more than this in sum, they lie in a file beside the graph: a protobuf message holds
2 GB, and readers copy it."""

LARGE_BYTES = 4096
"""The smallest constant that is put into that file, and the size of the pages on which they begin."""

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}")

Signature = Mapping[str, tuple[str, Sequence[int]]]  # name -> (dtype, shape)
Shapes = Mapping[str, tuple[int, tuple[int, ...]]]  # tensor -> (element type of onnx, shape)


class Graph:
    """One graph: which node makes a tensor, which nodes read it, which tensors are constants.

    It assumes that every name is made once, which `check_unambiguous` checks. Every refusal goes through `fail`, so
    that it names the graph's file, the step and the node.
    """

    def __init__(self, model: onnx.ModelProto, file: str) -> None:
        self.model, self.file = model, file
        self.nodes: Sequence[NodeProto] = model.graph.node
        self.inputs = [value.name for value in model.graph.input]
        self.outputs = [value.name for value in model.graph.output]
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.makers = {name: node for node in self.nodes for name in node.output if name}

    def fail(self, step: str, node: NodeProto | None, reason: str) -> NoReturn:
        """Refuse the graph: raise GraphError."""
        at = f"node {node.name or node.output[0]!r} ({node.op_type}): " if node is not None else ""
        raise GraphError(f"{self.file}: {step}: {at}{reason}")

    def root(self, name: str) -> str:
        """`name`, or what it is a copy of by way of Identity nodes."""
        while (node := self.makers.get(name)) is not None and node.op_type == "Identity":
            name = node.input[0]
        return name

    def constant(self, name: str) -> npt.NDArray[Any] | None:
        """The value of `name` where it is stored in the file itself, else None."""
        root = self.root(name)
        tensor = self.initializers.get(root)
        node = self.makers.get(root)
        if tensor is None and node is not None and node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return None
        try:
            return numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as error:
            raise GraphError(f"{self.file}: constant {root!r} cannot be read ({error})") from error

    def ancestors(self, name: str) -> set[str]:
        """Every tensor that `name` depends on, itself included."""
        seen: set[str] = set()
        todo = [name]
        while todo:
            tensor = todo.pop()
            if tensor in seen or not tensor:
                continue
            seen.add(tensor)
            todo += self.makers[tensor].input if tensor in self.makers else []
        return seen


def load_graph(path: Path | str, sha256: str | None = None) -> onnx.ModelProto:
    """Read an ONNX file in canonical form. External weights are checked to be there, not loaded.

    Args:
        path: The file.
        sha256: Hex hash that its bytes must have; None: any.

    Raises:
        GraphError: It cannot be read, has another hash, or is not in canonical form.
    """
    file = Path(path)
    try:
        data = file.read_bytes()
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise GraphError(f"{file}: changed while it was being read; build the engine again")
        model = onnx.load_model_from_string(data)
    except (OSError, DecodeError) as error:
        raise GraphError(f"{file}: cannot be read as ONNX ({error}); build the engine again") from error
    model.DiscardUnknownFields()
    if model.SerializeToString(deterministic=True) != data:
        raise GraphError(
            f"{file.name}: not in canonical form: a field is unknown, repeated or out of order; save it anew"
        )
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            _check_external(file, tensor)
    return model


def save_graph(model: onnx.ModelProto, file: Path, inline_bytes: int = INLINE_BYTES) -> None:
    """Write a graph in canonical form.

    Args:
        model: The graph. Where its large constants are moved, it is changed to refer to their file.
        file: Where to write it.
        inline_bytes: If the large constants are more than this in sum, they go into a file beside it
            (`encode.weights`), each on a page of its own.
    """
    large = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) >= LARGE_BYTES]
    large = [tensor for tensor in large if tensor.data_type != TensorProto.INT64]  # indices stay in the graph
    if sum(len(tensor.raw_data) for tensor in large) > inline_bytes:
        beside = file.with_suffix(WEIGHTS_SUFFIX)
        with beside.open("wb") as out:
            for tensor in large:
                out.write(bytes(-out.tell() % LARGE_BYTES))
                place = {"location": beside.name, "offset": str(out.tell()), "length": str(len(tensor.raw_data))}
                out.write(tensor.raw_data)
                tensor.ClearField("raw_data")
                tensor.data_location = TensorProto.EXTERNAL
                for key, value in place.items():
                    tensor.external_data.add(key=key, value=value)
    file.write_bytes(model.SerializeToString(deterministic=True))


def external_files(model: onnx.ModelProto) -> set[str]:
    """Names of the files in which `model` keeps constants."""
    entries = (entry for tensor in model.graph.initializer for entry in tensor.external_data)
    return {entry.value for entry in entries if entry.key == "location"}


def _check_external(file: Path, tensor: TensorProto) -> None:
    """Raise GraphError unless a tensor's external data lies in a plain file beside the model, all of it."""
    fields = {entry.key: entry.value for entry in tensor.external_data}
    place = file.parent / fields.get("location", "")
    plain = _FILE_NAME.fullmatch(fields.get("location", "")) and place.is_file() and not place.is_symlink()
    numbers = all(fields.get(key, "0").isdecimal() for key in ("offset", "length"))
    if not (plain and numbers and len(fields) == len(tensor.external_data)):
        raise GraphError(f"{file.name}: {tensor.name!r}: external data must be a plain file beside the model")
    if int(fields.get("offset", 0)) + int(fields.get("length", 0)) > place.stat().st_size:
        raise GraphError(f"{file.name}: {tensor.name!r}: {place.name} is too short; copy the folder again")


def check_unambiguous(graph: Graph, inputs: Signature, outputs: Signature) -> None:
    """Raise GraphError unless a name means one tensor, and the interface is as given."""
    _only_a_graph(graph)
    _made_once(graph)
    _interface(graph, inputs, outputs)


def _only_a_graph(graph: Graph) -> None:
    """The file holds one graph of the standard operators and nothing else."""
    model, step = graph.model, "file"
    opsets = [(entry.domain, entry.version) for entry in model.opset_import]
    if opsets != [("", OPSET)]:
        graph.fail(step, None, f"opsets are {opsets}; only the standard operators at {OPSET} are allowed; {_AGAIN}")
    if model.ir_version not in _IR_VERSIONS:
        allowed = f"{_IR_VERSIONS[0]} to {_IR_VERSIONS[-1]} are allowed"
        graph.fail(step, None, f"IR version {model.ir_version}; {allowed}; {_AGAIN}")
    beside = {
        "local functions": model.functions,
        "training information": model.training_info,
        "device configurations": getattr(model, "configuration", ()),
        "sparse initializers": model.graph.sparse_initializer,
        "quantization annotations": model.graph.quantization_annotation,
    }
    for name, found in beside.items():
        if len(found):
            graph.fail(step, None, f"{name} are not allowed; {_AGAIN}")
    keys = [entry.key for entry in model.metadata_props]
    if len(set(keys)) != len(keys) or not set(keys) <= set(METADATA):
        graph.fail(step, None, f"metadata are {keys}; {list(METADATA)} are allowed, each once; {_AGAIN}")
    if not all(_HASH.fullmatch(entry.value) for entry in model.metadata_props):
        graph.fail(step, None, f"metadata are SHA-256 in hex, nothing else; {_AGAIN}")


def _made_once(graph: Graph) -> None:
    """Names: inputs, initializers and node outputs are all different, and nothing is read before it is made."""
    known: set[str] = set()
    step = "names"
    for name in [*graph.inputs, *(tensor.name for tensor in graph.model.graph.initializer)]:
        if not name or name in known:
            graph.fail(step, None, f"{name!r} is made twice: an input with a default, or two constants of one name")
        known.add(name)
    in_nodes = (each.t for node in graph.nodes for each in node.attribute if each.type == AttributeProto.TENSOR)
    for tensor in [*graph.model.graph.initializer, *in_nodes]:
        _one_value(graph, tensor)
    labels: set[str] = set()
    for node in graph.nodes:
        unknown = [name for name in node.input if name and name not in known]
        twice = [name for name in node.output if name and (name in known or list(node.output).count(name) > 1)]
        if unknown:
            graph.fail(step, node, f"reads {unknown[0]!r}, which nothing before it makes")
        if twice:
            graph.fail(step, node, f"makes {twice[0]!r}, which is made already")
        if not any(node.output):
            graph.fail(step, node if node.output else None, "a node without an output")
        if node.name and node.name in labels:
            graph.fail(step, node, "another node has the same name")
        known.update(name for name in node.output if name)
        labels.add(node.name)


def _one_value(graph: Graph, tensor: TensorProto) -> None:
    """A stored tensor has one value: readers differ in which of several data fields they take."""
    fields = ("raw_data", "float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
    if tensor.HasField("segment") or sum(len(getattr(tensor, name)) > 0 for name in fields) > 1:
        graph.fail("constants", None, f"{tensor.name!r} stores its value twice, or in parts")


def _interface(graph: Graph, inputs: Signature, outputs: Signature) -> None:
    """Inputs and outputs are exactly those of the manifest, with static shapes."""
    step = "interface"
    for kind, expected, values in (
        ("inputs", inputs, graph.model.graph.input),
        ("outputs", outputs, graph.model.graph.output),
    ):
        names = [value.name for value in values]
        if sorted(names) != sorted(expected):
            graph.fail(step, None, f"{kind} are {names}, they must be exactly {list(expected)}")
        for value in values:
            dtype, shape = expected[value.name]
            if _type_of(value) != (_DTYPES[dtype], tuple(shape)):
                found = _type_of(value)
                graph.fail(step, None, f"{value.name} is {found}, the manifest says {dtype} {tuple(shape)}")


def _type_of(value: onnx.ValueInfoProto) -> tuple[int, tuple[int, ...]] | None:
    """(element type, shape) of a tensor of static shape; None for anything else."""
    tensor = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type" or not tensor.HasField("shape"):
        return None
    dims = tensor.shape.dim
    if not all(dim.HasField("dim_value") for dim in dims):
        return None
    return tensor.elem_type, tuple(dim.dim_value for dim in dims)


def check_complete(graph: Graph) -> None:
    """Raise GraphError unless every input is read and every node leads to an output."""
    alive = set().union(*(graph.ancestors(name) for name in graph.outputs))
    for name in graph.inputs:
        if name not in alive:
            graph.fail("dead code", None, f"input {name!r} leads to no output")
    for node in graph.nodes:
        if not alive.intersection(node.output):
            graph.fail("dead code", node, f"{node.output[0]!r} leads to no output")


def static_shapes(graph: Graph, outputs: Signature) -> Shapes:
    """Return the type and shape of every tensor.

    Raises:
        GraphError: A shape is not static, or onnx's checker and shape inference disagree with what the file states.
    """
    step = "shapes"
    bare = onnx.ModelProto()
    bare.CopyFrom(graph.model)
    del bare.graph.value_info[:]
    for value in bare.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        onnx.checker.check_model(_without_external(graph.model))
        inferred = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True).graph
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:400]
        raise GraphError(f"{graph.file}: {step}: onnx refuses the graph: {reason}") from error
    found = {value.name: _type_of(value) for value in [*inferred.value_info, *inferred.input, *inferred.output]}
    known: dict[str, tuple[int, tuple[int, ...]]] = {
        name: (tensor.data_type, tuple(tensor.dims)) for name, tensor in graph.initializers.items()
    }
    for name in [*graph.inputs, *(name for node in graph.nodes for name in node.output if name)]:
        shaped = found.get(name)
        if shaped is None:
            graph.fail(step, graph.makers.get(name), f"the shape of {name!r} is not static")
        if len(shaped[1]) > _MAX_RANK:
            graph.fail(step, None, f"{name!r} has {len(shaped[1])} dimensions, TensorRT takes {_MAX_RANK}")
        known[name] = shaped
    for name, (dtype, shape) in outputs.items():
        if known[name] != (_DTYPES[dtype], tuple(shape)):
            graph.fail(step, None, f"{name} is {known[name]}, the manifest says {dtype} {tuple(shape)}")
    for value in graph.model.graph.value_info:
        if value.name in known and _type_of(value) not in (None, known[value.name]):
            graph.fail(step, None, f"{value.name!r} is said to be {_type_of(value)}, it is {known[value.name]}")
    return known


def _without_external(model: onnx.ModelProto) -> onnx.ModelProto:
    """For the checker, which would look for external files in the working directory: those tensors as inputs."""
    if not any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer):
        return model
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.initializer[:]
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            bare.graph.input.append(value)
        else:
            bare.graph.initializer.append(tensor)
    return bare
