"""The validation set: clips that are not trained on. Scores now and then, and calibration at the end.

clips --> a fixed batch, without augmentation --noise--> shares right of windows and of events, at each exit
      --> another batch --score_calibration--> temperature and bias --whole clips--> decision threshold
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from familial.data.batches import SampleBatch, SequenceBatch
from familial.data.clips import slots
from familial.data.events import LabelledClip
from familial.evaluate.clip_inference import Probabilities, clip_codes, clip_probabilities, event_probabilities
from familial.evaluate.score_calibration import (
    ScoreCalibration,
    at_the_end,
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
from familial.train.budget import Pace
from familial.train.config import TrainConfig
from familial.train.sampling import BatchSource
from familial.train.stages import noisy_events

__all__ = ["ValidationSet", "pace_of"]

_NOISE_SAMPLES = 4  # of each whole clip
_EVENTS = 12  # of each sequence, for temperature and bias
_CHUNK = 4  # sequences in memory at once
_THRESHOLD_SHARE = 0.5  # of the time of calibration


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
    def calibrated(
        self, family: Family, seconds: float = 1e9, now: Callable[[], float] = time.monotonic
    ) -> tuple[FamilyConfig, dict[str, float]]:
        """Return the family's config, calibrated, with the training's logit bias on top; and scores.

        The scores are shares right of the events that it read, by the calibrated logits, named as those of `scores`.

        Temperature and bias make the probabilities of both exits likeliest on noisy events with all releases, risk and
        normal equally frequent. Where there is no validation set, or one without risks, they stay as they are.

        Args:
            family: whose weights are calibrated.
            seconds: of wall clock, at most; where it is short, fewer events and clips are read.
            now: a clock in seconds.
        """
        config, end, scores = family.config, now() + seconds, dict[str, float]()
        if self._source is not None:
            logits, labels = self._events(family, lambda: now() > end - _THRESHOLD_SHARE * seconds)
            if len(set((labels > 0).tolist())) == 2:
                config = _with_fitted_scale(config, logits, labels)
                right = _calibrated(logits, family.config, config).argmax(dim=2) == labels
                scores = dict(zip(("val_edge_full", "val_cloud_full"), right.float().mean(dim=1).tolist(), strict=True))
                if self._train.decision_threshold is None:
                    clips = _alternating(self._source.clips)
                    config = _with_fitted_threshold(config, family, clips, lambda: now() > end)
            else:
                print("not calibrated: the held-out clips show no risk, or nothing else; the base's values stay")
        kept = self._train.decision_threshold is not None
        return with_logit_bias(config, self._train.logit_bias, keep_threshold=kept), scores

    def cost(self) -> tuple[int, int]:
        """Return how many slots `calibrated` encodes, and how many events it reads."""
        if self._source is None:
            return 0, 0
        clips, config = self._source.clips, self._source.config
        each = [slots(clip.footage.duration, config.window) for clip in clips]
        whole = sum(max(1, count - config.event_releases + 1) for count in each)
        once = _sequences(len(clips))
        return config.event_releases * once + sum(each), _EVENTS * once + _NOISE_SAMPLES * whole

    def _events(self, family: Family, late: Callable[[], bool]) -> tuple[Tensor, Tensor]:
        """Logits (2, N, L) of both exits on noisy events with all releases, and labels (N,); fewer where it is late."""
        source, train, parts = self._source, self._train, list[tuple[Tensor, Tensor, Tensor]]()
        if source is None:
            raise ValueError("there is no validation set")
        for first in range(0, _sequences(len(source.clips)), _CHUNK):  # frames of a few sequences at a time
            batch = source.sample(_CHUNK, [train.seed, 1 << 29, first], plain=True)
            samples = source.samples(batch, _EVENTS, [train.seed, 2, first], 1.0)
            if len(samples.labels):
                parts.append(_exit_logits(family, _codes(family, source, batch), samples))
            seen = {bool(label) for _, _, labels in parts for label in labels > 0}
            if len(seen) == 2 and late():  # not before both risk and normal are there: nothing could be fitted
                break
        if not parts:
            return torch.zeros(2, 0, len(source.config.labels)), torch.zeros(0, dtype=torch.int64)
        edge, cloud, labels = (torch.cat(part) for part in zip(*parts, strict=True))
        return torch.stack((edge, cloud)), labels


def _sequences(clips: int) -> int:
    """How many sequences of so many clips are read for temperature and bias."""
    return min(256, 8 * clips)


def _alternating(clips: Sequence[LabelledClip]) -> list[LabelledClip]:
    """The clips, one of each label in turn, so that the first of them show every label."""
    seen, places = Counter[int](), list[tuple[int, int]]()
    for clip in clips:
        places.append((seen[clip.label], clip.label))
        seen[clip.label] += 1
    return [clips[index] for index in sorted(range(len(clips)), key=places.__getitem__)]


def pace_of(family: Family, clip: LabelledClip, now: Callable[[], float]) -> Pace:
    """Measure how long `family`, in eval mode, takes for a slot and for an event of `clip`."""
    spec, footage = family.config.window, clip.footage
    until = max(1, int(np.searchsorted(footage.times, 8 * spec.slot_s)))
    frames, times = footage.frames[:until], footage.times[:until]
    short = replace(footage, frames=frames, times=times, duration=min(footage.duration, 8 * spec.slot_s))
    clip_codes(family, short)  # the first call also prepares the libraries
    began = now()
    codes = clip_codes(family, short)  # (S, K, d)
    encoded = now()
    event_probabilities(family, codes[None].repeat(64, 1, 1, 1), "cloud")
    events = 64 * max(1, len(codes) - family.config.event_releases + 1)
    return Pace((encoded - began) / len(codes), 2.0 * (now() - encoded) / events)


def _codes(family: Family, source: BatchSource, batch: SequenceBatch) -> Tensor:
    """Return the codes float (B, R, K, d) of a batch."""
    encode, index = Encoder(family), source.grid.index
    tracks = [None] * len(batch.frames) if batch.tracks is None else list(batch.tracks)
    codes = [encode.sequence(frames, index, seen) for frames, seen in zip(batch.frames, tracks, strict=True)]
    return torch.as_tensor(np.stack(codes)).float()


def _exit_logits(family: Family, codes: Tensor, samples: SampleBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Add noise to codes float (B, R, K, d) and return edge and cloud logits (N, L) of samples, and labels (N,)."""
    z, present = noisy_events(codes, samples, family.config.sigma)
    state = family.exit_state(z, present)
    edge, cloud = edge_exit(family, state, present), family.continue_from(state, present)
    return edge, cloud, torch.as_tensor(samples.labels)


