"""The catalogue of actions: complete, drawn as weighted, and helpful where an entry is missing or wrong."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from familial.synth import actions
from familial.synth.actions.base import LABELS, Action, action
from familial.synth.actions.cast import Cast
from familial.synth.actions.catalogue import (
    ACTIONS,
    AIDED,
    AIDED_TO_TRAIN,
    BY_NAME_ALONE,
    CAPTIONS,
    ENCOUNTERS,
    KINDS,
    SHARES,
    action_of,
    collect,
    draw_among,
    draw_kind,
)
from familial.synth.actions.plan import make_plan
from familial.synth.scene import plain_scene


def made(**changes: Any) -> Action:
    arguments = {"name": "juggle", "label": "normal", "caption": "a person juggles three balls"} | changes
    return action(**arguments)(lambda cast: (0.0, cast.seconds))


def test_every_label_has_kinds_and_a_share() -> None:
    assert sum(SHARES) == pytest.approx(1.0)
    assert len(SHARES) == len(LABELS)
    assert set(KINDS.values()) == set(LABELS)


@pytest.mark.parametrize("label", LABELS)
def test_every_kind_is_drawn_as_often_as_its_weight_says(label: str) -> None:
    rng = np.random.default_rng(5)
    drawn = [draw_kind(rng, label) for _ in range(6000)]
    kinds = [name for name, known in KINDS.items() if known == label]
    total = sum(ACTIONS[name].weight for name in kinds)
    for name in kinds:
        share, expected = drawn.count(name) / len(drawn), ACTIONS[name].weight / total
        assert abs(share - expected) < 0.25 * expected + 0.004, f"action {name!r} is drawn in {share:.2%} of clips"


def test_what_is_shown_by_name_alone_is_never_drawn_and_comes_last() -> None:
    assert tuple(ACTIONS)[-len(BY_NAME_ALONE) :] == BY_NAME_ALONE
    for label in LABELS:
        rng = np.random.default_rng(3)
        assert not {draw_kind(rng, label) for _ in range(2000)} & set(BY_NAME_ALONE)


@pytest.mark.parametrize("name", [each.name for each in pkgutil.iter_modules(actions.__path__)])
def test_every_action_of_a_file_is_in_the_catalogue(name: str) -> None:
    module = importlib.import_module(f"familial.synth.actions.{name}")
    missing = [each for each in collect([module]) if each not in ACTIONS]
    assert not missing, f"add {name} to _SUBJECTS in familial/synth/actions/catalogue.py: it defines {missing}"


def test_captions_use_a_small_vocabulary() -> None:
    assert len({word for caption in CAPTIONS.values() for word in caption.split()}) <= 120


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": ""}, "action 'juggle': label is ''; use one of normal, fall, fight"),
        ({"label": "theft"}, "label is 'theft'; use one of"),
        ({"caption": ""}, "action 'juggle': caption is ''; say in 3 to 12 words"),
        ({"caption": " ".join(["word"] * 13)}, "say in 3 to 12 words"),
        ({"weight": -1.0}, "action 'juggle': weight is -1.0; use more than 0, or 0 for by name alone"),
        ({"people": -1}, "people is -1; use 0 or more"),
    ],
)
def test_an_incomplete_action_names_itself_and_the_cure(changes: dict[str, Any], message: str) -> None:
    assert made().caption
    with pytest.raises(ValueError, match=message):
        made(**changes)


def test_two_actions_of_one_name_are_refused() -> None:
    one, two = ModuleType("one"), ModuleType("two")
    vars(one)["juggle"], vars(two)["juggle"] = made(), made(caption="a person juggles with knives")
    assert list(collect([one, one])) == ["juggle"]
    with pytest.raises(ValueError, match="two: there are two actions 'juggle'"):
        collect([one, two])


def test_an_unknown_kind_is_refused_with_the_list() -> None:
    with pytest.raises(ValueError, match="kind is 'brawl': use one of walk, stand, .*, fight_group"):
        action_of("brawl")
    scene = plain_scene((24, 32))
    with pytest.raises(ValueError, match="'brawl'"):
        make_plan("brawl", [], scene.stage, np.random.default_rng(0), 10.0)


def test_nobody_is_planned_for_an_empty_room() -> None:
    plan = make_plan("empty", [], plain_scene((24, 32)).stage, np.random.default_rng(0), 4.0)
    assert (plan.actors, plan.props, plan.leads) == ((), (), 0)
    assert (plan.annotations[0].start_s, plan.annotations[0].end_s) == (0.0, 4.0)


def test_points_out_of_view_are_moved_into_view() -> None:
    scene = plain_scene((24, 32))
    cast = Cast([], scene.stage, np.random.default_rng(0), 10.0)
    far = cast.in_view(np.array([50.0, 50.0]))
    assert scene.stage.near(far) == pytest.approx(0.35)
    assert np.array_equal(cast.in_view(scene.stage.spots[0]), scene.stage.spots[0])


def test_of_kinds_that_are_asked_for_labels_are_alike() -> None:
    """However many kinds each has: five ways to strike, thirteen to greet."""
    rng = np.random.default_rng(0)
    for kinds, label in ((ENCOUNTERS, "fight"), (AIDED, "fall"), (AIDED_TO_TRAIN, "fall")):
        drawn = [draw_among(rng, kinds) for _ in range(600)]
        assert set(drawn) == set(kinds)
        assert 0.42 < np.mean([KINDS[kind] == label for kind in drawn]) < 0.58
    assert all(ACTIONS[kind].people >= 2 for kind in ENCOUNTERS)
    assert set(AIDED) == set(BY_NAME_ALONE)
