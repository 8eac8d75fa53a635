"""What a group of sampled answers teaches: advantages, which tokens of which answers count, and the loss of a policy.

    rewards (P, G) --group_advantages--> (P, G) --chosen_tokens--> rows and a mask (N, W) --policy_loss--> a number

Three methods, one loss. GRPO (Shao et al. 2024, "DeepSeekMath", equation 3): all answers, all tokens, the mean over an
answer's tokens, then over answers. DAPO (Yu et al. 2025): the mean over all tokens of a batch at once, the upper clip
wider, no KL. BPPO ("Binary Prefix Policy Optimization", TeleAI 2026, arXiv 2605.28028, and the Ruyi2.5 report, arXiv
2603.17311): one right and one wrong answer of a group, the shortest of each, the first n tokens of both; advantages are
still those of the whole group. Of both texts we had the abstracts, not the equations. Ours are therefore: with rewards
between 0 and 1, right is the highest reward of the group and wrong the lowest, the shorter of equals; the loss of the
pair is GRPO's over the tokens that are left; and the completion schedule of the paper is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wire.errors import ConfigError

__all__ = ["METHODS", "Chosen", "Objective", "chosen_tokens", "group_advantages", "policy_loss"]

_FLOOR = 1e-4  # added to a group's standard deviation, as in trl
_SAME = 1e-6  # rewards that lie closer together than this are equal


@dataclass(frozen=True, slots=True)
class Objective:
    """One method and its numbers; ConfigError for one that has no meaning.

    Attributes:
        pairs: keep one right and one wrong answer of each group, not all.
        prefix: tokens of an answer that have a gradient; 0 stands for all.
        token_level: every token of a batch weighs alike, not every answer.
        epsilon: how far below 1 an importance ratio counts.
        epsilon_high: how far above 1 it counts.
        beta: weight of the KL divergence to the reference.
    """

    pairs: bool = False
    prefix: int = 0
    token_level: bool = False
    epsilon: float = 0.2
    epsilon_high: float = 0.2
    beta: float = 0.04

    def __post_init__(self) -> None:
        if self.prefix < 0:
            raise ConfigError(f"--prefix {self.prefix}: tokens of an answer; give 1 or more, or 0 for all")
        if not 0.0 < self.epsilon < 1.0 or not 0.0 < self.epsilon_high < 10.0:
            raise ConfigError(
                f"--epsilon {self.epsilon:g} --epsilon-high {self.epsilon_high:g}: give shares between 0 and 1"
            )
        if not 0.0 <= self.beta < 100.0:
            raise ConfigError(f"--beta {self.beta:g}: the weight of the KL divergence; give 0 or more")

    def with_numbers(self, **numbers: float | int | None) -> Objective:
        """Return a copy with those of `numbers` that are not None."""
        given = {name: value for name, value in numbers.items() if value is not None}
        return replace(self, **given)  # type: ignore[arg-type]  # each by its own name


METHODS = {
    "grpo": Objective(),
    "dapo": Objective(token_level=True, epsilon_high=0.28, beta=0.0),
    "bppo": Objective(pairs=True, prefix=8),
}
"""Method -> what it is; 8 of at most 12 words: with 4, long runs broke the grammar behind them."""


def group_advantages(rewards: Tensor) -> tuple[Tensor, Tensor]:
    """Compare each answer with its group.

    Args:
        rewards: float (P, G), finite.

    Returns:
        Advantages float (P, G), in standard deviations of the group from its mean; bool (P,), false for groups whose
        rewards are all equal: they teach nothing.
    """
    differ = rewards.amax(dim=1) - rewards.amin(dim=1) > _SAME
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return centred / (rewards.std(dim=1, keepdim=True) + _FLOOR), differ


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which answers and tokens of a batch have a gradient.

    Attributes:
        rows: int64 (N,), of the P * G answers.
        mask: bool (N, W), the tokens that count; W is cut to the longest of them.
        advantages: float (N,).
        skipped: groups without any.
    """

    rows: Tensor
    mask: Tensor
    advantages: Tensor
    skipped: int


def chosen_tokens(rewards: Tensor, there: Tensor, objective: Objective) -> Chosen:
    """Choose what counts.

    Args:
        rewards: float (P, G).
        there: bool (P * G, W), tokens of the answers, <end> included, padding not.
        objective: the method.
    """
    groups, size = rewards.shape
    advantages, differ = group_advantages(rewards)
    kept = differ[:, None].expand(groups, size).clone()
    if objective.pairs:
        lengths = there.sum(dim=1).reshape(groups, size)
        kept &= _pairs(rewards, lengths)
    rows = torch.nonzero(kept.flatten())[:, 0]
    mask = there[rows]
    if objective.prefix:
        mask = mask[:, : objective.prefix]
    return Chosen(rows, mask, advantages.flatten()[rows], int((~differ).sum()))


def _pairs(rewards: Tensor, lengths: Tensor) -> Tensor:
    """bool (P, G): the shortest of the highest rewards and the shortest of the lowest; both int or float (P, G)."""
    found = torch.zeros_like(rewards, dtype=torch.bool)
    for best in (rewards.amax(dim=1, keepdim=True), rewards.amin(dim=1, keepdim=True)):
        equal = (rewards - best).abs() <= _SAME
        shortest = lengths.masked_fill(~equal, torch.iinfo(lengths.dtype).max).argmin(dim=1)
        found.scatter_(1, shortest[:, None], True)
    return found


def policy_loss(
    log_probs: Tensor, old: Tensor, reference: Tensor | None, advantages: Tensor, mask: Tensor, objective: Objective
) -> Tensor:
    """Return the clipped loss of a policy on answers that an older one sampled.

    Args:
        log_probs: float (N, W), of the answers' tokens, with a gradient.
        old: float (N, W), as the policy that sampled them had them.
        reference: float (N, W), of the reference; None where beta is 0.
        advantages: float (N,).
        mask: bool (N, W), the tokens that count.
        objective: the method.
    """
    counts = mask.to(log_probs.dtype)
    ratio = torch.exp(log_probs - old)
    clipped = ratio.clamp(1.0 - objective.epsilon, 1.0 + objective.epsilon_high)
    weights = advantages[:, None]
    each = -torch.minimum(ratio * weights, clipped * weights)  # (N, W)
    if objective.beta and reference is not None:
        apart = reference - log_probs
        each = each + objective.beta * (torch.exp(apart) - apart - 1.0)  # Schulman's estimate of the KL, never negative
    if objective.token_level:
        return (each * counts).sum() / counts.sum().clamp(min=1.0)
    return ((each * counts).sum(dim=1) / counts.sum(dim=1).clamp(min=1.0)).mean()
