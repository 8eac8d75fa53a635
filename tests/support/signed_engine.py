"""Engine folders in the form that a signer signs, and two signers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx

from wire.artifact.interface import GRAPHS
from wire.artifact.manifest import EngineManifest, sha256_file
from wire.artifact.signature import sign_manifest
from wire.protocol.keys import DeviceKey

__all__ = ["KEY", "OTHER", "canonical", "tree"]

KEY = DeviceKey(bytes(range(32)))
OTHER = DeviceKey(bytes(32))


def canonical(folder: Path) -> None:
    """Graphs as `build_engine` writes them, pinned and signed."""
    found = EngineManifest.load(folder)
    for part in found.graphs():
        model = onnx.load(folder / GRAPHS[part], load_external_data=False)
        (folder / GRAPHS[part]).write_bytes(model.SerializeToString(deterministic=True))
    hashes = {**found.hashes, **{part: sha256_file(folder / GRAPHS[part]) for part in found.graphs()}}
    dataclasses.replace(found, hashes=hashes).save(folder)
    sign_manifest(folder, KEY)


def tree(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}
