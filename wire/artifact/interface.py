"""The graphs of an engine folder: their files, and the names, dtypes and shapes of what goes in and comes out.

    one frame in colour --perceive--> six heads --wire.people: decode, pack, form_tracks--> people of a window
    frames (and people) of a window --encode--> mu          z of an event, which of it arrived --decide--> label logits

`perceive` is there where the family's tower sees people; without it, `encode` reads frames alone. A shape is a list, as
JSON has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wire.errors import ManifestError
from wire.people.decode import HEADS, STRIDE
from wire.people.packed import VALUES
from wire.people.tracks import TRACKS

__all__ = ["GRAPHS", "MULTIPLE", "check_person_frame", "decide", "encode", "perceive"]

GRAPHS: Mapping[str, str] = {"perceive": "perceive.onnx", "encode": "encode.onnx", "decide": "decide.onnx"}
"""Graph -> its file in an engine folder."""
MULTIPLE = 32
"""The sides of the person network's frame are multiples of this, by its five halvings."""

_LARGEST = 2048  # pixels of a side
_Graph = dict[str, dict[str, Any]]


def check_person_frame(height: int, width: int, name: str, cure: str) -> None:
    """Check the size of the person network's frame.

    Args:
        height: Pixels.
        width: Pixels.
        name: Of the field, for the message.
        cure: What to do, for the message.

    Raises:
        ManifestError: A side is no multiple of MULTIPLE, or is too large.
    """
    for side in (height, width):
        if not MULTIPLE <= side <= _LARGEST or side % MULTIPLE:
            raise ManifestError(
                f"{name} is {height} x {width}; both sides must be multiples of {MULTIPLE} up to {_LARGEST}, such as "
                f"192 x 256; {cure}"
            )


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
