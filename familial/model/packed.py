"""Quantised matrices as a checkpoint holds them, and back to floats when it is loaded.

    weight (out, in) = scale * (value - zero), scale and zero of each group of a row, value of `bits` bits
    NAME.packed  uint8 (out, ceil(in * bits / 8)): the values of a row one after the other, lowest bit first
    NAME.scale   bfloat16 (out, groups), above 0        NAME.zero   uint8 (out, groups), below 2^bits

At 4 bits two values share a byte. The last group of a row may be a short one. Only the matrices of the blocks behind
the edge's exit are held so: what a device computes stays as it was, to the bit. A file is hostile until it is checked:
another shape, number format, scale or zero point, or a bit where there is no value, is refused by the tensor's name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from familial.model.config import Quantization
from familial.model.family import Family
from familial.model.weights import Planned, Weights
from wire.errors import CheckpointError

__all__ = ["Packed", "PackedWeights", "open_weights", "packed_names", "packed_plan"]

_FORMATS = {"packed": "U8", "scale": "BF16", "zero": "U8"}
_LARGEST_SCALE = 1e4  # of weights far beyond any that were trained
_ROWS = 1024  # unpacked at a time: every bit is a byte meanwhile


@dataclass(frozen=True, slots=True)
class Packed:
    """One matrix.

    Attributes:
        values: uint8 (out, in), below 2^bits.
        scale: bfloat16 (out, groups).
        zero: uint8 (out, groups).
    """

    values: Tensor
    scale: Tensor
    zero: Tensor

    def floats(self, group: int) -> Tensor:
        """The weights float32 (out, in) that these integers stand for."""
        columns = torch.arange(self.values.shape[1]) // group
        return (self.values.float() - self.zero.float()[:, columns]) * self.scale.float()[:, columns]

    def tensors(self, name: str, bits: int) -> dict[str, Tensor]:
        """Name -> tensor as a file holds the matrix `name`."""
        return {f"{name}.packed": _pack(self.values, bits), f"{name}.scale": self.scale, f"{name}.zero": self.zero}


def packed_names(family: Family) -> list[str]:
    """Names of the matrices of the blocks behind the edge's exit; the family may be `without_weights`."""
    blocks = list(family.backbone.layers)
    return [
        f"backbone.layers.{index}.{name}.weight"
        for index in range(family.shared, len(blocks))
        for name, module in blocks[index].named_modules()
        if isinstance(module, nn.Linear)
    ]


def packed_plan(name: str, shape: tuple[int, ...], how: Quantization) -> dict[str, Planned]:
    """Name -> shape and number format of what holds the matrix `name` of this shape."""
    rows, columns = shape
    groups = (rows, -(-columns // how.group))
    return {
        f"{name}.packed": ((rows, -(-columns * how.bits // 8)), torch.uint8),
        f"{name}.scale": (groups, torch.bfloat16),
        f"{name}.zero": (groups, torch.uint8),
    }


def open_weights(folder: Path, how: Quantization | None, family: Family, cure: str) -> Weights | PackedWeights:
    """Open the weights of a checkpoint.

    Args:
        folder: of the checkpoint.
        how: what its config says of quantised matrices.
        family: of the config, whole; it may be `without_weights`.
        cure: what to do about a bad file, for messages.

    Raises:
        CheckpointError: as `Weights.open` and `PackedWeights`.
    """
    weights = Weights.open(folder, cure)
    if how is None:
        return weights
    state = family.state_dict()
    return PackedWeights(weights, how, {name: tuple(state[name].shape) for name in packed_names(family)}, cure)


class PackedWeights:
    """The tensors of a folder with quantised matrices, as if they all were floats.

    Args:
        weights: of the folder.
        how: what its config says.
        shapes: name -> shape of the matrices that are quantised.
        cure: what to do about a bad file, for messages.

    Attributes:
        shapes: name -> shape; a quantised matrix is there under its own name, once.

    Raises:
        CheckpointError: a part of a matrix is missing, or has another shape or number format.
    """

    def __init__(self, weights: Weights, how: Quantization, shapes: Mapping[str, tuple[int, ...]], cure: str) -> None:
        self._weights, self._how, self._packed, self._cure = weights, how, dict(shapes), cure
        parts = {part: plan for name in shapes for part, plan in packed_plan(name, shapes[name], how).items()}
        for part, (shape, _) in parts.items():
            wanted = _FORMATS[part.rpartition(".")[2]]
            found = (weights.shapes.get(part), weights.formats.get(part))
            if found != (shape, wanted):
                said = f"{found[0]} of {found[1]}" if found[0] is not None else "not there"
                raise CheckpointError(f"{part}: is {said}, {how.bits} bits want {shape} of {wanted}; {cure}")
        twice = sorted(weights.shapes.keys() & self._packed.keys())
        if twice:
            raise CheckpointError(f"{twice[0]}: is there twice, as integers and as floats; {cure}")
        whole: Collection[str] = weights.shapes.keys() - parts.keys()
        self.shapes = {name: weights.shapes[name] for name in whole} | self._packed

    def read(self, name: str) -> Tensor:
        """One whole tensor; a quantised matrix as float32. Raises CheckpointError where it holds what it must not."""
        if name not in self._packed:
            return self._weights.read(name)
        packed, scale, zero = (self._weights.read(f"{name}.{part}") for part in _FORMATS)
        sane = (scale > 0) & (scale <= _LARGEST_SCALE)  # a NaN is neither
        if not bool(sane.all()):
            count = int((~sane).sum())
            raise CheckpointError(f"{name}.scale: {count} numbers are not above 0 and up to 10000; {self._cure}")
        if (most := int(zero.max())) >= 2**self._how.bits:
            raise CheckpointError(f"{name}.zero: holds {most}, {self._how.bits} bits end before it; {self._cure}")
        columns = self._packed[name][1]
        rows = range(0, len(packed), _ROWS)
        values = torch.cat([self._unpacked(name, packed[row : row + _ROWS], columns) for row in rows])
        return Packed(values, scale, zero).floats(self._how.group)

    def _unpacked(self, name: str, packed: Tensor, columns: int) -> Tensor:
        """Bytes uint8 (N, bytes) -> values uint8 (N, columns)."""
        bits = self._how.bits
        each = (packed[:, :, None] >> torch.arange(8, dtype=torch.uint8)) & 1
        flat = each.flatten(1)
        if bool(flat[:, columns * bits :].any()):
            raise CheckpointError(f"{name}.packed: a bit is set behind the last value of a row; {self._cure}")
        values = flat[:, : columns * bits].reshape(len(packed), columns, bits)
        return (values << torch.arange(bits, dtype=torch.uint8)).sum(dim=2).to(torch.uint8)


def _pack(values: Tensor, bits: int) -> Tensor:
    """Values uint8 (out, in) below 2^bits -> uint8 (out, ceil(in * bits / 8))."""
    found = []
    for row in range(0, len(values), _ROWS):
        part = values[row : row + _ROWS]
        flat = ((part[:, :, None] >> torch.arange(bits, dtype=torch.uint8)) & 1).flatten(1)
        flat = nn.functional.pad(flat, (0, -flat.shape[1] % 8)).reshape(len(part), -1, 8)
        found.append((flat << torch.arange(8, dtype=torch.uint8)).sum(dim=2).to(torch.uint8))
    return torch.cat(found)
