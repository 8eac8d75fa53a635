"""Three LoRA steps on two fixed batches: both in one process, or one in each of two that torchrun starts.

python -m tests.support.lora_processes CHECKPOINT OUT.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from familial.model.checkpoint import opened
from familial.model.family import Family
from familial.model.lora import opened_with_lora, trained_state
from familial.model.steps import recomputed, set_step
from familial.train.lora.loop import average_step
from familial.train.lora.peers import Peers, peers_of_environment

__all__ = ["main"]

_STEPS, _BATCHES = 3, 2


def main(argv: Sequence[str]) -> None:
    """Train, and let the first process write what it saw."""
    checkpoint, out = Path(argv[0]), Path(argv[1])
    torch.set_num_threads(1)
    with peers_of_environment("cpu") as peers:
        found = _train(checkpoint, peers)
        if peers.rank == 0:
            out.write_text(json.dumps(found))


def _train(checkpoint: Path, peers: Peers) -> dict[str, Any]:
    torch.manual_seed(5 + peers.rank)  # what begins differently must be made equal
    family = opened_with_lora(checkpoint, opened(checkpoint)[0], 4).float().train()  # bfloat16 would round apart
    set_step(family, recomputed("cpu", False))
    family.desensitizer.eval()  # dropout would differ
    parameters = [each for each in family.parameters() if each.requires_grad]
    torch.manual_seed(1)
    with torch.no_grad():
        for each in parameters:  # a LoRA that does something, the same in every run
            each.copy_(torch.randn_like(each) * 0.05)
    if peers.rank:
        with torch.no_grad():
            parameters[0].add_(1.0)
    peers.copy_from_first(parameters)
    optimiser = torch.optim.AdamW(parameters, lr=1e-3)
    peers.shard(family)
    own = range(_BATCHES) if peers.count == 1 else [peers.rank]
    losses = []
    for _ in range(_STEPS):
        loss = torch.stack([_loss(family, number) for number in own]).mean()
        losses.append(average_step(loss, parameters, optimiser, peers))
    weight: Any = family.backbone.layers[0].get_submodule("mlp.gate_proj.base_layer").weight
    held = weight.to_local().numel() if hasattr(weight, "to_local") else weight.numel()
    sums = {name: float(value.detach().abs().sum()) for name, value in trained_state(family).items()}
    return {"losses": losses, "held": held, "sums": sums}


def _loss(family: Family, number: int) -> Tensor:
    made = torch.Generator().manual_seed(number)
    frames = torch.randint(0, 256, (2, 8, 64, 64), dtype=torch.uint8, generator=made)
    z = torch.randint(-200, 200, (3, 8, 4, 16), generator=made).float()
    words = torch.randint(2, 9, (3, 5), generator=made)
    mean = family.features(frames).mean()
    edge, cloud, following, _ = family.both_exits(z + mean, torch.ones(3, 8, dtype=torch.bool), words)
    return torch.stack([part.square().mean() for part in (edge, cloud, following)]).sum()


if __name__ == "__main__":
    main(sys.argv[1:])
