"""Breaches of the promise while a device runs.

breach, plant, error, says = PLANTED["a noise sample used twice"]    engine or sampler, broken in place: z shows it
breach, eye, judge = PLAYED["the code is logged"]                    the real gate, with that fault of `mutant_gate.py`
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.eye.engine.onnx import OnnxEngine
from edge_runtime.gate import sampler as noise_module
from edge_runtime.gate.core import release
from edge_runtime.gate.sampler import NoiseSample, Sampler
from tests.support.breaches_in_graph import pin
from tests.support.engine_factory import make_engine, make_noise_table
from wire.artifact.manifest import FILES, EngineManifest
from wire.errors import ManifestError, NoiseError
from wire.privacy.noise_check import NoiseCheck
from wire.privacy.noise_table import NoiseTable

__all__ = ["PLANTED", "PLAYED", "Bench"]


@dataclasses.dataclass
class Bench:
    """An engine, its sampler and the check, as the loop has them."""

    folder: Path
    patch: pytest.MonkeyPatch
    manifest: EngineManifest = dataclasses.field(init=False)
    engine: OnnxEngine = dataclasses.field(init=False)
    sampler: Sampler = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.manifest = make_engine(self.folder)
        self.engine = OnnxEngine(self.folder)
        self.sampler = Sampler(make_noise_table(self.manifest.sigma), self.manifest.n)

    def releases(self, count: int) -> None:
        """What the loop does with `count` windows of a scene that changes."""
        check = NoiseCheck(self.sampler.sigma, self.manifest.n, self.manifest.event_releases)
        for slot in range(count):
            check.check(self.release(slot, self.sampler.draw()))

    def release(self, slot: int, sample: NoiseSample) -> npt.NDArray[np.int16]:
        """What leaves for one slot."""
        code = self.engine.encode(np.full((1, *self.engine_shape), slot * 20 % 256, np.uint8))
        with sample as noise:
            return release(code, noise, self.manifest.clip_norm)

    @property
    def engine_shape(self) -> tuple[int, int, int]:
        return self.manifest.window.frames, self.manifest.window.height, self.manifest.window.width


def _swap_table(bench: Bench) -> None:
    make_noise_table(bench.manifest.sigma / 2).save(bench.folder / FILES["noise_table"])
    OnnxEngine(bench.folder)


def _swap_table_and_pin(bench: Bench) -> None:
    make_noise_table(bench.manifest.sigma / 2).save(bench.folder / FILES["noise_table"])
    pin(bench.folder, "noise_table")
    OnnxEngine(bench.folder)


def _relabel_table(bench: Bench) -> None:
    """The entries of half sigma under the name of the promised one."""
    half = make_noise_table(bench.manifest.sigma / 2)
    Sampler(NoiseTable(bench.manifest.sigma, half.high, half.low), 64)


def _promise_with_half_the_noise(bench: Bench) -> None:
    """Manifest and table agree on half of sigma; the certificate still says what it said."""
    document = json.loads((bench.folder / "manifest.json").read_text())
    half = bench.manifest.sigma / 2
    document["sigma"] = f"{half.numerator}/{half.denominator}"
    (bench.folder / "manifest.json").write_text(json.dumps(document))
    _swap_table_and_pin(bench)


def _halve_samples(bench: Bench) -> None:
    invert = bench.sampler._invert
    bench.patch.setattr(bench.sampler, "_invert", lambda: (invert() / 2).astype(np.int32))
    bench.releases(bench.manifest.event_releases)


def _draw_from_half(bench: Bench) -> None:
    """Another sampler in place of the right one."""
    right = bench.sampler.sigma
    bench.sampler = Sampler(make_noise_table(right / 2), 64)
    bench.sampler.sigma = right
    bench.releases(bench.manifest.event_releases)


def _use_a_sample_twice(bench: Bench) -> None:
    sample = bench.sampler.draw()
    for slot in range(2):
        bench.release(slot, sample)


def _repeat_samples(bench: Bench) -> None:
    kept = bench.sampler.draw()._array.copy()
    bench.patch.setattr(bench.sampler, "draw", lambda: NoiseSample(kept.copy()))
    bench.releases(2)


def _repeat_bits(bench: Bench) -> None:
    """A kernel, or a buffer, that gives the same bits at every call."""
    bits = os.urandom(8 * 64)

    def stuck(buffer: Any, size: int, flags: int) -> int:
        buffer[:] = bits
        return size

    bench.patch.setattr(noise_module, "_getrandom", stuck)
    bench.releases(2)


def _no_bits(bench: Bench) -> None:
    """A call that says it filled the buffer and did not."""
    bench.patch.setattr(noise_module, "_getrandom", lambda buffer, size, flags: size)
    bench.releases(1)


PLANTED: dict[str, tuple[str, Callable[[Bench], None], type[Exception], str]] = {
    "a table of half sigma: its hash": ("half sigma", _swap_table, ManifestError, r"noise_table\.bin"),
    "the same with its hash pinned": ("half sigma", _swap_table_and_pin, ManifestError, "sigma"),
    "its entries under the right name": ("half sigma", _relabel_table, NoiseError, "not the distribution"),
    "half sigma in the manifest: the certificate": (
        "half sigma",
        _promise_with_half_the_noise,
        ManifestError,
        "certificate",
    ),
    "a sampler that halves: measured on z": ("half sigma", _halve_samples, NoiseError, "below"),
    "a sampler of half sigma: measured on z": ("half sigma", _draw_from_half, NoiseError, "below"),
    "a noise sample used twice": ("reused noise", _use_a_sample_twice, NoiseError, "twice"),
    "a sampler that repeats itself: measured on z": ("reused noise", _repeat_samples, NoiseError, "stuck"),
    "bits that repeat: measured on z": ("reused noise", _repeat_bits, NoiseError, "stuck"),
    "bits that never came: measured on z": ("reused noise", _no_bits, NoiseError, "did not reach"),
}
"""Name -> (breach, what is done, the error that must be raised, what it says)."""

PLAYED: dict[str, tuple[str, str, str]] = {
    "no noise": ("half sigma", "silent", "stops"),
    "half sigma": ("half sigma", "silent", "stops"),
    "noise is used again": ("reused noise", "silent", "stops"),
    "the clip is skipped": ("clip skipped", "overshouts", "z"),
    "a record of any slot is read": ("a code of another slot", "shouts-ahead", "z"),
    "the code is logged": ("words kept", "silent", "looks"),
    "a miss is logged": ("words kept", "silent", "looks"),
    "the code is written": ("words kept", "silent", "looks"),
    "what the eye prints is kept": ("words kept", "prints", "looks"),
    "a bit in the flags": ("a bit in another field", "silent", "looks"),
    "a bit in the time": ("a bit in another field", "silent", "looks"),
    "a bit in the boot": ("a bit in another field", "silent", "looks"),
    "the eye's word is in the state": ("a bit in the state", "words", "looks"),
    "not watching is told at once": ("a bit in the state", "silent", "looks"),
    "no release without a code": ("a slot without a release", "silent", "looks"),
    "a shorter release without a code": ("a release of another size", "silent", "looks"),
    "a live camera ends when the eye says so": ("an end by the eye", "says-last", "ends"),
    "the gate ends with the eye": ("an end by the eye", "dies-by-division", "looks"),
    "a release as soon as the code is there": ("a time of the eye's", "hesitates", "time"),
}
"""Fault of `mutant_gate.py` -> (breach, behaviour of the eye, what notices it).

stops: the gate itself, before anything leaves that breaks the promise. looks: `faults` of `hostile_runs.py`. z: the
likelihood-ratio test. time: the times of the releases. ends: how many there are.
"""
