"""How a fused family weighs its towers: each gathers evidence by itself, and the code says the sum of their log odds.

features of a window --motion | people--> two linear heads, each taught the labels alone--> log odds, added
                     --desensitizer--> x, which lies where that sum puts it: at a prototype, or between them

With `late_fusion` the heads are the desensitizer's own, and the code is that sum; without, they exist in training only,
and the desensitizer learns to say it.

Rendered frames flatter the motion tower, and real ones mislead it: a desensitizer that learned from rendered labels
which tower to believe believed the wrong one (AUC on real clips 0.82, where people alone had 0.85). So it is not asked
to choose. Where a tower sees nothing, its evidence is that of nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from familial.data.batches import SequenceBatch
from familial.model.desensitizer import LateFusion
from familial.model.family import Family
from familial.model.towers.fused import FusedTower
from familial.train.losses import agreement_loss, weak_logits_loss

__all__ = ["LABEL_SHARE", "MOTION_SHARE", "Evidence"]

MOTION_SHARE = 0.7
"""Weight of the motion tower's log odds beside those of people: rendered frames make it surer than real ones do."""
LABEL_SHARE = 0.25
"""Weight of the labels themselves on the code, beside the towers' evidence."""

_FAR = 4.0  # of a code before the soft bound: beyond 0.97 of the radius


class Evidence(nn.Module):
    """The heads of both towers: the desensitizer's own, or some for the training.

    Args:
        family: whose tower is fused.
        tower: that tower.
    """

    def __init__(self, family: Family, tower: FusedTower) -> None:
        super().__init__()
        own, widths = family.desensitizer.fusion, (tower.motion.features, tower.people.features)
        heads = LateFusion(*widths, (MOTION_SHARE, 1.0), 0.0, len(family.config.labels)) if own is None else own
        self.made = heads if own is None else None
        self._heads = (heads,)  # no module of this one: those of the family are trained as its own
        self._features, self._length = list[Tensor](), list[Tensor]()
        family.desensitizer.register_forward_pre_hook(partial(_keep_input, self._features))
        family.desensitizer.outer.register_forward_hook(partial(_keep_output, self._length))

    def losses(self, x: Tensor, batch: SequenceBatch, prototypes: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """Return the losses of what was computed on the way to the codes `x`.

        "motion", "people": the labels, by each tower alone. Without `late_fusion` also "agree": a code says the sum of
        both; and "far": codes so far beyond the rim that the soft bound lets no gradient through.

        Args:
            x: float (B, R, K, d), as `family.sequence_features` gave it just now.
            batch: of B sequences of R releases.
            prototypes: float (L, K, d).
            weights: float (L,), of each label.
        """
        features, beyond = self._features.pop().float(), self._length.pop()
        shape = (*batch.labels.shape, -1)  # (B, R, L)
        motion, people = (logits.reshape(shape) for logits in self._heads[0].each(features))
        labels, hidden = torch.as_tensor(batch.labels), torch.as_tensor(batch.weak)
        towers = (("motion", motion), ("people", people))
        found = {name: _labels_loss(logits, labels, hidden, weights) for name, logits in towers}
        if self.made is None:
            return found
        found["far"] = 0.02 * torch.relu(beyond.norm(dim=1) - _FAR).square().mean()
        said = torch.softmax((MOTION_SHARE * motion + people).detach(), dim=2)
        found["agree"] = agreement_loss(x.flatten(0, 1), said.flatten(0, 1), prototypes)
        return found


def _labels_loss(logits: Tensor, labels: Tensor, hidden: Tensor, weights: Tensor) -> Tensor:
    """Of logits (B, R, L): labels (B, R) where they are known, else those of a sequence (B,) where that is known."""
    loss = weak_logits_loss(logits, hidden)
    known = labels >= 0
    if bool(known.any()):
        loss = loss + cross_entropy(logits[known], labels[known], weight=weights, label_smoothing=0.02)
    return loss


def _keep_input(kept: list[Tensor], module: nn.Module, inputs: tuple[Any, ...]) -> None:
    """A forward hook."""
    if module.training:
        kept[:] = [inputs[0]]


def _keep_output(kept: list[Tensor], module: nn.Module, inputs: Any, output: Tensor) -> None:
    """A forward hook."""
    if module.training:
        kept[:] = [output]
