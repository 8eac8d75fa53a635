"""Perception: whom the person network sees in each frame that a window takes, as soon as the frame is there.

    Sightings --a picture--> perceive --heads--> decode, pack --> people of that frame --> Sightings
    window --wait for its newest frames--> people of its frames --form_tracks--> encode's second input

A thread of its own, so that a slot's end waits for one frame and not for all. One frame in, people out: nothing is
kept between frames, and tracks are formed anew from each window's people alone. The window whose newest frames are seen
too late, or not at all, is lost; in later windows there is nobody in these frames.
"""

from __future__ import annotations

import threading

import numpy as np

from edge_runtime.eye.engine.base import Engine
from edge_runtime.eye.sightings import FAILED, SEEN, Sightings, Waiting
from edge_runtime.eye.window import Window
from wire.errors import DeviceLost, EngineError
from wire.people.decode import decode, place
from wire.people.packed import Packed, pack
from wire.people.tracks import form_tracks

__all__ = ["Perception"]


class Perception:
    """The thread of the person network; a context manager, within the engine's life.

    Args:
        engine: With `perceive`.
        sightings: The camera's.
    """

    def __init__(self, engine: Engine, sightings: Sightings) -> None:
        self._engine, self._sightings = engine, sightings
        _, shape = engine.manifest.graphs()["perceive"]["inputs"]["frame"]
        self._frame = np.zeros(shape, np.uint8)
        self._thread = threading.Thread(target=self._run, name="perception", daemon=True)

    def __enter__(self) -> Perception:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._sightings.close()
        self._thread.join(timeout=2.0)  # a run that hangs ends with the process

    def complete(self, window: Window, timeout_s: float) -> bool:
        """Write the tracks of a window's people into it.

        Args:
            window: Of the slot that just ended.
            timeout_s: How long the people of its newest frames may take, in real seconds.

        Returns:
            Whether they came in time.

        Raises:
            EngineError: The person network failed on one of them.
            DeviceLost: It has ended; the process must be restarted.
        """
        sightings, newest = self._sightings, window.newest
        sightings.wait(newest, timeout_s)
        if sightings.closed:
            raise DeviceLost("perceive: the person network has ended; the process must be restarted")
        states = sightings.states(newest)
        if (states == FAILED).any():
            raise EngineError("perceive: the person network failed on a frame of this window")
        if window.people is None or (states != SEEN).any():
            return False
        people = sightings.people(window.numbers)
        window.people[:] = form_tracks(people[None])
        people.fill(0)
        return True

    def _run(self) -> None:
        try:
            while (waiting := self._sightings.next(self._frame[0])) is not None:
                self._sightings.found(waiting.number, self._people(waiting))
        except DeviceLost:
            pass  # `complete` says so
        finally:
            self._sightings.close()

    def _people(self, waiting: Waiting) -> Packed | None:
        """The people of the frame that is held, int16 (6, VALUES); None where the person network fails."""
        height, width = waiting.height, waiting.width
        try:
            heads = self._engine.perceive(self._frame)
        except EngineError:
            return None
        finally:
            self._frame.fill(0)
        try:
            people = decode(heads).within(place(height, width, (self._frame.shape[1], self._frame.shape[2])))
            return pack(people, height, width)
        except EngineError:
            return None
        finally:
            for head in heads.values():
                head.fill(0)
