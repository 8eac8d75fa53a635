"""Windows and events: which frame is in which release, and which release in which event."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.artifact.manifest import WindowSpec
from wire.errors import ManifestError
from wire.privacy.certificate import Certificate, sigma_for
from wire.protocol.event import EventWindow

NANO = WindowSpec(96, 96, 1.0, 8, 8, 0.5, 0.5)
EPSILON = 1e-6

# On a grid of 1/1000 s, coarse against the microsecond below which two times count as equal.
milliseconds = st.integers(1, 4000).map(lambda ms: ms / 1000)
specs = st.builds(
    WindowSpec,
    height=st.just(8),
    width=st.just(8),
    slot_s=milliseconds,
    new_frames=st.integers(1, 8),
    context_frames=st.integers(0, 8),
    context_step_s=milliseconds,
    hold_s=milliseconds,
)
times = st.lists(st.integers(0, 20_000).map(lambda ms: ms / 1000), max_size=80).map(
    lambda values: np.array(sorted(values), np.float64)
)


def by_hand(spec: WindowSpec, frames: np.ndarray[Any, Any], end: float) -> list[int]:
    """The rule as it is written: the newest frame not younger than the instant, if less than hold_s older; else -1."""
    out = []
    for offset in spec.offsets_s:
        instant = end - offset
        candidates = [index for index, time in enumerate(frames) if time <= instant + EPSILON]
        good = candidates and instant - frames[candidates[-1]] < spec.hold_s - EPSILON
        out.append(candidates[-1] if good else -1)
    return out


def test_the_shipped_window_is_the_designs() -> None:
    assert NANO.frames == 16 and NANO.receptive_field_s == 5.0
    assert NANO.offsets_s[:8] == (4.5, 4.0, 3.5, 3.0, 2.5, 2.0, 1.5, 1.0)
    assert NANO.offsets_s[8:] == tuple(k / 8 for k in range(7, -1, -1))


@settings(deadline=None)
@given(specs, times, st.integers(1, 20))
def test_a_window_takes_what_the_rule_says(spec: WindowSpec, frames: np.ndarray[Any, Any], slots: int) -> None:
    end = slots * spec.slot_s
    picked = spec.pick(frames, end)
    assert picked.shape == (spec.frames,) and picked.dtype == np.int64
    assert picked.tolist() == by_hand(spec, frames, end)


@settings(deadline=None)
@given(specs, times, st.integers(1, 20))
def test_no_frame_is_older_than_the_receptive_field_or_newer_than_the_slot(
    spec: WindowSpec, frames: np.ndarray[Any, Any], slots: int
) -> None:
    end = slots * spec.slot_s
    used = frames[[index for index in spec.pick(frames, end) if index >= 0]]
    assert np.all(end - used < spec.receptive_field_s) and np.all(used <= end + EPSILON)


@settings(deadline=None)
@given(specs, times, times)
def test_a_window_depends_on_nothing_outside_its_receptive_field(
    spec: WindowSpec, frames: np.ndarray[Any, Any], others: np.ndarray[Any, Any]
) -> None:
    """Checked in a second way: all frames outside are removed, or replaced by others, and the window stays the same."""
    end = 10.0
    edges = end - np.array([offset + shift for offset in spec.offsets_s for shift in (0.0, spec.hold_s - 0.001)])
    frames, others = np.sort(np.append(frames, edges[::2])), np.sort(np.append(others, edges[1::2]))
    inside = frames[(frames > end - spec.receptive_field_s) & (frames <= end + EPSILON)]
    outside = others[(others <= end - spec.receptive_field_s) | (others > end + 2 * EPSILON)]
    mixed = np.sort(np.concatenate([inside, outside]))

    def pictures(times: np.ndarray[Any, Any]) -> list[float]:
        return [times[index] if index >= 0 else -1.0 for index in spec.pick(times, end)]

    assert pictures(frames) == pictures(inside) == pictures(mixed)


@settings(deadline=None)
@given(specs, st.integers(0, 5000), st.integers(0, 3000), st.integers(1, 60))
def test_an_incident_touches_no_more_releases_than_it_is_charged_for(
    spec: WindowSpec, start_ms: int, length_ms: int, fps: int
) -> None:
    certificate = Certificate(64, sigma_for(64, 3.0), 64, spec.slot_s, spec.receptive_field_s)
    start, length = start_ms / 1000, length_ms / 1000
    frames = np.arange(0.0, start + length + 1.0, 1.0 / fps)
    during = {int(index) for index in np.flatnonzero((frames >= start) & (frames <= start + length))}
    first = max(0, math.floor(start / spec.slot_s) - 2)
    last = math.ceil((start + length + spec.receptive_field_s) / spec.slot_s) + 2
    if last - first > 3000:
        return
    touched = sum(bool(during & set(spec.pick(frames, (s + 1) * spec.slot_s).tolist())) for s in range(first, last))
    assert touched <= certificate.releases_touched(length)


@pytest.mark.parametrize("length", [0.0, 0.004, 0.3, 1.0, 2.004, 9.999])
def test_some_incident_touches_as_many_releases_as_it_is_charged_for(length: float) -> None:
    certificate = Certificate(64, sigma_for(64, 3.0), 64, NANO.slot_s, NANO.receptive_field_s)
    touched = []
    for start in np.arange(0.0, 1.0, 0.002):
        frames = np.unique(np.append(np.arange(start, start + length, 0.2), start + length))
        ends = np.arange(1.0, 20.0)
        touched.append(sum(bool((NANO.pick(frames, end) >= 0).any()) for end in ends))
    assert max(touched) == certificate.releases_touched(length)


def test_a_frozen_camera_turns_black() -> None:
    frames = np.arange(0.0, 3.0, 1 / 30)
    assert np.all(NANO.pick(frames, 3.0)[8:] >= 0)
    assert np.all(NANO.pick(frames, 8.0) == -1)
    assert np.all(NANO.pick(np.empty(0), 1.0) == -1)


@pytest.mark.parametrize(
    "values",
    [
        {"height": 0},
        {"new_frames": 0},
        {"slot_s": 0.0},
        {"hold_s": -1.0},
        {"context_frames": -1},
        {"context_step_s": 0.0},
    ],
)
def test_an_invalid_window_is_refused(values: dict[str, Any]) -> None:
    fields = {name: getattr(NANO, name) for name in WindowSpec.__dataclass_fields__}
    with pytest.raises(ManifestError):
        WindowSpec(**{**fields, **values})


@settings(deadline=None)
@given(st.integers(1, 9), st.sets(st.integers(0, 40), min_size=1))
def test_an_event_is_the_last_slots_with_gaps_marked(size: int, taken: set[int]) -> None:
    window = EventWindow(size, 2, 3)
    for slot in sorted(taken):
        window.push(slot, np.full(6, slot + 1, np.int16), 1 + slot % 2)
        spanned = range(slot - size + 1, slot + 1)
        here = [number in taken and number <= slot for number in spanned]
        assert window.present.tolist() == here
        weights = [1 + number % 2 if there else 1 for number, there in zip(spanned, here, strict=True)]
        pairs = zip(spanned, here, weights, strict=True)
        values = [(number + 1) * weight if there else 0 for number, there, weight in pairs]
        assert window.weights.tolist() == weights
        assert window.z[:, 0, 0].tolist() == window.z[:, 1, 2].tolist() == values
        assert window.first_slot == max(0, spanned[0]) and window.last_slot == slot
        assert window.count == sum(here) and window.whole == (slot + 1 >= size)


def test_releases_are_pushed_in_slot_order_only() -> None:
    window = EventWindow(8, 4, 16)
    window.push(3, np.zeros(64, np.int16))
    for slot in (3, 2):
        with pytest.raises(ValueError, match="slot order"):
            window.push(slot, np.zeros(64, np.int16))


def test_a_release_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="reshape"):
        EventWindow(8, 4, 16).push(0, np.zeros(63, np.int16))
