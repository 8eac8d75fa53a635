"""One matrix -> integers: round to nearest, or GPTQ, which lets later columns make up for the error of earlier ones.

    weight (out, in), bits, group --each group's least and largest weight--> scale, zero point     the same for all
    nearest: value = round(w / scale) + zero
    gptq:    columns in order of their Hessian's diagonal, largest first; what a column loses by rounding is taken from
             all columns that are not rounded yet, along the inverse Hessian's Cholesky factor

The Hessian of a row's squared output error is H = sum over tokens of s x x^T, x what enters the matrix. GPTQ (Frantar,
Ashkboos, Hoefler, Alistarh 2022, arXiv 2210.17323) has s = 1. What s is for VLMQ: `calibration`. Scales and zero points
are those of the weights as they were ("static groups"), so that the order of columns needs no table in the file.
"""

from __future__ import annotations

import torch
from torch import Tensor

from familial.model.packed import Packed
from wire.errors import CheckpointError

__all__ = ["gptq", "nearest"]

_DAMPING = 0.01  # of the mean diagonal, as in the paper; ten times as much where that is not enough
_TRIES = 4
_LEAST_RANGE = 1e-8  # of a group of zeros


def nearest(weight: Tensor, bits: int, group: int) -> Packed:
    """Round every weight float (out, in) to the nearest value of its group."""
    scale, zero = _grid(weight, bits, group)
    columns = torch.arange(weight.shape[1]) // group
    values = _values(weight.float(), scale.float()[:, columns], zero.float()[:, columns], bits)
    return Packed(values.to(torch.uint8), scale, zero)


def gptq(weight: Tensor, hessian: Tensor, bits: int, group: int) -> Packed:
    """Round the columns of a matrix one after the other.

    Args:
        weight: float (out, in).
        hessian: float (in, in), sum of s x x^T.
        bits: of a value.
        group: weights of a row that share a scale.

    Raises:
        CheckpointError: the Hessian is not finite, or has no Cholesky factor.
    """
    scale, zero = _grid(weight, bits, group)
    diagonal = hessian.diagonal()
    order = diagonal.argsort(descending=True, stable=True)
    left, factor = weight.double()[:, order], _factor(hessian.double()[order][:, order])
    columns = order // group
    scales, zeros = scale.double()[:, columns], zero.double()[:, columns]
    values = torch.empty_like(left)
    for first in range(0, left.shape[1], group):  # a block at a time: the rest of the matrix is brought up once each
        last = min(first + group, left.shape[1])
        errors = torch.empty_like(left[:, first:last])
        for column in range(first, last):
            own = left[:, column]
            values[:, column] = _values(own, scales[:, column], zeros[:, column], bits)
            lost = own - (values[:, column] - zeros[:, column]) * scales[:, column]
            errors[:, column - first] = lost / factor[column, column]
            left[:, column + 1 : last] -= torch.outer(errors[:, column - first], factor[column, column + 1 : last])
        left[:, last:] -= errors @ factor[first:last, last:]
    found = torch.empty_like(values)
    found[:, order] = values
    return Packed(found.to(torch.uint8), scale, zero)


def _grid(weight: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor]:
    """Scales bfloat16 (out, groups) and zero points uint8 (out, groups); zero itself is a value of every group."""
    short = -weight.shape[1] % group
    parts = torch.nn.functional.pad(weight.detach().float(), (0, short)).reshape(len(weight), -1, group)
    low, high = parts.amin(dim=2).clamp(max=0.0), parts.amax(dim=2).clamp(min=0.0)
    most = float(2**bits - 1)
    exact = (high - low).clamp(min=_LEAST_RANGE) / most
    scale = exact.bfloat16()
    scale = torch.where(scale.float() < exact, scale * 1.0078125, scale)  # rounded up: the largest weight stays in
    zero = (-low / scale.float()).round().clamp(0.0, most)
    return scale, zero.to(torch.uint8)


def _values(weight: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    return ((weight / scale).round() + zero).clamp(0.0, float(2**bits - 1))


def _factor(hessian: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse of a Hessian, damped until it has one."""
    if not bool(torch.isfinite(hessian).all()):
        raise CheckpointError("the inputs of a matrix are not finite: the weights before it are damaged; train again")
    mean = hessian.diagonal().mean().clamp(min=1e-12)
    for power in range(_TRIES):
        damped = hessian + _DAMPING * 10.0**power * mean * torch.eye(len(hessian), dtype=hessian.dtype)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not int(failed):
            factor, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not int(failed):
                found: Tensor = factor
                return found
    raise CheckpointError("the inputs of a matrix have no Hessian that can be inverted; calibrate on more clips")
