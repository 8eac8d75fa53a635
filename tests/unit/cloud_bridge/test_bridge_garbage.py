"""When the bridge looks for garbage."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from cloud_bridge.garbage import Garbage


class Node:
    """Something in a cycle."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def generations() -> Iterator[list[int]]:
    """The generation of each collection that began meanwhile."""
    found: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            found.append(info["generation"])

    gc.callbacks.append(note)
    yield found
    gc.callbacks.remove(note)


def work(kept: list[Node], count: int) -> None:
    for _ in range(count):
        kept.append(Node())


def test_python_does_not_look_by_itself(generations: list[int]) -> None:
    kept: list[Node] = []
    with Garbage():
        begun = len(generations)
        work(kept, 500_000)
        assert generations[begun:] == []


def test_what_is_new_is_looked_at_often_and_everything_seldom(generations: list[int]) -> None:
    """As often as by Python itself, and everything a fifth as often."""
    kept: list[Node] = []
    with Garbage() as garbage:
        begun = len(generations)
        garbage.look()
        assert generations[begun:] == []  # nothing is new
        for _ in range(800):
            work(kept, 700)
            garbage.look()
        counts = [generations[begun:].count(generation) for generation in range(3)]
    assert counts[2] in (1, 2) and 65 <= counts[1] <= 80 and sum(counts) == 800


def test_what_a_large_batch_leaves_is_looked_at_once(generations: list[int]) -> None:
    kept: list[Node] = []
    with Garbage() as garbage:
        begun = len(generations)
        for _ in range(3):
            work(kept, 200_000)
            garbage.look()
        assert generations[begun:] == [1, 2, 1]


def test_a_look_finds_what_is_gone_and_not_what_was_there_before() -> None:
    before = Node()
    frozen = weakref.ref(before)
    with Garbage() as garbage:
        del before
        later = Node()
        gone = weakref.ref(later)
        del later
        work([], 400_000)
        garbage.look()
        assert gone() is None and frozen() is not None
        garbage.renew()
        assert frozen() is None


def test_afterwards_python_decides_again() -> None:
    assert gc.isenabled()
    with pytest.raises(ValueError, match="out"), Garbage():
        assert gc.get_freeze_count() > 0 and not gc.isenabled()
        raise ValueError("out")
    assert gc.isenabled() and gc.get_freeze_count() == 0
