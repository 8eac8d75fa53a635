"""What a training learns from and what it is held against: rendered clips and those of manifests, split by group.

options --rendered_clips, read_manifests--> Material: rendered, real --heldout--> to train on | to calibrate on

Nothing is ever calibrated on what was trained on: held out are rendered clips of seeds of their own, or whole groups
of the manifests' clips where there are none, or where labels are that nobody renders.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

from familial.data.clips import UNSCORED, Clip, read_manifests
from familial.data.events import LabelledClip
from familial.data.heldout import held_out, told
from familial.data.people_clips import people_clips
from familial.data.sources import manifest_clips, rendered_clips
from familial.data.splits import clip_seeds
from familial.evaluate.footage import graph_for
from familial.evaluate.life import everyday
from familial.model.config import FamilyConfig
from familial.model.towers.registry import tower_class
from familial.synth.actions.catalogue import AIDED_TO_TRAIN, ENCOUNTERS
from familial.train.budget import Budget, minutes_text
from familial.train.labels import rendered_labels, tagged
from wire.errors import ConfigError

__all__ = ["Material", "gather"]

_EVERYDAY_S = 40.0  # length of a clip of an ordinary day
_SAY_S = 10.0  # between lines of progress


@dataclass(frozen=True, slots=True)
class Material:
    """All clips of one command.

    Attributes:
        rendered: to train on.
        validation: rendered clips that are held out.
        rows: of the manifests.
        real: their clips, in the same order.
        share: of the manifests' clips that `split` holds out; 0: none.
    """

    rendered: Sequence[LabelledClip]
    validation: Sequence[LabelledClip]
    rows: Sequence[Clip]
    real: Sequence[LabelledClip]
    share: float

    def split(self, chosen: Sequence[bool]) -> tuple[list[LabelledClip], list[LabelledClip]]:
        """Part the clips into those to train on and those held out. chosen: which of the manifests' may be used."""
        rows = [row for row, used in zip(self.rows, chosen, strict=True) if used]
        real = [clip for clip, used in zip(self.real, chosen, strict=True) if used]
        out = [False] * len(rows)
        if self.share and rows:
            out = held_out(rows, self.share)
            print(told(rows, out), flush=True)
        kept = [clip for clip, held in zip(real, out, strict=True) if not held]
        held = [clip for clip, held in zip(real, out, strict=True) if held]
        return [*self.rendered, *kept], [*self.validation, *held]


def gather(args: argparse.Namespace, config: FamilyConfig, budget: Budget) -> Material:
    """Render and decode what the options of `familial.train` ask for.

    Raises:
        ConfigError: nothing to train on, a share that is none, or clips that would take most of the time.
        DataError: clips that are not as they should be.
    """
    alone = _people_alone(args)
    if not args.data and not args.rendered and not any(seeds for seeds, _ in alone.values()):
        raise ConfigError("nothing to train on: give --data MANIFEST.csv, --rendered N, --people N or several of them")
    for use, (own, _) in alone.items():
        if own and not tower_class(config.tower).sees_people:
            raise ConfigError(f"--{use} {len(own)}: the tower {config.tower!r} sees no people; give --tower fused")
    if not 0.0 <= args.held_out <= 0.5:
        raise ConfigError(f"--held-out {args.held_out:g}: a share of the manifests' clips; give 0 to 0.5")
    labels = config.labels
    rows = [row for row in read_manifests(args.data, labels) if row.label != UNSCORED] if args.data else []
    render = partial(rendered_clips, labels=labels, spec=config.window, processes=args.processes)
    # features of clips that it learned from flatter a frozen tower
    seeds = (
        clip_seeds("fusion", args.rendered)
        if args.freeze_motion or args.tower_steps
        else clip_seeds("training", args.rendered)
    )
    rendered = _with_progress(render(seeds), args.rendered, budget)
    for use, (own, kinds) in alone.items():
        seconds = _EVERYDAY_S if use == "everyday" else None
        made = people_clips(own, labels, config.window, args.processes, kinds, seconds)
        rendered += [replace(clip, set="people") for clip in _with_progress(made, len(own), budget, use)]
    validation = list(render(clip_seeds("held_out", args.rendered // 10)))
    rendered, validation = ([tagged(clip, labels) for clip in clips] for clips in (rendered, validation))
    unseen = {row.label for row in rows} - rendered_labels(labels)
    share = args.held_out if unseen or not validation else 0.0
    real = manifest_clips(rows, labels, config.window, args.processes, graph_for(config, args.perceive))
    return Material(rendered, validation, rows, real, share)


def _people_alone(args: argparse.Namespace) -> dict[str, tuple[range, tuple[str, ...]]]:
    """Option -> seeds of the clips of people without a picture that it asks for, and the kinds that they show."""
    counts = {use: getattr(args, use, 0) for use in ("people", "encounters", "aided", "everyday")}
    return {  # a command without an option asks for none
        "people": (clip_seeds("people", counts["people"]), ()),
        "encounters": (clip_seeds("encounters", counts["encounters"]), ENCOUNTERS),
        "aided": (clip_seeds("aided", counts["aided"]), AIDED_TO_TRAIN),
        "everyday": (clip_seeds("everyday", counts["everyday"]), everyday()),
    }


def _with_progress(
    clips: Generator[LabelledClip], total: int, budget: Budget, option: str = "rendered"
) -> list[LabelledClip]:
    began, shown, found, since = time.monotonic(), time.monotonic(), list[LabelledClip](), budget.spent
    with closing(clips):  # its processes end where the budget refuses
        for clip in clips:
            found.append(clip)
            now = time.monotonic()
            if now - shown > _SAY_S or len(found) == total:
                shown, spent = now, now - began
                left = minutes_text(spent * (total - len(found)) / len(found))
                print(f"rendered {len(found)}/{total} in {spent:.0f} s, about {left} left", flush=True)
            budget.refuse_slow(len(found), total, f"rendering {total} clips", f"a smaller --{option}", since)
    return found
