"""Greedy words, several at a time: something cheap drafts them, the whole member verifies all in one forward.

    last word --`ExitDraft`: the blocks of the edge's exit, word by word--> drafts and their exit states
              --`NgramDraft`: what followed the last words before --------> drafts
    exit states or drafts --all other blocks, one forward--> the member's own words --as long as they agree--> kept

The words are those of greedy decoding whatever is drafted: a draft only says where the member looks ahead. What the
exit drafts costs its blocks once, since verification goes on from their states (Zhang et al. 2024, "Draft & Verify";
early exits as in PPSD, arXiv 2509.19368, whose overlap of both on two processors is not here; n-grams as the cheapest
level of a cascade such as CAS-Spec's, arXiv 2510.26843). One forward over several words and several over one differ in
the last bits of float32, so a tie that is equal to seven digits may fall otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from familial.model.decoders.word_decoder import Memory, Prompt, WordDecoder
from familial.model.vocabulary import END

__all__ = ["ExitDraft", "NgramDraft", "Spoken", "speculative_words"]


@dataclass(frozen=True, slots=True)
class Spoken:
    """A sentence and what it took.

    Attributes:
        words: ids, <end> included where it came.
        forwards: of the whole member.
        drafted: words that were drafted.
        accepted: of those, how many the member would have said.
    """

    words: list[int]
    forwards: int
    drafted: int
    accepted: int


class ExitDraft:
    """Drafts by the first blocks of the member itself.

    Args:
        head: exit states (..., hidden) -> states that the word head reads; None takes them as they are.
        ahead: words that are drafted at a time, at most.
        sure: a word of less probability is the last of its draft.
    """

    def __init__(self, head: nn.Module | None = None, ahead: int = 4, sure: float = 0.5) -> None:
        self._head, self._ahead, self._sure = head, ahead, sure

    def states(
        self, decoder: WordDecoder, memory: Memory, start: int, last: int, most: int, hide: Tensor | None
    ) -> tuple[list[int], Tensor]:
        """Draft at most `most` words after the word `last` at place `start`; `hide` is the prompt's.

        Returns:
            Drafts, and the exit states float (1, N, hidden) of `last` and of all drafts but the last one.
        """
        found, states = list[int](), list[Tensor]()
        while True:
            hidden = decoder.embed(torch.tensor([[found[-1] if found else last]]))
            state = decoder.states(hidden, memory, start + len(states), (0, decoder.exit_at), hide)
            states.append(state)
            shares = torch.softmax(decoder.logits(state if self._head is None else self._head(state))[0, -1], dim=0)
            best = int(shares.argmax())
            found.append(best)
            if best == END or len(found) >= min(self._ahead, most) or float(shares[best]) < self._sure:
                return found, torch.cat(states, dim=1)


class NgramDraft:
    """Drafts what most often followed the last words, in sentences that were told or said before.

    Args:
        ahead: words that are drafted at a time, at most.
        longest: words that are looked up, at most.
    """

    def __init__(self, ahead: int = 8, longest: int = 3) -> None:
        self._ahead, self._longest = ahead, longest
        self._next: dict[tuple[int, ...], Counter[int]] = {}

    def learn(self, words: Sequence[int]) -> None:
        """Count what follows what in one sentence."""
        for place in range(1, len(words)):
            self.add(words[: place + 1])

    def add(self, words: Sequence[int]) -> None:
        """Count the last of `words` as what follows those before it."""
        for length in range(1, min(self._longest, len(words) - 1) + 1):
            self._next.setdefault(tuple(words[-1 - length : -1]), Counter())[words[-1]] += 1

    def words(self, said: Sequence[int], most: int) -> list[int]:
        """Draft at most `most` words after those that were `said`."""
        found, seen = list[int](), list(said)
        while len(found) < min(self._ahead, most) and (not found or found[-1] != END):
            lengths = range(min(self._longest, len(seen)), 0, -1)
            known = next((key for n in lengths if (key := tuple(seen[-n:])) in self._next), None)
            if known is None:
                break
            found.append(self._next[known].most_common(1)[0][0])
            seen.append(found[-1])
        return found


@torch.no_grad()
def speculative_words(
    decoder: WordDecoder, prompt: Prompt, first: int, count: int, draft: ExitDraft | NgramDraft | None
) -> Spoken:
    """Decode one sentence greedily.

    Args:
        decoder: of the words.
        prompt: of one row.
        first: the last token of the prompt, which n-grams begin with.
        count: the most words, <end> included.
        draft: where words are looked for; None: one word at a time. An `NgramDraft` learns from what is said.
    """
    memory = Memory(prompt.length + count)
    state = decoder.states(prompt.hidden, memory, hide=prompt.hide)[:, -1]
    words, forwards, drafted, accepted = [int(decoder.logits(state).argmax())], 1, 0, 0
    if isinstance(draft, NgramDraft):
        draft.add([first, *words])
    while words[-1] != END and len(words) < count:
        start, left = prompt.length + len(words) - 1, count - len(words)
        drafts, states = _looked_ahead(decoder, memory, prompt, start, (first, words, left), draft)
        predicted = decoder.logits(states)[0].argmax(dim=1).tolist()
        forwards, drafted = forwards + 1, drafted + len(drafts)
        for place, word in enumerate(predicted):
            words.append(word)
            if isinstance(draft, NgramDraft):
                draft.add([first, *words])
            agreed = place < len(drafts) and drafts[place] == word
            accepted += agreed
            if word == END or not agreed:
                break
        memory.crop(prompt.length + len(words) - 1)
    return Spoken(words, forwards, drafted, accepted)


def _looked_ahead(
    decoder: WordDecoder,
    memory: Memory,
    prompt: Prompt,
    start: int,
    said: tuple[int, Sequence[int], int],
    draft: ExitDraft | NgramDraft | None,
) -> tuple[list[int], Tensor]:
    """Drafts, and the member's states float (1, N, hidden) of the last word and of those drafts that another follows.

    Args:
        decoder: of the words.
        memory: holds the `start` tokens before the last word.
        prompt: of one row.
        start: place of the last word.
        said: the token before the first word, the words so far, and how many more there may be.
        draft: as of `speculative_words`.
    """
    first, words, left = said
    if isinstance(draft, ExitDraft):
        drafts, exits = draft.states(decoder, memory, start, words[-1], left, prompt.hide)
        return drafts, decoder.states(exits, memory, start, (decoder.exit_at, None), prompt.hide)
    drafts = draft.words([first, *words], left - 1) if draft is not None else []
    hidden = decoder.embed(torch.tensor([[words[-1], *drafts]]))
    return drafts, decoder.states(hidden, memory, start, hide=prompt.hide)
