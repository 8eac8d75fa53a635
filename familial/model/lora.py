"""LoRA (Hu et al., 2021) of an adopted family, by peft: a few weights beside the base's own, which stay as they are.

    checkpoint --opened_with_lora--> Family: tower and blocks in the base's number format, frozen, read from its files
                                             + two narrow matrices beside every product of them      trained
                                             desensitizer, adapter, edge exit, words                 trained whole
    Family --save_lora--> DIR: adapter_config.json, adapter_model.safetensors (peft's form), config.json (the family's)
    checkpoint + DIR --merge--> a checkpoint like any other, for `calibration.noise`, `export`, the bridge

The file of weights carries the hash of the checkpoint that it was trained on, and is refused beside any other.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from familial.model.base_words import copy_words
from familial.model.card import Card, write_card
from familial.model.checkpoint import checkpoint_hash, opened, plan_of, rows_by_name, save_with
from familial.model.config import FamilyConfig
from familial.model.family import Family
from familial.model.fresh import FRESH, WORDS, fresh_parts
from familial.model.packed import PackedWeights
from familial.model.resources import require_disk, require_memory
from familial.model.weights import SHARD_BYTES, Weights, without_weights
from wire.artifact.checkpoint import CONFIG
from wire.errors import CheckpointError, ConfigError, VeilsightError
from wire.files import whole_file, write_whole

__all__ = [
    "Lora",
    "held_format",
    "in_bf16",
    "main",
    "merge",
    "opened_with_lora",
    "restore_trained",
    "save_lora",
    "trained_state",
    "weights_of",
    "with_lora",
]

_TARGETS = (
    r"tower\.visual\.(blocks\.\d+\.(attn\.(qkv|proj)|mlp\.linear_fc[12])|merger\.linear_fc[12])"
    r"|(backbone|branch)\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
)
_TARGET = re.compile(_TARGETS)
_HOLD_BF16 = "bfloat16"  # what a base in this format is held and multiplied in; others are held in float32
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."  # of names in peft's files
_PARTS = ("lora_A.weight", "lora_B.weight")
_MOST_RANK = 1024
_CURE = "train it again, or copy the whole folder"


def _is_whole(name: str) -> bool:
    """Whether the family's weight `name` is trained whole."""
    return name.startswith(FRESH + WORDS)


def _is_target(name: str) -> bool:
    """Whether the family's weight `name` is a matrix that gets a LoRA."""
    return name.endswith(".weight") and _TARGET.fullmatch(name.removesuffix(".weight")) is not None


def held_format(name: str, config: FamilyConfig) -> torch.dtype:
    """What a frozen weight is held in: matrices of a bfloat16 base as they are, all else in float32."""
    large = _is_target(name) or ".mlp.experts." in name  # experts are held, and get no LoRA
    return torch.bfloat16 if config.storage == _HOLD_BF16 and large else torch.float32


def weights_of(config: FamilyConfig, rank: int) -> tuple[int, int]:
    """Return how many bytes of a family are frozen, and how many of its weights are trained."""
    with without_weights():
        family = Family(config)
    frozen = trained = 0
    for name, value in family.named_parameters():
        if _is_whole(name):
            trained += value.numel()
            continue
        frozen += value.numel() * held_format(name, config).itemsize
        trained += rank * sum(value.shape) if _is_target(name) else 0
    return frozen, trained


def opened_with_lora(base: Path, config: FamilyConfig, rank: int) -> Family:
    """Open a checkpoint with a fresh LoRA, which changes nothing yet.

    Frozen weights are mapped from the checkpoint's files and not copied, where they are held in the files' format.

    Args:
        base: a checkpoint with a Qwen tower.
        config: its own, or one with more words or labels: their rows begin fresh.
        rank: of the LoRA, r; its scale is 2.

    Raises:
        ConfigError: a rank that is none, or a family without a Qwen tower.
        CheckpointError: the checkpoint is damaged, or memory is too small.
    """
    if not 1 <= rank <= _MOST_RANK:
        raise ConfigError(f"--rank {rank}: columns of a LoRA; give 1 to {_MOST_RANK}")
    found, weights = opened(base)
    if config.tower != "qwen":
        raise ConfigError(
            f"{base}: its tower is {config.tower!r}; a LoRA is for an adopted Qwen3-VL: train this one whole, with "
            "python -m familial.train"
        )
    if isinstance(weights, PackedWeights):
        raise CheckpointError(
            f"{base}: its blocks are quantised; train a LoRA on the checkpoint that they were made of"
        )
    frozen, trained = weights_of(config, rank)
    require_memory(frozen + 4 * trained, f"opening {base} with a LoRA of rank {rank}")
    with without_weights():
        family = Family(config)
    fresh, state = fresh_parts(config), dict[str, Tensor]()
    for name, value in family.state_dict().items():
        if name in fresh:
            state[name] = _grown(name, fresh[name], weights, found, config)
        elif value.is_floating_point():
            state[name] = weights.read(name).to(held_format(name, config))
    family.load_state_dict(state, strict=False, assign=True)
    return with_lora(family, rank).eval()


