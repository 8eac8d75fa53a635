"""Filming: a plan in a scene, through a sensor -> a rendered clip.

joints (T * exposures, P, J, 3) -> Painter -> Electronics -> frames, silhouettes, key points, tags
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from familial.synth.actions.plan import Plan
from familial.synth.actor import Actor
from familial.synth.body import Body
from familial.synth.kinematics import perform
from familial.synth.moving_objects import MovingObject
from familial.synth.outfit import dress
from familial.synth.painter import Painter
from familial.synth.raycast import Still
from familial.synth.rendered_clip import SEEN, RenderedClip
from familial.synth.scene import Scene
from familial.synth.sensor import Electronics, Sensor
from familial.synth.skeleton import COCO, JOINT, JOINTS, Floats
from familial.synth.streams import Person, stream
from familial.synth.tags import Tag, read_tags, spans

__all__ = ["film", "joints_of", "key_points", "planned_tags", "shows_action"]


_PLANNED_TAGS = {"smoke": "smoking", "loiter": "loitering"}  # kind of action -> tag
_CORE = [JOINT[n] for n in ("head", "chest", "pelvis", "knee_l", "knee_r", "ankle_l", "ankle_r")]


def shows_action(scene: Scene, room_depth: NDArray[np.float32], plan: Plan) -> bool:
    """Whether the plan's leads are mostly in the picture, and not behind things or people, during the action."""
    if not plan.leads:
        return True
    shown = plan.annotations[0]
    times = np.linspace(shown.start_s, max(shown.end_s, shown.start_s + 1.0) + 0.5, 8)
    joints = np.stack([perform(a, times)[:, _CORE] for a in plan.actors], 1)  # (8, P, 7, 3)
    pixels, depth = scene.camera.project(joints)
    seen = scene.camera.sees(joints, room_depth)
    for other in range(plan.leads, len(plan.actors)):
        away = np.linalg.norm(pixels[:, : plan.leads, :, None] - pixels[:, other, None, None], axis=-1)
        wide = 0.16 * scene.camera.focal_length / np.maximum(depth[:, other], 0.3)[:, None, None]
        nearer = depth[:, other, None, None] < depth[:, : plan.leads, :, None]
        seen[:, : plan.leads] &= ~(nearer & (away < wide)).any(-1)
    return bool(seen[:, : plan.leads].mean() > 0.7)


def joints_of(actors: Sequence[Actor], moments: Floats) -> Floats:
    """Joints (S, P, J, 3) in metres of all actors at `moments` (S,) in seconds."""
    if not actors:
        return np.zeros((len(moments), 0, len(JOINTS), 3))
    return np.stack([perform(a, moments) for a in actors], 1)


def film(
    scene: Scene,
    still: Still,
    sensor: Sensor,
    plan: Plan,
    bodies: Sequence[Body],
    joints: Floats,
    times: Floats,
    rng: Generator,
    objects: Sequence[MovingObject] = (),
) -> RenderedClip:
    """Film people in a scene.

    Args:
        scene: Room, camera and light.
        still: The picture of the empty room.
        sensor: The camera's electronics.
        plan: What happens: what people do, not where they are.
        bodies: Who is there (P).
        joints: (T * exposures, P, J, 3) metres.
        times: (T,) seconds.
        rng: The electronics' random numbers.
        objects: What moves besides people.
    """
    painter = _painter(scene, still, sensor, plan, bodies, joints, objects)
    electronics = Electronics(sensor, scene.camera.size, scene.light.night, rng, painter.room)
    frames, silhouettes = _expose(painter, electronics, sensor, times)
    joints = joints[sensor.exposures - 1 :: sensor.exposures]
    points = key_points(scene, sensor, joints)
    areas = [np.count_nonzero(silhouettes == p + 1, axis=(1, 2)) for p in range(len(bodies))]
    shares = np.array(areas).reshape(len(bodies), len(times)).T / silhouettes[0].size
    seen = shares > SEEN
    tags = read_tags(joints, [b.height for b in bodies], seen, times) + planned_tags(plan, seen, times)
    if sensor.held_frames is not None:
        frames, silhouettes, points = (
            frames[sensor.held_frames],
            silhouettes[sensor.held_frames],
            points[sensor.held_frames],
        )
        seen = seen[sensor.held_frames]
    return RenderedClip(
        frames=frames,
        times_s=times,
        label=plan.annotations[0].label,
        caption=plan.caption,
        annotations=plan.annotations,
        lying_s=plan.lying_s,
        keypoints=_with_visibility(points, silhouettes),
        silhouettes=silhouettes,
        identities=np.array([b.seed for b in bodies], dtype=np.int64),
        count=seen.sum(1).astype(np.int64),
        tags=tags,
    )


