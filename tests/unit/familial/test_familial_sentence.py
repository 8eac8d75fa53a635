"""Sentences word by word: what is kept of earlier words changes nothing, and drafts change nothing but the time."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmarks.model.report_task import TINY, ReportTask, text_model
from familial.model import checkpoint
from familial.model.decoders.speculative import ExitDraft, NgramDraft, speculative_words
from familial.model.decoders.word_decoder import Prompt, WordDecoder, captions, family_prompt
from familial.model.family import Family
from tests.support.family_factory import small_config
from tests.support.services import ROOT


@functools.cache
def family_of(name: str) -> Family:
    """The shipped nano, or a small one with an exit of its own block that is deeper in."""
    if name == "nano":
        return checkpoint.load(ROOT / "checkpoints" / "nano")
    torch.manual_seed(2)
    config = dataclasses.replace(small_config(), layers=4, exit_at=2, exit_block="shared", tied=False, kv_heads=1)
    return Family(config).eval()


def events(family: Family, seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Noise and some signal as z (N, R, K, d), and which releases arrived (N, R); the newest always has."""
    random, config = torch.Generator().manual_seed(seed), family.config
    shape = (count, config.event_releases, config.tokens, config.width)
    signal = torch.randn(count, 1, *shape[2:], generator=random) * 6.0
    present = torch.rand(shape[:2], generator=random) < torch.rand(count, 1, generator=random) + 0.3
    present[:, -1] = True
    z = (signal + torch.randn(shape, generator=random) * config.sigma).round()
    return z * present[:, :, None, None], present


@pytest.mark.parametrize("name", ["nano", "small"])
@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**31))
def test_kept_words_say_what_captions_of_the_family_say(name: str, seed: int) -> None:
    family = family_of(name)
    z, present = events(family, seed, 8)
    assert captions(family, z, present) == family.caption(z, present)


class Wrong(nn.Module):
    """A head that drafts anything."""

    def forward(self, state: Tensor) -> Tensor:
        return torch.roll(state, 5, dims=-1) * 3.0


@pytest.mark.parametrize("name", ["nano", "small"])
@settings(deadline=None, max_examples=5)
@given(st.integers(0, 2**31), st.integers(1, 7), st.floats(0.0, 1.0))
def test_whatever_is_drafted_the_text_is_that_of_greedy_decoding(name: str, seed: int, ahead: int, sure: float) -> None:
    family = family_of(name)
    z, present = events(family, seed, 6)
    prompt, first = family_prompt(family, z, present)
    decoder, ngrams = WordDecoder.of_family(family), NgramDraft(ahead)
    ngrams.learn([3, 7, 5, 9, 7, 5, 1])  # of sentences that nobody says
    for row, said in enumerate(family.caption(z, present)):
        one, start = prompt.rows(torch.tensor([row])), int(first[row])
        for draft in (None, ExitDraft(None, ahead, sure), ExitDraft(Wrong(), ahead, sure), ngrams):
            spoken = speculative_words(decoder, one, start, family.config.caption_words, draft)
            assert family.vocabulary.decode(spoken.words) == said
            assert 0 <= spoken.accepted <= spoken.drafted
            assert spoken.forwards <= len(spoken.words)


def test_a_draft_that_is_right_saves_forwards() -> None:
    family = family_of("nano")
    z, present = events(family, 1, 2)
    prompt, first = family_prompt(family, z, present)
    one, decoder = prompt.rows(torch.tensor([0])), WordDecoder.of_family(family)
    ngrams = NgramDraft()
    plain = speculative_words(decoder, one, int(first[0]), 12, ngrams)
    again = speculative_words(decoder, one, int(first[0]), 12, ngrams)
    assert again.words == plain.words
    assert again.forwards < plain.forwards
    assert again.accepted == again.drafted > 0


def test_long_answers_of_a_text_model_are_those_of_transformers() -> None:
    model = text_model(TINY, 4).eval()
    task = ReportTask(3, 0)
    decoder = WordDecoder.of_text_model(model, 64)
    prompt = Prompt(model.embed_tokens(task.prompts))
    words = task.prompts
    with torch.no_grad():
        for _ in range(40):
            state = model(input_ids=words, use_cache=False).last_hidden_state[:, -1]
            words = torch.cat((words, (state @ model.embed_tokens.weight.T).argmax(dim=1, keepdim=True)), dim=1)
        spoken = [
            speculative_words(decoder, prompt.rows(torch.tensor([row])), 0, 40, draft).words
            for row in range(3)
            for draft in (None, ExitDraft(None, 5, 0.0), NgramDraft())
        ]
    for row in range(3):
        expected = words[row, task.prompts.shape[1] :].tolist()
        expected = expected[: expected.index(1) + 1] if 1 in expected else expected
        assert all(found == expected for found in spoken[3 * row : 3 * row + 3])
