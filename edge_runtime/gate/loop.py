"""The loop of the device: charge, ask, release, publish. Read this first.

    slot --charge--> eye: a code, in time or not at all --core.release, fresh noise--> z --after a wait--> published
                                                           z of 8 releases --> reader --> the edge member's verdict

Each slot is released at a random time of the fifth of a slot after its deadline. Where no code came in time, or the
budget is spent, the release is a fresh noise sample and nothing else. What the eye does can be seen in z alone, and z
is covered.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.capture.clock import SlotClock
from edge_runtime.gate.clients import EyeClient, ReaderClient
from edge_runtime.gate.core import release
from edge_runtime.gate.ledger import Ledger
from edge_runtime.gate.level import Levels
from edge_runtime.gate.sampler import Sampler
from edge_runtime.gate.watching import Watching
from edge_runtime.health import Health, Stats
from edge_runtime.uplink.publisher import Publisher, fill_message, fill_verdict
from wire.artifact.manifest import EngineManifest
from wire.privacy.budget import Terms
from wire.privacy.noise_check import NoiseCheck
from wire.protocol.command import Orders
from wire.protocol.event import EventWindow
from wire.protocol.keys import DeviceKey
from wire.protocol.message import coarse_time

__all__ = ["Loop"]

log = logging.getLogger("veilsight.loop")
_SEAL_S = 0.02  # kept free before the deadline to add, check, fill, sign and hand over
_LAST_VERDICT_S = 5.0


@dataclass
class Loop:
    """The parts of a running device.

    Attributes:
        noise: A sampler for each privacy level of the manifest.
        terms: The levels that may be ordered, and their costs.
        orders: The profile that is in force, by the operator's last command.
        names: Site and camera.
        refresh_slots: The eye is started anew after so many slots; 0: never.
        stats: alone: slots released as noise alone; undecided: events without a verdict; answer_ms: from the question
            to the eye's code; own_us: CPU time of this thread from charge to hand-over; latency_ms: from the slot's end
            to hand-over.
    """

    manifest: EngineManifest
    clock: SlotClock
    eye: EyeClient
    reader: ReaderClient
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
    refresh_slots: int = 0

    def run(self, windows: int = 0) -> str:
        """Release slot after slot until the source ends, a stop is asked for, or `windows` (0: no limit) are released.

        Returns:
            Why it ended, for the last state message.

        Raises:
            PrivacyError: The process must stop before anything else is published.
        """
        clock, manifest = self.clock, self.manifest
        checks = [NoiseCheck(noise.sigma, manifest.n, manifest.event_releases) for noise in self.noise]
        event = EventWindow(manifest.event_releases, manifest.tokens, manifest.width)
        levels, watching = Levels(manifest, self.terms), Watching(manifest.window.slot_s)
        for slot in clock.slots():  # one after the other, each at its end
            began, deadline = time.thread_time(), clock.deadline(slot)
            time_s = coarse_time(time.time())  # before the eye is asked: it cannot delay it
            self.orders.obey(self.publisher.commands)  # another profile is in force from this slot on
            level, flags = levels.choose(self.orders.profile)
            charge = self.ledger.charge(slot, self.terms.costs[level])  # durable before anything is drawn
            code = self._ask(slot, deadline)  # late, dead or malformed: None
            alone = code is None or not charge.granted
            with self.noise[level].draw() as sample:
                z = release(code if charge.granted else None, sample, manifest.clip_norm)  # the trusted core
            checks[level].check(z)  # PrivacyError where z cannot be what the sampler drew
            payload = fill_message(self.boot_id, manifest.model_id, charge, z, level, flags, time_s).seal(
                self.key, *self.names
            )
            in_time = clock.wait_to_release(slot)  # a random while after its deadline: loads hardly show
            levels.made(z if in_time and charge.granted else None)
            if not in_time:  # a stop was asked for, or the process stalled: this slot is not released
                continue
            self.publisher.send("features", payload)
            self._count(slot, began, payload, alone)
            watches = watching.note(slot, self.eye.watching)
            self.publisher.update_state(profile=self.orders.profile, blind=not charge.granted, watching=watches)
            self._publish_verdict(time_s)
            if charge.granted:  # a release of noise alone by the budget is no evidence: it counts as missing
                event.push(slot, z, manifest.weights[level])
                if event.whole and watches:  # else it is noise: a verdict would say what nobody saw
                    self.reader.ask(event)
            self.health.beat()
            if self.eye.ended or self.stats.counts["windows"] == windows:
                break
            if self.refresh_slots and (slot + 1) % self.refresh_slots == 0:
                self.eye.restart()  # by the clock alone: whatever the eye holds is forgotten
        if event.count and not event.whole:  # the source was shorter than an event
            self.reader.ask(event)
        self._publish_verdict(coarse_time(time.time()), _LAST_VERDICT_S)
        return "stopped" if clock.stop.is_set() else "end of source"

    def _ask(self, slot: int, deadline: float) -> npt.NDArray[np.int16] | None:
        """The eye's code of `slot`, int16 (n,), where it comes in time to make the release for `deadline`."""
        clock, began = self.clock, time.monotonic()
        code = self.eye.code(slot, clock.left(deadline) - min(_SEAL_S, clock.release_delay_s / clock.speed / 4))
        self.stats.note("answer_ms", (time.monotonic() - began) * 1e3)
        return code

    def _count(self, slot: int, began: float, payload: bytes, alone: bool) -> None:
        """Record the figures of a release; began: this thread's CPU time at the start of its slot, in seconds."""
        clock, stats = self.clock, self.stats
        stats.note("own_us", (time.thread_time() - began) * 1e6)
        stats.note("latency_ms", (clock.now() - clock.end(slot)) / clock.speed * 1e3)
        stats.counts.update(windows=1, payload_bytes=len(payload), alone=alone)

    def _publish_verdict(self, time_s: int, timeout_s: float = 0.0) -> None:
        """Publish the edge member's verdict on the event before this release: a function of what was released."""
        answer = self.reader.answer(timeout_s)
        if answer is None:
            return
        span, probabilities = answer
        self.stats.counts["undecided" if probabilities is None else "verdicts"] += 1
        if probabilities is not None:
            verdict = fill_verdict(self.boot_id, self.manifest, span, probabilities, time_s)
            self.publisher.send("verdict/edge", verdict.seal(self.key, *self.names))
