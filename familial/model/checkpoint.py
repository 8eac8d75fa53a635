"""Checkpoint folders in Hugging Face form: config.json, model.safetensors or shards of it, vocab.json.

    save(family, folder)    load(folder) -> Family in float32, eval mode    checkpoint_hash(folder) -> hex
    adopt(family, base): copy every weight of `base` that has the same name and shape

What `calibration` writes (noise, ranges, OOD reference) lies beside these files.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from familial.model.adapter import ADAPTER
from familial.model.config import HUB_CODE, HUB_FILE, FamilyConfig
from familial.model.family import Family
from familial.model.packed import PackedWeights, open_weights
from familial.model.resources import require_memory
from familial.model.weights import Planned, Weights, without_weights, write_weights
from wire.artifact.checkpoint import CONFIG, VOCABULARY, checkpoint_hash, weight_files
from wire.errors import CheckpointError

__all__ = ["adopt", "checkpoint_hash", "load", "opened", "plan_of", "rows_by_name", "save", "save_with"]

_OWN = ("desensitizer.", f"{ADAPTER}.", "exit_")  # never of a base, so never in its number format
_CURE = "copy or train it again"
_HEADS = ("exit_head", "desensitizer.fusion.motion", "desensitizer.fusion.people")
_LABELLED = tuple(f"{head}.{part}" for head in _HEADS for part in ("weight", "bias"))  # a row for each label


def save(family: Family, folder: Path) -> None:
    """Write the files of a checkpoint. Existing files are replaced, the weights last and each atomically."""
    state = _floats(family)
    save_with(family.config, folder, plan_of(family), lambda name: state[name])


def save_with(config: FamilyConfig, folder: Path, plan: Mapping[str, Planned], read: Callable[[str], Tensor]) -> None:
    """As `save`, with the weights of `plan` read one by one, so that they never are in memory all at once."""
    folder.mkdir(parents=True, exist_ok=True)
    config.save(folder / CONFIG)
    words = {word: index for index, word in enumerate(config.words)}
    (folder / HUB_FILE).write_text(HUB_CODE)
    (folder / VOCABULARY).write_text(json.dumps(words, indent=0) + "\n")
    write_weights(folder, plan, read)


def plan_of(family: Family) -> dict[str, Planned]:
    """Name -> shape and number format of each weight in the checkpoint; the family may be `without_weights`."""
    base = getattr(torch, family.config.storage)
    return {
        name: (tuple(value.shape), torch.float16 if name.startswith(_OWN) else base)
        for name, value in _floats(family).items()
    }


def load(folder: Path | str, edge_only: bool = False) -> Family:
    """Read a folder that `save` wrote.

    Args:
        folder: the checkpoint.
        edge_only: read the weights of the edge member and no others.

    Returns:
        The family in float32, in eval mode; quantised matrices are floats again.

    Raises:
        CheckpointError: a file is missing or corrupt, a weight has another shape, or memory is too small.
    """
    config, weights = opened(folder)
    with without_weights():
        family = Family(config, edge_only)
    needed = _floats(family)
    require_memory(4 * sum(value.numel() for value in needed.values()), f"loading {folder}")
    state = {name: weights.read(name).to(torch.float32, copy=True) for name in needed}
    family.load_state_dict(state, strict=False, assign=True)
    return family.eval()


def opened(folder: Path | str) -> tuple[FamilyConfig, Weights | PackedWeights]:
    """Open a folder that `save` wrote, and read none of its weights; CheckpointError as `load`."""
    folder = Path(folder)
    for name in (CONFIG, *weight_files(folder), VOCABULARY):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: {name} is missing; a checkpoint folder comes from familial.train --out")
    config = FamilyConfig.load(folder / CONFIG)
    how, config = config.quantization, dataclasses.replace(config, quantization=None)
    words = json.loads((folder / VOCABULARY).read_text())
    if words != {word: index for index, word in enumerate(config.words)}:
        raise CheckpointError(
            f"{folder}: vocab.json and the words of config.json differ; take both from one training run"
        )
    with without_weights():
        whole = Family(config)
    weights = open_weights(folder, how, whole, _CURE)
    expected, found = {name: tuple(value.shape) for name, value in _floats(whole).items()}, weights.shapes
    wrong = [name for name, shape in expected.items() if found.get(name) != shape]
    extra = sorted(set(found) - set(expected))
    if wrong or extra:
        raise CheckpointError(
            f"{folder}: weights do not fit config.json: missing or misshapen {wrong[:3]}, unknown {extra[:3]}"
        )
    return config, weights


def adopt(family: Family, base: Path | str) -> list[str]:
    """Copy the weights of the checkpoint `base` into `family` wherever name and shape agree.

    Word embeddings are copied word by word, the edge's exit and a late fusion label by label, since all may differ.
    Where the code of `family` has directions for attributes and that of `base` has none, the labels' directions are
    copied. A fused tower takes the motion tower of a base that has nothing else; its desensitizer begins anew, since
    one that is sure of what moves would hardly listen to people.

    Returns:
        The names of the weights that were left as they were.
    """
    other, weights = opened(base)
    mine, theirs = _floats(family), {name: weights.read(name) for name in weights.shapes}  # of the mapped files
    if family.config.tower == "fused" and other.tower == "snippets":
        theirs = _as_fused(theirs)
    taken = {name: theirs[name] for name in mine if name in theirs and theirs[name].shape == mine[name].shape}
    places = {word: index for index, word in enumerate(other.words)}
    for matrix in ("embed.weight", "head.weight"):
        if matrix not in mine or matrix not in theirs or theirs[matrix].shape[1] != mine[matrix].shape[1]:
            continue
        taken[matrix] = rows_by_name(mine[matrix], theirs[matrix], family.config.words, places)
    known = {label: index for index, label in enumerate(other.labels)}
    for name in _LABELLED:
        if name not in mine or name not in theirs or mine[name].shape == theirs[name].shape:
            continue
        if mine[name].shape[1:] == theirs[name].shape[1:]:
            taken[name] = rows_by_name(mine[name], theirs[name], family.config.labels, known)
    same = family.config.tower == other.tower
    if same and family.config.aside > other.aside == 0 and family.config.rank == other.rank:
        for name in ("desensitizer.outer.weight", "desensitizer.outer.bias"):
            if mine[name].shape[1:] == theirs[name].shape[1:]:
                taken[name] = torch.cat((theirs[name], mine[name].detach()[len(theirs[name]) :]))
    family.load_state_dict(taken, strict=False)
    return sorted(set(mine) - set(taken))


def _as_fused(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a family with a motion tower, by the names that a fused tower has for them."""
    named = {
        name.replace("tower.", "tower.motion.", 1) if name.startswith("tower.") else name: value
        for name, value in theirs.items()
    }
    return {name: value for name, value in named.items() if not name.startswith("desensitizer.")}


def rows_by_name(mine: Tensor, theirs: Tensor, names: Sequence[str], known: Mapping[str, int]) -> Tensor:
    """`mine` (N, ...), with the rows of `theirs` for each of the N names that is known there."""
    rows = mine.detach().clone()
    for index, name in enumerate(names):
        if name in known:
            rows[index] = theirs[known[name]].to(rows.dtype)
    return rows


def _floats(family: Family) -> dict[str, Tensor]:
    """The state without integer counters (of batch norms), which are not stored."""
    return {name: value for name, value in family.state_dict().items() if value.is_floating_point()}
