"""The trusted core: exhaustively at small n, by hypothesis at any, and by mutants that each must be caught."""

from __future__ import annotations

import ast
import contextlib
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge_runtime.gate import core
from edge_runtime.gate.core import HEADER_BYTES, read_code, release
from wire.errors import PrivacyError

_SOURCE = Path(core.__file__)
_ENDS = (-32768, -32767, -5, -3, -2, -1, 0, 1, 2, 3, 5, 32766, 32767)


def expected(code: list[int] | None, noise: list[int], clip_norm: int) -> list[int]:
    """The rule in Python's own integers."""
    inside = code is not None and sum(value * value for value in code) <= clip_norm**2
    mu = code if code is not None and inside else [0] * len(noise)
    return [min(32767, max(-32768, m + e)) for m, e in zip(mu, noise, strict=True)]


def made(module: Any, code: list[int] | None, noise: list[int], clip_norm: int) -> list[int]:
    """What a core makes of it."""
    given_code = None if code is None else np.array(code, np.int16)
    z = module.release(given_code, np.array(noise, np.int32), clip_norm)
    assert z.dtype == np.int16
    return [int(value) for value in z]


def test_the_core_is_one_screen_and_imports_numpy_and_errors_alone() -> None:
    text = _SOURCE.read_text()
    assert len(text.splitlines()) <= 60
    imported = {
        name.name if isinstance(node, ast.Import) else str(node.module)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in node.names
    }
    assert imported == {"__future__", "numpy", "numpy.typing", "wire.errors"}


def every_small_case() -> list[tuple[list[int] | None, list[int], int]]:
    """Codes of one and of two coordinates, at and around the ball and the ends of int16, under every kind of noise."""
    cases: list[tuple[list[int] | None, list[int], int]] = [
        ([a], [e], c) for a in _ENDS for e in (-(2**31), -40000, -1, 0, 7, 40000, 2**31 - 1) for c in (1, 2, 3, 5)
    ]
    cases += [([a, b], [3, -4], c) for a, b in itertools.product(_ENDS, _ENDS) for c in (1, 2, 3, 5, 32768, 46340)]
    cases += [(None, [e, -e], 5) for e in (0, 3, 40000)]
    return cases


def test_every_small_case_is_as_the_rule_says() -> None:
    for code, noise, clip_norm in every_small_case():
        assert made(core, code, noise, clip_norm) == expected(code, noise, clip_norm), (code, noise, clip_norm)


codes = st.integers(1, 40).flatmap(
    lambda n: st.tuples(arrays.arrays(np.int16, n), arrays.arrays(np.int32, n), st.integers(1, 2**16))
)


@settings(max_examples=300, deadline=None)
@given(codes)
def test_any_code_is_moved_by_the_noise_and_by_at_most_c(
    case: tuple[npt.NDArray[np.int16], npt.NDArray[np.int32], int],
) -> None:
    code, noise, clip_norm = case
    values, quiet = code.tolist(), noise.tolist()
    z = release(code, noise, clip_norm)
    alone = release(None, np.array(quiet, np.int32), clip_norm)
    assert z.tolist() == expected(values, quiet, clip_norm)
    apart = z.astype(np.int64) - alone.astype(np.int64)
    assert int(apart @ apart) <= clip_norm**2
    assert not code.any()
    assert not noise.any()


def test_the_largest_sums_do_not_overflow() -> None:
    code = np.full(1 << 20, -32768, np.int16)
    z = release(code, np.zeros(1 << 20, np.int32), 46340)
    assert not z.any()  # the square of its norm is 2^50, far beyond int32: outside of any ball that we allow


@pytest.mark.parametrize(
    ("code", "noise", "clip_norm"),
    [
        (np.zeros(4, np.int32), np.zeros(4, np.int32), 5),
        (np.zeros(4, np.float32), np.zeros(4, np.int32), 5),
        (np.zeros(3, np.int16), np.zeros(4, np.int32), 5),
        (np.zeros((2, 2), np.int16), np.zeros(4, np.int32), 5),
        (np.zeros((2, 2), np.int16), np.zeros((2, 2), np.int32), 5),
        (np.zeros(4, np.int16), np.zeros(4, np.int64), 5),
        (np.zeros(4, np.int16), np.zeros(4, np.float64), 5),
        (None, np.zeros(4, np.int16), 5),
        (np.zeros(4, np.int16), np.zeros(4, np.int32), 0),
        (np.zeros(4, np.int16), np.zeros(4, np.int32), -5),
    ],
)
def test_what_is_no_code_or_no_noise_stops_the_process(code: Any, noise: Any, clip_norm: int) -> None:
    with pytest.raises(PrivacyError):
        release(code, noise, clip_norm)


