"""A picture of a live camera is kept for ten seconds after it first came, however often it comes again."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.capture import stillness as module
from edge_runtime.capture.stillness import REMEMBERED_S, STILL_S, Stillness

RNG = np.random.default_rng(3)


def picture() -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    return RNG.integers(0, 256, (24, 32), np.uint8)


def test_a_frozen_picture_is_kept_for_ten_seconds_and_never_again() -> None:
    still, seen = picture(), Stillness()
    kept = [seen.is_new(still, k / 5) for k in range(5 * 600)]
    assert kept == [k <= 5 * STILL_S for k in range(5 * 600)]
    assert seen.repeated == kept.count(False)


def test_somebody_who_lies_still_stays_visible() -> None:
    """A camera that compresses a still scene sends one picture again and again, until a pixel's noise changes it."""
    seen = Stillness()
    assert all(
        seen.is_new(still, 9.0 * k + j / 25) for k, still in enumerate(picture() for _ in range(5)) for j in range(200)
    )


def test_a_group_that_is_delivered_again_is_not_new() -> None:
    group, seen = [picture() for _ in range(50)], Stillness()
    assert all(seen.is_new(each, k / 25) for k, each in enumerate(group))
    assert not any(seen.is_new(each, 30 + k / 25) for k, each in enumerate(group))
    assert all(seen.is_new(picture(), 40 + k / 25) for k in range(50))


def test_the_noise_of_one_pixel_makes_a_picture_new() -> None:
    still, seen = picture(), Stillness()
    assert seen.is_new(still, 0.0)
    for k in range(20):
        still[k, 3] ^= 1
        assert seen.is_new(still, 1.0 + k)


def test_what_was_seen_long_ago_is_forgotten() -> None:
    still, seen = picture(), Stillness()
    assert seen.is_new(still, 0.0)
    assert not seen.is_new(still, REMEMBERED_S)
    assert seen.is_new(still, 2 * REMEMBERED_S + 0.1)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 10)
    seen = Stillness()
    for _ in range(50):
        seen.is_new(picture(), 0.0)
    assert len(seen._seen) <= 11


def test_hashes_are_keyed_and_wiped() -> None:
    """Nobody who reads the memory of another process can look a picture up by its hash."""
    still, one, other = picture(), Stillness(), Stillness()
    one.is_new(still, 0.0)
    other.is_new(still, 0.0)
    assert one._seen.keys() != other._seen.keys()
    key = one._key
    one.wipe()
    assert not one._seen and one._key != key
    assert one.is_new(still, 0.0)
