"""All parts of a gate around a fake publisher, and an eye and a reader in this process that a test may break."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.capture.camera import Camera
from edge_runtime.capture.clock import SlotClock
from edge_runtime.child_settings import ChildSettings
from edge_runtime.config import load_config
from edge_runtime.eye.engine.onnx import OnnxEngine
from edge_runtime.gate.ledger import Ledger, start_ledger
from edge_runtime.gate.loop import Loop
from edge_runtime.gate.sampler import NoiseSample, Sampler
from edge_runtime.health import Health, Stats
from edge_runtime.reader.member import EdgeMember
from tests.support.engine_factory import make_edge_config, make_engine, make_noise_table
from tests.support.patient_clock import PatientClock
from wire.errors import EngineError
from wire.privacy.budget import Budget, Terms
from wire.privacy.level_rule import UNIT
from wire.protocol.command import Orders
from wire.protocol.event import EventSpan, EventWindow
from wire.protocol.keys import DeviceKey
from wire.protocol.message import open_features

__all__ = ["KEY", "OPERATOR", "SLOT_S", "Device", "FakePublisher", "InnerEye", "InnerReader", "drawn_by"]

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


class InnerEye:
    """An eye in this process: a real camera and encoder, whose behaviour a test may replace.

    Attributes:
        before: Called with each slot before its window is encoded; what it raises makes the slot missed.
        slots: Those whose window was encoded.
        codes: Slot -> bytes of its code.
    """

    def __init__(self, camera: Camera, engine: OnnxEngine) -> None:
        self._camera, self._engine = camera, engine
        self.before: Callable[[int], None] = lambda slot: None
        self.slots: list[int] = []
        self.codes: dict[int, bytes] = {}
        self.ended, self.watching, self.restarts = False, True, 0

    def code(self, slot: int, timeout_s: float) -> npt.NDArray[np.int16] | None:
        self.ended = self._camera.last(slot)
        with self._camera.window(slot) as frames:
            try:
                self.before(slot)
            except EngineError:
                return None
            code = self._engine.encode(frames)
        self.slots.append(slot)
        self.codes[slot] = code.tobytes()
        return code

    def restart(self) -> None:
        self.restarts += 1


class InnerReader:
    """A reader in this process; `decide` is the member's, which a test may replace."""

    def __init__(self, member: EdgeMember) -> None:
        self.decide: Callable[[EventWindow], Mapping[str, float] | None] = member.decide
        self._answer: tuple[EventSpan, Mapping[str, float] | None] | None = None

    def ask(self, event: EventWindow) -> None:
        self._answer = event.span(), self.decide(event)

    def answer(self, timeout_s: float = 0.0) -> tuple[EventSpan, Mapping[str, float] | None] | None:
        answer, self._answer = self._answer, None
        return answer


class Device:
    """All parts of a gate, around a fake publisher and an eye in this process that may fail.

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
        self.engine = OnnxEngine(folder / "engine")
        self.manifest = manifest = self.engine.manifest
        config = load_config(make_edge_config(folder, engine=folder / "engine", source=source))
        self.clock = SlotClock(slot_s, 0.2) if real else PatientClock(slot_s)
        self.due: dict[int, float] = {}  # slot -> when it is to leave
        self._leaves, self.clock.leaves = self.clock.leaves, self._noted  # type: ignore[method-assign]  # and kept
        self.publisher = FakePublisher(self.clock)
        self.stats = Stats("windows", "alone", "verdicts", "undecided")
        self.samplers = [Sampler(make_noise_table(sigma), manifest.n) for sigma in manifest.sigmas]
        self.noise = self.samplers[-1]
        self.terms = Terms.of(manifest, "", Budget())
        cut_off = Fraction(maximum * self.terms.costs[-1], UNIT)
        start_ledger(folder / "state", KEY.public.hex)
        self.ledger = Ledger(folder / "state", self.terms.price, slot_s, per_day=cut_off, key_id=KEY.public.hex)
        self.orders = Orders(folder / "state" / "command.json", OPERATOR.public, "lab/door", [*self.terms.profiles])
        self.camera = Camera(ChildSettings.of(config, set(), True), manifest.window, self.clock)
        self.eye = InnerEye(self.camera, self.engine)
        self.reader = InnerReader(EdgeMember(folder / "engine", manifest))
        own = (self.terms, self.orders, self.ledger, self.publisher, Health("", {}, 60.0), KEY, ("lab", "door"), 5)
        self.loop = Loop(manifest, self.clock, self.eye, self.reader, self.samplers, *own, self.stats)  # type: ignore[arg-type]  # fakes

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
        manifest = self.manifest
        sent = [payload for name, payload, _ in self.publisher.sent if name == "features"]
        read = (manifest.n, manifest.model_id, len(manifest.sigmas))
        return [open_features(payload, KEY.public, "lab", "door", *read) for payload in sent]

    def times(self) -> list[float]:
        """Seconds from the time that was drawn for each release; not a number where none was."""
        sent = [at for name, _, at in self.publisher.sent if name == "features"]
        return [at - self.due.get(m.slot, math.nan) for m, at in zip(self.features(), sent, strict=True)]

    def _noted(self, slot: int) -> float:
        self.due[slot] = self._leaves(slot)
        return self.due[slot]


def drawn_by(device: Device, monkeypatch: pytest.MonkeyPatch) -> list[npt.NDArray[np.int32]]:
    """The noise samples that the device draws, as it goes on."""
    drawn: list[npt.NDArray[np.int32]] = []
    draw = device.noise.draw

    def spy() -> NoiseSample:
        sample = draw()
        drawn.append(sample._array.copy())
        return sample

    monkeypatch.setattr(device.noise, "draw", spy)
    return drawn
