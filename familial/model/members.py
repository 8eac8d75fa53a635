"""The members: what the edge box holds of a family, and what the cloud holds. Both share their weights with it.

edge member    tower, desensitizer, adapter, the shared blocks, the first exit
cloud member   adapter, all blocks, the word head; it has no tower: it reads z and cannot see a frame
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from familial.model.adapter import ADAPTER, Adapter
from familial.model.decoders.verdict import cloud_exit, edge_exit
from familial.model.family import Family
from wire.errors import CheckpointError

__all__ = ["CloudMember", "EdgeMember"]


class EdgeMember(nn.Module):
    """The edge's half of `family`, with shared weights."""

    label_bias: Tensor

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.config = family.config
        self.tower, self.desensitizer = family.tower, family.desensitizer
        self.add_module(ADAPTER, family.adapter)
        self.backbone, self.branch = family.backbone.sliced(0, family.shared), family.branch
        self.exit_norm, self.exit_head = family.exit_norm, family.exit_head
        self.register_buffer("label_bias", family.label_bias, persistent=False)

    @property
    def adapter(self) -> Adapter:
        """z -> tokens."""
        return cast(Adapter, self.get_submodule(ADAPTER))

    def exit_state(self, z: Tensor, present: Tensor) -> Tensor:
        """As `Family.exit_state`."""
        return cast(Tensor, self.backbone(self.adapter(z, present), present))

    def forward(self, z: Tensor, present: Tensor) -> Tensor:
        """z (B, R, K, d), present bool (B, R) -> label logits (B, L)."""
        return edge_exit(self, self.exit_state(z, present), present)


class CloudMember(nn.Module):
    """The cloud's half of `family`, with shared weights; CheckpointError where only the edge member was loaded."""

    label_bias: Tensor

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.config = family.config
        self.add_module(ADAPTER, family.adapter)
        if family.edge_only:
            raise CheckpointError("only the edge member was loaded; load the checkpoint whole for the cloud member")
        shared, layers = family.shared, family.config.layers
        self.first, self.rest = family.backbone.sliced(0, shared), family.backbone.sliced(shared, layers)
        self.norm, self.embed, self.head = family.norm, family.embed, family.head
        self.register_buffer("label_bias", family.label_bias, persistent=False)

    @property
    def adapter(self) -> Adapter:
        """z -> tokens."""
        return cast(Adapter, self.get_submodule(ADAPTER))

    def continue_from(self, state: Tensor, present: Tensor) -> Tensor:
        """The edge's exit state (B, R*T + 1, hidden), present bool (B, R) -> label logits (B, L)."""
        return cloud_exit(self, self.rest(state, present))

    def forward(self, z: Tensor, present: Tensor) -> Tensor:
        """z (B, R, K, d), present bool (B, R) -> label logits (B, L)."""
        return self.continue_from(self.first(self.adapter(z, present), present), present)
