"""Other defaults of a function that its callers under test do not pass."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest


def set_defaults(monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any], **values: Any) -> None:
    """Change defaults by name: a parameter that comes or goes elsewhere in the list moves none of them.

    Args:
        monkeypatch: Sets them back after the test.
        function: Whose.
        values: The new ones.

    Raises:
        TypeError: A name has no default there.
    """
    found = inspect.signature(function).parameters.values()
    defaults = {one.name: one.default for one in found if one.default is not one.empty and one.kind != one.KEYWORD_ONLY}
    if unknown := values.keys() - defaults.keys():
        raise TypeError(f"{function.__name__} has no default of {', '.join(sorted(unknown))}")
    monkeypatch.setattr(function, "__defaults__", tuple((defaults | values).values()))
