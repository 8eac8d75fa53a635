"""The sentence: hidden states after the last block -> words of the family's own vocabulary.

tokens of the event, <label>, word, word, ... --blocks, norm, word head--> logits (B, V) of the next word
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from familial.model.config import FamilyConfig
from familial.model.vocabulary import END

__all__ = ["WordHead", "greedy_words", "word_head", "word_logits"]


class WordHead(Protocol):
    """What `word_logits` reads of a family or a cloud member."""

    @property
    def config(self) -> FamilyConfig: ...
    @property
    def norm(self) -> nn.Module: ...
    @property
    def embed(self) -> nn.Embedding: ...
    @property
    def head(self) -> nn.Embedding | None: ...


def word_head(member: WordHead) -> Tensor:
    """The rows (V, hidden) that turn a hidden state into word logits: the head, or the embedding tied to it."""
    return member.embed.weight if member.head is None else member.head.weight


def word_logits(member: WordHead, state: Tensor) -> Tensor:
    """Hidden states (..., hidden) after the last block -> logits (..., V) of the next word."""
    return cast(Tensor, member.norm(state)) @ word_head(member).T


def greedy_words(next_logits: Callable[[Tensor], Tensor], first: Tensor, count: int) -> Tensor:
    """Decode greedily until every row has ended, at most `count` words.

    Args:
        next_logits: words int64 (B, W) -> logits (B, V) of the word after them.
        first: int64 (B,), the token each row begins with: that of its label.
        count: the most words a row gets.

    Returns:
        Words int64 (B, W) without the first token, W at most `count`.
    """
    words = first[:, None]
    for _ in range(count):
        words = torch.cat((words, next_logits(words).argmax(dim=1, keepdim=True)), dim=1)
        if bool((words == END).any(dim=1).all()):
            break
    return words[:, 1:]
