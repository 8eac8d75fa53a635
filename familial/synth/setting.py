"""The setting of a clip: everything that is drawn from its seed without regard to what happens in it.

draw_setting(seed, ...) -> Setting: scene, sensor, frame times, and who would be there
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from familial.synth.scene import Scene, draw_scene
from familial.synth.sensor import Sensor, draw_sensor
from familial.synth.skeleton import Floats
from familial.synth.streams import Stream, stream

__all__ = ["FPS", "Setting", "draw_setting"]

FPS = 12.0  # frames a second of clips written to disk
_SECONDS = (10.0, 16.0)
_MOST_PEOPLE = 9
_COUNTS = {1: 0.36, 2: 0.27, 3: 0.14, 4: 0.1, 5: 0.06, 6: 0.04, 7: 0.03}  # people in a clip: their shares


@dataclass(frozen=True, slots=True)
class Setting:
    """What a seed gives, whatever happens.

    Attributes:
        seconds: Length of the clip.
        times_s: (T,) the frames' times.
        scene: Room, camera, light and stage.
        sensor: The camera's electronics.
        count: How many people there are where the action does not need more.
        identities: The seeds of their builds and clothes, and of those who come if more are needed.
    """

    seconds: float
    times_s: Floats
    scene: Scene
    sensor: Sensor
    count: int
    identities: tuple[int, ...]


def draw_setting(seed: int, size: tuple[int, int], fps: float, seconds: float | None = None) -> Setting:
    """The setting of `seed` for pictures of `size` (H, W); `seconds` defaults to 10 to 16, drawn."""
    length = float(stream(seed, Stream.LENGTH).uniform(*_SECONDS)) if seconds is None else seconds
    times = np.arange(max(2, round(length * fps))) / fps
    scene = draw_scene(stream(seed, Stream.SCENE), size)
    sensor = draw_sensor(stream(seed, Stream.SENSOR), times, scene.light.night)
    people = stream(seed, Stream.PEOPLE)
    count = int(people.choice(list(_COUNTS), p=list(_COUNTS.values())))
    identities = tuple(int(people.integers(1 << 31)) for _ in range(_MOST_PEOPLE))
    return Setting(length, times, scene, sensor, count, identities)
