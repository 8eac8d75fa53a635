"""`python -m benchmarks.mistakes --data MANIFEST.csv`: the clips that a family gets most wrong, as skeletons.

    clips --tower--> clean codes + noise samples --member--> label probabilities, decisions of every noise sample
    those whose commonest decision is wrong --mean probability of the true label, lowest first--> ten mistakes
    of each: the people that the person network found, as the tower follows them, at seven moments     `--picture`

At most two mistakes are of one group: ten of one room would teach one thing. A clip of more than ten seconds is shown
for eight, about the event of most risk. A picture has key points and the name of a clip's set: no pixel of a clip, and
no file's name. Without --data, rendered clips are read whose seeds training never uses.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import add_checkpoint
from benchmarks.model.mistake_strips import Strip, draw
from benchmarks.runner import Benchmark, Report, write_text
from wire.arguments import at_least_one, former_name

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from familial.data.clips import Clip, Footage
    from familial.model.family import Family

__all__ = ["COMMAND", "Reading", "worst"]

_WORST, _OF_A_GROUP = 10, 2
_MOMENTS = 7
_WHOLE_S, _BEFORE_S, _SHOWN_S = 10.0, 3.0, 8.0  # a longer clip is shown from so long before its event, for so long


@dataclass(frozen=True, slots=True)
class Reading:
    """What a family says of one clip.

    Attributes:
        clip: the row of a manifest, or one made for a rendered clip.
        footage: with its people.
        truth: index of its label.
        said: index of the commonest decision over the noise samples; of equal ones, the first.
        agreed: share of the noise samples that decide so.
        mean: label probabilities float64 (L,), mean over the noise samples.
        clean: the same without noise.
        event_s: where the event of most risk begins, seconds from the clip's start.
    """

    clip: Clip
    footage: Footage
    truth: int
    said: int
    agreed: float
    mean: npt.NDArray[np.float64]
    clean: npt.NDArray[np.float64]
    event_s: float


def _options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--data", nargs="+", type=Path, default=[], metavar="MANIFEST.csv")
    parser.add_argument("--rendered", type=at_least_one, default=150, help="clips to render where there is no --data")
    parser.add_argument("--member", choices=("edge", "cloud"), default="cloud")
    count = parser.add_argument(
        "--noise-samples", type=at_least_one, default=20, metavar="N", help="of each clip (default 20)"
    )
    former_name(parser, "--draws", count)
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw the mistakes as skeletons")


def _measure(args: argparse.Namespace) -> Report:
    import torch

    from familial.evaluate.clip_inference import sigma_of
    from familial.model import checkpoint

    torch.manual_seed(0)
    family = checkpoint.load(args.checkpoint)
    sigma = float(sigma_of(args.checkpoint, family, None)[1])
    found = [
        _read(family, clip, footage, args.member, sigma, args.noise_samples)
        for clip, footage in _clips(family, args.data, args.rendered)
    ]
    labels, wrong = family.config.labels, [each for each in found if each.said != each.truth]
    shown = [(each, _strip(each, labels)) for each in worst(found)]
    if args.picture:
        write_text(args.picture, draw([strip for _, strip in shown]))
    named = sum(each.truth != _commonest([other.truth for other in found]) for each in found)
    notes = [f"{len(wrong)} of {len(found)} clips are mostly called something else, {args.noise_samples} noise samples"]
    figures = {
        "clips": len(found),
        "mistaken": len(wrong),
        "of_sets": dict(Counter(each.clip.set for each in wrong)),
        "member": args.member,
        "noise_samples": args.noise_samples,
        "worst": [_figures(each, strip) for each, strip in shown],
    }
    return Report(len(wrong) / named if named else None, figures, _rows(shown), notes)


# --- what is read


def _clips(family: Family, manifests: Sequence[Path], rendered: int) -> Iterator[tuple[Clip, Footage]]:
    """The manifests' clips with their people, whatever the family's tower sees; without manifests, rendered ones."""
    from familial.data.clips import UNSCORED, Clip, fill_cache, read_clip, read_manifests
    from familial.data.people import PERCEIVE
    from familial.data.sources import rendered_clips
    from familial.data.splits import clip_seeds

    labels, spec = family.config.labels, family.config.window
    if manifests:
        rows = [clip for clip in read_manifests(manifests, labels) if clip.label != UNSCORED]
        fill_cache([clip.file for clip in rows], spec, perceive=PERCEIVE)
        yield from ((clip, read_clip(clip.file, spec, perceive=PERCEIVE)) for clip in rows)
        return
    seeds = clip_seeds("mistakes", rendered)
    for seed, made in zip(seeds, rendered_clips(seeds, labels, spec, processes=1), strict=True):
        yield Clip(Path(str(seed)), str(seed), labels[made.label], made.set, str(seed), ""), made.footage


def _read(family: Family, clip: Clip, footage: Footage, member: str, sigma: float, samples: int) -> Reading:
    from familial.evaluate.clip_inference import clip_codes, clip_probabilities, decide, event_probabilities
    from familial.model.code_space import rounded_gaussian
    from wire.protocol.event import level_weight

    config, codes = family.config, clip_codes(family, footage)[None]
    z = codes.repeat(samples, 1, 1, 1)
    z = (z + rounded_gaussian(z, sigma)) * level_weight(config.sigma, sigma)  # as the bridge does
    events = event_probabilities(family, z, member)  # (D, E, L)
    of_clip = clip_probabilities(events)  # (D, L)
    decided = [decide(row, config.decision_threshold)[0] for row in of_clip]
    said = _commonest(decided)
    return Reading(
        clip,
        footage,
        config.labels.index(clip.label),
        said,
        decided.count(said) / samples,
        of_clip.mean(axis=0),
        clip_probabilities(event_probabilities(family, codes, member))[0],
        config.window.slot_s * int(events[:, :, 0].mean(axis=0).argmin()),
    )


def _commonest(labels: Sequence[int]) -> int:
    return max(range(1 + max(labels)), key=labels.count)


def worst(found: Sequence[Reading], count: int = _WORST, of_a_group: int = _OF_A_GROUP) -> list[Reading]:
    """The mistakes with the lowest mean probability of the true label, lowest first; at most so many of a group."""
    kept, groups = list[Reading](), Counter[tuple[str, str]]()
    for each in sorted(found, key=lambda each: each.mean[each.truth]):
        group = each.clip.set, each.clip.group
        if each.said != each.truth and groups[group] < of_a_group and len(kept) < count:
            groups[group] += 1
            kept.append(each)
    return kept


# --- what is shown


def _strip(found: Reading, labels: Sequence[str]) -> Strip:
    """The moments of a mistake, of people as a window's tracks are formed from them."""
    import numpy as np

    from wire.people.tracks import form_tracks

    footage = found.footage
    assert footage.people is not None and footage.people_times is not None  # `_clips` reads with the network
    begin_s, length_s = _stretch(footage.duration, found.event_s)
    inside = (footage.people_times >= begin_s - 1e-6) & (footage.people_times <= begin_s + length_s)
    times = footage.people_times[inside]
    tracks = form_tracks(footage.people[inside][None])[0]  # (T, TRACKS, VALUES)
    wanted = begin_s + length_s * (np.arange(_MOMENTS) + 0.5) / _MOMENTS
    return Strip(
        labels[found.truth],
        labels[found.said],
        found.agreed,
        float(found.mean[found.said]),
        float(found.mean[found.truth]),
        float(found.clean[found.truth]),
        found.clip.set,
        times,
        tracks,
        np.abs(times[:, None] - wanted).argmin(axis=0),
    )


