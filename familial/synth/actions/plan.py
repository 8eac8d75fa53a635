"""A plan: who does what when in one clip.

    make_plan(kind, bodies, stage, rng, seconds) -> Plan: actors whose motion is written, annotations, caption

Every plan opens with ordinary life (walking, standing, sitting, bending), and its action comes at a time spread evenly
over the clip, so neither the opening nor speed alone reveals the label. Rooms, cameras and light are drawn elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from numpy.random import Generator

from familial.synth.actions.cast import Cast
from familial.synth.actions.catalogue import action_of
from familial.synth.actions.shared import ordinary_life
from familial.synth.actor import Actor
from familial.synth.aids import Aid
from familial.synth.body import Body
from familial.synth.moving_objects import Thing
from familial.synth.rendered_clip import Annotation
from familial.synth.stage import Stage
from familial.synth.streams import Person, stream

__all__ = ["Plan", "make_plan"]

_BAG_SHARE = 0.12  # of people who carry a bag


@dataclass(frozen=True, slots=True)
class Plan:
    """What one clip is to show.

    Attributes:
        actors: Those whose motion is written.
        annotations: What happens when.
        lying_s: Spans in which somebody lies on the floor after a fall, in seconds.
        caption: One sentence.
        leads: The first so many actors are those whom the action is about.
        props: What each actor carries: "", "bag" or "box"; empty means nothing.
        things: What is let fall.
        aids: Wheelchairs and walking frames.
    """

    actors: tuple[Actor, ...]
    annotations: tuple[Annotation, ...]
    lying_s: tuple[tuple[float, float], ...]
    caption: str
    leads: int
    props: tuple[str, ...] = ()
    things: tuple[Thing, ...] = ()
    aids: tuple[Aid, ...] = ()


def make_plan(kind: str, bodies: list[Body], stage: Stage, rng: Generator, seconds: float) -> Plan:
    """Write the motion of `bodies` for a clip of `kind` that lasts `seconds`.

    Raises:
        ValueError: The kind is unknown.
    """
    action = action_of(kind)
    cast = Cast(bodies if action.people else [], stage, rng, seconds)
    start, end = action.write(cast)
    for actor in cast.actors:
        ordinary_life(cast, actor, seconds + 0.5)
    props = [_carried(actor.body) for actor in cast.actors]
    if cast.aids:
        props[: max(1, action.people)] = [""] * max(1, action.people)  # their hands are full
    if action.prop:
        props[0] = action.prop
    return Plan(
        tuple(cast.actors),
        (Annotation(action.label, kind, min(start, seconds), min(end, seconds)),),
        tuple(cast.lying),
        action.caption,
        min(2, action.people),
        tuple(props),
        tuple(cast.things),
        tuple(cast.aids),
    )


def _carried(body: Body) -> str:
    return "bag" if stream(body.seed, Person.BAG).random() < _BAG_SHARE else ""
