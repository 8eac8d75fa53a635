"""The graphs: what export traces of a family. Shapes are fixed, one window or one event at a time.

EncodeGraph   frames of one window (and people) --tower, desensitizer, integer core--> mu
DecideGraph   z of one event, which of it arrived --adapter, shared blocks, edge exit--> label logits
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from familial.model.desensitizer import integer_code
from familial.model.family import Family
from familial.model.members import EdgeMember

__all__ = ["DecideGraph", "EncodeGraph"]


class EncodeGraph(nn.Module):
    """encode.onnx: frames u8 (1, F, H, W) -> mu int32 (1, K, d), |mu| <= C, and nothing else.

    A family whose tower `sees_people` also reads people int32 (1, F, P, VALUES), the tracks of the window.
    """

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.tower = family.tower.for_export()
        self.desensitizer = family.desensitizer
        self.clip_norm = family.config.clip_norm

    def forward(self, frames: Tensor, people: Tensor | None = None) -> Tensor:
        """Compute mu.

        Frames and people become floats before anything else, since TensorRT reads bytes by a Cast alone.
        """
        seen = self.tower(frames.float()) if people is None else self.tower(frames.float(), people.float())
        return integer_code(self.desensitizer(seen), self.clip_norm)


class DecideGraph(nn.Module):
    """decide.onnx: z int32 (1, R, K, d), present bool (1, R) -> label logits float32 (1, L)."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.member = EdgeMember(family)

    def forward(self, z: Tensor, present: Tensor) -> Tensor:
        """The edge member's verdict on one event."""
        return cast(Tensor, self.member(z, present))
