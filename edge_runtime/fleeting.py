"""Arrays that must not outlive their use: pictures, noise, the sampler's working memory."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from wire.errors import PrivacyError

__all__ = ["Fleeting"]


class Fleeting:
    """An array that is zeroed when its `with` block ends, is not shown by `repr` and cannot be pickled."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._array = array

    def wipe(self) -> None:
        """Zero the array."""
        self._array.fill(0)

    def __enter__(self) -> npt.NDArray[Any]:
        return self._array

    def __exit__(self, *_: object) -> None:
        self.wipe()

    def __reduce__(self) -> tuple[object, ...]:
        raise PrivacyError(f"a {type(self).__name__} never leaves the process")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self._array.shape})"
