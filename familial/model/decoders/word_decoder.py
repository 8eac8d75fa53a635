"""Word by word with the keys and values of earlier words kept: what sampling and speculative decoding compute with.

    prompt (B, T, hidden) --blocks, `Memory` fills--> state --norm, word head--> logits of the first word
    one more word         --blocks, reading the `Memory`--> logits of the next one

A `WordDecoder` is a view of a family (`of_family`) or of a Qwen3-VL text model (`of_text_model`): the same blocks, none
copied. Positions, mask and word head are those of `Family`, so greedy words are those of `Family.caption`. A slice
of the blocks goes on from another slice's states, as the cloud member does from the edge's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from familial.model.decoders.verdict import cloud_exit
from familial.model.family import Family
from familial.model.vocabulary import END, FIRST_LABEL, PAD

__all__ = ["Memory", "Prompt", "WordDecoder", "captions", "family_prompt", "sampled_words"]

_FAR = -30000.0  # as in `model.backbone`


class Memory:
    """Keys and values of the tokens so far, of every block that has seen them.

    transformers' attention calls `update` with the block's own number, so slices of a family share one memory.

    Args:
        most: tokens that it may hold.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[int, tuple[Tensor, Tensor]] = {}  # block -> keys and values (B, heads, most, head width)
        self._length: dict[int, int] = {}

    def update(self, keys: Tensor, values: Tensor, block: int, *_: Any) -> tuple[Tensor, Tensor]:
        """Add keys and values (B, heads, N, head width) of new tokens; return those of all tokens so far."""
        if block not in self._held:
            shape = (*keys.shape[:2], self._most, keys.shape[3])
            self._held[block], self._length[block] = (keys.new_empty(shape), values.new_empty(shape)), 0
        first, last = self._length[block], self._length[block] + keys.shape[2]
        for held, new in zip(self._held[block], (keys, values), strict=True):
            held[:, :, first:last] = new
        self._length[block] = last
        all_keys, all_values = self._held[block]
        return all_keys[:, :, :last], all_values[:, :, :last]

    def crop(self, length: int) -> None:
        """Forget all tokens from the `length`-th on."""
        self._length = {block: min(length, held) for block, held in self._length.items()}

    def repeated(self, times: int) -> Memory:
        """Return a copy with every row `times` times, one after the other."""
        found = Memory(self._most)
        found._length = dict(self._length)
        for block, (keys, values) in self._held.items():
            found._held[block] = (keys.repeat_interleave(times, dim=0), values.repeat_interleave(times, dim=0))
        return found


@dataclass(frozen=True, slots=True)
class Prompt:
    """What comes before the first word.

    Attributes:
        hidden: float (B, T, hidden).
        hide: float (B, T), 1 at tokens of missing releases, which others do not see; None where none is missing.
    """

    hidden: Tensor
    hide: Tensor | None = None

    @property
    def length(self) -> int:
        """T."""
        return self.hidden.shape[1]

    def rows(self, index: Tensor) -> Prompt:
        """Return the rows `index`, int64 (N,)."""
        return Prompt(self.hidden[index], None if self.hide is None else self.hide[index])


@dataclass(frozen=True, slots=True)
class WordDecoder:
    """Blocks and what stands around them.

    Attributes:
        layers: all blocks, in order.
        norm: before the word head.
        embed: word -> vector.
        head: the word head; None where it is tied to `embed`.
        cos: rotary positions float (1, L, head width), L the most tokens of prompt and words.
        sin: as `cos`.
        exit_at: blocks before the edge's exit.
    """

    layers: Sequence[nn.Module]
    norm: nn.Module
    embed: nn.Embedding
    head: nn.Embedding | None
    cos: Tensor
    sin: Tensor
    exit_at: int

    @classmethod
    def of_family(cls, family: Family) -> WordDecoder:
        """View the cloud member of `family`."""
        backbone = family.backbone
        blocks = list(backbone.layers)
        return cls(blocks, family.norm, family.embed, family.head, backbone.cos, backbone.sin, family.shared)

    @classmethod
    def of_text_model(cls, text: nn.Module, length: int, exit_at: int = 1) -> WordDecoder:
        """View a transformers `Qwen3VLTextModel` with tied words.

        Args:
            text: the model.
            length: the most tokens of prompt and words.
            exit_at: blocks before the exit that drafts.
        """
        model = cast(Any, text)
        cos, sin = model.rotary_emb(torch.zeros(1), torch.arange(length).reshape(1, 1, length))
        return cls(list(model.layers), model.norm, model.embed_tokens, None, cos, sin, exit_at)

    @property
    def most(self) -> int:
        """Tokens of prompt and words, at most."""
        return self.cos.shape[1]

    def states(
        self,
        hidden: Tensor,
        memory: Memory | None = None,
        start: int = 0,
        blocks: tuple[int, int | None] = (0, None),
        hide: Tensor | None = None,
    ) -> Tensor:
        """Compute blocks over the tokens start..start+N-1.

        Args:
            hidden: float (B, N, hidden), what enters the first of `blocks`.
            memory: holds the tokens before `start` and takes these; None where `start` is 0 and none is needed.
            start: tokens before these.
            blocks: the first, and the one after the last; None for all that are here.
            hide: as of the prompt.

        Returns:
            float (B, N, hidden) after the last of `blocks`.
        """
        end = start + hidden.shape[1]
        positions = (self.cos[:, start:end].to(hidden.dtype), self.sin[:, start:end].to(hidden.dtype))
        bias = _bias(start, end, hide, hidden)
        for layer in self.layers[blocks[0] : blocks[1]]:
            hidden = layer(hidden, position_embeddings=positions, attention_mask=bias, past_key_values=memory)
        return hidden

    def logits(self, state: Tensor) -> Tensor:
        """States (..., hidden) after the last block -> word logits (..., V)."""
        rows = self.embed.weight if self.head is None else self.head.weight
        return cast(Tensor, self.norm(state)) @ rows.T

    def word_logits(self, prompt: Prompt, words: Tensor) -> Tensor:
        """Return the logits (B, W, V) of each of `words` int64 (B, W), given those before it; for training."""
        hidden = torch.cat((prompt.hidden, self.embed(words[:, :-1])), dim=1)
        state = self.states(hidden, hide=prompt.hide)
        return self.logits(state[:, prompt.length - 1 :])


