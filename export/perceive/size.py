"""The size of the person network's frame, as an option gives it. No ONNX."""

from __future__ import annotations

import re

from wire.artifact.interface import PERSON_FRAMES, is_person_frame
from wire.errors import ConfigError

__all__ = ["DEFAULT", "size_of"]

DEFAULT = (192, 256)
"""Height and width unless another size is asked for, pixels."""


def size_of(text: str, option: str = "--size") -> tuple[int, int]:
    """Height and width from the value of `option`, such as "192x256".

    Raises:
        ConfigError: It has another form, or is no size that the network takes.
    """
    if not re.fullmatch(r"[0-9]{1,4}x[0-9]{1,4}", text):
        raise ConfigError(f"{option} {text}: give HEIGHTxWIDTH in pixels, such as 192x256")
    height, width = map(int, text.split("x"))
    if not is_person_frame(height, width):
        raise ConfigError(f"{option} {text}: {PERSON_FRAMES}")
    return height, width
