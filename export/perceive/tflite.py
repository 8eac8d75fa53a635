"""Reads a TFLite file: tensors, constants and operators. NumPy alone.

    bytes --FlatBuffers: tables of offsets--> Network(tensors, operators)

Only what a converter needs of the format is read. The field numbers are those of TensorFlow's schema.fbs, the layout
of tables is FlatBuffers' (flatbuffers.dev, "FlatBuffer Internals").
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wire.errors import GraphError

__all__ = ["Network", "Operator", "Table", "Tensor", "read_network"]

_KINDS = {
    0: "ADD", 3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 6: "DEQUANTIZE", 14: "LOGISTIC", 18: "MUL", 23: "RESIZE_BILINEAR",
    41: "SUB", 53: "CAST",
}  # fmt: skip
_DTYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "u1", 4: "<i8", 6: "?"}


class Table:
    """One table of the file: fields by number, each with a default where it is not stored."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - self._read("<i", at)
        self._size = self._read("<H", self._fields)

    def _read(self, form: str, at: int) -> Any:
        if at < 0:
            raise struct.error("an offset before the file")
        return struct.unpack_from(form, self._data, at)[0]

    def _offset(self, field: int) -> int:
        """Where a field lies; 0 where it is not stored."""
        slot = 4 + 2 * field
        offset: int = self._read("<H", self._fields + slot) if slot < self._size else 0
        return self._at + offset if offset else 0

    def _target(self, at: int) -> int:
        return at + int(self._read("<I", at))

    def number(self, field: int, form: str = "<i", default: int = 0) -> int:
        """A number, as `struct` reads it."""
        at = self._offset(field)
        return int(self._read(form, at)) if at else default

    def table(self, field: int) -> Table | None:
        """A table, or the value of a union."""
        at = self._offset(field)
        return Table(self._data, self._target(at)) if at else None

    def tables(self, field: int) -> list[Table]:
        """A vector of tables."""
        start, count = self._vector(field)
        return [Table(self._data, self._target(start + 4 * index)) for index in range(count)]

    def numbers(self, field: int, dtype: str = "<i4") -> npt.NDArray[Any]:
        """A vector of numbers; empty where it is not stored."""
        start, count = self._vector(field)
        if start + count * np.dtype(dtype).itemsize > len(self._data):
            raise struct.error("a vector beyond the file")
        return np.frombuffer(self._data, dtype, count, start)

    def _vector(self, field: int) -> tuple[int, int]:
        at = self._offset(field)
        if not at:
            return 0, 0
        start = self._target(at)
        return start + 4, int(self._read("<I", start))


@dataclass(frozen=True, slots=True)
class Tensor:
    """Attributes: shape, as the file states it; dtype, of NumPy; value, of a constant."""

    shape: tuple[int, ...]
    dtype: str
    value: npt.NDArray[Any] | None


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator.

    Attributes:
        kind: Its name in the schema; "" for one that no converter here knows.
        inputs: Numbers of tensors; -1 for none.
        outputs: Numbers of tensors.
        options: The table of its own options; None where it has none.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Table | None


@dataclass(frozen=True, slots=True)
class Network:
    """The first graph of a file."""

    tensors: Sequence[Tensor]
    operators: Sequence[Operator]


def read_network(data: bytes) -> Network:
    """Read the first graph of a TFLite file. Raises GraphError where the bytes are none."""
    if data[4:8] != b"TFL3":
        raise GraphError(f"the person network is no TFLite file: it holds {data[4:8]!r} where b'TFL3' must be")
    try:
        return _network(Table(data, struct.unpack_from("<I", data)[0]))
    except (struct.error, ValueError, IndexError, KeyError) as error:
        raise GraphError(f"the person network's TFLite file is cut or damaged ({error}); fetch it again") from error


def _network(model: Table) -> Network:
    graph = model.tables(2)[0]
    buffers = model.tables(4)
    # An operator of a number above 127 is in field 3 alone, an older one in field 0, too.
    codes = [max(code.number(0, "<b"), code.number(3)) for code in model.tables(1)]
    operators = [
        Operator(_KINDS.get(codes[row.number(0, "<I")], ""), _ints(row, 1), _ints(row, 2), row.table(4))
        for row in graph.tables(3)
    ]
    return Network([_tensor(row, buffers) for row in graph.tables(0)], operators)


def _tensor(row: Table, buffers: Sequence[Table]) -> Tensor:
    shape, dtype = _ints(row, 0), _DTYPES[row.number(1, "<b")]
    stored = buffers[row.number(2, "<I")].numbers(0, "u1")
    return Tensor(shape, dtype, stored.view(dtype).reshape(shape) if len(stored) else None)


def _ints(row: Table, field: int) -> tuple[int, ...]:
    return tuple(int(number) for number in row.numbers(field))
