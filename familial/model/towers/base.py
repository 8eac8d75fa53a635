"""The interface of a tower: frames and people of one window -> features. Nothing that is promised rests on a tower.

A tower computes only what ONNX opset 18 and TensorRT both have: fixed strides, means and maxima over whole maps; no
adaptive pooling and no shape that depends on data. A black frame (all pixels 0) is a missing one: it lies before the
start of the stream, or it was lost.
"""

from __future__ import annotations

import copy
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from familial.model.config import FamilyConfig

__all__ = ["Seen", "Tower"]


class Seen(NamedTuple):
    """What a tower computed for single snippets of B sequences: the input of tasks that exist in training only.

    Attributes:
        last: int64 (U,), the place of each snippet's last frame in the sequence.
        features: float (B * U, width), one feature vector per snippet.
        maps: float (B * U, C, h, w), output of the last convolution.
        geometry: float (B * U, 6), where each snippet's crop lies in the frame.
    """

    last: Tensor
    features: Tensor
    maps: Tensor
    geometry: Tensor


class Tower(nn.Module):
    """A vision tower: frames u8 (B, F, H, W), people int (B, F, P, VALUES) -> features float (B, features).

    People are the tracks of a window (`wire.people.tracks`); only a tower that `sees_people` reads them.

    Attributes:
        features: width of the output.
        sees_people: whether it needs the person network.
    """

    features: int
    sees_people: ClassVar[bool] = False

    @classmethod
    def of_config(cls, config: FamilyConfig) -> Tower:
        """A freshly initialised tower of the sizes that `config` gives; CheckpointError where they do not fit."""
        raise NotImplementedError(f"{cls.__name__} does not say how it is made from a config; define of_config")

    def sequence(
        self, frames: Tensor, index: Tensor, people: Tensor | None = None, also: list[Seen] | None = None
    ) -> Tensor:
        """Compute the features of the R windows of B sequences in one call.

        Args:
            frames: u8 (B, T, H, W), all frames of a sequence, each once.
            index: int64 (R, F), the place of each window's frames among the T.
            people: int (B, R, F, P, VALUES), the tracks of each window, for a tower that sees them.
            also: a tower that computes snippets appends what it `Seen`; others leave the list alone.

        Returns:
            Features float (B, R, features).
        """
        windows = frames[:, index].flatten(0, 1)
        seen = (windows,) if people is None else (windows, people.flatten(0, 1))
        return self(*seen).reshape(len(frames), len(index), self.features)  # type: ignore[no-any-return]

    def for_export(self) -> Tower:
        """A copy in eval mode for tracing; it computes the same with fewer operations."""
        return copy.deepcopy(self).eval()
