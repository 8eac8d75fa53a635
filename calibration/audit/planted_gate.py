"""`python -m edge_runtime` with a planted eye in the place of its own: `python -m calibration.audit.planted_gate`.

    gate, as the product starts it --spawns--> planted_eye.py --behaviour NAME@KEY, in place of the eye

Everything else is the product's: sampler, ledger, key, broker, clock, reader. `--leaky` breaks the gate as well, for
the controls: it passes on by time, by silence and in its log what the eye says.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from calibration.audit.planted_eye import MARK_BYTES, SIGN
from edge_runtime import app
from edge_runtime.confine import protect_gate
from edge_runtime.gate import children
from edge_runtime.gate.clients import EyeClient
from edge_runtime.gate.core import HEADER_BYTES
from edge_runtime.uplink.publisher import Publisher
from wire.protocol.message import Sealed

__all__ = ["LEAK_S", "main"]

LEAK_S = 0.03
"""Seconds that a leaky gate waits."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the gate and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="calibration.audit.planted_gate", description="the gate with a planted eye, for audits", allow_abbrev=False
    )
    parser.add_argument("--eye", required=True, metavar="NAME@KEY", help="how the eye behaves")
    parser.add_argument("--leaky", action="store_true", help="break the gate as well")
    given, own = parser.parse_known_args(argv)
    children.CHILDREN = {**children.CHILDREN, "eye": "calibration.audit.planted_eye"}

    def spawn(name: str, extra: tuple[str, ...] = ()) -> Callable[[], children.Running]:
        return children.spawned(name, (*(("--behaviour", given.eye) if name == "eye" else ()), *extra))

    _put(app, "spawned", spawn)
    if given.leaky:
        _leak()
    protect_gate()
    return app.main(own)


def _leak() -> None:
    ask, send = EyeClient.code, Publisher.send
    said: list[npt.NDArray[np.int16] | None] = [None]

    def look(client: EyeClient, slot: int, timeout_s: float) -> npt.NDArray[np.int16] | None:
        code = ask(client, slot, timeout_s)
        said[0] = None if code is None else code[:1].copy()
        hidden = client._record[HEADER_BYTES - MARK_BYTES : HEADER_BYTES]
        if hidden.any():
            logging.getLogger("veilsight").info("a record with %s", hidden.tobytes().hex())
        return code

    def pass_on(publisher: Publisher, name: str, payload: Sealed) -> None:
        if name == "features" and said[0] is None:
            return
        if name == "features" and said[0] is not None and int(said[0][0]) == SIGN:
            time.sleep(LEAK_S)
        send(publisher, name, payload)

    _put(EyeClient, "code", look)
    _put(Publisher, "send", pass_on)


def _put(owner: object, name: str, planted: object) -> None:
    """Replace a part of the product, as no product does."""
    setattr(owner, name, planted)


if __name__ == "__main__":
    sys.exit(main())
