"""The family: one set of weights, members by slicing, two exits in one forward.

    frames --tower--> features --desensitizer--> x --trusted core(+ noise)--> z          EncodeGraph, on the edge
    z x 8 --adapter--> tokens --block 1--> EDGE EXIT (3 logits)                            DecideGraph, on the edge
                               --blocks 2..--> CLOUD EXIT: next token = label, then the caption's words

The backbone is transformers' Qwen3-VL text decoder (its blocks, norms and rotary positions); one loop runs its
blocks for training, for both members and for tracing. The edge member holds the first block alone (the first
`exit_at`, where a config says so); the cloud member holds all blocks and can go on from the edge's exit state with
a difference of exactly zero. With a branch block, the edge's last block is its own: the exit state is what enters it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import Qwen3VLTextConfig, Qwen3VLTextModel

from familial.model.adapter import ADAPTER, Adapter
from familial.model.config import FamilyConfig
from familial.model.desensitizer import Desensitizer, straight_through, trusted_core
from familial.model.towers.motion import Seen, make_tower
from familial.model.vocabulary import END, FIRST_LABEL, Vocabulary
from wire.errors import CheckpointError

__all__ = [
    "Backbone",
    "CloudMember",
    "DecideGraph",
    "EdgeMember",
    "EncodeGraph",
    "Family",
    "cloud_exit",
    "edge_exit",
    "without_weights",
    "word_head",
]

_DESENSITIZER = 512  # its inner width at most, however wide the backbone
_FAR = -30000.0  # added to the score of what may not be attended; finite in half precision


class Backbone(nn.Module):
    """Some consecutive blocks of the decoder, with the positions and the mask that all blocks share.

    Made whole by `of_config`; `sliced` shares blocks, it never copies them.
    """

    causal: Tensor
    eye: Tensor
    spread: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(self, layers: Sequence[nn.Module], buffers: dict[str, Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        for name, value in buffers.items():
            self.register_buffer(name, value.detach().clone(), persistent=False)

    @classmethod
    def of_config(cls, config: FamilyConfig, blocks: int) -> tuple[Backbone, nn.Module, nn.Embedding]:
        """`blocks` blocks, the last norm and the word embeddings, freshly initialised."""
        text = Qwen3VLTextModel(_text_config(config, blocks))
        read = config.event_releases * config.tokens + 1  # release tokens, then the question
        length = read + 1 + config.caption_words  # then the label token and the caption
        cos, sin = text.rotary_emb(torch.zeros(1), torch.arange(length).reshape(1, 1, length))
        spread = torch.zeros(config.event_releases, length)
        for release in range(config.event_releases):
            spread[release, release * config.tokens : (release + 1) * config.tokens] = 1.0
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
        return Backbone(list(self.layers)[first:last], {name: getattr(self, name) for name in names})

    def forward(self, hidden: Tensor, present: Tensor, first: int = 0, last: int | None = None) -> Tensor:
        """Run blocks first..last-1 on hidden (B, T, hidden), T tokens of an event whose releases are `present` (B, R).

        Causal; tokens of missing releases are seen by themselves only.
        """
        length = hidden.shape[1]
        missing = (1.0 - present.to(hidden.dtype)) @ self.spread[:, :length]  # (B, T): 1 at tokens of missing releases
        hide = missing[:, None, None, :] * (1.0 - self.eye[:length, :length]) * _FAR
        bias = hide + self.causal[:length, :length]  # (B, 1, T, T)
        positions = (self.cos[:, :length], self.sin[:, :length])
        for layer in list(self.layers)[first:last]:
            hidden = layer(hidden, position_embeddings=positions, attention_mask=bias)
        return hidden


def _head_dim(config: FamilyConfig) -> int:
    return config.head_dim or config.hidden // config.heads


def _text_config(config: FamilyConfig, blocks: int) -> Any:
    half = _head_dim(config) // 2
    sections = [half - 2 * (half // 3), half // 3, half // 3]  # of no effect: text has one position for all three
    text = Qwen3VLTextConfig(
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
    )
    text._attn_implementation = "eager"
    return text


class Family(nn.Module):
    """All members in one: what is trained and what a checkpoint holds. Inputs and outputs per method.

    edge_only: hold what the edge member needs and no block beyond; the cloud's exit then raises CheckpointError.
    """

    label_bias: Tensor

    def __init__(self, config: FamilyConfig, edge_only: bool = False) -> None:
        super().__init__()
        self.config, self.edge_only = config, edge_only
        branch = int(config.exit_block == "branch")
        self.shared = config.exit_at - branch  # blocks that both members run
        self.vocabulary = Vocabulary(config.words, config.labels, config.attributes)
        self.tower = make_tower(config)
        inner = min(config.hidden, _DESENSITIZER)
        self.desensitizer = Desensitizer(
            self.tower.features,
            inner,
            config.tokens,
            config.width,
            config.clip_norm,
            config.rank,
            config.aside,
            config.drop,
        )
        self.add_module(
            ADAPTER, Adapter(config.event_releases, config.tokens, config.width, config.hidden, config.sigma)
        )
        held = self.shared if edge_only else config.layers
        blocks, self.norm, self.embed = Backbone.of_config(config, held + branch)
        self.backbone = blocks.sliced(0, held)
        self.branch = blocks.sliced(held, held + 1) if branch else None
        self.head = None if config.tied else nn.Embedding(len(config.words), config.hidden)
        self.exit_norm = nn.RMSNorm(config.hidden, eps=1e-6)
        self.exit_head = nn.Linear(config.hidden, len(config.labels))
        self.register_buffer("label_bias", torch.tensor(config.label_bias), persistent=False)
        if self.branch is not None and not edge_only:
            self.branch.load_state_dict(self.backbone.sliced(self.shared, self.shared + 1).state_dict())

    # --- the edge's half: frames to z

    def features(self, frames: Tensor) -> Tensor:
        """Frames u8 (B, F, H, W) -> x float (B, K, d), norm below C - 1; clean, so it never leaves the process."""
        return cast(Tensor, self.desensitizer(self.tower(frames)))

    def sequence_features(
        self, frames: Tensor, index: Tensor, bf16: bool = False, also: list[Seen] | None = None
    ) -> Tensor:
        """A sequence of windows, as `Tower.sequence`: frames u8 (B, T, H, W), index int64 (R, F) -> x (B, R, K, d).

        bf16: the tower computes in bfloat16, for training.
        """
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=bf16):
            seen = self.tower.sequence(frames, index, also)
        seen = seen.float()
        x = self.desensitizer(seen.flatten(0, 1))
        return cast(Tensor, x.reshape(*seen.shape[:2], self.config.tokens, self.config.width))

    def code(self, x: Tensor) -> Tensor:
        """x float (B, K, d) -> mu float (B, K, d), integers by value, with a straight-through gradient: for
        training."""
        return straight_through(x, self.config.clip_norm)

    def core(self, x: Tensor, noise: Tensor) -> Tensor:
        """x float, noise int32, both (B, K, d) -> z int32 (B, K, d): the trusted core."""
        return trusted_core(x, noise, self.config.clip_norm)

    # --- the reading half: z to verdicts

    @property
    def adapter(self) -> Adapter:
        """z -> tokens."""
        return cast(Adapter, self.get_submodule(ADAPTER))

    def exit_state(self, z: Tensor, present: Tensor) -> Tensor:
        """z (B, R, K, d), present bool (B, R) -> hidden (B, R*K + 1, hidden) after the shared blocks: what the relay
        hands on."""
        return cast(Tensor, self.backbone(self.adapter(z, present), present, 0, self.shared))

    def edge_logits(self, z: Tensor, present: Tensor) -> Tensor:
        """z (B, R, K, d), present bool (B, R) -> label logits (B, L) of the first exit."""
        return edge_exit(self, self.exit_state(z, present), present)

    def cloud_logits(self, z: Tensor, present: Tensor) -> Tensor:
        """z (B, R, K, d), present bool (B, R) -> label logits (B, L) at full depth: the next token over the label
        tokens."""
        return self.continue_from(self.exit_state(z, present), present)

    def continue_from(self, state: Tensor, present: Tensor) -> Tensor:
        """The edge's exit state (B, R*K + 1, hidden) -> cloud label logits (B, L).

        Equal to `cloud_logits` to the last bit.
        """
        return cloud_exit(self, self.backbone(state, present, self.shared))

    def cloud_reading(self, z: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, R, K, d), present bool (B, R) -> cloud label logits (B, L), logits of the attributes (B, A)."""
        last = self.backbone(self.exit_state(z, present), present, self.shared)
        return cloud_exit(self, last), self._attribute_logits(last)

    def _attribute_logits(self, state: Tensor) -> Tensor:
        first = FIRST_LABEL + len(self.config.labels)
        rows = word_head(self)[first : first + len(self.config.attributes)]
        return cast(Tensor, self.norm(state[:, -1])) @ rows.T

    def both_exits(self, z: Tensor, present: Tensor, words: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One forward for training: z, present, and words int64 (B, W) = the label token, then the caption's but
        the last.

        Returns edge logits (B, L), cloud logits (B, L), word logits (B, W, V) for the token after each of `words`, and
        logits of the attributes (B, A).
        """
        lifted = self.adapter(z, present)
        read = lifted.shape[1]
        first = self.backbone(torch.cat((lifted, self.embed(words)), dim=1), present, 0, self.shared)
        last = self.backbone(first, present, self.shared)
        tokens = self.norm(last[:, read:]) @ word_head(self).T
        edge, asked = edge_exit(self, first[:, :read], present), last[:, :read]
        return edge, cloud_exit(self, asked), tokens, self._attribute_logits(asked)

    @torch.no_grad()
    def caption(self, z: Tensor, present: Tensor) -> list[str]:
        """z (B, R, K, d), present bool (B, R) -> B sentences: greedy words after the label's token, at most
        `caption_words`."""
        lifted = self.adapter(z, present)
        label = self.cloud_logits(z, present).argmax(dim=1)
        words = (label + FIRST_LABEL)[:, None]  # (B, 1)
        for _ in range(self.config.caption_words):
            last = self.backbone(torch.cat((lifted, self.embed(words)), dim=1), present)
            following = (self.norm(last[:, -1]) @ word_head(self).T).argmax(dim=1, keepdim=True)
            words = torch.cat((words, following), dim=1)
            if bool((words == END).any(dim=1).all()):
                break
        return [self.vocabulary.decode(row.tolist()[1:]) for row in words]

    # --- members

    def edge_member(self) -> EdgeMember:
        """Tower, desensitizer, adapter and the first block or blocks, sharing weights with this family."""
        return EdgeMember(self)

    def cloud_member(self) -> CloudMember:
        """Adapter and all blocks, sharing weights with this family; it has no tower: it cannot see, only read z."""
        return CloudMember(self)


@contextmanager
def without_weights() -> Iterator[None]:
    """Modules made in this block have parameters of the right names and shapes that hold nothing (torch's meta device),
    while buffers, which come from the config, are real: to be counted, or to be given weights read from a file."""
    register = nn.Module.register_parameter

    def hollow(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        register(module, name, None if param is None else nn.Parameter(param.detach().to("meta")))

    setattr(nn.Module, "register_parameter", hollow)  # noqa: B010  # mypy takes no assignment to a method
    try:
        yield
    finally:
        setattr(nn.Module, "register_parameter", register)  # noqa: B010


def edge_exit(member: Family | EdgeMember, state: Tensor, present: Tensor) -> Tensor:
    """The exit state (B, R*K + 1, hidden), present bool (B, R) -> label logits (B, L), by way of the branch block where
    there is one."""
    if member.branch is not None:
        state = member.branch(state, present)
    logits = cast(Tensor, member.exit_head(member.exit_norm(state[:, -1])))
    return logits / member.config.temperature + member.label_bias


def word_head(member: Family | CloudMember) -> Tensor:
    """The rows (V, hidden) by which a hidden state becomes word logits."""
    return member.embed.weight if member.head is None else member.head.weight


def cloud_exit(member: Family | CloudMember, state: Tensor) -> Tensor:
    """Hidden states (B, R*K + 1, hidden) after the last block -> next-token logits over the label tokens (B, L)."""
    if isinstance(member, Family) and member.edge_only:
        raise CheckpointError("only the edge member was loaded; load the checkpoint whole to read the cloud's exit")
    rows = word_head(member)[FIRST_LABEL : FIRST_LABEL + len(member.config.labels)]
    logits = cast(Tensor, member.norm(state[:, -1])) @ rows.T
    return logits / member.config.temperature + member.label_bias


class EdgeMember(nn.Module):
    """What the edge box holds: tower, desensitizer, adapter, its block and the first exit."""

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
    """What the cloud holds: adapter, all blocks, the word head."""

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
        """The edge's exit state (B, R*K + 1, hidden), present bool (B, R) -> label logits (B, L)."""
        return cloud_exit(self, self.rest(state, present))

    def forward(self, z: Tensor, present: Tensor) -> Tensor:
        """z (B, R, K, d), present bool (B, R) -> label logits (B, L)."""
        return self.continue_from(self.first(self.adapter(z, present), present), present)


class EncodeGraph(nn.Module):
    """What is traced into encode.onnx: frames u8 (1, F, H, W), noise int32 (1, K, d) -> z int32 (1, K, d), nothing
    else."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.tower = family.tower.for_export()
        self.desensitizer = family.desensitizer
        self.clip_norm = family.config.clip_norm

    def forward(self, frames: Tensor, noise: Tensor) -> Tensor:
        """Run the edge's half; `noise` meets the code in one addition and nowhere else.

        Frames become floats before anything else: TensorRT reads bytes by a Cast alone.
        """
        return trusted_core(self.desensitizer(self.tower(frames.float())), noise, self.clip_norm)


class DecideGraph(nn.Module):
    """What is traced into decide.onnx: z int32 (1, R, K, d), present bool (1, R) -> label logits float32 (1, L)."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.member = family.edge_member()

    def forward(self, z: Tensor, present: Tensor) -> Tensor:
        """The edge member's verdict on one event."""
        return cast(Tensor, self.member(z, present))
