"""Clips of manifests as blocks of life and of risks, for alerts to be calibrated and measured on.

manifest rows --clip_codes--> of no risk: the releases while the clip plays, by set    `Block`s of normal life
--> of a risk: all of them, and of falls also their end, looped    `Block`s of risks
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from familial.data.clips import read_manifests
from familial.evaluate.clip_inference import clip_codes
from familial.evaluate.footage import family_footage
from familial.evaluate.life import Block
from familial.evaluate.life_readings import looped
from familial.evaluate.lying import LOW
from familial.model.family import Family
from wire.errors import DataError

__all__ = ["clip_blocks", "left_out_of", "releases_by_kind"]

_LAST = 4  # releases at the end of a fall that are looped


def clip_blocks(
    family: Family, manifests: Sequence[Path], names: set[str] | None = None
) -> tuple[list[Block], list[Block]]:
    """Encode the clips of manifests: (normal life, risks).

    Args:
        family: that encodes them. Where it has the attribute `low`, the end of each fall is looped as well.
        manifests: CSV files; an onset that they know is the risk's, else the clip's start is.
        names: of the clips that may be read; None: all.

    Raises:
        DataError: there is no clip of no risk, or none of a risk.
    """
    config = family.config
    slot_s, normal, risks = config.window.slot_s, list[Block](), list[Block]()
    for clip in read_manifests(manifests, config.labels):
        if clip.label not in config.labels or (names is not None and clip.name not in names):
            continue
        footage = family_footage(clip.file, config)
        playing = max(1, math.ceil(footage.duration / slot_s))
        codes, source = clip_codes(family, footage), f"{clip.set} {clip.group}"
        if clip.label == config.labels[0]:
            normal.append(Block(clip.set, codes[:playing], source))
            continue
        risk = Block(clip.label, codes, source, (clip.onset_s or 0.0) / slot_s, (max(0, playing - _LAST), playing))
        stays = looped(risk, slot_s) if clip.label == "fall" and LOW in config.attributes else None
        risks += [replace(risk, lying=(0, 0)), *([stays] if stays else [])]
    if not normal or not risks:
        raise DataError("--data: clips of no risk and of a risk are needed; one of them is missing")
    return normal, risks


def left_out_of(checkpoint: Path) -> set[str] | None:
    """Names of the clips that a fold's training left out; None for a checkpoint that is no fold.

    Raises:
        DataError: the list is damaged.
    """
    path = checkpoint / "left_out.json"
    try:
        return set(json.loads(path.read_text())) if path.is_file() else None
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: unreadable ({error!r}); train the fold again") from error


def releases_by_kind(blocks: Sequence[Block]) -> dict[str, float]:
    """Kind of life -> number of its releases."""
    counts: Counter[str] = Counter()
    for block in blocks:
        counts[block.kind] += len(block.codes)
    return {kind: float(count) for kind, count in counts.items()}
