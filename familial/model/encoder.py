"""Windows -> clean codes, for training and evaluation alone. They stay in this process.

windows u8 (S, F, H, W)         --tower (folded), desensitizer--> x --integer core--> mu int16 (S, K, d)
tracks int16 (S, F, P, VALUES)
"""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import torch

from familial.model.desensitizer import integer_code
from familial.model.family import Family

__all__ = ["Encoder"]


class Encoder:
    """Windows u8 (S, F, H, W) -> clean codes int16 (S, K, d), through the integer core.

    Args:
        family: whose codes; its tower is folded for export, as the engine's is.
        chunk: windows a forward, to bound memory.
    """

    def __init__(self, family: Family, chunk: int = 64) -> None:
        self.tower, self.desensitizer = family.tower.for_export(), copy.deepcopy(family.desensitizer).eval()
        self.clip_norm, self.chunk = family.config.clip_norm, chunk

    @torch.inference_mode()
    def sequence(
        self,
        frames: npt.NDArray[np.uint8],
        index: npt.NDArray[np.int64],
        people: npt.NDArray[np.int16] | None = None,
    ) -> npt.NDArray[np.int16]:
        """Encode S windows that share frames.

        Args:
            frames: u8 (T, H, W).
            index: int64 (S, F), where each window's frames lie among the T.
            people: int16 (S, F, P, VALUES), the tracks of each window, for a tower that sees them.

        Returns:
            Clean codes int16 (S, K, d).
        """
        tracks = None if people is None else torch.as_tensor(people[None])
        seen = self.tower.sequence(torch.as_tensor(frames[None]), torch.as_tensor(index), tracks)[0]
        return np.asarray(integer_code(self.desensitizer(seen), self.clip_norm).cpu().numpy(), np.int16)

    @torch.inference_mode()
    def __call__(
        self, windows: npt.NDArray[np.uint8], people: npt.NDArray[np.int16] | None = None
    ) -> npt.NDArray[np.int16]:
        parts = []
        for first in range(0, len(windows), self.chunk):
            seen = [torch.as_tensor(each[first : first + self.chunk]) for each in (windows, people) if each is not None]
            parts.append(integer_code(self.desensitizer(self.tower(*seen)), self.clip_norm))
        return np.asarray(torch.cat(parts).cpu().numpy(), np.int16)
