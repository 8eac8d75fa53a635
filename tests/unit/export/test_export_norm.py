"""Graphs that pass the proof keep |z - noise| <= C when they run: with extreme weights, and after random changes."""

from __future__ import annotations

import itertools
import random

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from export.proof.verify_graph import prove_encode
from tests.support.core_graph import FRAMES, MANIFEST, SPELLINGS, Builder, C, D, K, build, run
from tests.support.core_mutants import MUTANTS
from wire.errors import GraphError

RUNTIME_ERRORS = (ort_errors.Fail, ort_errors.InvalidGraph, ort_errors.NotImplemented, ort_errors.RuntimeException)
EXTREME = [0.0, 0.01, -0.02, 1.0, -3.0, 1e9, -1e9, 1e38, -1e38, float("nan"), float("inf"), float("-inf"), 1e-45]
SLOW = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def some_weights(rng: np.random.Generator, extreme: float) -> npt.NDArray[np.float32]:
    """(32, K * D): codes from well inside the ball to far outside it, and a share of extreme values."""
    weights = rng.normal(scale=rng.choice([0.004, 0.008, 0.009, 0.012, 0.1]), size=(32, K * D)).astype(np.float32)
    spoilt = rng.random(weights.shape[1]) < extreme
    weights[:, spoilt] = rng.choice(np.array(EXTREME, np.float32), weights[:, spoilt].shape)
    return weights


def holds(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """|z - noise| <= C on random frames and on white ones."""
    for frames in (rng.integers(0, 256, FRAMES, dtype=np.uint8), np.full(FRAMES, 255, np.uint8)):
        noise = rng.integers(-800, 800, (1, K, D), dtype=np.int32)
        mu = run(model, frames, noise)
        assert int((mu * mu).sum()) <= C * C, "norm"


@SLOW
@given(
    spelling=st.sampled_from(sorted(SPELLINGS)),
    extreme=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_the_norm_holds_for_any_weights(spelling: str, extreme: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = build(some_weights(rng, extreme), **SPELLINGS[spelling]).model()
    prove_encode(model, MANIFEST)
    holds(model, rng)


@pytest.mark.parametrize(
    "mutant", ["guard dropped for b", "guard dropped for both", "norm over one axis", "Where swapped"]
)
def test_the_same_check_fails_on_a_broken_core(mutant: str) -> None:
    """The control: on a core that the proof refuses, these weights and frames do exceed the norm."""
    rng = np.random.default_rng(3)
    with pytest.raises(AssertionError, match="norm"):
        for _ in range(30):
            b = build(some_weights(rng, 0.1))
            MUTANTS[mutant][0](b)
            holds(b.model(), rng)


def _mutate(b: Builder, dice: random.Random) -> None:
    """One random change: an operand, an operator, an attribute or a constant."""
    node = dice.choice(b.nodes)
    kind = dice.randrange(4)
    if kind == 0 and node.input:
        names = [name for other in b.nodes for name in other.output] + [*b.constants, "noise"]
        node.input[dice.randrange(len(node.input))] = dice.choice(names)
    elif kind == 1:
        node.op_type = dice.choice(
            ["Add", "Mul", "Max", "Min", "Where", "Clip", "Identity", "Round", "Floor", "Cast", "Less"]
        )
    elif kind == 2 and node.attribute:
        node.attribute[0].i = dice.randrange(8)
    else:
        name = dice.choice(sorted(b.constants))
        value = b.constants[name]
        with np.errstate(over="ignore"):
            b.constants[name] = dice.choice([value + 1, value * 2, -value, value.reshape(-1), value[..., None]])


def test_every_accepted_random_mutant_keeps_the_norm() -> None:
    """A thousand graphs, one to three random changes each: nearly all are refused, and the rest keep the norm."""
    dice, rng = random.Random(7), np.random.default_rng(7)
    refused, accepted = 0, 0
    for spelling in itertools.islice(itertools.cycle(SPELLINGS.values()), 1000):
        b = build(some_weights(rng, 0.1), **spelling)
        for _ in range(dice.randint(1, 3)):
            _mutate(b, dice)
        model = b.model()
        try:
            prove_encode(model, MANIFEST)
        except GraphError:
            refused += 1
            continue
        accepted += 1
        try:
            holds(model, rng)
        except RUNTIME_ERRORS:
            continue  # what does not run releases nothing
    assert refused > 700 and accepted > 20, (refused, accepted)
