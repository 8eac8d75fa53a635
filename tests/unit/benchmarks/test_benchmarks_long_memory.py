"""The longer memory: a past says nothing of the label by its making, the head learns what a place tells, and it says so
where there is nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.model import long_memory
from benchmarks.model.carriers import CarrierHead, Told, Watched, _past, discounted, told, trained_head, watched
from familial.data.clips import Clip
from familial.model import checkpoint
from familial.model.family import Family
from wire.errors import DataError


def row(name: str, label: str, group: str, of: str = "set") -> Clip:
    return Clip(Path(name), name, label, of, group, "")


def test_a_past_is_of_other_normal_clips_of_the_place_and_of_as_many_for_both_labels() -> None:
    places = {"a": 3, "b": 2, "c": 1}
    rows = [row(f"{place}-{n}", "normal", place) for place, count in places.items() for n in range(count)]
    rows += [row(f"{place}-fall", "fall", place) for place in places]
    truth = [int(each.label == "fall") for each in rows]
    codes = [torch.full((2, 1, 1), float(n)) for n in range(len(rows))]
    found = watched(rows, truth, codes, 0)
    assert {each.row.group for each in found} == {"a", "b"}  # c has one normal clip: its own past would be empty
    of_place = {place: {n for n, each in enumerate(rows) if each.group == place and not truth[n]} for place in places}
    for each in found:
        life = {int(codes[0, 0, 0]) for codes in each.life}
        assert life < of_place[each.row.group] and len(each.life) == places[each.row.group] - 1
        assert int(each.codes[0, 0, 0]) not in life


def test_a_past_has_its_length_and_ends_with_whole_clips() -> None:
    life = [torch.full((n, 1, 1), float(n)) for n in (3, 5)]
    past = _past(life, 20, np.random.default_rng(0))
    assert len(past) == 20 and set(past.flatten().tolist()) == {3.0, 5.0}
    last = int(past[-1, 0, 0])
    assert (past[-last:] == last).all()


@pytest.fixture(scope="module")
def family() -> Family:
    return checkpoint.load("checkpoints/nano-motion")


def test_what_is_told_is_what_the_exits_say_of_the_same_noise(family: Family) -> None:
    config = family.config
    codes = torch.round(torch.randn(10, config.tokens, config.width) * 8)
    clip = Watched(row("x", "fall", "a"), 1, codes, [codes.roll(1, 0), codes.roll(2, 0)])
    found = told(family, clip, 6, 2, 5)
    assert found.odds.shape == found.edge.shape == (2, 3, len(config.labels) - 1)
    assert found.past.shape[:2] == found.carriers.shape[:2] == (2, 6) and found.carriers.shape[2] == config.hidden
    again = told(family, clip, 6, 2, 5)
    assert torch.equal(found.odds, again.odds) and not torch.equal(found.odds[0], found.odds[1])


def lesson(rng: np.random.Generator, place: float, risk: bool) -> Told:
    """A place whose log odds are off by `place`, as its past tells; a risk has 1 more than normal life."""
    event = torch.tensor(place + risk + rng.normal(0.0, 0.3, (2, 4, 1)), dtype=torch.float32)
    past = torch.tensor(place + rng.normal(0.0, 0.3, (2, 12, 1)), dtype=torch.float32)
    states, carriers = torch.zeros(2, 4, 3).half(), torch.zeros(2, 12, 3).half()
    return Told(event, event, states, past, carriers)


def lessons(seed: int, count: int) -> tuple[list[Watched], list[Told]]:
    rng = np.random.default_rng(seed)
    risks = [bool(n % 2) for n in range(count)]
    said = [lesson(rng, float(rng.normal(0.0, 3.0)), risk) for risk in risks]
    return [Watched(row(str(n), "", str(n)), int(risk), torch.zeros(1, 1, 1), []) for n, risk in enumerate(risks)], said


def auc(clips: list[Watched], said: list[Told], head: CarrierHead, shown: bool) -> float:
    odds = [head(each.odds, each.states, each.past, each.carriers, shown).detach() for each in said]
    return long_memory._auc(clips, [long_memory._of_clip(each) for each in odds])


def test_a_head_learns_what_only_the_past_tells() -> None:
    clips, said = lessons(1, 200)
    others, heard = lessons(2, 200)
    with_past, without = (trained_head(clips, said, 250, shown, 0) for shown in (True, False))
    assert auc(others, heard, with_past, True) > 0.9 > 0.7 > auc(others, heard, without, False)
    strangers = [
        Told(one.edge, one.odds, one.states, other.past, other.carriers)
        for one, other in zip(heard, heard[1:] + heard[:1], strict=True)
    ]
    assert auc(others, strangers, with_past, True) < 0.7


def test_a_head_begins_without_a_correction_and_does_not_see_what_is_not_shown() -> None:
    torch.manual_seed(0)
    head = CarrierHead(3, 1, 12)
    one, other = (lesson(np.random.default_rng(seed), 1.0, True) for seed in (1, 2))
    for shown in (True, False):
        assert torch.equal(head(one.odds, one.states, one.past, one.carriers, shown), one.odds)
    torch.nn.init.normal_(head.out[2].weight)  # type: ignore[arg-type]  # a matrix
    seen = [head(one.odds, one.states, each.past, each.carriers, True) for each in (one, other)]
    blind = [head(one.odds, one.states, each.past, each.carriers, False) for each in (one, other)]
    assert not torch.equal(*seen) and torch.equal(*blind)


def test_the_exponential_mean_is_taken_off_and_is_of_the_newest_most() -> None:
    past = torch.arange(4.0).reshape(1, 4, 1)
    said = Told(torch.zeros(1, 2, 1), torch.full((1, 2, 1), 5.0), torch.zeros(1, 2, 1), past, torch.zeros(1, 4, 1))
    assert torch.equal(discounted(said, 0.0, 30.0), said.odds)
    assert discounted(said, 1.0, float("inf")).flatten().tolist() == [3.5, 3.5]
    assert 2.0 < float(discounted(said, 1.0, 0.5)[0, 0, 0]) < 2.3  # nearly the last, 3


def test_the_benchmark_says_whether_the_memory_earns_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--checkpoint", "checkpoints/nano-motion", "--rooms", "4", "--memory", "20", "--steps", "3"]
    assert long_memory.COMMAND.main([*options, "--trainings", "1", "--noise-samples", "1"]) == 0
    out = capsys.readouterr().out
    figures = json.loads(out.splitlines()[-1])["figures"]
    assert (figures["clips"], figures["places"]) == (20, 4) and "its place" in out
    assert len(figures["readers"]) == 5 and all(0.0 <= own["auc"] <= 1.0 for own in figures["readers"].values())
    low, high = figures["over_head"][long_memory._MEMORY][1:]
    assert low <= figures["over_head"][long_memory._MEMORY][0] <= high


def test_too_few_places_are_refused() -> None:
    with pytest.raises(DataError, match="fewer than three places"):
        long_memory._measure(
            long_memory.COMMAND.parser().parse_args(["--checkpoint", "checkpoints/nano-motion", "--rooms", "2"])
        )
