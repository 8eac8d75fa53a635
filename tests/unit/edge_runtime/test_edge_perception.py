"""The person network in the eye: which frames it sees, whose people a window has, and what happens when it is late."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.eye.engine.base import Engine
from edge_runtime.eye.perception import Perception
from edge_runtime.eye.sightings import SEEN, UNSEEN, Sightings
from edge_runtime.eye.window import FrameBuffer, Window
from tests.support.services import PATIENCE_S, until
from wire.artifact import interface
from wire.artifact.manifest import WindowSpec
from wire.errors import DeviceLost, EngineError, ManifestError
from wire.people.decode import HEADS, PEOPLE
from wire.people.packed import BOX, SCORE, UNIT, VALUES, Packed
from wire.people.tracks import TRACKS, form_tracks

SPEC = WindowSpec(8, 8, slot_s=1.0, new_frames=8, context_frames=12, context_step_s=0.125, hold_s=0.5)
FRAME = (32, 64)


def buffer_of(spec: WindowSpec = SPEC, ahead_s: float = 1.0) -> FrameBuffer:
    return FrameBuffer(spec, ahead_s, person_frame=FRAME)


def sightings_of(buffer: FrameBuffer) -> Sightings:
    assert buffer.sightings is not None
    return buffer.sightings


def push(buffer: FrameBuffer, time_s: float, value: int = 9, spots: int = 1) -> None:
    """Push a frame whose colour picture has bright spots, each of which the fake network takes for a person."""
    picture = np.zeros((*FRAME, 3), np.uint8)
    for spot in range(spots):
        row, column = divmod(spot, 3)
        picture[4 + 20 * row : 8 + 20 * row, 4 + 20 * column : 8 + 20 * column] = 255 - spot
    buffer.push(time_s, np.full((8, 8), value, np.uint8), picture, (96, 192))


class Network:
    """An engine whose person network finds bright spots; `before` is called with each frame.

    Attributes:
        seen: How many frames it saw.
        heads: Of its last run.
    """

    def __init__(self) -> None:
        self.manifest = SimpleNamespace(graphs=lambda: {"perceive": interface.perceive(*FRAME)})
        self.before: Callable[[npt.NDArray[np.uint8]], None] = lambda frame: None
        self.seen, self.heads = 0, dict[str, npt.NDArray[np.float32]]()
        self.wrong: float | None = None  # what is in a head where it sees two people

    def perceive(self, frame: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
        self.seen += 1
        self.before(frame)
        cells = (1, FRAME[0] // 4, FRAME[1] // 4)
        self.heads = {name: np.zeros((cells[0], count, *cells[1:]), np.float32) for name, count in HEADS.items()}
        bright = frame[0, 1::4, 1::4, 0].astype(np.float32) / 255
        self.heads["centres"][:], self.heads["heat"][:], self.heads["sizes"][:] = bright, bright, 4.0
        if self.wrong is not None and bright[1, 6]:  # two spots
            self.heads["heat"][0, 3, 1, 1] = self.wrong
        return self.heads


@contextmanager
def perceiving(buffer: FrameBuffer) -> Iterator[tuple[Perception, Network]]:
    network = Network()
    with Perception(cast(Engine, network), sightings_of(buffer)) as perception:
        yield perception, network


def settle(buffer: FrameBuffer) -> None:
    """Wait until the network has seen what waits."""
    sightings = sightings_of(buffer)
    until(lambda: not sightings._waits.any() and sightings._running < 0, PATIENCE_S)


def tracks(window: Window) -> Packed:
    """int16 (T, TRACKS, VALUES)."""
    assert window.people is not None and window.people.shape == (1, SPEC.frames, TRACKS, VALUES)
    assert window.people.dtype == np.int32
    made: Packed = window.people[0].astype(np.int16)
    return made


# --- which frames are seen --------------------------------------------------------------------------------------------


def marked(number: int) -> Packed:
    """People by which a frame is told."""
    people = np.zeros((PEOPLE, VALUES), np.int16)
    people[:, SCORE] = number + 1
    return people


def see_all(buffer: FrameBuffer) -> list[int]:
    """Take every picture that waits, as a network without any delay; returns the numbers of their frames."""
    sightings, taken = sightings_of(buffer), list[int]()
    into = np.zeros((*FRAME, 3), np.uint8)
    while sightings._waits.any():
        waiting = sightings.next(into)
        assert waiting is not None and int(into[0, 0, 0]) == waiting.number % 251
        sightings.found(waiting.number, marked(waiting.number))
        taken.append(waiting.number)
    return taken


@st.composite
def streams(draw: st.DrawFn) -> tuple[WindowSpec, list[tuple[float, float]]]:
    """A window, and frames as (captured, delivered): ahead of their time or late, in order, with gaps."""
    context_step = draw(st.sampled_from([0.125, 0.25, 0.5]))
    slot_s = draw(st.sampled_from([1.0, 0.5]))
    spec = WindowSpec(2, 2, slot_s, 8, draw(st.integers(0, 12)), context_step * slot_s, hold_s=0.5)
    ahead = draw(st.booleans())
    at_ms, frames, delivered = draw(st.integers(0, 400)), [], 0.0
    for step_ms in draw(st.lists(st.integers(25, 700), min_size=1, max_size=60)):
        delay = -1.0 if ahead else draw(st.integers(0, 900)) / 1000
        delivered = max(delivered, at_ms / 1000 + delay)
        frames.append((at_ms / 1000, delivered))
        at_ms += step_ms
    return spec, frames


@given(streams())
@settings(max_examples=150, deadline=None)
def test_a_window_has_the_people_of_exactly_the_frames_that_it_picks(
    stream: tuple[WindowSpec, list[tuple[float, float]]],
) -> None:
    spec, frames = stream
    buffer, seen, given_ = buffer_of(spec), list[int](), list[float]()
    for slot in range(int(frames[-1][1] / spec.slot_s) + 3):
        end_s = (slot + 1) * spec.slot_s
        while len(given_) < len(frames) and frames[len(given_)][1] <= end_s:
            number, picture = len(given_), np.zeros((*FRAME, 3), np.uint8)
            picture[0, 0] = number % 251
            buffer.push(frames[number][0], np.full((2, 2), number % 255 + 1, np.uint8), picture, (96, 192))
            given_.append(frames[number][0])
            seen += see_all(buffer)
        window = buffer.window(slot, end_s)
        seen += see_all(buffer)
        expected = spec.pick(np.array(given_), end_s)
        assert window.numbers.tolist() == expected.tolist()
        people = sightings_of(buffer).people(window.numbers)
        assert people[:, 0, SCORE].tolist() == [number + 1 for number in expected]
        assert window.frames[0, :, 0, 0].tolist() == [0 if n < 0 else n % 255 + 1 for n in expected]
    assert len(seen) == len(set(seen)), "a frame was seen twice"
    assert sightings_of(buffer).lost == 0


@pytest.mark.parametrize(("fps", "most"), [(25, 8), (8, 8), (5, 5), (2, 2)])
def test_the_network_runs_once_an_instant_and_never_twice_on_a_frame(fps: int, most: int) -> None:
    buffer, seen = buffer_of(), list[int]()
    for number in range(10 * fps + 1):
        picture = np.zeros((*FRAME, 3), np.uint8)
        picture[0, 0] = number % 251
        buffer.push(number / fps, np.ones((8, 8), np.uint8), picture, (96, 192))
        seen += see_all(buffer)
        if number and number % fps == 0:
            buffer.window(number // fps - 1, number / fps)
            seen += see_all(buffer)
    assert len(seen) == len(set(seen)) <= 10 * most + 1
    assert len(seen) >= 10 * most - 1


def test_what_no_window_can_hold_any_more_is_forgotten() -> None:
    """Also where a camera is slow, and the ring long."""
    buffer = buffer_of()
    with perceiving(buffer) as (perception, _):
        for slot in range(9):
            push(buffer, slot + 0.99)
            window = buffer.window(slot, slot + 1.0)
            assert perception.complete(window, PATIENCE_S)
    sightings = sightings_of(buffer)
    young = (9.0 - buffer._times) <= SPEC.receptive_field_s
    assert 1 <= int(young.sum()) < 9
    assert (sightings._people.any(axis=(1, 2)) == young).all()
    assert (buffer._frames.any(axis=(1, 2)) == young).all()


def test_the_context_must_lie_on_instants_at_which_the_network_runs() -> None:
    with pytest.raises(ManifestError, match=r"context_step_s is 0\.3: the person network runs 0\.125 s apart"):
        buffer_of(WindowSpec(8, 8, 1.0, 8, 4, 0.3, 0.5))


def test_a_family_without_a_person_network_pays_nothing() -> None:
    buffer = FrameBuffer(SPEC)
    buffer.push(0.9, np.ones((8, 8), np.uint8))
    window = buffer.window(0, 1.0)
    assert buffer.sightings is None and window.people is None and len(window.numbers) == 0
    assert window.frames.any()


# --- a window's people ------------------------------------------------------------------------------------------------


def film(buffer: FrameBuffer, spots: Callable[[float], int], seconds: float = 3.0) -> None:
    for number in range(round(seconds * 8) + 1):
        push(buffer, number / 8, spots=spots(number / 8))
    settle(buffer)


@pytest.mark.parametrize(("spots", "found"), [(0, 0), (1, 1), (3, 3), (6, TRACKS)])
def test_a_window_has_tracks_of_its_people(spots: int, found: int) -> None:
    buffer = buffer_of(ahead_s=3.0)
    with perceiving(buffer) as (perception, _):
        film(buffer, lambda at: spots)
        with buffer.window(2, 3.0) as frames:
            assert frames.any()
        window = buffer.window(2, 3.0)
        assert perception.complete(window, PATIENCE_S)
        rows = tracks(window)
    assert (rows[..., SCORE] > 0).sum(axis=1).tolist() == [found] * SPEC.frames
    if spots == 1:  # joints at the spot, and a box of 4 x 4 cells about it, in units of the larger side
        at = np.array([4, 4]) / 64 * UNIT
        assert rows[0, 0, :2].tolist() == at.tolist()
        assert rows[0, 0, BOX].tolist() == [0, 0, round(12 / 64 * UNIT), round(12 / 64 * UNIT)]


def test_nobody_for_an_hour_is_no_error() -> None:
    spec, hour = WindowSpec(2, 2, 10.0, 1, 3, 10.0, 5.0), 360
    buffer = buffer_of(spec)
    with perceiving(buffer) as (perception, network):
        for slot in range(hour):
            push_empty(buffer, (slot + 1) * 10.0)
            window = buffer.window(slot, (slot + 1) * 10.0)
            assert perception.complete(window, PATIENCE_S)
            assert window.people is not None and not window.people.any()
    assert network.seen == hour and sightings_of(buffer).lost == 0


def push_empty(buffer: FrameBuffer, time_s: float) -> None:
    buffer.push(time_s, np.ones((2, 2), np.uint8), np.zeros((*FRAME, 3), np.uint8), (96, 192))


def test_pictures_and_people_are_wiped() -> None:
    buffer = buffer_of()
    sightings = sightings_of(buffer)
    held = list[int]()
    with perceiving(buffer) as (perception, network):
        network.before = lambda frame: held.append(int(frame.max()))
        film(buffer, lambda at: 2)
        assert int(sightings._pictures.any(axis=(1, 2, 3)).sum()) == 1  # the newest alone
        assert min(held) == 255 and not perception._frame.any()
        assert not any(head.any() for head in network.heads.values())
        window = buffer.window(2, 3.0)
        assert perception.complete(window, PATIENCE_S)
        assert not sightings._pictures.any()
        with window:
            assert window.people is not None and window.people.any()
        assert not window.people.any() and not window.frames.any()
        assert sightings._people.any()
        push(buffer, 3.2)
    buffer.wipe()
    assert not sightings._people.any() and not sightings._pictures.any()


# --- late and failed --------------------------------------------------------------------------------------------------


def see_a_slot_late(buffer: FrameBuffer, perception: Perception, network: Network) -> None:
    """Nine frames that are not seen in time, whose window is lost; then they are seen, and eight more."""
    gate = threading.Event()
    network.before = lambda frame: cast(None, gate.wait(PATIENCE_S))
    for number in range(9):
        push(buffer, number / 8)
    assert not perception.complete(buffer.window(0, 1.0), 0.05)
    gate.set()
    for number in range(9, 17):
        push(buffer, number / 8)


def test_a_window_whose_frames_are_not_seen_in_time_is_lost_and_the_next_is_not() -> None:
    buffer = buffer_of()
    with perceiving(buffer) as (perception, network):
        see_a_slot_late(buffer, perception, network)
        window = buffer.window(1, 2.0)
        assert perception.complete(window, PATIENCE_S)
        assert (tracks(window)[-8:, 0, SCORE] > 0).all()


def people_seen(perception: Perception, buffer: FrameBuffer, slot: int) -> dict[int, bool]:
    """Number of each frame of a window -> whether somebody is in it."""
    settle(buffer)
    window = buffer.window(slot, slot + 1.0)
    assert perception.complete(window, PATIENCE_S)
    best = tracks(window)[..., SCORE].max(axis=1)
    return {int(number): bool(score > 0) for number, score in zip(window.numbers, best, strict=True) if number >= 0}


def test_frames_that_were_only_late_have_their_people_in_later_windows() -> None:
    buffer = buffer_of(ahead_s=2.0)
    with perceiving(buffer) as (perception, network):
        see_a_slot_late(buffer, perception, network)
        assert people_seen(perception, buffer, 1) == dict.fromkeys(range(17), True)


def test_after_a_failed_slot_later_windows_have_nobody_in_its_frames_until_these_are_too_old() -> None:
    """The window of the failed slot alone is lost; none is lost for frames that it has as context."""

    def fails(frame: npt.NDArray[np.uint8]) -> None:
        if frame[0, 5, 25, 0]:  # two spots
            raise EngineError("perceive: ONNX Runtime: the run failed (Fail)")

    buffer, failed = buffer_of(), set(range(9, 17))
    with perceiving(buffer) as (perception, network):
        network.before = fails
        for number in range(41):
            push(buffer, number / 8, spots=2 if number in failed else 1)
            if number == 16:
                with pytest.raises(EngineError, match="failed on a frame of this window"):
                    perception.complete(buffer.window(1, 2.0), PATIENCE_S)
            elif number and number % 8 == 0:
                seen = people_seen(perception, buffer, number // 8 - 1)
                assert {frame for frame, somebody in seen.items() if not somebody} == failed & seen.keys()
                assert bool(failed & seen.keys()) == (number in (24, 32))


def test_a_network_that_cannot_keep_up_loses_pictures_and_windows() -> None:
    buffer = buffer_of(ahead_s=0.0)
    sightings = sightings_of(buffer)
    for number in range(33):  # nobody takes any
        push(buffer, number / 8)
    assert sightings.lost > 10
    window = buffer.window(1, 2.0)
    sightings.wait(window.newest, PATIENCE_S)  # at once: they cannot come any more
    assert not (sightings.states(window.newest) == SEEN).any()
    with perceiving(buffer) as (perception, _):
        assert not perception.complete(window, PATIENCE_S)
        assert perception.complete(buffer.window(3, 4.0), PATIENCE_S)


def test_the_frames_of_the_window_that_waits_come_first() -> None:
    """Then those of slots to come, and last what an earlier window would have needed."""
    buffer = buffer_of(ahead_s=2.0)
    sightings, into = sightings_of(buffer), np.zeros((*FRAME, 3), np.uint8)
    for number in range(24):
        push(buffer, number / 8)
    buffer.window(0, 1.0)
    buffer.window(1, 2.0)
    order = [cast(Any, sightings.next(into)).number for _ in range(int(sightings._waits.sum()))]
    late = [number for number in order if number < 9]
    assert order == [*range(9, 17), *range(17, 23), *late] and late == sorted(late)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e5])
def test_heads_that_are_no_numbers_lose_their_window_alone(wrong: float) -> None:
    buffer = buffer_of()
    with perceiving(buffer) as (perception, network):
        network.wrong = wrong
        for number in range(9):
            push(buffer, number / 8, spots=2 if number == 4 else 1)
        with pytest.raises(EngineError, match="the person network failed on a frame of this window"):
            perception.complete(buffer.window(0, 1.0), PATIENCE_S)
        for number in range(9, 17):
            push(buffer, number / 8)
        window = buffer.window(1, 2.0)
        assert perception.complete(window, PATIENCE_S)
        missing = (window.numbers >= 0) & (tracks(window)[:, 0, SCORE] == 0)
        assert window.numbers[missing].tolist() == [4]  # in later windows there is nobody in it


def test_a_failed_run_loses_its_window() -> None:
    def fails(frame: npt.NDArray[np.uint8]) -> None:
        raise EngineError("perceive: ONNX Runtime: the run failed (Fail)")

    buffer = buffer_of()
    with perceiving(buffer) as (perception, network):
        network.before = fails
        push(buffer, 0.9)
        with pytest.raises(EngineError):
            perception.complete(buffer.window(0, 1.0), PATIENCE_S)
        assert not perception._frame.any()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [DeviceLost("perceive: CUDA failed"), ValueError("a fault of ours")])
def test_a_network_that_ended_ends_the_eye(error: Exception) -> None:
    def ends(frame: npt.NDArray[np.uint8]) -> None:
        raise error

    buffer = buffer_of()
    with perceiving(buffer) as (perception, network):
        network.before = ends
        push(buffer, 0.9)
        with pytest.raises(DeviceLost, match="the process must be restarted"):
            perception.complete(buffer.window(0, 1.0), PATIENCE_S)
        assert not perception._frame.any()


def test_tracks_are_of_the_windows_own_people() -> None:
    """The same window twice, with other windows between: the same tracks; and those that its people give."""
    buffer = buffer_of(ahead_s=3.0)
    with perceiving(buffer) as (perception, _):
        film(buffer, lambda at: 1 + round(at) % 3)
        found = []
        for end_s in (2.0, 3.0, 2.0):
            window = buffer.window(round(end_s) - 1, end_s)
            assert perception.complete(window, PATIENCE_S)
            found.append(tracks(window))
            people = sightings_of(buffer).people(window.numbers)
            assert np.array_equal(found[-1], form_tracks(people[None])[0])
    assert np.array_equal(found[0][-8:], found[2][-8:]) and not np.array_equal(found[0], found[1])


def test_people_belong_to_their_frame_and_not_to_its_place() -> None:
    sightings, picture = Sightings(SPEC, FRAME, kept=4, ahead_s=0.0), np.zeros((*FRAME, 3), np.uint8)
    for number in (0, 4):
        sightings.add(number, number / 8, picture, (96, 192))
        sightings.found(number, marked(number))
    sightings.found(0, marked(0))  # too late: its place is another frame's
    found = sightings.people(np.array([0, 4, -1]))
    assert found[:, 0, SCORE].tolist() == [0, 5, 0]
    assert sightings.states(np.array([0, 4, -1])).tolist() == [UNSEEN, SEEN, SEEN]
