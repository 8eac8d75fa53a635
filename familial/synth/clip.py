"""Rendered clips: bodies in rooms -> frames, with exact labels, key points and silhouettes.

    seed -> setting: scene, sensor, length, people   (each from a stream of its own; none depends on the label)
         -> plan of what happens                     -> joints -> film

`render_clip(seed)` is the whole of it. The setting does not know the label, so the same seed with another kind shows
the same room. The one exception is what a kind needs to make sense: a fight, or a handshake, brings in a second person
where the seed has one, and an empty room shows nobody.

    python -m familial.synth.clip --out DIR --clips N     mp4 files and manifest.csv; --truth: what is known, as .npz
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from familial.synth.actions.base import LABELS
from familial.synth.actions.catalogue import KINDS, SHARES, action_of, draw_kind, people_needed
from familial.synth.actions.plan import Plan, make_plan
from familial.synth.actor import Actor
from familial.synth.aids import aid_objects
from familial.synth.body import Body, body_of, with_first
from familial.synth.command import folder_parser, frame_size, write_folder
from familial.synth.disk import Row, save_truth, save_video
from familial.synth.film import film, joints_of, shows_action
from familial.synth.moving_objects import draw_objects, fallen
from familial.synth.raycast import render_still
from familial.synth.rendered_clip import Annotation, RenderedClip
from familial.synth.scene import plain_scene
from familial.synth.sensor import CLEAR
from familial.synth.setting import FPS, Setting, draw_setting
from familial.synth.streams import Stream, stream
from wire.errors import DataError

__all__ = ["KINDS", "RenderedClip", "body_of", "clip_label", "demo_clip", "main", "plan_clip", "render_clip"]

_ATTEMPTS = 6  # plans that are tried until the action is seen


def clip_label(seed: int) -> str:
    """The label that `render_clip(seed)` draws, with the shares of SHARES."""
    return str(stream(seed, Stream.LABEL).choice(LABELS, p=SHARES))


def render_clip(
    seed: int,
    kind: str | None = None,
    *,
    size: tuple[int, int] = (120, 160),
    fps: float = FPS,
    seconds: float | None = None,
    cast: Sequence[int] = (),
) -> RenderedClip:
    """The clip of `seed`: the same arguments give the same bytes.

    Args:
        seed: Of everything that is drawn.
        kind: A key of KINDS, a label (a kind of it is drawn), or None (the label is drawn too, by SHARES).
        size: (H, W) pixels.
        fps: Frames a second.
        seconds: The length; 10 to 16, drawn without regard to the label, where None.
        cast: Who is there, by the seeds of their builds and clothes (`RenderedClip.identities`); drawn where empty.

    Raises:
        ValueError: The kind is unknown, or `cast` has fewer people than it needs.
    """
    setting = draw_setting(seed, size, fps, seconds)
    scene, sensor, times, still = setting.scene, setting.sensor, setting.times_s, render_still(setting.scene)
    plan, bodies = plan_clip(seed, kind, setting, still.depth, cast)
    moments = sensor.moments(times)
    objects = draw_objects(stream(seed, Stream.OBJECTS), scene, moments)
    objects += fallen(stream(seed, Stream.THINGS), plan.things, moments)
    objects += aid_objects(stream(seed, Stream.AIDS), plan.aids, moments)
    joints = joints_of(plan.actors, moments)
    return film(scene, still, sensor, plan, bodies, joints, times, stream(seed, Stream.ELECTRONICS), objects)


def plan_clip(
    seed: int, kind: str | None, setting: Setting, room_depth: NDArray[np.float32], cast: Sequence[int] = ()
) -> tuple[Plan, list[Body]]:
    """What happens in the clip of `seed`, and who is there.

    Args:
        seed: As in `render_clip`.
        kind: The same.
        setting: What the seed gives whatever happens.
        room_depth: (H, W) metres to the empty room.
        cast: As in `render_clip`.

    Raises:
        ValueError: As in `render_clip`.
    """
    if kind is not None and kind not in KINDS and kind not in LABELS:
        raise ValueError(f"kind is {kind!r}: use one of {', '.join((*LABELS, *KINDS))}, or None")
    label = clip_label(seed) if kind is None else KINDS.get(kind, kind)
    kind = kind if kind in KINDS else draw_kind(stream(seed, Stream.KIND), label)
    times, need = setting.times_s, people_needed(kind)
    there = setting.identities[: max(need, setting.count) if need else 0]
    identities = list(cast) or with_first(action_of(kind).who, there)
    if len(identities) < need:
        raise ValueError(f"cast has {len(identities)} people: {kind} needs {need}")
    bodies = [body_of(identity) for identity in identities]
    seconds = float(times[-1] + times[1])
    for attempt in range(_ATTEMPTS):
        plan = make_plan(kind, bodies, setting.scene.stage, stream(seed, Stream.PLAN + attempt), seconds)
        if shows_action(setting.scene, room_depth, plan):
            break
    return plan, bodies


def demo_clip(
    size: tuple[int, int] = (240, 320), fps: float = 15.0, *, onset_s: float = 7.02, seconds: float = 15.0
) -> RenderedClip:
    """One person walks in and about, falls with onset at `onset_s` and lies still to the end; the same every time.

    The onset is just after a tick of the clock: four releases end within four seconds of it. It comes in the eighth
    slot, so the first whole event, the first that is read, already holds it.
    """
    scene = plain_scene(size)
    times = np.arange(round(seconds * fps)) / fps
    identity = 31
    body = replace(body_of(identity), height=1.76, mass=1.0, limb=1.0, stoop=2.0, pace=1.1)
    actor = Actor(body, stream(identity, Stream.PEOPLE), (0.35, 2.3), 20.0)
    actor.hold(0.6)
    actor.walk(np.array([3.28, 2.62]), until=onset_s)
    actor.walk(np.array([4.02, 3.02]), until=onset_s)
    actor.hold(min(0.4, max(0.0, onset_s - actor.now)))
    actor.walk(np.array([3.03, 3.40]), until=onset_s, stop=False)
    actor.hold_until(onset_s)
    start, impact = actor.fall(-15.0, momentum=0.61)
    actor.lie(seconds + 0.5 - actor.now, still=1.0)
    plan = Plan(
        (actor,),
        (Annotation("fall", "fall_forward", start, impact),),
        ((impact, seconds),),
        "a person walks in, falls forward and lies on the floor",
        1,
    )
    sensor = replace(CLEAR, gains=np.ones(len(times)))
    joints = joints_of(plan.actors, sensor.moments(times))
    return film(scene, render_still(scene), sensor, plan, [body], joints, times, stream(identity, Stream.ELECTRONICS))


def _write_clip(seed: int, folder: Path, size: tuple[int, int], truth: bool) -> Row:
    """Render the clip of `seed` into `folder` unless it is there; returns its manifest row."""
    label = clip_label(seed)
    path = folder / f"{label}_{seed:08d}.mp4"
    known = path.with_suffix(".npz")
    if not path.exists() or (truth and not known.exists()):
        clip = render_clip(seed, size=size)
        if truth:
            save_truth(known, clip)
        save_video(path, clip.frames, FPS)
    return {"file": path.name, "label": label, "set": "rendered", "group": f"seed{seed}", "note": ""}


def main(argv: list[str] | None = None) -> int:
    """Write clips with a manifest."""
    parser = folder_parser("familial.synth.clip", __doc__.split("\n")[0], clips=300)
    parser.add_argument("--truth", action="store_true", help="also write silhouettes, key points, tags, ... as .npz")
    args = parser.parse_args(argv)
    make = functools.partial(_write_clip, folder=args.out, size=frame_size(args.size), truth=args.truth)
    try:
        write_folder(make, range(args.seed, args.seed + args.clips), args)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
