"""The loop of the device: charge, encode, wait for the deadline, publish, decide. Read this first.

    window --charge--> granted: encode (code + noise)  --> z --at the slot's deadline--> published
                       refused, late or failed: noise alone            z of 8 releases --> the edge member's verdict

Each slot is released exactly at its deadline. Where the window was not encoded in time, or the budget is spent, the
release is a fresh noise sample and nothing else. No window is encoded twice and no noise sample is used twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from edge_runtime.capture.camera import Camera
from edge_runtime.capture.clock import SlotClock
from edge_runtime.eye.encoder import Encoder
from edge_runtime.eye.engine.base import Engine
from edge_runtime.gate.ledger import Ledger
from edge_runtime.gate.level import Levels
from edge_runtime.gate.sampler import Sampler
from edge_runtime.health import Health, Stats
from edge_runtime.uplink.publisher import Publisher, fill_message, fill_verdict
from wire.errors import EngineError
from wire.privacy.budget import Terms
from wire.privacy.noise_check import NoiseCheck
from wire.protocol.command import Orders
from wire.protocol.event import EventWindow
from wire.protocol.keys import DeviceKey
from wire.protocol.message import coarse_time

__all__ = ["Loop"]

log = logging.getLogger("veilsight.loop")
_SEAL_S = 0.02  # kept free before the deadline to fill, sign and hand over


@dataclass
class Loop:
    """The parts of a running device.

    Attributes:
        noise: A sampler for each privacy level of the manifest.
        terms: The levels that may be ordered, and their costs.
        orders: The profile that is in force, by the operator's last command.
        names: Site and camera.
        stats: late, failed: windows not encoded in time, or not at all; alone: slots released as noise alone; own_us:
            CPU time of this thread from charge to hand-over; latency_ms: from the slot's end to hand-over.
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
    names: tuple[str, str]
    boot_id: int
    stats: Stats

    def run(self, windows: int = 0) -> str:
        """Release slot after slot until the source ends, a stop is asked for, or `windows` (0: no limit) are released.

        Returns:
            Why it ended, for the last state message.

        Raises:
            PrivacyError: The process must stop before anything else is published.
            CameraLost, DeviceLost: A new process may help.
        """
        clock, manifest = self.clock, self.engine.manifest
        checks = [NoiseCheck(noise.sigma, manifest.n, manifest.event_releases) for noise in self.noise]
        event = EventWindow(manifest.event_releases, manifest.tokens, manifest.width)
        encoder, levels = Encoder(self.engine, self.stats), Levels(manifest, self.terms)
        clock.start()
        seal = (self.key, *self.names)
        for window in self.camera.windows():  # one for each slot, at its end
            began, slot, deadline = time.thread_time(), window.slot, clock.deadline(window.slot)
            time_s = coarse_time(time.time())  # before the eye is asked: it cannot delay it
            self.orders.obey(self.publisher.commands)  # another profile is in force from this slot on
            level, flags = levels.choose(self.orders.profile)
            noise = self.noise[level]
            charge = self.ledger.charge(slot, self.terms.costs[level])  # durable before anything is published
            with window:  # its frames are wiped at the end of this block
                z = encoder.encode(window, noise, self._time_to_encode(deadline)) if charge.granted else None
            if z is None:
                z = noise.draw().alone()
                self.stats.counts["alone"] += 1
            checks[level].check(z)  # PrivacyError where z cannot be what the sampler drew
            payload = fill_message(self.boot_id, manifest.model_id, charge, z, level, flags, time_s).seal(*seal)
            in_time = clock.wait(deadline) and not clock.missed(slot)
            levels.made(z if in_time and charge.granted else None)
            if not in_time:  # a stop was asked for, or the process stalled: this slot is not released
                continue
            self.publisher.send("features", payload)
            self._count(slot, began, payload)
            self.publisher.update_state(profile=self.orders.profile, blind=not charge.granted)
            if charge.granted:  # a release of noise alone is no evidence: it counts as missing
                event.push(slot, z, manifest.weights[level])
                if event.whole:
                    self._decide(event, time_s)
            self.health.beat()
            if self.stats.counts["windows"] == windows:
                break
        if event.count and not event.whole:  # the source was shorter than an event
            self._decide(event, coarse_time(time.time()))
        return "stopped" if clock.stop.is_set() else "end of source"

    def _time_to_encode(self, deadline: float) -> float:
        """Real seconds until the release has to be filled and signed for `deadline`."""
        clock = self.clock
        return clock.left(deadline) - min(_SEAL_S, clock.release_delay_s / clock.speed / 4)

    def _count(self, slot: int, began: float, payload: bytes) -> None:
        """Record the figures of a release; began: this thread's CPU time at the start of its slot, in seconds."""
        clock, stats = self.clock, self.stats
        stats.note("own_us", (time.thread_time() - began) * 1e6)
        stats.note("latency_ms", (clock.now() - clock.end(slot)) / clock.speed * 1e3)
        stats.counts.update(windows=1, payload_bytes=len(payload))

    def _decide(self, event: EventWindow, time_s: int) -> None:
        """Publish the edge member's verdict: a function of what was released, and of nothing else."""
        try:
            verdict = fill_verdict(self.boot_id, self.engine.manifest, event, self.engine.decide(event), time_s)
            self.publisher.send("verdict/edge", verdict.seal(self.key, *self.names))
            self.stats.counts["verdicts"] += 1
        except EngineError as error:
            self.stats.counts["undecided"] += 1
            log.warning("no verdict for slot %d: %s", event.last_slot, error)
