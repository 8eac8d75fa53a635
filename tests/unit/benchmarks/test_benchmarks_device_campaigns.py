"""The judges of the device's campaigns overlook nothing: each fault that is planted in a good run is named."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from benchmarks.device.fault_notes import CHARGED, FAULT, LATE, PUT, Ended, Heard, Note, judge, read_notes
from benchmarks.device.soak import Sample
from benchmarks.device.soak import judge as judge_soak
from familial.evaluate.intervals import slope_interval

FIRST, SECOND = 100, 200  # processes: one that is killed, and the next
BOOTS = {FIRST: 1 << 32 | 7, SECOND: 2 << 32 | 3}
SLOTS = 6


def run_of(process: int) -> list[Note]:
    """Slots 0 to 5, of which slot 3 is late; each release is followed by a verdict."""
    notes = list[Note]()
    for slot in range(SLOTS):
        notes.append(Note(CHARGED, process, slot, "-", "-"))
        if slot == 3:
            notes.append(Note(LATE, process, slot, "-", "-"))
            continue
        notes.append(Note(PUT, process, slot, "features", f"f-{process}-{slot}"))
        notes.append(Note(PUT, process, slot, "verdict/edge", f"v-{process}-{slot}"))
    return notes


def good() -> Ended:
    """All came but the last release and verdict of a process that was killed; one came twice."""
    notes = [*run_of(FIRST), Note(FAULT, 0, 1, "cut", "-"), *run_of(SECOND)]
    puts = [note for note in notes if note.kind == PUT and (note.process, note.slot) != (FIRST, SLOTS - 1)]
    heard = [Heard(BOOTS[note.process], note.slot, note.digest) for note in puts if note.name == "features"]
    others = [note.digest for note in puts if note.name != "features"]
    return Ended(notes, [*heard, heard[-1]], others, [], [FIRST], 0, [], [], 0)


def changed(**fields: object) -> Ended:
    return dataclasses.replace(good(), **fields)  # type: ignore[arg-type]  # of the right types


def noted(*more: Note) -> Ended:
    return changed(notes=[*good().notes, *more])


def heard_without(slot: int) -> list[Heard]:
    return [each for each in good().heard if (each.boot_id, each.slot) != (BOOTS[SECOND], slot)]


def test_a_good_run_is_called_good() -> None:
    figures, wrong = judge(good())
    assert wrong == []
    counts = (figures["charged"], figures["late"], figures["put"], figures["missing"], figures["heard twice"])
    assert counts == (12, 2, 20, 2, 1)


PLANTED: dict[str, tuple[Callable[[], Ended], str]] = {
    "a release that is lost": (
        lambda: changed(heard=heard_without(2)),
        "1 messages are missing and not counted; put during cut 1",
    ),
    "a verdict that is lost": (lambda: changed(others=[*good().others][1:]), "1 messages are missing"),
    "two are lost, one is counted": (
        lambda: changed(heard=heard_without(2), others=[*good().others][1:], lost=1),
        "1 messages are missing",
    ),
    "one is lost before the last of a killed process": (
        lambda: changed(heard=good().heard[1:]),
        "put during the start 1",
    ),
    "the order of two releases": (
        lambda: changed(heard=[good().heard[1], good().heard[0], *good().heard[2:]]),
        "out of order",
    ),
    "an earlier start's release after a later one's": (
        lambda: changed(heard=[*good().heard[4:], *good().heard[:4]]),
        "out of order",
    ),
    "two noises on the wire": (
        lambda: changed(
            heard=[*good().heard, Heard(BOOTS[SECOND], 5, "f-100-5")],
        ),
        "a slot was heard with two noises",
    ),
    "two noises in the device, one of them not delivered": (
        lambda: noted(Note(PUT, SECOND, 5, "features", "another")),
        "1 slots were noised twice",
    ),
    "a slot that is charged again": (
        lambda: noted(Note(CHARGED, SECOND, 5, "-", "-")),
        "slot 5 was charged after slot 5",
    ),
    "a slot that is charged after a later one": (
        lambda: noted(Note(CHARGED, SECOND, 4, "-", "-")),
        "slot 4 was charged after slot 5",
    ),
    "a release that nobody charged": (
        lambda: noted(Note(PUT, SECOND, 9, "features", "unpaid")),
        "1 slots were released and not charged",
    ),
    "a charged slot that vanished": (
        lambda: changed(notes=[each for each in good().notes if each != Note(LATE, SECOND, 3, "-", "-")]),
        "1 charged slots were neither released nor counted as late",
    ),
    "a late slot that is released all the same": (lambda: noted(Note(LATE, SECOND, 4, "-", "-")), "late and released"),
    "a release of nobody": (
        lambda: changed(heard=[*good().heard, Heard(BOOTS[SECOND], 6, "planted")]),
        "a release was heard that nobody put",
    ),
    "a release with another signature": (lambda: changed(unsigned=1), "1 releases are not signed"),
    "a device that ends": (lambda: changed(by_itself=[3]), "the device ended by itself, exit status 3"),
    "an eye that is started over and over": (lambda: changed(restless=["eye"]), "the eye was started anew"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_each_planted_fault_is_named(name: str) -> None:
    ended, words = PLANTED[name]
    wrong = judge(ended())[1]
    assert any(words in each for each in wrong), wrong


def test_what_lay_behind_damage_or_is_counted_is_excused() -> None:
    missing = good().heard[-2]
    for fields in ({"damaged": [missing.digest]}, {"lost": 1}):
        assert judge(changed(heard=[each for each in good().heard if each != missing], **fields))[1] == []


def test_notes_are_read_back() -> None:
    notes = good().notes
    assert read_notes("".join(note.line() for note in notes)) == notes


# --- the soak


def samples(grown: dict[str, float], count: int = 100) -> list[Sample]:
    """A device of one process, whose memory and files end higher by what is `grown`."""
    rng = np.random.default_rng(3)
    made = list[Sample]()
    for index in range(count):
        part = index / (count - 1)
        memory = 40 + 5 * (1 - math.exp(-index)) + 0.05 * rng.normal() + grown.get("memory", 0) * part
        files = 17 + int(grown.get("files", 0) * part + 0.1)
        pid = 7 + (index > count // 2 and bool(grown.get("restart")))
        made.append(Sample(index, 1000 * index, {"gate": memory}, {"gate": files}, {"gate": pid}))
    return made


def wrong_in(made: Sequence[Sample]) -> list[str]:
    return judge_soak(made)[1]


def test_a_flat_device_is_called_flat() -> None:
    figures, wrong = judge_soak(samples({}))
    assert wrong == []
    slope, low, high = figures["gate"]["mb_a_million_windows"]
    assert low <= slope <= high and low < 0 < high  # the caches of its first minutes are no growth


@pytest.mark.parametrize(
    ("grown", "words"),
    [
        ({"memory": 4.0}, "gate: memory has grown by up to"),
        ({"files": 4.0}, "gate: 20 open files, and 17 before"),
        ({"restart": 1.0}, "gate: it was started anew"),
    ],
)
def test_what_grows_is_named(grown: dict[str, float], words: str) -> None:
    assert any(words in each for each in wrong_in(samples(grown)))


def test_a_run_that_is_too_short_is_no_proof() -> None:
    assert "too few" in wrong_in(samples({}, 8))[0]
    assert wrong_in([])


def test_the_interval_of_a_slope_holds_the_true_one() -> None:
    """Of 100 series whose neighbours depend on each other, 85 at least: 95 are meant, and short ones have fewer."""
    held, x = 0, np.arange(200.0)
    for seed in range(100):
        rng, noise = np.random.default_rng(seed), np.zeros(200)
        for index in range(1, 200):
            noise[index] = 0.5 * noise[index - 1] + rng.normal()
        low, high = slope_interval(x, 3.0 + 0.02 * x + noise, seed)[1]
        held += low <= 0.02 <= high
    assert held >= 85