def _raw(logits: Tensor, config: FamilyConfig) -> Tensor:
    """Logits (..., L) as they are without the calibration of `config`."""
    return (logits - torch.tensor(config.label_bias)) * config.temperature


def _calibrated(logits: Tensor, before: FamilyConfig, after: FamilyConfig) -> Tensor:
    """Logits (..., L) made with the calibration of `before`, with that of `after`."""
    return _raw(logits, before) / after.temperature + torch.tensor(after.label_bias)


def _with_fitted_scale(config: FamilyConfig, logits: Tensor, labels: Tensor) -> FamilyConfig:
    """Return `config` with temperature and bias fitted on logits (2, N, L) of both exits, labels (N,)."""
    raw = _raw(logits, config)
    twice, risks = labels.repeat(2), len(config.labels) - 1

    def cross_entropies(temperature: float, bias: float) -> Probabilities:
        scaled = raw / temperature + torch.tensor([0.0] + [bias] * risks)
        return np.asarray(cross_entropy(scaled.flatten(0, 1), twice, reduction="none").cpu().numpy(), np.float64)

    loss = balanced_loss(cross_entropies, twice.cpu().numpy())
    temperature, bias = fit_temperature_and_bias(loss)
    print(
        f"temperature {temperature:.2f}, bias {bias:+.1f} towards risk{at_the_end(temperature, bias)}: "
        f"validation loss {loss(temperature, bias):.4f}, {loss(config.temperature, 0.0):.4f} without"
    )
    uncalibrated = replace(config, temperature=1.0, label_bias=(0.0,) * len(config.labels))
    made = ScoreCalibration(temperature, bias).applied_to(uncalibrated)
    return replace(made, decision_threshold=config.decision_threshold)


def _with_fitted_threshold(
    config: FamilyConfig, average: Family, clips: Sequence[LabelledClip], late: Callable[[], bool]
) -> FamilyConfig:
    """Return `config` with the decision threshold that is best on `clips`, each read whole, noise on.

    Where it is late, the clips that were read until then decide; one of each label is read in any case.
    """
    family = average.with_config(config)
    rows, truth = list[Probabilities](), list[int]()
    least = len({clip.label for clip in clips})
    for index, clip in enumerate(clips):
        if index >= least and late():
            print(f"decision threshold: time for {index} of {len(clips)} held-out clips", flush=True)
            break
        z = clip_codes(family, clip.footage)[None].repeat(_NOISE_SAMPLES, 1, 1, 1)  # (D, S, K, d)
        rows += list(clip_probabilities(event_probabilities(family, z + rounded_gaussian(z, config.sigma), "cloud")))
        truth += [clip.label] * _NOISE_SAMPLES
    found = fit_decision_threshold(truth, rows, ["validation"] * len(truth))
    print(f"decision threshold {found:.2f}", flush=True)
    return replace(config, decision_threshold=round(found, 4))
