"""The language backbone: blocks of transformers' Qwen3-VL text decoder over the tokens of one event.

One loop runs the blocks for training, for both members and for tracing. A member holds a slice of the blocks, which it
shares with the family, so the cloud member goes on from the edge's exit state with a difference of exactly zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import Qwen3VLMoeTextConfig, Qwen3VLMoeTextModel, Qwen3VLTextConfig, Qwen3VLTextModel

from familial.model.config import FamilyConfig
from familial.model.steps import Step, direct

__all__ = ["Backbone"]

_FAR = -30000.0  # added to the score of what may not be attended; finite in half precision


class Backbone(nn.Module):
    """Consecutive blocks of the decoder, with the positions and the mask that all blocks share.

    `of_config` makes all blocks; `sliced` gives some of them, shared and not copied.

    Attributes:
        step: computes one block; a training may compute it otherwise (`steps`).
    """

    causal: Tensor
    eye: Tensor
    spread: Tensor
    cos: Tensor
    sin: Tensor

    step: Step

    def __init__(self, layers: Sequence[nn.Module], buffers: dict[str, Tensor]) -> None:
        super().__init__()
        self.layers, self.step = nn.ModuleList(layers), direct
        for name, value in buffers.items():
            self.register_buffer(name, value.detach().clone(), persistent=False)

    @classmethod
    def of_config(cls, config: FamilyConfig, blocks: int) -> tuple[Backbone, nn.Module, nn.Embedding]:
        """Freshly initialised: `blocks` blocks, the last norm and the word embeddings."""
        model = Qwen3VLMoeTextModel if config.experts else Qwen3VLTextModel
        text = model(_text_config(config, blocks))
        of_release = config.release_tokens
        read = config.event_releases * of_release + 1  # release tokens, then the question
        length = read + 1 + config.caption_words  # then the label token and the caption
        cos, sin = text.rotary_emb(torch.zeros(1), torch.arange(length).reshape(1, 1, length))
        spread = torch.zeros(config.event_releases, length)
        for release in range(config.event_releases):
            spread[release, release * of_release : (release + 1) * of_release] = 1.0
        buffers = {
            "causal": torch.full((length, length), _FAR).triu(1),
            "eye": torch.eye(length),
            "spread": spread,
            "cos": cos,
            "sin": sin,
        }
        return cls(list(text.layers), buffers), text.norm, text.embed_tokens

    def sliced(self, first: int, last: int) -> Backbone:
        """Blocks first..last-1, shared with this backbone."""
        names = ("causal", "eye", "spread", "cos", "sin")
        part = Backbone(list(self.layers)[first:last], {name: getattr(self, name) for name in names})
        part.step = self.step
        return part

    def forward(self, hidden: Tensor, present: Tensor, first: int = 0, last: int | None = None) -> Tensor:
        """Compute blocks first..last-1. Attention is causal; a token of a missing release is seen by itself alone.

        Args:
            hidden: float (B, T, hidden), the T tokens of an event.
            present: bool (B, R), which releases arrived.
            first: the first block.
            last: the block after the last one; None for all that are here.

        Returns:
            Hidden states float (B, T, hidden).
        """
        length = hidden.shape[1]
        missing = (1.0 - present.to(hidden.dtype)) @ self.spread[:, :length]  # (B, T): 1 at tokens of missing releases
        hide = missing[:, None, None, :] * (1.0 - self.eye[:length, :length]) * _FAR
        bias = hide + self.causal[:length, :length]  # (B, 1, T, T)
        positions = (self.cos[:, :length], self.sin[:, :length])
        for layer in list(self.layers)[first:last]:
            hidden = self.step(_block, layer, hidden, positions, bias)
        return hidden


def _block(layer: nn.Module, hidden: Tensor, positions: tuple[Tensor, Tensor], bias: Tensor) -> Tensor:
    return cast(Tensor, layer(hidden, position_embeddings=positions, attention_mask=bias))


def _head_dim(config: FamilyConfig) -> int:
    return config.head_dim or config.hidden // config.heads


def _text_config(config: FamilyConfig, blocks: int) -> Any:
    half = _head_dim(config) // 2
    sections = [half - 2 * (half // 3), half // 3, half // 3]  # of no effect: text has one position for all three
    experts: dict[str, Any] = {}
    if config.experts:
        experts = {"num_experts": config.experts, "num_experts_per_tok": config.experts_chosen}
        experts |= {"moe_intermediate_size": config.expert_mlp, "decoder_sparse_step": 1, "mlp_only_layers": []}
    text = (Qwen3VLMoeTextConfig if experts else Qwen3VLTextConfig)(
        vocab_size=len(config.words),
        hidden_size=config.hidden,
        intermediate_size=config.mlp,
        num_hidden_layers=blocks,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads or config.heads,
        head_dim=_head_dim(config),
        max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta, "mrope_section": sections},
        rms_norm_eps=config.norm_eps,
        pad_token_id=0,
        **experts,
    )
    text._attn_implementation = "eager"
    return text
