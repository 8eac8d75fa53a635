"""Tower stage: the people tower and both heads of a late fusion, on whole clips; motion and readers are frozen.

    clips --frozen motion tower, plain and augmented--> its features of a clip's slots      once
    people of the same slots, changed anew at each step --people tower--> features
    --both heads--> logits of each tower, and their sum --> the clip's label, or each slot's where it is known

Of most clips of somebody's own only the label is known: a fall is somewhere in them. A sequence of 8 slots of such a
clip may show it or not; the whole clip does. So a loss here is of a clip as `clip_inference.clip_probabilities` asks:
the mean of the odds over its slots.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from familial.data.batches import cells_of, sample_clip
from familial.data.clips import slots
from familial.data.events import UNKNOWN, Grid, LabelledClip, release_label, sample_view, sequence_frames
from familial.data.people_clips import with_new_errors
from familial.data.people_views import changed_people, people_at, tracks_of
from familial.model.desensitizer import LateFusion
from familial.model.family import Family
from familial.model.towers.fused import FusedTower
from familial.train.environments import SetWeights
from wire.errors import ConfigError
from wire.people.packed import Packed

__all__ = ["train_towers"]

_SLOTS = 16  # of a clip in a step, evenly spaced where it has more
_CLIPS = {False: 12, True: 8}  # in a step: of those of which the label alone is known, and of annotated ones
_VERSIONS = 3  # of a clip's motion: as it is, then augmented
_AVERAGE = 0.98  # horizon of the moving average: 50 steps


@dataclass(frozen=True, slots=True)
class _Seen:
    """A clip and what the motion tower says of it, float (V, S, features) of V versions and S slots."""

    clip: LabelledClip
    motion: Tensor


def train_towers(
    family: Family,
    clips: Sequence[LabelledClip],
    shares: Sequence[float],
    steps: int,
    lr: float,
    seed: int,
    seconds: float,
    now: Callable[[], float] = time.monotonic,
    set_variance: float = 0.0,
) -> int:
    """Train the people tower and the fusion of `family` in place; the result is a moving average.

    Args:
        family: with a fused tower and a late fusion.
        clips: to train on.
        shares: how often each label is drawn.
        steps: how many.
        lr: highest learning rate.
        seed: of clips, views and errors.
        seconds: of wall clock, at most.
        now: a clock in seconds.
        set_variance: weight of the variance of the sets' losses, of clips of which the label alone is known.

    Returns:
        How many steps there was time for.

    Raises:
        ConfigError: the family has no late fusion of two towers.
    """
    tower, fusion = family.tower, family.desensitizer.fusion
    if not isinstance(tower, FusedTower) or fusion is None:
        raise ConfigError("--tower-steps: only for a fused tower with a late fusion; train one first")
    began, rng = now(), np.random.default_rng([seed, 5])
    pools = {known: [clip for clip in clips if (clip.annotations is not None) == known] for known in (False, True)}
    seen = {known: [_seen(tower, clip, family, rng) for clip in pool] for known, pool in pools.items() if pool}
    cells = {known: cells_of([each.clip for each in pool], len(shares)) for known, pool in seen.items()}
    learner = nn.ModuleList((tower.people, fusion)).requires_grad_(True).train()
    averages = [parameter.detach().clone() for parameter in learner.parameters()]
    optimiser = torch.optim.AdamW(learner.parameters(), lr=lr, weight_decay=0.02, betas=(0.9, 0.98))
    step, set_weights = 0, SetWeights(set_variance)
    while (done := max(step / steps, (now() - began) / seconds)) < 1.0:
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 20) * (0.5 + 0.5 * math.cos(math.pi * done))
        drawn = [(pool[sample_clip(cells[known], shares, rng)], known) for known, pool in _of_a_step(seen)]
        loss = _loss(tower, fusion, drawn, family, rng, set_weights)
        _learn(learner, optimiser, loss)
        _follow(averages, list(learner.parameters()), 1.0 - min(_AVERAGE, (step + 1) / (step + 10)))
        if step % 50 == 0:
            print(f"towers: step {step}, loss {loss.item():.3f}", flush=True)
        step += 1
    _follow(list(learner.parameters()), averages, 1.0)
    family.eval()
    return step


def _of_a_step(seen: Mapping[bool, list[_Seen]]) -> list[tuple[bool, list[_Seen]]]:
    """For each clip of a step, whether its moments are known, and what it is drawn from."""
    return [(known, pool) for known, pool in seen.items() for _ in range(_CLIPS[known])]


def _learn(learner: nn.Module, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
    optimiser.step()


@torch.no_grad()
def _follow(these: Sequence[Tensor], others: Sequence[Tensor], share: float) -> None:
    """Move these weights towards the others by a share of the way."""
    for one, other in zip(these, others, strict=True):
        one.lerp_(other, share)


@torch.no_grad()
def _seen(tower: FusedTower, clip: LabelledClip, family: Family, rng: np.random.Generator) -> _Seen:
    """What the frozen motion tower says of `_VERSIONS` of a clip; black frames where a clip has none."""
    spec = family.config.window
    count = slots(clip.footage.duration, spec)
    grid = Grid.of(spec, count)
    index, motion = torch.as_tensor(grid.index), tower.motion.eval()
    versions = []
    for version in range(_VERSIONS if len(clip.footage.frames) else 1):
        frames, _, _ = sequence_frames(clip, 0.0, spec.slot_s * count, grid, spec, rng if version else None)
        versions.append(motion.sequence(torch.as_tensor(frames)[None], index)[0])
    return _Seen(clip, torch.stack(versions))


def _loss(
    tower: FusedTower,
    fusion: LateFusion,
    drawn: Sequence[tuple[_Seen, bool]],
    family: Family,
    rng: np.random.Generator,
    set_weights: SetWeights,
) -> Tensor:
    """The mean loss of some clips: of their sum, and of each tower alone."""
    motion, tracks, labels, counts = [], [], list[int](), list[int]()
    for each, _ in drawn:
        total = each.motion.shape[1]
        stride = math.ceil(total / _SLOTS)
        kept = np.arange(int(rng.integers(stride)), total, stride)
        motion.append(each.motion[int(rng.integers(len(each.motion)))][kept])
        tracks.append(_tracks(each.clip, total, kept, family, rng))
        labels += _slot_labels(each.clip, kept, family)
        counts.append(len(kept))
    people = tower.people(torch.as_tensor(np.concatenate(tracks)))
    features = torch.cat((torch.cat(motion), people), dim=1)
    of_slots, of_clips = torch.tensor(labels), torch.tensor([each.clip.label for each, _ in drawn])
    weak = torch.tensor([not known for _, known in drawn])
    sets = [each.clip.set for each, known in drawn if not known]
    of_sets, loss = set_weights.of(sets), torch.zeros(())
    for logits, weight in ((fusion(features), 1.0), *((each, 0.5) for each in fusion.each(features))):
        if sets:
            odds = logits - logits[:, :1]
            means = [torch.logsumexp(part, dim=0) - math.log(len(part)) for part in torch.split(odds, counts)]
            losses = cross_entropy(torch.stack(means)[weak], of_clips[weak], reduction="none")
            loss = loss + weight * (of_sets * losses).mean()
            set_weights.see(sets, losses)
        known = of_slots != UNKNOWN
        if bool(known.any()):
            loss = loss + 0.5 * weight * cross_entropy(logits[known], of_slots[known], label_smoothing=0.02)
    return loss


def _tracks(
    clip: LabelledClip, count: int, kept: npt.NDArray[np.int64], family: Family, rng: np.random.Generator
) -> Packed:
    """Tracks (S, F, TRACKS, VALUES) of the `kept` of a clip's slots, by another camera and with other errors."""
    spec = family.config.window
    grid = Grid.of(spec, count)
    footage = with_new_errors(clip, rng).footage
    people = people_at(footage, 0.0, spec.slot_s * count - grid.before_s, spec)
    view = sample_view(spec.height, spec.width, rng)
    found: Packed = tracks_of(changed_people(people, view, spec.width, rng)[None], grid.index[kept])[0]
    return found


def _slot_labels(clip: LabelledClip, kept: npt.NDArray[np.int64], family: Family) -> list[int]:
    """The labels of slots; UNKNOWN where the clip's label is all that is known."""
    spec = family.config.window
    if clip.annotations is None:
        return [UNKNOWN] * len(kept)
    return [release_label(clip, 0.0, spec.slot_s * (1 + int(slot)), spec.receptive_field_s) for slot in kept]
