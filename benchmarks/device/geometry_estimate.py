"""An ESTIMATE of the edge member's time on the boards: published times of the same tower, scaled by arithmetic."""

from __future__ import annotations

from collections.abc import Mapping

from familial.model.config import FamilyConfig, VisionSpec
from wire.errors import EngineError

__all__ = ["BOARDS", "SOURCE", "estimate", "tower_flops"]

SOURCE = (
    "NVIDIA TensorRT Edge-LLM, performance benchmarks, 8B tower in FP16 at 265 tokens: "
    "https://nvidia.github.io/TensorRT-Edge-LLM/0.9.1/user_guide/performance/performance-benchmarks.html"
)
_PUBLISHED_TOKENS = 265

BOARDS: Mapping[str, tuple[float, float]] = {
    "AGX Orin 64GB": (53.0, 204.8),
    "Orin NX 16GB": (110.0, 102.4),
    "AGX Thor": (15.7, 273.0),
}
"""Board -> (milliseconds published for the tower, GB/s of memory by its data sheet)."""


def tower_flops(vision: VisionSpec, patches: int, attended: int, deepstack: int = 0) -> float:
    """Floating-point operations of one pass of the tower over `patches`, each of which attends to `attended`.

    Two for each multiplication; products of matrices alone. deepstack: mergers beside the last one.
    """
    hidden = vision.hidden
    block = 4 * hidden**2 + 2 * hidden * vision.mlp + 2 * hidden * attended
    inner = hidden * vision.merge**2
    merger = (inner**2 + inner * vision.out) / vision.merge**2
    stem = 3 * vision.temporal * vision.patch**2 * hidden
    return 2.0 * patches * (stem + vision.depth * block + (1 + deepstack) * merger)


def estimate(config: FamilyConfig, decide_bytes: int) -> dict[str, dict[str, float]]:
    """Milliseconds a window and an event would take on each board: an ESTIMATE, no measurement.

    encode: the published time times our operations over theirs. decide: its weights once through memory at the data
    sheet's full rate, the least it can take. Share: of a slot, both together.
    """
    vision = config.vision
    if vision is None:
        raise EngineError("no vision tower in this configuration")
    grid = (config.window.height // vision.patch) * (config.window.width // vision.patch)
    ours = tower_flops(vision, grid * config.window.frames // vision.temporal, grid)
    published = _PUBLISHED_TOKENS * vision.merge**2
    theirs = tower_flops(VisionSpec(27, 1152, 4304, 16, 4096), published, published, deepstack=3)
    found = {}
    for board, (published_ms, bandwidth) in BOARDS.items():
        encode = published_ms * ours / theirs
        decide = decide_bytes / bandwidth / 1e6
        share = (encode + decide) / 1e3 / config.window.slot_s
        found[board] = {"encode_ms": round(encode, 1), "decide_ms": round(decide, 2), "share_of_slot": round(share, 3)}
    return found
