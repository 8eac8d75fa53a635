"""The graphs of an engine folder: their files, and the names, dtypes and shapes of what goes in and comes out.

    one frame in colour --perceive--> six heads --wire.people: decode, pack, form_tracks--> people of a window
    frames (and people) of a window --encode--> mu          z of an event, which of it arrived --decide--> label logits

`perceive` is there where the family's tower sees people; without it, `encode` reads frames alone. A shape is a list, as
JSON has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wire.people.decode import HEADS, STRIDE
from wire.people.packed import VALUES
from wire.people.tracks import TRACKS

__all__ = ["GRAPHS", "PERSON_FRAMES", "decide", "encode", "is_person_frame", "perceive"]

GRAPHS: Mapping[str, str] = {"perceive": "perceive.onnx", "encode": "encode.onnx", "decide": "decide.onnx"}
"""Graph -> its file in an engine folder."""
_MULTIPLE = 32  # the person network halves a side five times
_LARGEST = 2048  # pixels of a side
PERSON_FRAMES = f"both sides must be multiples of {_MULTIPLE} up to {_LARGEST}, such as 192 x 256"
"""Which frames the person network takes, in words."""

_Graph = dict[str, dict[str, Any]]


def is_person_frame(height: int, width: int) -> bool:
    """Whether the person network takes frames of this size, in pixels: see PERSON_FRAMES."""
    return all(_MULTIPLE <= side <= _LARGEST and side % _MULTIPLE == 0 for side in (height, width))


def perceive(height: int, width: int) -> _Graph:
    """One frame of `height` x `width` pixels, RGB -> the heads, in cells of STRIDE pixels."""
    cells = [height // STRIDE, width // STRIDE]
    return {
        "inputs": {"frame": ["uint8", [1, height, width, 3]]},
        "outputs": {name: ["float32", [1, count, *cells]] for name, count in HEADS.items()},
    }


def encode(frames: Sequence[int], tokens: int, width: int, people: bool) -> _Graph:
    """Frames (F, H, W) of a window, with `people` also the tracks of the people in them -> a code (K, d)."""
    inputs: dict[str, Any] = {"frames": ["uint8", [1, *frames]]}
    if people:
        inputs["people"] = ["int32", [1, frames[0], TRACKS, VALUES]]
    return {"inputs": inputs, "outputs": {"mu": ["int32", [1, tokens, width]]}}


def decide(releases: int, tokens: int, width: int, labels: int) -> _Graph:
    """z of an event of R releases, and which of them arrived -> label logits."""
    return {
        "inputs": {"z": ["int32", [1, releases, tokens, width]], "present": ["bool", [1, releases]]},
        "outputs": {"logits": ["float32", [1, labels]]},
    }
