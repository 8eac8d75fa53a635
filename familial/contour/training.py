"""Trains the contour's decoder on noised codes of rendered clips.

Samples --a noise sample each, at some S; some releases lost--> network --posture, count, ..., outlines--> loss

The noise is drawn anew in every step and is never left out, but for the share of steps that stand for noise off. What
the held-out clips show that the network reads no better than a guess without looking is left out of what it `knows`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu

from familial.contour.decoder import CONTOUR_VERSION, HEADS, SHAPES, SPREADS, ContourDecoder, split, strength
from familial.contour.samples import Samples, noised
from familial.evaluate.intervals import macro_accuracy_interval
from familial.model.config import FamilyConfig
from familial.model.desensitizer import code_plane
from wire.protocol.contour import LONGEST, RAYS

__all__ = ["Plan", "best_constant", "train"]

_HIDDEN = 96
_LEVELS = (1.0, 1.5, 2.0, 3.0, 4.0, 8.0, math.inf)  # S per event
_OWN = 0.5  # of the steps: at the S of the checkpoint's profile
_LOSSY, _LOST = 0.3, (0.05, 0.4)  # of the steps; of their releases
_LOOKS = 20  # noise samples of the held-out clips, when what is known is decided
_EVERY = 250  # steps between two looks at the held-out clips
_FEWEST = 20  # clips that show something, to say that it is known
_LEAST = 0.05  # nats beyond a guess without looking; less would change no figure that anybody could tell apart


@dataclass(frozen=True, slots=True)
class Plan:
    """How long it learns.

    Attributes:
        steps: How many.
        batch: Events in each.
        lr: The largest learning rate.
        seed: Of weights, batches and noise.
    """

    steps: int = 4000
    batch: int = 512
    lr: float = 2e-3
    seed: int = 0


class _Network(nn.Module):
    """Outline means, bases and two hidden layers; `ContourDecoder.read` computes the same in NumPy."""

    def __init__(self, config: FamilyConfig, samples: Samples) -> None:
        super().__init__()
        plane = code_plane(config.tokens, config.width, (config.rank or 2) + config.aside).flatten(0, 1)
        self.clip_norm, self.releases = config.clip_norm, config.event_releases
        width = config.event_releases * (plane.shape[1] + 1) + 1
        outputs = sum(HEADS.values()) + 2 * (SHAPES + SPREADS)
        self.first, self.second = nn.Linear(width, _HIDDEN), nn.Linear(_HIDDEN, _HIDDEN)
        self.last, self.drop = nn.Linear(_HIDDEN, outputs), nn.Dropout(0.1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.fixed = {"plane": plane, "smooth": _smooth()}
        for name in ("first", "second"):
            outlines = getattr(samples.shown, name)
            outlines = outlines[~np.isnan(outlines[:, 0])]
            mean = best_constant(outlines)
            self.fixed[f"{name}_mean"] = torch.from_numpy(mean).float()
            self.fixed[f"{name}_basis"] = torch.from_numpy(_basis(outlines)).float()

    def forward(self, z: Tensor, present: Tensor, sigma: float) -> dict[str, Tensor]:
        there = present.float()
        along = z.flatten(2) @ self.fixed["plane"] / math.hypot(self.clip_norm, sigma)
        level = torch.full((len(z), 1), strength(sigma, self.clip_norm, self.releases))
        x = torch.cat(((along * there[..., None]).flatten(1), there, level), dim=1)
        for layer in (self.first, self.second):
            x = self.drop(gelu(layer(x), approximate="tanh"))
        found: dict[str, Tensor] = split(self.last(x))
        for name in ("first", "second"):
            found[name] = self.fixed[f"{name}_mean"] + found[name] @ self.fixed[f"{name}_basis"]
            found[f"{name}_spread"] = found[f"{name}_spread"] @ self.fixed["smooth"]  # its logarithm
        return found

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """What `ContourDecoder` takes."""
        made = {name: value.numpy() for name, value in self.fixed.items()}
        for number, layer in enumerate((self.first, self.second, self.last)):
            made[f"weight_{number}"] = layer.weight.detach().numpy().copy()
            made[f"bias_{number}"] = layer.bias.detach().numpy().copy()
        return made


def train(
    config: FamilyConfig, samples: Samples, held_out: Samples, sigma: float, named: Mapping[str, str], plan: Plan
) -> tuple[ContourDecoder, list[str]]:
    """Train a decoder.

    Args:
        config: Of the family.
        samples: To learn from.
        held_out: Of other clips: they choose the step that is kept, and decide what it knows.
        sigma: Of the checkpoint's profile, in lattice units.
        named: "checkpoint" and "encoder": their hashes.
        plan: How long.

    Returns:
        The decoder, and lines that say how it went.
    """
    torch.manual_seed(plan.seed)
    rng = np.random.default_rng(plan.seed)
    network, lines = _Network(config, samples), list[str]()
    optimiser = torch.optim.AdamW(network.parameters(), lr=plan.lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.lr, total_steps=plan.steps + 1)
    truth, least, kept = _tensors(samples), math.inf, network.tensors()
    for step in range(1, plan.steps + 1):
        rows = torch.from_numpy(rng.integers(0, len(samples.codes), plan.batch))
        noise, present = _drawn_sigma(config, sigma, rng), _lost(samples.present[rows], rng)
        optimiser.zero_grad()
        loss = _loss(
            network(noised(samples.codes[rows], noise), present, noise), {n: t[rows] for n, t in truth.items()}
        )
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        optimiser.step()
        schedule.step()
        if step % _EVERY == 0 or step == plan.steps:
            value = _held_out_loss(network, held_out, sigma)
            lines.append(f"step {step}: loss {float(loss.detach()):.3f}, held out {value:.3f}")
            if value < least:
                least, kept = value, network.tensors()
    priors = _priors(truth)
    about = {
        "version": CONTOUR_VERSION,
        **named,
        "family": config.family,
        "clip_norm": config.clip_norm,
        "releases": config.event_releases,
        "tokens": config.tokens,
        "width": config.width,
        "knows": list(HEADS),
        "priors": priors,
    }
    gains = _gains(ContourDecoder(kept, about), held_out, sigma, priors)
    for name, (gain, low) in gains.items():
        lines.append(f"{name}: {gain:.3f} nats better than a guess without looking (at least {low:.3f})")
    return ContourDecoder(kept, {**about, "knows": [name for name, (_, low) in gains.items() if low >= _LEAST]}), lines


def best_constant(outlines: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the one outline (RAYS,) that overlaps outlines (N, RAYS) most on average: no code is needed for it."""
    if not len(outlines):
        return np.full(RAYS, 0.2)
    target = torch.from_numpy(outlines)
    made = target.median(dim=0).values.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([made], lr=0.01)
    slower = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.98)
    for _ in range(300):
        optimiser.zero_grad()
        loss = 1.0 - _overlap(made[None], target).mean()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        optimiser.step()
        slower.step()
    return np.asarray(made.detach().clamp(0.0, LONGEST).numpy())


