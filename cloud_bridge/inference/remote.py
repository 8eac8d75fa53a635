"""The cloud member on a server; where that does not answer, or answers nonsense, the edge's exit reads instead.

    events --dialect: asks, checks the answer--> readings "cloud"
                 |  one deadline for all
                 `--no answer, or one that is none--> the edge's exit, here --> "edge"; then a pause

The verdicts of the edge's exit are a function of the same z as the device's own. After a failure the server is left
alone for a second, then for twice as long each time up to 30, so a server that hangs holds the bridge up for
`member_timeout_s` twice a minute and no more. This process holds the adapter and the edge member's blocks alone.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch

from cloud_bridge.inference.member import MAX_BATCH, Reading, event_tensors
from cloud_bridge.ingest.events import Event
from wire.errors import RemoteError

if TYPE_CHECKING:
    from familial.model.family import Family

__all__ = ["Dialect", "RemoteMember"]

_LOG = logging.getLogger("cloud_bridge")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0

T = TypeVar("T")


class Dialect(Protocol):
    """How one kind of server is asked, and what of its answers is believed. Events that are left out it cannot read."""

    async def questions(self, events: Sequence[Event]) -> list[tuple[Event, Reading]]:
        """Have at most 64 events read. Raises RemoteError."""

    async def sentences(self, events: Sequence[Event], labels: Sequence[int]) -> list[tuple[Event, str]]:
        """Have at most 64 events told in words. labels: index of the label of each. Raises RemoteError."""

    async def close(self) -> None:
        """End the connections."""


class RemoteMember:
    """Reads events on a server.

    Attributes:
        trouble: Why the last events were not read there; "" where they were.
    """

    def __init__(
        self,
        family: Family,
        dialect: Dialect,
        answer_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask nothing yet.

        Args:
            family: With the edge member's blocks at least.
            dialect: Of the server.
            answer_s: For all that one call asks.
            clock: Seconds.
        """
        self._family, self._config, self._dialect = family, family.config, dialect
        self._answer_s, self._clock, self._runner = answer_s, clock, asyncio.Runner()
        self._closed_until_s, self._pause_s = -1.0, 0.0
        self._labels = dict[Event, int]()  # of the events that were read last
        self.trouble = ""

    def read(self, events: Sequence[Event]) -> list[Reading]:
        """Return one reading for each event, in order: the server's, or the edge exit's."""
        by_event = dict(pair for pairs in self._ask(events, self._dialect.questions) for pair in pairs)
        missing = [event for event in events if event not in by_event]
        by_event |= dict(zip(missing, self._edge(missing), strict=True))
        readings = [by_event[event] for event in events]
        self._labels = {
            event: max(range(len(self._config.labels)), key=list(reading.probabilities.values()).__getitem__)
            for event, reading in zip(events, readings, strict=True)
            if reading.member == "cloud"
        }
        return readings

    def describe(self, events: Sequence[Event]) -> list[str]:
        """Return what happens in each of the events that were read last, in words; "" where the server does not say."""
        known = [event for event in events if event in self._labels]
        words = dict(pair for pairs in self._ask(known, self._sentences) for pair in pairs)
        return [words.get(event, "") for event in events]

    def close(self) -> None:
        """End the connections."""
        self._run(self._dialect.close())
        self._runner.close()

    def _run(self, what: Coroutine[Any, Any, T]) -> T:
        """Run to its end; without `Runner.run`, which writes out all arguments when it sets a handler of Ctrl+C."""
        return self._runner.get_loop().run_until_complete(what)

    # --- one call

    def _ask(
        self, events: Sequence[Event], about: Callable[[Sequence[Event]], Coroutine[Any, Any, list[tuple[Event, T]]]]
    ) -> list[list[tuple[Event, T]]]:
        """Ask about the events, 64 at a time, all within one deadline; returns what is answered of each batch."""
        batches = [events[start : start + MAX_BATCH] for start in range(0, len(events), MAX_BATCH)]
        if not batches or self._clock() < self._closed_until_s:
            return []
        answers, faults = self._run(self._all([about(batch) for batch in batches]))
        self._note(next((fault for fault in faults if fault), ""))
        return [answer for answer in answers if answer is not None]

    async def _all(self, asked: Sequence[Coroutine[Any, Any, T]]) -> tuple[list[T | None], list[str]]:
        """Wait for all until the deadline; returns what came and, for each, why it did not ("")."""
        tasks = [asyncio.ensure_future(each) for each in asked]
        _, late = await asyncio.wait(tasks, timeout=self._answer_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        answers, faults = list[T | None](), list[str]()
        for task in tasks:
            try:
                answers.append(task.result())
                faults.append("")
            except asyncio.CancelledError:
                answers.append(None)
                faults.append(f"no answer within {self._answer_s:g} s")
            except RemoteError as error:
                answers.append(None)
                faults.append(str(error))
        return answers, faults

    def _note(self, fault: str) -> None:
        """Pause after a fault; say in the log when trouble begins and ends."""
        if fault:
            self._pause_s = min(_LONGEST_PAUSE_S, max(_FIRST_PAUSE_S, 2.0 * self._pause_s))
            self._closed_until_s = self._clock() + self._pause_s * random.uniform(0.8, 1.2)
        else:
            self._pause_s = 0.0
        if fault and not self.trouble:
            _LOG.warning("the cloud member's server: %s; the edge's exit reads in its place", fault)
        elif self.trouble and not fault:
            _LOG.warning("the cloud member's server answers again")
        self.trouble = fault

    async def _sentences(self, events: Sequence[Event]) -> list[tuple[Event, str]]:
        return await self._dialect.sentences(events, [self._labels[event] for event in events])

    def _edge(self, events: Sequence[Event]) -> list[Reading]:
        """Read at the edge's exit, which has no attributes."""
        rows = list[list[float]]()
        for start in range(0, len(events), MAX_BATCH):
            with torch.inference_mode():
                logits = self._family.edge_logits(*event_tensors(events[start : start + MAX_BATCH]))
                rows += torch.softmax(logits.double(), dim=1).tolist()
        return [Reading(dict(zip(self._config.labels, row, strict=True)), member="edge") for row in rows]
