"""Session fixtures: a small family, its traced graphs, and what the tests of precisions measure on them.

pytest_plugins = ("tests.support.small_export_fixtures",)      # in a test module, which must not import this one
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import ModelProto

from export import parity
from export.precision.network import Network, measure, structure
from export.precision.quantise import Ranges, layers, unbiased
from familial.model.config import FamilyConfig
from tests.support.family_factory import load_graphs
from wire.artifact.manifest import EngineManifest
from wire.privacy.noise_table import NoiseTable

__all__ = ["checkpoint", "feeds", "manifest", "ranges", "traced"]

Feeds = dict[str, list[dict[str, npt.NDArray[Any]]]]


@pytest.fixture(scope="session")
def checkpoint(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(small_checkpoint, tmp_path_factory.mktemp("checkpoint") / "small"))


@pytest.fixture(scope="session")
def manifest(checkpoint: Path) -> EngineManifest:
    config = FamilyConfig.load(checkpoint / "config.json")
    hashes = dict.fromkeys(("checkpoint", "encode", "decide", "noise_table", "certificate", "calibration"), "")
    return EngineManifest(
        family=config.family,
        labels=config.labels,
        window=config.window,
        tokens=config.tokens,
        width=config.width,
        event_releases=config.event_releases,
        clip_norm=config.clip_norm,
        sigma=NoiseTable.load(checkpoint / "noise_table.bin").sigma,
        profile="balanced",
        precision="int8",
        opset=18,
        hashes=hashes,
    )


@pytest.fixture(scope="session")
def traced(small_graphs: Path) -> dict[str, ModelProto]:
    return load_graphs(small_graphs)


@pytest.fixture(scope="session")
def feeds(manifest: EngineManifest) -> Feeds:
    """Synthetic windows and noisy events."""
    rng = np.random.default_rng(3)
    event = (1, manifest.event_releases, manifest.tokens, manifest.width)
    return {
        "encode": [{"frames": w[None]} for w in parity.made_windows(manifest.window, 14)],
        "decide": [
            {"z": rng.normal(size=event, scale=70).astype(np.int32), "present": np.ones(event[:2], np.bool_)}
            for _ in range(8)
        ],
    }


@pytest.fixture(scope="session")
def ranges(traced: dict[str, ModelProto], feeds: dict[str, Any]) -> dict[str, Ranges]:
    """All layers in int8, ranges up to the largest magnitude."""
    found = {}
    for part, model in traced.items():
        peaks = measure(model, feeds[part])
        network = Network(model)
        held = {node.input[0]: peaks[node.input[0]] for node in layers(model)}
        for node in layers(model):
            if node.op_type == "Conv" and len(node.input) > 2:
                bias = float(np.abs(network.array(node.input[2])).max())
                held[unbiased(node.output[0])] = peaks[node.output[0]] + bias
        found[part] = Ranges(structure(model), held, tuple(node.name for node in layers(model)), peaks)
    return found
