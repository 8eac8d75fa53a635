"""The loop: charge, encode or noise alone, release at the slot's fixed deadline, decide.

A window is encoded on a thread of its own: a slow engine cannot move a deadline. Where it is late, fails or the budget
is spent, the slot is filled with a fresh draw alone. A window is never run twice, nor a draw used twice. A command that
orders another profile takes effect with the next slot.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from edge_runtime.capture.sources import Camera
from edge_runtime.eye.engine.base import Engine
from edge_runtime.eye.window import SlotClock, Window
from edge_runtime.gate.ledger import Ledger
from edge_runtime.gate.level import Levels
from edge_runtime.gate.sampler import NoiseSample, Sampler
from edge_runtime.health import Health, Stats
from edge_runtime.uplink.publisher import Publisher, Release, fill_message, fill_verdict
from wire.errors import EngineError
from wire.privacy.budget import Terms
from wire.privacy.noise_check import NoiseCheck
from wire.protocol.command import Orders
from wire.protocol.event import EventWindow
from wire.protocol.keys import DeviceKey

__all__ = ["Encoder", "Loop"]

log = logging.getLogger("veilsight.loop")
_SEAL_S = 0.02  # kept free before the deadline to fill, sign and hand over


@dataclass
class Loop:
    """The parts of a running device.

    noise: a sampler for each level of the manifest. terms: which of them may be ordered. orders: which of them is.
    stats: late, failed: windows the engine did not encode in time, or at all; alone: slots released as noise alone,
    those of a spent budget included; own_us: this thread's CPU time, charge to hand-over; latency_ms: from slot end.
    """

    camera: Camera
    clock: SlotClock
    engine: Engine
    noise: Sequence[Sampler]
    terms: Terms
    orders: Orders
    ledger: Ledger
    publisher: Publisher
    health: Health
    key: DeviceKey
    boot_id: int
    stats: Stats

    def run(self, windows: int = 0) -> str:
        """Until the source ends, a stop is asked for or `windows` are out. PrivacyError and CameraLost end it too."""
        clock, manifest, stats = self.clock, self.engine.manifest, self.stats
        checks = [NoiseCheck(noise.sigma, manifest.n, manifest.event_releases) for noise in self.noise]
        event = EventWindow(manifest.event_releases, manifest.tokens, manifest.width)
        encoder, levels = Encoder(self.engine, stats), Levels(manifest, self.terms)
        clock.start()
        for window in self.camera.windows():
            began, slot, deadline = time.thread_time(), window.slot, clock.deadline(window.slot)
            self.orders.obey(self.publisher.commands)
            level, flags = levels.choose(self.orders.profile)
            noise = self.noise[level]
            charge = self.ledger.charge(slot, self.terms.costs[level])  # durable before anything is published
            with window:
                patience_s = clock.left(deadline) - min(_SEAL_S, clock.release_delay_s / clock.speed / 4)
                tensor = encoder.encode(window, noise, patience_s) if charge.granted else None
            if tensor is None:
                tensor = noise.draw().alone()
                stats.counts["alone"] += 1
            checks[level].check(tensor)
            payload = fill_message(self.boot_id, manifest.model_id, charge, tensor, level, flags).seal(self.key)
            in_time = clock.wait(deadline) and not clock.missed(slot)
            levels.made(tensor if in_time and charge.granted else None)
            if not in_time:
                continue
            self.publisher.send("features", payload)
            stats.note("own_us", (time.thread_time() - began) * 1e6)
            stats.note("latency_ms", (clock.now() - clock.end(slot)) / clock.speed * 1e3)
            stats.counts.update(windows=1, payload_bytes=len(payload))
            self.publisher.tell(profile=self.orders.profile, blind=not charge.granted)
            if charge.granted:  # else this release says nothing, and counts as missing
                event.push(slot, tensor, manifest.weights[level])
                if event.whole:
                    self._decide(event)
            self.health.beat()
            if stats.counts["windows"] == windows:
                break
        if event.count and not event.whole:  # a source shorter than an event
            self._decide(event)
        return "stopped" if clock.stop.is_set() else "end of source"

    def _decide(self, event: EventWindow) -> None:
        """Publish the edge member's verdict: a function of what was released, and of nothing else."""
        try:
            verdict = fill_verdict(self.boot_id, self.engine.manifest, event, self.engine.decide(event))
            self.publisher.send("verdict/edge", verdict.seal(self.key))
            self.stats.counts["verdicts"] += 1
        except EngineError as error:
            self.stats.counts["undecided"] += 1
            log.warning("no verdict for slot %d: %s", event.last_slot, error)


class Encoder:
    """Runs `engine.encode` on a thread; what is not ready in time is dropped when it comes."""

    def __init__(self, engine: Engine, stats: Stats) -> None:
        self._engine, self._stats, self._busy = engine, stats, False
        self._work: SimpleQueue[tuple[Window, NoiseSample]] = SimpleQueue()
        self._done: SimpleQueue[Release | Exception] = SimpleQueue()
        threading.Thread(target=self._serve, name="encode", daemon=True).start()

    def encode(self, window: Window, noise: Sampler, patience_s: float) -> Release | None:
        """The release of `window`, int16 (n,); None where the engine fails or takes longer than `patience_s`."""
        try:
            if self._busy:
                self._sound(self._done.get_nowait())  # of a slot long released: dropped
            self._busy = True
            self._work.put((window, noise.draw()))
            made = self._sound(self._done.get(timeout=max(0.0, patience_s)))
            self._busy = False
            return made
        except Empty:
            self._stats.counts["late"] += 1
            return None

    def _sound(self, made: Release | Exception) -> Release | None:
        """What the engine made, None where it failed; any other error is raised here."""
        if not isinstance(made, Exception):
            return made
        if not isinstance(made, EngineError):
            raise made
        self._stats.counts["failed"] += 1
        log.warning("a slot is released as noise alone: %s", made)
        return None

    def _serve(self) -> None:
        while True:
            window, draw = self._work.get()
            began = time.monotonic()
            try:
                made: Release | Exception = self._engine.encode(window, draw)
            except Exception as error:  # noqa: BLE001 - the top of this thread: raised again in the loop's
                made = error
            self._stats.note("encode_ms", (time.monotonic() - began) * 1e3)
            self._done.put(made)
