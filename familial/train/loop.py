"""The training loop: what single windows say, then what eight noisy releases say, then what whole clips are called.

    sequences of 8 slots --tower, desensitizer--> codes --> which label's class prototype?         stage 1
                         `--tower--> what rendered clips know of bodies (`body_tasks`)
    ... + fresh noise --adapter, backbone--> both exits, attributes, the caption                   stage 2, all at once
                      `--adversary--> are two events of one scene? the codes learn not to tell
    whole clips, frozen tower --adapter, backbone--> the verdict of the clip (`clip_stage`)        stage 3

In place of stages 1 and 2 a late fusion can be tuned on whole clips (`tower_stage`).

The noise is on, at the config's profile; its rounding is passed straight through. What is saved is the moving average
of the weights, calibrated on the validation set. Letters in shapes: B sequences, T frames, R releases of a sequence,
K x d a code, N samples (noisy events).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from familial.data.clips import slots
from familial.data.events import LabelledClip
from familial.model import checkpoint
from familial.model.code_space import prototypes
from familial.model.family import Family
from familial.model.towers.fused import FusedTower
from familial.train.budget import Budget, Pace, Reserve, minutes_text, reserve
from familial.train.clip_stage import clip_stage_clips, train_on_clips
from familial.train.config import TrainConfig, label_shares
from familial.train.memory import require_training_memory
from familial.train.progress import Clock, Curve, State, run_folder
from familial.train.sampling import BatchSource
from familial.train.stages import TrainingHeads, step_losses
from familial.train.tower_stage import train_towers
from familial.train.validation import ValidationSet, pace_of
from wire.errors import CheckpointError

__all__ = ["Trained", "train"]

_CALIBRATION = 0.85  # of what is left at the end; the files take the rest


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training gave.

    Attributes:
        family: the moving average of the weights, calibrated, on the CPU.
        scores: of the validation set, as `ValidationSet.calibrated` gives them; empty without one.
    """

    family: Family
    scores: dict[str, float]


def train(
    family: Family,
    clips: Sequence[LabelledClip],
    validation_clips: Sequence[LabelledClip],
    train_config: TrainConfig,
    out: Path,
    resume: bool,
    budget: Budget | None = None,
) -> Trained:
    """Train on the config's device; write the checkpoint, and curve and resumable state under build/train.

    Args:
        family: is trained in place.
        clips: to train on.
        validation_clips: to score and calibrate on; none of `clips`.
        train_config: how.
        out: folder of the checkpoint.
        resume: go on from the saved state of this folder.
        budget: of the whole training, begun with its first clip; None begins one now.

    Raises:
        CheckpointError: the loss is not finite, the saved state is of another training, or memory is too small.
    """
    budget = budget or Budget(train_config.minutes)
    source = BatchSource(family.config, clips, train_config)
    require_training_memory(family, source)
    with torch.device(train_config.device):  # whatever is made inside is made there
        family = family.to(train_config.device)
        average = copy.deepcopy(family).eval().requires_grad_(False)
        before = copy.deepcopy(average) if train_config.interpolate < 1.0 else None
        validation = ValidationSet(average, validation_clips, train_config)
        training = _Training(family, average, source, validation, out, resume, budget)
        if train_config.tower_steps:
            _tower_stage(training, budget)
        elif not train_config.readers_alone:
            training.run()
        if before is not None:
            _interpolate(before, average, train_config.interpolate)
        _whole_clips(training, budget)
        average.config, scores = validation.calibrated(average, _CALIBRATION * budget.left, budget.now)
    checkpoint.save(average.cpu(), out)
    print(f"{training.step} steps in {budget.spent / 60:.1f} min; checkpoint in {out}, curve in {training.curve.path}")
    return Trained(average, scores)


def _tower_stage(training: _Training, budget: Budget) -> None:
    """The tower stage, in what is left of the budget before the clip stage and the calibration."""
    config, clips = training.config, training.source.clips
    shares, seconds = label_shares(training.family.config.labels), max(1.0, budget.left - training.kept.total)
    how: dict[str, Any] = {"steps": config.tower_steps, "lr": config.lr, "seed": config.seed, "seconds": seconds}
    how |= {"now": budget.now, "set_variance": config.set_variance}
    training.step = train_towers(training.average, clips, shares, **how)


@torch.no_grad()
def _interpolate(before: Family, after: Family, share: float) -> None:
    """Leave `after` at `share` of the way from the weights of `before`, the means that batch norms keep included.

    Source: WiSE-FT, Wortsman et al. 2022, "Robust Fine-Tuning of Zero-Shot Models", CVPR.
    """
    for old, new in zip(before.state_dict().values(), after.state_dict().values(), strict=True):
        if new.is_floating_point():
            new.lerp_(old, 1.0 - share)


def _whole_clips(training: _Training, budget: Budget) -> None:
    """The clip stage, in what is left of the budget before the calibration."""
    config = training.config
    if not config.clip_stage:
        return
    seconds = budget.left - (training.kept.total - training.kept.clip_stage)
    if config.steps and not config.readers_alone and not config.tower_steps:
        seconds = min(seconds, config.clip_stage * budget.total)
    shares, clips = label_shares(training.family.config.labels), training.source.clips
    how: dict[str, Any] = {"lr": config.lr, "most": len(clips)} if config.readers_alone else {}
    seconds = max(1.0, seconds)
    train_on_clips(training.average, clips, shares, seconds, config.clip_steps, config.seed, budget.now, **how)


