"""How much memory a training takes, asked for before it is taken.

weights --gradient, average, two moments of Adam--> bytes
one sequence, forward --what autograd keeps of it--> bytes x batch size + frames of the batches that wait
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from familial.model.family import Family
from familial.model.resources import require_memory
from familial.train.sampling import AHEAD, BatchSource, tracks_tensor
from familial.train.stages import captions_of, noisy_events

__all__ = ["require_training_memory", "require_weights_memory", "training_bytes"]

_HELD = 5  # float32 copies of the weights in training: itself, gradient, moving average, two moments
_FLOAT = 4
_FRAME_COPIES = 6  # of a sequence's snippets in float, while what moves is cut out of them
_SPARE = 1.4  # dropout masks, work space of convolutions, the backward pass, the allocator


def require_weights_memory(weights: int, doing: str) -> None:
    """Raise CheckpointError unless `weights` weights can be trained in memory; ask before they are made."""
    require_memory(_HELD * _FLOAT * weights, doing)


def require_training_memory(family: Family, source: BatchSource) -> None:
    """Raise CheckpointError unless the batches of `source` fit into memory too; on another device nothing is asked."""
    train = source.train
    if torch.device(train.device).type == "cpu":
        doing = f"training with --batch-size {train.batch_size} and --samples-per-sequence {train.samples_per_sequence}"
        require_memory(training_bytes(family, source), doing, "lower --batch-size, or end other programs")


def training_bytes(family: Family, source: BatchSource) -> int:
    """Return the bytes that a training takes at most beside the clips, by one forward of one sequence.

    Args:
        family: is left as it is, random numbers included.
        source: of its batches.
    """
    train, config, own = source.train, family.config, {value.data_ptr() for value in family.parameters()}
    weights = sum(parameter.numel() for parameter in family.parameters())
    batch = source.sample(1, [train.seed, 1 << 28], plain=True)
    samples = source.samples(batch, train.samples_per_sequence, [train.seed, 1 << 28], 1.0)
    saved, training, state = _Saved(own), family.training, torch.random.get_rng_state()
    family.eval()  # so that no running mean moves
    with ExitStack() as stack:
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(saved.keep, lambda tensor: tensor))
        x = family.sequence_features(torch.as_tensor(batch.frames), source.index, tracks_tensor(batch))
        if len(samples.labels):
            z, present = noisy_events(family.code(x.flatten(0, 1)).reshape(x.shape), samples, config.sigma)
            captions = captions_of(source.clips, batch, samples)
            words = torch.tensor([family.vocabulary.encode(text, config.caption_words) for text in captions])
            family.both_exits(z, present, words)
    family.train(training)
    torch.random.set_rng_state(state)
    frames = batch.frames.nbytes
    each = saved.bytes + _FRAME_COPIES * 2 * _FLOAT * frames + (1 + AHEAD + train.workers) * frames  # snippets overlap
    return int(_HELD * _FLOAT * weights + _SPARE * train.batch_size * each)


class _Saved:
    """Counts the bytes that autograd keeps, each storage once and those at the addresses `own` never."""

    def __init__(self, own: set[int]) -> None:
        self.bytes, self._seen = 0, own
        self._kept = list[Any]()  # alive, so that no address is used again

    def keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self._kept.append(storage)
            self.bytes += storage.nbytes()
        return tensor
