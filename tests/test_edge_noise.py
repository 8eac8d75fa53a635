"""The sampler to the last bit, draws that are used once, and the check that noise is in every release."""

from __future__ import annotations

import os
import pickle
from bisect import bisect_right
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
from engine_factory import make_noise_table
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.noise import NoiseCheck, NoiseDraw, Sampler
from wire.errors import NoiseError, PrivacyError
from wire.noise_table import NoiseTable

SIGMA = Fraction(3862, 64)
SIGMAS = (Fraction(1), Fraction(7, 2), SIGMA)
CLIP = 64


def reference(table: NoiseTable, n: int, stream: bytes) -> list[int]:
    """The definition in big integers: count the entries <= U, then the sign."""
    entries = [int(h) << 64 | int(w) for h, w in zip(table.high, table.low, strict=True)]
    made = []
    for k in range(n):
        first = int.from_bytes(stream[4 * k : 4 * k + 4], "little")
        rest = int.from_bytes(stream[4 * n + 12 * k : 4 * n + 12 * k + 12], "little")
        magnitude = bisect_right(entries, first << 96 | rest)
        sign = stream[16 * n + k // 8] >> (7 - k % 8) & 1
        made.append(-magnitude if sign else magnitude)
    return made


def stream_of(values: list[int], signs: bytes) -> bytes:
    """Key stream that gives these 128-bit values."""
    first = b"".join((value >> 96).to_bytes(4, "little") for value in values)
    return first + b"".join((value % 2**96).to_bytes(12, "little") for value in values) + signs


def entry(table: NoiseTable, j: int) -> int:
    return int(table.high[j]) << 64 | int(table.low[j])


def draws(sigma: Fraction, count: int) -> npt.NDArray[Any]:
    sampler = Sampler(make_noise_table(sigma), 4, 16)
    return np.concatenate([sampler.draw().take().reshape(-1) for _ in range(count)])


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize(("tokens", "width"), [(4, 16), (1, 1), (3, 7), (8, 32)])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_a_draw_is_the_table_inverse_to_the_last_bit(sigma: Fraction, tokens: int, width: int, seed: int) -> None:
    table = make_noise_table(sigma)
    n = tokens * width
    stream = np.random.default_rng(seed).bytes(n * 16 + -(-n // 8))
    assert Sampler(table, tokens, width)._from_bytes(stream).tolist() == reference(table, n, stream)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_a_tie_of_the_first_word_is_decided_by_the_rest(sigma: Fraction) -> None:
    table = make_noise_table(sigma)
    sampler = Sampler(table, 1, 8)
    for j in range(len(table.high)):
        at = entry(table, j)
        near = {at, at - 1, at + 1, at >> 96 << 96, at | (2**96 - 1)}
        values = sorted(value for value in near if 0 <= value < 2**128)
        stream = stream_of((values * 8)[:8], b"\x55")
        assert sampler._from_bytes(stream).tolist() == reference(table, 8, stream)


def test_a_tie_in_one_coordinate_leaves_the_others_alone() -> None:
    table = make_noise_table(SIGMA)
    values = [5, 2**127, entry(table, 100), 2**128 - 1, 2**96, 0, 3 << 120, entry(table, len(table.high) - 1)]
    stream = stream_of(values, b"\x0f")
    assert Sampler(table, 1, 8)._from_bytes(stream).tolist() == reference(table, 8, stream)


def test_a_long_table_does_not_overflow_its_counters() -> None:
    """More than 255 x 8 rows: the byte-wide counters are summed in chunks."""
    table = make_noise_table(Fraction(500))
    stream = np.random.default_rng(3).bytes(64 * 16 + 8)
    sampler = Sampler(table, 4, 16)
    assert len(sampler._words) > 2040
    assert sampler._from_bytes(stream).tolist() == reference(table, 64, stream)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_draws_have_the_distribution_of_sigma(sigma: Fraction) -> None:
    """Chi-square over about 40 bins; a sampler of half or 1.05 times sigma fails by far."""
    found = draws(sigma, 800)
    edges = np.unique(np.round(np.linspace(-3, 3, 41) * float(sigma)))
    reach = np.arange(-int(12 * sigma) - 12, int(12 * sigma) + 13)
    weights = np.exp(-(reach**2) / (2 * float(sigma) ** 2))
    expected = np.histogram(reach, np.concatenate([[-1e9], edges - 0.5, [1e9]]), weights=weights / weights.sum())[0]
    observed = np.histogram(found, np.concatenate([[-1e9], edges - 0.5, [1e9]]))[0]
    keep = expected * len(found) > 5
    chi2 = float((((observed - expected * len(found)) ** 2) / (expected * len(found)))[keep].sum())
    freedom = int(keep.sum()) - 1
    assert mpmath.gammainc(freedom / 2, chi2 / 2, regularized=True) > 1e-9


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_variance_is_that_of_sigma_so_half_of_it_is_caught(sigma: Fraction) -> None:
    found = draws(sigma, 800).astype(float)
    ratio = float((found**2).mean()) / float(sigma) ** 2
    assert abs(ratio - 1) < 6 * np.sqrt(2 / len(found))
    assert abs(float(found.mean())) < 6 * float(sigma) / np.sqrt(len(found))


def test_coordinates_are_not_correlated() -> None:
    found = draws(SIGMA, 2000).reshape(-1, 64).astype(float) / float(SIGMA)
    correlation = (found.T @ found) / len(found) - np.eye(64)
    assert np.abs(correlation).max() < 0.15
    lag = float((found[1:] * found[:-1]).mean())
    assert abs(lag) < 6 / np.sqrt(found[1:].size)


def test_two_draws_differ() -> None:
    sampler = Sampler(make_noise_table(SIGMA), 4, 16)
    assert not np.array_equal(sampler.draw().take(), sampler.draw().take())


def test_a_forked_process_draws_other_noise() -> None:
    sampler = Sampler(make_noise_table(SIGMA), 4, 16)
    sampler.draw()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, sampler.draw().take().tobytes())
        os._exit(0)
    mine = sampler.draw().take().tobytes()
    os.waitpid(child, 0)
    theirs = os.read(reader, 4096)
    os.close(reader)
    os.close(writer)
    assert len(theirs) == len(mine)
    assert theirs != mine


def test_a_draw_is_used_once() -> None:
    sampler = Sampler(make_noise_table(SIGMA), 4, 16)
    draw = sampler.draw()
    draw.take()
    for again in (draw.take, draw.alone, draw.__enter__):
        with pytest.raises(NoiseError, match="twice"):
            again()
    alone = sampler.draw()
    alone.alone()
    with pytest.raises(NoiseError, match="twice"):
        alone.take()


def test_a_draw_is_wiped_after_use_even_where_its_use_fails() -> None:
    draw = Sampler(make_noise_table(SIGMA), 4, 16).draw()
    with pytest.raises(ZeroDivisionError), draw as noise:
        assert noise.any()
        _ = 1 / 0
    assert not noise.any()


def test_buffers_are_wiped_after_a_draw() -> None:
    sampler = Sampler(make_noise_table(SIGMA), 4, 16)
    sampler.draw()
    assert not any(sampler._stream)
    assert not sampler._hits.any()


def test_noise_alone_is_the_draw_as_int16() -> None:
    noise = np.array([[[-40000, -5, 0, 40000]]], np.int32)
    alone = NoiseDraw(noise).alone()
    assert alone.dtype == np.int16
    assert alone.tolist() == [-32768, -5, 0, 32767]
    assert not noise.any()


def test_a_draw_shows_nothing_and_goes_nowhere() -> None:
    draw = NoiseDraw(np.full((1, 2, 2), 12345, np.int32))
    assert "12345" not in repr(draw)
    with pytest.raises(PrivacyError):
        pickle.dumps(draw)


def test_a_table_of_another_sigma_is_refused() -> None:
    half = make_noise_table(SIGMA / 2)
    with pytest.raises(NoiseError, match="not the distribution"):
        Sampler(NoiseTable(SIGMA, half.high, half.low), 4, 16)


def test_a_cut_table_is_refused() -> None:
    table = make_noise_table(SIGMA)
    with pytest.raises(NoiseError, match="not the distribution"):
        Sampler(NoiseTable(SIGMA, table.high[:-60], table.low[:-60]), 4, 16)


def mus() -> list[npt.NDArray[Any]]:
    """Codes at the rim and in the centre."""
    one = np.zeros(64)
    one[0] = CLIP
    return [np.zeros(64), one, np.full(64, CLIP / 8), np.full(64, -CLIP / 8)]


@pytest.mark.parametrize("kind", range(4))
def test_sound_noise_passes_the_check(kind: int) -> None:
    check = NoiseCheck(SIGMA, 64, 8)
    sampler = Sampler(make_noise_table(SIGMA), 4, 16)
    for _ in range(500):
        check.check((sampler.draw().alone() + mus()[kind]).astype(np.int16))


def test_the_thresholds_are_safe_and_not_idle() -> None:
    """Against the chi-square law, which the discrete Gaussian's squares follow closely at this sigma."""
    check = NoiseCheck(SIGMA, 64, 8)
    for threshold, freedom, scale in zip(check.thresholds, (64, 64, 512), (1, 2, 1), strict=True):
        x = threshold / (scale * float(SIGMA) ** 2)
        tail = float(mpmath.log(mpmath.gammainc(freedom / 2, 0, x / 2, regularized=True), 2))
        assert -48 < tail <= -40


@pytest.mark.parametrize("kind", range(4))
def test_a_release_without_noise_stops_the_process(kind: int) -> None:
    with pytest.raises(NoiseError, match="did not reach"):
        NoiseCheck(SIGMA, 64, 8).check(mus()[kind].astype(np.int16))


def test_reused_noise_stops_the_process() -> None:
    """The same noise on codes as far apart as two codes can be."""
    noise = Sampler(make_noise_table(SIGMA), 4, 16).draw().alone().astype(int)
    check = NoiseCheck(SIGMA, 64, 8)
    check.check((noise + mus()[2]).astype(np.int16))
    with pytest.raises(NoiseError, match="stuck"):
        check.check((noise + mus()[3]).astype(np.int16))


@pytest.mark.parametrize("kind", range(4))
def test_halved_sigma_stops_the_process_within_an_event(kind: int) -> None:
    sampler = Sampler(make_noise_table(SIGMA / 2), 4, 16)
    check = NoiseCheck(SIGMA, 64, 8)
    with pytest.raises(NoiseError):
        for _ in range(8):
            check.check((sampler.draw().alone() + mus()[kind]).astype(np.int16))
