"""What a device of `benchmarks.faults` notes of itself, and the judge of a campaign.

    charged, late, put  --Note, a line each-->  judge  <--Heard-- releases that a listener opened
                                                  ^------ what was done to the device, and what it counted

Each slot that was charged must have been released once, or counted as late; each release must have come once and in
order, or be counted by the outbox; and nothing may have two noises. What a judge excuses is bounded: what lay behind
the damage of a file, and the release and verdict that a killed process had in its hands.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["CHARGED", "FAULT", "LATE", "PUT", "Ended", "Heard", "Note", "digest", "judge", "read_notes"]

CHARGED, LATE, PUT, FAULT = "charged", "late", "put", "fault"
_IN_HAND = 2  # a release and its verdict


class Note(NamedTuple):
    """One line. process: its id; slot: the one that was charged last; name, digest: of what was put; or of a fault."""

    kind: str
    process: int
    slot: int
    name: str
    digest: str

    def line(self) -> str:
        """As it is written."""
        return " ".join(map(str, self)) + "\n"


class Heard(NamedTuple):
    """A release as a listener got it; digest: of its payload."""

    boot_id: int
    slot: int
    digest: str


@dataclass(frozen=True)
class Ended:
    """A campaign at its end.

    Attributes:
        notes: Of all processes, in order.
        heard: Releases in the order they came, those that came twice included.
        others: Digests of the other messages that were heard.
        damaged: Digests of what lay behind damage in a file.
        killed: Processes that were killed.
        lost: What the outbox counted as lost, over all processes.
        by_itself: Exit status of each process that ended though nobody asked it to.
        restless: Parts that were started anew though nothing had been done to them for a while.
        unsigned: Releases that the device's key did not sign.
    """

    notes: Sequence[Note]
    heard: Sequence[Heard]
    others: Collection[str]
    damaged: Collection[str]
    killed: Collection[int]
    lost: int
    by_itself: Sequence[int]
    restless: Sequence[str]
    unsigned: int


def digest(payload: bytes) -> str:
    """Names a payload."""
    return hashlib.sha256(payload).hexdigest()[:24]


def read_notes(text: str) -> list[Note]:
    """Read the lines of `Note.line`."""
    words = (line.split() for line in text.splitlines())
    return [Note(kind, int(process), int(slot), name, of) for kind, process, slot, name, of in words]


def judge(ended: Ended) -> tuple[dict[str, int], list[str]]:
    """(figures, what is wrong)."""
    wrong = [*_slots(ended.notes), *_delivery(ended)]
    puts = [note for note in ended.notes if note.kind == PUT]
    missing, excused, during = _missing(ended)
    if missing - excused > ended.lost:
        where = ", ".join(f"{name} {count}" for name, count in during.most_common())
        wrong.append(f"{missing - excused - ended.lost} messages are missing and not counted; put during {where}")
    wrong += [f"the device ended by itself, exit status {status}" for status in ended.by_itself]
    wrong += [f"the {name} was started anew though nothing was done to it" for name in ended.restless]
    figures = {
        "charged": sum(note.kind == CHARGED for note in ended.notes),
        "late": sum(note.kind == LATE for note in ended.notes),
        "put": len(puts),
        "missing": missing,
        "... of them excused": excused,
        "counted as lost": ended.lost,
        "heard twice": len(ended.heard) - len(set(ended.heard)),
        "killed": len(ended.killed),
    }
    return figures, wrong


def _slots(notes: Sequence[Note]) -> list[str]:
    """What is wrong between charges and releases, within each process."""
    wrong, last = list[str](), dict[int, int]()
    charged: Counter[tuple[int, int]] = Counter()
    released, late = defaultdict[tuple[int, int], set[str]](set), set[tuple[int, int]]()
    for kind, process, slot, name, of in notes:
        where = process, slot
        if kind == FAULT:
            continue
        if kind == CHARGED:
            if slot <= last.get(process, -1):
                wrong.append(f"slot {slot} was charged after slot {last[process]}")
            charged[where] += 1
            last[process] = slot
        elif kind == LATE:
            late.add(where)
        elif name == "features":
            released[where].add(of)
    twice = sum(len(digests) > 1 for digests in released.values())
    if twice:
        wrong.append(f"{twice} slots were noised twice")
    if unpaid := released.keys() - charged.keys():
        wrong.append(f"{len(unpaid)} slots were released and not charged")
    if both := released.keys() & late:
        wrong.append(f"{len(both)} slots were late and released")
    open_slots = {where for where in charged if last[where[0]] != where[1]} - released.keys() - late
    if open_slots:
        wrong.append(f"{len(open_slots)} charged slots were neither released nor counted as late")
    return wrong


def _delivery(ended: Ended) -> list[str]:
    """What is wrong with what was heard."""
    wrong, places = list[str](), dict[tuple[int, int], set[str]]()
    for boot_id, slot, of in ended.heard:
        places.setdefault((boot_id, slot), set()).add(of)
    if [*places] != sorted(places):
        wrong.append("releases came out of order")
    if any(len(digests) > 1 for digests in places.values()):
        wrong.append("a slot was heard with two noises")
    if {each.digest for each in ended.heard} - {note.digest for note in ended.notes}:
        wrong.append("a release was heard that nobody put")
    if ended.unsigned:
        wrong.append(f"{ended.unsigned} releases are not signed by the device")
    return wrong


def _missing(ended: Ended) -> tuple[int, int, Counter[str]]:
    """Messages that were put and not heard, how many are excused, and during which fault the others were put."""
    heard = {each.digest for each in ended.heard} | {*ended.others}
    last = defaultdict[int, list[str]](list)
    for note in ended.notes:
        if note.kind == PUT:
            last[note.process].append(note.digest)
    excused = {of for process in ended.killed for of in last[process][-_IN_HAND:]} | {*ended.damaged}
    missing = of_them = 0
    during, fault = Counter[str](), "the start"
    for note in ended.notes:
        fault = note.name if note.kind == FAULT else fault
        if note.kind == PUT and note.digest not in heard:
            missing += 1
            of_them += note.digest in excused
            during[fault] += note.digest not in excused
    return missing, of_them, during
