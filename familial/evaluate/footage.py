"""A clip as a family reads it: small grey frames, and people where its tower sees them.

file     --`family_footage`--> Footage          through the cache
pictures --`picture_footage`--> Footage         rendered ones; the person network looks at them as at a film
seed     --`rendered_footage`--> Footage        the same as in training: people as the renderer knows them, with errors
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from familial.data.clips import Footage, read_clip, small_grey
from familial.data.people import PERCEIVE, PeopleOfClip, person_network
from familial.model.config import FamilyConfig
from familial.model.towers.registry import tower_class
from familial.synth.clip import render_clip
from familial.synth.detector_errors import DETECTOR_VERSION, detect
from familial.synth.people_clip import people_clip
from familial.synth.rendered_clip import RenderedClip

__all__ = ["family_footage", "graph_for", "picture_footage", "rendered_footage"]


def graph_for(config: FamilyConfig, perceive: Path = PERCEIVE) -> Path | None:
    """Return the person network's graph, `perceive`, where the config's tower sees people; else None."""
    return perceive if tower_class(config.tower).sees_people else None


def family_footage(file: Path, config: FamilyConfig, perceive: Path = PERCEIVE) -> Footage:
    """Read a clip as a family of `config` does.

    Args:
        file: the clip.
        config: of the family.
        perceive: graph of the person network.

    Raises:
        DataError: the clip cannot be read.
        EngineError: the graph is needed and missing, or not the person network's.
    """
    return read_clip(file, config.window, perceive=graph_for(config, perceive))


def picture_footage(
    pictures: npt.NDArray[np.uint8], rate: float, config: FamilyConfig, perceive: Path = PERCEIVE
) -> Footage:
    """Return pictures as a family of `config` reads them.

    Args:
        pictures: BGR u8 (T, h, w, 3), or grey u8 (T, h, w).
        rate: Pictures a second.
        config: of the family.
        perceive: graph of the person network.

    Raises:
        EngineError: the graph is needed and missing, or not the person network's.
    """
    frames, times = np.stack([small_grey(each, config.window) for each in pictures]), np.arange(len(pictures)) / rate
    graph = graph_for(config, perceive)
    if graph is None:
        return Footage(frames, times, len(pictures) / rate)
    looking = PeopleOfClip(person_network(graph), rate)
    for each in pictures:
        looking.see(each)
    return Footage(frames, times, len(pictures) / rate, *looking.found())


def rendered_footage(
    seed: int,
    kind: str,
    config: FamilyConfig,
    *,
    size: tuple[int, int],
    fps: float,
    seconds: float | None = None,
    still: bool = False,
) -> tuple[Footage, RenderedClip]:
    """Render a clip and return it as a family of `config` reads rendered ones in training, and what is known of it.

    People are the renderer's own, with the person network's errors as `synth.detector_errors` models them: the network
    itself finds too few people in small rendered pictures.

    Args:
        seed: of the clip, and of the errors.
        kind: of action.
        config: of the family.
        size: height and width of the pictures.
        fps: Pictures a second.
        seconds: length; None: drawn.
        still: one picture, the middle one, held; its people are held as well.
    """
    clip = render_clip(seed, kind, size=size, fps=fps, seconds=seconds)
    frames, count = np.stack([small_grey(each, config.window) for each in clip.frames]), len(clip.frames)
    shown = np.full(count, count // 2) if still else np.arange(count)
    duration = count / fps
    if not tower_class(config.tower).sees_people:
        return Footage(frames[shown], clip.times_s, duration), clip
    exact = people_clip(seed, kind, size=size, fps=fps, seconds=seconds).people
    people = detect(exact, np.random.default_rng([DETECTOR_VERSION, seed]), exact.whole())
    return Footage(frames[shown], clip.times_s, duration, people[shown], exact.times_s), clip
