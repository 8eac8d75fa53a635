"""What an action is: one decorated function for each kind of clip.

@action("wave", "normal", "a person waves", weight=0.4)
def wave(cast: Cast) -> Span: ...      writes the motion of the actors; returns when the action starts and ends
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from familial.synth.actions.cast import Cast
from familial.synth.body import AGES

__all__ = ["LABELS", "Action", "Span", "action"]

LABELS = ("normal", "fall", "fight")

Span = tuple[float, float]
"""Start and end of an action in seconds. For a fall: when balance is lost, and the impact."""

_CAPTION_WORDS = range(3, 13)


@dataclass(frozen=True, slots=True)
class Action:
    """One kind of clip.

    Attributes:
        name: The kind.
        label: One of LABELS.
        caption: What is to be seen, in 3 to 12 words.
        write: Writes the motion of the actors and returns when the action starts and ends.
        weight: How often this kind is drawn, against the others of its label; 0: it is shown by name alone.
        people: How many people it needs at least; 0 means that nobody may be there.
        prop: What the first person carries: "", "bag" or "box".
        who: The first person's age, one of `body.AGES`; "" is any.

    Raises:
        ValueError: The label, the caption, the weight, the age or the number of people is missing or out of range.
    """

    name: str
    label: str
    caption: str
    write: Callable[[Cast], Span]
    weight: float = 1.0
    people: int = 1
    prop: str = ""
    who: str = ""

    def __post_init__(self) -> None:
        if self.label not in LABELS:
            raise ValueError(f"action {self.name!r}: label is {self.label!r}; use one of {', '.join(LABELS)}")
        if len(self.caption.split()) not in _CAPTION_WORDS:
            raise ValueError(
                f"action {self.name!r}: caption is {self.caption!r}; say in 3 to 12 words what is to be seen"
            )
        if not self.weight >= 0:
            raise ValueError(f"action {self.name!r}: weight is {self.weight}; use more than 0, or 0 for by name alone")
        if self.people < 0:
            raise ValueError(f"action {self.name!r}: people is {self.people}; use 0 or more")
        if self.who not in ("", *AGES):
            raise ValueError(
                f"action {self.name!r}: who is {self.who!r}; use one of {', '.join(AGES)}, or leave it out"
            )


def action(
    name: str, label: str, caption: str, *, weight: float = 1.0, people: int = 1, prop: str = "", who: str = ""
) -> Callable[[Callable[[Cast], Span]], Action]:
    """Make an `Action` of the decorated function; the arguments are its attributes."""
    return lambda write: Action(name, label, caption, write, weight, people, prop, who)
