"""The release clock, the ring of frames, and windows that stay in the process."""

from __future__ import annotations

import pickle
import threading
import time

import numpy as np
import pytest

from edge_runtime.capture.clock import SlotClock
from edge_runtime.eye.window import FrameBuffer, Window
from familial.evaluate.metrics import area_under_curve
from tests.support.patient_clock import PatientClock
from tests.support.timekeeping import Wakeups
from wire.artifact.manifest import WindowSpec
from wire.errors import PrivacyError

SPEC = WindowSpec(8, 8, slot_s=1.0, new_frames=8, context_frames=8, context_step_s=0.5, hold_s=0.5)


def filled(times: list[float], ahead_s: float = 1.0) -> FrameBuffer:
    """A buffer whose frame at time t is all round(10 t) + 1."""
    buffer = FrameBuffer(SPEC, ahead_s)
    for at in times:
        buffer.push(at, np.full((8, 8), round(10 * at) + 1, np.uint8))
    return buffer


def test_a_window_holds_what_the_spec_picks() -> None:
    times = np.arange(0, 9.5, 0.1)
    window = filled([float(t) for t in times]).window(8, 9.0)
    index = SPEC.pick(times, 9.0)
    assert (index >= 0).all()
    assert window.frames.shape == (1, 16, 8, 8)
    assert window.frames[0, :, 0, 0].tolist() == [round(10 * times[i]) + 1 for i in index]


def test_missing_frames_are_black() -> None:
    window = filled([8.2]).window(8, 9.0)
    seen = window.frames[0, :, 0, 0]
    assert set(seen.tolist()) == {0, 83}
    assert int((seen == 83).sum()) == 4
    assert not filled([]).window(0, 1.0).frames.any()


def test_a_vanished_camera_turns_black_within_the_hold_time() -> None:
    buffer = filled([t / 10 for t in range(50)])
    assert (buffer.window(4, 5.0).frames[0, -8:] > 0).all()
    assert not buffer.window(5, 6.0).frames[0, -4:].any()
    assert not buffer.window(10, 11.0).frames.any()


def test_no_pixel_outlives_the_receptive_field() -> None:
    buffer = filled([2.0])
    for slot in range(20):
        end = slot + 1.0
        if buffer.window(slot, end).frames.any():
            assert end - 2.0 < SPEC.receptive_field_s


def test_the_ring_covers_the_receptive_field_at_the_highest_frame_rate() -> None:
    buffer = FrameBuffer(SPEC, ahead_s=1.0)
    time_s = 0.0
    while time_s < 20.0:
        if buffer.wants(time_s):
            buffer.push(time_s, np.full((8, 8), 9, np.uint8))
        time_s += 1 / 240
    assert (buffer.window(18, 19.0).frames == 9).all()


def test_frames_denser_than_wanted_are_refused() -> None:
    buffer = filled([1.0])
    assert not buffer.wants(1.01)
    assert buffer.wants(1.03)


def test_frames_are_zeroed_after_use() -> None:
    window = filled([8.9]).window(8, 9.0)
    with window:
        assert window.frames.any()
    assert not window.frames.any()
    buffer = filled([1.0])
    buffer.wipe()
    assert not buffer.window(0, 1.0).frames.any()
    assert not buffer._frames.any()


def test_a_window_cannot_be_pickled_and_is_not_shown() -> None:
    window = Window(3, np.full((1, 2, 4, 4), 77, np.uint8))
    assert "77" not in repr(window)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(PrivacyError):
            pickle.dumps(window, protocol)
    assert not [name for name in dir(window) if "encode" in name or "save" in name or "bytes" in name]


def test_slots_end_on_time() -> None:
    clock = SlotClock(0.1, 0.05)
    clock.start()
    late = []
    with Wakeups() as wakeups:
        for slot in clock.slots():
            late.append(clock.now() - clock.end(slot))
            if len(late) == 8:
                break
    assert min(late) >= 0
    assert sorted(late)[4] < 0.03 + wakeups.late_s


def test_stalled_slots_are_skipped_and_counted_not_caught_up() -> None:
    clock = SlotClock(0.1, 0.05)
    clock.start()
    seen = []
    for slot in clock.slots():
        seen.append(slot)
        if len(seen) == 3:
            time.sleep(0.5)
        if len(seen) == 6:
            break
    assert seen[3] >= seen[2] + 4
    assert clock.skipped == seen[-1] + 1 - len(seen)


def test_the_delay_is_at_most_half_a_slot() -> None:
    assert SlotClock(0.1, 0.2).release_delay_s == 0.05
    assert SlotClock(1.0, 0.2).release_delay_s == 0.2


def test_a_release_leaves_at_a_random_time_of_the_fifth_of_a_slot_after_its_deadline() -> None:
    clock = PatientClock(1.0)
    clock.start()
    after = []
    for slot in range(400):
        assert clock.wait_to_release(slot)
        after.append(clock.now() - clock.deadline(slot))
    assert 0.0 <= min(after) < 0.02 and 0.18 < max(after) <= 0.2 + 1e-9  # a fair clock misses either once in e^40
    assert all(30 < count < 130 for count in np.histogram(after, 5, (0.0, 0.2))[0])  # 80 each, give or take 8
    assert abs(np.corrcoef(after[1:], after[:-1])[0, 1]) < 0.3


def test_a_load_of_a_millisecond_does_not_show_in_a_release() -> None:
    """An eye that moves every release by a millisecond, by a secret bit: told at once without the random time."""
    rng, clock = np.random.default_rng(7), PatientClock(1.0)
    clock.start()
    secrets, times, exact = rng.integers(0, 2, 1000), [], []
    for slot, secret in enumerate(secrets):
        clock.wait_to_release(slot)
        moved = 1e-3 * secret + abs(rng.normal(0.0, 1e-4))
        times.append(clock.now() + moved - clock.deadline(slot))
        exact.append(moved)
    told, told_exactly = (area_under_curve(-np.array(each), secrets == 1) for each in (times, exact))
    assert abs(told - 0.5) < 0.12 and told_exactly > 0.99  # by its law 0.505, and 0.11 are six sigmas


def test_a_slot_whose_next_has_ended_too_is_not_released_but_counted() -> None:
    clock = PatientClock(1.0)
    clock.start()
    clock.wait(clock.end(1))
    assert not clock.wait_to_release(0) and clock.skipped == 1
    clock.stop.set()
    assert not clock.wait_to_release(1) and clock.skipped == 1


def test_speed_scales_every_time() -> None:
    clock = SlotClock(1.0, 0.2, speed=10.0)
    clock.start()
    began = time.monotonic()
    slots = [slot for slot, _ in zip(clock.slots(), range(5), strict=False)]
    took = time.monotonic() - began
    assert len(slots) == 5
    assert slots[-1] / 10 < took < (slots[-1] + 1) / 10 + 2.0  # at speed 1 it takes 5 s


def test_a_stop_wakes_a_waiting_clock() -> None:
    clock = SlotClock(30.0, 0.2)
    clock.start()
    threading.Timer(0.05, clock.stop.set).start()
    began = time.monotonic()
    assert list(clock.slots()) == []
    assert time.monotonic() - began < 10  # of the 30 s of its slot
