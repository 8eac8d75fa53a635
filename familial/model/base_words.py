"""What an adopted checkpoint keeps of its base's own words, beside the family's few: for free text in the cloud.

    base folder --checked_files--> tokenizer files, each bounded      --write_words--> CHECKPOINT/base_words/
    base folder --word matrices, where asked for-----------------/      record.json: size and sha256 of each file
    CHECKPOINT/base_words --open_words--> everything checked, then the tokenizer and the mapped matrices

Files are hostile until they are checked, the base's and the kept ones: unknown names, links, sizes beyond a bound,
another hash, ids without a row and matrices of another shape are refused by name. A chat template is kept for servers
that want one, and never run here.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from familial.model.config import FamilyConfig
from wire.errors import CheckpointError
from wire.files import whole_file, write_whole

__all__ = [
    "FOLDER",
    "BaseWords",
    "checked_files",
    "copy_words",
    "open_words",
    "read_tokenizer",
    "words_hash",
    "write_words",
]

FOLDER = "base_words"
"""Beside config.json of a checkpoint; no part of its hash."""

_MB = 1 << 20
_TOKENIZER = "tokenizer.json"
_KEPT = {
    _TOKENIZER: 64 * _MB,
    "tokenizer_config.json": _MB,
    "vocab.json": 16 * _MB,
    "merges.txt": 16 * _MB,
    "special_tokens_map.json": _MB,
    "added_tokens.json": _MB,
    "chat_template.json": _MB,
    "chat_template.jinja": _MB,
}
"""File of a base that is kept, where it is there -> most bytes."""
_MATRICES, _RECORD = "words.safetensors", "record.json"
_TABLE, _HEAD = "table", "head"
_MOST_ROWS = 1 << 20
_HASH = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20
_CURE = "adopt the base again"


@dataclass(frozen=True, slots=True, eq=False)
class BaseWords:
    """A base's words, as it was trained on them.

    Attributes:
        tokenizer: text <-> ids.
        table: id -> vector, (rows, hidden), mapped from the file, in the base's number format.
        head: vector -> logits, the same shape; the table itself where the base ties them.
        known: ids below this are the tokenizer's; the base's rows beyond are padding.
    """

    tokenizer: Tokenizer
    table: Tensor
    head: Tensor
    known: int


def checked_files(base: Path, rows: int) -> dict[str, bytes]:
    """Read the tokenizer's files of a base; none where it has no tokenizer.json.

    Args:
        base: a folder in Hugging Face form.
        rows: of its word embedding.

    Raises:
        CheckpointError: a file is too large, no text or no JSON object, or the tokenizer names rows that are not there.
    """
    if not (base / _TOKENIZER).is_file():
        return {}
    found = {name: _read(base / name, most) for name, most in _KEPT.items() if (base / name).is_file()}
    for name, content in found.items():
        _check_text(base / name, content)
    read_tokenizer(base / _TOKENIZER, found[_TOKENIZER], rows)
    return found


def _read(file: Path, most: int) -> bytes:
    """The content; CheckpointError where it is longer than `most`, which is found before it is read."""
    try:
        size = file.stat().st_size
        if size > most:
            raise CheckpointError(f"{file}: {size} bytes, at most {most} are read; take the file of the published base")
        with file.open("rb") as opened:
            return opened.read(most)
    except OSError as error:
        raise CheckpointError(f"{file}: {error.strerror}; {_CURE}") from error


def _check_text(file: Path, content: bytes) -> None:
    try:
        text = content.decode("utf-8")
        fits = file.suffix != ".json" or isinstance(json.loads(text), dict)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: no text, or no JSON ({error}); download the base again") from error
    if not fits:
        raise CheckpointError(f"{file}: not a JSON object; download the base again")


def read_tokenizer(file: Path, content: bytes, rows: int) -> Tokenizer:
    """Read a tokenizer.json; CheckpointError where it is none, or gives ids from `rows` on."""
    try:
        tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # the library raises Exception itself
        raise CheckpointError(f"{file}: unreadable ({error}); download the base again") from error
    if _known(tokenizer) > rows:
        raise CheckpointError(
            f"{file}: names tokens beyond the {rows} rows of the word embedding; download the base again"
        )
    return tokenizer


def _known(tokenizer: Tokenizer) -> int:
    return 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)


def write_words(checkpoint: Path, files: Mapping[str, bytes], matrices: Mapping[str, Tensor]) -> None:
    """Write `base_words` of a checkpoint anew, the record last.

    Args:
        checkpoint: its folder.
        files: of `checked_files`; without any, nothing is kept.
        matrices: "table", and "head" where the base has one of its own; none: the tokenizer alone is kept.
    """
    folder = checkpoint / FOLDER
    if folder.is_symlink():
        raise CheckpointError(f"{folder}: is a link; remove it")
    shutil.rmtree(folder, ignore_errors=True)
    if not files:
        return
    folder.mkdir()
    for name, content in files.items():
        write_whole(folder / name, content)
    if matrices:
        with whole_file(folder / _MATRICES) as beside:
            save_file({name: value.contiguous() for name, value in matrices.items()}, beside, metadata={"format": "pt"})
            beside.chmod(0o644)
    held = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    of_files = {path.name: {"bytes": path.stat().st_size, "sha256": _hash(path)} for path in held}
    write_whole(folder / _RECORD, json.dumps({"version": 1, "files": of_files}, indent=1) + "\n")


def copy_words(base: Path, out: Path) -> None:
    """Copy `base_words` of one checkpoint into another whose blocks are those of the same base; checked before."""
    if not (base / FOLDER).is_dir():
        return
    _checked_record(base / FOLDER)
    shutil.rmtree(out / FOLDER, ignore_errors=True)
    shutil.copytree(base / FOLDER, out / FOLDER)


def words_hash(checkpoint: Path | str) -> str:
    """The hash of the record, which has those of all files: what a configuration pins.

    Raises:
        CheckpointError: there is no record.
    """
    return hashlib.sha256(_read(Path(checkpoint) / FOLDER / _RECORD, _MB)).hexdigest()


def open_words(checkpoint: Path | str, config: FamilyConfig, named: str | None = None) -> BaseWords:
    """Check everything in `base_words` of a checkpoint and open it.

    Args:
        checkpoint: its folder.
        config: its config.
        named: `words_hash` that it must have, for whoever takes the folder from somebody else; None: any.

    Raises:
        CheckpointError: nothing was kept, no word matrices were, a file is not what the record says, or the record is
            another than `named`.
    """
    folder = Path(checkpoint) / FOLDER
    if not folder.is_dir():
        raise CheckpointError(f"{checkpoint}: keeps nothing of its base's words; adopt with --free-text")
    found = words_hash(checkpoint)
    if named not in (None, found):
        raise CheckpointError(
            f"{folder}: has the hash {found}, but free_text names {named!r}, and no engine's signature covers it; "
            f'where you adopted it, write free_text = "{found}"'
        )
    names = _checked_record(folder)
    if _MATRICES not in names:
        raise CheckpointError(f"{folder}: the tokenizer alone was kept; adopt with --free-text for the word matrices")
    table, head = _matrices(folder / _MATRICES, config)
    content = _read(folder / _TOKENIZER, _KEPT[_TOKENIZER])
    tokenizer = read_tokenizer(folder / _TOKENIZER, content, len(table))
    return BaseWords(tokenizer, table, head, _known(tokenizer))


def _checked_record(folder: Path) -> list[str]:
    """The names of the kept files, each of which has the size and the hash of the record."""
    record = _entries(folder / _RECORD)
    for path in folder.iterdir():
        if path.name not in {*record, _RECORD}:
            raise CheckpointError(f"{path}: is not in {_RECORD}; {_CURE}")
    for name, (size, digest) in record.items():
        path = folder / name
        try:
            about = path.lstat()
        except OSError as error:
            raise CheckpointError(f"{path}: {error.strerror}; {_CURE}") from error
        if not stat.S_ISREG(about.st_mode) or about.st_size != size:
            raise CheckpointError(f"{path}: no regular file of {size} bytes, as {_RECORD} says; {_CURE}")
        if _hash(path) != digest:
            raise CheckpointError(f"{path}: has another hash than {_RECORD} says; {_CURE}")
    return list(record)


def _entries(file: Path) -> dict[str, tuple[int, str]]:
    """File name -> size and hash; CheckpointError where the record has anything else."""
    try:
        found = json.loads(_read(file, _MB))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: no JSON ({error}); {_CURE}") from error
    files = found.get("files") if isinstance(found, dict) and found.get("version") == 1 else None
    if not isinstance(files, dict) or _TOKENIZER not in files:
        raise CheckpointError(f"{file}: no record of version 1 with a {_TOKENIZER}; {_CURE}")
    return {name: _entry(file, name, values) for name, values in files.items()}


def _entry(file: Path, name: str, values: Any) -> tuple[int, str]:
    known = name in _KEPT or name == _MATRICES
    size, digest = (values.get("bytes"), values.get("sha256")) if isinstance(values, dict) else (None, None)
    bounded = type(size) is int and 0 <= size <= _KEPT.get(name, 1 << 40)
    if not known or not bounded or not isinstance(digest, str) or not _HASH.fullmatch(digest):
        raise CheckpointError(f"{file}: {name!r} is none that is kept, or has no size and hash; {_CURE}")
    return size, digest  # type: ignore[return-value]  # a whole number, as was checked


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _matrices(file: Path, config: FamilyConfig) -> tuple[Tensor, Tensor]:
    """Table and head; CheckpointError where they are not as wide as the family, or of another number format."""
    try:
        with safe_open(file, framework="pt") as opened:
            names = set(opened.keys())
            shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in names}
            sizes = set(shapes.values())
            rows, width = sizes.pop() if len(sizes) == 1 and len(shapes[min(names)]) == 2 else (0, 0)
            if _TABLE not in names or names - {_TABLE, _HEAD} or width != config.hidden or not 0 < rows <= _MOST_ROWS:
                raise CheckpointError(f"{file}: holds {shapes}; a table of width {config.hidden} is needed; {_CURE}")
            found = {name: opened.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: unreadable, cut or damaged ({error}); {_CURE}") from error
    if {value.dtype for value in found.values()} != {getattr(torch, config.storage)}:
        raise CheckpointError(f"{file}: is not in the number format {config.storage} of the family; {_CURE}")
    return found[_TABLE], found.get(_HEAD, found[_TABLE])
