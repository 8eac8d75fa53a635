"""An engineer finds modules, shapes and origins in a graph; it computes the same, and holds nothing of this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edge_runtime.reader.graph import parse
from export import parity
from export.describe import described
from export.precision.convert import in_precision
from export.precision.network import open_session
from export.proof.structure import METADATA
from export.proof.verify_graph import prove_graph
from export.requirements import requirements
from tests.support.family_factory import load_graphs
from tests.support.services import ROOT
from wire.artifact.manifest import EngineManifest
from wire.errors import GraphError

pytest_plugins = ("tests.support.small_export_fixtures",)
HASHES = ("ab" * 32, "cd" * 32)


@pytest.fixture
def graphs(small_graphs: Path) -> dict[str, onnx.ModelProto]:
    return {part: described(model, part, *HASHES) for part, model in load_graphs(small_graphs).items()}


def test_nodes_are_named_after_the_modules_that_made_them(graphs: dict[str, onnx.ModelProto]) -> None:
    names = [node.name for node in graphs["encode"].graph.node]
    assert len(set(names)) == len(names)
    assert "tower.stem/Conv" in names and "tower.convs.0/Conv" in names
    assert any(name.startswith("desensitizer.") for name in names)
    assert any("attention" in name or "backbone" in name for name in (n.name for n in graphs["decide"].graph.node))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_tensor_has_its_shape_and_every_graph_its_origin(
    small_graphs: Path, manifest: EngineManifest, precision: str
) -> None:
    for part, model in load_graphs(small_graphs).items():
        made = described(in_precision(part, model, precision), part, *HASHES)
        known = {value.name for value in [*made.graph.value_info, *made.graph.output]}
        assert known == {name for node in made.graph.node for name in node.output}
        assert [(entry.key, entry.value) for entry in made.metadata_props] == list(zip(METADATA, HASHES, strict=True))
        assert made.graph.doc_string and all(value.doc_string for value in made.graph.input)
        assert prove_graph(part, made, manifest)


def test_it_computes_the_same_and_holds_nothing_of_this_machine(
    small_graphs: Path, graphs: dict[str, onnx.ModelProto], manifest: EngineManifest
) -> None:
    bare = load_graphs(small_graphs)
    window = parity.made_windows(manifest.window, 12)[-1][None]
    np.testing.assert_array_equal(*(open_session(each["encode"])({"frames": window})[0] for each in (bare, graphs)))
    again = {part: described(model, part, *HASHES) for part, model in load_graphs(small_graphs).items()}
    for part, model in graphs.items():
        data = model.SerializeToString(deterministic=True)
        assert data == again[part].SerializeToString(deterministic=True)
        assert not any(hint in data for hint in (str(ROOT).encode(), b".py", b"stack_trace", b"torch", b"familial"))


def test_the_devices_reader_takes_it(graphs: dict[str, onnx.ModelProto]) -> None:
    assert parse(graphs["decide"].SerializeToString(deterministic=True)).output == "logits"


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([("ort_config", "{}")], "metadata are"),
        ([(METADATA[0], "ab" * 32)] * 2, "each once"),
        ([(METADATA[0], "somebody's name")], "SHA-256 in hex, nothing else"),
    ],
)
def test_other_metadata_are_refused(
    graphs: dict[str, onnx.ModelProto], manifest: EngineManifest, entries: list[tuple[str, str]], says: str
) -> None:
    model = graphs["encode"]
    del model.metadata_props[:]
    for key, value in entries:
        model.metadata_props.add(key=key, value=value)
    with pytest.raises(GraphError, match=says):
        prove_graph("encode", model, manifest)


def test_what_a_device_needs_follows_from_the_graphs(graphs: dict[str, onnx.ModelProto]) -> None:
    found = requirements(graphs)
    assert found["tensorrt"] == "10.0" and found["jetpack"] == "6.1"
    weights = sum(len(tensor.raw_data) for model in graphs.values() for tensor in model.graph.initializer)
    frames = 60 * 32 * 32 * 4
    assert weights + frames < int(found["memory_mb"]) << 20 < 16 * (weights + frames) + (1 << 20)
    graph = graphs["encode"].graph
    (stem,) = (node for node in graph.node if node.name == "tower.stem/Conv")
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in graph.value_info}
    out, kernel = shapes[stem.output[0]], 7 * 5 * 5  # differences of 8 frames, 5 x 5
    assert np.prod(out) * kernel / 1e6 < int(found["encode_mmac"]) < 200
