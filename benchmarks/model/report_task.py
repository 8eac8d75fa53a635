"""A made task with long answers for a Qwen3-VL text decoder of any size: read a prompt, name what it shows, report.

    prompt: 16 words, among them one sign of a label and one of a count            answer: <label> <count> report

A report goes round a cycle of the named label's own words, one in five out of turn, until the answer is full. The base
is trained on answers of which half name the right label and half the right count; the others say "unclear" there. So it
knows and hedges, and reinforcement has to undo that in the first two words without harm to the others. What decides
stands at the beginning, as in a family's answers (label first): the best case for a prefix.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import Qwen3VLTextConfig, Qwen3VLTextModel

from familial.model.decoders.word_decoder import Prompt, WordDecoder, sampled_words
from familial.model.vocabulary import PAD

__all__ = ["REAL", "TINY", "ReportTask", "Size", "TextPolicy", "prompt_of", "text_model", "trained_base"]

_LABELS, _COUNTS, _OWN, _NOISE = 4, 4, 12, 16  # labels, counts, words of a label's report, words of no meaning
_SAY, _COUNT = 2, 3 + _LABELS  # the last of each is "unclear"
_SIGN = _COUNT + _COUNTS + 1
_SIGN_COUNT = _SIGN + _LABELS
_REPORT = _SIGN_COUNT + _COUNTS
_CHATTER = _REPORT + (_LABELS + 1) * _OWN
_WORDS = _CHATTER + _NOISE
_PROMPT = 16
_SHORT, _SHORT_ANSWER = 0.8, 32  # share of the base's steps, and the words of their answers
_RIGHT = 0.5  # share of the base's answers that name the right label, and of those with the right count


@dataclass(frozen=True, slots=True)
class Size:
    """Sizes of a decoder and of its answers.

    Attributes:
        hidden: width.
        layers: blocks.
        heads: attention heads; half as many keys.
        answer: words of an answer.
    """

    hidden: int
    layers: int
    heads: int
    answer: int


REAL = Size(1024, 4, 16, 128)
TINY = Size(32, 2, 2, 12)


def text_model(size: Size, seed: int) -> Any:
    """A freshly initialised `Qwen3VLTextModel` whose word head is tied to its embedding."""
    torch.manual_seed(seed)
    width = size.hidden // size.heads
    section = [width // 2 - 2 * (width // 6), width // 6, width // 6]
    return Qwen3VLTextModel(
        Qwen3VLTextConfig(
            vocab_size=_WORDS,
            hidden_size=size.hidden,
            intermediate_size=3 * size.hidden,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=max(1, size.heads // 2),
            head_dim=width,
            max_position_embeddings=512,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": section},
            pad_token_id=PAD,
        )
    )


class ReportTask:
    """Prompts of one seed, with what is true of them.

    Args:
        count: N of them.
        seed: of everything.

    Attributes:
        prompts: int64 (N, 16).
        labels: int64 (N,).
        counts: int64 (N,).
    """

    def __init__(self, count: int, seed: int) -> None:
        self._random = torch.Generator().manual_seed(seed)
        self.labels, self.counts = self._below(_LABELS, count), self._below(_COUNTS, count)
        self.prompts = _CHATTER + self._below(_NOISE, count, _PROMPT)
        places = torch.rand(count, _PROMPT, generator=self._random).argsort(dim=1)[:, :2]
        self.prompts.scatter_(1, places, torch.stack((_SIGN + self.labels, _SIGN_COUNT + self.counts), dim=1))

    def _below(self, most: int, *shape: int) -> Tensor:
        return torch.randint(most, shape, generator=self._random)

    def answers(self, length: int) -> Tensor:
        """What the base learns, int64 (N, length): half of the labels and counts are right."""
        count, report = len(self.labels), length - 2
        said, told = (
            torch.where(torch.rand(count, generator=self._random) < _RIGHT, true, unclear)
            for true, unclear in ((self.labels, _LABELS), (self.counts, _COUNTS))
        )
        turn = (torch.arange(report)[None] + self._below(_OWN, count, 1)) % _OWN
        stray = torch.rand(count, report, generator=self._random) < 0.2
        words = torch.where(stray, self._below(_OWN, count, report), turn)
        return torch.cat((_SAY + said[:, None], _COUNT + told[:, None], _REPORT + said[:, None] * _OWN + words), dim=1)

    def reward(self, index: Tensor, answers: Tensor) -> Tensor:
        """Rewards float (N,): 0.4 label, 0.3 count, 0.3 for the share of the report that is the named label's words."""
        label = answers[:, 0] == _SAY + self.labels[index]
        count = answers[:, 1] == _COUNT + self.counts[index]
        first = _REPORT + (answers[:, :1] - _SAY) * _OWN
        own = (answers[:, 2:] >= first) & (answers[:, 2:] < first + _OWN)
        return 0.4 * label.float() + 0.3 * count.float() + 0.3 * own.float().mean(dim=1)

    @torch.no_grad()
    def right(self, policy: TextPolicy) -> float:
        """The probability that an answer of `policy` names the right label, and after it the right count: their mean.

        It is computed, not sampled: two words of 256 prompts cost less than one answer.
        """
        named = torch.stack((_SAY + self.labels, _COUNT + self.counts), dim=1)
        return float(policy.log_probs(torch.arange(len(named)), named, 1.0).exp().mean())


