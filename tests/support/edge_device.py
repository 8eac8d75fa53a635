"""All parts of an edge device around a fake publisher and an engine that a test may break."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.capture.camera import Camera
from edge_runtime.capture.clock import SlotClock
from edge_runtime.config import load_config
from edge_runtime.eye.engine.onnx import OnnxEngine
from edge_runtime.eye.window import Window
from edge_runtime.gate.ledger import Ledger, start_ledger
from edge_runtime.gate.loop import Loop
from edge_runtime.gate.sampler import NoiseSample, Sampler
from edge_runtime.health import Health, Stats
from tests.support.engine_factory import make_edge_config, make_engine, make_noise_table
from tests.support.patient_clock import PatientClock
from wire.privacy.budget import Budget, Terms
from wire.privacy.level_rule import UNIT
from wire.protocol.command import Orders
from wire.protocol.event import EventWindow
from wire.protocol.keys import DeviceKey
from wire.protocol.message import open_features

__all__ = ["KEY", "OPERATOR", "SLOT_S", "Device", "FakeEngine", "FakePublisher"]

SLOT_S = 0.3
KEY = DeviceKey(bytes(range(32)))
OPERATOR = DeviceKey(bytes(range(1, 33)))


class FakePublisher:
    """Keeps what is sent, with the time, and every update of the state."""

    def __init__(self, clock: SlotClock) -> None:
        self._clock = clock
        self.sent: list[tuple[str, bytes, float]] = []
        self.commands: deque[bytes] = deque()
        self.states: list[dict[str, Any]] = []

    def update_state(self, **fields: Any) -> None:
        self.states.append(fields)

    def send(self, name: str, payload: bytes) -> None:
        self.sent.append((name, payload, self._clock.now()))


class FakeEngine:
    """A real engine whose encode and decide a test may replace; it remembers windows and noise samples."""

    def __init__(self, inner: OnnxEngine) -> None:
        self.inner, self.manifest = inner, inner.manifest
        self.before: Callable[[int], None] = lambda slot: None
        self.slots: list[int] = []
        self.noise_samples: list[bytes] = []

    def encode(self, window: Window, sample: NoiseSample) -> npt.NDArray[np.int16]:
        self.slots.append(window.slot)
        self.noise_samples.append(sample._array.tobytes())
        try:
            self.before(window.slot)
        except BaseException:
            sample.wipe()
            raise
        return self.inner.encode(window, sample)

    def decide(self, event: EventWindow) -> Mapping[str, float]:
        return self.inner.decide(event)

    def run_core(self, *given: Any) -> Any:
        return self.inner.run_core(*given)

    def close(self) -> None:
        pass


class Device:
    """All parts, around a fake publisher and an engine that may fail.

    Args:
        folder: Where the engine, the configuration and the ledger go.
        source: Of the camera.
        maximum: Releases that the budget of a day allows; 0: no budget.
        slot_s: Seconds of a slot.
        real: Whether the clock is real; otherwise time advances when the test waits.
        levels: Other profiles' noise, by name.
    """

    def __init__(
        self,
        folder: Path,
        source: str = "synthetic://walk",
        maximum: int = 0,
        slot_s: float = SLOT_S,
        real: bool = False,
        levels: Mapping[str, Fraction] | None = None,
    ) -> None:
        make_engine(folder / "engine", slot_s=slot_s, levels=levels)
        self.engine = FakeEngine(OnnxEngine(folder / "engine"))
        manifest = self.engine.manifest
        config = load_config(make_edge_config(folder, engine=folder / "engine", source=source))
        self.clock = SlotClock(slot_s, 0.2) if real else PatientClock(slot_s)
        self.publisher = FakePublisher(self.clock)
        self.stats = Stats("windows", "alone", "late", "failed", "verdicts", "undecided")
        self.samplers = [Sampler(make_noise_table(sigma), manifest.n) for sigma in manifest.sigmas]
        self.noise = self.samplers[-1]
        self.terms = Terms.of(manifest, "", Budget())
        cut_off = Fraction(maximum * self.terms.costs[-1], UNIT)
        start_ledger(folder / "state", KEY.public.hex)
        self.ledger = Ledger(folder / "state", self.terms.price, slot_s, per_day=cut_off, key_id=KEY.public.hex)
        self.orders = Orders(folder / "state" / "command.json", OPERATOR.public, "lab/door", [*self.terms.profiles])
        self.camera = Camera(config, manifest.window, self.clock, 0)
        privacy = (self.samplers, self.terms, self.orders, self.ledger)
        parts = (self.camera, self.clock, self.engine, *privacy, self.publisher)
        self.loop = Loop(*parts, Health("", {}, 60.0), KEY, ("lab", "door"), 5, self.stats)  # type: ignore[arg-type]  # a fake publisher

    def run(self, windows: int) -> str:
        """Run the loop for `windows` releases, and close the ledger; returns why it ended."""
        self.clock.start()
        with self.camera:
            try:
                return self.loop.run(windows)
            finally:
                self.ledger.close()

    def features(self) -> list[Any]:
        """The feature messages that were sent, verified."""
        manifest = self.engine.manifest
        sent = [payload for name, payload, _ in self.publisher.sent if name == "features"]
        read = (manifest.n, manifest.model_id, len(manifest.sigmas))
        return [open_features(payload, KEY.public, "lab", "door", *read) for payload in sent]

    def times(self) -> list[float]:
        """Seconds from each release's deadline."""
        sent = [at for name, _, at in self.publisher.sent if name == "features"]
        return [at - self.clock.deadline(m.slot) for m, at in zip(self.features(), sent, strict=True)]
