"""Contours for tests: an untrained decoder for codes of any shape, figures, and the message of one."""

from __future__ import annotations

from typing import Any

import numpy as np

from familial.contour.decoder import CONTOUR_VERSION, HEADS, SHAPES, SPREADS, ContourDecoder
from wire.protocol.contour import RAYS, Contour, Outline

__all__ = ["make_contour", "make_decoder"]

_HIDDEN, _PLANE = 8, 2


def make_decoder(checkpoint: str = "c" * 64, knows: tuple[str, ...] = tuple(HEADS), **changed: Any) -> ContourDecoder:
    """A decoder with random weights, for 8 releases of 4 x 16 numbers; `changed`: of what it says of itself."""
    rng = np.random.default_rng(0)
    outputs = sum(HEADS.values()) + 2 * (SHAPES + SPREADS)
    sizes = {"0": (_HIDDEN, 8 * (_PLANE + 1) + 1), "1": (_HIDDEN, _HIDDEN), "2": (outputs, _HIDDEN)}
    tensors: dict[str, Any] = {f"weight_{name}": rng.normal(0.0, 0.5, size) for name, size in sizes.items()}
    tensors |= {f"bias_{name}": rng.normal(0.0, 0.1, size[0]) for name, size in sizes.items()}
    tensors["plane"] = np.asfortranarray(np.linalg.qr(rng.normal(size=(64, _PLANE)))[0])  # as torch's lies
    tensors["smooth"] = rng.normal(0.0, 0.1, (SPREADS, RAYS))
    for name in ("first", "second"):
        tensors[f"{name}_mean"] = np.full(RAYS, 0.3)
        tensors[f"{name}_basis"] = rng.normal(0.0, 0.02, (SHAPES, RAYS))
    about = {
        "version": CONTOUR_VERSION,
        "checkpoint": checkpoint,
        "encoder": "e" * 64,
        "family": "test",
        "clip_norm": 64,
        "releases": 8,
        "tokens": 4,
        "width": 16,
        "knows": list(knows),
        "priors": {"posture": [0.25] * 4, "count": [0.2, 0.4, 0.4], "moving": [0.3], "way": [0.5]},
    }
    return ContourDecoder(tensors, {**about, **changed})


def make_contour(
    lying: float = 0.1, several: float = 0.2, boot: int = 1, slot: int = 7, model_id: int = 9, **changed: Any
) -> Contour:
    """An upright figure, or one that lies as far as `lying` says."""
    turn = 2 * np.pi * np.arange(RAYS) / RAYS
    tall, wide = 0.15 + 0.35 * np.abs(np.sin(turn)), 0.15 + 0.35 * np.abs(np.cos(turn))
    outline = Outline((1 - lying) * tall + lying * wide, np.full(RAYS, 0.05))
    fields: dict[str, Any] = {
        "boot_id": boot,
        "slot": slot,
        "model_id": model_id,
        "posture": {"upright": 0.9 - 0.9 * lying, "bent": 0.1 - 0.1 * lying, "lying": lying, "fighting": 0.0},
        "count": {"nobody": 0.0, "one": 1.0 - several, "several": several},
        "moving": 0.25,
        "right": None,
        "first": outline,
        "second": Outline(tall, np.full(RAYS, 0.1)),
    }
    return Contour(**{**fields, **changed})
