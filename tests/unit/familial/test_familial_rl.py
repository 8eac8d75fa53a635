"""Reinforcement learning of the sentence: the loss, what of a group counts, the reward, the loop, the command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.model.report_task import TINY, ReportTask, TextPolicy, text_model
from familial.model import checkpoint
from familial.model.members import EdgeMember
from familial.model.vocabulary import Vocabulary
from familial.synth.actions.catalogue import ACTIONS
from familial.train.rl import __main__ as command
from familial.train.rl.loop import Settings, training
from familial.train.rl.objective import METHODS, Objective, chosen_tokens, group_advantages, policy_loss
from familial.train.rl.reward import SentenceReward, Truth, said_label
from familial.train.rl.sentences import Events, SentencePolicy
from tests.support.family_factory import make_family
from tests.support.oracle import ask_oracle
from wire.errors import CheckpointError, ConfigError

LABELS = ("normal", "fall", "fight")


def test_the_loss_is_that_of_trl() -> None:
    found = {method: (trl, ours) for method, trl, ours in ask_oracle("trl", "trl_losses.py")}
    assert found.keys() == METHODS.keys()
    for method, (trl, ours) in found.items():
        assert abs(trl) > 1e-3, f"{method}: a loss of zero compares nothing"
        assert ours == pytest.approx(trl, abs=1e-5), method


def test_groups_of_equal_rewards_are_skipped_and_counted() -> None:
    rewards = torch.tensor([[0.5, 0.5, 0.5], [0.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    for objective in METHODS.values():
        chosen = chosen_tokens(rewards, torch.ones(9, 6, dtype=torch.bool), objective)
        assert chosen.skipped == 2
        assert set(chosen.rows.tolist()) <= {3, 4, 5}


def test_a_pair_is_the_shortest_right_and_the_shortest_wrong_with_the_groups_advantages() -> None:
    rewards = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    there = torch.arange(8)[None] < torch.tensor([[8], [7], [5], [3]])
    chosen = chosen_tokens(rewards, there, Objective(pairs=True, prefix=4))
    assert chosen.rows.tolist() == [2, 3]
    assert chosen.mask.sum(dim=1).tolist() == [4, 3]
    assert torch.equal(chosen.advantages, group_advantages(rewards)[0][0, [2, 3]])


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 9), st.booleans(), st.booleans())
def test_no_token_behind_the_prefix_has_a_gradient(seed: int, prefix: int, pairs: bool, token_level: bool) -> None:
    random = torch.Generator().manual_seed(seed)
    objective = Objective(pairs=pairs, prefix=prefix, token_level=token_level)
    there = torch.arange(10)[None] < torch.randint(1, 11, (12, 1), generator=random)
    chosen = chosen_tokens(torch.rand(3, 4, generator=random), there, objective)
    logs = torch.randn(12, 10, generator=random).requires_grad_(True)
    cut = logs[chosen.rows][:, : chosen.mask.shape[1]]
    policy_loss(cut, cut.detach() + 0.05, cut.detach() - 0.1, chosen.advantages, chosen.mask, objective).backward()  # type: ignore[no-untyped-call]
    assert logs.grad is not None
    inside = there & (torch.arange(10)[None] < prefix)
    assert not logs.grad[~inside].any()
    assert len(chosen.rows) == (6 if pairs else 12)
    assert bool((logs.grad[chosen.rows].abs().sum(dim=1) > 0).all())


@pytest.mark.parametrize(("moved", "advantage", "clipped"), [(0.5, 1.0, True), (0.5, -1.0, False), (-0.5, -1.0, True)])
def test_ratios_are_clipped_on_the_side_that_gains(moved: float, advantage: float, clipped: bool) -> None:
    old, mask = torch.full((1, 3), -2.0), torch.ones(1, 3, dtype=torch.bool)
    logs = (old + moved).requires_grad_(True)
    policy_loss(logs, old, None, torch.tensor([advantage]), mask, Objective(beta=0.0)).backward()  # type: ignore[no-untyped-call]
    assert logs.grad is not None
    assert bool((logs.grad == 0).all()) == clipped


def test_dapo_weighs_tokens_alike_and_grpo_answers() -> None:
    logs, mask = torch.zeros(2, 4), torch.tensor([[True, False, False, False], [True, True, True, True]])
    advantages = torch.tensor([1.0, -1.0])
    assert policy_loss(logs, logs, None, advantages, mask, METHODS["grpo"]) == pytest.approx(0.0)
    assert policy_loss(logs, logs, None, advantages, mask, METHODS["dapo"]) == pytest.approx(3 / 5)


def test_the_reference_pulls_back_and_costs_nothing_where_it_is_met() -> None:
    logs, mask = torch.full((1, 2), -1.0), torch.ones(1, 2, dtype=torch.bool)
    near, away = (policy_loss(logs, logs, logs + by, torch.zeros(1), mask, METHODS["grpo"]) for by in (0.0, 0.7))
    assert float(near) == 0.0
    assert float(away) > 0.0


@pytest.mark.parametrize("action", ACTIONS.values(), ids=lambda action: action.name)
def test_every_caption_says_its_label(action: object) -> None:
    caption, label = action.caption, action.label  # type: ignore[attr-defined]
    said = said_label(caption.replace(",", "").split(), LABELS)
    assert LABELS[said] == label, f"{caption!r} says {LABELS[said]}: add a word to familial.train.rl.reward.SAYS"


CAPTIONS = ("a person falls and lies on the floor", "two people fight", "a person walks", "the room is empty")
WORDS = Vocabulary.of_captions(CAPTIONS, LABELS)


def parts(sentence: str, truth: Truth) -> dict[str, float]:
    length = len(sentence.split()) + 1
    return SentenceReward(WORDS, CAPTIONS).parts(WORDS.encode(sentence, length), truth)


def test_what_is_right_gets_everything_and_each_fault_its_part() -> None:
    fall = Truth(1, most=1, low=True, running=False)
    assert set(parts(CAPTIONS[0], fall).values()) == {1.0}
    assert parts("two people fight", fall) == {"label": 0.0, "attributes": 0.0, "length": 1.0, "format": 1.0}
    assert parts("person falls a walks", fall)["format"] == 0.0, "no caption has these neighbours"
    assert parts("a person falls", fall)["format"] == 0.0, "no caption ends there"
    assert parts("the room is empty", replace(fall, label=0))["attributes"] == 0.0
    assert parts("the room is empty", Truth(0, most=0))["attributes"] == 1.0
    assert parts("and on", fall)["attributes"] == 0.0, "who claims nothing is not right"
    assert parts(CAPTIONS[0], replace(fall, low=False))["attributes"] == 0.0


def test_a_sentence_that_never_ends_or_says_special_tokens_is_no_sentence() -> None:
    reward = SentenceReward(WORDS, CAPTIONS)
    ids = WORDS.encode("a person walks", 4)
    assert reward.parts(ids[:3], Truth(0))["format"] == 0.0
    assert reward.parts([2, *ids], Truth(0))["format"] == 0.0
    assert reward.parts([1], Truth(0)) == {"label": 0.0, "attributes": 0.0, "length": 0.0, "format": 0.0}


def test_a_label_that_no_word_says_is_refused_by_name() -> None:
    words = Vocabulary.of_captions(CAPTIONS, (*LABELS, "smoking"))
    with pytest.raises(ConfigError, match="'smoking'"):
        SentenceReward(words, CAPTIONS)


def small_policy() -> SentencePolicy:
    family = make_family()
    random = torch.Generator().manual_seed(1)
    z = torch.randn(12, 8, family.config.tokens, family.config.width, generator=random) * family.config.sigma
    present = torch.ones(12, 8, dtype=torch.bool)
    present[:4, :3] = False
    return SentencePolicy(family, Events(z.round(), present, [Truth(1, 1)] * 12), seed=5)


def test_training_moves_the_sentence_and_not_one_bit_of_the_edge() -> None:
    policy = small_policy()
    base, edge = policy.copied(), EdgeMember(policy.family)
    before = {name: value.clone() for name, value in edge.state_dict().items()}
    reward = lambda prompts, answers: (answers == 6).float().sum(dim=1)  # noqa: E731
    steps = training(policy, base, reward, 12, Settings(Objective(beta=0.0), group=6, prompts=6, lr=3e-2), seed=0)
    rewards = [next(steps).reward for _ in range(30)]
    assert sum(rewards[-5:]) > sum(rewards[:5]) + 1.0
    after = edge.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    z, present = policy.events.z, policy.events.present
    assert torch.equal(policy.family.edge_logits(z, present), base.family.edge_logits(z, present))


def test_the_anchor_is_zero_at_the_base_and_positive_away_from_it() -> None:
    policy, prompts = small_policy(), torch.arange(12)
    base = policy.copied()
    assert float(policy.anchor(base, prompts).detach()) == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        for parameter in policy.trained():
            parameter.add_(torch.randn_like(parameter))
    assert float(policy.anchor(base, prompts).detach()) > 1e-6


def tiny_run(objective: Objective, reward: Callable[[Tensor, Tensor], Tensor], steps: int) -> list[float]:
    policy = TextPolicy(text_model(TINY, 0), ReportTask(32, 1), TINY, 2, bf16=False)
    made = training(policy, policy.copied(0), reward, 32, Settings(objective, group=8, prompts=8, lr=5e-3), seed=3)
    return [next(made).reward for _ in range(steps)]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_what_the_first_words_decide(method: str) -> None:
    rewards = tiny_run(METHODS[method], lambda _, answers: (answers[:, 0] == 9).float(), 40)
    assert sum(rewards[-5:]) / 5 > 0.25 > 5 * sum(rewards[:3]) / 3


def test_a_prefix_does_not_learn_what_is_decided_behind_it() -> None:
    """The limit of the method, and why the prefix is an option: it trains what stands in it."""
    reward = lambda _, answers: (answers[:, -1] == 9).float() - (answers[:, -1] == 8).float()  # noqa: E731
    with_all = tiny_run(Objective(beta=0.0), reward, 60)
    with_prefix = tiny_run(Objective(beta=0.0, prefix=4), reward, 60)
    assert sum(with_all[-10:]) / 10 > sum(with_prefix[-10:]) / 10 + 0.08


def test_a_reward_that_is_not_finite_stops_before_any_weight_moves() -> None:
    policy = small_policy()
    base = policy.copied()
    steps = training(policy, base, lambda _, answers: answers[:, 0] * torch.nan, 12, Settings(Objective()), seed=0)
    with pytest.raises(CheckpointError, match="reward is not finite"):
        next(steps)
    same = zip(policy.family.parameters(), base.family.parameters(), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in same)


def test_a_loss_that_is_not_finite_stops_before_any_weight_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = small_policy()
    base = policy.copied()
    monkeypatch.setattr(SentencePolicy, "anchor", lambda *_: torch.tensor(torch.nan, requires_grad=True))
    reward = lambda _, answers: (answers == 6).float().sum(dim=1)  # noqa: E731
    with pytest.raises(CheckpointError, match="loss is nan"):
        next(training(policy, base, reward, 12, Settings(Objective()), seed=0))
    same = zip(policy.family.parameters(), base.family.parameters(), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in same)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"group": 1}, "--group 1"),
        ({"prompts": 0}, "--prompts 0"),
        ({"lr": 0.0}, "--learning-rate 0"),
        ({"temperature": 0.0}, "--temperature 0"),
    ],
)
def test_settings_without_a_meaning_are_refused(change: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(Settings(Objective()), **change)  # type: ignore[arg-type]


def test_objectives_without_a_meaning_are_refused() -> None:
    for change, said in (({"prefix": -1}, "--prefix -1"), ({"epsilon": 1.5}, "--epsilon"), ({"beta": -1.0}, "--beta")):
        with pytest.raises(ConfigError, match=said):
            METHODS["bppo"].with_numbers(**change)


def a_base(folder: Path) -> Path:
    """A small family that has the words of the rendered captions."""
    family = make_family()
    words = Vocabulary.of_captions((each.caption for each in ACTIONS.values()), LABELS).words
    torch.manual_seed(0)
    family = type(family)(replace(family.config, words=words))
    checkpoint.save(family, folder)
    return folder


def test_the_command_writes_a_checkpoint_whose_edge_is_the_bases(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, out = a_base(tmp_path / "base"), tmp_path / "out"
    options = ["--base", str(base), "--out", str(out), "--rendered", "10", "--processes", "1", "--threads", "1"]
    assert command.main([*options, "--steps", "3", "--prompts", "4", "--learning-rate", "0.01"]) == 0
    said = capsys.readouterr().out
    assert "groups, all equal" in said and "sampled_bits" in said
    made, began = checkpoint.load(out), checkpoint.load(base)
    theirs = EdgeMember(began).state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in EdgeMember(made).state_dict().items())
    assert not torch.equal(made.state_dict()["norm.weight"], began.state_dict()["norm.weight"])
    assert command.main([*options, "--steps", "4", "--prompts", "4", "--resume"]) == 0
    assert "resumed at step 3" in capsys.readouterr().out


def test_the_command_names_the_last_good_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = a_base(tmp_path / "base")
    options = ["--base", str(base), "--out", str(tmp_path / "bad"), "--rendered", "10", "--processes", "1"]
    monkeypatch.setattr(SentencePolicy, "anchor", lambda *_: torch.tensor(torch.nan, requires_grad=True))
    assert command.main([*options, "--steps", "2"]) == 2
    said = capsys.readouterr().err
    assert "step 0" in said and "last good state" in said and str(base) in said
    assert not (tmp_path / "bad").exists()


def test_the_command_refuses_what_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = a_base(tmp_path / "base")
    for options, said in (
        (["--out", str(base), "--rendered", "10"], "is --base itself"),
        (["--out", str(tmp_path / "o"), "--rendered", "10", "--group", "1"], "--group 1"),
        (["--out", str(tmp_path / "o"), "--rendered", "10", "--steps", "0"], "--steps 0"),
        (["--out", str(tmp_path / "o")], "nothing to train on"),
        (["--out", str(tmp_path / "o"), "--rendered", "9"], "no clip is held out"),
    ):
        assert command.main(["--base", str(base), "--processes", "1", *options]) == 2
        assert said in capsys.readouterr().err
