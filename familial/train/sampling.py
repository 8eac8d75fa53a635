"""Batches by their step, prepared ahead by a thread or by processes; always the same for a seed and a step.

clips --familial.data.batches--> SequenceBatch of a step --> SampleBatch: which releases of it stage 2 reads
labels seen so far --> weights that make them as frequent as the config says
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from familial.data.batches import SampleBatch, SequenceBatch, sample_events, sample_sequences
from familial.data.events import Grid, LabelledClip
from familial.model.config import FamilyConfig
from familial.model.towers.registry import tower_class
from familial.train.config import TrainConfig, label_shares

__all__ = ["AHEAD", "BatchSource", "tracks_tensor"]

AHEAD = 3
"""Batches that the thread prepares."""

_ALL_RELEASES = 0.4  # share of the samples that have all releases of their sequence


class BatchSource(Dataset[SequenceBatch]):
    """Batches of sequences of clips, by step.

    Args:
        config: of the family.
        clips: to be sampled.
        train: the training's config.
    """

    def __init__(self, config: FamilyConfig, clips: Sequence[LabelledClip], train: TrainConfig) -> None:
        self.config, self.clips, self.train, self.shares = config, clips, train, label_shares(config.labels)
        self.grid = Grid.of(config.window, config.event_releases)
        self.sees_people = tower_class(config.tower).sees_people
        self.index = torch.as_tensor(self.grid.index)  # (R, frames of a window): which frame each release sees
        self._thread = ThreadPoolExecutor(1)
        self._windows = np.full(len(config.labels), 100.0)  # seen so far (L,); begins with a prior
        self._samples = np.full((len(config.labels), config.event_releases), 10.0)  # (L, R)
        self._coming: dict[int, Future[SequenceBatch]] = {}
        self._arriving: Iterator[tuple[Tensor, SequenceBatch]] | None = None

    def sample(self, sequences: int, seed: list[int], *, plain: bool = False) -> SequenceBatch:
        """Sample a batch outside of the steps. plain: frames as they are, without augmentation."""
        rng = np.random.default_rng(seed)
        window, people = self.config.window, self.sees_people
        return sample_sequences(self.clips, self.shares, sequences, self.grid, window, rng, plain, people)

    def batch(self, step: int) -> SequenceBatch:
        """Return the batch of `step`; the next call is for the step after it."""
        if self.train.workers:
            if self._arriving is None:
                self._arriving = iter(self._loader(step))
            frames, batch = next(self._arriving)
            return replace(batch, frames=frames.numpy())
        for ahead in range(step, step + AHEAD):
            if ahead not in self._coming:
                self._coming[ahead] = self._thread.submit(self.__getitem__, ahead)
        return self._coming.pop(step).result()

    def __getitem__(self, step: int) -> SequenceBatch:
        return self.sample(self.train.batch_size, [self.train.seed, step])

    def _loader(self, first: int) -> DataLoader[SequenceBatch]:
        """Load the batches of `first` and the steps after it in forked processes, which share the clips with this."""
        return DataLoader(
            self,
            batch_size=None,
            sampler=itertools.count(first),
            num_workers=self.train.workers,
            collate_fn=_split_frames,  # type: ignore[arg-type]  # typed for lists of samples alone
            multiprocessing_context="fork",
        )

    def window_weights(self, batch: SequenceBatch) -> Tensor:
        """Return float (L,): what makes labels of single windows as frequent as they should be, counted so far."""
        self._windows += np.bincount(batch.labels[batch.labels >= 0], minlength=len(self._windows))
        wanted = np.array(self.shares) / (self._windows / self._windows.sum())
        return torch.as_tensor(np.clip(wanted, 0.2, 5.0)).float()

    def sample_weights(self, samples: SampleBatch) -> Tensor:
        """Return float (N,): what makes labels as frequent as they should be at EVERY number of releases.

        So the number of releases reveals nothing about the label. Counted over all samples so far.
        """
        counts = samples.last - samples.first
        np.add.at(self._samples, (samples.labels, counts), 1.0)
        share = self._samples / self._samples.sum(axis=0, keepdims=True)  # (L, R)
        wanted = np.array(self.shares)[:, None] / np.clip(share, 1e-6, None)
        return torch.as_tensor(np.clip(wanted, 0.2, 5.0)[samples.labels, counts]).float()

    def samples(self, batch: SequenceBatch, each: int, seed: list[int], full: float = _ALL_RELEASES) -> SampleBatch:
        """Sample `each` events of every sequence; a share `full` of them has all its releases."""
        rng = np.random.default_rng([*seed, 1])
        return sample_events(batch, self.clips, self.config.window, each, rng, full)


def tracks_tensor(batch: SequenceBatch) -> Tensor | None:
    """The tracks of a batch, int16 (B, R, F, TRACKS, VALUES), where the family sees people."""
    return None if batch.tracks is None else torch.as_tensor(batch.tracks)


def _split_frames(batch: SequenceBatch) -> tuple[Tensor, SequenceBatch]:
    """Return the frames as a tensor, which goes from process to process without a copy, and the rest."""
    return torch.from_numpy(batch.frames), replace(batch, frames=batch.frames[:0])
