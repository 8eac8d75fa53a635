"""The family's own vocabulary: whole words, small enough to read.

    id 0 <pad>   1 <end>   2.. one token per label (<normal>, <fall>, ...)   then one per attribute (<one>, ...)
    then the words of the captions, sorted

A verdict is the next token over the label tokens, an attribute the next token over the attribute tokens. A caption is a
row of words that ends with <end>.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from wire.errors import CheckpointError

__all__ = ["END", "FIRST_LABEL", "PAD", "Vocabulary"]

PAD, END, FIRST_LABEL = 0, 1, 2
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


class Vocabulary:
    """Words <-> ids; CheckpointError where the words do not begin with the special tokens, or one occurs twice.

    Args:
        words: the text of each token.
        labels: the tokens from `FIRST_LABEL` on.
        attributes: the tokens after the labels.
    """

    def __init__(self, words: tuple[str, ...], labels: tuple[str, ...], attributes: tuple[str, ...] = ()) -> None:
        expected = _special(labels, attributes)
        if words[: len(expected)] != expected or len(set(words)) != len(words):
            raise CheckpointError(f"vocabulary: the words must be distinct and begin with {expected}")
        self.words = words
        self.labels = labels
        self.first_word = len(expected)
        self._ids = {word: index for index, word in enumerate(words)}

    @classmethod
    def of_captions(
        cls, captions: Iterable[str], labels: tuple[str, ...], attributes: tuple[str, ...] = ()
    ) -> Vocabulary:
        """The vocabulary of these captions: every word that occurs in one."""
        found = sorted({word for caption in captions for word in _WORD.findall(caption.lower())})
        return cls((*_special(labels, attributes), *found), labels, attributes)

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, caption: str, length: int) -> list[int]:
        """Ids of the known words, at most `length` - 1 of them, then <end>, padded to `length`; others are left out."""
        known = [self._ids[word] for word in _WORD.findall(caption.lower()) if word in self._ids]
        ids = [*known[: length - 1], END]
        return ids + [PAD] * (length - len(ids))

    def decode(self, ids: Iterable[int]) -> str:
        """The sentence up to <end>, without special tokens."""
        words = []
        for index in ids:
            if index == END:
                break
            if index >= self.first_word:
                words.append(self.words[index])
        return " ".join(words)

    def to_json(self) -> dict[str, int]:
        """word -> id, as in vocab.json."""
        return dict(self._ids)


def _special(labels: tuple[str, ...], attributes: tuple[str, ...]) -> tuple[str, ...]:
    return ("<pad>", "<end>", *(f"<{name}>" for name in (*labels, *attributes)))
