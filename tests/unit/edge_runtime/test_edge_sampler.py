"""The sampler to the last bit, noise samples that are used once, and the check that noise is in every release."""

from __future__ import annotations

import ast
import copy
import ctypes
import errno
import math
import os
import pickle
import random
import re
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.device.noise import searched, timing_t
from calibration.noise import build_table
from edge_runtime.gate import sampler as noise_module
from edge_runtime.gate.sampler import NoiseSample, Sampler
from tests.support.engine_factory import make_noise_table
from tests.support.services import ROOT
from wire.errors import NoiseError, PrivacyError
from wire.privacy.noise_check import NoiseCheck, _laws, _log_means
from wire.privacy.noise_table import NoiseTable

SIGMA = Fraction(3862, 64)
SIGMAS = (Fraction(1), Fraction(7, 2), SIGMA)
LONG = Fraction(500)  # a table of more than 4,000 entries
CLIP = 64


def inverted(sampler: Sampler, values: list[int], negative: list[bool]) -> list[int]:
    """What the sampler makes of these 128-bit values of U and these signs."""
    padding = len(sampler._words) - len(values)
    tops = [u >> 76 | minus << 63 | 0x5A5 << 52 for u, minus in zip(values, negative, strict=True)]  # 11 bits go unused
    sampler._words[:] = np.array(tops + [0] * padding, np.uint64)
    rests = iter([u % 2**76 for u in values] + [0] * padding)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secrets.randbits", lambda bits: next(rests) if bits == 76 else None)
        return [int(value) for value in sampler._invert().reshape(-1)]


def reference(table: NoiseTable, values: list[int], negative: list[bool]) -> list[int]:
    """The definition in big integers: count the entries <= U, then the sign."""
    entries = table.entries
    magnitudes = [bisect_right(entries, u) for u in values]
    return [-size if minus else size for size, minus in zip(magnitudes, negative, strict=True)]


def entry(table: NoiseTable, j: int) -> int:
    return int(table.high[j]) << 64 | int(table.low[j])


def samples(sigma: Fraction, count: int) -> npt.NDArray[Any]:
    sampler = Sampler(make_noise_table(sigma), 64)
    return np.concatenate([sampler.draw().take() for _ in range(count)])


@pytest.mark.parametrize("sigma", (*SIGMAS, LONG))
@pytest.mark.parametrize(("tokens", "width"), [(4, 16), (1, 1), (3, 7), (8, 32)])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_a_sample_is_the_inverse_of_the_table_to_the_last_bit(
    sigma: Fraction, tokens: int, width: int, seed: int
) -> None:
    table, rng = make_noise_table(sigma), random.Random(seed)
    values = [rng.getrandbits(128) for _ in range(tokens * width)]
    negative = [rng.random() < 0.5 for _ in values]
    assert inverted(Sampler(table, tokens * width), values, negative) == reference(table, values, negative)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_a_tie_at_any_entry_is_decided_by_the_rest(sigma: Fraction) -> None:
    """U at every entry, one below and one above it, and at both ends of the values that tie with it."""
    table = make_noise_table(sigma)
    sampler, negative = Sampler(table, 8), [False, True] * 4
    for j in range(len(table.high)):
        at = entry(table, j)
        near = {at, at - 1, at + 1, at >> 76 << 76, at | (2**76 - 1), (at >> 76 << 76) - 1, (at | (2**76 - 1)) + 1}
        values = (sorted(value for value in near if 0 <= value < 2**128) * 8)[:8]
        assert inverted(sampler, values, negative) == reference(table, values, negative)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_no_tie_is_missed_where_the_entries_lie_one_apart(sigma: Fraction) -> None:
    """U differs from an entry by one unit of the 52nd bit, on both sides: decided correctly without the other bits."""
    table = make_noise_table(sigma)
    sampler = Sampler(table, 64)
    tops = [entry(table, j) >> 76 for j in range(len(table.high))]
    known = set(tops)
    beside = sorted({top + step for top in tops for step in (-1, 1) if 0 <= top + step < 2**52} - known)
    for at in range(0, len(beside), 64):
        values = [(beside[at:] * 64)[k] << 76 for k in range(64)]
        assert inverted(sampler, values, [False] * 64) == reference(table, values, [False] * 64)