class _Training:
    """Stages 1 and 2 of one training.

    Args:
        family: is trained.
        average: the moving average of its weights.
        source: of the batches.
        validation: scores now and then.
        out: folder of the checkpoint.
        resume: go on from the saved state of this folder.
        budget: of the whole training.

    Attributes:
        kept: of the budget, for the end.
    """

    def __init__(
        self,
        family: Family,
        average: Family,
        source: BatchSource,
        validation: ValidationSet,
        out: Path,
        resume: bool,
        budget: Budget,
    ) -> None:
        config, folder = family.config, run_folder(out)
        self.family, self.average, self.source, self.validation = family, average, source, validation
        self.config, self.heads, self.drawn = source.train, TrainingHeads(family), set[int]()
        self.source.index = self.source.index.to(self.config.device)
        if isinstance(family.tower, FusedTower) and self.config.freeze_motion:
            family.tower.freeze_motion()
        self.parameters = [each for each in (*family.parameters(), *self.heads.parameters()) if each.requires_grad]
        self.optimiser = torch.optim.AdamW(self.parameters, lr=self.config.lr, weight_decay=0.02, betas=(0.9, 0.98))
        modules = {"family": family, "average": average, "heads": self.heads}
        self.state = State(folder / "state.pt", modules, self.optimiser)
        self.first, self.spent = self.state.load() if resume else self.state.discard()
        self.step, self.curve = self.first, Curve(folder / "curve.csv", fresh=self.first == 0)
        self.label_prototypes = prototypes(len(config.labels), config.tokens, config.width, config.clip_norm - 1.0)

        budget.was_spent(self.spent)
        self.budget, self.pace, self.left = budget, Pace(0.0, 0.0), budget.left
        self.kept = self._reserve()

    def _reserve(self) -> Reserve:
        """Plan the end of the training by the slowest pace that was measured on a clip, now or before."""
        clips, spec, budget = self.source.clips, self.family.config.window, self.budget
        self.pace = self.pace.slower(pace_of(self.average, clips[0], budget.now))
        count = sum(slots(clip.footage.duration, spec) for clip in clip_stage_clips(clips))
        return reserve(budget.total, self.config.clip_stage, count, self.validation.cost(), self.pace, self.left)

    def _say_plan(self) -> None:
        budget, kept = self.budget, self.kept
        times = [minutes_text(each) for each in (max(0.0, budget.left - kept.total), kept.clip_stage, kept.calibration)]
        print(
            f"budget: {minutes_text(budget.total)}, of which {minutes_text(budget.spent)} are gone; at most {times[0]} "
            f"for stages 1 and 2, {times[1]} for whole clips, {times[2]} for calibration",
            flush=True,
        )

    def run(self) -> None:
        """Train until the clock says so; say which clips were never drawn."""
        self._say_plan()
        clock = Clock(self.config, self.budget, self.first, self.spent)
        clock.kept = self.kept.total
        adapter_ready = self.config.warm_start or (self.first > 0 and clock.stage == 2)
        self.family.train()
        while clock.done < 1.0:
            stage = clock.stage
            if stage == 2 and not adapter_ready:
                adapter_ready = True
                for family in (self.family, self.average):
                    family.point_adapter()
            _set_lr(self.optimiser, self.config.lr * clock.lr_factor)
            losses, linked = self._losses(clock.step, stage)
            total = sum(losses.values(), torch.zeros(()))
            _refuse_non_finite(total.item(), clock.step, self.state.path)
            self.optimiser.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimiser.step()
            clock.step += 1
            _update_average(self.average, self.family, clock.step - self.first)
            values = {name: float(value.detach()) for name, value in losses.items()}
            self.curve.add(clock, values | ({"linked": linked} if "link" in values else {}))
            if self.curve.due():
                self.curve.show(self.curve.scores(lambda: self.validation.scores(self.average)))
                self.state.save(clock.step, clock.spent)
                self.kept = self._reserve()  # the machine may have become slower
                clock.kept = self.kept.total
        self.step = clock.step
        missed = len(self.source.clips) - len(self.drawn)
        if missed and not self.first:
            print(f"stages 1 and 2: {missed} of {len(self.source.clips)} clips were never drawn; more --minutes would")

    def _losses(self, step: int, stage: int) -> tuple[dict[str, Tensor], float]:
        """The losses of one step, and the share that the adversary links right."""
        batch = self.source.batch(step)
        self.drawn.update(batch.clip.tolist())
        return step_losses(self.family, self.heads, self.source, batch, step, stage, self.label_prototypes)


def _set_lr(optimiser: torch.optim.Optimizer, lr: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = lr


def _refuse_non_finite(loss: float, step: int, state: Path) -> None:
    if not math.isfinite(loss):
        raise CheckpointError(
            f"step {step}: the loss is {loss}; the last good state is {state}: lower --lr and go on with --resume"
        )


@torch.no_grad()
def _update_average(average: nn.Module, module: nn.Module, steps: int) -> None:
    """Move the exponential moving average on; over the first `steps` it forgets faster."""
    new = 1.0 - min(0.998, steps / (10 + steps))
    for mine, theirs in zip(average.parameters(), module.parameters(), strict=True):
        mine.lerp_(theirs, new)
    for held, updated in zip(average.buffers(), module.buffers(), strict=True):
        if held.is_floating_point():
            held.lerp_(updated, new)
