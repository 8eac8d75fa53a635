"""One loop for GRPO, DAPO and BPPO: sample groups, reward them, choose what counts, step; until a clock says stop.

    Policy --sample--> P x G answers --reward--> (P, G) --objective.chosen_tokens--> N rows, W tokens
           --log_probs of those alone--> policy_loss + Policy.anchor --AdamW--> Policy

Only what counts is computed again, so a short prefix of two answers costs that much and no more. The policy that
sampled is the one of the first update of a step, so its ratios are 1 there; later updates of the step are clipped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from familial.model.vocabulary import PAD
from familial.train.rl.objective import Objective, chosen_tokens, policy_loss
from wire.errors import CheckpointError, ConfigError

__all__ = ["Policy", "Reward", "Settings", "StepResult", "optimiser_of", "train_step", "training"]

Reward = Callable[[Tensor, Tensor], Tensor]
"""Prompts int64 (N,), answers int64 (N, W) -> rewards float (N,)."""


class Policy(Protocol):
    """What answers prompts, which are numbered."""

    def sample(self, prompts: Tensor, group: int, temperature: float) -> Tensor:
        """Prompts int64 (P,) -> answers int64 (P * group, W), those of a prompt one after the other, PAD at the end."""

    def log_probs(self, prompts: Tensor, answers: Tensor, temperature: float) -> Tensor:
        """Prompts int64 (N,), answers int64 (N, W) -> log probability float (N, W) of each token."""

    def anchor(self, reference: Policy, prompts: Tensor) -> Tensor:
        """What is added to the loss so that other answers stay those of the reference; prompts int64 (P,)."""

    def trained(self) -> list[nn.Parameter]:
        """The weights that are trained."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a policy is trained; ConfigError for what cannot be.

    Attributes:
        objective: the method.
        group: G, answers of a prompt.
        prompts: P, prompts of a step.
        updates: steps of the optimiser on one batch of answers.
        lr: learning rate.
        temperature: of the sampling, and of the log probabilities.
    """

    objective: Objective
    group: int = 8
    prompts: int = 16
    updates: int = 1
    lr: float = 2e-4
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.group < 2:
            raise ConfigError(f"--group {self.group}: answers are compared with each other; give 2 or more")
        if min(self.prompts, self.updates) < 1:
            raise ConfigError(f"--prompts {self.prompts} --updates {self.updates}: give 1 or more of each")
        if not self.temperature > 0 or not self.lr > 0:
            raise ConfigError(f"--temperature {self.temperature:g} --learning-rate {self.lr:g}: give more than 0")


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step did.

    Attributes:
        reward: mean of all answers.
        loss: of the last update; 0 where no group taught anything.
        skipped: groups whose rewards were all equal.
        tokens: that had a gradient.
        sampling_s: seconds of sampling and rewarding, by the given clock.
        update_s: seconds of everything else.
    """

    reward: float
    loss: float
    skipped: int
    tokens: int
    sampling_s: float
    update_s: float


def optimiser_of(policy: Policy, lr: float) -> torch.optim.Optimizer:
    """AdamW over the policy's trained weights."""
    return torch.optim.AdamW(policy.trained(), lr=lr, weight_decay=0.0, betas=(0.9, 0.95))


def train_step(
    policy: Policy,
    reference: Policy,
    reward: Reward,
    prompts: Tensor,
    settings: Settings,
    optimiser: torch.optim.Optimizer,
    now: Callable[[], float] = time.monotonic,
) -> StepResult:
    """Make one step.

    Args:
        policy: is trained.
        reference: what it is held to.
        reward: of an answer.
        prompts: int64 (P,).
        settings: how.
        optimiser: of the policy.
        now: a clock in seconds.

    Raises:
        CheckpointError: a reward or the loss is not finite; the weights are those of before this step.
    """
    began, objective = now(), settings.objective
    answers = policy.sample(prompts, settings.group, settings.temperature)
    of_answers = prompts.repeat_interleave(settings.group)
    rewards = reward(of_answers, answers).reshape(len(prompts), settings.group)
    if not bool(torch.isfinite(rewards).all()):
        raise CheckpointError("a reward is not finite; mend the reward")
    chosen = chosen_tokens(rewards, answers != PAD, objective)
    sampled, loss = now(), 0.0
    if len(chosen.rows):
        cut = answers[chosen.rows][:, : chosen.mask.shape[1]]
        of_chosen, kept = of_answers[chosen.rows], None
        if objective.beta:
            with torch.no_grad():
                kept = reference.log_probs(of_chosen, cut, settings.temperature)
        old: Tensor | None = None
        for _ in range(settings.updates):
            log_probs = policy.log_probs(of_chosen, cut, settings.temperature)
            old = log_probs.detach() if old is None else old
            total = policy_loss(log_probs, old, kept, chosen.advantages, chosen.mask, objective)
            total = total + policy.anchor(reference, prompts)
            loss = _updated(policy, optimiser, total)
    tokens = int(chosen.mask.sum())
    return StepResult(float(rewards.mean()), loss, chosen.skipped, tokens, sampled - began, now() - sampled)


def _updated(policy: Policy, optimiser: torch.optim.Optimizer, total: Tensor) -> float:
    """Make one update and return the loss; nothing is changed where it, or a gradient, is not finite."""
    optimiser.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    norm = nn.utils.clip_grad_norm_(policy.trained(), 1.0)
    loss = float(total.detach())
    if not math.isfinite(loss) or not math.isfinite(float(norm)):
        raise CheckpointError(
            f"the loss is {loss}, the norm of its gradient {float(norm)}; lower --learning-rate, raise --beta"
        )
    optimiser.step()
    return loss


def training(
    policy: Policy,
    reference: Policy,
    reward: Reward,
    count: int,
    settings: Settings,
    seed: int,
    optimiser: torch.optim.Optimizer | None = None,
    now: Callable[[], float] = time.monotonic,
) -> Iterator[StepResult]:
    """Train for as long as the caller asks for another step.

    Args:
        policy: is trained in place.
        reference: what it is held to.
        reward: of an answer.
        count: prompts that there are; each is drawn once before any is drawn again.
        settings: how.
        seed: of the order of prompts.
        optimiser: of the policy; None makes one.
        now: a clock in seconds.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = optimiser or optimiser_of(policy, settings.lr)
    waiting = torch.zeros(0, dtype=torch.int64)
    while True:
        while len(waiting) < settings.prompts:
            waiting = torch.cat((waiting, torch.randperm(count, generator=generator)))
        prompts, waiting = waiting[: settings.prompts], waiting[settings.prompts :]
        yield train_step(policy, reference, reward, prompts, settings, optimiser, now)
