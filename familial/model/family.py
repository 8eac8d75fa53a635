"""The family: one set of weights for all members, and two exits in one forward.

    frames --tower--> features --desensitizer--> x --integer core (+ noise)--> z           on the edge
    z x 8 --adapter--> tokens --block 1--> EDGE EXIT: label logits                          on the edge
                              --blocks 2..--> CLOUD EXIT: next token = label, then the caption's words

`members` are slices of a family; `graphs` is what export traces. The edge member holds the first block alone (the first
`exit_at`, where a config says so). The cloud member holds all blocks and can go on from the edge's exit state with a
difference of exactly zero. With a branch block, the edge's last block is its own, and the exit state is its input.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from familial.model.adapter import ADAPTER, Adapter
from familial.model.backbone import Backbone
from familial.model.code_space import prototypes
from familial.model.config import FamilyConfig
from familial.model.decoders.sentence import greedy_words, word_logits
from familial.model.decoders.verdict import attribute_logits, cloud_exit, edge_exit
from familial.model.desensitizer import Desensitizer, LateFusion, Sharpen, code_plane, integer_code, straight_through
from familial.model.towers.base import Seen, Tower
from familial.model.towers.fused import FusedTower
from familial.model.towers.registry import make_tower
from familial.model.vocabulary import FIRST_LABEL, Vocabulary
from wire.errors import CheckpointError

__all__ = ["Family"]

_DESENSITIZER = 512  # inner width of the desensitizer at most, however wide the backbone


class Family(nn.Module):
    """All members in one: what is trained, and what a checkpoint holds.

    Args:
        config: every size.
        edge_only: hold the blocks of the edge member and no more; the cloud's exit then raises CheckpointError.

    Attributes:
        shared: how many blocks both members compute.
    """

    label_bias: Tensor

    def __init__(self, config: FamilyConfig, edge_only: bool = False) -> None:
        super().__init__()
        self.config, self.edge_only = config, edge_only
        branch = int(config.exit_block == "branch")
        self.shared = config.exit_at - branch
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
            _sharpen(config),
            _late_fusion(config, self.tower),
        )
        own = config.adapter == "plane"
        plane = code_plane(config.tokens, config.width, config.rank + config.aside) if own else None
        self.add_module(
            ADAPTER, Adapter(config.event_releases, config.tokens, config.width, config.hidden, config.sigma, plane)
        )
        held = self.shared if edge_only else config.layers
        dense = config.experts > 0  # the edge's own block, beside blocks of experts
        blocks, self.norm, self.embed = Backbone.of_config(config, held + branch - dense)
        self.backbone = blocks.sliced(0, held)
        self.branch = blocks.sliced(held, held + 1) if branch and not dense else None
        if dense:
            self.branch = Backbone.of_config(replace(config, experts=0), 1)[0]
        self.head = None if config.tied else nn.Embedding(len(config.words), config.hidden)
        self.exit_norm = nn.RMSNorm(config.hidden, eps=1e-6)
        self.exit_head = nn.Linear(config.hidden, len(config.labels))
        self.register_buffer("label_bias", torch.tensor(config.label_bias), persistent=False)
        if self.branch is not None and not edge_only and not dense:
            self.branch.load_state_dict(self.backbone.sliced(self.shared, self.shared + 1).state_dict())

    def with_config(self, config: FamilyConfig) -> Family:
        """View the same weights by another calibration: temperature, bias and threshold of `config`."""
        view = copy.copy(self)
        view.config, view._buffers = config, dict(self._buffers)
        view.label_bias = torch.tensor(config.label_bias, device=self.label_bias.device)
        return view

    # --- frames to z: the edge's half

    def features(self, frames: Tensor, people: Tensor | None = None) -> Tensor:
        """Compute the clean code before rounding; it never leaves the process.

        Args:
            frames: u8 (B, F, H, W).
            people: int (B, F, P, VALUES), tracks, for a family whose tower `sees_people`.

        Returns:
            x float (B, K, d), norm below C - 1.
        """
        return cast(Tensor, self.desensitizer(self.tower(frames) if people is None else self.tower(frames, people)))

    def sequence_features(
        self,
        frames: Tensor,
        index: Tensor,
        people: Tensor | None = None,
        bf16: bool = False,
        also: list[Seen] | None = None,
    ) -> Tensor:
        """Encode the R windows of B sequences in one call, as `Tower.sequence` does.

        Args:
            frames: u8 (B, T, H, W), all frames of a sequence, each once.
            index: int64 (R, F), the place of each window's frames among the T.
            people: int (B, R, F, P, VALUES), the tracks of each window, for a tower that sees them.
            bf16: let the tower compute in bfloat16, for training.
            also: given to the tower, which may append what it `Seen`.

        Returns:
            x float (B, R, K, d), as `features` gives it.
        """
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=bf16):
            seen = self.tower.sequence(frames, index, people, also)
        seen = seen.float()
        x = self.desensitizer(seen.flatten(0, 1))
        return cast(Tensor, x.reshape(*seen.shape[:2], self.config.tokens, self.config.width))

    def code(self, x: Tensor) -> Tensor:
        """x float (B, K, d) -> mu float (B, K, d) of integer values with a straight-through gradient, for training."""
        return straight_through(x, self.config.clip_norm)

    def integer_code(self, x: Tensor) -> Tensor:
        """x float (B, K, d) -> mu int32 (B, K, d): the integer core."""
        return integer_code(x, self.config.clip_norm)

    # --- z to verdicts and sentences: both halves

    @property
    def adapter(self) -> Adapter:
        """z -> tokens."""
        return cast(Adapter, self.get_submodule(ADAPTER))

    def point_adapter(self) -> None:
        """Let a fresh adapter begin with the directions in which codes lie."""
        config = self.config
        self.adapter.point_at(code_plane(config.tokens, config.width, (config.rank or 2) + config.aside))

    def exit_state(self, z: Tensor, present: Tensor) -> Tensor:
        """z (B, R, K, d), present bool (B, R) -> hidden state (B, R*T + 1, hidden) after the shared blocks."""
        return cast(Tensor, self.backbone(self.adapter(z, present), present, 0, self.shared))

    def edge_logits(self, z: Tensor, present: Tensor) -> Tensor:
        """z (B, R, K, d), present bool (B, R) -> label logits (B, L) of the first exit."""
        return edge_exit(self, self.exit_state(z, present), present)

    def cloud_logits(self, z: Tensor, present: Tensor) -> Tensor:
        """z (B, R, K, d), present bool (B, R) -> label logits (B, L) of the last exit, at full depth."""
        return self.continue_from(self.exit_state(z, present), present)

    def continue_from(self, state: Tensor, present: Tensor) -> Tensor:
        """The edge's exit state (B, R*T + 1, hidden) -> cloud label logits (B, L), the bits of `cloud_logits`."""
        self._require_all_blocks()
        return cloud_exit(self, self.backbone(state, present, self.shared))

    def cloud_and_attribute_logits(self, z: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, R, K, d), present bool (B, R) -> cloud label logits (B, L), attribute logits (B, A)."""
        self._require_all_blocks()
        last = self.backbone(self.exit_state(z, present), present, self.shared)
        return cloud_exit(self, last), attribute_logits(self, last)

    def both_exits(self, z: Tensor, present: Tensor, words: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute everything that training compares with labels, in one forward.

        Args:
            z: (B, R, K, d), noised.
            present: bool (B, R), which releases arrived.
            words: int64 (B, W), the label token, then the words of the caption but the last.

        Returns:
            Edge label logits (B, L), cloud label logits (B, L), word logits (B, W, V) of the token after each of
            `words`, attribute logits (B, A).
        """
        self._require_all_blocks()
        tokens = self.adapter(z, present)
        read = tokens.shape[1]
        first = self.backbone(torch.cat((tokens, self.embed(words)), dim=1), present, 0, self.shared)
        last = self.backbone(first, present, self.shared)
        edge, question = edge_exit(self, first[:, :read], present), last[:, :read]
        return edge, cloud_exit(self, question), word_logits(self, last[:, read:]), attribute_logits(self, question)

    @torch.no_grad()
    def caption(self, z: Tensor, present: Tensor) -> list[str]:
        """z (B, R, K, d), present bool (B, R) -> B sentences: greedy words after the token of the likeliest label."""
        tokens = self.adapter(z, present)

        def next_logits(words: Tensor) -> Tensor:
            state = self.backbone(torch.cat((tokens, self.embed(words)), dim=1), present)
            return word_logits(self, state[:, -1])

        label = self.cloud_logits(z, present).argmax(dim=1)
        words = greedy_words(next_logits, label + FIRST_LABEL, self.config.caption_words)
        return [self.vocabulary.decode(row.tolist()) for row in words]

    def _require_all_blocks(self) -> None:
        if self.edge_only:
            raise CheckpointError("only the edge member was loaded; load the checkpoint whole to read the cloud's exit")


def _sharpen(config: FamilyConfig) -> Sharpen | None:
    """What sharpens codes where the config asks for it."""
    if not config.code_gain:
        return None
    corners = prototypes(len(config.labels), config.tokens, config.width, 1.0).flatten(1)
    plane = code_plane(config.tokens, config.width, config.rank).flatten(0, 1)
    return Sharpen(corners @ plane, config.code_gain, config.code_bias)


def _late_fusion(config: FamilyConfig, tower: Tower) -> LateFusion | None:
    """What adds the towers' logits where the config asks for it."""
    if not config.late_fusion or not isinstance(tower, FusedTower):
        return None
    motion, people, nobody = config.late_fusion
    widths = tower.motion.features, tower.people.features
    return LateFusion(*widths, (motion, people), nobody, len(config.labels))
