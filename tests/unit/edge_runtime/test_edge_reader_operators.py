"""Each operator of the reader against ONNX Runtime on random operands, in every element type that it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.reader.operators import OPERATORS
from export.precision.network import open_session
from tests.support.reader_graphs import KINDS, one_node, program
from wire.errors import EngineError

Array = npt.NDArray[Any]
Case = tuple[list[Array | None], int, dict[str, Any]]

TOLERANCES = {"float32": 2e-6, "float16": 2e-3}
"""Relative to the largest magnitude; other types must be equal."""


def number(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = np.float32, scale: float = 2.0) -> Array:
    return np.asarray(rng.normal(size=shape, scale=scale)).astype(dtype)


def whole(*values: int) -> Array:
    return np.array(values, np.int64)


def _positive(rng: np.random.Generator, dtype: Any) -> Case:
    return [np.abs(number(rng, (3, 5), dtype)) + np.array(0.1, dtype)], 1, {}


def _two(rng: np.random.Generator, dtype: Any) -> Case:
    shapes = (((2, 3, 4), (3, 1)), ((4,), (2, 1, 4)), ((), (2, 3)), ((5, 2), (5, 2)))[rng.integers(4)]
    left, right = (number(rng, shape, dtype, 9) for shape in shapes)
    return [left, right + np.array(0.01, dtype) if np.dtype(dtype).kind == "f" else right], 1 + int(rng.integers(2)), {}


def _one(rng: np.random.Generator, dtype: Any) -> Case:
    return [number(rng, (2, 3, 4), dtype, 6)], 1, {}


def _pow(rng: np.random.Generator, dtype: Any) -> Case:
    exponent = (np.array(2, dtype), np.array(1.5, dtype), np.array([2], dtype))[rng.integers(3)]
    return [np.abs(number(rng, (3, 4), dtype)) + np.array(0.1, dtype), exponent], 1, {}


def _matmul(rng: np.random.Generator, dtype: Any) -> Case:
    left, right = (((2, 3, 4, 5), (5, 6)), ((3, 4), (2, 4, 5)), ((2, 1, 3, 4), (5, 4, 2)))[rng.integers(3)]
    return [number(rng, left, dtype), number(rng, right, dtype)], 1 + int(rng.integers(2)), {}


def _gemm(rng: np.random.Generator, dtype: Any) -> Case:
    a, b = (int(value) for value in rng.integers(2, size=2))
    left, right = ((5, 3) if a else (3, 5)), ((4, 5) if b else (5, 4))
    c = (None, number(rng, (4,), dtype), number(rng, (3, 1), dtype))[rng.integers(3)]
    scales = {"alpha": 0.5, "beta": 2.0} if rng.integers(2) else {}
    return [number(rng, left, dtype), number(rng, right, dtype), c], 1, {"transA": a, "transB": b, **scales}


def _concat(rng: np.random.Generator, dtype: Any) -> Case:
    axis = int(rng.integers(-2, 2))
    shapes = ((2, 3), (2, 4)) if axis % 2 else ((2, 3), (5, 3))
    return [number(rng, shape, dtype) for shape in shapes], 1, {"axis": axis}


def _gather(rng: np.random.Generator, dtype: Any) -> Case:
    indices = (whole(2, -1, 0), np.array(1, np.int64), np.array([[0, 1], [2, -3]], np.int64))[rng.integers(3)]
    return [number(rng, (3, 4, 3), dtype), indices], 1, {"axis": int(rng.choice([0, 2, -1]))} if rng.integers(2) else {}


def _expand(rng: np.random.Generator, dtype: Any) -> Case:
    return [number(rng, (3, 1), dtype), (whole(2, 3, 4), whole(1, 5), whole(3, 1))[rng.integers(3)]], 1, {}


def _mean(rng: np.random.Generator, dtype: Any) -> Case:
    axes = (None, whole(-1), whole(0, 2))[rng.integers(3)]
    options = {"keepdims": int(rng.integers(2)), "noop_with_empty_axes": int(rng.integers(2))}
    return [number(rng, (2, 3, 17), dtype), axes], 1, options if rng.integers(2) else {}


def _reshape(rng: np.random.Generator, dtype: Any) -> Case:
    return (
        [number(rng, (2, 3, 4), dtype), (whole(0, -1), whole(4, 6), whole(-1), whole(1, 0, 8))[rng.integers(4)]],
        1,
        {},
    )


def _slice(rng: np.random.Generator, dtype: Any) -> Case:
    low, high = -(2**63), 2**63 - 1
    rows = (
        [whole(1), whole(high)],
        [whole(0, -2), whole(-1, 9), whole(2, 0)],
        [whole(-1), whole(low), whole(1), whole(-2)],
        [whole(4, 0), whole(0, 2), whole(-1, 1), whole(-1, 1)],
    )
    return [number(rng, (3, 5, 6), dtype), *rows[rng.integers(4)]], 1, {}


def _softmax(rng: np.random.Generator, dtype: Any) -> Case:
    return [number(rng, (3, 4, 7), dtype, 5)], 1, {"axis": int(rng.integers(-3, 3))} if rng.integers(2) else {}


def _transpose(rng: np.random.Generator, dtype: Any) -> Case:
    return [number(rng, (2, 3, 4), dtype)], 1, {"perm": rng.permutation(3).tolist()} if rng.integers(2) else {}


def _unsqueeze(rng: np.random.Generator, dtype: Any) -> Case:
    return [number(rng, (3, 4), dtype), (whole(0), whole(-1, 1), whole(3, 0))[rng.integers(3)]], 1, {}


def _quantise(rng: np.random.Generator, dtype: Any) -> Case:
    halves = np.arange(-300, 300, dtype=np.float32).reshape(2, 4, 75) / 2  # ties, and beyond both ends
    if rng.integers(2):
        return [halves, np.array(1.0, np.float32), np.array(int(rng.integers(-5, 6)), np.int8)], 1, {}
    scales = rng.uniform(0.2, 3, 4).astype(np.float32)
    return [halves, scales, rng.integers(-9, 9, 4).astype(np.int8)], 1, {"axis": int(rng.choice([1, -2]))}


def _dequantise(rng: np.random.Generator, dtype: Any) -> Case:
    x = rng.integers(-128, 128, (3, 4, 5)).astype(np.int8)
    if rng.integers(2):
        return [x, np.array(0.3, np.float32), np.array(7, np.int8)], 1, {}
    return [x, rng.uniform(0.1, 2, 5).astype(np.float32), rng.integers(-9, 9, 5).astype(np.int8)], 1, {"axis": -1}


def _cast(rng: np.random.Generator, dtype: Any) -> Case:
    return (
        [number(rng, (3, 4), dtype, 9e3 if dtype == np.float16 else 7e4)],
        1,
        {"to": KINDS[str(rng.choice(["float32", "float16"]))]},
    )


FLOATS, NUMBERS, ALL = ("float32", "float16"), ("float32", "float16", "int32"), ("float32", "float16", "int32", "bool")
CASES: dict[str, tuple[Callable[[np.random.Generator, Any], Case], tuple[str, ...]]] = {
    **dict.fromkeys(("Add", "Mul", "Sub"), (_two, NUMBERS)),
    "Cast": (_cast, ALL),
    "Concat": (_concat, ALL),
    "DequantizeLinear": (_dequantise, ("int8",)),
    "Div": (_two, FLOATS),
    "Expand": (_expand, ALL),
    "Gather": (_gather, ALL),
    "Gemm": (_gemm, FLOATS),
    "MatMul": (_matmul, FLOATS),
    "Neg": (_one, FLOATS),
    "Pow": (_pow, FLOATS),
    "QuantizeLinear": (_quantise, ("float32",)),
    "Reciprocal": (_positive, FLOATS),
    "ReduceMean": (_mean, FLOATS),
    "Reshape": (_reshape, ALL),
    "Sigmoid": (_one, FLOATS),
    "Slice": (_slice, ALL),
    "Softmax": (_softmax, FLOATS),
    "Sqrt": (_positive, FLOATS),
    "Transpose": (_transpose, ALL),
    "Unsqueeze": (_unsqueeze, ALL),
}
MADE = {"QuantizeLinear": "int8", "DequantizeLinear": "float32"}


def test_every_operator_of_the_reader_has_a_case() -> None:
    assert set(CASES) == set(OPERATORS)


@pytest.mark.parametrize(("kind", "dtype"), [(kind, dtype) for kind, (_, types) in CASES.items() for dtype in types])
def test_an_operator_is_what_onnx_runtime_makes_of_it(kind: str, dtype: str) -> None:
    make, compared = CASES[kind][0], 0
    for seed in range(12):
        given, stored, attributes = make(np.random.default_rng(seed), np.dtype(dtype))
        if kind == "Concat":
            stored = 2
        names = {number: name for name, number in KINDS.items()}
        out = MADE.get(kind) or names.get(attributes.get("to", 0), "")
        model, feed = one_node(kind, given, stored, out, **attributes)
        expected = np.asarray(open_session(model)(feed)[0])
        found = program(model).run(feed)
        assert found.dtype == expected.dtype and found.shape == expected.shape
        close(found, expected)
        compared += 1
    assert compared == 12


def close(found: Array, expected: Array) -> None:
    most = TOLERANCES.get(str(expected.dtype), 0.0)
    finite = np.isfinite(expected.astype(np.float64))
    assert np.array_equal(found[~finite], expected[~finite])
    scale = np.abs(expected[finite].astype(np.float64)).max(initial=1.0)
    apart = np.abs(found[finite].astype(np.float64) - expected[finite].astype(np.float64)).max(initial=0.0)
    assert apart <= most * scale, f"{apart} apart"


def test_ties_are_rounded_to_the_even_neighbour_and_the_ends_hold() -> None:
    x = np.array([-1e9, -128.5, -1.5, -0.5, 0.5, 1.5, 2.5, 127.5, np.inf], np.float32)
    model, feed = one_node("QuantizeLinear", [x, np.array(1, np.float32), np.array(0, np.int8)], 1, "int8")
    assert program(model).run(feed).tolist() == [-128, -128, -2, 0, 0, 2, 2, 127, 127]


def test_the_operands_are_not_written_to() -> None:
    for kind, (make, types) in CASES.items():
        given, stored, attributes = make(np.random.default_rng(1), np.dtype(types[0]))
        names = {number: name for name, number in KINDS.items()}
        out = MADE.get(kind) or names.get(attributes.get("to", 0), "")
        model, feed = one_node(kind, given, max(stored, 1), out, **attributes)
        before = {name: value.copy() for name, value in feed.items()}
        made = program(model)
        first = made.run(feed).tobytes()
        assert made.run(feed).tobytes() == first, kind
        assert all(np.array_equal(feed[name], value, equal_nan=True) for name, value in before.items()), kind


MISFITS: dict[str, tuple[str, list[Any], int, dict[str, Any]]] = {
    "two types": ("Add", [number(np.random.default_rng(0), (2,)), np.ones(2, np.int32)], 2, {}),
    "whole numbers divided": ("Div", [np.ones(2, np.int32), np.zeros(2, np.int32)], 2, {}),
    "matrices that do not fit": ("MatMul", [np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)], 2, {}),
    "an index outside": ("Gather", [np.ones((2, 3), np.float32), whole(2)], 1, {}),
    "a shape of another size": ("Reshape", [np.ones((2, 3), np.float32), whole(4)], 1, {}),
    "two sizes left open": ("Reshape", [np.ones((2, 3), np.float32), whole(-1, -1)], 1, {}),
    "an axis that is not there": ("Softmax", [np.ones((2, 3), np.float32)], 1, {"axis": 5}),
    "a step of zero": ("Slice", [np.ones(3, np.float32), whole(0), whole(2), whole(0), whole(0)], 1, {}),
    "a cast to whole numbers": ("Cast", [np.ones(3, np.float32)], 1, {"to": KINDS["int32"]}),
    "a missing operand": ("Mul", [np.ones(3, np.float32)], 1, {}),
    "scales for another axis": ("QuantizeLinear", [np.ones((2, 3), np.float32), np.ones(4, np.float32),
                                                   np.zeros(4, np.int8)], 1, {}),
    "no axis": ("Concat", [np.ones(3, np.float32)], 1, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_is_refused_before_it_runs(name: str) -> None:
    kind, given, stored, attributes = MISFITS[name]
    model, _ = one_node(kind, given, stored, "float32", **attributes)
    with pytest.raises(EngineError):
        program(model)


def test_an_operand_that_must_be_stored_cannot_come_from_an_event() -> None:
    model, _ = one_node("Gather", [np.ones((2, 3), np.float32), np.ones(1, np.int32)], 2)
    with pytest.raises(EngineError, match="'x1' must be stored in the file"):
        program(model)
