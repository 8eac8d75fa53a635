"""What `encode` reads of the windows of one clip, as a device would give it: frames, and tracks of the people in them.

Footage --windows--> frames u8 (1, F, H, W)        --people_at, form_tracks--> people int32 (1, F, TRACKS, VALUES)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from familial.data.clips import Footage, windows
from familial.data.people_views import people_at
from wire.artifact.manifest import WindowSpec
from wire.people.tracks import form_tracks

__all__ = ["Feed", "encode_feeds"]

Feed = dict[str, npt.NDArray[Any]]
"""Input of the graph -> its value."""


def encode_feeds(footage: Footage, ends: Sequence[float], spec: WindowSpec, with_people: bool) -> list[Feed]:
    """Make the inputs of `encode` for the slots that end at `ends`.

    Args:
        footage: With people, where they are asked for.
        ends: Seconds of the clip's clock.
        spec: Of the windows.
        with_people: The family sees people.

    Raises:
        DataError: People are asked for, and the clip has none.
    """
    feeds: list[Feed] = [{"frames": window[None]} for window in windows(footage, ends, spec)]
    if with_people:
        people = np.stack([people_at(footage, 0.0, end - np.asarray(spec.offsets_s), spec) for end in ends])
        for feed, tracks in zip(feeds, form_tracks(people), strict=True):
            feed["people"] = tracks[None].astype(np.int32)
    return feeds
