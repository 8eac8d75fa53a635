"""Five minutes of a place as carrier tokens, a small head that reads them, and what costs next to nothing instead.

    normal clips of a place, in random order --300 events before a clip, + noise--> the deeper exit: state, log odds
                                                                  = one carrier token each, 77 kB of nano
    a clip's events --the same exit--> state, log odds --`CarrierHead` looks at the carriers--> log odds, corrected

One token a moment, kept instead of all its tokens, is VideoScan's idea (arXiv 2503.09387; we had its abstract). Letters
in shapes: D noise samples, E events of a clip, M carriers, H width of the backbone, P risks.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from familial.data.clips import Clip
from familial.evaluate.clip_inference import events_of
from familial.model.decoders.verdict import cloud_exit, edge_exit
from familial.model.family import Family

__all__ = ["CarrierHead", "Told", "Watched", "discounted", "told", "trained_head", "watched"]

_INNER, _HEADS = 32, 2
_CLIPS, _EVENTS = 32, 12  # of a step, and of each of its clips
_LR, _WARM = 1e-3, 20
_BATCH = 256  # events in one forward


@dataclass(frozen=True, slots=True, eq=False)
class Watched:
    """A clip, and normal life that its camera saw before it.

    Attributes:
        row: of the manifest.
        truth: label index.
        codes: clean, float (S, K, d).
        life: clean codes of other, normal clips of the place.
    """

    row: Clip
    truth: int
    codes: Tensor
    life: Sequence[Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What the exits say of a watched clip under D noise samples, each with an order of its place's life of its own.

    Attributes:
        edge: log odds of each risk against label 0, float (D, E, P), of the edge's exit.
        odds: the same of the deeper exit.
        states: of the deeper exit, after its norm, half (D, E, H).
        past: log odds float (D, M, P) of the events before the clip, oldest first.
        carriers: their states, half (D, M, H).
    """

    edge: Tensor
    odds: Tensor
    states: Tensor
    past: Tensor
    carriers: Tensor


def watched(rows: Sequence[Clip], truth: Sequence[int], codes: Sequence[Tensor], seed: int) -> list[Watched]:
    """Give each clip the normal life of its place: of every place with two normal clips or more.

    A normal clip is not part of its own past. So a risk's past lacks one of them as well, drawn at random: how many
    clips a past is made of says nothing about the label.
    """
    places, rng = defaultdict[tuple[str, str], list[int]](list), np.random.default_rng(seed)
    for index, row in enumerate(rows):
        if truth[index] == 0:
            places[row.set, row.group].append(index)
    found = list[Watched]()
    for index, row in enumerate(rows):
        normal = places[row.set, row.group]
        if len(normal) < 2:
            continue
        left_out = index if truth[index] == 0 else normal[int(rng.integers(len(normal)))]
        life = [codes[each] for each in normal if each != left_out]
        found.append(Watched(row, truth[index], codes[index], life))
    return found


def _past(life: Sequence[Tensor], releases: int, rng: np.random.Generator) -> Tensor:
    """Clean codes float (releases, K, d): whole clips in random order, again and again; the oldest is cut."""
    parts, count = list[Tensor](), 0
    while count < releases:
        for index in rng.permutation(len(life)):
            parts.append(life[index])
            count += len(life[index])
    return torch.cat(parts)[-releases:]


@torch.inference_mode()
def told(family: Family, clip: Watched, memory: int, samples: int, seed: int) -> Told:
    """Add noise and read a clip and the `memory` events before it, `samples` times."""
    config, rng = family.config, np.random.default_rng([seed, 0])
    releases, random = config.event_releases, torch.Generator().manual_seed(seed)
    pasts = torch.stack([_past(clip.life, memory + releases - 1, rng) for _ in range(samples)])
    now = clip.codes[None].expand(samples, *clip.codes.shape)
    of_now, of_past = (
        _read(family, codes + torch.round(torch.randn(codes.shape, generator=random) * config.sigma))
        for codes in (now, pasts)
    )
    return Told(of_now[0], of_now[1], of_now[2], of_past[1], of_past[2])


