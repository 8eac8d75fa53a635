"""What the renderer returns: frames, and all that is known of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from familial.synth.skeleton import Floats
from familial.synth.tags import Tag

__all__ = ["SEEN", "Annotation", "RenderedClip"]

SEEN = 0.001  # of the picture: who fills less counts as not seen


@dataclass(frozen=True, slots=True)
class Annotation:
    """What happens from `start_s` to `end_s`. For a fall: from where balance is lost to the impact."""

    label: str
    kind: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class RenderedClip:
    """A rendered clip of T frames of H x W pixels with P people (0 in an empty room).

    Attributes:
        frames: (T, H, W, 3) BGR.
        times_s: (T,) seconds.
        label: The clip's label.
        caption: One sentence.
        annotations: What happens when.
        lying_s: Spans in which somebody lies on the floor after a fall, in seconds.
        keypoints: (T, P, 17, 3) x and y in pixels, and visible (0 or 1), in COCO's order.
        silhouettes: (T, H, W): 0 is background, p + 1 is person p.
        identities: (P,) the seed of each person's build and clothes.
        count: (T,) how many people are seen.
        tags: Who lies, crouches, runs, smokes or loiters when.
    """

    frames: NDArray[np.uint8]
    times_s: Floats
    label: str
    caption: str
    annotations: tuple[Annotation, ...]
    lying_s: tuple[tuple[float, float], ...]
    keypoints: NDArray[np.float32]
    silhouettes: NDArray[np.uint8]
    identities: NDArray[np.int64]
    count: NDArray[np.int64]
    tags: tuple[Tag, ...]
