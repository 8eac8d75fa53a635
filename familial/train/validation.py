"""The validation set: clips that are not trained on. Scores now and then, and calibration at the end.

clips --> a fixed batch, without augmentation --noise--> shares right of windows and of events, at each exit
      --> another batch --score_calibration--> temperature and bias --whole clips--> decision threshold
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from familial.data.batches import SampleBatch, SequenceBatch
from familial.data.events import LabelledClip
from familial.evaluate.clip_inference import Probabilities, clip_codes, clip_probabilities, event_probabilities
from familial.evaluate.score_calibration import (
    ScoreCalibration,
    balanced_loss,
    fit_decision_threshold,
    fit_temperature_and_bias,
    with_logit_bias,
)
from familial.model.code_space import prototypes, rounded_gaussian
from familial.model.config import FamilyConfig
from familial.model.decoders.verdict import edge_exit
from familial.model.encoder import Encoder
from familial.model.family import Family
from familial.train.config import TrainConfig
from familial.train.sampling import BatchSource
from familial.train.stages import noisy_events

__all__ = ["ValidationSet"]

_NOISE_SAMPLES = 4  # of each whole clip


class ValidationSet:
    """Clips that are not trained on; without any, there are no scores and no calibration.

    Args:
        family: whose config it is.
        clips: of the validation set.
        train: the training's config.
    """

    def __init__(self, family: Family, clips: Sequence[LabelledClip], train: TrainConfig) -> None:
        config = family.config
        self._train, self._source, self._batch = train, None, None
        if clips:
            self._source = BatchSource(config, clips, train)
            self._batch = self._source.sample(min(64, 2 * len(clips)), [train.seed, 1 << 30], plain=True)
        self._prototypes = prototypes(len(config.labels), config.tokens, config.width, config.clip_norm - 1.0)

    @torch.no_grad()
    def scores(self, family: Family) -> dict[str, float]:
        """Return shares right, 0 to 1.

        Of windows without noise, nearest to their label's class prototype; and at each exit, of noisy events, and of
        those with all releases ("_full").
        """
        if self._source is None or self._batch is None:
            return {}
        codes, found = _codes(family, self._source, self._batch), dict[str, float]()  # (B, R, K, d)
        labels = torch.as_tensor(self._batch.labels)  # (B, R)
        nearest = (codes.flatten(2) @ self._prototypes.flatten(1).T).argmax(dim=2)
        if bool((labels >= 0).any()):
            found["val_release"] = float((nearest == labels)[labels >= 0].float().mean())
        for name, full in (("", 0.0), ("_full", 1.0)):
            samples = self._source.samples(self._batch, 8, [self._train.seed], full)
            if len(samples.labels):
                edge, cloud, truth = _exit_logits(family, codes, samples)
                found["val_edge" + name] = float((edge.argmax(1) == truth).float().mean())
                found["val_cloud" + name] = float((cloud.argmax(1) == truth).float().mean())
        return found

    @torch.no_grad()
    def calibrated(self, family: Family) -> FamilyConfig:
        """Return the family's config, calibrated on the validation set, with the training's logit bias on top.

        Temperature and bias make the probabilities of both exits likeliest on noisy events with all releases, risk and
        normal equally frequent. Where there is no validation set, or one without risks, they stay as they are.
        """
        config = family.config
        if self._source is not None:
            batch = self._source.sample(min(256, 8 * len(self._source.clips)), [self._train.seed, 1 << 29], plain=True)
            samples = self._source.samples(batch, 12, [self._train.seed, 2], 1.0)
            if len(set((samples.labels > 0).tolist())) == 2:
                edge, cloud, labels = _exit_logits(family, _codes(family, self._source, batch), samples)
                config = _with_fitted_scale(config, torch.stack((edge, cloud)), labels)
                if self._train.decision_threshold is None:
                    config = _with_fitted_threshold(config, family, self._source.clips)
        kept = self._train.decision_threshold is not None
        return with_logit_bias(config, self._train.logit_bias, keep_threshold=kept)


def _codes(family: Family, source: BatchSource, batch: SequenceBatch) -> Tensor:
    """Return the codes float (B, R, K, d) of a batch."""
    encode = Encoder(family)
    return torch.as_tensor(np.stack([encode.sequence(frames, source.grid.index) for frames in batch.frames])).float()


def _exit_logits(family: Family, codes: Tensor, samples: SampleBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Add noise to codes float (B, R, K, d) and return edge and cloud logits (N, L) of samples, and labels (N,)."""
    z, present = noisy_events(codes, samples, family.config.sigma)
    state = family.exit_state(z, present)
    edge, cloud = edge_exit(family, state, present), family.continue_from(state, present)
    return edge, cloud, torch.as_tensor(samples.labels)


def _with_fitted_scale(config: FamilyConfig, logits: Tensor, labels: Tensor) -> FamilyConfig:
    """Return `config` with temperature and bias fitted on logits (2, N, L) of both exits, labels (N,)."""
    raw = (logits - torch.tensor(config.label_bias)) * config.temperature  # without the present calibration
    twice, risks = labels.repeat(2), len(config.labels) - 1

    def cross_entropies(temperature: float, bias: float) -> Probabilities:
        scaled = raw / temperature + torch.tensor([0.0] + [bias] * risks)
        return np.asarray(cross_entropy(scaled.flatten(0, 1), twice, reduction="none").cpu().numpy(), np.float64)

    loss = balanced_loss(cross_entropies, twice.cpu().numpy())
    temperature, bias = fit_temperature_and_bias(loss)
    print(
        f"temperature {temperature:.2f}, bias {bias:+.1f} towards risk: validation loss {loss(temperature, bias):.4f}, "
        f"{loss(config.temperature, 0.0):.4f} without"
    )
    uncalibrated = replace(config, temperature=1.0, label_bias=(0.0,) * len(config.labels))
    made = ScoreCalibration(temperature, bias).applied_to(uncalibrated)
    return replace(made, decision_threshold=config.decision_threshold)


def _with_fitted_threshold(config: FamilyConfig, average: Family, clips: Sequence[LabelledClip]) -> FamilyConfig:
    """Return `config` with the decision threshold that is best on `clips`, each read whole, noise on."""
    family = Family(config).eval()
    family.load_state_dict(average.state_dict())
    rows, truth = list[Probabilities](), list[int]()
    for clip in clips:
        z = clip_codes(family, clip.footage)[None].repeat(_NOISE_SAMPLES, 1, 1, 1)  # (D, S, K, d)
        rows += list(clip_probabilities(event_probabilities(family, z + rounded_gaussian(z, config.sigma), "cloud")))
        truth += [clip.label] * _NOISE_SAMPLES
    found = fit_decision_threshold(truth, rows, ["validation"] * len(truth))
    print(f"decision threshold {found:.2f}", flush=True)
    return replace(config, decision_threshold=round(found, 4))
