"""The cloud member of a family as something to calibrate: its noised events, and what it says of them itself.

events --adapter, the edge's blocks--> exit states, the label's token and the sampled words appended
--blocks behind the exit--> loss: label, attributes and words that the member itself sampled
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from familial.data.clips import Footage
from familial.evaluate.clip_inference import clip_codes, events_of
from familial.model.code_space import rounded_gaussian
from familial.model.decoders.sentence import word_logits
from familial.model.decoders.verdict import attribute_logits, cloud_exit
from familial.model.decoders.word_decoder import WordDecoder, family_prompt, sampled_words
from familial.model.family import Family
from familial.model.vocabulary import END
from wire.errors import ConfigError

__all__ = ["MemberCalibration", "noised_events"]

_BATCH = 64
_OVER = -100  # in place of a word behind <end>
_EACH = 4  # events of a clip, evenly spaced


@torch.no_grad()
def noised_events(family: Family, clips: Sequence[Footage], draws: int) -> tuple[Tensor, Tensor]:
    """Encode clips and noise their events.

    Args:
        family: whose tower encodes.
        clips: rendered or real; what they show need not be known.
        draws: noise samples of each event; torch's generator draws them.

    Returns:
        z float (N, R, K, d), present bool (N, R).
    """
    z, present = list[Tensor](), list[Tensor]()
    for clip in clips:
        codes = clip_codes(family, clip)
        noised = codes + rounded_gaussian(codes.expand(draws, *codes.shape), family.config.sigma)
        events, there = events_of(noised, family.config.event_releases)  # (D, E, R, K, d), (E, R)
        for event in range(0, len(there), -(-len(there) // _EACH)):
            z.append(events[:, event])
            present.append(there[event].expand(draws, -1))
    return torch.cat(z), torch.cat(present)


class MemberCalibration:
    """See `calibration.Calibration`.

    Args:
        family: with all blocks.
        z: noised events float (N, R, K, d).
        present: bool (N, R).
        seed: of what the member samples.

    Raises:
        ConfigError: no block lies behind the edge's exit.
    """

    def __init__(self, family: Family, z: Tensor, present: Tensor, seed: int = 0) -> None:
        if family.shared >= family.config.layers:
            raise ConfigError(
                f"exit_at is {family.config.exit_at} of {family.config.layers} blocks: none is left to be quantised"
            )
        self._family, self._question = family, family.config.event_releases * family.config.release_tokens
        random = torch.Generator().manual_seed(seed)
        starts = range(0, len(z), _BATCH)
        self._batches = [self._made(z[at : at + _BATCH], present[at : at + _BATCH], random) for at in starts]

    @torch.no_grad()
    def _made(self, z: Tensor, present: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Exit states, which releases arrived, and what the member sampled: words, labels, attributes."""
        family = self._family
        prompt, _ = family_prompt(family, z, present)
        words = sampled_words(WordDecoder.of_family(family), prompt, 1, family.config.caption_words, 1.0, random)
        last = family.backbone(family.exit_state(z, present), present, family.shared)
        sampled = [self._drawn(cloud_exit(family, last), random)]
        sampled += [self._drawn(attribute_logits(family, last), random)] if family.config.attributes else []
        hidden = torch.cat((prompt.hidden, family.embed(words[:, :-1])), dim=1)
        entering = family.backbone(hidden, present, 0, family.shared)
        ends = (words == END).int()
        return entering, present, (words.masked_fill(ends.cumsum(dim=1) > ends, _OVER), *sampled)

    @staticmethod
    def _drawn(logits: Tensor, random: torch.Generator) -> Tensor:
        return torch.multinomial(torch.softmax(logits, dim=1), 1, generator=random)[:, 0]

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """Those behind the edge's exit."""
        return list(self._family.backbone.layers)[self._family.shared :]

    def __len__(self) -> int:
        return len(self._batches)

    def entering(self, batch: int) -> Tensor:
        """Return the exit states of events and words."""
        return self._batches[batch][0]

    def through(self, block: int, hidden: Tensor, batch: int) -> Tensor:
        """Compute one block."""
        number = self._family.shared + block
        out: Tensor = self._family.backbone(hidden, self._batches[batch][1], number, number + 1)
        return out

    def read(self, batch: int) -> Tensor:
        """All but the tokens of missing releases and those after <end>."""
        _, present, (words, *_) = self._batches[batch]
        of_releases = present.repeat_interleave(self._family.config.release_tokens, dim=1)
        asked = torch.ones(len(words), 2, dtype=torch.bool)  # the question, the label
        return torch.cat((of_releases, asked, words[:, :-1] != _OVER), dim=1)

    def losses(self, hidden: Tensor, batch: int) -> list[Tensor]:
        """What the member sampled, as if it were true: words, label, attributes."""
        family, (words, labels, *attributes) = self._family, self._batches[batch][2]
        question = hidden[:, : self._question + 1]
        logits = word_logits(family, hidden[:, self._question + 1 :])
        found = [cross_entropy(logits.flatten(0, 1), words.flatten(), ignore_index=_OVER, reduction="sum")]
        found.append(cross_entropy(cloud_exit(family, question), labels, reduction="sum"))
        found += [cross_entropy(attribute_logits(family, question), drawn, reduction="sum") for drawn in attributes]
        return found
