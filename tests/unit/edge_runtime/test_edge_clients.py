"""The gate's side of its sockets: whatever a child sends, at whatever time, the gate reads one record of the slot."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.gate import clients
from edge_runtime.gate.children import Child, Running
from edge_runtime.gate.clients import EyeClient, ReaderClient
from edge_runtime.gate.core import HEADER_BYTES, release
from edge_runtime.gate.watching import Watching
from edge_runtime.link import Link
from edge_runtime.record import (
    BEGIN,
    CAMERA_SILENT,
    PACES,
    QUESTION_BYTES,
    READY,
    WORDS,
    Question,
    Said,
    event_size,
    read_event,
    read_said,
    verdict_bytes,
    write_said,
)
from tests.support.services import PATIENCE_S, until
from wire.protocol.event import EventWindow

N = 6
CODE = [1, -2, 3, 0, 5, -6]


def record(slot: int, values: list[int] | None = None, word: int = 0, last: bool = False, pace: int = 0) -> bytes:
    """A record as an honest eye writes it."""
    data = np.zeros(HEADER_BYTES + 2 * N, np.uint8)
    write_said(data, Said(slot, word, pace, last))
    data[HEADER_BYTES:] = np.array(CODE if values is None else values, "<i2").view(np.uint8)
    return data.tobytes()


class Peer:
    """A child in a thread: `behave(link, question)` is called for each question.

    Attributes:
        questions: Those that came.
        ended: How often the gate ended it.
    """

    def __init__(self, behave: Callable[[Link, Question], object]) -> None:
        self._behave, self.questions, self.ended = behave, list[Question](), 0
        self.links: list[Link] = []
        self._threads: list[threading.Thread] = []

    def begin(self) -> Running:
        ours, theirs = Link.pair()
        gone = threading.Event()

        def end() -> None:
            self.ended += 1
            gone.set()

        self.links.append(theirs)
        self._threads.append(threading.Thread(target=self._serve, args=(theirs, gone), daemon=True))
        self._threads[-1].start()
        return Running(ours, end, gone.wait)

    def join(self) -> None:
        """Wait until every socket is closed."""
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _serve(self, link: Link, gone: threading.Event) -> None:
        data = np.zeros(4096, np.uint8)
        while not gone.is_set() and (length := link.receive(data, 0.02)) != 0:
            if length == QUESTION_BYTES:
                question = Question.read(data)
                self.questions.append(question)
                self._behave(link, question)
        link.close()


@contextmanager
def eye_of(behave: Callable[[Link, Question], object], follows: bool = False) -> Iterator[tuple[EyeClient, Peer]]:
    peer = Peer(behave)
    eye = EyeClient(Child("eye", peer.begin, lambda: b"{}"), N, follows)
    until(lambda: eye._child.link() is not None)
    try:
        yield eye, peer
    finally:
        eye.close()
        peer.join()


def ask(eye: EyeClient, slot: int, patience_s: float = PATIENCE_S) -> list[int] | None:
    code = eye.code(slot, patience_s)
    return None if code is None else [int(value) for value in code]


def test_the_code_of_an_honest_eye_arrives() -> None:
    with eye_of(lambda link, question: link.send(record(question.slot))) as (eye, peer):
        eye.begin(12.5)
        assert [ask(eye, slot) for slot in range(5)] == [CODE] * 5
        assert eye.counts == {"answered": 5, "missed": 0, "malformed": 0}
        assert [question.slot for question in peer.questions] == [BEGIN, 0, 1, 2, 3, 4]
        assert {question.zero_s for question in peer.questions} == {12.5}


def test_the_code_is_wiped_from_the_record_by_the_core() -> None:
    with eye_of(lambda link, question: link.send(record(question.slot))) as (eye, _):
        code = eye.code(0, PATIENCE_S)
        assert code is not None
        z = release(code, np.zeros(N, np.int32), 100)
        assert z.tolist() == CODE
        assert not eye._record[HEADER_BYTES:].any()


def answers(*made: bytes) -> Callable[[Link, Question], object]:
    """A peer that sends these datagrams for every question."""

    def behave(link: Link, question: Question) -> None:
        for data in made:
            link.send(data)

    return behave


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"pixels " * 3,
        record(0)[:-1],
        record(0) + b"\0",
        record(0) + b"\0" * 60000,
        record(1),
        record(2**64 - 1),
        record(READY),
        record(2**32),
    ],
)
def test_what_is_no_record_of_the_slot_is_no_code(data: bytes) -> None:
    with eye_of(answers(data)) as (eye, _):
        assert ask(eye, 0, 0.1) is None
        assert eye.counts["missed"] == 1
        assert not eye._record.any()


def test_a_record_after_rubbish_is_read() -> None:
    """The right one counts, whatever came before it for the same question; a second one is dropped with the next."""

    def behave(link: Link, question: Question) -> None:
        for data in (b"?", record(question.slot + 1), record(question.slot), record(question.slot, [9] * N)):
            link.send(data)

    with eye_of(behave) as (eye, _):
        assert [ask(eye, slot) for slot in range(4)] == [CODE] * 4


def test_a_late_answer_is_dropped_and_never_read_as_anothers() -> None:
    def behave(link: Link, question: Question) -> None:
        if question.slot == 0:
            time.sleep(0.3)
        link.send(record(question.slot, [question.slot + 1] * N))

    with eye_of(behave) as (eye, _):
        assert ask(eye, 0, 0.05) is None
        assert ask(eye, 1) == [2] * N
        assert ask(eye, 2) == [3] * N


def test_an_early_answer_to_tomorrows_slot_is_dropped() -> None:
    def behave(link: Link, question: Question) -> None:
        link.send(record(question.slot))
        if question.slot == 0:
            link.send(record(1, [7] * N))

    with eye_of(behave) as (eye, peer):
        assert ask(eye, 0) == CODE
        until(lambda: len(peer.questions) == 1)
        time.sleep(0.05)
        assert ask(eye, 1) == CODE


def test_an_eye_that_never_stops_sending_is_started_anew() -> None:
    def flood(link: Link, question: Question) -> None:
        while link.descriptor >= 0 and link.send(b"pixels"):
            pass

    with eye_of(flood) as (eye, peer):
        for slot in range(200):
            if peer.ended:
                break
            assert ask(eye, slot, 0.01) is None
        assert peer.ended


def test_an_eye_that_falls_silent_costs_its_patience_and_is_started_anew() -> None:
    def behave(link: Link, question: Question) -> None:
        if question.slot == 0:
            link.send(record(0))

    with eye_of(behave) as (eye, peer):
        assert ask(eye, 0) == CODE
        assert [ask(eye, slot, 0.001) for slot in range(1, 30)] == [None] * 29
        before = peer.ended
        assert ask(eye, 30, 0.001) is None
        assert (before, peer.ended) == (0, 1)
        assert not eye.watching


def test_an_eye_that_is_only_late_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine each start made it later: 38 starts in an hour."""
    monkeypatch.setattr(clients, "_OPENS_S", 0.0)

    with eye_of(lambda link, question: link.send(record(question.slot - 1))) as (eye, peer):
        for slot in range(1, 100):
            assert ask(eye, slot, 0.02) is None  # the answer to the slot before comes
        assert peer.ended == 0 and not eye.watching