def test_a_tie_in_one_coordinate_leaves_the_others_alone() -> None:
    table = make_noise_table(SIGMA)
    values = [5, 2**127, entry(table, 100), 2**128 - 1, 2**96, 0, 3 << 120, entry(table, len(table.high) - 1)]
    negative = [True, True, True, False, False, True, False, False]
    assert inverted(Sampler(table, 8), values, negative) == reference(table, values, negative)


def test_the_magnitude_turns_where_the_rounded_gaussian_says() -> None:
    """Against mpmath at 500 bits, not against the table: j is drawn for U in [2^128 P(|X| < j), 2^128 P(|X| <= j))."""
    sampler = Sampler(build_table(SIGMA), 8)
    with mpmath.workprec(500):
        scale = mpmath.mpf(SIGMA.numerator) / SIGMA.denominator * mpmath.sqrt(2)
        for j in range(len(sampler._table.high) - 1):
            floor = int(mpmath.floor(mpmath.ldexp(mpmath.erf((j + mpmath.mpf(0.5)) / scale), 128)))
            found = inverted(sampler, [floor - 1, floor] * 4, [False] * 4 + [True] * 4)
            assert found == [j, j + 1] * 2 + [-j, -j - 1] * 2


@pytest.mark.parametrize("sigma", SIGMAS)
def test_samples_have_the_distribution_of_sigma(sigma: Fraction) -> None:
    """Chi-square over about 40 bins, which a sampler of half or 1.05 times sigma fails clearly."""
    found = samples(sigma, 800)
    edges = np.unique(np.round(np.linspace(-3, 3, 41) * float(sigma)))
    below = [float(mpmath.ncdf(edge / float(sigma))) for edge in np.concatenate([[-1e9], edges - 0.5, [1e9]])]
    expected = np.diff(below)  # round(g) is below the integer k where g is below k - 1/2
    observed = np.histogram(found, np.concatenate([[-1e9], edges - 0.5, [1e9]]))[0]
    keep = expected * len(found) > 5
    chi2 = float((((observed - expected * len(found)) ** 2) / (expected * len(found)))[keep].sum())
    freedom = int(keep.sum()) - 1
    assert mpmath.gammainc(freedom / 2, chi2 / 2, regularized=True) > 1e-9


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_variance_is_that_of_sigma_so_half_of_it_is_caught(sigma: Fraction) -> None:
    found = samples(sigma, 800).astype(float)
    ratio = float((found**2).mean()) / float(sigma) ** 2
    assert abs(ratio - 1 - 1 / (12 * float(sigma) ** 2)) < 6 * np.sqrt(2 / len(found))  # rounding adds 1/12
    assert abs(float(found.mean())) < 6 * float(sigma) / np.sqrt(len(found))


def test_coordinates_are_not_correlated() -> None:
    found = samples(SIGMA, 2000).reshape(-1, 64).astype(float) / float(SIGMA)
    correlation = (found.T @ found) / len(found) - np.eye(64)
    assert np.abs(correlation).max() < 0.15
    lag = float((found[1:] * found[:-1]).mean())
    assert abs(lag) < 6 / np.sqrt(found[1:].size)


def test_opendps_sampler_has_the_same_distribution() -> None:
    """Two samples of 100,000, ours and that of OpenDP's discrete Gaussian, over 40 bins.

    The laws differ, by 1e-5 in the variance at this sigma: far less than what these samples could show.
    """
    dp = pytest.importorskip("opendp.prelude", reason="OpenDP is not installed")
    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T=int)), dp.l2_distance(T=float)
    theirs = np.array(dp.m.make_gaussian(*space, scale=float(SIGMA))([0] * 100_096))
    assert two_sample_p(samples(SIGMA, 1564), theirs) > 1e-9
    assert two_sample_p(samples(SIGMA * Fraction(21, 20), 1564), theirs) < 1e-9  # 1.05 times sigma would be seen