def with_lora(family: Family, rank: int) -> Family:
    """Put a fresh LoRA beside the products of `family`, in float32, and freeze all that is not trained."""
    from peft import inject_adapter_in_model

    inject_adapter_in_model(_peft_config(rank), family)
    for name, parameter in family.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()
        parameter.requires_grad_(".lora_" in name or _is_whole(name))
    return family


def _peft_config(rank: int) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=_TARGETS)


def _grown(name: str, fresh: Tensor, weights: Weights, base: FamilyConfig, config: FamilyConfig) -> Tensor:
    """The base's tensor in float32; where there are more words or labels, `fresh` with the base's rows."""
    theirs = weights.read(name)
    if name.startswith(WORDS):
        return rows_by_name(fresh, theirs, config.words, {word: index for index, word in enumerate(base.words)})
    if name.startswith("exit_head.") and theirs.shape != fresh.shape:
        known = {label: index for index, label in enumerate(base.labels)}
        return rows_by_name(fresh, theirs, config.labels, known)
    if theirs.shape != fresh.shape:
        raise CheckpointError(f"{name} is {tuple(theirs.shape)} in the base, {tuple(fresh.shape)} here; keep its code")
    return theirs.float().clone()


def trained_state(family: Family) -> dict[str, Tensor]:
    """What is trained, by its name in peft's files; the tensors are the family's own."""
    found = {name: value for name, value in family.state_dict().items() if ".lora_" in name or _is_whole(name)}
    return {_PREFIX + name.replace(".default.", "."): value for name, value in found.items()}


def restore_trained(family: Family, state: Mapping[str, Tensor]) -> None:
    """Copy what `trained_state` gave into a family of the same config and rank."""
    with torch.no_grad():
        for name, value in trained_state(family).items():
            value.copy_(state[name])


def save_lora(family: Family, folder: Path, base: Path, base_hash: str) -> None:
    """Write the LoRA of `family` alone, for `merge` or for peft.

    Args:
        family: with a LoRA.
        folder: where to.
        base: the checkpoint that it was trained on.
        base_hash: `checkpoint_hash` of that.
    """
    state = {name: value.detach().float().cpu().contiguous() for name, value in trained_state(family).items()}
    rank = next(value.shape[0] for name, value in state.items() if name.endswith(_PARTS[0]))
    described = _peft_config(rank).to_dict() | {"base_model_name_or_path": base.resolve().name, "inference_mode": True}
    described = {key: sorted(value) if isinstance(value, set) else value for key, value in described.items()}
    folder.mkdir(parents=True, exist_ok=True)
    family.config.save(folder / CONFIG)
    write_whole(folder / _CONFIG, json.dumps(described, indent=1, default=str) + "\n")
    with whole_file(folder / _WEIGHTS) as beside:
        metadata = {"format": "pt", "base": base_hash, "base_name": base.resolve().name[:60]}
        save_file(state, beside, metadata=metadata)
        beside.chmod(0o644)


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA that was read from its folder.

    Attributes:
        config: of the family with it.
        tensors: by the family's names; of a matrix with a LoRA ("NAME.lora_A.weight", "NAME.lora_B.weight").
        scale: of their product.
        base_hash: of the checkpoint that it was trained on.
        base_name: of that, as it was called then.
    """

    config: FamilyConfig
    tensors: Mapping[str, Tensor]
    scale: float
    base_hash: str
    base_name: str

    @classmethod
    def load(cls, folder: Path) -> Lora:
        """Read `folder`; CheckpointError for anything that `save_lora` does not write."""
        rank, alpha = _read_peft_config(folder / _CONFIG)
        config, file = FamilyConfig.load(folder / CONFIG), folder / _WEIGHTS
        try:
            with safe_open(file, framework="pt") as opened_file:
                metadata = opened_file.metadata() or {}
                tensors = {name.removeprefix(_PREFIX): opened_file.get_tensor(name) for name in opened_file.keys()}  # noqa: SIM118  # no mapping
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: missing, cut or damaged ({error}); {_CURE}") from error
        if not re.fullmatch(r"[0-9a-f]{64}", metadata.get("base", "")):
            raise CheckpointError(f"{file}: does not say which base it was trained on; {_CURE}")
        _check(file, tensors, config, rank)
        name = re.sub(r"[^\w.-]", "?", metadata.get("base_name", ""))[:60]
        return cls(config, tensors, alpha / rank, metadata["base"], name)

    def added_to(self, name: str, weight: Tensor) -> Tensor:
        """The matrix `weight` (out, in) of the base with its LoRA, float32."""
        first, second = (self.tensors[f"{name.removesuffix('.weight')}.{part}"] for part in _PARTS)
        return weight.float() + self.scale * (second @ first)


def _read_peft_config(file: Path) -> tuple[int, int]:
    """Rank and alpha; CheckpointError where the file is not of `save_lora`."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: not readable as JSON ({error}); {_CURE}") from error
    if not isinstance(found, dict) or found.get("peft_type") != "LORA" or found.get("target_modules") != _TARGETS:
        raise CheckpointError(f"{file}: not a LoRA of this family's tower and blocks; {_CURE}")
    odd = [key for key in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "lora_bias") if found.get(key)]
    if odd or found.get("bias", "none") != "none":
        raise CheckpointError(f"{file}: {(odd or ['bias'])[0]} is set, which is not merged here; {_CURE}")
    values = found.get("r"), found.get("lora_alpha")
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 4 * _MOST_RANK:
            raise CheckpointError(f"{file}: r, lora_alpha are {values}, not ranks; {_CURE}")
    return values  # type: ignore[return-value]  # checked above