def _overlap(one: Tensor, other: Tensor) -> Tensor:
    both, either = torch.minimum(one, other), torch.maximum(one, other)
    return (both**2).sum(-1) / (either**2).sum(-1).clamp_min(1e-9)


def _basis(outlines: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The directions (SHAPES, RAYS) in which outlines differ most, as long as their differences; zeros beyond them."""
    made = np.zeros((SHAPES, RAYS))
    if len(outlines) > 1:
        _, sizes, rows = np.linalg.svd(outlines - outlines.mean(axis=0), full_matrices=False)
        count = min(SHAPES, len(rows))
        made[:count] = rows[:count] * (sizes[:count, None] / math.sqrt(len(outlines)))
    return made


def _smooth() -> Tensor:
    """Slow waves around the turn, (SPREADS, RAYS): of these the logarithm of a spread is made."""
    turn = 2 * torch.pi * torch.arange(RAYS) / RAYS
    waves = [torch.ones(RAYS)]
    for number in range(1, SPREADS // 2 + 1):
        waves += [torch.cos(number * turn), torch.sin(number * turn)]
    return torch.stack(waves)


def _tensors(samples: Samples) -> dict[str, Tensor]:
    names = (*HEADS, "first", "second")
    return {name: torch.from_numpy(getattr(samples.shown, name)) for name in names}


def _drawn_sigma(config: FamilyConfig, own: float, rng: np.random.Generator) -> float:
    """The noise of a step, in lattice units."""
    level = rng.choice(_LEVELS)
    return own if rng.random() < _OWN else float(config.clip_norm * math.sqrt(config.event_releases) / level)


def _lost(present: Tensor, rng: np.random.Generator) -> Tensor:
    """Without some releases, never the newest."""
    if rng.random() >= _LOSSY:
        return present
    kept = torch.from_numpy(rng.random(present.shape) > rng.uniform(*_LOST))
    kept[:, -1] = True
    return present & kept


def _head_loss(logits: Tensor, true: Tensor) -> Tensor:
    """Cross entropy of each row that is known, (N,): 0 where it is not."""
    if logits.shape[1] == 1:
        logits = torch.cat((torch.zeros_like(logits), logits), dim=1)
    return cross_entropy(logits, true, ignore_index=-1, reduction="none")


def _loss(found: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> Tensor:
    total = torch.zeros(())
    for name in HEADS:
        total = total + _head_loss(found[name], truth[name]).sum() / (truth[name] >= 0).sum().clamp_min(1)
    for name in ("first", "second"):
        there = ~torch.isnan(truth[name][:, 0])
        if not bool(there.any()):
            continue
        true, made = truth[name][there].float(), found[name][there].clamp(0.0, LONGEST)
        spread = found[f"{name}_spread"][there]
        away = (true - made.detach()).abs()
        total = total + 2.0 * (1.0 - _overlap(made, true).mean())
        total = total + 0.1 * (spread + away * torch.exp(-spread)).mean()  # Laplace's likelihood
    return total


@torch.inference_mode()
def _held_out_loss(network: _Network, held_out: Samples, sigma: float) -> float:
    network.eval()
    generator = torch.random.get_rng_state()
    torch.manual_seed(1)  # the same noise at every look
    found = network(noised(held_out.codes, sigma), held_out.present, sigma)
    torch.random.set_rng_state(generator)
    network.train()
    return float(_loss(found, _tensors(held_out)))


def _priors(truth: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """How often each answer holds; of a yes-or-no question, the yes."""
    made = {}
    for name, size in HEADS.items():
        known = truth[name][truth[name] >= 0]
        shares = [(float((known == value).sum()) + 1.0) / (len(known) + max(2, size)) for value in range(max(2, size))]
        made[name] = shares if size > 1 else shares[1:]
    return made


def _gains(
    decoder: ContourDecoder, held_out: Samples, sigma: float, priors: Mapping[str, list[float]]
) -> dict[str, tuple[float, float]]:
    """Head -> nats that it is better than its prior on held-out clips, and the low end of the interval over clips."""
    torch.manual_seed(2)
    truth, better = held_out.shown, {name: np.zeros(len(held_out.codes)) for name in HEADS}
    for _ in range(_LOOKS):
        found = decoder.read(noised(held_out.codes, sigma).numpy(), held_out.present.numpy(), sigma)
        for name in HEADS:
            said, guess = (_of_truth(each, getattr(truth, name)) for each in (getattr(found, name), priors[name]))
            better[name] += (np.log(said) - np.log(guess)) / _LOOKS
    gains = {}
    for name, value in better.items():
        known = getattr(truth, name) >= 0
        if len(np.unique(held_out.clip[known])) < _FEWEST:
            gains[name] = (0.0, -math.inf)
            continue
        mean, (low, _) = macro_accuracy_interval(value[known], np.zeros(known.sum(), np.int64), held_out.clip[known], 0)
        gains[name] = (mean, low)
    return gains


def _of_truth(chances: npt.ArrayLike, true: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The chance that was given to what is true, float (N,); at least 1e-6, and of rows where nothing is known any."""
    given = np.asarray(chances, np.float64)
    wide = given.reshape(len(given), -1) if len(given) == len(true) else given[None]
    if wide.shape[1] == 1:
        wide = np.concatenate((1.0 - wide, wide), axis=1)
    wide = np.broadcast_to(wide, (len(true), wide.shape[1]))
    return np.asarray(np.clip(wide[np.arange(len(true)), np.maximum(true, 0)], 1e-6, 1.0))
