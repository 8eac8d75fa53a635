"""One rendered scene, filmed by two cameras: what `benchmarks.scenes` measures on.

    seed --draw_setting, plan_clip--> what happens, in view of camera A --film--> clip A
        `--a second camera in the same room, that sees some of the same floor --> clip B: it may see all, or nothing

The plan is made for camera A, so the fall is in its view; from B it may be out of view, or behind furniture or people.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.random import Generator

from familial.synth.camera import Camera, draw_camera
from familial.synth.clip import plan_clip
from familial.synth.film import film, joints_of
from familial.synth.moving_objects import draw_objects, fallen
from familial.synth.raycast import render_still
from familial.synth.rendered_clip import RenderedClip
from familial.synth.scene import Scene
from familial.synth.sensor import draw_sensor
from familial.synth.setting import draw_setting
from familial.synth.streams import Stream, stream

__all__ = ["FPS", "SECONDS", "render_views", "seen_share"]

FPS, SECONDS = 12.0, 12.0
_SIZE = (120, 160)
_FLOOR = 0.25  # of the places to act that camera B must have in its picture
_TRIES = 200


def render_views(seed: int, kind: str) -> tuple[RenderedClip, RenderedClip]:
    """What happens in the clip of `seed`, as both cameras film it; the same arguments give the same bytes."""
    setting = draw_setting(seed, _SIZE, FPS, SECONDS)
    rng, still = np.random.default_rng([seed, 2]), render_still(setting.scene)
    plan, bodies = plan_clip(seed, kind, setting, still.depth)
    other = replace(setting.scene, camera=_second_camera(rng, setting.scene))
    sensor = draw_sensor(rng, setting.times_s, setting.scene.light.night)
    found = list[RenderedClip]()
    for scene, eye, room in ((setting.scene, setting.sensor, still), (other, sensor, render_still(other))):
        moments = eye.moments(setting.times_s)
        objects = draw_objects(stream(seed, Stream.OBJECTS), setting.scene, moments)
        objects += fallen(stream(seed, Stream.THINGS), plan.things, moments)
        joints, electronics = joints_of(plan.actors, moments), stream(seed, Stream.ELECTRONICS)
        found.append(film(scene, room, eye, plan, bodies, joints, setting.times_s, electronics, objects))
    return found[0], found[1]


def _second_camera(rng: Generator, scene: Scene) -> Camera:
    """Another camera of the room; the one of `_TRIES` that has most of the floor, where none has enough."""
    floor = np.column_stack([scene.stage.spots, np.full(len(scene.stage.spots), 0.8)])
    best, most = scene.camera, -1.0
    for _ in range(_TRIES):
        camera = draw_camera(rng, scene.room, _SIZE)
        pixels, depth = camera.project(floor)
        inside = (depth > 1.0) & ((pixels > 2) & (pixels < (_SIZE[1] - 2, _SIZE[0] - 2))).all(-1)
        if inside.mean() > most:
            best, most = camera, float(inside.mean())
        if most >= _FLOOR:
            break
    return best


def seen_share(clip: RenderedClip) -> float:
    """How much of the first person's body is seen from the loss of balance until 1.5 s after the impact, 0 to 1."""
    what = clip.annotations[0]
    during = (clip.times_s >= what.start_s) & (clip.times_s <= what.end_s + 1.5)
    return float(clip.keypoints[during, 0, :, 2].mean()) if clip.keypoints.shape[1] and during.any() else 0.0
