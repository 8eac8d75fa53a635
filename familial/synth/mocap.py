"""Captured motion, as an option beside the renderer's own: DeepMimic's clips -> frames, label normal.

    seed + Motion -> the seed's room, camera, light, sensor, person -> render_motion() -> RenderedClip

Usage: python -m familial.synth.mocap --archive FILE.tar.xz --out DIR --clips N     mp4 files and manifest.csv
"""

from __future__ import annotations

import functools
import math
import sys
from pathlib import Path

import numpy as np
from numpy.random import Generator

from familial.synth.actions.catalogue import CAPTIONS
from familial.synth.actions.plan import Plan
from familial.synth.body import body_of
from familial.synth.capture import Motion, pose
from familial.synth.capture_archive import read_archive
from familial.synth.command import folder_parser, frame_size, write_folder
from familial.synth.disk import Row, save_video
from familial.synth.film import film
from familial.synth.raycast import Still, render_still
from familial.synth.rendered_clip import Annotation, RenderedClip
from familial.synth.rotations import turned
from familial.synth.scene import Scene
from familial.synth.setting import FPS, draw_setting
from familial.synth.skeleton import JOINT, JOINTS, Floats
from familial.synth.streams import Stream, stream
from wire.errors import DataError

__all__ = ["main", "render_motion"]

_MIRRORED = [JOINT[n[:-1] + {"l": "r", "r": "l"}[n[-1]]] if n[-2] == "_" else JOINT[n] for n in JOINTS]


# whose caption a motion has; all others: exercise
_CAPTION_OF = dict.fromkeys(("walk", "stealthy_walk", "zombie_walk"), "walk")
_CAPTION_OF |= {"run": "run", "jog": "run", "jump": "jump", "getup_facedown": "get_up", "getup_faceup": "get_up"}


_CORE = [JOINT[n] for n in ("head", "chest", "pelvis", "knee_l", "knee_r", "ankle_l", "ankle_r", "hand_l", "hand_r")]


def render_motion(
    seed: int, motion: Motion, *, size: tuple[int, int] = (120, 160), fps: float = FPS, seconds: float | None = None
) -> RenderedClip:
    """Render one person who moves as captured; label normal. The same arguments give the same bytes.

    Room, camera, light, sensor and person are those of `render_clip(seed)`; half of the seeds mirror the motion.

    Args:
        seed: Of everything that is drawn.
        motion: The capture.
        size: (H, W) pixels.
        fps: Frames a second.
        seconds: The length; None is the length that `render_clip` draws.
    """
    setting = draw_setting(seed, size, fps, seconds)
    scene, sensor, times, length = setting.scene, setting.sensor, setting.times_s, setting.seconds
    body, still, rng = body_of(setting.identities[0]), render_still(scene), stream(seed, Stream.MOTION)
    wait = rng.uniform(0, max(0.0, length - float(motion.times_s[-1])) / 2)  # what does not repeat comes at any time
    phase = wait if not motion.repeats else -rng.uniform(0, float(motion.times_s[-1]))
    moments = sensor.moments(times)
    joints, path = pose(motion, body, (moments - phase) * rng.uniform(0.9, 1.1), rng)
    if rng.random() < 0.5:
        joints, path = joints[:, _MIRRORED] * np.array([1, -1, 1]), path * np.array([1, -1])
    joints = _place(scene, still, joints, path, moments, rng)[:, None]  # (S, 1, J, 3)
    shown = Annotation("normal", motion.name, 0.0, length)
    plan = Plan((), (shown,), (), CAPTIONS[_CAPTION_OF.get(motion.name, "exercise")], 1)
    return film(scene, still, sensor, plan, [body], joints, times, stream(seed, Stream.ELECTRONICS))


def _place(scene: Scene, still: Still, joints: Floats, path: Floats, times_s: Floats, rng: Generator) -> Floats:
    """Joints (T, J, 3) in the room: of many starts, headings and curves, those that stay in view and clear of things.

    A motion that travels is bent into a curve, since a run is longer than most rooms; where that is not enough, its
    steps are shortened, down to nearly none.
    """
    speed = float(np.hypot(*(path[-1] - path[0])) / max(1e-6, times_s[-1] - times_s[0]))
    some = np.linspace(0, len(times_s) - 1, min(len(times_s), 60)).astype(np.int64)
    best, most = joints, -math.inf
    for attempt in range(240):
        short = 1.0 if attempt < 140 else float(rng.uniform(0.05, 0.8))
        radius = rng.uniform(0.6, 2.6) if attempt < 140 else rng.uniform(0.25, 1.2)
        # radians a second
        curve = float(rng.choice([-1, 1]) * min(short * speed / radius, 2.2)) if speed > 0.12 else 0.0
        bend = curve * (times_s - times_s[0]) + rng.uniform(0, 2 * math.pi)
        steps = short * turned(np.diff(path, axis=0), 0.5 * (bend[1:] + bend[:-1]))
        at = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])
        at += scene.stage.spots[rng.integers(len(scene.stage.spots))] - at[rng.integers(len(at))]
        core = turned(joints[some][:, _CORE], bend[some, None])
        core[..., :2] += at[some, None]
        score = _score(scene, still, core)
        if score > most:
            most, best = score, turned(joints, bend[:, None])
            best[..., :2] += at[:, None]
        if score > 0.93:
            break
    return best


def _score(scene: Scene, still: Still, core: Floats) -> float:
    """The share of core joints (N, K, 3) in view, less twice the share of moments in walls and furniture: at most 1."""
    room = scene.room
    floor = core[..., :2]
    inside = ((floor > 0.12) & (floor < np.array([room.width, room.depth]) - 0.12)).all((1, 2))
    free = scene.stage.free(floor.reshape(-1, 2), 0.08).reshape(core.shape[:2]).all(1)
    seen = scene.camera.sees(core, still.depth)
    return float(seen.mean() - 2 * (1 - (inside & free).mean()))


def _write_clip(task: tuple[int, Motion], folder: Path, size: tuple[int, int]) -> Row:
    """Render one clip into `folder` unless it is there; returns its manifest row."""
    seed, motion = task
    path = folder / f"mocap_{motion.name}_{seed:08d}.mp4"
    if not path.exists():
        save_video(path, render_motion(seed, motion, size=size).frames, FPS)
    return {"file": path.name, "label": "normal", "set": "mocap", "group": motion.name, "note": motion.name}


def main(argv: list[str] | None = None) -> int:
    """Write clips of captured motions with a manifest."""
    parser = folder_parser("familial.synth.mocap", __doc__.split("\n")[0], clips=100)
    parser.add_argument("--archive", type=Path, required=True, help="DeepMimic's motions, a .tar.xz")
    args = parser.parse_args(argv)
    make = functools.partial(_write_clip, folder=args.out, size=frame_size(args.size))
    try:
        motions = list(read_archive(args.archive).values())
        tasks = [(seed, motions[seed % len(motions)]) for seed in range(args.seed, args.seed + args.clips)]
        write_folder(make, tasks, args)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
