"""The commands about the sentence in their short form: what is compared is there, and what must hold does."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.model import bppo, speculative
from benchmarks.model.report_task import TINY, ReportTask, TextPolicy, text_model

TINY_DECODER = ["--part", "decoder", "--size", "tiny", "--base-steps", "60"]


def figures(out: str) -> dict[str, dict[str, object]]:
    return dict(json.loads(out.splitlines()[-1])["figures"])


def test_both_halves_are_measured_against_grpo_in_the_same_run(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--seeds", "1", "--decoder-target", "2", "--decoder-most-s", "0.5", "--decoder-prefix", "4"]
    assert bppo.COMMAND.main([*TINY_DECODER, *options]) == 0
    found = figures(capsys.readouterr().out)["decoder"]
    methods = found["methods"]
    assert isinstance(methods, dict) and methods.keys() == {"grpo", "bppo", "pairs alone", "prefix alone", "dapo"}
    assert all(own["reached"] == 0 and own["seconds"] >= 0.5 for own in methods.values()), "nobody reaches 2"
    assert methods["grpo"]["faster_than_grpo"] == [1.0, 1.0, 1.0]


def test_a_reward_that_is_reached_ends_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--seeds", "1", "--decoder-target", "0", "--decoder-most-s", "30", "--decoder-prefix", "4"]
    assert bppo.COMMAND.main([*TINY_DECODER, *options]) == 0
    methods = figures(capsys.readouterr().out)["decoder"]["methods"]
    assert isinstance(methods, dict)
    assert all(own["reached"] == 1 and own["steps"] == 1 for own in methods.values())


@pytest.mark.slow
def test_the_minute_form_on_the_shipped_family(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--part", "nano", "--seeds", "1", "--rendered", "30", "--most-s", "6", "--target", "0.99"]
    assert bppo.COMMAND.main(options) == 0
    nano = figures(capsys.readouterr().out)["nano"]
    methods, before = nano["methods"], nano["before"]
    assert isinstance(methods, dict) and isinstance(before, dict)
    for name, own in methods.items():
        assert abs(own["scores"]["verdict"] - before["verdict"]) < 0.15, f"{name}: the verdict is anchored"
        assert own["scores"]["sampled_reward"] > before["sampled_reward"], name


def test_answers_of_the_made_task_get_what_they_deserve() -> None:
    task = ReportTask(400, 1)
    rewards = task.reward(torch.arange(400), task.answers(40))
    assert float(rewards.max()) == pytest.approx(1.0)
    assert float(rewards.mean()) == pytest.approx(0.3 + 0.5 * 0.7, abs=0.04)
    swapped = task.answers(40)
    swapped[:, 2:] = 0
    assert float(task.reward(torch.arange(400), swapped).max()) <= 0.7 + 1e-6
    policy = TextPolicy(text_model(TINY, 0), task, TINY, 0, bf16=False)
    assert 0.0 < task.right(policy) < 0.1, "an untrained decoder knows nothing"


@pytest.mark.parametrize("part", ["nano", "decoder"])
def test_drafts_change_no_word_and_forwards_are_saved(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--part", part, "--size", "tiny", "--base-steps", "60", "--rendered", "6", "--sentences", "8"]
    assert speculative.COMMAND.main([*options, "--head-steps", "40"]) == 0
    found = figures(capsys.readouterr().out)[part]
    assert found["differ"] == 0
    drafts = found["drafts"]
    assert isinstance(drafts, dict)
    assert drafts["none"]["words_per_forward"] == 1.0
    assert drafts["n-grams, taught too"]["words_per_forward"] > 1.1
    assert drafts["the exit, a head taught"]["accepted"] is not None


def test_a_sentence_that_differs_is_an_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(speculative, "_spoken", lambda part, drafts: (_fake_spoken(drafts), 1))
    options = ["--part", "decoder", "--size", "tiny", "--base-steps", "2", "--sentences", "2", "--head-steps", "2"]
    assert speculative.COMMAND.main(options) == 1
    assert "1 sentences differ" in capsys.readouterr().out


def _fake_spoken(drafts: dict[str, object]) -> dict[str, list[tuple[float, object]]]:
    from familial.model.decoders.speculative import Spoken

    return {name: [(0.1, Spoken([3], 1, 0, 0)), (0.2, Spoken([3], 1, 0, 0))] for name in drafts}
