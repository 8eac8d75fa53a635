"""`python -m benchmarks.noise`: time of a noise sample, as the device makes it, against OpenDP's sampler.

Ours is the gate's sampler: it takes a fresh key and the table, hands a sample out once and overwrites it. OpenDP's is
its exact discrete Gaussian on a vector of as many integers, at the same sigma, through its Python interface: a peer in
speed, of nearly the same law (ours is the rounded Gaussian). Both run in one process on one thread, in turns.

The second part tests whether the time of a sample depends on its values: Welch's t between the times of small and of
large noise, interleaved at random (the method of dudect, https://eprint.iacr.org/2016/1123). The control is a search
that stops as soon as it finds, whose time does depend on them.
"""

from __future__ import annotations

import argparse
import bisect
import sys
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from benchmarks.harness import add_engine, engine_folder
from benchmarks.runner import Benchmark, Report, percentiles
from edge_runtime.gate.sampler import Sampler
from wire.arguments import at_least_one, former_name
from wire.artifact.manifest import FILES, EngineManifest
from wire.privacy.noise_table import NoiseTable

__all__ = ["COMMAND", "searched", "timing_t"]

Floats = npt.NDArray[np.float64]

_ROUNDS = 20
_PAUSES, _PAUSE_S = 300, 0.005
_APART = f", {_PAUSE_S * 1e3:g} ms apart"
_RUNS = 100_000
_ALARM = 4.5  # |t| from which dudect calls an implementation leaky


def _timed(sample: Callable[[], object], times: int, pause_s: float = 0.0) -> list[float]:
    """Microseconds of each of `times` calls, on the wall clock; with a pause before each, caches have gone cold."""
    took = []
    for _ in range(times):
        if pause_s:
            time.sleep(pause_s)
        begin = time.perf_counter_ns()
        sample()
        took.append((time.perf_counter_ns() - begin) / 1e3)
    return took


def _opendp(sigma: float, n: int) -> Callable[[], object] | None:
    """A function that samples n integers from OpenDP's discrete Gaussian; None where OpenDP is not installed."""
    try:
        import opendp.prelude as dp
    except ImportError:
        return None
    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T=int)), dp.l2_distance(T=float)
    gaussian = dp.m.make_gaussian(*space, scale=sigma)
    zeros = [0] * n
    return lambda: gaussian(zeros)


def timing_t(sampler: Sampler, run: Callable[[], object], runs: int, share: float = 0.9) -> tuple[float, float]:
    """(t, mean difference in ns) between the times of `run` on bits of nearly the largest noise and on bits of noise 0.

    A coin says before each run which bits it finds, in the same place. The fastest `share` of all runs counts: beyond
    it the machine's interruptions are measured. t is Welch's, in standard errors.
    """
    bits = [np.full(len(sampler._words), word, np.uint64) for word in (1, 1 << 63 | (1 << 52) - (1 << 13))]
    which = np.random.default_rng().integers(0, 2, runs)
    took = np.empty(runs)
    for k, kind in enumerate(which.tolist()):
        sampler._words[:] = bits[kind]
        begin = time.perf_counter_ns()
        run()
        took[k] = time.perf_counter_ns() - begin
    fast = took <= np.quantile(took, share)
    small, large = (took[fast & (which == kind)] for kind in (0, 1))
    if min(len(small), len(large)) < runs // 20:
        return float("inf"), float(took[which == 1].mean() - took[which == 0].mean())  # one kind is slower throughout
    error = np.sqrt(small.var() / len(small) + large.var() / len(large))
    return float((large.mean() - small.mean()) / error), float(large.mean() - small.mean())


def searched(sampler: Sampler, table: NoiseTable) -> Callable[[], object]:
    """The control: a search for each word in the table that ends where it finds, as bisect does."""
    entries = (table.high >> np.uint64(12)).tolist()
    return lambda: [_walk(entries, word % 2**52) for word in sampler._words.tolist()]


