"""The real gate with a hostile eye or reader in the place of its own: `python -m benchmarks.privacy.hostile_gate`.

    gate, as `python -m edge_runtime` starts it --spawns--> MODULE --behaviour NAME, in place of the eye or the reader

Everything else is the product's: sampler, ledger, key, broker, clock. `--leaky` breaks the gate as well, for a control:
it waits before it publishes a release whose code says so.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from edge_runtime import app
from edge_runtime.confine import protect_gate
from edge_runtime.gate import children
from edge_runtime.gate.clients import EyeClient
from edge_runtime.uplink.publisher import Publisher
from wire.protocol.message import Sealed

__all__ = ["LEAK_S", "SIGN", "hostile_gate", "main"]

LEAK_S = 0.08
"""Seconds that the leaky gate waits."""
SIGN = 1
"""A code whose first coordinate is this makes the leaky gate wait."""


def hostile_gate(eye: str = "", reader: str = "", leaky: bool = False) -> list[str]:
    """The command line of this gate, up to the gate's own options; eye, reader: "MODULE:NAME", or "" for its own."""
    options = [f"--{name}={text}" for name, text in (("eye", eye), ("reader", reader)) if text]
    return [sys.executable, "-m", __spec__.name if __spec__ else __name__, *options, *(["--leaky"] if leaky else [])]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the gate and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.privacy.hostile_gate", description="the gate with a hostile child", allow_abbrev=False
    )
    parser.add_argument("--eye", default="", metavar="MODULE:NAME", help="its module, and how it behaves")
    parser.add_argument("--reader", default="", metavar="MODULE:NAME", help="its module, and how it behaves")
    parser.add_argument("--leaky", action="store_true", help="wait before publishing where the code says so")
    given, own = parser.parse_known_args(argv)
    _replace({name: text for name, text in (("eye", given.eye), ("reader", given.reader)) if text})
    if given.leaky:
        _leak()
    protect_gate()
    return app.main(own)


def _replace(hostile: dict[str, str]) -> None:
    """Spawn the modules of `hostile`, name -> "MODULE:NAME", in place of the children of those names."""
    modules = {name: text.partition(":")[0] for name, text in hostile.items()}
    children.CHILDREN = {**children.CHILDREN, **modules}

    def spawn(name: str, extra: tuple[str, ...] = ()) -> Callable[[], children.Running]:
        behaviour = ("--behaviour", hostile[name].partition(":")[2]) if name in hostile else ()
        return children.spawned(name, (*behaviour, *extra))

    _put(app, "spawned", spawn)


def _put(where: object, name: str, what: object) -> None:
    """Replace a part of the product."""
    setattr(where, name, what)


def _leak() -> None:
    """Make the gate wait where the eye says so."""
    ask, send = EyeClient.code, Publisher.send
    waits = [False]

    def look(client: EyeClient, slot: int, timeout_s: float) -> npt.NDArray[np.int16] | None:
        code = ask(client, slot, timeout_s)
        waits[0] = code is not None and int(code[0]) == SIGN
        return code

    def wait(publisher: Publisher, name: str, payload: Sealed) -> None:
        time.sleep(LEAK_S * (waits[0] and name == "features"))
        send(publisher, name, payload)

    _put(EyeClient, "code", look)
    _put(Publisher, "send", wait)


if __name__ == "__main__":
    sys.exit(main())