def test_an_eye_may_take_long_to_open_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    with eye_of(lambda link, question: None) as (eye, peer):
        assert [ask(eye, slot, 0.001) for slot in range(100)] == [None] * 100
        assert peer.ended == 0
        monkeypatch.setattr(clients, "_OPENS_S", 0.0)
        assert ask(eye, 100, 0.001) is None
        assert peer.ended == 1


def test_an_eye_that_closes_its_socket_is_started_anew_and_asked_again() -> None:
    def behave(link: Link, question: Question) -> None:
        if question.slot == 0:
            link.close()
        else:
            link.send(record(question.slot))

    with eye_of(behave) as (eye, peer):
        assert ask(eye, 0) is None
        until(lambda: eye._child.link() is not None)
        assert len(peer.links) == 2
        assert ask(eye, 1) == CODE
        assert eye.figures()["starts"] == 2


def test_an_eye_that_does_not_read_delays_nothing() -> None:
    """Its socket is full of questions; the gate's are lost, and cost their patience alone."""
    stop = threading.Event()

    def behave(link: Link, question: Question) -> None:
        stop.wait(PATIENCE_S)

    with eye_of(behave) as (eye, _):
        began = time.monotonic()
        for slot in range(25):
            assert ask(eye, slot, 0.001) is None
        assert time.monotonic() - began < PATIENCE_S / 2
        stop.set()


