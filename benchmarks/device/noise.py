"""`python -m benchmarks.noise`: a draw of our noise, as the device makes it, against OpenDP's sampler.

Ours is the gate's sampler: fresh key, table, taken once, overwritten. OpenDP's is its exact discrete Gaussian on a
vector of as many integers, at the same sigma, through its Python interface. One process, one thread, turns taken.

Then whether the time of a draw tells its values: Welch's t between the times of small and of large noise, interleaved
at random (the method of dudect, https://eprint.iacr.org/2016/1123), and as a control that of a search which stops
where it finds.
"""

from __future__ import annotations

import argparse
import bisect
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.harness import build_engine, fail, percentiles, report
from edge_runtime.gate.sampler import Sampler
from wire.artifact.manifest import FILES, EngineManifest
from wire.errors import VeilsightError
from wire.privacy.noise_table import NoiseTable

__all__ = ["main", "searched", "timing_t"]

Floats = npt.NDArray[np.float64]

_ROUNDS = 20
_PAUSES, _PAUSE_S = 300, 0.005
_RUNS = 100_000
_ALARM = 4.5  # |t| from which dudect calls an implementation leaky


def _timed(draw: Callable[[], object], times: int, pause_s: float = 0.0) -> list[float]:
    """Microseconds of each of `times` calls, on the wall clock; with a pause before each, caches have gone cold."""
    took = []
    for _ in range(times):
        if pause_s:
            time.sleep(pause_s)
        begin = time.perf_counter_ns()
        draw()
        took.append((time.perf_counter_ns() - begin) / 1e3)
    return took


def _opendp(sigma: float, n: int) -> Callable[[], object] | None:
    """A draw of n integers from OpenDP's discrete Gaussian; None where OpenDP is not installed."""
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


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report; 0, or 2 with the reason."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.noise", description="A noise draw against OpenDP's.")
    parser.add_argument("--engine", type=Path, metavar="DIR", help="an engine folder (default: build or reuse nano's)")
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=_RUNS, help="runs whose times are held against their values")
    args = parser.parse_args(argv)
    try:
        folder = args.engine or build_engine()
        manifest = EngineManifest.load(folder)
        table = NoiseTable.load(folder / FILES["noise_table"], manifest.hashes["noise_table"])
        sampler = Sampler(table, manifest.tokens, manifest.width)
    except VeilsightError as error:
        return fail(error)

    def ours() -> None:
        with sampler.draw():
            pass

    theirs = _opendp(float(manifest.sigma), manifest.n)
    _timed(ours, 200)
    a: list[float] = []
    b: list[float] = []
    for _ in range(_ROUNDS):
        a += _timed(ours, max(1, args.draws // _ROUNDS))
        b += _timed(theirs, max(1, args.draws // _ROUNDS // 20)) if theirs else []
    mine, other, cold = percentiles(a), percentiles(b), percentiles(_timed(ours, _PAUSES, _PAUSE_S))
    chilled = percentiles(_timed(theirs, _PAUSES // 3, _PAUSE_S) if theirs else [])
    ratio = float(np.median(a) / np.median(b)) if b else None
    rows = [["sampler", "draws", "p50 us", "p99 us"], ["ours", str(len(a)), f"{mine['p50']:.1f}", f"{mine['p99']:.1f}"]]
    rows.append([f"ours, {_PAUSE_S * 1e3:g} ms apart", str(_PAUSES), f"{cold['p50']:.1f}", f"{cold['p99']:.1f}"])
    if b:
        rows.append(["OpenDP", str(len(b)), f"{other['p50']:.1f}", f"{other['p99']:.1f}"])
        row = [f"{chilled['p50']:.1f}", f"{chilled['p99']:.1f}"]
        rows.append([f"OpenDP, {_PAUSE_S * 1e3:g} ms apart", str(_PAUSES // 3), *row])
    leak = {f"fastest {share:.0%}": timing_t(sampler, sampler._invert, args.runs, share) for share in (0.5, 0.9)}
    leak["control"] = timing_t(sampler, searched(sampler, table), args.runs // 20)
    sampler.wipe()
    figures = {
        "us": mine,
        "after_a_pause_us": cold,
        "opendp_us": other,
        "opendp_after_a_pause_us": chilled,
        "draws": len(a),
        "sigma": float(manifest.sigma),
        "n": manifest.n,
        "entries": len(table.high),
        "timing_t": {name: round(t, 2) for name, (t, _) in leak.items()},
        "timing_ns": {name: round(ns, 2) for name, (_, ns) in leak.items()},
    }
    notes = [f"sigma {float(manifest.sigma):g}, n {manifest.n}, {len(table.high)} table entries of 128 bits"]
    notes += [f"time, large noise less small, {k}: {ns:+.2f} ns, t = {t:+.1f}" for k, (t, ns) in leak.items()]
    notes.append(f"a sampler leaks where |t| > {_ALARM}; the control, a search that stops where it finds, must")
    if not b:
        notes.append("OpenDP: skipped, it is not installed (pip install opendp)")
    report("noise", ratio=ratio, of="OpenDP's discrete Gaussian", figures=figures, rows=rows, notes=notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
