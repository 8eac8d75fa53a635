"""The reward of a sentence: what it says, held against the truth of the event; no other network judges it.

    words --which label, how many people, lying, running--> claims --`Truths`--> label 0.4 + attributes 0.3
          --ended, no special token, every pair of neighbours known--> format 0.2, length 0.1             = 0 to 1

A sentence is right in an attribute where it claims one and every claim holds: "two people" where fewer are seen is
wrong, "a person" where two are seen is not; "nothing unusual happens" claims none and gets nothing for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from familial.data.events import LabelledClip
from familial.model.vocabulary import END, Vocabulary
from familial.synth.tags import TAGS
from wire.errors import ConfigError

__all__ = ["PARTS", "SAYS", "SentenceReward", "Truth", "said_label", "truth_of_event"]

PARTS = {"label": 0.4, "attributes": 0.3, "length": 0.1, "format": 0.2}
"""Part of the reward -> its weight."""

SAYS = {
    "fall": frozenset({"falls", "faints", "sinks"}),
    "fight": frozenset({"fight", "fights", "fists", "beats", "hits", "kick", "kicks", "slaps", "push", "pushes"})
    | {"pulls", "head"},
}
"""Label -> the words of which a sentence about it has one. A label that is not here is said by its own words."""

_SEVERAL = frozenset({"two", "people", "another", "each", "they", "group", "many"})
_LOW, _RUNNING = frozenset({"lies", "crouches"}), frozenset({"runs", "run"})
_SHORTEST = 3  # words of a caption


@dataclass(frozen=True, slots=True)
class Truth:
    """What an event shows.

    Attributes:
        label: index of its label.
        most: people who are seen at once at most, 0, 1 or 2 for more; -1 where nobody knows.
        low: somebody lies or crouches; None where nobody knows.
        running: somebody runs; None where nobody knows.
    """

    label: int
    most: int = -1
    low: bool | None = None
    running: bool | None = None


def truth_of_event(clip: LabelledClip, label: int, first_s: float, last_s: float) -> Truth:
    """Read the truth of an event whose slots span first_s..last_s of the clip's clock, from its rendered frames."""
    times = clip.footage.times
    shown = np.flatnonzero((times > first_s) & (times <= last_s))
    if clip.truth is None or not len(shown) or int(clip.truth.count[shown].max()) < 0:
        return Truth(label)
    found = clip.truth.at(shown)
    tags = {name: bool((found.tags[:, TAGS.index(name)] > 0).any()) for name in ("lying", "crouching", "running")}
    return Truth(label, int(found.count.max()), tags["lying"] or tags["crouching"], tags["running"])


def said_label(words: Sequence[str], labels: Sequence[str]) -> int:
    """Index of the label that a sentence speaks of; 0, without risk, where it speaks of none or of several."""
    found = [index for index, label in enumerate(labels) if index and _says(label, frozenset(words))]
    return found[0] if len(found) == 1 else 0


def _says(label: str, words: frozenset[str]) -> bool:
    if label in SAYS:
        return bool(SAYS[label] & words)
    return words.issuperset(label.split("_"))


class SentenceReward:
    """Rewards of sentences of one family.

    Args:
        vocabulary: of the words.
        captions: of the clips that are trained on; every pair of neighbours in them is known grammar.

    Raises:
        ConfigError: no word of the vocabulary says one of its labels.
    """

    def __init__(self, vocabulary: Vocabulary, captions: Iterable[str]) -> None:
        known = frozenset(vocabulary.words)
        for label in vocabulary.labels[1:]:
            needed = SAYS.get(label, frozenset(label.split("_")))
            if not needed & known:
                raise ConfigError(
                    f"reward: no word of the vocabulary says {label!r} (known for it: {', '.join(sorted(needed))}); "
                    "train its captions with familial.train first, or add its words to familial.train.rl.reward.SAYS"
                )
        self.vocabulary = vocabulary
        self._pairs = frozenset[tuple[str, str]]().union(*(self._neighbours(caption) for caption in captions))

    def _neighbours(self, sentence: str) -> frozenset[tuple[str, str]]:
        length = len(sentence.split()) + 1
        ids = self.vocabulary.encode(sentence, length)
        return frozenset(pairwise(["", *self.vocabulary.decode(ids).split(), "."]))

    def parts(self, ids: Sequence[int], truth: Truth) -> dict[str, float]:
        """Part -> 0 to 1 of one sentence.

        Args:
            ids: its words, <end> and padding included.
            truth: of the event.
        """
        ended = END in ids
        written = list(ids[: list(ids).index(END)]) if ended else list(ids)
        words = [self.vocabulary.words[index] for index in written if index >= self.vocabulary.first_word]
        grammar = frozenset(pairwise(["", *words, "."])) <= self._pairs
        return {
            "label": float(said_label(words, self.vocabulary.labels) == truth.label and bool(words)),
            "attributes": _attributes(words, truth),
            "length": float(ended and len(words) >= _SHORTEST),
            "format": float(ended and len(words) == len(written) and grammar),
        }

    def __call__(self, words: Tensor, truths: Sequence[Truth]) -> Tensor:
        """Rewards float (N,) of sentences int64 (N, W) about N events."""
        rows = zip(words.tolist(), truths, strict=True)
        return torch.tensor([sum(PARTS[name] * share for name, share in self.parts(*row).items()) for row in rows])


def _attributes(words: Sequence[str], truth: Truth) -> float:
    """1 where there are claims and all hold; where nobody knows the truth no claim can fail."""
    said = frozenset(words)
    claims = list[bool]()
    if said & {"empty", "nobody"}:
        claims.append(truth.most in (0, -1))
    elif said & _SEVERAL:
        claims.append(truth.most in (2, -1))
    elif said & {"person", "child"}:
        claims.append(truth.most != 0)
    if said & _LOW:
        claims.append(truth.low is not False)
    if said & _RUNNING:
        claims.append(truth.running is not False)
    return float(bool(claims) and all(claims))
