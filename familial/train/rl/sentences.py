"""The family's sentence as a policy: events are prompts, captions are answers, the edge member never changes.

    clips --frozen tower--> codes + noise --> events and their truths                          `read_events`
    events --adapter, the base's label token--> prompts --blocks behind the edge's exit--> words    `SentencePolicy`

Trained are the blocks behind the edge's exit and the last norm, nothing else: what runs on a device stays as it was, to
the bit. The verdict of the cloud is read from the same blocks; `anchor` holds it to the base's by the KL divergence
over the label tokens, and over those of the attributes.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from familial.data.events import UNKNOWN, LabelledClip, event_label
from familial.evaluate.clip_inference import clip_codes, events_of
from familial.model.code_space import rounded_gaussian
from familial.model.decoders.word_decoder import Prompt, WordDecoder, family_prompt, sampled_words
from familial.model.family import Family
from familial.model.vocabulary import FIRST_LABEL, PAD
from familial.train.rl.reward import PARTS, SentenceReward, Truth, truth_of_event
from wire.errors import ConfigError, DataError

__all__ = ["Events", "SentencePolicy", "read_events", "scores"]

_EACH = 4  # events of a clip, evenly spaced


@dataclass(frozen=True, slots=True)
class Events:
    """Noised events and what is true of them.

    Attributes:
        z: float (N, R, K, d).
        present: bool (N, R).
        truths: N of them.
    """

    z: Tensor
    present: Tensor
    truths: Sequence[Truth]

    def __len__(self) -> int:
        return len(self.truths)


@torch.no_grad()
def read_events(family: Family, clips: Sequence[LabelledClip], draws: int) -> Events:
    """Encode clips and noise their events; events that nobody can label are left out.

    Args:
        family: whose tower encodes.
        clips: rendered or real.
        draws: noise samples of each event; torch's generator draws them.

    Raises:
        DataError: no event is left.
    """
    config, z, present, truths = family.config, list[Tensor](), list[Tensor](), list[Truth]()
    for clip in clips:
        codes = clip_codes(family, clip.footage)
        noised = codes + rounded_gaussian(codes.expand(draws, *codes.shape), config.sigma)
        events, there = events_of(noised, config.event_releases)  # (D, E, R, K, d), (E, R)
        for event in range(0, len(there), math.ceil(len(there) / _EACH)):
            slots = np.arange(event, event + int(there[event].sum()))
            ends = (config.window.slot_s * (slots + 1)).tolist()
            label = event_label(clip, 0.0, ends, config.window.receptive_field_s)
            if label == UNKNOWN:
                continue
            z.append(events[:, event])
            present.append(there[event].expand(draws, -1))
            truths += [truth_of_event(clip, label, float(slots[0]) * config.window.slot_s, ends[-1])] * draws
    if not truths:
        raise DataError(f"none of {len(clips)} clips has an event whose label is known; give more clips")
    return Events(torch.cat(z), torch.cat(present), truths)


class SentencePolicy:
    """The cloud member's sentence about the events of one set.

    Args:
        family: with all blocks; those behind the edge's exit are trained in place.
        events: the prompts.
        seed: of the sampling.
        prompt: of the events, where it is there already.

    Raises:
        ConfigError: no block lies behind the edge's exit.
    """

    def __init__(self, family: Family, events: Events, seed: int = 0, prompt: Prompt | None = None) -> None:
        if family.shared >= family.config.layers:
            raise ConfigError(
                f"exit_at is {family.config.exit_at} of {family.config.layers} blocks: none is left to be trained"
            )
        self.family, self.events, self.decoder = family, events, WordDecoder.of_family(family)
        self.prompt = prompt or family_prompt(family, events.z, events.present)[0]
        self.generator = torch.Generator().manual_seed(seed)

    def copied(self, seed: int = 0) -> SentencePolicy:
        """Return a policy of its own weights about the same events."""
        return SentencePolicy(copy.deepcopy(self.family), self.events, seed, self.prompt)

    def sample(self, prompts: Tensor, group: int, temperature: float) -> Tensor:
        """As `Policy.sample`; temperature 0 takes the likeliest word."""
        count = self.family.config.caption_words
        return sampled_words(self.decoder, self.prompt.rows(prompts), group, count, temperature, self.generator)

    def log_probs(self, prompts: Tensor, answers: Tensor, temperature: float) -> Tensor:
        """As `Policy.log_probs`."""
        logits = self.decoder.word_logits(self.prompt.rows(prompts), answers) / temperature
        return torch.log_softmax(logits, dim=2).gather(2, answers[:, :, None])[:, :, 0]

    def anchor(self, reference: object, prompts: Tensor) -> Tensor:
        """The KL divergence from the reference's verdict and attributes to this one's, summed over both."""
        assert isinstance(reference, SentencePolicy)
        with torch.no_grad():
            kept = reference._read(prompts)
        pairs = zip(kept, self._read(prompts), strict=True)
        return sum(((was.exp() * (was - now)).sum(dim=1).mean() for was, now in pairs), torch.zeros(()))

    def _read(self, prompts: Tensor) -> list[Tensor]:
        """Log probabilities (P, L) of the labels at the question, and (P, A) of the attributes where there are any."""
        rows, config = self.prompt.rows(prompts), self.family.config
        state = self.decoder.states(rows.hidden[:, :-1], hide=None if rows.hide is None else rows.hide[:, :-1])
        logits = self.decoder.logits(state[:, -1])
        ends = (FIRST_LABEL, FIRST_LABEL + len(config.labels), FIRST_LABEL + len(config.labels + config.attributes))
        spans = [logits[:, first:last] for first, last in zip(ends, ends[1:], strict=False) if last > first]
        return [torch.log_softmax(span, dim=1) for span in spans]

    def trained(self) -> list[nn.Parameter]:
        """The blocks behind the edge's exit, and the last norm."""
        behind = [*self.family.backbone.layers][self.family.shared :]
        return [parameter for module in (*behind, self.family.norm) for parameter in module.parameters()]


