"""Checkpoint folders in Hugging Face form: config.json, model.safetensors (fp16), vocab.json; the noise lies
beside them.

save(family, folder)    load(folder) -> Family in float32, eval mode    checkpoint_hash(folder) -> hex
adopt(family, base): take over every weight of `base` that has the same name and shape, and say which were not
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from wire.errors import CheckpointError

from .config import FamilyConfig
from .family import Family

__all__ = ["adopt", "checkpoint_hash", "load", "save"]

_CONFIG, _WEIGHTS, _VOCABULARY = "config.json", "model.safetensors", "vocab.json"


def save(family: Family, folder: Path) -> None:
    """Write the three files; weights as fp16. Existing ones are replaced, the weights last and in one move."""
    folder.mkdir(parents=True, exist_ok=True)
    family.config.save(folder / _CONFIG)
    (folder / _VOCABULARY).write_text(json.dumps(family.vocabulary.to_json(), indent=0) + "\n")
    half = {name: value.detach().half().contiguous() for name, value in _floats(family).items()}
    part = folder / (_WEIGHTS + ".part")
    save_file(half, part, metadata={"format": "pt"})
    part.chmod(0o644)
    part.replace(folder / _WEIGHTS)


def load(folder: Path | str) -> Family:
    """Read a folder that `save` wrote.

    Raises CheckpointError for a file that is missing, corrupt or of another shape.
    """
    folder = Path(folder)
    for name in (_CONFIG, _WEIGHTS, _VOCABULARY):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder}: {name} is missing; a checkpoint folder comes from familial.train --out"
            )
    config = FamilyConfig.load(folder / _CONFIG)
    words = json.loads((folder / _VOCABULARY).read_text())
    if words != {word: index for index, word in enumerate(config.words)}:
        raise CheckpointError(
            f"{folder}: vocab.json and the words of config.json differ; take both from one training run"
        )
    family = Family(config)
    try:
        found = load_file(folder / _WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder / _WEIGHTS}: unreadable ({error}); copy or train it again") from error
    expected = _floats(family)
    wrong = [
        name for name, value in expected.items() if name not in found or found[name].shape != value.shape
    ]
    extra = sorted(set(found) - set(expected))
    if wrong or extra:
        raise CheckpointError(
            f"{folder}: weights do not fit config.json: missing or misshapen {wrong[:3]}, unknown {extra[:3]}"
        )
    family.load_state_dict({name: value.float() for name, value in found.items()}, strict=False)
    return family.eval()


def checkpoint_hash(folder: Path | str) -> str:
    """sha256 in hex over the names and contents of the three files: what a manifest pins as "checkpoint"."""
    digest = hashlib.sha256()
    for name in (_CONFIG, _WEIGHTS, _VOCABULARY):
        try:
            content = (Path(folder) / name).read_bytes()
        except OSError as error:
            raise CheckpointError(f"{folder}: {name} is missing ({error})") from error
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def adopt(family: Family, base: Path | str) -> list[str]:
    """Take over the weights of the checkpoint `base` wherever name and shape agree; returns the names left as they
    were.

    Word embeddings are carried over word by word, since vocabularies differ.
    """
    other = load(base)
    mine, theirs = _floats(family), _floats(other)
    taken = {name: theirs[name] for name in mine if name in theirs and theirs[name].shape == mine[name].shape}
    embedding = family.embed.weight.detach().clone()
    places = {word: index for index, word in enumerate(other.config.words)}
    for index, word in enumerate(family.config.words):
        if word in places and other.embed.weight.shape[1] == embedding.shape[1]:
            embedding[index] = other.embed.weight.detach()[places[word]]
    taken["embed.weight"] = embedding
    family.load_state_dict(taken, strict=False)
    return sorted(set(mine) - set(taken))


def _floats(family: Family) -> dict[str, torch.Tensor]:
    """State without integer counters, which fp16 has no place for."""
    return {name: value for name, value in family.state_dict().items() if value.is_floating_point()}