def _read(family: Family, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Edge's log odds (D, E, P), deeper exit's (D, E, P) and its states half (D, E, H), of releases (D, S, K, d)."""
    events, present = events_of(z, family.config.event_releases)
    flat, there = events.flatten(0, 1), present.repeat(len(z), 1)
    parts = [_read_events(family, flat[i : i + _BATCH], there[i : i + _BATCH]) for i in range(0, len(flat), _BATCH)]
    edge, deep, states = (torch.cat(each).reshape(*events.shape[:2], -1) for each in zip(*parts, strict=True))
    return edge, deep, states


def _read_events(family: Family, z: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    first = family.exit_state(z, present)
    last = family.backbone(first, present, family.shared)
    logits = edge_exit(family, first, present), cloud_exit(family, last)
    edge, deep = (each[:, 1:] - each[:, :1] for each in logits)
    return edge, deep, family.norm(last[:, -1]).half()


class CarrierHead(nn.Module):
    """Corrects the log odds of events by what their camera saw before; begins with no correction.

    Args:
        width: H, of the states.
        risks: P.
        memory: M, carriers.
    """

    def __init__(self, width: int, risks: int, memory: int) -> None:
        super().__init__()
        self.token, self.query = (nn.Linear(width + risks, _INNER) for _ in range(2))
        self.age = nn.Parameter(torch.zeros(memory, _INNER))
        self.look = nn.MultiheadAttention(_INNER, _HEADS, batch_first=True)
        last = nn.Linear(_INNER, risks)
        self.out = nn.Sequential(nn.Linear(2 * _INNER, _INNER), nn.GELU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, odds: Tensor, states: Tensor, past: Tensor, carriers: Tensor, shown: bool) -> Tensor:
        """Return corrected log odds (B, E, P).

        Args:
            odds: (B, E, P), of the events.
            states: (B, E, H).
            past: (B, M, P), of the carriers.
            carriers: (B, M, H).
            shown: False: what is seen of the carriers is zero, and nothing but the correction by the state is left.
        """
        own = self.query(torch.cat((states.float(), odds), dim=2))
        seen = torch.zeros_like(own)
        if shown:
            tokens = self.token(torch.cat((carriers.float(), past), dim=2)) + self.age
            seen = self.look(own, tokens, tokens, need_weights=False)[0]
        return cast(Tensor, odds + self.out(torch.cat((own, seen), dim=2)))


def trained_head(clips: Sequence[Watched], said: Sequence[Told], steps: int, shown: bool, seed: int) -> CarrierHead:
    """Train a head on whole clips: the mean odds of a clip's events say its label, as a clip is called.

    Sets weigh alike, and in each set risks and normal clips do: a set tells its label by itself.

    Args:
        clips: to train on.
        said: of each, some noise samples.
        steps: of 32 clips.
        shown: whether the head sees carriers.
        seed: of weights and batches.
    """
    torch.manual_seed(seed)
    rng, cells = np.random.default_rng([seed, 1]), _cells(clips)
    _, memory, width = said[0].carriers.shape
    head = CarrierHead(width, said[0].odds.shape[2], memory)
    optimiser = torch.optim.AdamW(head.parameters(), lr=_LR, weight_decay=0.05)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = _LR * min(1.0, (step + 1) / _WARM) * (1.0 - step / steps)
        chosen = [_drawn(cells, rng) for _ in range(_CLIPS)]
        loss = _loss(head, [clips[n].truth for n in chosen], [said[n] for n in chosen], rng, shown)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimiser.step()
    return head.eval()


def _cells(clips: Sequence[Watched]) -> list[tuple[list[int], list[int]]]:
    """For each set that shows both: its normal clips and its risks."""
    sets = dict.fromkeys(clip.row.set for clip in clips)
    of_set = ([n for n, clip in enumerate(clips) if clip.row.set == name] for name in sets)
    both = [([n for n in own if not clips[n].truth], [n for n in own if clips[n].truth]) for own in of_set]
    return [(normal, risks) for normal, risks in both if normal and risks]


def _drawn(cells: Sequence[tuple[list[int], list[int]]], rng: np.random.Generator) -> int:
    kind = cells[int(rng.integers(len(cells)))][int(rng.integers(2))]
    return kind[int(rng.integers(len(kind)))]


def _loss(
    head: CarrierHead, truth: Sequence[int], said: Sequence[Told], rng: np.random.Generator, shown: bool
) -> Tensor:
    samples = [int(rng.integers(len(each.odds))) for each in said]
    picked = [rng.integers(each.odds.shape[1], size=_EVENTS) for each in said]  # some twice where there are fewer
    odds, states = (
        torch.stack([getattr(each, name)[d, n] for each, d, n in zip(said, samples, picked, strict=True)])
        for name in ("odds", "states")
    )
    past, carriers = (
        torch.stack([getattr(each, name)[d] for each, d in zip(said, samples, strict=True)])
        for name in ("past", "carriers")
    )
    mean = torch.logsumexp(head(odds, states, past, carriers, shown), dim=1) - math.log(_EVENTS)  # (B, P)
    return cross_entropy(torch.cat((torch.zeros(len(mean), 1), mean), dim=1), torch.tensor(truth))


def discounted(said: Told, share: float, releases: float) -> Tensor:
    """Log odds (D, E, P) of the deeper exit less `share` of their exponential mean over the past.

    Args:
        said: of a clip.
        share: 0 takes nothing away.
        releases: over which the mean fades; infinite for a plain one.
    """
    age = torch.arange(said.past.shape[1] - 1, -1, -1.0)
    weight = torch.exp(-age / releases) if math.isfinite(releases) else torch.ones_like(age)
    mean = torch.einsum("m,dmp->dp", weight / weight.sum(), said.past)
    return said.odds - share * mean[:, None]