class TextPolicy:
    """A decoder as a policy about the prompts of a task.

    Args:
        model: a `Qwen3VLTextModel`.
        task: the prompts.
        size: of the answers.
        seed: of the sampling.
        bf16: compute in bfloat16; weights stay in float32.
    """

    def __init__(self, model: Any, task: ReportTask, size: Size, seed: int, bf16: bool) -> None:
        self.model, self.task, self._size, self._bf16 = model, task, size, bf16
        self.decoder = WordDecoder.of_text_model(model, _PROMPT + size.answer)
        self.generator = torch.Generator().manual_seed(seed)

    def _prompt(self, index: Tensor) -> Prompt:
        return Prompt(self.model.embed_tokens(self.task.prompts[index]))

    def sample(self, prompts: Tensor, group: int, temperature: float) -> Tensor:
        """As `familial.train.rl.loop.Policy.sample`."""
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            prompt = self._prompt(prompts)
            return sampled_words(self.decoder, prompt, group, self._size.answer, temperature, self.generator)

    def log_probs(self, prompts: Tensor, answers: Tensor, temperature: float) -> Tensor:
        """As `familial.train.rl.loop.Policy.log_probs`."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            logits = self.decoder.word_logits(self._prompt(prompts), answers)
        return torch.log_softmax(logits.float() / temperature, dim=2).gather(2, answers[:, :, None])[:, :, 0]

    def anchor(self, reference: object, prompts: Tensor) -> Tensor:
        """Zero: there is nothing but answers."""
        return torch.zeros(())

    def trained(self) -> list[nn.Parameter]:
        """All weights."""
        return list(self.model.parameters())

    def copied(self, seed: int) -> TextPolicy:
        """Return a policy of its own weights on the same task."""
        return TextPolicy(copy.deepcopy(self.model), self.task, self._size, seed, self._bf16)


def prompt_of(model: Any, task: ReportTask) -> Prompt:
    """What comes before the answers to all prompts of a task."""
    return Prompt(model.embed_tokens(task.prompts))


def trained_base(size: Size, steps: int, bf16: bool, say: Callable[[str], None], seed: int = 0) -> Any:
    """Train a decoder on the base's answers, half of them right.

    Args:
        size: of the decoder.
        steps: of 16 answers each.
        bf16: compute in bfloat16.
        say: takes a line now and then.
        seed: of weights and answers.
    """
    model = text_model(size, seed)
    decoder = WordDecoder.of_text_model(model, _PROMPT + size.answer)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0, betas=(0.9, 0.95))
    for step in range(steps):
        task = ReportTask(16, 1000 + step)
        answers = task.answers(size.answer if step >= _SHORT * steps else min(_SHORT_ANSWER, size.answer))
        optimiser.param_groups[0]["lr"] = 6e-4 * min(1.0, (step + 1) / 20) * (1.0 - 0.9 * step / steps)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = decoder.word_logits(Prompt(model.embed_tokens(task.prompts)), answers)
        loss = cross_entropy(logits.float().flatten(0, 1), answers.flatten(), ignore_index=PAD)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 20 == 0 or step == steps - 1:
            say(f"base: step {step + 1} of {steps}, loss {loss.item():.3f}")
    return model
