"""`python -m benchmarks.serving`: what it costs to read events on a server, over reading them in this process.

    events --> the checkpoint in this process ---------------------------------> ms a call    (the peer)
           `-> prompts, HTTP, a stand-in for vLLM in a process of its own -----> ms a call    the same readings
           `-> the same without the stand-in's forward: the way there and back -> ms a call
           `-> a server that is not there: the edge's exit ---------------------> ms a call

The stand-in (benchmarks/cloud/fake_vllm.py) computes the same blocks on this CPU, so the difference is the price of the
way: adapter, checks, torch.save, base64, JSON, HTTP, and the same again on the other side. It says nothing of vLLM's
own speed, or of a GPU's. One thread each; calls take turns, and the median of them counts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from benchmarks.harness import add_checkpoint
from benchmarks.runner import Benchmark, Report
from cloud_bridge.ingest.events import Event
from wire.arguments import at_least_one
from wire.errors import RemoteError

if TYPE_CHECKING:
    from cloud_bridge.inference.member import Member
    from familial.model.family import Family

__all__ = ["COMMAND"]

_SIZES = (1, 8, 64)  # events of a call
_GAPS = ((4,), (6,), (2, 5), (1, 3, 4, 6), (1, 2, 3, 4, 5))  # releases that are missing
_PATIENCE_S = 300.0
_NOBODY = "http://127.0.0.1:9/v1"
_NAME = "stand-in"


def _serve(folder: Path, canned: bool, told: Connection) -> None:
    """The other process: serve until the pipe is closed."""
    import torch

    from benchmarks.cloud.fake_vllm import FakeVllm

    torch.set_num_threads(1)
    with FakeVllm(folder, _NAME) as server:
        server.canned, server.keeps = canned, False
        told.send(server.url)
        told.poll(None)


@contextmanager
def _server(folder: Path, canned: bool) -> Iterator[str]:
    """The address of a stand-in in a process of its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(folder, canned, there), daemon=True)
    process.start()
    there.close()
    try:
        if not here.poll(_PATIENCE_S):
            raise RemoteError("the stand-in does not start")
        yield here.recv()
    finally:
        here.close()
        process.join(10.0)
        process.kill()


@contextmanager
def _remote(family: Family, url: str) -> Iterator[Member]:
    from cloud_bridge.inference.endpoint import Endpoint
    from cloud_bridge.inference.remote import RemoteMember
    from cloud_bridge.inference.vllm import VllmDialect

    endpoint = Endpoint(f"{url}/completions", "", ssl.create_default_context(), _PATIENCE_S)
    with closing(RemoteMember(family, VllmDialect(family, _NAME, endpoint), _PATIENCE_S)) as member:
        yield member


def _events(family: Family, count: int) -> list[Event]:
    """Of noise alone, as a quiet camera sends it."""
    config, rng = family.config, np.random.default_rng(7)
    shape = (count, config.event_releases, config.tokens, config.width)
    noise = np.rint(rng.normal(0.0, config.sigma, shape)).astype(np.int32)
    present = np.ones(config.event_releases, bool)
    return [Event("site/camera", 1, slot, slot + len(present) - 1, z, present) for slot, z in enumerate(noise)]


def _timed(members: Mapping[str, Member], events: Sequence[Event], repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a call of each member, by the wall's clock and of this process's CPU time.

    Medians of `repeats` that take turns, after one that is not counted.
    """
    clocks = {"wall": time.perf_counter, "cpu": time.process_time}
    took: dict[str, dict[str, list[float]]] = {name: {clock: [] for clock in clocks} for name in members}
    for turn in range(repeats + 1):
        for name, member in members.items():
            began = {clock: read() for clock, read in clocks.items()}
            member.read(events)
            for clock, read in clocks.items():
                took[name][clock] += [1e3 * (read() - began[clock])] if turn else []
    return {name: {clock: statistics.median(ms) for clock, ms in each.items()} for name, each in took.items()}


def _with_gap(event: Event, holes: Sequence[int]) -> Event:
    present = event.present.copy()
    present[list(holes)] = False
    return replace(event, present=present, z=event.z * present[:, None, None])


def _differences(members: Mapping[str, Member], events: Sequence[Event]) -> npt.NDArray[np.float64]:
    """How far each probability there is from the one here. Raises RemoteError where the server did not read."""
    here, there = members["here"].read(events), members["server"].read(events)
    if any(reading.member != "cloud" for reading in there):
        raise RemoteError("the stand-in did not read an event; its process says why")
    pairs = zip(here, there, strict=True)
    return np.array([abs(a.probabilities[label] - p) for a, b in pairs for label, p in b.probabilities.items()])


def _options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--repeats", type=at_least_one, default=40, help="calls of each size and member (default 40)")


def _measure(args: argparse.Namespace) -> Report:
    import torch

    from cloud_bridge.inference.member import FamilyMember
    from familial.model.causal_lm import write_causal_lm
    from familial.model.checkpoint import load

    torch.set_num_threads(1)
    family, edge = load(args.checkpoint), load(args.checkpoint, edge_only=True)
    events = _events(family, max(_SIZES))
    with tempfile.TemporaryDirectory(prefix="veilsight-serving-") as name:
        folder = Path(name)
        write_causal_lm(Path(args.checkpoint), folder)
        with (
            _server(folder, False) as url,
            _server(folder, True) as canned,
            _remote(edge, url) as server,
            _remote(edge, canned) as way,
            _remote(edge, _NOBODY) as nobody,
        ):
            members = {"here": FamilyMember(family), "server": server, "way": way, "nobody": nobody}
            differs = float(_differences(members, events).max())
            gaps = _differences(members, [_with_gap(event, holes) for event in events for holes in _GAPS])
            found = {size: _timed(members, events[:size], args.repeats) for size in _SIZES}
    figures = {"ms": {str(size): ms for size, ms in found.items()}, "largest_difference": differs}
    figures |= {"gap_mean": float(gaps.mean()), "gap_largest": float(gaps.max())}
    largest = found[max(_SIZES)]
    notes = [
        f"readings differ by {differs:.1e} at most; ratio: of {max(_SIZES)} events a call",
        f"with releases missing in between: by {gaps.mean():.4f} in the mean, {gaps.max():.3f} at most",
        "ms by the wall's clock / of this process's CPU time",
    ]
    return Report(largest["server"]["wall"] / largest["here"]["wall"], figures, _rows(found), notes)


def _rows(found: Mapping[int, Mapping[str, Mapping[str, float]]]) -> list[list[str]]:
    head = ["events a call", "here", "server", "ratio", "the way alone", "nobody there"]
    rows = [head]
    for size, members in found.items():
        here, server, way, nobody = (f"{ms['wall']:.1f} / {ms['cpu']:.1f}" for ms in members.values())
        ratio = members["server"]["wall"] / members["here"]["wall"]
        rows.append([f"{size}", here, server, f"{ratio:.2f}", way, nobody])
    return rows


COMMAND = Benchmark("serving", __doc__, "the checkpoint in this process", _options, _measure)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
