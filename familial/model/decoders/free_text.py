"""Free text about an event, in the words of the base that a family was adopted from.

    z, present --adapter--> tokens of the event, what the edge's exit has read too
    question --the base's tokenizer--> ids --its table--> tokens behind them, in Qwen's form of a chat
        all blocks --norm, the base's head--> the likeliest id, one by one, until the base ends its turn --> text

What a base can say of an event depends on the adapter, which is trained on the family's own words alone. A question is
the operator's; one that holds the base's control tokens is refused, since it could speak as somebody else. Control
tokens in an answer end it, and what is not printable becomes a space.
"""

from __future__ import annotations

import torch
from torch import Tensor

from familial.model.base_words import BaseWords
from familial.model.decoders.word_decoder import Memory, WordDecoder
from familial.model.family import Family
from wire.errors import CheckpointError, ConfigError

__all__ = ["QUESTION", "FreeText"]

QUESTION = "Say in one short sentence what happens here."
"""What is asked where nothing else is."""

_LONGEST_QUESTION, _LONGEST_ANSWER = 256, 400  # tokens; characters, as many as a verdict's sentence may have
_ROWS = 8192  # of the head that are multiplied at once
_BEFORE, _AFTER = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
_CONTROL = "<|im_start|>"


class FreeText:
    """Answers questions about events with the cloud member's blocks and the base's words.

    Args:
        family: with all blocks.
        words: of its base, as `open_words` gives them.

    Raises:
        CheckpointError: the family has the edge member's blocks alone, or words of another width.
    """

    def __init__(self, family: Family, words: BaseWords) -> None:
        if family.edge_only or words.table.shape[1] != family.config.hidden:
            raise CheckpointError("free text needs all blocks of the family, and words of its base; load it whole")
        self._family, self._words = family, words
        self._special = set(words.tokenizer.get_added_tokens_decoder())

    @torch.no_grad()
    def answers(self, z: Tensor, present: Tensor, question: str = QUESTION, most: int = 48) -> list[str]:
        """Answer `question` about each of B events, greedily.

        Args:
            z: (B, R, K, d), noised.
            present: bool (B, R), which releases arrived.
            question: of the operator.
            most: tokens of an answer.

        Raises:
            ConfigError: the question is empty or too long, or holds control tokens of the base.
            CheckpointError: a logit is not finite.
        """
        return [self._text(ids) for ids in self.ids(z, present, question, most)]

    @torch.no_grad()
    def ids(self, z: Tensor, present: Tensor, question: str, most: int) -> list[list[int]]:
        """As `answers`, as the base's ids, without the one that ends an answer."""
        event, asked = self._family.adapter(z, present), self._asked(question)
        text = self._words.table[asked].float()[None].expand(len(event), -1, -1)
        hidden = torch.cat((event, text), dim=1)
        length = hidden.shape[1]
        decoder, memory = self._decoder(length + most), Memory(length + most)
        hide = None
        if not bool(present.all()):
            hide = (1.0 - present.to(hidden.dtype)) @ self._family.backbone.spread[:, : event.shape[1]]
        state = decoder.states(hidden, memory, hide=hide)[:, -1]
        said, open_rows = [list[int]() for _ in range(len(event))], set(range(len(event)))
        for count in range(most):
            chosen = self._likeliest(state)
            open_rows -= {row for row in open_rows if int(chosen[row]) in self._special}
            for row in open_rows:
                said[row].append(int(chosen[row]))
            if not open_rows or count == most - 1:
                break
            entering = self._words.table[chosen].float()[:, None]
            state = decoder.states(entering, memory, length + count, hide=hide)[:, -1]
        return said

    def _asked(self, question: str) -> Tensor:
        """The ids int64 (N,) of a question, as a turn of a chat where the base knows chats."""
        tokenizer = self._words.tokenizer
        ids = tokenizer.encode(question, add_special_tokens=False).ids
        if not question.strip() or len(ids) > _LONGEST_QUESTION:
            raise ConfigError(f"a question of {len(ids)} tokens; ask one of 1 to {_LONGEST_QUESTION}")
        if self._special.intersection(ids):
            raise ConfigError(f"the question holds a control token of the base ({_CONTROL} or another); leave it out")
        if tokenizer.token_to_id(_CONTROL) is not None:
            before, after = (tokenizer.encode(each, add_special_tokens=False).ids for each in (_BEFORE, _AFTER))
            ids = [*before, *ids, *after]
        return torch.tensor(ids)

    def _decoder(self, length: int) -> WordDecoder:
        """The family's blocks, with positions for `length` tokens."""
        family, config = self._family, self._family.config
        width = family.backbone.cos.shape[2]
        slow = 1.0 / config.rope_theta ** (torch.arange(0, width, 2).float() / width)
        angle = torch.arange(length).float()[:, None] * slow
        both = torch.cat((angle, angle), dim=1)[None]
        return WordDecoder(
            list(family.backbone.layers), family.norm, family.embed, None, both.cos(), both.sin(), family.shared
        )

    def _likeliest(self, state: Tensor) -> Tensor:
        """The likeliest id (B,) after states (B, hidden): the head is read in parts, and never whole in float32."""
        normed = self._family.norm(state)
        best = torch.full((len(state),), -torch.inf)
        chosen = torch.zeros(len(state), dtype=torch.long)
        for first in range(0, self._words.known, _ROWS):
            rows = self._words.head[first : min(first + _ROWS, self._words.known)].float()
            value, index = (normed @ rows.T).max(dim=1)
            if not bool(torch.isfinite(value).all()):
                raise CheckpointError("the base's words give a logit that is not finite; adopt the base again")
            better = value > best
            best, chosen = torch.where(better, value, best), torch.where(better, first + index, chosen)
        return chosen

    def _text(self, ids: list[int]) -> str:
        text = self._words.tokenizer.decode(ids, skip_special_tokens=True)
        return " ".join("".join(each if each.isprintable() else " " for each in text).split())[:_LONGEST_ANSWER]
