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


def work(kept: list[Node], looks: int) -> None:
    """Make so much that Python looks at what is new so often, and thinks that a look at everything is due."""
    for _ in range(looks * 700 * 11):
        kept.append(Node())


def test_python_does_not_look_at_everything_by_itself(generations: list[int]) -> None:
    kept: list[Node] = []
    with Garbage() as garbage:
        begun = len(generations)
        work(kept, 20)
        garbage.look()
        assert {*generations[begun:]} == {0, 1}  # nothing is due yet
        work(kept, 40)
        garbage.look()
        assert generations[begun:].count(2) == 1
        garbage.look()
        assert generations[begun:].count(2) == 1


def test_a_look_finds_what_is_gone_and_not_what_was_there_before() -> None:
    before = Node()
    frozen = weakref.ref(before)
    with Garbage() as garbage:
        del before
        later = Node()
        gone = weakref.ref(later)
        del later
        work([], 60)
        garbage.look()
        assert gone() is None and frozen() is not None
        garbage.renew()
        assert frozen() is None


def test_afterwards_python_decides_again() -> None:
    thresholds = gc.get_threshold()
    with pytest.raises(ValueError, match="out"), Garbage():
        assert gc.get_freeze_count() > 0 and gc.get_threshold()[2] > 1e6
        raise ValueError("out")
    assert gc.get_threshold() == thresholds and gc.get_freeze_count() == 0
