"""What the reader computes of exported graphs, in every precision and for each kind of family."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto

from export import trace
from export.precision.half import rounded, to_fp16
from export.precision.network import measure, open_session, structure
from export.precision.quantise import Ranges, layers, to_int8
from familial.model.family import Family
from tests.support.qwen_factory import qwen_family_config
from tests.support.reader_graphs import program

pytest_plugins = ("tests.support.small_export_fixtures",)
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's exporter warns about itself

TOLERANCES = {"fp32": 1e-5, "fp16": 5e-3, "int8": 5e-3}
"""Largest difference of a logit from ONNX Runtime; where values are rounded, a neighbour of .5 may fall otherwise."""


@pytest.fixture(scope="module")
def qwen() -> ModelProto:
    torch.manual_seed(0)
    return trace.trace_decide(Family(qwen_family_config(size=32)).eval())


def in_precision(model: ModelProto, precision: str, feeds: list[dict[str, Any]]) -> ModelProto:
    if precision == "fp32":
        return model
    if precision == "fp16":
        return to_fp16(model)
    peaks = measure(model, feeds)
    held = {node.input[0]: peaks[node.input[0]] for node in layers(model)}
    return to_int8(model, Ranges(structure(model), held, tuple(node.name for node in layers(model)), peaks))


def check(model: ModelProto, precision: str, feeds: list[dict[str, Any]]) -> None:
    made = in_precision(model, precision, feeds)
    ours = program(made)
    theirs = open_session(rounded(made), exact=True) if precision == "fp16" else open_session(made)
    moved = [np.abs(ours.run(feed) - theirs(feed)[0]).max() for feed in feeds]
    assert len(moved) > 3 and max(moved) <= TOLERANCES[precision]
    logits = np.concatenate([ours.run(feed) for feed in feeds])
    assert np.ptp(logits, axis=0).min() > 4 * TOLERANCES["fp32"], "the control: events move the logits"


@pytest.mark.parametrize("precision", TOLERANCES)
def test_the_reader_computes_what_onnx_runtime_does(
    traced: dict[str, ModelProto], feeds: dict[str, Any], precision: str
) -> None:
    check(traced["decide"], precision, feeds["decide"])


@pytest.mark.parametrize("precision", TOLERANCES)
def test_the_reader_runs_families_of_the_qwen_kind(qwen: ModelProto, precision: str) -> None:
    rng = np.random.default_rng(7)
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in qwen.graph.input}
    feeds = [
        {
            "z": rng.normal(size=shapes["z"], scale=70).astype(np.int32),
            "present": rng.random(shapes["present"]) < 0.8,
        }
        for _ in range(6)
    ]
    check(qwen, precision, feeds)
