"""Encoding on a thread of its own, so that a slow engine cannot delay a release."""

from __future__ import annotations

import logging
import threading
import time
from queue import Empty, SimpleQueue

from edge_runtime.eye.engine.base import Engine
from edge_runtime.eye.window import Window
from edge_runtime.gate.sampler import NoiseSample, Sampler
from edge_runtime.health import Stats
from edge_runtime.uplink.publisher import Release
from wire.errors import EngineError

__all__ = ["Encoder"]

log = logging.getLogger("veilsight.encoder")


class Encoder:
    """Runs `engine.encode` on a thread. A result that is not ready in time is dropped when it comes."""

    def __init__(self, engine: Engine, stats: Stats) -> None:
        self._engine, self._stats, self._busy = engine, stats, False
        self._work: SimpleQueue[tuple[Window, NoiseSample]] = SimpleQueue()
        self._done: SimpleQueue[Release | Exception] = SimpleQueue()
        threading.Thread(target=self._serve, name="encode", daemon=True).start()

    def encode(self, window: Window, noise: Sampler, timeout_s: float) -> Release | None:
        """Encode `window` with a fresh noise sample.

        Returns:
            The release, int16 (n,); None where the engine failed, took longer than `timeout_s` (real seconds), or is
            still busy with an earlier window. A window is never given to the engine twice.

        Raises:
            PrivacyError, DeviceLost: As the engine raised them.
        """
        try:
            if self._busy:
                self._checked(self._done.get_nowait())  # of an earlier slot, which was released without it
            self._busy = True
            self._work.put((window, noise.draw()))
            made = self._checked(self._done.get(timeout=max(0.0, timeout_s)))
            self._busy = False
            return made
        except Empty:
            self._stats.counts["late"] += 1
            return None

    def _checked(self, made: Release | Exception) -> Release | None:
        """What the engine made; None where it failed with an EngineError. Any other error is raised here."""
        if not isinstance(made, Exception):
            return made
        if not isinstance(made, EngineError):
            raise made
        self._stats.counts["failed"] += 1
        log.warning("a slot is released as noise alone: %s", made)
        return None

    def _serve(self) -> None:
        while True:
            window, sample = self._work.get()
            began = time.monotonic()
            try:
                made: Release | Exception = self._engine.encode(window, sample)
            except Exception as error:  # noqa: BLE001 - the top of this thread: raised again in the loop's
                made = error
            self._stats.note("encode_ms", (time.monotonic() - began) * 1e3)
            self._done.put(made)
