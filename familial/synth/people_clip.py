"""The people of a rendered clip without its picture: the same setting, plan and joints as `render_clip`, not painted.

    seed -> setting, plan -> joints -> places in the picture, who hides what -> PeopleClip

Thousands of clips take minutes. What hides a key point is found with the room's depth, and with limbs as capsules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from familial.synth.actions.plan import Plan
from familial.synth.aids import aid_objects
from familial.synth.body import Body, radii
from familial.synth.clip import plan_clip
from familial.synth.cover import depth_before
from familial.synth.exact_people import ABSENT, HIDDEN, SEEN, TURNED, ExactPeople
from familial.synth.film import joints_of, key_points, planned_tags
from familial.synth.raycast import still_depth
from familial.synth.rendered_clip import SEEN as SEEN_SHARE
from familial.synth.rendered_clip import RenderedClip
from familial.synth.scene import Scene
from familial.synth.sensor import Sensor
from familial.synth.setting import FPS, Setting, draw_setting
from familial.synth.skeleton import COCO, JOINT, Floats
from familial.synth.streams import Stream, stream
from familial.synth.tags import read_tags
from wire.people.packed import UNIT

__all__ = ["PeopleClip", "people_clip"]

_BONES = tuple(  # ends, and the flesh about them in shares of the height
    (JOINT[a], JOINT[b], r)
    for a, b, r in (
        ("neck", "pelvis", 0.075),
        ("head", "crown", 0.055),
        ("shoulder_l", "elbow_l", 0.03),
        ("shoulder_r", "elbow_r", 0.03),
        ("elbow_l", "hand_l", 0.022),
        ("elbow_r", "hand_r", 0.022),
        ("hip_l", "knee_l", 0.042),
        ("hip_r", "knee_r", 0.042),
        ("knee_l", "ankle_l", 0.03),
        ("knee_r", "ankle_r", 0.03),
    )
)
_ENDS = np.array([bone[:2] for bone in _BONES])
_FLESH = np.array([bone[2] for bone in _BONES])
_BEHIND = 0.05  # metres by which what is hidden lies farther
_SMALL = 2  # silhouettes are painted at 1 / _SMALL of the picture's sides
_FACING = np.array([-0.1, 0.0, 0.0, -0.4, -0.4])  # cosine to the camera from which nose, eyes, ears are seen
_LIMIT = 7.9 * UNIT


@dataclass(frozen=True, slots=True)
class PeopleClip:
    """A clip of which only the people are known.

    Attributes:
        clip: As `render_clip` gives it, but with no frames, (0, H, W, 3), and with silhouettes that are coarse and
            smaller.
        people: Where they are, exactly.
    """

    clip: RenderedClip
    people: ExactPeople


@dataclass(frozen=True, slots=True)
class _View:
    """All joints in the picture of a camera that does not shake: pixels (T, P, J, 2), depth (T, P, J) metres."""

    pixels: Floats
    depth: Floats


def people_clip(
    seed: int,
    kind: str | None = None,
    *,
    size: tuple[int, int] = (120, 160),
    fps: float = FPS,
    seconds: float | None = None,
    cast: Sequence[int] = (),
) -> PeopleClip:
    """The people of `render_clip(seed, ...)`: same arguments, same errors, same geometry."""
    setting = draw_setting(seed, size, fps, seconds)
    scene, sensor, times = setting.scene, setting.sensor, setting.times_s
    room_depth = still_depth(scene)
    plan, bodies = plan_clip(seed, kind, setting, room_depth, cast)
    moments = sensor.moments(times)[sensor.exposures - 1 :: sensor.exposures]
    joints = joints_of(plan.actors, moments)
    before = depth_before(scene.camera, aid_objects(stream(seed, Stream.AIDS), plan.aids, moments), len(times))
    view = _View(*scene.camera.project(joints))
    points = key_points(scene, sensor, joints)
    visible = _visible(scene, joints, view, bodies, room_depth)
    if before is not None:
        _hide_behind(before, view, bodies, visible)
    painted = _silhouettes(scene, sensor, view, bodies, room_depth, before)
    exact = _exact(setting, points, visible, view, bodies)
    return PeopleClip(_described(setting, plan, bodies, joints, points, exact, painted), exact)


def _exact(
    setting: Setting, points: Floats, visible: NDArray[np.uint8], view: _View, bodies: Sequence[Body]
) -> ExactPeople:
    """Pixels -> units of the larger side."""
    scene, sensor = setting.scene, setting.sensor
    (h, w), step = scene.camera.size, UNIT / max(scene.camera.size)
    heights = np.array([b.height for b in bodies])
    length = heights * scene.camera.focal_length / np.maximum(view.depth[..., JOINT["pelvis"]], 0.25) * step
    held = np.arange(len(points)) if sensor.held_frames is None else sensor.held_frames
    side, top = round(sensor.side_bars * w) * step, round(sensor.top_bars * h) * step
    return ExactPeople(
        points=np.clip(np.rint(points[..., ::-1] * step), -_LIMIT, _LIMIT).astype(np.int16),
        visible=visible,
        length=np.clip(length, 1, _LIMIT).astype(np.int16),
        times_s=setting.times_s,
        shown=held.astype(np.int64),
        sides=(round(h * step), round(w * step)),
        window=(round(top), round(side), round(h * step - top), round(w * step - side)),
        night=scene.light.night,
    )


def _described(
    setting: Setting,
    plan: Plan,
    bodies: Sequence[Body],
    joints: Floats,
    points: Floats,
    exact: ExactPeople,
    painted: NDArray[np.uint8],
) -> RenderedClip:
    """What is known of the clip, as `film` says it."""
    times, (h, w), held = setting.times_s, setting.scene.camera.size, exact.shown
    areas = [np.count_nonzero(painted == p + 1, axis=(1, 2)) for p in range(len(bodies))]
    seen = np.array(areas).reshape(len(bodies), len(times)).T / painted[0].size > SEEN_SHARE
    tags = read_tags(joints, [b.height for b in bodies], seen, times) + planned_tags(plan, seen, times)
    top, left, bottom, right = (edge * max(h, w) / UNIT for edge in exact.window)
    x, y = points[..., 0], points[..., 1]
    shown = (x >= left) & (x < right) & (y >= top) & (y < bottom) & (exact.visible >= TURNED)
    return RenderedClip(
        frames=np.zeros((0, h, w, 3), np.uint8),
        times_s=times,
        label=plan.annotations[0].label,
        caption=plan.caption,
        annotations=plan.annotations,
        lying_s=plan.lying_s,
        keypoints=np.concatenate([points, shown[..., None]], -1).astype(np.float32)[held],
        silhouettes=painted[held],
        identities=np.array([b.seed for b in bodies], dtype=np.int64),
        count=seen[held].sum(1).astype(np.int64),
        tags=tags,
    )


def _visible(
    scene: Scene, joints: Floats, view: _View, bodies: Sequence[Body], room_depth: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """ABSENT, HIDDEN, TURNED or SEEN for the key points (T, P, 17)."""
    coco = list(COCO)
    pixels, depth = view.pixels[:, :, coco], view.depth[:, :, coco]
    flesh = np.stack([radii(b)[coco] for b in bodies]) if bodies else np.zeros((0, 17))
    (h, w), near = scene.camera.size, depth - flesh
    column, row = np.clip(pixels[..., 0], 0, w - 1).astype(np.int64), np.clip(pixels[..., 1], 0, h - 1).astype(np.int64)
    found = np.full(depth.shape, SEEN, np.uint8)
    found[_turned(scene, joints)] = TURNED
    for person in range(len(bodies)):
        own = _covered(scene, view, person, bodies[person], pixels[:, person], depth[:, person] - 0.1, _OTHERS)
        found[:, person][own] = TURNED
    hidden = near > room_depth[row, column] + 0.1
    for person, other in _meeting(pixels):
        covered = _covered(scene, view, other, bodies[other], pixels[:, person], near[:, person], None)
        hidden[:, person] |= covered
    found[hidden] = HIDDEN
    found[near < 0.25] = ABSENT
    return found


def _hide_behind(before: NDArray[np.float32], view: _View, bodies: Sequence[Body], visible: NDArray[np.uint8]) -> None:
    """Set to HIDDEN in place those key points (T, P, 17) that wheelchairs and walking frames are `before`."""
    coco, (_, h, w) = list(COCO), before.shape
    pixels, near = view.pixels[:, :, coco], view.depth[:, :, coco] - np.stack([radii(b)[coco] for b in bodies])
    column, row = np.clip(pixels[..., 0], 0, w - 1).astype(np.int64), np.clip(pixels[..., 1], 0, h - 1).astype(np.int64)
    covered = before[np.arange(len(before))[:, None, None], row, column] < near
    visible[covered & (visible > ABSENT)] = HIDDEN


def _adjacent() -> NDArray[np.bool_]:
    """(17, B) whether a bone may hide a key point of the same body: it neither ends there nor is of the same limb."""
    apart = np.ones((len(COCO), len(_BONES)), bool)
    for point, joint in enumerate(COCO):
        for index, (start, end, _) in enumerate(_BONES):
            apart[point, index] = joint not in (start, end) and joint > JOINT["tail"]
    apart[:5] = False  # the face: by where it looks
    apart[5:11, 2:6] = False  # arms hide no arms
    apart[11:13, 6:] = False  # nor legs hips
    return apart


_OTHERS = _adjacent()


def _turned(scene: Scene, joints: Floats) -> NDArray[np.bool_]:
    """Key points of the face (T, P, 17) that look away from the camera."""
    head = joints[:, :, JOINT["head"]]
    way = joints[:, :, list(COCO[:5])] - head[:, :, None]
    way = way / np.maximum(np.linalg.norm(way, axis=-1, keepdims=True), 1e-6)
    back = scene.camera.position - head
    back = back / np.maximum(np.linalg.norm(back, axis=-1, keepdims=True), 1e-6)
    away = np.zeros((*joints.shape[:2], len(COCO)), bool)
    away[..., :5] = (way * back[:, :, None]).sum(-1) < _FACING
    return away


def _meeting(pixels: Floats) -> list[tuple[int, int]]:
    """Pairs (who may be hidden, by whom) of people whose key points (T, P, 17, 2) overlap at some time."""
    low, high = pixels.min(2), pixels.max(2)
    grow = 0.3 * (high - low) + 1.0
    low, high = low - grow, high + grow
    meet = ((low[:, :, None] < high[:, None]) & (high[:, :, None] > low[:, None])).all(-1).any(0)
    np.fill_diagonal(meet, False)
    return [(int(a), int(b)) for a, b in zip(*np.nonzero(meet), strict=True)]


def _covered(
    scene: Scene,
    view: _View,
    person: int,
    body: Body,
    pixels: Floats,
    near: Floats,
    allowed: NDArray[np.bool_] | None,
) -> NDArray[np.bool_]:
    """Whether points (T, 17, 2) that are `near` (T, 17) metres away lie behind a bone of `person`."""
    start, end = view.pixels[:, person, _ENDS[:, 0]], view.pixels[:, person, _ENDS[:, 1]]  # (T, B, 2)
    far = view.depth[:, person, _ENDS]  # (T, B, 2)
    along = end - start
    square = np.maximum((along**2).sum(-1), 1e-6)
    away = pixels[:, :, None] - start[:, None]  # (T, 17, B, 2)
    part = np.clip((away * along[:, None]).sum(-1) / square[:, None], 0, 1)
    gap = away - part[..., None] * along[:, None]
    depth = far[:, None, :, 0] * (1 - part) + far[:, None, :, 1] * part
    wide = _FLESH * body.height * scene.camera.focal_length / np.maximum(depth, 0.25)
    covers = ((gap**2).sum(-1) < wide**2) & (depth + _BEHIND < near[..., None]) & (depth > 0.25)
    if allowed is not None:
        covers &= allowed
    return np.asarray(covers.any(-1))


def _silhouettes(
    scene: Scene,
    sensor: Sensor,
    view: _View,
    bodies: Sequence[Body],
    room_depth: NDArray[np.float32],
    before: NDArray[np.float32] | None,
) -> NDArray[np.uint8]:
    """Coarse silhouettes (T, H / _SMALL, W / _SMALL): limbs as thick lines, far people first."""
    h, w = scene.camera.size
    shape = (h // _SMALL, w // _SMALL)
    room = room_depth[::_SMALL, ::_SMALL][: shape[0], : shape[1]] + 0.1
    painted = np.zeros((len(view.depth), *shape), np.uint8)
    middle = view.depth[..., JOINT["pelvis"]]
    ends = np.clip(view.pixels[:, :, _ENDS] / _SMALL, -500, 500).astype(np.int32)  # (T, P, B, 2, 2)
    scale = np.array([b.height for b in bodies]) * scene.camera.focal_length / np.maximum(middle, 0.25) / _SMALL
    wide = np.clip(np.rint(2 * scale[..., None] * _FLESH), 1, 60).astype(int)
    for t, plane in enumerate(painted):
        for person in np.argsort(-middle[t]):
            if middle[t, person] < 0.25:
                continue
            mask = np.zeros(shape, np.uint8)
            for (start, end), thick in zip(ends[t, person].tolist(), wide[t, person].tolist(), strict=True):
                cv2.line(mask, start, end, 1, thick)
            if before is not None:
                mask[before[t, ::_SMALL, ::_SMALL][: shape[0], : shape[1]] < middle[t, person]] = 0
            plane[(mask > 0) & (room > middle[t, person])] = person + 1
        if sensor.shake is not None:
            move = sensor.move(t, (h, w))
            move[:, 2] /= _SMALL
            plane[:] = cv2.warpAffine(plane, move, shape[::-1], flags=cv2.INTER_NEAREST)
    if edge := round(sensor.side_bars * shape[1]):
        painted[:, :, :edge] = painted[:, :, shape[1] - edge :] = 0
    if edge := round(sensor.top_bars * shape[0]):
        painted[:, :edge] = painted[:, shape[0] - edge :] = 0
    return painted
