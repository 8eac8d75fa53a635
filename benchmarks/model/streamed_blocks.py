"""Random frozen matrices of decoder blocks in files, mapped: one block at a time is in memory. And a peak of memory.

    shapes --random values, a file a block--> DIR/block-K.bin --mmap, private--> tensors, no copy
    before a block is computed, forward or again in the backward pass: the pages of the last one are let go

The kernel reads a page when it is touched, and drops one that was let go: it is clean, and the file has it. So what is
resident of the frozen matrices is a block or two, however many there are, and what it costs is reading them twice.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from wire.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["MemoryPeak", "StreamedBlocks", "resident"]

_SPREAD = 0.02
_EVERY_S = 0.02
_PREFIX = "backbone.layers."


class StreamedBlocks:
    """Random bfloat16 matrices of blocks, in files of `folder`.

    Args:
        shapes: name -> shape of each matrix; the number after "backbone.layers." is its block.
        folder: where the files go, and stay.

    Attributes:
        held: name -> tensor of the mapped file.
        bytes: of all files.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], folder: Path) -> None:
        import torch

        from familial.model.resources import require_disk

        by_block: dict[int, dict[str, tuple[int, ...]]] = {}
        for name, shape in shapes.items():
            by_block.setdefault(int(name.removeprefix(_PREFIX).partition(".")[0]), {})[name] = shape
        counts = {block: sum(torch.Size(shape).numel() for shape in own.values()) for block, own in by_block.items()}
        self.bytes = 2 * sum(counts.values())
        require_disk(folder, self.bytes, "the frozen blocks")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--offload {folder}: {error.strerror}; give a folder that can be written") from error
        self._maps: dict[int, mmap.mmap] = {}
        self.held: dict[str, Tensor] = {}
        values = torch.empty(max(counts.values()), dtype=torch.bfloat16).normal_(std=_SPREAD)
        for block, own in by_block.items():
            path = folder / f"block-{block}.bin"
            _write(path, values.roll(1009 * block)[: counts[block]])
            with path.open("rb") as file:
                self._maps[block] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            first, whole = 0, torch.frombuffer(self._maps[block], dtype=torch.bfloat16)
            for name, shape in own.items():
                count = torch.Size(shape).numel()
                self.held[name] = whole[first : first + count].view(shape)
                first += count
        self._resident = -1

    def watch(self, layers: Iterable[nn.Module]) -> None:
        """Let the pages of all other blocks go whenever one of `layers`, the blocks in order, is computed."""
        for block, layer in enumerate(layers):
            layer.register_forward_pre_hook(lambda *_, own=block: self._let_go_before(own))

    def _let_go_before(self, block: int) -> None:
        if self._resident not in (-1, block):
            self._maps[self._resident].madvise(mmap.MADV_DONTNEED)
        self._resident = block


def _write(path: Path, values: Tensor) -> None:
    """Write, and wait until the disk has it, so that the pages are clean."""
    import torch

    with path.open("wb") as file:
        values.view(torch.int16).numpy().tofile(file)
        file.flush()
        os.fsync(file.fileno())


class MemoryPeak:
    """The most memory that this process has during a `with` block, looked at fifty times a second.

    Attributes:
        before: resident bytes when the block begins.
        resident: at most, mapped files included.
        own: at most, without mapped files: what no file could give back.
    """

    def __init__(self) -> None:
        self.before = self.resident = self.own = 0
        self._over, self._thread = threading.Event(), threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> MemoryPeak:
        self.before = sum(resident())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_EVERY_S):
            own, mapped = resident()
            self.own = max(self.own, own)
            self.resident = max(self.resident, own + mapped)


def resident() -> tuple[int, int]:
    """Bytes of this process that are resident: its own, and of mapped files (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines if line.startswith("Rss"))
    own, mapped, shared = (1024 * int(found[name].split()[0]) for name in ("RssAnon", "RssFile", "RssShmem"))
    return own, mapped + shared
