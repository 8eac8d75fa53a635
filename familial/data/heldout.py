"""Which clips are held out of a training, to score and calibrate on: whole groups, some of every set and label.

clips --by group--> bool for each: held out?      never a part of a group, never the last group of a label
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

from familial.data.manifests import Clip
from wire.errors import DataError

__all__ = ["held_out", "told"]

_MOST = 1 / 3  # of a label's clips that one split may take, where smaller groups are there

_Kind = tuple[str, str]  # set or "", label
_Group = tuple[str, str]  # set, group


def held_out(clips: Sequence[Clip], share: float) -> list[bool]:
    """Choose the clips to hold out; the same in every call, and whatever the order of the rows.

    Args:
        clips: rows of manifests.
        share: of the clips of each set and label, 0 to 0.5.

    Returns:
        For each clip, whether it is held out. A label all of whose clips are one group is never held out.

    Raises:
        DataError: clips of fewer than two labels, which nothing can be learned from.
    """
    labels = sorted({clip.label for clip in clips})
    if len(labels) < 2:
        raise DataError(
            f"every clip is {', '.join(labels)!r}; a family learns from two labels or more: add clips of another, or "
            "rendered ones with --rendered 300"
        )
    groups: dict[_Group, Counter[_Kind]] = defaultdict(Counter)
    for clip in clips:
        groups[clip.set, clip.group].update([(clip.set, clip.label), ("", clip.label)])
    chosen = _chosen(groups, share) if share else set()
    return [(clip.set, clip.group) in chosen for clip in clips]


def _chosen(groups: dict[_Group, Counter[_Kind]], share: float) -> set[_Group]:
    """The groups to hold out: small ones first, then in an order that no name's alphabet decides."""
    total: Counter[_Kind] = sum(groups.values(), Counter())
    of_label = Counter(label for kinds in groups.values() for set_, label in kinds if not set_)
    held, held_groups, chosen = Counter[_Kind](), Counter[str](), set[_Group]()
    order = sorted(groups, key=lambda key: (sum(groups[key].values()), hashlib.sha256(repr(key).encode()).digest()))
    for least in (False, True):  # first every set and label, then the labels of which nothing is held out yet
        for key in order:
            own = groups[key]
            names = [label for set_, label in own if not set_]
            last = any(held_groups[label] + 1 >= of_label[label] for label in names)
            wanted = any(
                (held[set_, label] == 0) if least else held[set_, label] + 0.5 < share * total[set_, label]
                for set_, label in own
                if bool(set_) != least
            )
            large = any(held["", label] + own["", label] > max(1.0, _MOST * total["", label]) for label in names)
            if key in chosen or last or not wanted or (large and not least):
                continue
            chosen.add(key)
            held.update(own)
            held_groups.update(names)
    return chosen


def told(clips: Sequence[Clip], held: Sequence[bool]) -> str:
    """What was held out, and of which labels nothing could be, in a line for people."""
    counts = Counter(clip.label for clip, out in zip(clips, held, strict=True) if out)
    groups = {(clip.set, clip.group) for clip, out in zip(clips, held, strict=True) if out}
    none = sorted({clip.label for clip in clips} - set(counts))
    line = f"held out: {sum(held)} of {len(clips)} clips, {len(groups)} groups"
    line += "".join(f", {count} {label}" for label, count in sorted(counts.items()))
    if none:
        line += f"; none of {', '.join(none)}: give clips of two groups or more of each, or --rendered 300"
    return line
