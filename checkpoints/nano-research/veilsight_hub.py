"""What AutoConfig and AutoModel load this folder with."""

from familial.model.hub import VeilsightConfig, VeilsightModel

__all__ = ["VeilsightConfig", "VeilsightModel"]
