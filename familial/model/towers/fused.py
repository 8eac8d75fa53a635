"""The fused tower: what moves and what people do, side by side; the desensitizer makes one code of both.

frames (B, F, H, W) --motion tower--> (B, 3 * hidden) --+--> (B, features)
people (B, F, P, 56) --people tower--> (B, 2 * width + 2) --+

Where nobody is found the people tower says so, and the motion tower stands alone; training leaves either out at
times, so that the family goes on without it.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from familial.model.config import FamilyConfig
from familial.model.towers.base import Seen, Tower
from familial.model.towers.motion import SnippetTower
from familial.model.towers.people import PeopleTower

__all__ = ["FusedTower"]


class FusedTower(Tower):
    """A motion tower and a people tower.

    Args:
        motion: reads frames.
        people: reads tracks.
    """

    sees_people: ClassVar[bool] = True

    def __init__(self, motion: SnippetTower, people: PeopleTower) -> None:
        super().__init__()
        self.frozen = False
        self.motion, self.people = motion, people
        self.features = motion.features + people.features

    @classmethod
    def of_config(cls, config: FamilyConfig) -> FusedTower:
        """A motion tower as wide as the backbone, and a people tower of `people_width`."""
        return cls(SnippetTower.of_config(config), PeopleTower(config.people_width))

    def freeze_motion(self) -> None:
        """Train the people tower alone: the motion tower keeps its weights and its running means."""
        self.frozen = True
        self.motion.requires_grad_(False)
        self.motion.eval()

    def train(self, mode: bool = True) -> FusedTower:
        """As every module's; a frozen motion tower stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.motion.eval()
        return self

    def forward(self, frames: Tensor, people: Tensor) -> Tensor:
        """Frames u8 or float (B, F, H, W), tracks (B, F, P, VALUES) -> (B, features)."""
        return torch.cat((self.motion(frames), self.people(people)), dim=1)

    def sequence(
        self, frames: Tensor, index: Tensor, people: Tensor | None = None, also: list[Seen] | None = None
    ) -> Tensor:
        """As `Tower.sequence`; ValueError without people, which are never left out by mistake."""
        if people is None:
            raise ValueError("people is None: the fused tower reads the tracks of every window; give zeros for nobody")
        seen = self.people(people.flatten(0, 1)).reshape(*people.shape[:2], self.people.features)
        moves = self._frozen_motion(frames, index) if self.frozen else self.motion.sequence(frames, index, None, also)
        return torch.cat((moves, seen), dim=2)

    @torch.no_grad()
    def _frozen_motion(self, frames: Tensor, index: Tensor) -> Tensor:
        """Features (B, R, features) of the motion tower; sequences of black frames, which are alike, are seen once."""
        shown = frames.flatten(1).amax(dim=1) > 0
        black: Tensor = self.motion(torch.zeros_like(frames[:1, index[0]]))
        made: Tensor = black[:, None].repeat(len(frames), len(index), 1)
        if bool(shown.any()):
            made[shown] = self.motion.sequence(frames[shown], index)
        return made

    def for_export(self) -> FusedTower:
        """A copy with both towers folded."""
        motion = self.motion.for_export()
        assert isinstance(motion, SnippetTower)  # a copy of it
        return FusedTower(motion, self.people.for_export()).eval()