def _bias(start: int, end: int, hide: Tensor | None, like: Tensor) -> Tensor | None:
    """What is added to the scores of tokens start..end-1 over all tokens, (1 or B, 1, N, end); None where nothing."""
    if hide is None and end - start == 1:
        return None
    rows, keys = torch.arange(start, end)[:, None], torch.arange(end)[None]
    bias = torch.zeros(end - start, end, dtype=like.dtype).masked_fill(keys > rows, _FAR)[None, None]
    if hide is None:
        return bias
    hidden = pad(hide, (0, max(0, end - hide.shape[1])))[:, None, None, :end] * _FAR
    return bias + hidden.masked_fill(keys == rows, 0.0)  # a token of a missing release sees itself alone


@torch.no_grad()
def family_prompt(family: Family, z: Tensor, present: Tensor) -> tuple[Prompt, Tensor]:
    """Return what comes before the first word of `Family.caption`.

    Args:
        family: with all blocks.
        z: (B, R, K, d), noised.
        present: bool (B, R), which releases arrived.

    Returns:
        The prompt: tokens of the releases, the question, the likeliest label's token. The labels' tokens, int64 (B,).
    """
    tokens = family.adapter(z, present)
    state = family.backbone(tokens, present)
    first = cloud_exit(family, state).argmax(dim=1) + FIRST_LABEL
    hidden = torch.cat((tokens, family.embed(first)[:, None]), dim=1)
    hide = None
    if not bool(present.all()):
        missing = (1.0 - present.to(hidden.dtype)) @ family.backbone.spread
        hide = missing[:, : hidden.shape[1]]
    return Prompt(hidden, hide), first


def captions(family: Family, z: Tensor, present: Tensor) -> list[str]:
    """Return the sentences of `Family.caption`, in a fraction of its time: earlier words are not computed again."""
    prompt, _ = family_prompt(family, z, present)
    generator, count = torch.Generator(), family.config.caption_words  # nothing is drawn
    words = sampled_words(WordDecoder.of_family(family), prompt, 1, count, 0.0, generator)
    return [family.vocabulary.decode(row) for row in words.tolist()]


@torch.no_grad()
def sampled_words(
    decoder: WordDecoder, prompt: Prompt, group: int, count: int, temperature: float, generator: torch.Generator
) -> Tensor:
    """Sample `group` sentences after each of P prompts.

    Args:
        decoder: of the words.
        prompt: of P rows.
        group: sentences for each.
        count: the most words of a sentence, its <end> included.
        temperature: divides the logits; 0 takes the likeliest word.
        generator: of the random numbers.

    Returns:
        int64 (P * group, W), W at most `count`; <pad> after <end>.
    """
    memory = Memory(prompt.length + count)
    state = decoder.states(prompt.hidden, memory, hide=prompt.hide)[:, -1].repeat_interleave(group, dim=0)
    memory = memory.repeated(group)
    hide = None if prompt.hide is None else prompt.hide.repeat_interleave(group, dim=0)
    words, ended = list[Tensor](), torch.zeros(len(state), dtype=torch.bool)
    while len(words) < count:
        logits = decoder.logits(state).float()
        chosen = logits.argmax(dim=1)
        if temperature:
            shares = torch.softmax(logits / temperature, dim=1)
            chosen = torch.multinomial(shares, 1, generator=generator)[:, 0]
        chosen = chosen.masked_fill(ended, PAD)
        words.append(chosen)
        ended = ended | (chosen == END)
        if bool(ended.all()):
            break
        if len(words) < count:
            start = prompt.length + len(words) - 1
            state = decoder.states(decoder.embed(chosen)[:, None], memory, start, hide=hide)[:, -1]
    return torch.stack(words, dim=1)
