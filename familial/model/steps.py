"""How one block of a tower or a backbone is computed: at once, or so that a training of large weights fits into memory.

Backbone.step, QwenTower.step = direct          members, export, evaluation
= recomputed(..)  only what enters a block is kept, its inside is computed again in
the backward pass (gradient checkpointing, Chen et al., 2016), with
products in bfloat16 where the weights are
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = ["Step", "direct", "recomputed", "set_step", "stepping"]

Step = Callable[..., Tensor]
"""A function and its arguments -> what it returns."""


def direct(function: Callable[..., Tensor], *args: Any) -> Tensor:
    """Compute the block, nothing else."""
    return function(*args)


def recomputed(device: str, bf16: bool) -> Step:
    """Return a step that keeps the input alone.

    Args:
        device: what computes, "cpu" or "cuda".
        bf16: products in bfloat16; sums over blocks, norms and softmax stay in float32.
    """

    def step(function: Callable[..., Tensor], *args: Any) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            if not torch.is_grad_enabled():
                return function(*args)
            return cast(Tensor, checkpoint(function, *args, use_reentrant=False))

    return step


def set_step(module: nn.Module, step: Step) -> None:
    """Let every tower and backbone inside `module` compute its blocks by `step`."""
    for part in module.modules():
        if "step" in vars(part):
            part.step = step  # type: ignore[assignment]  # a function, no module


@contextmanager
def stepping(module: nn.Module, step: Step) -> Iterator[None]:
    """As `set_step`, until the end of the `with`."""
    before = [(part, vars(part)["step"]) for part in module.modules() if "step" in vars(part)]
    set_step(module, step)
    try:
        yield
    finally:
        for part, own in before:
            part.step = own
