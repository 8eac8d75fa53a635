"""How much memory a training takes, asked for before it is taken.

weights --gradient, average, two moments of Adam--> bytes; frozen ones have none of these
one sequence, forward --what autograd keeps of it--> bytes x batch size + frames of the batches that wait
                      --where blocks are recomputed: what enters each, and the inside of the largest-->
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from familial.model.family import Family
from familial.model.resources import require_memory
from familial.model.steps import direct, stepping
from familial.train.sampling import AHEAD, BatchSource, tracks_tensor
from familial.train.stages import captions_of, noisy_events

__all__ = ["require_training_memory", "require_weights_memory", "training_bytes"]

_HELD = 5  # float32 copies of the weights in training: itself, gradient, moving average, two moments
_FLOAT = 4
_FRAME_COPIES = 6  # of a sequence's snippets in float, while what moves is cut out of them
_WITH_GRADIENTS = 2  # the inside of a block that is computed again, and as much for its gradients
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
    weights = sum(
        _HELD * _FLOAT * each.numel() if each.requires_grad else each.element_size() * each.numel()
        for each in family.parameters()
    )
    batch = source.sample(1, [train.seed, 1 << 28], plain=True)
    samples = source.samples(batch, train.samples_per_sequence, [train.seed, 1 << 28], 1.0)
    saved, training, state = _Saved(own), family.training, torch.random.get_rng_state()
    inside = _Inside(saved, own, train.device, any(each.dtype == torch.bfloat16 for each in family.parameters()))
    family.eval()  # so that no running mean moves
    with ExitStack() as stack:
        if family.backbone.step is not direct:
            stack.enter_context(stepping(family, inside))
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
    waiting = (1 + AHEAD + train.workers) * frames
    each = (
        saved.bytes + _WITH_GRADIENTS * inside.most + _FRAME_COPIES * 2 * _FLOAT * frames + waiting
    )  # snippets overlap
    return int(weights + _SPARE * train.batch_size * each)


class _Inside:
    """A step that counts what recomputation keeps: what enters each block, and the inside of the largest one."""

    def __init__(self, saved: _Saved, own: set[int], device: str, bf16: bool) -> None:
        self.most, self._saved, self._own, self._device, self._bf16 = 0, saved, own, device, bf16

    def __call__(self, function: Callable[..., Tensor], *args: Any) -> Tensor:
        for each in args:
            if isinstance(each, Tensor):
                self._saved.keep(each)
        inside = _Saved(set(self._own))
        autocast = torch.autocast(torch.device(self._device).type, torch.bfloat16, enabled=self._bf16)
        with torch.autograd.graph.saved_tensors_hooks(inside.keep, lambda tensor: tensor), autocast:
            made = function(*args)
        self.most = max(self.most, inside.bytes)
        return made.detach().requires_grad_()  # what is inside is not kept


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
        return tensor.detach()  # itself would be a circle where an operation keeps its own result, never freed
