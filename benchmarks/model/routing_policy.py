"""Which exit answers an event, from z and the link alone: a threshold with a guarantee, and a queue before the link.

    confidence of the edge's exit  > threshold: its verdict stands
                                  <= threshold: the cloud is asked, the least confident first, where the queue has room
    link --bytes a second, outages--> the cloud's verdict takes the place of the edge's when it comes, or never

Every event has the edge's verdict at once, whatever is decided here, and nothing here is told to a device: what it
publishes does not depend on it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["LINKS", "Link", "Routed", "risk_controlled", "simulate"]

Floats = npt.NDArray[np.float64]


def risk_controlled(confidence: Sequence[Floats], differs: Sequence[npt.NDArray[np.bool_]], level: float) -> float:
    """Return the least threshold at which the edge's exit answers wrongly no more often than `level`, in expectation.

    Conformal risk control (Angelopoulos, Bates, Fisch, Lei, Schuster 2022, arXiv 2208.02814, theorem 1): for n + 1
    exchangeable units with losses L_i(t) in [0, 1] that fall with t, the least t with
    (L_1(t) + ... + L_n(t) + 1) / (n + 1) <= level has E[L_{n+1}(t)] <= level. Here L_i(t) is the share of a unit's
    events that the edge's exit answers at t, although the cloud's exit would have called them otherwise.

    Args:
        confidence: of each unit (a clip, a place), float (E,) in 0 to 1.
        differs: of each unit, bool (E,): whether the two exits differ.
        level: the share that is allowed.

    Returns:
        The threshold; 1, with which the edge's exit never answers, where n is too small for the level.
    """
    weights = [1.0 / max(1, len(each)) for each in confidence]
    wrong = [
        (float(value), weight)
        for each, other, weight in zip(confidence, differs, weights, strict=True)
        for value in each[other]
    ]
    allowed = level * (len(confidence) + 1) - 1.0  # for the sum of the losses
    threshold, lost = 1.0, 0.0  # at a threshold of 1 nothing is lost
    if allowed < 0.0:
        return threshold
    for value, weight in sorted(wrong, reverse=True):
        if lost + weight > allowed:
            return value  # the edge's exit answers above it, and this event is the first too many
        lost += weight
    return 0.0


@dataclass(frozen=True, slots=True)
class Link:
    """A made link, as mahimahi's traces are: capacity that is not used in its second is lost.

    Attributes:
        mean: bytes a second.
        spread: of the logarithm of the rate, which wanders (first-order, one minute).
        outage_s: seconds without the link,
        every_s: once in so many; 0: never.
        delay_s: there and back.
    """

    mean: float
    spread: float = 0.0
    outage_s: int = 0
    every_s: int = 0
    delay_s: float = 0.05

    def rates(self, seconds: int, seed: int) -> Floats:
        """Bytes in each second, float (seconds,)."""
        rng, keep = np.random.default_rng(seed), math.exp(-1.0 / 60.0)
        steps, walk = rng.normal(0.0, self.spread * math.sqrt(1.0 - keep**2), seconds), np.zeros(seconds)
        walk[0] = rng.normal(0.0, self.spread) if self.spread else 0.0
        for second in range(1, seconds):
            walk[second] = keep * walk[second - 1] + steps[second]
        rates = self.mean * np.exp(walk - self.spread**2 / 2.0)
        if self.every_s:
            rates[np.arange(seconds) % self.every_s >= self.every_s - self.outage_s] = 0.0
        return np.asarray(rates, np.float64)


LINKS = {
    "wired": Link(10e6),
    "mobile": Link(60e3, 0.8, delay_s=0.1),
    "mobile, outages": Link(60e3, 0.8, 60, 300, 0.1),
    "narrow": Link(12e3, 0.8, delay_s=0.3),
}
"""Name -> link; for eight cameras."""


@dataclass(frozen=True, slots=True)
class Routed:
    """What became of N events.

    Attributes:
        asked: bool (N,): put into the queue.
        answered_s: float (N,): from an event to the cloud's verdict on it; inf where there is none.
    """

    asked: npt.NDArray[np.bool_]
    answered_s: Floats


def simulate(
    at_s: npt.NDArray[np.int64],
    confidence: Floats,
    threshold: float,
    link: Link,
    size: int,
    room: int,
    patience_s: int,
    seed: int,
) -> Routed:
    """Send events over a link.

    Args:
        at_s: int (N,), the second of each, rising.
        confidence: float (N,), of the edge's exit.
        threshold: the cloud is asked at or below it.
        link: the link.
        size: bytes of an event.
        room: events that may wait; of more, the most confident are not asked.
        patience_s: after so long a waiting event is given up: nobody wants the verdict any more.
        seed: of the link.
    """
    last = int(at_s[-1]) + patience_s
    rates, answered_s = link.rates(last + 1, seed), np.full(len(at_s), np.inf)
    asked, waiting = np.zeros(len(at_s), bool), list[tuple[float, int]]()
    new, part = 0, 0.0
    for second in range(last + 1):
        while new < len(at_s) and at_s[new] == second:
            if confidence[new] <= threshold:
                asked[new] = True
                heapq.heappush(waiting, (float(confidence[new]), new))
            new += 1
        waiting = [entry for entry in waiting if second - at_s[entry[1]] < patience_s]
        heapq.heapify(waiting)
        if len(waiting) > room:
            waiting = heapq.nsmallest(room, waiting)
        part += rates[second]
        while waiting and part >= size:
            _, event = heapq.heappop(waiting)
            part -= size
            answered_s[event] = second - at_s[event] + link.delay_s
        part = min(part, float(size)) if waiting else 0.0
    return Routed(asked, answered_s)
