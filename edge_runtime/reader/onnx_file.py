"""The bytes of an ONNX file -> plain dictionaries: a reader of protobuf's wire format for what our graphs use.

    bytes --read_message--> {"graph": {"node": [...], "initializer": [...]}, ...}

The file is hostile. Every length is checked, nesting ends with the schema below, which has no circle, and the number of
fields is bounded. A field that is not in the schema is an error, as is one that is given twice.

Source of the numbers: onnx.proto of ONNX 1.16, and protobuf's description of its encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from wire.errors import EngineError

__all__ = ["MOST_FIELDS", "read_message"]

MOST_FIELDS = 1 << 20
"""Fields of one file, at most."""

_REPEATED = "*"
_SCHEMA: Mapping[str, Mapping[int, tuple[str, str]]] = {
    "model": {
        1: ("ir_version", "int"),
        2: ("producer_name", "bytes"),
        3: ("producer_version", "bytes"),
        7: ("graph", "graph"),
        8: ("opset_import", "opset*"),
        14: ("metadata_props", "entry*"),
    },
    "opset": {1: ("domain", "text"), 2: ("version", "int")},
    "graph": {
        1: ("node", "node*"),
        2: ("name", "text"),
        5: ("initializer", "tensor*"),
        10: ("doc_string", "bytes"),
        11: ("input", "value*"),
        12: ("output", "value*"),
        13: ("value_info", "bytes*"),
    },
    "node": {
        1: ("input", "text*"),
        2: ("output", "text*"),
        3: ("name", "text"),
        4: ("op_type", "text"),
        5: ("attribute", "attribute*"),
        6: ("doc_string", "bytes"),
        7: ("domain", "text"),
    },
    "attribute": {
        1: ("name", "text"),
        2: ("f", "float"),
        3: ("i", "int"),
        8: ("ints", "int*"),
        13: ("doc_string", "bytes"),
        20: ("type", "int"),
    },
    "tensor": {
        1: ("dims", "int*"),
        2: ("data_type", "int"),
        8: ("name", "text"),
        9: ("raw_data", "bytes"),
        12: ("doc_string", "bytes"),
        13: ("external_data", "entry*"),
        14: ("data_location", "int"),
    },
    "entry": {1: ("key", "text"), 2: ("value", "text")},
    "value": {1: ("name", "text"), 2: ("type", "type"), 3: ("doc_string", "bytes")},
    "type": {1: ("tensor_type", "tensor_type")},
    "tensor_type": {1: ("elem_type", "int"), 2: ("shape", "shape")},
    "shape": {1: ("dim", "dim*")},
    "dim": {1: ("dim_value", "int")},
}
"""Message -> number of a field -> (name, kind); kind is int, float, bytes, text or a message, and * means many."""

_VARINT, _LENGTH, _FIXED32 = 0, 2, 5  # wire types
_WIRE = {"int": _VARINT, "float": _FIXED32}


def read_message(kind: str, data: memoryview) -> dict[str, Any]:
    """Read one message.

    Args:
        kind: Name of a message of the schema.
        data: Its bytes.

    Returns:
        Field -> value, for the fields that are there; a list for each field that can be repeated.

    Raises:
        EngineError: It is not such a message.
    """
    return _Reader().message(kind, data)


class _Reader:
    def __init__(self) -> None:
        self._fields = 0

    def message(self, kind: str, data: memoryview) -> dict[str, Any]:
        schema = _SCHEMA[kind]
        found: dict[str, Any] = {name: [] for name, of in schema.values() if of.endswith(_REPEATED)}
        at = 0
        while at < len(data):
            key, at = _varint(data, at)
            number, wire = key >> 3, key & 7
            if number not in schema:
                raise EngineError(f"its {kind} has the field {number}, which graphs of this project do not use")
            self._fields += 1
            if self._fields > MOST_FIELDS:
                raise EngineError(f"it has more than {MOST_FIELDS} fields")
            name, of = schema[number]
            value, at = self._value(of.rstrip(_REPEATED), wire, data, at)
            if name in found and not of.endswith(_REPEATED):
                raise EngineError(f"its {kind} gives {name} twice")
            if of.endswith(_REPEATED):
                found[name].append(value)
            else:
                found[name] = value
        return found

    def _value(self, of: str, wire: int, data: memoryview, at: int) -> tuple[Any, int]:
        """One value of kind `of` that begins at `at`, and where it ends."""
        if wire != _WIRE.get(of, _LENGTH):
            raise EngineError(f"a field of kind {of} has wire type {wire}")
        if of == "int":
            number, at = _varint(data, at)
            return number - (1 << 64) * (number >> 63), at
        if of == "float":
            return struct.unpack("<f", _taken(data, at, 4))[0], at + 4
        length, at = _varint(data, at)
        part, at = _taken(data, at, length), at + length
        if of == "bytes":
            return part, at
        if of == "text":
            return _text(part), at
        return self.message(of, part), at


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """An unsigned number of at most 64 bits, and where it ends."""
    number = 0
    for place in range(10):
        if at >= len(data):
            raise EngineError("it is cut off")
        byte, at = data[at], at + 1
        number |= (byte & 127) << 7 * place
        if byte < 128:
            break
    else:
        raise EngineError("a number has more than 10 bytes")
    if number >> 64:
        raise EngineError("a number has more than 64 bits")
    return number, at


def _taken(data: memoryview, at: int, length: int) -> memoryview:
    if length > len(data) - at:
        raise EngineError("it is cut off")
    return data[at : at + length]


def _text(part: memoryview) -> str:
    try:
        return bytes(part).decode()
    except UnicodeDecodeError as error:
        raise EngineError("a name is no UTF-8") from error
