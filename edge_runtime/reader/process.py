"""The reader: the edge member's verdict on an event, from z alone.

    gate --Event (published z)--> decide --> label probabilities --Verdict--> gate

    python -m edge_runtime.reader.process --descriptor N | --socket /run/veilsight/reader.sock

It keeps nothing: each event comes whole. It has no frames, noise, key or network, and no native runtime of networks,
which could hear the eye through the machine's load: `decide` runs in NumPy alone (`edge_runtime/reader/member.py`). So
whatever it answers is a function of what was published, for any graph and any weights.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from edge_runtime.child import ChildProcess, run_child
from edge_runtime.memory import give_back
from edge_runtime.reader.member import EdgeMember
from edge_runtime.record import event_size, read_event, verdict_bytes
from wire.errors import EngineError
from wire.protocol.event import EventWindow

__all__ = ["main"]

_IDLE_S = 60.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the reader and return its exit status."""
    return run_child("reader", argv, _open)


def _open(child: ChildProcess) -> None:
    """Open the engine's `decide`, then answer the gate until it is gone."""
    manifest = child.manifest
    event = EventWindow(manifest.event_releases, manifest.tokens, manifest.width)
    data = np.zeros(event_size(event) + 1, np.uint8)
    member = EdgeMember(child.settings.engine_folder, manifest)
    if child.checks:
        child.say("decide: opened")
        return
    give_back()
    while (length := child.link.newest(data, _IDLE_S)) != 0:
        if length != event_size(event):
            continue
        read_event(data, event)
        try:
            probabilities = member.decide(event)
        except EngineError:  # the gate counts an event without a verdict
            continue
        child.link.send(verdict_bytes(event.last_slot, list(probabilities.values())))


if __name__ == "__main__":
    sys.exit(main())