@torch.no_grad()
def scores(policy: SentencePolicy, reward: SentenceReward, samples: int = 4) -> dict[str, float]:
    """Say how right and how various the sentences of a policy are.

    Args:
        policy: about events that it was not trained on.
        reward: of a sentence.
        samples: sentences that are sampled for each event, beside the greedy one.

    Returns:
        Of greedy sentences: "reward", each of `PARTS`, "distinct" (different sentences over all events). Of sampled
        ones: "sampled_reward", "sampled_bits" (entropy of all sentences together), "own_distinct" (share of different
        sentences among those of one event). "verdict": share of events whose label is right at the cloud's exit.
    """
    truths, everything = policy.events.truths, torch.arange(len(policy.events))
    greedy = policy.sample(everything, 1, 0.0)
    rows = [reward.parts(words, truth) for words, truth in zip(greedy.tolist(), truths, strict=True)]
    found = {name: float(np.mean([row[name] for row in rows])) for name in PARTS}
    found["reward"] = float(reward(greedy, truths).mean())
    found["distinct"] = float(len({tuple(words) for words in greedy.tolist()}))
    sampled = policy.sample(everything, samples, 1.0)
    found["sampled_reward"] = float(reward(sampled, [truth for truth in truths for _ in range(samples)]).mean())
    said = [tuple(word for word in words if word != PAD) for words in sampled.tolist()]
    shares = np.array([*Counter(said).values()]) / len(said)
    found["sampled_bits"] = float(-(shares * np.log2(shares)).sum())
    groups = [said[start : start + samples] for start in range(0, len(said), samples)]
    found["own_distinct"] = float(np.mean([len(set(group)) / samples for group in groups]))
    verdicts = policy.family.cloud_logits(policy.events.z, policy.events.present).argmax(dim=1)
    found["verdict"] = float((verdicts == torch.tensor([truth.label for truth in truths])).float().mean())
    return found
