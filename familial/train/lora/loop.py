"""The loop of a LoRA training: as `train.loop`'s stages 1 and 2, with few weights trained and blocks recomputed.

    sequences --tower + LoRA, desensitizer--> codes + fresh noise --adapter, backbone + LoRA--> both exits at once
    losses of `train.stages` --backward, mean over the processes--> AdamW on LoRA, desensitizer, adapter, exits, words

There is no moving average, whose copy would be as large as what is trained, and no clip stage: the learning rate goes
down to zero instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from familial.data.events import LabelledClip
from familial.model.code_space import prototypes
from familial.model.family import Family
from familial.model.lora import in_bf16
from familial.model.steps import recomputed, set_step
from familial.train.budget import Budget, reserve
from familial.train.config import TrainConfig
from familial.train.lora.peers import Peers
from familial.train.memory import require_training_memory
from familial.train.progress import Clock, Curve, State, run_folder
from familial.train.sampling import BatchSource
from familial.train.stages import TrainingHeads, step_losses
from familial.train.validation import ValidationSet, pace_of
from wire.errors import CheckpointError

__all__ = ["LoraTraining", "average_step"]

_SEEDS = 7919  # between the seeds of two processes, so that no batch of one is a batch of another


class LoraTraining:
    """One training, in one of its processes.

    Args:
        family: opened with a LoRA; is trained in place.
        clips: to train on.
        validation: held-out clips, to plan the time of the calibration with.
        train: the training's config.
        peers: the processes.
        out: folder that curve and state are named after.
        resume: go on from the saved state of this folder.
        budget: of the whole command.

    Raises:
        CheckpointError: memory is too small, or the saved state is of another training.
    """

    def __init__(
        self,
        family: Family,
        clips: Sequence[LabelledClip],
        validation: ValidationSet,
        train: TrainConfig,
        peers: Peers,
        out: Path,
        resume: bool,
        budget: Budget,
    ) -> None:
        config = family.config
        self.family, self.peers, self.budget, self.train = family, peers, budget, train
        self.source = BatchSource(config, clips, replace(train, seed=train.seed + _SEEDS * peers.rank))
        set_step(family, recomputed(torch.device(peers.device).type, in_bf16(family)))
        require_training_memory(family, self.source)
        self.heads = TrainingHeads(family)
        self.parameters = [each for each in (*family.parameters(), *self.heads.parameters()) if each.requires_grad]
        peers.copy_from_first(self.parameters)
        self.optimiser = torch.optim.AdamW(self.parameters, lr=train.lr, weight_decay=0.02, betas=(0.9, 0.98))
        self.state = State(run_folder(out) / "lora.pt", {"trained": nn.ParameterList(self.parameters)}, self.optimiser)
        first, spent = self.state.load() if resume else self.state.discard()
        budget.was_spent(spent)
        self.clock = Clock(train, budget, first, spent)
        self.clock.kept = reserve(
            budget.total, 0.0, 0, validation.cost(), pace_of(family, clips[0], budget.now), budget.left
        ).total
        self.curve = Curve(run_folder(out) / "lora.csv", fresh=first == 0) if peers.rank == 0 else None
        self._adapter_ready = train.warm_start
        self._prototypes = prototypes(len(config.labels), config.tokens, config.width, config.clip_norm - 1.0)
        peers.shard(family)

    def run(self) -> int:
        """Train until steps or time are over; return the steps that were made, those before this process too.

        Raises:
            CheckpointError: the loss is not finite; it names the last good state.
        """
        self.family.train()
        clock, peers = self.clock, self.peers
        while True:
            done, stage, factor = peers.as_first([clock.done, clock.stage, clock.lr_factor])
            if done >= 1.0:
                break
            for group in self.optimiser.param_groups:
                group["lr"] = self.train.lr * factor
            values = self._step(clock.step, int(stage))
            clock.step += 1
            if self.curve is not None:
                self._report(values)
        self.family.eval()
        return clock.step

    def _step(self, number: int, stage: int) -> dict[str, float]:
        """Make one step; return its losses, of this process's batch."""
        batch = self.source.batch(number)
        losses, linked = step_losses(self.family, self.heads, self.source, batch, number, stage, self._prototypes)
        loss = average_step(sum(losses.values(), torch.zeros(())), self.parameters, self.optimiser, self.peers)
        if not math.isfinite(loss):
            raise CheckpointError(
                f"step {number}: the loss is {loss}; the last good state is {self.state.path}: lower --learning-rate "
                "and go on with --resume"
            )
        values = {name: float(value.detach()) for name, value in losses.items()}
        return values | ({"linked": linked} if "link" in values else {})

    def _report(self, values: dict[str, float]) -> None:
        if self.curve is None:
            return
        self.curve.add(self.clock, values)
        if self.curve.due():
            self.curve.show({})
            self.state.save(self.clock.step, self.clock.spent)


def average_step(
    loss: Tensor, parameters: Sequence[nn.Parameter], optimiser: torch.optim.Optimizer, peers: Peers
) -> float:
    """Make one step on the mean of all processes' losses; return that mean. Nothing changes where it is not finite."""
    mean = peers.mean([float(loss.detach())])[0]
    if not math.isfinite(mean):
        return mean
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    peers.average_gradients(parameters)
    norm = float(nn.utils.clip_grad_norm_(parameters, 1.0))
    if not math.isfinite(norm):
        return norm
    optimiser.step()
    return mean
