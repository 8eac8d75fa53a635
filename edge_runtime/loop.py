"""The loop: charge, encode or noise alone, release at the slot's fixed deadline, decide.

A window is encoded on a thread of its own, so that a slow engine cannot move a deadline. Whatever goes wrong with it (late,
failed, budget spent), its slot is filled with a fresh draw alone. A window is never run twice, a draw never used twice.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

import numpy as np
import numpy.typing as npt

from wire.errors import EngineError
from wire.event import EventWindow
from wire.keys import DeviceKey

from .camera import Camera
from .engine import Engine
from .health import Health
from .ledger import Ledger
from .noise import NoiseCheck, NoiseDraw, Sampler
from .publisher import Publisher, fill_message, fill_verdict
from .window import SlotClock, Window

__all__ = ["Encoder", "Loop", "LoopStats"]

log = logging.getLogger("veilsight.loop")

_SEAL_S = 0.02  # kept free before the deadline to fill, sign and hand over
Release = npt.NDArray[np.int16]


@dataclass
class Loop:
    """The parts of a running device."""

    camera: Camera
    clock: SlotClock
    engine: Engine
    noise: Sampler
    ledger: Ledger
    publisher: Publisher
    health: Health
    key: DeviceKey
    boot_id: int
    stats: LoopStats

    def run(self, windows: int = 0) -> str:
        """Until the source ends, a stop is asked for, or `windows` releases are made: which of these it was.

        Raises PrivacyError, CameraLost.
        """
        clock, manifest = self.clock, self.engine.manifest
        check = NoiseCheck(self.noise.sigma, manifest.n, manifest.event_releases)
        event = EventWindow(manifest.event_releases, manifest.tokens, manifest.width)
        encoder = Encoder(self.engine, self.stats)
        clock.start()
        for window in self.camera.windows():
            began = time.thread_time()
            slot, deadline = window.slot, clock.deadline(window.slot)
            charge = self.ledger.charge(slot)  # durable before anything is published
            with window:
                patience_s = clock.left(deadline) - min(_SEAL_S, clock.release_delay_s / clock.speed / 4)
                tensor = encoder.encode(window, self.noise.draw(), patience_s) if charge.granted else None
            if tensor is None:
                tensor = self.noise.draw().alone()
                self.stats.alone += 1
            check.check(tensor)
            payload = fill_message(self.boot_id, manifest.model_id, charge, tensor).seal(self.key)
            if not clock.wait(deadline):
                break
            if clock.missed(slot):
                continue
            self.publisher.send("features", payload)
            self.stats.released(clock, slot, len(payload), time.thread_time() - began)
            event.push(slot, tensor)
            if event.whole:
                self._decide(event)
            self.health.beat()
            if self.stats.windows == windows:
                break
        if event.count and not event.whole:  # a source shorter than an event
            self._decide(event)
        return "stopped" if clock.stop.is_set() else "end of source"

    def _decide(self, event: EventWindow) -> None:
        """Publish the edge member's verdict: a function of what was released, and of nothing else."""
        try:
            probabilities = self.engine.decide(event)
        except EngineError as error:
            self.stats.undecided += 1
            log.warning("no verdict for slot %d: %s", event.last_slot, error)
            return
        verdict = fill_verdict(self.boot_id, self.engine.manifest, event, probabilities)
        self.publisher.send("verdict/edge", verdict.seal(self.key))
        self.stats.verdicts += 1


class Encoder:
    """Runs `engine.encode` on a thread; what is not ready in time is dropped when it comes."""

    def __init__(self, engine: Engine, stats: LoopStats) -> None:
        self._engine, self._stats, self._busy = engine, stats, False
        self._work: SimpleQueue[tuple[Window, NoiseDraw]] = SimpleQueue()
        self._done: SimpleQueue[Release | Exception] = SimpleQueue()
        threading.Thread(target=self._serve, name="encode", daemon=True).start()

    def encode(self, window: Window, draw: NoiseDraw, patience_s: float) -> Release | None:
        """The release of `window`, int16 (n,); None where the engine fails or takes longer than `patience_s`."""
        try:
            if self._busy:
                self._done.get_nowait()  # of a slot long released: dropped
            self._work.put((window, draw))
            self._busy = True
            made = self._done.get(timeout=max(0.0, patience_s))
        except Empty:
            self._stats.late += 1
            return None
        self._busy = False
        if isinstance(made, EngineError):
            self._stats.failed += 1
            log.warning("slot %d is released as noise alone: %s", window.slot, made)
            return None
        if isinstance(made, Exception):
            raise made
        return made

    def _serve(self) -> None:
        while True:
            window, draw = self._work.get()
            began = time.monotonic()
            try:
                made: Release | Exception = self._engine.encode(window, draw)
            except Exception as error:  # noqa: BLE001 - the top of this thread: raised again in the loop's
                made = error
            self._stats.encode_ms.append((time.monotonic() - began) * 1000)
            self._done.put(made)


@dataclass
class LoopStats:
    """What the loop counted; for the local page and the local summary, never published.

    late, failed: windows the engine did not encode in time, or at all. alone: slots released as noise alone, those of a
    spent budget included. own_us: CPU time of the loop's thread from charge to hand-over. latency_ms: from the slot's end.
    """

    windows: int = 0
    alone: int = 0
    late: int = 0
    failed: int = 0
    verdicts: int = 0
    undecided: int = 0
    payload_bytes: int = 0
    first_publish_at: float = 0.0
    encode_ms: deque[float] = field(default_factory=lambda: deque(maxlen=4096))
    latency_ms: deque[float] = field(default_factory=lambda: deque(maxlen=4096))
    own_us: deque[float] = field(default_factory=lambda: deque(maxlen=4096))

    def released(self, clock: SlotClock, slot: int, size: int, own_s: float) -> None:
        """Count a release that was just handed to the publisher."""
        self.first_publish_at = self.first_publish_at or time.monotonic()
        self.windows += 1
        self.payload_bytes += size
        self.latency_ms.append((clock.now() - clock.end(slot)) / clock.speed * 1000)
        self.own_us.append(own_s * 1e6)

    def figures(self) -> dict[str, float]:
        """Counters and quantiles."""
        made = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        for name in ("encode_ms", "latency_ms", "own_us"):
            for percent in (50, 99):
                values = list(getattr(self, name)) or [0.0]
                made[f"{name}_p{percent}"] = round(float(np.percentile(values, percent)), 3)
        return made
