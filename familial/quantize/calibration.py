"""Block after block: what enters each matrix of a decoder, which tokens matter, and the integers that follow from it.

    calibration batches --whole decoder, backward, once--> importance of each token at each matrix      vlmq alone
                        --blocks so far, as integers--> x, what enters a matrix --sum of s x x^T--> `rounding`

s is the token's importance: 1 for each in plain GPTQ. VLMQ (arXiv 2508.03351) takes it from gradients, so that tokens
on which nothing hangs do not decide how weights are rounded. We had the paper's abstract, not its formulas. Ours: s of
a token at a matrix is the squared norm of the gradient of the decoder's own loss at the matrix's output, divided by its
mean; of several losses (verdict, attributes, words) the mean of each one's s. With answers that the decoder itself
samples, the sum of s x x^T is then the Fisher information of a row of the matrix, up to a factor and to the correlation
of rows. The paper's backward pass goes through one block at a time; ours through all blocks, once for all matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from familial.model.packed import Packed
from familial.quantize.rounding import gptq, nearest
from wire.errors import CheckpointError

__all__ = ["Calibration", "matrices", "quantise"]

_LEAST_MEAN = 1e-20  # of gradients that are zero


class Calibration(Protocol):
    """Blocks of a decoder, and batches that they read."""

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """Those to be quantised, in order."""

    def __len__(self) -> int:
        """Number of batches."""

    def entering(self, batch: int) -> Tensor:
        """What enters the first of the blocks, float (B, T, hidden)."""

    def through(self, block: int, hidden: Tensor, batch: int) -> Tensor:
        """`hidden` after one of the blocks."""

    def read(self, batch: int) -> Tensor:
        """Tokens that are there, bool (B, T); padding is not."""

    def losses(self, hidden: Tensor, batch: int) -> Sequence[Tensor]:
        """The decoder's own losses of `hidden` after the last block, each summed over the batch; all matter alike."""


def matrices(block: nn.Module) -> dict[str, nn.Linear]:
    """Name -> each linear layer of a block, in the order in which they are computed."""
    return {name: module for name, module in block.named_modules() if isinstance(module, nn.Linear)}


def quantise(
    calibration: Calibration, bits: int, group: int, method: str, say: Callable[[str], None] = lambda line: None
) -> dict[tuple[int, str], Packed]:
    """Quantise the blocks in place: their weights become what the integers stand for.

    Args:
        calibration: blocks and batches.
        bits: of a value.
        group: weights of a row that share a scale.
        method: "nearest", "gptq" or "vlmq".
        say: takes a line for each block.

    Returns:
        (number of the block, name of the matrix) -> its integers.

    Raises:
        CheckpointError: what a matrix reads is not finite.
    """
    found = dict[tuple[int, str], Packed]()
    importance = _importance(calibration) if method == "vlmq" else None
    states = [] if method == "nearest" else [calibration.entering(batch).detach() for batch in range(len(calibration))]
    for number, block in enumerate(calibration.blocks):
        for stage in _stages(block):
            hessians = {} if method == "nearest" else _hessians(calibration, number, stage, states, importance)
            for name, module in stage.items():
                packed = nearest(module.weight, bits, group) if method == "nearest" else None
                found[number, name] = packed or _gptq(module.weight, hessians[name], bits, group, f"{number}.{name}")
                with torch.no_grad():
                    module.weight.copy_(found[number, name].floats(group))
        with torch.no_grad():
            states = [calibration.through(number, state, batch) for batch, state in enumerate(states)]
        say(f"block {number + 1} of {len(calibration.blocks)}")
    return found


def _gptq(weight: Tensor, hessian: Tensor, bits: int, group: int, name: str) -> Packed:
    try:
        return gptq(weight, hessian, bits, group)
    except CheckpointError as error:
        raise CheckpointError(f"block {name}: {error}") from error


def _stages(block: nn.Module) -> list[dict[str, nn.Linear]]:
    """The matrices of a block in groups that read the same: what a group reads is computed when those before it are
    quantised. Parts of attention or feed-forward that are no known name stand alone.
    """
    of = {"q_proj": 0, "k_proj": 0, "v_proj": 0, "o_proj": 1, "gate_proj": 2, "up_proj": 2, "down_proj": 3}
    stages = dict[Any, dict[str, nn.Linear]]()
    for name, module in matrices(block).items():
        stages.setdefault(of.get(name.rpartition(".")[2], name), {})[name] = module
    return list(stages.values())


def _hessians(
    calibration: Calibration,
    number: int,
    stage: dict[str, nn.Linear],
    states: Sequence[Tensor],
    importance: dict[tuple[int, str, int], Tensor] | None,
) -> dict[str, Tensor]:
    """Name of a matrix -> sum of s x x^T float64 (in, in) over all batches."""
    found = {name: torch.zeros(module.in_features, module.in_features).double() for name, module in stage.items()}
    for batch, state in enumerate(states):
        entered = dict[str, Tensor]()
        with _watched(stage, lambda name, given, made: entered.__setitem__(name, given.detach())), torch.no_grad():  # noqa: B023
            calibration.through(number, state, batch)
        for name, given in entered.items():
            weight = calibration.read(batch).float() if importance is None else importance[number, name, batch]
            rows = (given * weight.sqrt()[:, :, None]).flatten(0, 1)
            found[name] += (rows.T @ rows).double()
    return found


def _importance(calibration: Calibration) -> dict[tuple[int, str, int], Tensor]:
    """(block, matrix, batch) -> importance of each token float (B, T), 1 in the mean over all tokens."""
    parts = [_squares(calibration, batch) for batch in range(len(calibration))]  # batch -> loss -> matrix -> (B, T)
    there = sum(int(calibration.read(batch).sum()) for batch in range(len(calibration)))
    found = dict[tuple[int, str, int], Tensor]()
    for loss in range(len(parts[0])):
        for number, name in parts[0][loss]:
            mean = sum(float(part[loss][number, name].sum()) for part in parts) / there
            for batch, part in enumerate(parts):
                share = part[loss][number, name] / max(mean * len(parts[0]), _LEAST_MEAN)
                found[number, name, batch] = share + found.get((number, name, batch), 0.0)
    return found


def _squares(calibration: Calibration, batch: int) -> list[dict[tuple[int, str], Tensor]]:
    """For each loss: (block, matrix) -> squared norm of the gradient at each token float (B, T)."""
    made, hidden = dict[tuple[int, str], Tensor](), calibration.entering(batch).detach().requires_grad_()
    with torch.enable_grad():
        for number, block in enumerate(calibration.blocks):
            with _watched(matrices(block), lambda name, _, out: made.__setitem__((number, name), out)):  # noqa: B023
                hidden = calibration.through(number, hidden, batch)
        found = list[dict[tuple[int, str], Tensor]]()
        for loss in calibration.losses(hidden, batch):
            gradients = torch.autograd.grad(loss, list(made.values()), retain_graph=True)
            squares = (gradient.detach().square().sum(dim=2) for gradient in gradients)
            found.append(dict(zip(made, squares, strict=True)))
    return found


@contextmanager
def _watched(modules: dict[str, nn.Linear], see: Callable[[str, Tensor, Tensor], None]) -> Iterator[None]:
    """Call `see` with name, input and output of each of `modules` while the block lasts."""

    def hook(name: str) -> Any:
        return lambda module, given, made: see(name, given[0], made)

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
