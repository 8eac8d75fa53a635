"""How one family is trained: a short frozen description, filled from the command line or a recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass

from wire.errors import ConfigError

__all__ = ["LABEL_SHARES", "TrainConfig", "label_shares"]

LABEL_SHARES = {"normal": 0.42, "fall": 0.33, "fight": 0.25}
"""How often each label is sampled: normal most, since most of what a camera sees is normal."""
_OTHER_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How long, how large and with which weights.

    Attributes:
        minutes: wall clock of one family, at most.
        steps: at most so many; 0: no limit.
        batch_size: sequences of 8 slots in a step.
        samples_per_sequence: noisy events that stage 2 reads of each sequence.
        stage_1: share of the time for single windows.
        clip_stage: share of the time for whole clips, at the end; 1: what reads codes is trained alone.
        bodies: weight of the losses on what rendered clips know of bodies.
        adversary: weight of the re-identification adversary's reversed gradient.
        lr: highest learning rate.
        seed: of batches and samples.
        bf16: the tower computes in bfloat16.
        warm_start: the weights come from a checkpoint.
        device: torch's name of what computes.
        workers: processes that prepare batches; 0: a thread.
        decision_threshold: from which risk a clip is called one; None: fitted on the validation set.
        freeze_motion: the motion tower of a fused family keeps the weights of the base; what reads codes does not
            change them.
        logit_bias: added to the log odds of a risk once they are calibrated.
        tower_steps: of the tower stage, which then stands in place of stages 1 and 2; 0: none.
        set_variance: in the tower stage, weight of the variance of the losses of sets.
        interpolate: how far on the way from the base's weights to the trained ones, 0 to 1; before the clip stage.
    """

    minutes: float
    steps: int
    batch_size: int
    samples_per_sequence: int
    stage_1: float
    clip_stage: float
    bodies: float
    adversary: float
    lr: float
    seed: int
    bf16: bool
    warm_start: bool
    device: str = "cpu"
    workers: int = 0
    decision_threshold: float | None = None
    logit_bias: float = 0.0
    freeze_motion: bool = False
    tower_steps: int = 0
    set_variance: float = 0.0
    interpolate: float = 1.0

    def __post_init__(self) -> None:
        if self.clip_stage < 0 or self.stage_1 < 0 or (self.clip_stage < 1 < self.stage_1 + self.clip_stage):
            shares = f"--stage-1 {self.stage_1:g}, --clip-stage {self.clip_stage:g}"
            raise ConfigError(f"{shares}: shares of the time, together at most 1")
        if self.clip_stage > 1 or (self.readers_alone and not self.warm_start):
            raise ConfigError(
                f"--clip-stage {self.clip_stage:g}: a share of the time; 1 trains what reads codes alone: give a --base"
            )
        if self.tower_steps < 0 or (self.tower_steps and (self.readers_alone or not self.warm_start)):
            raise ConfigError(
                f"--tower-steps {self.tower_steps}: steps of the tower stage, from a --base, and --clip-stage below 1"
            )
        if not 0 <= self.set_variance < math.inf or (self.set_variance and not self.tower_steps):
            raise ConfigError(f"--set-variance {self.set_variance:g}: 0 or more, and it goes with --tower-steps")
        if not 0 < self.interpolate <= 1 or (self.interpolate < 1 and (self.readers_alone or not self.warm_start)):
            raise ConfigError(
                f"--interpolate {self.interpolate:g}: above 0, to 1, from a --base, and --clip-stage below 1"
            )
        if self.workers < 0:
            raise ConfigError(f"--workers {self.workers}: a number of processes; 0 prepares batches in a thread")

    @property
    def readers_alone(self) -> bool:
        """Whether tower and desensitizer stay as they are: adapter, backbone and exits are trained, on whole clips."""
        return self.clip_stage >= 1.0

    @property
    def clip_steps(self) -> int:
        """Steps of the clip stage; 0: no limit."""
        return max(1, round(self.clip_stage * self.steps)) if self.steps else 0


def label_shares(labels: tuple[str, ...]) -> list[float]:
    """Return how often each label is drawn; they sum to 1."""
    weights = [LABEL_SHARES.get(label, _OTHER_SHARE) for label in labels]
    return [weight / sum(weights) for weight in weights]
