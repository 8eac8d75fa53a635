"""Windows -> clean codes, for training and evaluation alone. They stay in this process.

windows u8 (S, F, H, W) --tower (folded), desensitizer--> x --integer core--> mu int16 (S, K, d)
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
    def sequence(self, frames: npt.NDArray[np.uint8], index: npt.NDArray[np.int64]) -> npt.NDArray[np.int16]:
        """Frames u8 (T, H, W) and where each window's lie, int64 (S, F) -> clean codes int16 (S, K, d)."""
        seen = self.tower.sequence(torch.as_tensor(frames[None]), torch.as_tensor(index))[0]
        return np.asarray(integer_code(self.desensitizer(seen), self.clip_norm).cpu().numpy(), np.int16)

    @torch.inference_mode()
    def __call__(self, windows: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
        parts = [
            integer_code(self.desensitizer(self.tower(torch.as_tensor(windows[i : i + self.chunk]))), self.clip_norm)
            for i in range(0, len(windows), self.chunk)
        ]
        return np.asarray(torch.cat(parts).cpu().numpy(), np.int16)
