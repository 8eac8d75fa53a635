"""A checkpoint as transformers' AutoConfig and AutoModel see it.

    config.json "auto_map" -> veilsight_hub.py beside it -> the classes here, by `checkpoint.load`

`AutoModel.from_pretrained(FOLDER, trust_remote_code=True)` needs this package installed. What it gives computes what
the cloud member does: z (B, R, K, d), present (B, R) -> label logits. Frames and codes stay with `Family`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from familial.model import checkpoint
from familial.model.family import Family

__all__ = ["VeilsightConfig", "VeilsightModel"]


class VeilsightConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers is not typed for us
    """The fields of `FamilyConfig`, which checks them when the weights are loaded."""

    model_type = "veilsight"


class VeilsightModel(PreTrainedModel):  # type: ignore[misc]
    """A family with all blocks.

    Args:
        config: as read from the folder.
        family: with its weights.
    """

    config_class = VeilsightConfig
    base_model_prefix = "family"

    def __init__(self, config: VeilsightConfig, family: Family) -> None:
        super().__init__(config)
        self.family = family

    @classmethod
    def from_pretrained(cls, folder: str | Path, *_: Any, config: VeilsightConfig | None = None, **__: Any) -> Any:
        """Load a checkpoint folder, float32, eval mode; CheckpointError as `checkpoint.load`."""
        config = config or VeilsightConfig.from_pretrained(folder)
        return cls(config, checkpoint.load(folder)).eval()

    def forward(self, z: Tensor, present: Tensor) -> Tensor:
        """z (B, R, K, d), present bool (B, R) -> label logits (B, L) of the cloud's exit."""
        return self.family.cloud_logits(z, present)


AutoConfig.register("veilsight", VeilsightConfig, exist_ok=True)
AutoModel.register(VeilsightConfig, VeilsightModel, exist_ok=True)
