"""The operators of `decide`, in NumPy: ONNX's semantics at opset 18, as far as graphs of this project use them.

    OPERATORS[kind] -> Operator(shape, run, stored)

`shape` says what the node makes, before anything is computed; `run` computes it. Both are functions of their arguments
alone: no clock, no chance, no state, no thread. The reader's promise rests on that, so a few lines each are enough.
float16 is not computed in: the caller widens it to float32 and rounds what comes out.

A new operator is a row of OPERATORS; `tests/unit/edge_runtime/test_edge_reader_operators.py` holds each against ONNX
Runtime. Source: the operators' specifications in ONNX 1.16, opset 18.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edge_runtime.reader.graph import Array, Node, element_type
from wire.errors import EngineError

__all__ = ["OPERATORS", "Operator"]

_Spec = tuple[np.dtype[Any], tuple[int, ...]]
_Given = Sequence[Array | None]

_INT8 = np.iinfo(np.int8)


@dataclass(frozen=True, slots=True)
class Operator:
    """How a node of one kind is planned and run.

    Attributes:
        shape: (node, operands) -> dtype and shape of the result. Operands that are not stored have the right dtype and
            shape and no values.
        run: (node, operands) -> the result.
        stored: From which operand on all are stored in the file itself: shapes, axes, indices, scales.
        types: Kinds of element that the first operand may have, as in `numpy.dtype.kind`.
    """

    shape: Callable[[Node, _Given], _Spec]
    run: Callable[[Node, _Given], Array]
    stored: int = 99
    types: str = "f"


def _as_first(node: Node, given: _Given) -> _Spec:
    x = _operand(node, given, 0)
    return x.dtype, x.shape


def _broadcast(node: Node, given: _Given) -> _Spec:
    a, b = _operand(node, given, 0), _operand(node, given, 1)
    if a.dtype != b.dtype:
        raise EngineError(f"{node.output!r} ({node.kind}) reads {a.dtype} and {b.dtype}; both must be the same")
    return a.dtype, np.broadcast_shapes(a.shape, b.shape)


def _by_trying(node: Node, given: _Given) -> _Spec:
    """Of operators that only look at their operand in another way: nothing is copied where it has no values."""
    made = OPERATORS[node.kind].run(node, given)
    return made.dtype, made.shape


def _operand(node: Node, given: _Given, place: int) -> Array:
    found = given[place] if place < len(given) else None
    if found is None:
        raise EngineError(f"{node.output!r} ({node.kind}) lacks its operand {place}")
    return found


def _whole(node: Node, given: _Given, place: int) -> tuple[int, ...]:
    """A stored operand of whole numbers."""
    value = _operand(node, given, place)
    if value.dtype.kind != "i" or value.ndim > 1:
        raise EngineError(f"{node.output!r} ({node.kind}): operand {place} must be a list of whole numbers")
    return tuple(value.reshape(-1).tolist())


def _unary(run: Callable[[Array], Array]) -> Operator:
    return Operator(_as_first, lambda node, given: run(_operand(node, given, 0)))


def _binary(run: Callable[[Array, Array], Array], types: str = "fi") -> Operator:
    return Operator(
        _broadcast, lambda node, given: run(_operand(node, given, 0), _operand(node, given, 1)), types=types
    )


def _sigmoid(x: Array) -> Array:
    made: Array = np.reciprocal(np.float32(1) + np.exp(-x))
    return made


def _pow(x: Array, exponent: Array) -> Array:
    if exponent.size == 1 and exponent.reshape(-1)[0] == 2:
        return np.broadcast_to(x * x, np.broadcast_shapes(x.shape, exponent.shape))
    return np.power(x, exponent)


def _cast_shape(node: Node, given: _Given) -> _Spec:
    to = element_type(node.attributes.get("to", 0))
    if to.kind != "f":
        raise EngineError(f"{node.output!r} (Cast) makes {to}; the reader casts to float32 and float16 alone")
    return to, _operand(node, given, 0).shape


def _cast(node: Node, given: _Given) -> Array:
    return _operand(node, given, 0).astype(element_type(node.attributes["to"]))


def _matmul_shape(node: Node, given: _Given) -> _Spec:
    a, b = _operand(node, given, 0), _operand(node, given, 1)
    if min(a.ndim, b.ndim) < 2 or a.shape[-1] != b.shape[-2] or a.dtype != b.dtype:
        raise EngineError(f"{node.output!r} (MatMul) cannot multiply {a.dtype} {a.shape} by {b.dtype} {b.shape}")
    return a.dtype, (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])


def _matmul(node: Node, given: _Given) -> Array:
    made: Array = np.matmul(_operand(node, given, 0), _operand(node, given, 1))
    return made


def _factors(node: Node, given: _Given) -> tuple[Array, Array]:
    a, b = _operand(node, given, 0), _operand(node, given, 1)
    if a.ndim != 2 or b.ndim != 2:
        raise EngineError(f"{node.output!r} (Gemm) multiplies matrices, not {a.shape} and {b.shape}")
    return a.T if node.attributes.get("transA", 0) else a, b.T if node.attributes.get("transB", 0) else b


def _gemm_shape(node: Node, given: _Given) -> _Spec:
    a, b = _factors(node, given)
    shape = (a.shape[0], b.shape[1])
    c = given[2] if len(given) > 2 else None
    if a.shape[1] != b.shape[0] or a.dtype != b.dtype:
        raise EngineError(f"{node.output!r} (Gemm) cannot multiply {a.dtype} {a.shape} by {b.dtype} {b.shape}")
    if c is not None and (c.dtype != a.dtype or np.broadcast_shapes(c.shape, shape) != shape):
        raise EngineError(f"{node.output!r} (Gemm) cannot add {c.dtype} {c.shape} to {a.dtype} {shape}")
    return a.dtype, shape


def _gemm(node: Node, given: _Given) -> Array:
    a, b = _factors(node, given)
    made: Array = np.matmul(a, b)
    if (alpha := np.float32(node.attributes.get("alpha", 1.0))) != 1:
        made = made * alpha
    c, beta = given[2] if len(given) > 2 else None, np.float32(node.attributes.get("beta", 1.0))
    if c is None:
        return made
    added: Array = made + (c if beta == 1 else c * beta)
    return added


def _concat_shape(node: Node, given: _Given) -> _Spec:
    parts = [_operand(node, given, place) for place in range(len(given))]
    axis, first = node.attributes["axis"], _operand(node, given, 0)
    axis = range(first.ndim)[axis]
    rest = {(part.dtype, part.shape[:axis], part.shape[axis + 1 :]) for part in parts}
    if len(rest) != 1:
        raise EngineError(f"{node.output!r} (Concat) cannot join {[part.shape for part in parts]}")
    size = sum(part.shape[axis] for part in parts)
    return first.dtype, (*first.shape[:axis], size, *first.shape[axis + 1 :])


def _concat(node: Node, given: _Given) -> Array:
    made: Array = np.concatenate([part for part in given if part is not None], axis=node.attributes["axis"])
    return made


def _gather_shape(node: Node, given: _Given) -> _Spec:
    x, indices = _operand(node, given, 0), _operand(node, given, 1)
    axis = range(x.ndim)[node.attributes.get("axis", 0)]
    size = x.shape[axis]
    if indices.dtype.kind != "i" or not ((-size <= indices) & (indices < size)).all():
        raise EngineError(f"{node.output!r} (Gather): an index lies outside of the {size} elements of axis {axis}")
    return x.dtype, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _gather(node: Node, given: _Given) -> Array:
    return _operand(node, given, 0).take(_operand(node, given, 1), axis=node.attributes.get("axis", 0))


def _expand_shape(node: Node, given: _Given) -> _Spec:
    x = _operand(node, given, 0)
    return x.dtype, np.broadcast_shapes(x.shape, _whole(node, given, 1))


def _expand(node: Node, given: _Given) -> Array:
    return np.broadcast_to(_operand(node, given, 0), _expand_shape(node, given)[1])


def _axes(node: Node, given: _Given) -> tuple[int, ...]:
    """The axes of a reduction, an operand since opset 18; none: all of them."""
    x = _operand(node, given, 0)
    if len(given) > 1 and given[1] is not None and given[1].size:
        return tuple(range(x.ndim)[axis] for axis in _whole(node, given, 1))
    return () if node.attributes.get("noop_with_empty_axes", 0) else tuple(range(x.ndim))


def _mean_shape(node: Node, given: _Given) -> _Spec:
    x, axes = _operand(node, given, 0), _axes(node, given)
    if len(set(axes)) != len(axes):
        raise EngineError(f"{node.output!r} (ReduceMean): an axis is given twice")
    kept = node.attributes.get("keepdims", 1)
    shape = (1 if place in axes else size for place, size in enumerate(x.shape) if kept or place not in axes)
    return x.dtype, tuple(shape)


def _mean(node: Node, given: _Given) -> Array:
    kept = bool(node.attributes.get("keepdims", 1))
    x = _operand(node, given, 0)
    made: Array = x.mean(axis=_axes(node, given), keepdims=kept, dtype=x.dtype)
    return made


def _reshape_shape(node: Node, given: _Given) -> _Spec:
    x, wanted = _operand(node, given, 0), list(_whole(node, given, 1))
    if not node.attributes.get("allowzero", 0):
        wanted = [x.shape[place] if size == 0 else size for place, size in enumerate(wanted)]
    rest = math.prod(size for size in wanted if size != -1)
    shape = tuple(x.size // max(rest, 1) if size == -1 else size for size in wanted)
    if wanted.count(-1) > 1 or min(shape, default=1) < 1 or math.prod(shape) != x.size:
        raise EngineError(f"{node.output!r} (Reshape) cannot make {wanted} of {x.shape}")
    return x.dtype, shape


def _reshape(node: Node, given: _Given) -> Array:
    return _operand(node, given, 0).reshape(_reshape_shape(node, given)[1])


def _slice(node: Node, given: _Given) -> Array:
    x, starts, ends = _operand(node, given, 0), _whole(node, given, 1), _whole(node, given, 2)
    axes = _whole(node, given, 3) if len(given) > 3 and given[3] is not None else tuple(range(len(starts)))
    steps = _whole(node, given, 4) if len(given) > 4 and given[4] is not None else (1,) * len(starts)
    if len({len(each) for each in (starts, ends, axes, steps)}) != 1 or 0 in steps:
        raise EngineError(f"{node.output!r} (Slice): starts, ends, axes and steps do not fit together")
    places = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        places[range(x.ndim)[axis]] = slice(start, end, step)
    return x[tuple(places)]


def _softmax(node: Node, given: _Given) -> Array:
    x, axis = _operand(node, given, 0), node.attributes.get("axis", -1)
    weights = np.exp(x - x.max(axis=axis, keepdims=True))
    made: Array = weights / weights.sum(axis=axis, keepdims=True)
    return made


def _softmax_shape(node: Node, given: _Given) -> _Spec:
    x = _operand(node, given, 0)
    return x.dtype, (range(x.ndim)[node.attributes.get("axis", -1)], x.shape)[1]


def _transpose(node: Node, given: _Given) -> Array:
    made: Array = _operand(node, given, 0).transpose(node.attributes.get("perm"))
    return made


def _unsqueeze(node: Node, given: _Given) -> Array:
    return np.expand_dims(_operand(node, given, 0), _whole(node, given, 1))


def _along(node: Node, x: Array, value: Array) -> Array:
    """A scale or zero point, spread over its axis of `x`."""
    if value.ndim == 0:
        return value
    axis = range(x.ndim)[node.attributes.get("axis", 1)]
    if value.shape != (x.shape[axis],):
        raise EngineError(f"{node.output!r} ({node.kind}): {value.shape} scales for axis {axis} of {x.shape}")
    return value.reshape([-1 if place == axis else 1 for place in range(x.ndim)])


def _quantiser(node: Node, given: _Given) -> tuple[Array, Array, Array]:
    x, scale, zero = (_operand(node, given, place) for place in range(3))
    if scale.dtype != np.float32 or zero.dtype != np.int8 or zero.shape != scale.shape:
        raise EngineError(f"{node.output!r} ({node.kind}): a scale in float32 and a zero point in int8 are needed")
    return x, _along(node, x, scale), _along(node, x, zero)


def _quantise(node: Node, given: _Given) -> Array:
    x, scale, zero = _quantiser(node, given)
    whole = np.rint(x / scale) + zero.astype(np.float32)
    held: Array = np.fmax(np.fmin(whole, np.float32(_INT8.max)), np.float32(_INT8.min))
    return held.astype(np.int8)


def _quantise_shape(node: Node, given: _Given) -> _Spec:
    return np.dtype(np.int8), _quantiser(node, given)[0].shape


def _dequantise(node: Node, given: _Given) -> Array:
    x, scale, zero = _quantiser(node, given)
    made: Array = (x.astype(np.int32) - zero.astype(np.int32)).astype(np.float32) * scale
    return made


def _dequantise_shape(node: Node, given: _Given) -> _Spec:
    x = _quantiser(node, given)[0]
    if x.dtype != np.int8:
        raise EngineError(f"{node.output!r} (DequantizeLinear) reads {x.dtype}; int8 is needed")
    return np.dtype(np.float32), x.shape


_ANY: Literal["fib"] = "fib"
OPERATORS: Mapping[str, Operator] = {
    "Add": _binary(np.add),
    "Cast": Operator(_cast_shape, _cast, types=_ANY),
    "Concat": Operator(_concat_shape, _concat, types=_ANY),
    "DequantizeLinear": Operator(_dequantise_shape, _dequantise, stored=1, types="i"),
    "Div": _binary(np.divide, types="f"),
    "Expand": Operator(_expand_shape, _expand, stored=1, types=_ANY),
    "Gather": Operator(_gather_shape, _gather, stored=1, types=_ANY),
    "Gemm": Operator(_gemm_shape, _gemm),
    "MatMul": Operator(_matmul_shape, _matmul),
    "Mul": _binary(np.multiply),
    "Neg": _unary(np.negative),
    "Pow": _binary(_pow, types="f"),
    "QuantizeLinear": Operator(_quantise_shape, _quantise, stored=1),
    "Reciprocal": _unary(np.reciprocal),
    "ReduceMean": Operator(_mean_shape, _mean, stored=1),
    "Reshape": Operator(_reshape_shape, _reshape, stored=1, types=_ANY),
    "Sigmoid": _unary(_sigmoid),
    "Slice": Operator(_by_trying, _slice, stored=1, types=_ANY),
    "Softmax": Operator(_softmax_shape, _softmax),
    "Sqrt": _unary(np.sqrt),
    "Sub": _binary(np.subtract),
    "Transpose": Operator(_by_trying, _transpose, types=_ANY),
    "Unsqueeze": Operator(_by_trying, _unsqueeze, stored=1, types=_ANY),
}
"""Operator -> how it is planned and run."""
