"""The processes of one training, as `torchrun` starts them: blocks sharded by FSDP2, gradients averaged.

    frozen weights of a block  --fully_shard--> each process holds a part; gathered for the block's turn, then let go
    trained weights, optimiser                  whole in each process: a LoRA is small
    gradients of each process's own batch --mean over processes--> the same step in all of them

A process alone has no peers, and nothing here does anything. The tower, which is small beside the blocks, is whole
everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from familial.model.family import Family
from wire.errors import ConfigError

__all__ = ["Peers", "peers_of_environment"]


class Peers:
    """One process of `count`, the `rank`-th.

    Attributes:
        rank: 0 writes files and speaks.
        count: processes; 1: this one alone.
        device: what this process computes on.
    """

    def __init__(self, rank: int, count: int, device: str) -> None:
        self.rank, self.count, self.device = rank, count, device

    def shard(self, family: Family) -> None:
        """Part the frozen weights of each decoder block among the processes; trained ones stay whole, and equal."""
        if self.count == 1:
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(torch.device(self.device).type, (self.count,))
        for backbone in (family.backbone, family.branch):
            for layer in [] if backbone is None else backbone.layers:
                whole = {each for each in layer.parameters() if each.requires_grad or each.dim() < 2}
                fully_shard(layer, mesh=mesh, ignored_params=whole)

    def copy_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Give every process the first one's values, in place."""
        if self.count > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor.detach(), 0)

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Put the mean over the processes in place of each gradient; one that no process has stays None."""
        if self.count == 1:
            return
        there = torch.tensor([float(each.grad is not None) for each in parameters], device=self.device)
        torch.distributed.all_reduce(there)
        wanted = [each for each, count in zip(parameters, there.tolist(), strict=True) if count]
        if not wanted:
            return
        grads = [torch.zeros_like(each) if each.grad is None else each.grad for each in wanted]
        flat = torch.cat([grad.flatten() for grad in grads]) / self.count
        torch.distributed.all_reduce(flat)
        for each, mean in zip(wanted, torch.split(flat, [grad.numel() for grad in grads]), strict=True):
            each.grad = mean.reshape(each.shape).clone()

    def mean(self, values: Sequence[float]) -> list[float]:
        """The mean over the processes of each value; not finite where one of them is not."""
        return self._reduced(values, sum_up=True)

    def as_first(self, values: Sequence[float]) -> list[float]:
        """The first process's values, so that all decide alike."""
        return self._reduced(values, sum_up=False)

    def _reduced(self, values: Sequence[float], sum_up: bool) -> list[float]:
        if self.count == 1:
            return list(values)
        held = torch.tensor(list(values), dtype=torch.float64, device=self.device)
        if sum_up:
            torch.distributed.all_reduce(held)
            return [float(value) for value in held / self.count]
        torch.distributed.broadcast(held, 0)
        return [float(value) for value in held]


@contextmanager
def peers_of_environment(device: str) -> Iterator[Peers]:
    """Join the processes that `torchrun` started, until the end of the `with`; alone where it did not.

    Args:
        device: "cpu" or "cuda"; with several processes each takes the GPU of its local rank.

    Raises:
        ConfigError: the environment says no numbers, or there is no such GPU.
    """
    try:
        rank, count, local = (int(os.environ.get(name, at)) for name, at in _PLACES)
    except ValueError as error:
        raise ConfigError(f"RANK, WORLD_SIZE, LOCAL_RANK: {error}; start the processes with torchrun") from error
    if count == 1:
        yield Peers(0, 1, device)
        return
    own, backend = device, "gloo"
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local} has no GPU of its own, there are {torch.cuda.device_count()}: start fewer"
            )
        own, backend = f"cuda:{local}", "nccl"
        torch.cuda.set_device(local)
    torch.distributed.init_process_group(backend, rank=rank, world_size=count)
    try:
        yield Peers(rank, count, own)
    finally:
        torch.distributed.destroy_process_group()


_PLACES = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
