"""Rendered clips -> the clean codes of every event, with what the clip shows at the event's end.

seeds --rendered_clips--> clips with frames and exact people --clip_codes--> codes --8 in a row--> Samples

Codes are for noise to be added to and never leave the process.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from familial.contour.truth import Shown, shown_by
from familial.data.events import LabelledClip
from familial.data.sources import rendered_clips
from familial.evaluate.clip_inference import clip_codes
from familial.model.code_space import rounded_gaussian
from familial.model.family import Family
from wire.errors import DataError

__all__ = ["Samples", "gather", "noised"]

_SAY_S = 10.0  # between lines of progress


@dataclass(frozen=True, slots=True)
class Samples:
    """N events.

    Attributes:
        codes: float (N, R, K, d) clean, zeros before the stream's begin.
        present: bool (N, R).
        shown: Of the last slot's end.
        clip: int64 (N,) which clip.
    """

    codes: Tensor
    present: Tensor
    shown: Shown
    clip: npt.NDArray[np.int64]


def gather(family: Family, seeds: Sequence[int], processes: int = 1, say: bool = False) -> Samples:
    """Render, or read from the cache, and encode; an event at the end of every slot of each clip.

    Raises:
        DataError: No clip is long enough for a slot.
    """
    config = family.config
    made, began, told = list[tuple[Tensor, Tensor, Shown]](), time.monotonic(), time.monotonic()
    clips = rendered_clips(seeds, config.labels, config.window, processes)
    for number, clip in enumerate(clips, 1):
        made.append(_events(family, clip))
        if say and time.monotonic() - told > _SAY_S:
            told = time.monotonic()
            print(f"encoded {number}/{len(seeds)} clips in {told - began:.0f} s", flush=True)
    if not any(len(codes) for codes, _, _ in made):
        raise DataError(f"{len(seeds)} rendered clips: none has a whole slot; give more with --clips")
    return Samples(
        torch.cat([codes for codes, _, _ in made]),
        torch.cat([present for _, present, _ in made]),
        _joined([shown for _, _, shown in made]),
        np.repeat(np.arange(len(made)), [len(codes) for codes, _, _ in made]),
    )


def noised(codes: Tensor, sigma: float) -> Tensor:
    """z of clean codes: each release with a noise sample of its own, in lattice units; `codes` where sigma is 0."""
    return codes + rounded_gaussian(codes, sigma) if sigma > 0 else codes


def _events(family: Family, clip: LabelledClip) -> tuple[Tensor, Tensor, Shown]:
    config = family.config
    slots = int(clip.footage.duration / config.window.slot_s + 1e-6)
    with torch.inference_mode():
        codes = clip_codes(family, clip.footage)[:slots]
    before = torch.zeros(config.event_releases - 1, *codes.shape[1:])
    padded = torch.cat((before, codes))
    places = torch.arange(len(codes))[:, None] + torch.arange(config.event_releases)
    ends = config.window.slot_s * np.arange(1, len(codes) + 1, dtype=np.float64)
    return padded[places], places >= len(before), shown_by(clip, ends, config.labels)


def _joined(parts: Iterable[Shown]) -> Shown:
    every = list(parts)
    return Shown(**{each.name: np.concatenate([getattr(part, each.name) for part in every]) for each in fields(Shown)})