def _stretch(duration: float, event_s: float) -> tuple[float, float]:
    """Where the shown part of a clip begins, and its length, in seconds."""
    if duration <= _WHOLE_S:
        return 0.0, duration
    return min(max(0.0, event_s - _BEFORE_S), duration - _SHOWN_S), _SHOWN_S


def _figures(found: Reading, strip: Strip) -> dict[str, Any]:
    return {
        "file": found.clip.name,
        "set": found.clip.set,
        "group": found.clip.group,
        "label": strip.label,
        "said": strip.said,
        "agreed": strip.agreed,
        "probability_said": round(strip.sure, 4),
        "probability_true": round(strip.true, 4),
        "probability_true_without_noise": round(strip.clean, 4),
        "seen": round(strip.seen, 4),
        "people": strip.people,
        "size": round(strip.size, 4),
    }


def _rows(shown: Sequence[tuple[Reading, Strip]]) -> list[tuple[str, ...]]:
    head = ("", "set", "true", "said", "sure", "P(true)", "no noise", "seen", "people", "size", "note")
    rows = list[tuple[str, ...]]([head])
    for number, (found, strip) in enumerate(shown, 1):
        chances = f"{strip.sure:.2f}", f"{strip.true:.3f}", f"{strip.clean:.3f}"
        sight = f"{strip.seen:.2f}", str(strip.people), f"{strip.size:.2f}"
        rows.append((str(number), strip.set, strip.label, strip.said, *chances, *sight, found.clip.note))
    return rows


COMMAND = Benchmark(
    "mistakes",
    __doc__,
    "the mistakes of saying the commonest label of every clip",
    _options,
    _measure,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
