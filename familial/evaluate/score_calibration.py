"""Temperature, bias and decision threshold: fitted here, for training on its validation set and for folds.

    logits --/ temperature, + bias to every risk--> probabilities that are what they say        fit_temperature_and_bias
    label probabilities of clips --> the risk from which a clip is called a risk               fit_decision_threshold

The objective of temperature and bias is `balanced_loss`: the mean cross-entropy of the true labels, in which risk and
normal weigh the same. Training evaluates it on single events of both exits, folds on whole clips. Temperature scaling
after Guo et al., "On Calibration of Modern Neural Networks", 2017; the one bias that all risks share corrects for the
label frequencies of training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from familial.evaluate.clip_inference import RAREST, Probabilities, decide
from familial.model.config import FamilyConfig

__all__ = [
    "ScoreCalibration",
    "at_the_end",
    "balanced_loss",
    "fit_decision_threshold",
    "fit_temperature_and_bias",
    "rescaled",
    "with_logit_bias",
]

_GRID = [(1.1**power, step / 10) for power in range(-10, 13) for step in range(-15, 16)]
_THRESHOLDS = np.linspace(0.05, 0.95, 91)

Loss = Callable[[float, float], float]
"""Temperature, bias -> loss."""


@dataclass(frozen=True, slots=True)
class ScoreCalibration:
    """What turns logits into probabilities, and those into a verdict.

    Attributes:
        temperature: logits are divided by it.
        bias: then added to the logit of every risk.
        decision_threshold: a clip whose risk reaches it is called a risk.
    """

    temperature: float = 1.0
    bias: float = 0.0
    decision_threshold: float = 0.5

    def applied_to(self, config: FamilyConfig) -> FamilyConfig:
        """Return `config` whose temperature and label bias are followed by these, with this decision threshold."""
        bias = tuple(
            round(old / self.temperature + self.bias * (index > 0), 4) for index, old in enumerate(config.label_bias)
        )
        return replace(
            config,
            temperature=round(config.temperature * self.temperature, 4),
            label_bias=bias,
            decision_threshold=round(self.decision_threshold, 4),
        )


def balanced_loss(cross_entropies: Callable[[float, float], npt.ArrayLike], truth: npt.ArrayLike) -> Loss:
    """Return the mean cross-entropy as a function of temperature and bias, risk and normal weighing alike.

    Args:
        cross_entropies: temperature, bias -> float (N,), of each true label.
        truth: label index of each (N,); both risk and normal must be among them, else all weigh alike.
    """
    risk = np.asarray(truth) > 0
    share = float(risk.mean())
    weight = np.where(risk, 0.5 / max(share, 1e-9), 0.5 / max(1.0 - share, 1e-9))  # (N,)
    return lambda temperature, bias: float((weight * np.asarray(cross_entropies(temperature, bias))).mean())


def fit_temperature_and_bias(loss: Loss) -> tuple[float, float]:
    """Return the temperature (1.1^-10 to 1.1^12) and the bias (-1.5 to 1.5, in tenths) of least `loss` on their grid.

    Args:
        loss: from `balanced_loss`.
    """
    return min(_GRID, key=lambda pair: loss(*pair))


def at_the_end(temperature: float, bias: float) -> str:
    """Say which of a fit lies at the end of its grid, so that the best may lie beyond it; "" where none does."""
    ends = zip(*(_GRID[0], _GRID[-1]), strict=True)
    named = zip(("temperature", "bias"), (temperature, bias), ends, strict=True)
    found = [name for name, value, (least, most) in named if not least < value < most]
    return f" ({' and '.join(found)} at the end of what is tried: the best may lie beyond)" if found else ""


def fit_decision_threshold(truth: Sequence[int], clips: Sequence[Probabilities], sets: Sequence[str]) -> float:
    """Return the decision threshold with the highest mean of accuracy and risk F1.

    Every set weighs the same. Ties go to the middle.

    Args:
        truth: label index of each clip (N,).
        clips: label probabilities (L,) of each clip.
        sets: name of each clip's set (N,).
    """
    weight = np.array([1.0 / sets.count(name) for name in sets])
    labels = np.asarray(truth)
    scores = []
    for at in _THRESHOLDS:
        said = np.array([decide(row, float(at))[0] for row in clips])
        hits = weight @ ((said > 0) & (labels > 0))
        f1 = 2 * hits / max(1e-9, weight @ (said > 0) + weight @ (labels > 0))
        scores.append(weight @ (said == labels) / weight.sum() + f1)
    best = np.flatnonzero(np.asarray(scores) >= max(scores) - 1e-9)
    return float(_THRESHOLDS[best[len(best) // 2]])


def rescaled(probabilities: Probabilities, temperature: float, bias: float) -> Probabilities:
    """Return probabilities (..., L) as they are with logits over `temperature`, `bias` added to all but the first."""
    scaled = np.clip(probabilities, RAREST, None) ** (1.0 / temperature)
    scaled[..., 1:] *= np.exp(bias)
    return np.asarray(scaled / scaled.sum(axis=-1, keepdims=True))


def with_logit_bias(config: FamilyConfig, logit_bias: float, *, keep_threshold: bool) -> FamilyConfig:
    """Return `config` with `logit_bias` added to the log odds of every risk.

    Args:
        config: of the family.
        logit_bias: what is added; above 0 a risk is called more often.
        keep_threshold: leave the decision threshold as it is. Otherwise it moves along, so the same clips are called
            a risk.
    """
    if not logit_bias:
        return config
    bias = (config.label_bias[0], *(round(risk + logit_bias, 4) for risk in config.label_bias[1:]))
    if keep_threshold:
        return replace(config, label_bias=bias)
    odds = math.exp(logit_bias) * config.decision_threshold / (1.0 - config.decision_threshold)
    return replace(config, label_bias=bias, decision_threshold=round(odds / (1.0 + odds), 4))