def _check(file: Path, tensors: Mapping[str, Tensor], config: FamilyConfig, rank: int) -> None:
    """CheckpointError unless the tensors are exactly those of a LoRA of `rank`, and finite."""
    with without_weights():
        family = Family(config)
    expected = dict[str, tuple[int, ...]]()
    for name, (shape, _) in plan_of(family).items():
        if _is_target(name):
            stem = name.removesuffix(".weight")
            expected |= {f"{stem}.{_PARTS[0]}": (rank, shape[1]), f"{stem}.{_PARTS[1]}": (shape[0], rank)}
        elif _is_whole(name):
            expected[name] = shape
    wrong = sorted(name for name in {*expected, *tensors} if expected.get(name) != _shape(tensors.get(name)))
    if wrong:
        raise CheckpointError(f"{file}: does not fit its config.json: {', '.join(wrong[:3])}; {_CURE}")
    endless = sorted(name for name, value in tensors.items() if not bool(torch.isfinite(value).all()))
    if endless:
        raise CheckpointError(f"{file}: {endless[0]} holds numbers that are not finite; {_CURE}")


def _shape(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None or not tensor.is_floating_point() else tuple(tensor.shape)


def merge(base: Path, folder: Path, out: Path, lora: Lora | None = None) -> FamilyConfig:
    """Write the checkpoint that computes what `base` does with the LoRA, to the rounding of the base's number format.

    Weights are read and written one by one.

    Args:
        base: the checkpoint that the LoRA was trained on.
        folder: of the LoRA.
        out: the checkpoint to write.
        lora: what `Lora.load(folder)` gave, where it is known.

    Returns:
        The family's config.

    Raises:
        CheckpointError: another base, a damaged file, or memory or disk is too small. Nothing has been written then.
    """
    lora = lora or Lora.load(folder)
    found = checkpoint_hash(base)
    if found != lora.base_hash:
        raise CheckpointError(
            f"{folder}: was trained on {lora.base_name!r} ({lora.base_hash[:12]}), {base} is another base "
            f"({found[:12]}); give that checkpoint with --base"
        )
    _, weights = opened(base)
    with without_weights():
        family = Family(lora.config)
    plan = plan_of(family)
    kept = {name: plan[name][0] for name in plan if not _is_whole(name)}
    wrong = [name for name, shape in kept.items() if weights.shapes.get(name) != shape]
    if wrong:
        raise CheckpointError(f"{folder}: its config.json has other sizes than {base}: {', '.join(wrong[:3])}; {_CURE}")
    total = sum(torch.Size(shape).numel() * dtype.itemsize for shape, dtype in plan.values())
    require_memory(3 * min(total, SHARD_BYTES) + 200_000_000, f"merging {folder}")
    require_disk(out, total + 10_000_000, f"merging {folder}")

    def read(name: str) -> Tensor:
        if _is_whole(name):
            return lora.tensors[name]
        weight = weights.read(name)
        return lora.added_to(name, weight) if _is_target(name) else weight.clone()

    save_with(lora.config, out, plan, read)
    copy_words(base, out)
    return lora.config


def in_bf16(family: nn.Module) -> bool:
    """Whether products of `family` are computed in bfloat16: its frozen matrices are held so."""
    return any(value.dtype == torch.bfloat16 for value in family.parameters())


def main(argv: Sequence[str] | None = None) -> int:
    """Merge a LoRA into its base; the exit status is 0, or 1 with the reason in one line."""
    parser = argparse.ArgumentParser(
        prog="python -m familial.model.lora", description="Merge a LoRA into the checkpoint that it was trained on."
    )
    parser.add_argument("--base", type=Path, required=True, metavar="DIR", help="the checkpoint it was trained on")
    parser.add_argument("--lora", type=Path, required=True, metavar="DIR", help="folder of familial.train.lora")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoint folder to write")
    args = parser.parse_args(argv)
    try:
        if args.out.resolve() in (args.base.resolve(), args.lora.resolve()):
            raise ConfigError(f"--out {args.out}: is read too; give another folder")
        config = merge(args.base, args.lora, args.out)
    except VeilsightError as error:
        print(f"familial.model.lora: {error}", file=sys.stderr)
        return 1
    print(write_card(args.out, Card("familial.model.lora", config, base=args.base)))
    print(f"written: {args.out}; next: python -m calibration.noise --checkpoint {args.out} --target balanced")
    return 0


if __name__ == "__main__":
    sys.exit(main())
