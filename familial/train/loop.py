"""The training loop: what single windows say, then what eight noisy releases say, then what whole clips are called.

    sequences of 8 slots --tower, desensitizer--> codes --> which label's class prototype?         stage 1
                         `--tower--> what rendered clips know of bodies (`body_tasks`)
    ... + fresh noise --adapter, backbone--> both exits, attributes, the caption                   stage 2, all at once
                      `--adversary--> are two events of one scene? the codes learn not to tell
    whole clips, frozen tower --adapter, backbone--> the verdict of the clip (`clip_stage`)        stage 3

The noise is on, at the config's profile; its rounding is passed straight through. What is saved is the moving average
of the weights, calibrated on the validation set. Letters in shapes: B sequences, T frames, R releases of a sequence,
K x d a code, N samples (noisy events).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from familial.data.events import LabelledClip
from familial.model import checkpoint
from familial.model.code_space import prototypes
from familial.model.desensitizer import code_plane
from familial.model.family import Family
from familial.model.towers.base import Seen
from familial.train.clip_stage import train_on_clips
from familial.train.config import TrainConfig, label_shares
from familial.train.progress import Clock, Curve, State, run_folder
from familial.train.sampling import BatchSource
from familial.train.stages import TrainingHeads, captions_of, event_losses, noisy_events, window_losses
from familial.train.validation import ValidationSet
from wire.errors import CheckpointError

__all__ = ["train"]


def train(
    family: Family,
    clips: Sequence[LabelledClip],
    validation_clips: Sequence[LabelledClip],
    train_config: TrainConfig,
    out: Path,
    resume: bool,
) -> Family:
    """Train on the config's device; write the checkpoint, and curve and resumable state under build/train.

    Args:
        family: is trained in place.
        clips: to train on.
        validation_clips: to score and calibrate on.
        train_config: how.
        out: folder of the checkpoint.
        resume: go on from the saved state of this folder.

    Returns:
        The moving average of the family, calibrated, on the CPU.

    Raises:
        CheckpointError: the loss is not finite, or the saved state is of another training.
    """
    with torch.device(train_config.device):  # whatever is made inside is made there
        family = family.to(train_config.device)
        average = copy.deepcopy(family).eval().requires_grad_(False)
        _train(family, average, clips, validation_clips, train_config, out, resume)
    return average


def _train(
    family: Family,
    average: Family,
    clips: Sequence[LabelledClip],
    validation_clips: Sequence[LabelledClip],
    train_config: TrainConfig,
    out: Path,
    resume: bool,
) -> None:
    config, heads, folder = family.config, TrainingHeads(family), run_folder(out)
    parameters = [*family.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=train_config.lr, weight_decay=0.02, betas=(0.9, 0.98))
    state = State(folder / "state.pt", {"family": family, "average": average, "heads": heads}, optimiser)
    first, spent = state.load() if resume else state.discard()
    curve, clock = Curve(folder / "curve.csv", fresh=first == 0), Clock(train_config, first, spent)
    adapter_ready = train_config.warm_start or (first > 0 and clock.stage == 2)
    with clock.paused():  # preparation takes no training time
        source = BatchSource(config, clips, train_config)
        validation = ValidationSet(average, validation_clips, train_config)
    label_prototypes = prototypes(len(config.labels), config.tokens, config.width, config.clip_norm - 1.0)  # (L, K, d)
    family.train()
    while clock.done < 1.0:
        stage = clock.stage
        if stage == 2 and not adapter_ready:
            adapter_ready = True
            _point_adapters(family, average)
        _set_lr(optimiser, train_config.lr * clock.lr_factor)
        batch, seen, linked = source.batch(clock.step), list[Seen](), 0.0
        frames = torch.as_tensor(batch.frames)  # u8 (B, T, H, W)
        x = family.sequence_features(frames, source.index, train_config.bf16, seen)  # (B, R, K, d), before rounding
        losses = window_losses(family, x, batch, label_prototypes, source.window_weights(batch))
        losses |= heads.body_losses(seen, batch, train_config.bodies)
        if stage == 2:
            samples = source.samples(batch, train_config.samples_per_sequence, [train_config.seed, clock.step])
            code = family.code(x.flatten(0, 1)).reshape(x.shape)  # rounded; the gradient passes straight through
            z, present = noisy_events(code, samples, config.sigma)  # (N, R, K, d), (N, R)
            weights, captions = source.sample_weights(samples), captions_of(clips, batch, samples)
            losses |= event_losses(family, z, present, samples, batch, weights, captions)
            losses["link"], linked = heads.adversary_loss(z, present, samples, batch, train_config.adversary)
        total = sum(losses.values(), torch.zeros(()))
        _refuse_non_finite(total.item(), clock.step, state.path)
        optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        clock.step += 1
        _update_average(average, family, clock.step - first)
        values = {name: float(value.detach()) for name, value in losses.items()}
        curve.add(clock, values | ({"linked": linked} if "link" in values else {}))
        if curve.due():
            with clock.paused():
                curve.show(validation.scores(average))
                state.save(clock.step, clock.spent)
    minutes, shares = train_config.clip_stage * train_config.minutes, label_shares(config.labels)
    train_on_clips(average, clips, shares, minutes, train_config.clip_steps, train_config.seed)
    with clock.paused():
        average.config = validation.calibrated(average)
    checkpoint.save(average.cpu(), out)
    minutes = clock.spent / 60
    print(f"{clock.step} steps in {minutes:.1f} min; checkpoint in {out}, curve in {curve.path}", flush=True)


def _point_adapters(*families: Family) -> None:
    """Let fresh adapters begin with the directions in which codes lie."""
    for family in families:
        config = family.config
        family.adapter.point_at(code_plane(config.tokens, config.width, (config.rank or 2) + config.aside))


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
