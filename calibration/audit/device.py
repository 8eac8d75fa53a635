"""The device as it runs, with an eye of the audit's: the gate's real loop on a clock that never waits.

    codes --planted_eye.py, a process--socket--> EyeClient, ledger, core.release, Sampler, NoiseCheck, seal
                                                                      --signed payloads--> open_features --> z

Everything between the eye's socket and the signed payload is the product's, in the product's order
(`edge_runtime/gate/loop.py`). Only the clock's waits and the broker are left out, so that a test can read 2,000
releases a second. `calibration.audit.channels` runs the whole process on a real clock.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from calibration.noise import build_table
from edge_runtime.capture.clock import SlotClock
from edge_runtime.gate.children import Child, Running
from edge_runtime.gate.clients import EyeClient, ReaderClient
from edge_runtime.gate.ledger import Ledger, open_key
from edge_runtime.gate.loop import Loop
from edge_runtime.gate.sampler import Sampler
from edge_runtime.health import Health, Stats
from edge_runtime.link import Link
from edge_runtime.uplink.publisher import Publisher
from wire.artifact.manifest import EngineManifest
from wire.errors import DataError
from wire.privacy.budget import Budget, Terms
from wire.protocol.command import Inbox, Orders
from wire.protocol.event import EventWindow
from wire.protocol.keys import PublicKey
from wire.protocol.message import open_features

__all__ = ["Codes", "Hear", "releases"]

Codes = npt.NDArray[np.int16]
Hear = Callable[[int, npt.NDArray[np.int16]], None]
"""Takes slot and z, int16 (n,), of each release."""

_NAMES = ("audit", "planted")  # site and camera
_PATIENCE_S = 30.0  # for the eye: it must answer every slot, however busy the machine is
_BOOT = 1


class _Hurried(SlotClock):
    """The release clock of `count` slots, each over as soon as it is asked for."""

    def __init__(self, slot_s: float, count: int) -> None:
        super().__init__(slot_s, slot_s / 2)
        self._count = count

    def left(self, until: float) -> float:
        return _PATIENCE_S

    def wait(self, until: float) -> bool:
        return True

    def missed(self, slot: int) -> bool:
        return False

    def slots(self) -> Iterator[int]:
        return iter(range(self._count))


class _NoReader(ReaderClient):
    """No reader: a verdict is a function of what was released."""

    def __init__(self) -> None:
        super().__init__(Child("reader", lambda: None, bytes), ())

    def ask(self, event: EventWindow) -> None:
        pass

    def answer(self, timeout_s: float = 0.0) -> None:
        return None


class _Subscriber:
    """In the place of publisher and broker: opens every release as a subscriber does, with the device's public key."""

    def __init__(self, manifest: EngineManifest, public: PublicKey, hear: Hear) -> None:
        self._read = (public, *_NAMES, manifest.n, manifest.model_id, len(manifest.sigmas))
        self._hear, self.heard, self.commands = hear, 0, Inbox(None, "/".join(_NAMES))

    def send(self, name: str, payload: bytes) -> None:
        if name == "features":
            message = open_features(payload, *self._read)
            self._hear(message.slot, message.z)
            self.heard += 1

    def update_state(self, **fields: Any) -> None:
        """States say nothing of z."""


def releases(manifest: EngineManifest, sigma: Fraction, codes: Codes, index: npt.NDArray[np.int64], hear: Hear) -> None:
    """Let a planted eye answer slot s with the code `index[s]`, and give each release to `hear` as it is published.

    Args:
        manifest: of the engine: C, n, cadence and levels.
        sigma: of the noise, whatever level is in force.
        codes: int16 (M, n), any values.
        index: int64 (slots,).
        hear: called once a slot, in order.

    Raises:
        DataError: the eye did not answer every slot, so the test would say nothing.
        PrivacyError: the gate stopped itself.
    """
    with tempfile.TemporaryDirectory(prefix="veilsight-audit-") as name:
        folder = Path(name)
        plan = folder / "codes.npz"
        np.savez(plan, codes=codes, index=index)
        eye = EyeClient(Child("eye", _spawn, str(plan).encode), manifest.n, follows=False)
        try:
            if not eye.ready(_PATIENCE_S):
                raise DataError("the audit's eye does not start; run it again when the machine is less busy")
            heard = _run(folder, manifest, sigma, eye, len(index), hear)
        finally:
            eye.close()
    if heard != len(index) or eye.counts["missed"]:
        raise DataError(
            f"{heard} of {len(index)} releases came, {eye.counts['missed']} without a code; run the audit again when "
            "the machine is less busy"
        )


def _run(
    folder: Path,
    manifest: EngineManifest,
    sigma: Fraction,
    eye: EyeClient,
    slots: int,
    hear: Hear,
) -> int:
    """Run the gate's loop; return how many releases were published."""
    terms = Terms.of(manifest, "", Budget())
    key = open_key(folder / "key", folder / "state")
    ledger = Ledger(folder / "state", terms.price, manifest.window.slot_s, *terms.cut_off, key_id=key.public.hex)
    noise = [Sampler(build_table(sigma), manifest.n)] * len(manifest.sigmas)
    subscriber = _Subscriber(manifest, key.public, hear)
    orders = Orders(folder / "command.json", None, "/".join(_NAMES), [*terms.profiles])
    stats, health = Stats("windows", "alone", "verdicts", "undecided", "payload_bytes"), Health("", {}, 1e9)
    parts = (terms, orders, ledger, cast(Publisher, subscriber), health, key, _NAMES, _BOOT, stats)
    try:
        Loop(manifest, _Hurried(manifest.window.slot_s, slots), eye, _NoReader(), noise, *parts).run()
    finally:
        ledger.close()
    return subscriber.heard


def _spawn() -> Running:
    """Start the eye with one end of a socket pair, as the gate does."""
    ours, theirs = Link.pair()
    process = subprocess.Popen(
        [sys.executable, "-m", "calibration.audit.planted_eye", "--codes", "--descriptor", str(theirs.descriptor)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(theirs.descriptor,),
        cwd=Path(__file__).resolve().parents[2],
    )
    theirs.close()
    return Running(ours, process.kill, process.wait)