def _walk(entries: list[int], word: int) -> int:
    """Doubling steps from zero, then bisection: quick for small magnitudes."""
    step = 1
    while step < len(entries) and entries[step] <= word:
        step *= 2
    return bisect.bisect_right(entries, word, step // 2, min(step, len(entries)))


def _options(parser: argparse.ArgumentParser) -> None:
    add_engine(parser)
    count = parser.add_argument(
        "--noise-samples", type=at_least_one, default=20_000, metavar="N", help="to time (default 20000)"
    )
    former_name(parser, "--draws", count)
    parser.add_argument(
        "--runs", type=at_least_one, default=_RUNS, help="runs whose times are compared with their values"
    )


def _measure(args: argparse.Namespace) -> Report:
    folder = engine_folder(args)
    manifest = EngineManifest.load(folder)
    table = NoiseTable.load(folder / FILES["noise_table"], manifest.hashes["noise_table"])
    sampler = Sampler(table, manifest.n)
    latency = _latency(sampler, _opendp(float(manifest.sigma), manifest.n), args.noise_samples)
    leak = {f"fastest {share:.0%}": timing_t(sampler, sampler._invert, args.runs, share) for share in (0.5, 0.9)}
    leak["control"] = timing_t(sampler, searched(sampler, table), args.runs // 20)
    sampler.wipe()
    rows = [["sampler", "samples", "p50 us", "p99 us"]]
    for name, times in latency.items():
        found = percentiles(times)
        rows += [[name, str(len(times)), f"{found['p50']:.1f}", f"{found['p99']:.1f}"]] if times else []
    notes = [f"sigma {float(manifest.sigma):g}, n {manifest.n}, {len(table.high)} table entries of 128 bits"]
    gaps = ", ".join(f"{name} {ns:+.2f} ns (t {t:+.1f})" for name, (t, ns) in leak.items())
    notes.append(f"time of large noise less small: {gaps}; a sampler leaks where |t| > {_ALARM}, the control must")
    if not latency["OpenDP"]:
        notes.append("OpenDP: skipped, it is not installed (pip install opendp)")
    figures = {
        "us": percentiles(latency["ours"]),
        "after_a_pause_us": percentiles(latency[f"ours{_APART}"]),
        "opendp_us": percentiles(latency["OpenDP"]),
        "opendp_after_a_pause_us": percentiles(latency[f"OpenDP{_APART}"]),
        "noise_samples": len(latency["ours"]),
        "sigma": float(manifest.sigma),
        "n": manifest.n,
        "entries": len(table.high),
        "timing_t": {name: round(t, 2) for name, (t, _) in leak.items()},
        "timing_ns": {name: round(ns, 2) for name, (_, ns) in leak.items()},
    }
    ratio = float(np.median(latency["ours"]) / np.median(latency["OpenDP"])) if latency["OpenDP"] else None
    return Report(ratio, figures, rows, notes)


def _latency(sampler: Sampler, theirs: Callable[[], object] | None, count: int) -> dict[str, list[float]]:
    """Microseconds of noise samples of both samplers, back to back in turns and after a pause; empty for OpenDP where
    it is not installed."""

    def ours() -> None:
        with sampler.draw():
            pass

    _timed(ours, 200)
    found: dict[str, list[float]] = {"ours": [], f"ours{_APART}": [], "OpenDP": [], f"OpenDP{_APART}": []}
    for _ in range(_ROUNDS):
        found["ours"] += _timed(ours, max(1, count // _ROUNDS))
        found["OpenDP"] += _timed(theirs, max(1, count // _ROUNDS // 20)) if theirs else []
    found[f"ours{_APART}"] = _timed(ours, _PAUSES, _PAUSE_S)
    found[f"OpenDP{_APART}"] = _timed(theirs, _PAUSES // 3, _PAUSE_S) if theirs else []
    return found


COMMAND = Benchmark("noise", __doc__, "OpenDP's discrete Gaussian", _options, _measure)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
