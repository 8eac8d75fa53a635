"""Top floor. `python -m benchmarks.noise`: a draw of our noise, as the device makes it, against OpenDP's sampler.

Ours is `edge_runtime.noise`: fresh key, table, taken once, overwritten. OpenDP's is its exact discrete Gaussian on a
vector of as many integers, at the same sigma, through its Python interface. One process, one thread, turns taken.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edge_runtime.noise import Sampler
from wire.errors import VeilsightError
from wire.manifest import FILES, EngineManifest
from wire.noise_table import NoiseTable

from .harness import build_engine, fail, percentiles, report

__all__ = ["main"]

_ROUNDS = 20
_PAUSES, _PAUSE_S = 300, 0.005


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


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report; 0, or 2 with the reason."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.noise", description="A noise draw against OpenDP's.")
    parser.add_argument("--engine", type=Path, metavar="DIR", help="an engine folder (default: build or reuse nano's)")
    parser.add_argument("--draws", type=int, default=20_000)
    args = parser.parse_args(argv)
    try:
        folder = args.engine or build_engine()
        manifest = EngineManifest.load(folder)
        table = NoiseTable.load(folder / FILES["noise_table"], manifest.hashes["noise_table"])
        sampler = Sampler(table, manifest.tokens, manifest.width)
    except VeilsightError as error:
        return fail(error)

    def ours() -> None:
        with sampler.draw() as noise:
            noise.any()

    theirs = _opendp(float(manifest.sigma), manifest.n)
    _timed(ours, 200)
    a: list[float] = []
    b: list[float] = []
    for _ in range(_ROUNDS):
        a += _timed(ours, max(1, args.draws // _ROUNDS))
        b += _timed(theirs, max(1, args.draws // _ROUNDS // 20)) if theirs else []
    mine, other, cold = percentiles(a), percentiles(b), percentiles(_timed(ours, _PAUSES, _PAUSE_S))
    ratio = float(np.median(a) / np.median(b)) if b else None
    rows = [["sampler", "draws", "p50 us", "p99 us"], ["ours", str(len(a)), f"{mine['p50']:.1f}", f"{mine['p99']:.1f}"]]
    rows.append([f"ours, {_PAUSE_S * 1e3:g} ms apart", str(_PAUSES), f"{cold['p50']:.1f}", f"{cold['p99']:.1f}"])
    if b:
        rows.append(["OpenDP", str(len(b)), f"{other['p50']:.1f}", f"{other['p99']:.1f}"])
    figures = {
        "us": mine,
        "after_a_pause_us": cold,
        "opendp_us": other,
        "draws": len(a),
        "sigma": float(manifest.sigma),
        "n": manifest.n,
        "entries": len(table.high),
    }
    notes = [f"sigma {float(manifest.sigma):g}, n {manifest.n}, {len(table.high)} table entries of 128 bits"]
    if not b:
        notes.append("OpenDP: skipped, it is not installed (pip install opendp)")
    report("noise", ratio=ratio, of="OpenDP's discrete Gaussian", figures=figures, rows=rows, notes=notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
