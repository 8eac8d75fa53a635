"""`decide.onnx` as nodes and constants, without the onnx package: the bytes that the manifest pins, all bounds checked.

    engine folder --read_decide--> Graph(nodes in order, constants, inputs, output)

A graph that passes has standard operators of opset 18 alone, one output a node, names that are made once and before
they are read, and constants whose bytes are as many as their shape says.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.reader.onnx_file import read_message
from wire.artifact.manifest import FILES, EngineManifest
from wire.errors import EngineError, ManifestError

__all__ = ["MOST_ELEMENTS", "MOST_NODES", "REBUILD", "Array", "Graph", "Node", "element_type", "parse", "read_decide"]

Array = npt.NDArray[Any]

MOST_NODES = 20_000
"""Nodes of a graph, at most."""
MOST_ELEMENTS = 2**28
"""Elements of one tensor, at most."""

REBUILD = "build the engine again: python -m export.build_engine"
_OPSET = 18
_MOST_DIMENSIONS = 8
_ELEMENTS: Mapping[int, str] = {1: "<f4", 3: "<i1", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2"}
_EXTERNAL, _IN_THE_FILE = 1, 0
_FLOAT, _INT, _INTS = 1, 2, 7  # types of an attribute
_ATTRIBUTES = {_FLOAT: "f", _INT: "i", _INTS: "ints"}


@dataclass(frozen=True, slots=True)
class Node:
    """One operation.

    Attributes:
        kind: Its operator.
        inputs: Names of what it reads; "" for one that is left out.
        output: Name of what it makes.
        attributes: Name -> value: a whole number, a float, or a tuple of whole numbers.
    """

    kind: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph that was read.

    Attributes:
        nodes: In an order in which they can be run.
        constants: Name -> value.
        inputs: Name -> (dtype, shape).
        output: Name of the one output.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    inputs: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
    output: str


def read_decide(folder: Path | str, manifest: EngineManifest) -> Graph:
    """Read the graph `decide` of an engine folder, and its weights where they lie beside it.

    Raises:
        ManifestError: A file cannot be read, or is not the one that the manifest names.
        EngineError: It is no graph of this project, or has another interface than the manifest says.
    """
    name = FILES["decide"]
    data = manifest.read_graph(folder, "decide")
    try:
        graph = parse(data, Path(folder), manifest.external)
    except EngineError as error:
        raise EngineError(f"{name}: {error}; {REBUILD}") from error
    expected = manifest.graphs()["decide"]
    inputs = {name: (np.dtype(dtype), tuple(shape)) for name, (dtype, shape) in expected["inputs"].items()}
    if graph.inputs != inputs or [graph.output] != list(expected["outputs"]):
        found = f"{ {name: [str(dtype), *shape] for name, (dtype, shape) in graph.inputs.items()} } -> {graph.output}"
        raise EngineError(f"{name}: its interface is {found}, the manifest says {expected}; {REBUILD}")
    return graph


def parse(data: bytes, folder: Path = Path(), pinned: Mapping[str, str] = MappingProxyType({})) -> Graph:
    """Read a graph from the bytes of an ONNX file.

    Args:
        data: The file.
        folder: Where weights lie that are not in it.
        pinned: Name of each file of such weights -> its sha256, hex.

    Raises:
        ManifestError: A file of weights cannot be read, or has another hash.
        EngineError: It is no graph of this project.
    """
    return _graph(read_message("model", memoryview(data)), _Weights(folder, pinned))


def element_type(number: int) -> np.dtype[Any]:
    """The dtype of ONNX's element type `number`. Raises EngineError for one that the reader does not know."""
    if number not in _ELEMENTS:
        raise EngineError(f"element type {number} is not one of {sorted(_ELEMENTS)}")
    return np.dtype(_ELEMENTS[number])


class _Weights:
    """The files beside a graph: each is read once, and its bytes have the hash that the manifest says."""

    def __init__(self, folder: Path, pinned: Mapping[str, str]) -> None:
        self._folder, self._pinned = folder, pinned
        self._read: dict[str, bytes] = {}

    def part(self, place: Mapping[str, str]) -> memoryview:
        """The bytes at location, offset and length."""
        name = place.get("location", "")
        numbers = [place.get("offset", "0"), place.get("length", "")]
        if name not in self._pinned or not all(_is_number(number) for number in numbers):
            raise EngineError(f"its weights lie at {dict(place)!r:.200}, which the manifest does not name")
        offset, length = map(int, numbers)
        data = memoryview(self._file(name))
        if offset + length > len(data):
            raise EngineError(f"{name} is too short")
        return data[offset : offset + length]

    def _file(self, name: str) -> bytes:
        if name not in self._read:
            try:
                data = (self._folder / name).read_bytes()
            except OSError as error:
                raise ManifestError(f"{self._folder / name}: {error.strerror}; {REBUILD}") from error
            if hashlib.sha256(data).hexdigest() != self._pinned[name]:
                raise ManifestError(f"{name}: its sha256 is not what the manifest says; {REBUILD}")
            self._read[name] = data
        return self._read[name]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 16


