"""`python -m benchmarks.lora_geometry`: one LoRA step at Table 1's width, random weights: memory, seconds, operations.

    for each number of decoder blocks, in a process of its own:
    random bf16 tower and blocks + LoRA --memory asked for--> rendered clips --a step of stage 2--> peak, seconds, FLOP
    --offload DIR: the blocks' frozen matrices are files there, mapped; one block at a time is in memory

A step is the training's own: windows through the tower, noise, both exits, backward with every block computed again,
AdamW. Seconds are those of the processor. Blocks are all alike, so of fewer than 36 the rest follows by a straight
line through two numbers or more, and is marked as estimated; what does not grow with the blocks is not. "All in one
place" is what a GPU without offload would hold: what is not mapped at its peak, and everything that is. What a GPU
would take is arithmetic: operations over its data sheet's rate at a stated share. No GPU has run this here.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.model.streamed_blocks import MemoryPeak, StreamedBlocks, resident
from benchmarks.runner import Benchmark, Report
from wire.errors import ConfigError

if TYPE_CHECKING:
    from familial.model.config import FamilyConfig
    from familial.model.family import Family
    from familial.train.sampling import BatchSource

__all__ = ["COMMAND"]

_BLOCKS = 36
_GPUS: Mapping[str, tuple[float, float]] = {
    "RTX 4090, 24 GB": (24e9, 165e12),
    "A100, 80 GB": (80e9, 312e12),
    "H100 SXM, 80 GB": (80e9, 989e12),
}
"""GPU -> (bytes of memory, dense bf16 operations a second by its data sheet)."""
_SHARE = 0.35  # of that rate, which trainings of this kind reach
_CLIPS = 4


@dataclass(frozen=True, slots=True)
class _Size:
    """What one process measures."""

    blocks: int
    width: int
    depth: int
    rank: int
    sequences: int
    threads: int
    offload: Path | None


def _options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--blocks", type=int, nargs="+", default=[4, 12], metavar="N", help="decoder blocks (default: 4 and 12)")
    add("--width", type=int, default=4096, help="of the decoder, a multiple of 128 (default: 4096)")
    add("--depth", type=int, default=27, help="blocks of the tower (default: 27)")
    add("--rank", type=int, default=16, help="of the LoRA (default: 16)")
    add("--sequences", type=int, default=1, help="of 8 releases in a step (default: 1)")
    add("--threads", type=int, default=1, help="of torch (default: 1)")
    add("--offload", type=Path, metavar="DIR", help="keep the blocks' frozen matrices in files there")


def _measure(args: argparse.Namespace) -> Report:
    if min(args.blocks) < 1 or len(set(args.blocks)) != len(args.blocks):
        raise ConfigError(f"--blocks {args.blocks}: different numbers from 1 on")
    found = []
    for blocks in sorted(args.blocks):
        size = _Size(blocks, args.width, args.depth, args.rank, args.sequences, args.threads, args.offload)
        with multiprocessing.get_context("spawn").Pool(1) as pool:  # a peak of its own for each
            found.append(pool.apply(_step, (size,)))
        print(f"{blocks} blocks: {found[-1]}", flush=True)
    return _report(found, args)


def _config(size: _Size) -> FamilyConfig:
    """Table 1's sizes; window, labels and code of the shipped family."""
    from familial.model.config import FamilyConfig, VisionSpec

    like = FamilyConfig.load(Path("checkpoints/nano-motion/config.json"))
    heads = max(1, size.width // 128)
    return replace(
        like,
        tower="qwen",
        vision=VisionSpec(size.depth, 1152, 4304, 16, size.width),
        hidden=size.width,
        layers=size.blocks,
        heads=heads,
        kv_heads=max(1, heads // 4),
        head_dim=128,
        mlp=3 * size.width,
        rope_theta=5e6,
        tied=False,
        storage="bfloat16",
    )


def _family(config: FamilyConfig, rank: int, streamed: StreamedBlocks | None) -> Family:
    """Random weights, each made in the format that it is held in, those of blocks in files where they are streamed."""
    import torch

    from familial.model.family import Family
    from familial.model.fresh import fresh_parts
    from familial.model.lora import held_format, with_lora
    from familial.model.weights import without_weights

    with without_weights():
        family = Family(config)
    fresh, state = fresh_parts(config), dict[str, torch.Tensor]()
    for name, value in family.state_dict().items():
        if name in fresh:
            state[name] = fresh[name]
        elif streamed is not None and name in streamed.held:
            state[name] = streamed.held[name]
        elif value.is_floating_point():
            made = torch.empty(value.shape, dtype=held_format(name, config))
            one = name.endswith("norm.weight") or "norm1.weight" in name or "norm2.weight" in name
            state[name] = made.fill_(1.0) if one else made.normal_(std=0.02)
    family.load_state_dict(state, strict=False, assign=True)
    return with_lora(family, rank)


def _step(size: _Size) -> dict[str, Any]:
    """Make a step; bytes, seconds and operations."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from familial.data.sources import rendered_clips
    from familial.data.splits import clip_seeds
    from familial.model.lora import weights_of
    from familial.model.resources import map_large_arrays, require_memory
    from familial.model.steps import recomputed, set_step
    from familial.train.memory import training_bytes
    from familial.train.sampling import BatchSource

    map_large_arrays()
    torch.set_num_threads(size.threads)
    torch.manual_seed(0)
    config, bare = _config(size), resident()[0]
    frozen, trained = weights_of(config, size.rank)
    doing, streamed = f"a step with {size.blocks} blocks", None
    if size.offload is not None:
        streamed = StreamedBlocks(_shapes(config), size.offload)
    mapped = streamed.bytes if streamed is not None else 0
    require_memory(frozen - mapped + 16 * trained + 1_000_000_000, doing, "give --offload, or fewer --blocks")
    clips = list(rendered_clips(clip_seeds("training", _CLIPS), config.labels, config.window, 1))
    family = _family(config, size.rank, streamed).train()
    if streamed is not None:
        streamed.watch(family.backbone.layers)
    set_step(family, recomputed("cpu", True))
    source = BatchSource(config, clips, _train_config(size))
    asked = training_bytes(family, source)
    require_memory(asked - frozen, doing, "give fewer --blocks or --sequences")
    one = _OneStep(family, source, size.sequences)
    with MemoryPeak() as memory:
        forward, whole, loss = one()
    found = {
        "blocks": size.blocks,
        "frozen_bytes": frozen,
        "mapped_bytes": mapped,
        "trained": trained,
        "asked_bytes": asked + bare,
        "before_bytes": memory.before,
        "resident_bytes": memory.resident,
        "peak_bytes": memory.own + mapped,
        "forward_s": round(forward, 1),
        "step_s": round(whole, 1),
        "loss": round(loss, 4),
    }
    if streamed is not None:
        return found
    with FlopCounterMode(display=False) as counted:  # a step of its own, since the counter holds memory itself
        one()
    return found | {"flop": counted.get_total_flops()}


class _OneStep:
    """A training step on one batch, the same each time.

    Args:
        family: in training.
        source: of the batch, the first that shows something.
        sequences: of it.
    """

    def __init__(self, family: Family, source: BatchSource, sequences: int) -> None:
        import torch

        from familial.model.code_space import prototypes
        from familial.train.stages import TrainingHeads

        config, self._family, self._source = family.config, family, source
        self._heads, self._number = TrainingHeads(family), _first_with_events(source)
        self._batch = source.sample(sequences, [1, self._number])
        self._parameters = [each for each in (*family.parameters(), *self._heads.parameters()) if each.requires_grad]
        self._optimiser = torch.optim.AdamW(self._parameters, lr=1e-4)
        self._corners = prototypes(len(config.labels), config.tokens, config.width, config.clip_norm - 1.0)

    def __call__(self) -> tuple[float, float, float]:
        """Make it; CPU seconds of the forward pass and of all of it, and the loss."""
        import torch

        from familial.train.lora.loop import average_step
        from familial.train.lora.peers import Peers
        from familial.train.stages import step_losses

        began = time.process_time()
        args = (self._family, self._heads, self._source, self._batch, self._number, 2, self._corners)
        losses, _ = step_losses(*args)
        forward = time.process_time() - began
        whole = sum(losses.values(), torch.zeros(()))
        loss = average_step(whole, self._parameters, self._optimiser, Peers(0, 1, "cpu"))
        return forward, time.process_time() - began, loss


def _shapes(config: FamilyConfig) -> dict[str, tuple[int, ...]]:
    """The frozen matrices of the blocks: name -> shape, in the blocks' order."""
    from familial.model.family import Family
    from familial.model.lora import held_format
    from familial.model.weights import without_weights

    with without_weights():
        family = Family(config)
    return {
        name: tuple(value.shape)
        for name, value in family.state_dict().items()
        if name.startswith("backbone.layers.") and held_format(name, config).itemsize == 2
    }


def _first_with_events(source: BatchSource) -> int:
    """The first step whose batch shows something that is known: only then stage 2 has events to read."""
    train = source.train
    for step in range(100):
        batch = source.sample(train.batch_size, [train.seed, step])
        if len(source.samples(batch, train.samples_per_sequence, [train.seed, step]).labels):
            return step
    raise ConfigError("no rendered clip shows anything that is known; give more --sequences")


def _train_config(size: _Size) -> Any:
    from familial.train.config import TrainConfig

    return TrainConfig(
        minutes=1.0,
        steps=1,
        batch_size=size.sequences,
        samples_per_sequence=6,
        stage_1=0.0,
        clip_stage=0.0,
        bodies=0.0,
        adversary=0.3,
        lr=1e-4,
        seed=1,
        bf16=False,
        warm_start=True,
    )


def _at_36(found: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """The value at 36 blocks: measured, or by the least squares line; None where there is none that grows."""
    import numpy as np

    each = {own["blocks"]: float(own[key]) for own in found if key in own}
    if _BLOCKS in each or len(each) < 2:
        return each.get(_BLOCKS)
    slope, start = np.polyfit([*each], [*each.values()], 1)
    return float(start + slope * _BLOCKS) if slope >= 0 else None


_SUMS = ("frozen_bytes", "trained", "asked_bytes", "peak_bytes", "resident_bytes", "step_s", "flop")
_HEAD = ["blocks", "frozen GB", "asked GB", "all in one place GB", "resident GB", "trained M", "step, CPU s", "TFLOP"]


def _row(name: str, each: Mapping[str, float | None]) -> list[str]:
    cells = [("frozen_bytes", 1e9, 2), ("asked_bytes", 1e9, 2), ("peak_bytes", 1e9, 2), ("resident_bytes", 1e9, 2)]
    cells += [("trained", 1e6, 1), ("step_s", 1.0, 0), ("flop", 1e12, 1)]
    values = [(each.get(key), unit, digits) for key, unit, digits in cells]
    return [name, *("-" if value is None else f"{value / unit:.{digits}f}" for value, unit, digits in values)]


def _report(found: Sequence[dict[str, Any]], args: argparse.Namespace) -> Report:
    rows = [_HEAD, *(_row(f"{each['blocks']} measured", each) for each in found)]
    whole, measured = {key: _at_36(found, key) for key in _SUMS}, found[-1]["blocks"] == _BLOCKS
    if not measured and len(found) > 1:
        rows.append(_row(f"{_BLOCKS} estimated", whole))
    peak, flop = whole["peak_bytes"], whole["flop"]
    gpus = {
        name: {
            "step_s": None if flop is None else round(flop / (rate * _SHARE), 2),
            "fits": None if peak is None else peak < memory,
        }
        for name, (memory, rate) in _GPUS.items()
    }
    notes = [
        f"ESTIMATE, no GPU has run it: {name}: {each['step_s']:.2f} s a step of {args.sequences} sequences at "
        f"{_SHARE:.0%} of the data sheet's rate"
        for name, each in gpus.items()
        if each["step_s"] is not None
    ]
    notes += [f"{name}: the step {'fits' if own['fits'] else 'does not fit'}" for name, own in gpus.items() if peak]
    missing = [key for key in _SUMS if whole[key] is None]
    if missing:
        notes.append(f"no figure for {_BLOCKS} blocks: {', '.join(missing)}; measure more --blocks, further apart")
    figures = {"measured": list(found), "at_36": whole, "at_36_measured": measured, "gpus_estimated": gpus}
    frozen = whole["frozen_bytes"]
    return Report(None if peak is None or frozen is None else peak / (frozen / 2 * 20), figures, rows, notes)


COMMAND = Benchmark(
    "lora_geometry",
    __doc__,
    "the memory of training every weight in float32 with its gradient, average and two moments, by arithmetic",
    _options,
    _measure,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
