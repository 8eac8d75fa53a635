"""The real gate with one fault planted in it while it runs.

python -m tests.support.mutant_gate FAULT --eye MODULE:NAME --config edge.toml
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.privacy import hostile_gate
from edge_runtime.capture.clock import SlotClock
from edge_runtime.gate import clients, core
from edge_runtime.gate import loop as loop_module
from edge_runtime.gate.clients import EyeClient
from edge_runtime.gate.sampler import NoiseSample, Sampler
from edge_runtime.gate.watching import Watching
from edge_runtime.uplink import publisher
from edge_runtime.uplink.publisher import Publisher
from wire.protocol.message import Sealed

__all__ = ["FAULTS", "main", "mutant_gate"]

_heard: list[Any] = [None]  # the newest code


def mutant_gate(fault: str, eye: str = "", reader: str = "") -> list[str]:
    """The command line of this gate, up to the gate's own options."""
    return [sys.executable, "-m", "tests.support.mutant_gate", fault, *hostile_gate.hostile_gate(eye, reader)[3:]]


def main(argv: Sequence[str]) -> int:
    """Plant the fault that the first argument names, then run the gate."""
    FAULTS[argv[0]]()
    return hostile_gate.main(argv[1:])


def _put(where: object, name: str, what: object) -> None:
    """Replace a part of the product, which must be there: a mutant that changes nothing would prove nothing."""
    getattr(where, name)
    setattr(where, name, what)


def _without(name: str) -> None:
    """Replace the core by one without a step."""
    release = core.release

    def broken(code: Any, noise: Any, clip_norm: int) -> Any:
        if name == "clip":
            return release(code, noise, 10**6)
        if name == "noise":
            noise[:] = 0
        if name == "half":
            noise //= 2
        return release(code, noise, clip_norm)

    _put(loop_module, "release", broken)


def _reuse() -> None:
    draw, kept = Sampler.draw, list[Any]()

    def stale(sampler: Sampler) -> NoiseSample:
        kept.append(kept[0] if kept else draw(sampler).take().copy())
        return NoiseSample(kept[0].copy())

    _put(Sampler, "draw", stale)


def _listen(then: Callable[[EyeClient, Any], Any]) -> None:
    """Do something with every code before the core gets it."""
    ask = EyeClient.code

    def code(eye: EyeClient, slot: int, timeout_s: float) -> Any:
        found = ask(eye, slot, timeout_s)
        _heard[0] = None if found is None else found.copy()
        then(eye, found)
        return found

    _put(EyeClient, "code", code)


def _log_the_code() -> None:
    _listen(lambda eye, found: loop_module.log.info("code %s", found))


def _log_misses() -> None:
    _listen(lambda eye, found: loop_module.log.warning("the eye is late") if found is None else None)


def _write_the_code() -> None:
    def write(eye: EyeClient, found: Any) -> None:
        with open(_state_dir() + "/last.npy", "wb") as file:
            file.write(b"" if found is None else found.tobytes())

    _listen(write)


def _state_dir() -> str:
    config = sys.argv[sys.argv.index("--config") + 1]
    return config.removesuffix(".toml") + "-state"


def _say_a_bit(field: str, step: int) -> None:
    """Say in another field of the release whether a code came."""
    _listen(lambda eye, found: None)
    fill = publisher.fill_message

    def filled(boot_id: int, model_id: int, charge: Any, z: Any, level: int, flags: int, time_s: int) -> Any:
        bit = step * (_heard[0] is None)
        given = {"boot_id": boot_id, "model_id": model_id, "level": level, "flags": flags, "time_s": time_s}
        given[field] += bit
        return fill(given["boot_id"], given["model_id"], charge, z, given["level"], given["flags"], given["time_s"])

    _put(loop_module, "fill_message", filled)


def _words_in_the_state() -> None:
    update, ask = Publisher.update_state, list[EyeClient]()
    _listen(lambda eye, found: ask.append(eye))

    def updated(own: Publisher, **fields: Any) -> None:
        update(own, **fields, software=f"veilsight: {ask[-1].says}")

    _put(Publisher, "update_state", updated)


def _watching_at_once() -> None:
    _put(Watching, "note", lambda rule, slot, answered: answered)


def _no_release_without_a_code() -> None:
    _listen(lambda eye, found: None)
    send = Publisher.send

    def sent(own: Publisher, name: str, payload: Sealed) -> None:
        if name != "features" or _heard[0] is not None:
            send(own, name, payload)

    _put(Publisher, "send", sent)


def _shorter_without_a_code() -> None:
    _listen(lambda eye, found: None)
    send = Publisher.send

    def sent(own: Publisher, name: str, payload: Sealed) -> None:
        send(own, name, payload if name != "features" or _heard[0] is not None else Sealed(payload[:-1]))

    _put(Publisher, "send", sent)


def _release_at_once() -> None:
    """Not at the deadline, which lies half a slot after the slot's end, but when everything is done."""
    wait = SlotClock.wait

    def hurried(clock: SlotClock, until: float) -> bool:
        return wait(clock, clock.now() if 0.25 < until / clock.slot_s % 1 < 0.75 else until)

    _put(SlotClock, "wait", hurried)


def _read_any_slot() -> None:
    def read(record: Any, received: int, slot: int, n: int) -> Any:
        return core.read_code(record, received, int(record[:8].view("<u8")[0]), n)

    _put(clients, "read_code", read)


def _obey_last() -> None:
    follow = EyeClient.__init__
    _put(EyeClient, "__init__", lambda eye, child, n, follows: follow(eye, child, n, True))


def _end_with_the_eye() -> None:
    def ends(eye: EyeClient, gone: bool) -> None:
        raise SystemExit(5)

    _put(EyeClient, "_miss", ends)


def _keep_what_is_printed() -> None:
    start: Any = subprocess.Popen

    def started(*command: Any, **options: Any) -> Any:
        return start(*command, **{**options, "stdout": None, "stderr": None})

    _put(subprocess, "Popen", started)


FAULTS: Mapping[str, Callable[[], None]] = {
    "none": lambda: None,
    "the clip is skipped": lambda: _without("clip"),
    "no noise": lambda: _without("noise"),
    "half sigma": lambda: _without("half"),
    "noise is used again": _reuse,
    "the code is logged": _log_the_code,
    "a miss is logged": _log_misses,
    "the code is written": _write_the_code,
    "a bit in the flags": lambda: _say_a_bit("flags", 1),
    "a bit in the time": lambda: _say_a_bit("time_s", 60),
    "a bit in the boot": lambda: _say_a_bit("boot_id", 1),
    "the eye's word is in the state": _words_in_the_state,
    "not watching is told at once": _watching_at_once,
    "no release without a code": _no_release_without_a_code,
    "a shorter release without a code": _shorter_without_a_code,
    "a release as soon as the code is there": _release_at_once,
    "a record of any slot is read": _read_any_slot,
    "a live camera ends when the eye says so": _obey_last,
    "what the eye prints is kept": _keep_what_is_printed,
    "the gate ends with the eye": _end_with_the_eye,
}
"""Name -> what plants it."""

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
