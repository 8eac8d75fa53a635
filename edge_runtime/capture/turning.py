"""Stands the pictures of a camera upright that is mounted on its side or upside down: `[camera] rotate`.

    source --frames, as they come--> turned --frames, upright--> everything else of the capture thread

A film whose own metadata says how it is held is turned by OpenCV as it is decoded; this turns what comes then. Two
buffers hold a picture, the decoder's and an upright one: the first is overwritten here, the second by who fetched it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from edge_runtime.capture.sources import Frame, Picture, unreadable

__all__ = ["as_mounted", "turned"]


def turned(frames: Iterator[Frame], degrees: int) -> Iterator[Frame]:
    """Return `frames` with their pictures upright; they themselves, where nothing is to be turned.

    Args:
        frames: Of a source.
        degrees: Clockwise, by which a picture must be turned to stand upright: 0, 90, 180 or 270.
    """
    if degrees == 0:
        return frames
    turn = _Turn(degrees)
    return ((at_s, fetch if fetch is unreadable else partial(turn.upright, fetch)) for at_s, fetch in frames)


def as_mounted(height: int, width: int, degrees: int) -> tuple[int, int]:
    """Height and width of a picture before it is turned, where they are `height` and `width` after it."""
    return (width, height) if degrees in (90, 270) else (height, width)


class _Turn:
    """Turns one picture after the other into one buffer."""

    def __init__(self, degrees: int) -> None:
        self._quarters = degrees // 90
        self._held: Picture | None = None

    def upright(self, fetch: Callable[[], Picture | None]) -> Picture | None:
        """Fetch a picture and turn it; what was fetched is overwritten."""
        picture = fetch()
        if picture is None:
            return None
        if picture.ndim == 2:  # a synthetic scene, which needs no OpenCV: a view
            return np.rot90(picture, -self._quarters)
        import cv2

        codes = (cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_COUNTERCLOCKWISE)
        self._held = np.asarray(cv2.rotate(picture, codes[self._quarters - 1], self._held), np.uint8)
        picture[:] = 0
        return self._held