def record(slot: int, values: list[int]) -> npt.NDArray[np.uint8]:
    """A record as the eye sends it, one byte longer: the receiver's buffer."""
    data = slot.to_bytes(8, "little") + bytes(8) + np.array(values, "<i2").tobytes() + b"\xff"
    return np.frombuffer(data, np.uint8).copy()


def test_a_record_of_the_slot_is_read() -> None:
    data = record(7, [1, -2, 32767, -32768])
    code = read_code(data, len(data) - 1, 7, 4)
    assert code is not None
    assert code.tolist() == [1, -2, 32767, -32768]
    code[:] = 0  # the core wipes what it was given: the record itself
    assert not data[HEADER_BYTES:-1].any()


@pytest.mark.parametrize("received", [-1, 0, 1, 8, 15, 16, 17, 22, 23, 25])
def test_a_record_of_another_length_is_none(received: int) -> None:
    assert read_code(record(7, [1, 2, 3, 4]), received, 7, 4) is None


@pytest.mark.parametrize("slot", [0, 6, 8, 7 + 2**32, 2**63 + 7, 2**64 - 1])
def test_a_record_of_another_slot_is_none(slot: int) -> None:
    data = record(slot, [1, 2, 3, 4])
    assert read_code(data, len(data) - 1, 7, 4) is None


# --- mutants ----------------------------------------------------------------------------------------------------------


def survives(module: Any) -> bool:
    """Whether a core passes everything above, shortened."""
    right = all(made(module, *case) == expected(*case) for case in every_small_case())
    code, noise = np.array([1, 1], np.int16), np.array([5, 6], np.int32)
    module.release(code, noise, 4)
    data = record(7, [1, 2])
    wrong = [module.read_code(data, length, 7, 2) for length in (18, 19, 21)] + [module.read_code(data, 20, 8, 2)]
    read = module.read_code(data, 20, 7, 2)
    return bool(
        right
        and not code.any()
        and not noise.any()
        and all(found is None for found in wrong)
        and read is not None
        and read.tolist() == [1, 2]
    )


def mutant(old: str, new: str) -> ModuleType:
    """The core with one piece of its text replaced."""
    text = _SOURCE.read_text()
    assert text.count(old) == 1, old
    module = ModuleType("mutant")
    exec(compile(text.replace(old, new), "mutant", "exec"), module.__dict__)
    return module


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("mu *= int(mu @ mu) <= clip_norm * clip_norm", "pass"),
        ("<= clip_norm * clip_norm", "< clip_norm * clip_norm"),
        ("<= clip_norm * clip_norm", "<= 4 * clip_norm * clip_norm"),
        ("<= clip_norm * clip_norm", "> clip_norm * clip_norm"),
        ("mu = a.astype(np.int64)", "mu = a.astype(np.int32)"),
        ("int(mu @ mu)", "int(abs(mu).max()) ** 2"),
        ("mu += noise", "mu += noise // 2"),
        ("mu += noise", "pass"),
        ("mu += noise", "mu = noise.astype(np.int64)"),
        ("mu += noise", "mu -= noise"),
        ("np.minimum(np.maximum(mu, -32768), 32767)", "mu"),
        ("np.maximum(mu, -32768)", "mu"),
        ("np.maximum(mu, -32768), 32767", "np.maximum(mu, -32767), 32767"),
        ("for used in (a, mu, noise)", "for used in (mu, noise)"),
        ("for used in (a, mu, noise)", "for used in (a, mu)"),
        ("received != HEADER_BYTES + 2 * n or ", ""),
        (' or int(record[:8].view("<u8")[0]) != slot', ""),
        ("np.zeros(noise.shape, np.int16) if code is None", "np.ones(noise.shape, np.int16) if code is None"),
    ],
)
def test_a_core_with_one_fault_is_caught(old: str, new: str) -> None:
    with contextlib.suppress(PrivacyError, TypeError, ValueError, OverflowError):  # caught as well: it does not run
        assert not survives(mutant(old, new))


def test_the_core_itself_passes_what_catches_the_mutants() -> None:
    check: Callable[[Any], bool] = survives
    assert check(core)
    assert math.isqrt(46340**2) == 46340