def _graph(model: Mapping[str, Any], weights: _Weights) -> Graph:
    opsets = [(entry.get("domain", ""), entry.get("version")) for entry in model["opset_import"]]
    if opsets != [("", _OPSET)]:
        raise EngineError(f"its operators are {opsets}, they must be the standard ones at {_OPSET}")
    graph = model.get("graph", {"node": [], "initializer": [], "input": [], "output": []})
    if len(graph["node"]) > MOST_NODES:
        raise EngineError(f"it has {len(graph['node'])} nodes, at most {MOST_NODES} are allowed")
    constants = {tensor.get("name", ""): _constant(tensor, weights) for tensor in graph["initializer"]}
    inputs = {value.get("name", ""): _interface(value) for value in graph["input"]}
    nodes = tuple(_node(node) for node in graph["node"])
    made = [*(tensor.get("name", "") for tensor in graph["initializer"]), *(v.get("name", "") for v in graph["input"])]
    _check_names(made, nodes)
    outputs = [value.get("name", "") for value in graph["output"]]
    if len(outputs) != 1 or outputs[0] not in {node.output for node in nodes}:
        raise EngineError(f"its outputs are {outputs}; one is needed, and a node must make it")
    return Graph(nodes, constants, inputs, outputs[0])


def _check_names(given: Iterable[str], nodes: Iterable[Node]) -> None:
    """Raise EngineError unless each name is made once, and before it is read: so there is no circle."""
    known: set[str] = set()
    for name in given:
        if not name or name in known:
            raise EngineError(f"{name!r} is made twice, or has no name")
        known.add(name)
    for node in nodes:
        unknown = [name for name in node.inputs if name and name not in known]
        if unknown:
            raise EngineError(f"{node.output!r} ({node.kind}) reads {unknown[0]!r}, which nothing before it makes")
        if node.output in known:
            raise EngineError(f"{node.output!r} is made twice")
        known.add(node.output)


def _node(node: Mapping[str, Any]) -> Node:
    kind = node.get("op_type", "")
    if node.get("domain", "") or len(node["output"]) != 1 or not node["output"][0]:
        raise EngineError(f"{node['output']} ({kind}): a node has a standard operator and one output")
    attributes = {each.get("name", ""): _attribute(each) for each in node["attribute"]}
    if len(attributes) != len(node["attribute"]):
        raise EngineError(f"{node['output'][0]!r} ({kind}): an attribute is given twice")
    return Node(kind, tuple(node["input"]), node["output"][0], attributes)


def _attribute(found: Mapping[str, Any]) -> Any:
    field = _ATTRIBUTES.get(found.get("type", 0))
    if field is None:
        raise EngineError(f"attribute {found.get('name')!r} is no number and no list of whole numbers")
    value = found.get(field, 0)
    return tuple(value) if field == "ints" else value


def _shape(dims: Iterable[int]) -> tuple[int, ...]:
    shape = tuple(dims)
    if len(shape) > _MOST_DIMENSIONS or any(not 0 < size <= MOST_ELEMENTS for size in shape):
        raise EngineError(f"shape {shape} is not static, or too large")
    if math.prod(shape) > MOST_ELEMENTS:
        raise EngineError(f"shape {shape} has more than {MOST_ELEMENTS} elements")
    return shape


def _interface(value: Mapping[str, Any]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    tensor = value.get("type", {}).get("tensor_type", {})
    dims = tensor.get("shape", {"dim": []})["dim"]
    return element_type(tensor.get("elem_type", 0)), _shape(dim.get("dim_value", 0) for dim in dims)


def _constant(tensor: Mapping[str, Any], weights: _Weights) -> Array:
    """The value of a stored tensor, aligned in memory."""
    name, dtype, shape = tensor.get("name", ""), element_type(tensor.get("data_type", 0)), _shape(tensor["dims"])
    place = {entry.get("key", ""): entry.get("value", "") for entry in tensor["external_data"]}
    location = tensor.get("data_location", _IN_THE_FILE)
    if location == _EXTERNAL and "raw_data" not in tensor:
        data = weights.part(place)
    elif location == _IN_THE_FILE and not place:
        data = tensor.get("raw_data", memoryview(b""))
    else:
        raise EngineError(f"{name!r} lies in the graph and beside it")
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise EngineError(f"{name!r} has {len(data)} bytes, its shape {shape} of {dtype} takes another number")
    if dtype.kind == "b" and np.frombuffer(data, np.uint8).max() > 1:
        raise EngineError(f"{name!r}: a truth value is 0 or 1")
    value = np.frombuffer(data, dtype).reshape(shape)
    if location == _EXTERNAL and value.flags.aligned and dtype.isnative:
        return value  # large, and read once: not copied
    return value.astype(dtype.newbyteorder("="))