def _painter(
    scene: Scene,
    still: Still,
    sensor: Sensor,
    plan: Plan,
    bodies: Sequence[Body],
    joints: Floats,
    objects: Sequence[MovingObject],
) -> Painter:
    tone = None
    if sensor.low_contrast:
        tone = scene.room.walls.mean(0) if bodies and bodies[0].seed % 2 else scene.room.floor[1]
    props = plan.props or ("",) * len(bodies)
    outfits = [dress(b, stream(b.seed, Person.CLOTHES), tone, prop) for b, prop in zip(bodies, props, strict=True)]
    return Painter(scene, still, joints, outfits, sensor, objects)


def _expose(
    painter: Painter, electronics: Electronics, sensor: Sensor, times: Floats
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Frames (T, H, W, 3) and silhouettes (T, H, W)."""
    h, w = painter.room.shape[:2]
    frames = np.zeros((len(times), h, w, 3), np.uint8)
    silhouettes = np.zeros((len(times), h, w), np.uint8)
    for t in range(len(times)):
        picture, silhouettes[t] = painter.moment(t * sensor.exposures)
        if sensor.exposures == 2:
            first = picture.copy()
            picture, silhouettes[t] = painter.moment(2 * t + 1)
            picture = cv2.addWeighted(first, 0.5, picture, 0.5, 0).astype(np.uint8)
        if sensor.shake is not None:
            move = sensor.move(t, (h, w))
            picture = cv2.warpAffine(picture, move, (w, h), borderMode=cv2.BORDER_REPLICATE).astype(np.uint8)
            silhouettes[t] = cv2.warpAffine(silhouettes[t], move, (w, h), flags=cv2.INTER_NEAREST)
        frames[t] = electronics.frame(picture, float(sensor.gains[t]), float(times[t]))
    if edge := round(sensor.side_bars * w):
        silhouettes[:, :, :edge] = silhouettes[:, :, w - edge :] = 0
    if edge := round(sensor.top_bars * h):
        silhouettes[:, :edge] = silhouettes[:, h - edge :] = 0
    return frames, silhouettes


def key_points(scene: Scene, sensor: Sensor, joints: Floats) -> Floats:
    """Pixels (T, P, 17, 2) of joints (T, P, J, 3), where an unsteady camera puts them."""
    points, _ = scene.camera.project(joints[:, :, list(COCO)])
    if sensor.shake is not None:
        moves = np.stack([sensor.move(t, scene.camera.size) for t in range(len(joints))])
        points = np.einsum("tij,tpkj->tpki", moves[..., :2], points) + moves[:, None, None, :, 2]
    return points


def planned_tags(plan: Plan, seen: NDArray[np.bool_], times: Floats) -> tuple[Tag, ...]:
    """Tags that no posture shows: what the plan's first person does, while seen (T, P)."""
    found = []
    for each in (a for a in plan.annotations if a.kind in _PLANNED_TAGS):
        during = (times >= each.start_s) & (times <= each.end_s) & seen[:, 0]
        found += [Tag(_PLANNED_TAGS[each.kind], 0, start, end) for start, end in spans(during, times)]
    return tuple(found)


def _with_visibility(points: Floats, silhouettes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Key points (T, P, 17, 3): a point is visible where its pixel shows its own person."""
    t, h, w = silhouettes.shape
    x, y = np.floor(points[..., 0]).astype(np.int64), np.floor(points[..., 1]).astype(np.int64)
    inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
    owner = silhouettes[np.arange(t)[:, None, None], np.clip(y, 0, h - 1), np.clip(x, 0, w - 1)]
    mine = owner == np.arange(1, points.shape[1] + 1)[:, None]
    return np.concatenate([points, (inside & mine)[..., None]], -1).astype(np.float32)
