"""Reads a JSON text that anybody may have written: bounded in bytes, depth and digits before it is parsed.

    payload --bytes, escapes, depth, number of values, digits--> json.loads --finite numbers, no name twice--> value

Python's parser recurses with the depth of a text, makes integers of any length in quadratic time, and takes NaN and
1e999. A backslash outside of a text ends the parse with an error, so what stands between quotes can be told from the
rest without one.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

__all__ = ["read_json"]

_MAX_DIGITS = 24  # of a number, sign, point and exponent included: a double has 17 and an exponent
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_NUMBER = re.compile(rb"[-+0-9.eE]{%d}" % (_MAX_DIGITS + 1))


def read_json(payload: bytes, most_bytes: int, depth: int, values: int) -> dict[str, Any]:
    """Parse a JSON object in time linear in its length.

    Args:
        payload: The text as it came.
        most_bytes: It may have.
        depth: How deep objects and arrays may be in each other; 1: a flat object.
        values: How many values it may have: commas, objects and arrays are counted.

    Raises:
        ValueError: It is no JSON object within these bounds.
    """
    if len(payload) > most_bytes:
        raise ValueError(f"{len(payload)} bytes, at most {most_bytes} are read")
    structure = b"".join(_ESCAPED.sub(b"", payload).split(b'"')[::2])
    found = level = 0
    for mark in re.findall(rb"[\[\]{},]", structure):
        found += mark not in b"]}"
        level += (mark in b"[{") - (mark in b"]}")
        if level > depth or found > values:
            raise ValueError(f"too deep or too many: at most {depth} deep and {values} values are read")
    if _NUMBER.search(structure):
        raise ValueError(f"a number of more than {_MAX_DIGITS} digits")
    value = json.loads(payload.decode(), parse_float=_finite, parse_constant=_refuse, object_pairs_hook=_once)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError("a number without end")
    return value


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field twice")
    return found