def test_a_child_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process, memory or descriptor left, and a unit that forbids to choose cores and priority."""

    def forbidden(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setpriority", forbidden)
    peer = Peer(lambda link, question: link.send(record(question.slot)))
    failures = [OSError(11, "Resource temporarily unavailable"), OSError(24, "Too many open files")]

    def begin() -> Running:
        if failures:
            raise failures.pop()
        return peer.begin()

    eye = EyeClient(Child("eye", begin, lambda: b"{}"), N, False)
    until(lambda: eye._child.link() is not None)
    assert not failures
    assert ask(eye, 0) == CODE
    eye.close()
    peer.join()


def test_only_a_source_that_can_end_may_say_so() -> None:
    for follows in (True, False):
        with eye_of(lambda link, question: link.send(record(question.slot, last=True)), follows) as (eye, _):
            assert ask(eye, 0) == CODE
            assert eye.ended == follows


def test_words_are_numbers_of_a_table() -> None:
    data = np.frombuffer(record(3), np.uint8).copy()
    data[8:11] = 255
    assert read_said(data) == Said(3, len(WORDS) - 1, len(PACES) - 1, False)
    behave = answers(record(0, word=CAMERA_SILENT, pace=3))
    with eye_of(behave) as (eye, _):
        assert ask(eye, 0) == CODE
        assert not eye.watching
        assert eye.figures()["says"] == WORDS[CAMERA_SILENT]
        assert eye.figures()["frames_a_second"] == PACES[3]


def test_an_eye_that_cannot_open_says_why_by_number() -> None:
    peer = Peer(lambda link, question: None)
    begin = peer.begin

    def refuses() -> Running:
        running = begin()
        peer.links[-1].send(record(READY, word=4)[:HEADER_BYTES])
        return running

    eye = EyeClient(Child("eye", refuses, lambda: b"{}"), N, True)
    assert not eye.ready(PATIENCE_S)
    assert eye.says == WORDS[4]
    eye.close()
    peer.join()


# --- the reader -------------------------------------------------------------------------------------------------------

LABELS = ("normal", "fall", "fight")


def event() -> EventWindow:
    made = EventWindow(4, 2, 3)
    for slot in (5, 6, 8):
        made.push(slot, np.arange(6, dtype=np.int16) * slot)
    return made


@contextmanager
def reader_of(behave: Callable[[Link, npt.NDArray[np.uint8]], object]) -> Iterator[ReaderClient]:
    ours, theirs = Link.pair()

    def serve() -> None:
        data = np.zeros(4096, np.uint8)
        while (length := theirs.receive(data, 0.02)) != 0:
            if length > 2:
                behave(theirs, data[:length])
        theirs.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    gone = threading.Event()
    reader = ReaderClient(Child("reader", lambda: Running(ours, gone.set, gone.wait), lambda: b"{}"), LABELS)
    until(lambda: reader._child.link() is not None)
    try:
        yield reader
    finally:
        reader.close()
        thread.join(PATIENCE_S)


def test_the_reader_gets_the_event_and_its_verdict_comes_back() -> None:
    seen: list[EventWindow] = []

    def behave(link: Link, data: npt.NDArray[np.uint8]) -> None:
        got = EventWindow(4, 2, 3)
        assert len(data) == event_size(got)
        read_event(data, got)
        seen.append(got)
        link.send(verdict_bytes(got.last_slot, [0.25, 0.5, 0.25]))

    with reader_of(behave) as reader:
        assert reader.answer() is None
        reader.ask(event())
        answer = reader.answer(PATIENCE_S)
        assert answer is not None
        span, probabilities = answer
        assert (span.first_slot, span.last_slot, span.present) == (5, 8, (True, True, False, True))
        assert probabilities == {"normal": 0.25, "fall": 0.5, "fight": 0.25}
        assert np.array_equal(seen[0].z, event().z)
        assert np.array_equal(seen[0].present, event().present)
        assert reader.answer() is None


@pytest.mark.parametrize(
    "data",
    [
        verdict_bytes(8, [float("nan"), 0.5, 0.5]),
        verdict_bytes(8, [float("inf"), 0.0, 0.0]),
        verdict_bytes(8, [-0.5, 1.0, 0.5]),
        verdict_bytes(8, [0.9, 0.9, 0.9]),
        verdict_bytes(8, [0.5, 0.5]),
        verdict_bytes(8, [0.25] * 4),
        verdict_bytes(7, [0.25, 0.5, 0.25]),
        verdict_bytes(9, [0.25, 0.5, 0.25]),
        b"a fall, believe me",
    ],
)
def test_a_reader_that_lies_about_the_form_gives_no_verdict(data: bytes) -> None:
    with reader_of(lambda link, _: link.send(data)) as reader:
        reader.ask(event())
        answer = reader.answer(PATIENCE_S)
        assert answer is not None
        assert answer[1] is None


def test_a_reader_that_says_nothing_gives_no_verdict() -> None:
    with reader_of(lambda link, _: None) as reader:
        reader.ask(event())
        answer = reader.answer(0.05)
        assert answer is not None
        assert answer[1] is None


# --- not watching -----------------------------------------------------------------------------------------------------


def said(slot_s: float, answered: Callable[[int], bool], slots: int) -> list[bool]:
    rule = Watching(slot_s)
    return [rule.note(slot, answered(slot)) for slot in range(slots)]


def test_watching_changes_at_fixed_slots_alone_whatever_the_eye_does() -> None:
    rng = np.random.default_rng(3)
    for share in (0.0, 0.3, 0.5, 0.9, 1.0):
        states = said(1.0, lambda slot, share=share: bool(rng.random() < share), 4 * 3600)  # type: ignore[misc]
        changes = [slot for slot in range(1, len(states)) if states[slot] != states[slot - 1]]
        assert all(slot % 3600 == 60 for slot in changes)


def test_watching_follows_the_ten_minutes_before() -> None:
    down = range(60 + 3600 - 301, 60 + 2 * 3600 - 300)  # just over half of one span, just under half of the next
    states = said(1.0, lambda slot: slot not in down, 3 * 3600)
    assert all(states[: 60 + 3600])
    assert not any(states[60 + 3600 : 60 + 2 * 3600])
    assert all(states[60 + 2 * 3600 :])


def test_an_eye_that_never_came_is_told_after_a_minute() -> None:
    states = said(0.5, lambda slot: False, 300)
    assert states == [True] * 120 + [False] * 180


def test_slots_that_were_missed_count_as_not_answered() -> None:
    rule = Watching(1.0)
    for slot in range(0, 60, 3):
        rule.note(slot, True)
    assert not rule.note(60, True)


@pytest.mark.parametrize("word", range(len(WORDS)))
def test_an_eye_watches_where_it_sees_all_but_a_picture(word: int) -> None:
    eye = EyeClient.__new__(EyeClient)
    eye._silent, eye._said = 0, Said(1, word)
    assert eye.watching == (eye.says in ("watching", "some pictures cannot be decoded"))


def test_what_an_eye_can_say_are_six_bits() -> None:
    """docs/architecture.md promises so."""
    assert len(WORDS) * len(PACES) <= 2**6