def two_sample_p(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Any:
    """The p-value, by chi-square, of two samples of one length being from one distribution."""
    edges = np.unique(np.round(np.linspace(-3, 3, 41) * float(SIGMA))) - 0.5
    one, other = (np.histogram(x, np.concatenate([[-1e9], edges, [1e9]]))[0] for x in (a, b))
    keep = one + other > 10
    chi2 = float(((one - other) ** 2 / np.maximum(one + other, 1))[keep].sum())
    return mpmath.gammainc((int(keep.sum()) - 1) / 2, chi2 / 2, regularized=True)


def test_the_time_to_draw_a_sample_does_not_depend_on_its_values() -> None:
    """Interleaved at random: words of noise zero against words of the largest noise, by Welch's t on the fastest 90 %.

    The control is a search that stops at the entry that it looks for.
    """
    table = make_noise_table(SIGMA)
    sampler = Sampler(table, 64)
    assert abs(timing_t(sampler, searched(sampler, table), 1000)[0]) > 20
    assert min(abs(timing_t(sampler, sampler._invert, 8000)[0]) for _ in range(3)) < 4.5


def test_two_samples_differ() -> None:
    sampler = Sampler(make_noise_table(SIGMA), 64)
    seen = {sampler.draw().take().tobytes() for _ in range(1000)}
    assert len(seen) == 1000


def test_a_forked_process_draws_other_noise() -> None:
    sampler = Sampler(make_noise_table(SIGMA), 64)
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


def test_a_sample_held_through_a_fork_belongs_to_the_process_that_drew_it() -> None:
    sample = Sampler(make_noise_table(SIGMA), 64).draw()
    child = os.fork()
    if child == 0:
        try:
            sample.take()
        except NoiseError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert sample.take().any()


def test_a_fork_while_a_sample_is_drawn_repeats_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fork happens after the bits are read and before the noise is made: what the child draws next is its own."""
    sampler = Sampler(make_noise_table(SIGMA), 64)
    reader, writer = os.pipe()
    invert, children = sampler._invert, []

    def fork_first() -> Any:
        children.append(os.fork())
        if children[-1] == 0:
            monkeypatch.undo()
            os.write(writer, sampler.draw().take().tobytes())
            os._exit(0)
        return invert()

    monkeypatch.setattr(sampler, "_invert", fork_first)
    mine = sampler.draw().take().tobytes()
    os.waitpid(children[0], 0)
    assert os.read(reader, 4096) != mine
    os.close(reader)
    os.close(writer)


def test_a_restarted_process_draws_other_noise(tmp_path: Path) -> None:
    make_noise_table(SIGMA).save(tmp_path / "table")
    code = (
        "import sys; from edge_runtime.gate.sampler import Sampler; from wire.privacy.noise_table import NoiseTable;"
        "print(Sampler(NoiseTable.load(sys.argv[1]), 64).draw().take().tolist())"
    )
    seen = [subprocess.check_output([sys.executable, "-c", code, str(tmp_path / "table")]) for _ in range(2)]
    assert len(seen[0]) > 128
    assert seen[0] != seen[1]


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
def test_neither_sampler_nor_sample_can_be_copied(copied: Callable[[Any], Any]) -> None:
    sampler = Sampler(make_noise_table(SIGMA), 64)
    for each in (sampler, sampler.draw()):
        with pytest.raises(PrivacyError, match="never leaves"):
            copied(each)


def test_without_bits_from_the_kernel_there_is_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise_module, "_getrandom", lambda *_: -1)
    monkeypatch.setattr("ctypes.get_errno", lambda: errno.ENOSYS)
    with pytest.raises(NoiseError, match="getrandom"):
        Sampler(make_noise_table(SIGMA), 64).draw()


def test_bits_that_a_signal_cut_short_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler, real = Sampler(make_noise_table(SIGMA), 64), noise_module._getrandom
    results = iter([(-1, errno.EINTR), (256, 0)])

    def interrupted(bits: Any, size: int, flags: int) -> int:
        got, number = next(results, (real(bits, size, flags), 0))
        ctypes.set_errno(number)
        return got

    monkeypatch.setattr(noise_module, "_getrandom", interrupted)
    noise = sampler.draw().take()
    assert next(results, None) is None
    assert np.count_nonzero(noise) > 32


def test_bits_come_from_the_kernel_and_noise_from_the_sampler() -> None:
    """On the device only sampler.py makes noise, numpy's generators are not used, and Python's only for waits."""
    made, generators = [], []
    for path in sorted((ROOT / "edge_runtime").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "NoiseSample":
                made.append(path.name)
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith(("np.random", "numpy.random")):
                generators.append(path.name)
            if isinstance(node, ast.Import | ast.ImportFrom) and re.search(r"\brandom\b", ast.unparse(node)):
                generators.append(path.name)
    assert made == ["sampler.py"]
    assert set(generators) == {"camera.py", "clock.py"}  # before it connects again; before a release, by the kernel's
    assert "random.SystemRandom()" in (ROOT / "edge_runtime" / "capture" / "clock.py").read_text()


def test_a_sample_is_used_once() -> None:
    sampler = Sampler(make_noise_table(SIGMA), 64)
    sample = sampler.draw()
    sample.take()
    for again in (sample.take, sample.alone, sample.__enter__):
        with pytest.raises(NoiseError, match="twice"):
            again()
    alone = sampler.draw()
    alone.alone()
    with pytest.raises(NoiseError, match="twice"):
        alone.take()


def test_a_sample_is_wiped_after_use_even_if_its_use_fails() -> None:
    sample = Sampler(make_noise_table(SIGMA), 64).draw()
    with pytest.raises(ZeroDivisionError), sample as noise:
        assert noise.any()
        _ = 1 / 0
    assert not noise.any()


def test_the_random_bits_of_a_sample_are_wiped() -> None:
    sampler = Sampler(make_noise_table(SIGMA), 64)
    sampler.draw()
    assert not sampler._array.any()
    for kept in vars(sampler).values():
        for part in kept if isinstance(kept, tuple) else (kept,):
            if isinstance(part, np.ndarray) and part is not sampler._starts and part is not sampler._steps:
                assert np.shares_memory(part, sampler._array)


def test_noise_alone_is_the_sample_as_int16() -> None:
    noise = np.array([-40000, -5, 0, 40000], np.int32)
    alone = NoiseSample(noise).alone()
    assert alone.dtype == np.int16
    assert alone.tolist() == [-32768, -5, 0, 32767]
    assert not noise.any()


def test_a_sample_is_not_shown_and_not_pickled() -> None:
    sample = NoiseSample(np.full((1, 2, 2), 12345, np.int32))
    assert "12345" not in repr(sample)
    with pytest.raises(PrivacyError):
        pickle.dumps(sample)


def test_a_table_of_another_sigma_is_refused() -> None:
    half = make_noise_table(SIGMA / 2)
    with pytest.raises(NoiseError, match="not the distribution"):
        Sampler(NoiseTable(SIGMA, half.high, half.low), 64)


def test_a_cut_table_is_refused() -> None:
    table = make_noise_table(SIGMA)
    with pytest.raises(NoiseError, match="not the distribution"):
        Sampler(NoiseTable(SIGMA, table.high[:-60], table.low[:-60]), 64)


def test_a_table_of_the_discrete_gaussian_is_refused() -> None:
    """By its magic, with the cure; and by its entries, where somebody changed the magic: the laws differ by 1e-5."""
    table = make_noise_table(SIGMA)
    former = table.to_bytes().replace(b"VSNOISE2", b"VSNOISE1", 1)
    with pytest.raises(NoiseError, match=r"discrete Gaussian.*calibration.noise, then .*export.build_engine"):
        NoiseTable.from_bytes(former)
    sizes = np.arange(len(table.high))
    weights = np.exp(-(sizes**2) / (2 * float(SIGMA) ** 2)) * np.where(sizes == 0, 1, 2)
    entries = [int(p * 2**53) << 75 for p in np.cumsum(weights)[:400] / weights.sum()]
    high = np.array([entry >> 64 for entry in entries], np.uint64)
    high, low = np.concatenate([high, table.high[400:]]), np.concatenate([0 * high, table.low[400:]])
    with pytest.raises(NoiseError, match="not the distribution"):
        NoiseTable(SIGMA, high, low).check()


def codes() -> list[npt.NDArray[Any]]:
    """Codes of norm C, and of norm 0."""
    one = np.zeros(64)
    one[0] = CLIP
    return [np.zeros(64), one, np.full(64, CLIP / 8), np.full(64, -CLIP / 8)]


@pytest.mark.parametrize("kind", range(4))
def test_sound_noise_passes_the_check(kind: int) -> None:
    check = NoiseCheck(SIGMA, 64, 8)
    sampler = Sampler(make_noise_table(SIGMA), 64)
    for _ in range(500):
        check.check((sampler.draw().alone() + codes()[kind]).astype(np.int16))


def test_the_thresholds_are_safe_and_not_useless() -> None:
    """Against the chi-square law, which the rounded Gaussian's squares follow closely at this sigma."""
    check = NoiseCheck(SIGMA, 64, 8)
    for threshold, freedom, scale in zip(check.thresholds, (64, 64, 512), (1, 2, 1), strict=True):
        x = threshold / (scale * float(SIGMA) ** 2)
        tail = float(mpmath.log(mpmath.gammainc(freedom / 2, 0, x / 2, regularized=True), 2))
        assert -48 < tail <= -40


@given(st.sampled_from([0.3, 1.0, 2.5]), st.sampled_from([1e-3, 0.1, 1.0, 30.0]), st.integers(-12, 12))
def test_no_integer_code_makes_sound_noise_look_smaller(sigma: float, scaled: float, u: int) -> None:
    """E exp(-t (X + u)^2) is largest at u = 0, for the noise and for the difference of two noises."""
    rate, far = scaled / (2 * sigma**2), 40
    k = np.arange(-far, far + 1)
    edges = [float(mpmath.ncdf((edge - 0.5) / sigma)) for edge in range(-far, far + 2)]
    once = np.diff(edges)
    twice = np.convolve(once, once)[far:-far]
    for law in (once, twice):
        at = [float(law @ np.exp(-rate * (k + shift) ** 2)) for shift in (0, u)]
        assert at[1] <= at[0] * (1 + 1e-9)


@pytest.mark.parametrize("sigma", [Fraction(1, 2), Fraction(7, 2), SIGMA])
def test_the_chernoff_means_are_those_of_the_law(sigma: Fraction) -> None:
    """Against mpmath: E exp(-t X^2) and E exp(-t (X - X')^2), never below and within 1e-8."""
    laws, rate = _laws(float(sigma)), 1 / (2 * float(sigma) ** 2)
    far = math.ceil(9 * sigma) + 2
    half = [mpmath.ncdf((k + 0.5) / sigma) - mpmath.ncdf((k - 0.5) / sigma) for k in range(far)]
    law = half[:0:-1] + half
    both = np.convolve(np.array(law, float), np.array(law, float))
    squares = (np.arange(len(both)) - len(both) // 2) ** 2.0
    once = float(mpmath.fsum(p * mpmath.exp(-rate * (k - far + 1) ** 2) for k, p in enumerate(law)))
    twice = float(both @ np.exp(-rate * squares))
    for found, exact in zip((_log_means(each, np.array([rate])) for each in laws), (once, twice), strict=True):
        assert math.log(exact) - 1e-12 <= found[0] <= math.log(exact) + 1e-8


@pytest.mark.parametrize("kind", range(4))
def test_a_release_without_noise_stops_the_process(kind: int) -> None:
    with pytest.raises(NoiseError, match="did not reach"):
        NoiseCheck(SIGMA, 64, 8).check(codes()[kind].astype(np.int16))


def test_reused_noise_stops_the_process() -> None:
    """The same noise on codes as far apart as two codes can be."""
    noise = Sampler(make_noise_table(SIGMA), 64).draw().alone().astype(int)
    check = NoiseCheck(SIGMA, 64, 8)
    check.check((noise + codes()[2]).astype(np.int16))
    with pytest.raises(NoiseError, match="stuck"):
        check.check((noise + codes()[3]).astype(np.int16))


@pytest.mark.parametrize("kind", range(4))
def test_halved_sigma_stops_the_process_within_an_event(kind: int) -> None:
    sampler = Sampler(make_noise_table(SIGMA / 2), 64)
    check = NoiseCheck(SIGMA, 64, 8)
    with pytest.raises(NoiseError):
        for _ in range(8):
            check.check((sampler.draw().alone() + codes()[kind]).astype(np.int16))
