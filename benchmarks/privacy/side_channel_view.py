"""What a listener on the network sees of one camera: a table of slots, without the noised content.

messages --> per slot: which topics, when, how long, every field but z and the signature --> `Seen`
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.harness import Rig
from benchmarks.listener import Record
from edge_runtime.reader.member import EdgeMember
from wire.protocol.event import EventWindow
from wire.protocol.topics import parse_topic

__all__ = ["Floats", "Seen", "by_the_kernel", "observe", "recomputed", "tampered"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """What the listener has of slots 0 to the last.

    Attributes:
        columns: names of the columns.
        rows: float64 (slots, columns), NaN where a message did not come.
        begin: when slot 0 began, wall clock, as estimated from the messages.
        spent: bool (slots,), whether the release said that the budget is spent.
    """

    columns: tuple[str, ...]
    rows: Floats
    begin: float
    spent: npt.NDArray[np.bool_]


def observe(records: Sequence[Record], rig: Rig, camera: str, slot_s: float, speed: float = 1.0) -> Seen:
    """The records of one camera as a table: per slot, and nothing that is a function of z or a signature."""
    ours = [r for r in records if (parsed := parse_topic(r.topic)) and parsed[1] == camera and r.payload]
    heard = rig.hear(ours, camera)
    size = {(r.at, r.topic.partition(camera + "/")[2]): r for r in ours}
    step = slot_s / speed
    last = max(message.slot for _, message in heard.features)
    releases = {m.slot: (at, m, size[at, "features"].payload) for at, m in heard.features}
    verdicts = {v.last_slot: (at, v, size[at, "verdict/edge"].payload) for at, v in heard.verdicts}
    base = float(np.median([at - m.slot * step for at, m in heard.features]))
    table: dict[str, Floats] = {}

    def put(name: str, slot: int, value: float) -> None:
        table.setdefault(name, np.full(last + 1, np.nan))[slot] = value

    for slot, (at, release, payload) in releases.items():
        put("features: late", slot, at - base - slot * step)
        put("features: interval", slot, at - releases.get(slot - 1, (math.nan,))[0])
        put("features: size", slot, len(payload))
        for name in ("boot_id", "model_id", "flags", "level"):
            put(f"features: {name}", slot, float(getattr(release, name)))
    for slot, (at, verdict, payload) in verdicts.items():
        put("verdict: after the features", slot, at - releases.get(slot, (math.nan,))[0])
        put("verdict: size", slot, len(payload))
        put("verdict: first_slot", slot, verdict.first_slot - max(0, slot + 1 - len(verdict.present)))
        put("verdict: present", slot, float(sum(here << k for k, here in enumerate(verdict.present))))
        put("verdict: start_s", slot, verdict.start_s - verdict.first_slot * slot_s)
        put("verdict: end_s", slot, verdict.end_s - (slot + 1) * slot_s)
        put("verdict: sentence", slot, len(verdict.sentence))
        for name in ("boot_id", "model_id"):
            put(f"verdict: {name}", slot, float(getattr(verdict, name)))
    for record in ours:
        slot = math.floor((record.at - base) / step + 0.5)
        if 0 <= slot <= last:
            name = f"topic {record.topic.partition(camera + '/')[2]}"
            table.setdefault(name, np.zeros(last + 1))[slot] += 1
    names = tuple(sorted(table))
    spent = np.array([slot in releases and releases[slot][1].flags != 0 for slot in range(last + 1)])
    begin = base - step  # a release comes a little after its slot's end: the rest is the delay, the same for all
    return Seen(names, np.stack([table[name] for name in names], axis=1), begin, spent)


def recomputed(records: Sequence[Record], rig: Rig, camera: str) -> tuple[int, int]:
    """(verdicts whose probabilities follow from the published z of their releases, all verdicts that were heard)."""
    heard, manifest = rig.hear(records, camera), rig.manifest
    member = EdgeMember(rig.engine, manifest)
    event = EventWindow(manifest.event_releases, manifest.tokens, manifest.width)
    said: dict[int, Mapping[str, float]] = {}
    for _, release in sorted(heard.features, key=lambda each: each[1].slot):
        if release.flags & 1:
            continue
        event.push(release.slot, release.z, manifest.weights[release.level])
        said[release.slot] = member.decide(event)
    mine = [verdict for _, verdict in heard.verdicts]
    same = [v for v in mine if _close(v.probabilities, said.get(v.last_slot, {}))]
    return len(same), len(mine)


def _close(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return one.keys() == other.keys() and all(abs(one[label] - other[label]) < 1e-6 for label in one)


def by_the_kernel(seen: Seen, released: Sequence[float], step_s: float) -> Seen:
    """The same run with the times at which the kernel got the releases, in order, for those of the listener.

    A listener on the device's own processor is delayed by what the eye does there, and on the network by nothing.
    """
    late = seen.columns.index("features: late")
    slots = np.flatnonzero(~np.isnan(seen.rows[:, late]))
    rows, at = seen.rows.copy(), np.full(len(seen.rows), np.nan)
    at[slots] = released
    rows[:, late] = at - np.arange(len(at)) * step_s - released[0]
    rows[1:, seen.columns.index("features: interval")] = np.diff(at)
    return Seen(seen.columns, rows, seen.begin, seen.spent)


def tampered(seen: Seen, column: str, where: npt.NDArray[np.bool_], by: float) -> Seen:
    """The same run with something planted: `by` added to a column in some slots."""
    rows = seen.rows.copy()
    rows[where, seen.columns.index(column)] += by
    return Seen(seen.columns, rows, seen.begin, seen.spent)
