"""Weights in safetensors files, one or many: read tensor by tensor, written shard by shard, never all in memory.

Weights.open(folder) -> names, shapes        .read(name) -> tensor        .rows(name, ids) -> some rows of one
write_weights(folder, plan, read): the files, with an index where there are several
without_weights(): modules made inside have names and shapes, and no weights yet
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from wire.artifact.checkpoint import INDEX, WEIGHTS, weight_files
from wire.errors import CheckpointError
from wire.files import whole_file, write_whole

__all__ = ["SHARD_BYTES", "Planned", "Weights", "without_weights", "write_weights"]

SHARD_BYTES = 1 << 30
"""Most bytes of a shard, which holds one tensor at least; writing it needs about twice that in memory."""

Planned = tuple[tuple[int, ...], torch.dtype]
"""Shape and number format of a tensor to be written."""


class Weights:
    """The tensors of one folder. Files are mapped: a tensor is read when it is asked for.

    Attributes:
        shapes: name -> shape.
        formats: name -> number format as the file says it (BF16, ...).
    """

    def __init__(self, files: Mapping[str, Any], cure: str) -> None:
        self._cure = cure
        self._files = {name: file for file in files.values() for name in _names(file)}
        parts = {name: file.get_slice(name) for name, file in self._files.items()}
        self.shapes: dict[str, tuple[int, ...]] = {name: tuple(part.get_shape()) for name, part in parts.items()}
        self.formats: dict[str, str] = {name: part.get_dtype() for name, part in parts.items()}

    @classmethod
    def open(cls, folder: Path | str, cure: str) -> Weights:
        """Open every file of the folder.

        Args:
            folder: of a checkpoint or a base.
            cure: what to do about a bad file, for messages.

        Raises:
            CheckpointError: a file is missing, cut or no safetensors, or the index names a tensor that its shard does
                not hold.
        """
        folder = Path(folder)
        files = {}
        for name in weight_files(folder):
            if not (folder / name).is_file():
                raise CheckpointError(f"{folder}: {name} is missing; {cure}")
            try:
                files[name] = safe_open(folder / name, framework="pt")
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{folder / name}: unreadable, cut or damaged ({error}); {cure}") from error
        if (folder / INDEX).is_file():
            claimed = json.loads((folder / INDEX).read_text())["weight_map"]
            held = {name: set(_names(file)) for name, file in files.items()}
            for tensor, shard in claimed.items():
                if tensor not in held[shard]:
                    raise CheckpointError(f"{folder}: {INDEX} says that {shard} holds {tensor!r}, it does not; {cure}")
        return cls(files, cure)

    def read(self, name: str) -> Tensor:
        """One whole tensor, in the number format of the file."""
        return self._part(name, slice(None))

    def rows(self, name: str, ids: Sequence[int]) -> Tensor:
        """Rows `ids` of a matrix; no others are read."""
        return torch.cat([self._part(name, slice(row, row + 1)) for row in ids])

    def _part(self, name: str, part: slice) -> Tensor:
        try:
            tensor: Tensor = self._files[name].get_slice(name)[part] if self.shapes[name] else self._whole(name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{name}: cannot be read ({error}); {self._cure}") from error
        return tensor

    def _whole(self, name: str) -> Tensor:
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor


def _names(file: Any) -> list[str]:
    return list(file.keys())


def write_weights(
    folder: Path, plan: Mapping[str, Planned], read: Callable[[str], Tensor], limit: int = SHARD_BYTES
) -> None:
    """Write every tensor of `plan`, shard by shard.

    All files are written under other names first and then replace those that were there.

    Args:
        folder: where to; it exists.
        plan: name -> shape and number format.
        read: name -> tensor, asked for when it is written.
        limit: most bytes of a shard.
    """
    groups = _groups(plan, limit)
    count = len(groups)
    names = [WEIGHTS] if count == 1 else [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
    with ExitStack() as stack:  # at its end the new files take their places
        for name, group in zip(names, groups, strict=True):
            beside = stack.enter_context(whole_file(folder / name))
            tensors = {tensor: read(tensor).detach().to(plan[tensor][1]).contiguous() for tensor in group}
            save_file(tensors, beside, metadata={"format": "pt"})
            beside.chmod(0o644)
        for stale in [*folder.glob("model-*-of-*.safetensors"), folder / WEIGHTS, folder / INDEX]:
            if stale.name not in names:
                stale.unlink(missing_ok=True)
    if count > 1:
        where = {tensor: name for name, group in zip(names, groups, strict=True) for tensor in group}
        total = sum(_bytes(*plan[tensor]) for tensor in plan)
        index = {"metadata": {"total_size": total}, "weight_map": where}
        write_whole(folder / INDEX, json.dumps(index, indent=1) + "\n")


def _groups(plan: Mapping[str, Planned], limit: int) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    held = 0
    for name, (shape, dtype) in plan.items():
        size = _bytes(shape, dtype)
        if groups[-1] and held + size > limit:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += size
    return groups


def _bytes(shape: Iterable[int], dtype: torch.dtype) -> int:
    return int(torch.Size(shape).numel()) * dtype.itemsize


@contextmanager
def without_weights() -> Iterator[None]:
    """Make modules whose parameters have names and shapes and hold nothing (torch's meta device).

    Buffers, which come from the config, are real. Such a module can be counted, or be given weights read from a file.
    """
    register = nn.Module.register_parameter

    def hollow(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        register(module, name, None if param is None else nn.Parameter(param.detach().to("meta")))

    setattr(nn.Module, "register_parameter", hollow)  # noqa: B010  # mypy takes no assignment to a method
    try:
        yield
    finally:
        setattr(nn.Module, "register_parameter", register)  # noqa: B010
