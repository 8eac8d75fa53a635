"""The backends of the device, and the choice of one by its name. A new backend is a row of BACKENDS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edge_runtime.eye.engine.base import Engine
from edge_runtime.eye.engine.onnx import OnnxEngine
from edge_runtime.eye.engine.tensorrt import TensorRtEngine
from wire.artifact.manifest import EngineManifest
from wire.errors import ConfigError

__all__ = ["BACKENDS", "DEFAULT", "EngineOptions", "check_backend", "open_engine"]

DEFAULT = "onnxruntime"


@dataclass(frozen=True)
class EngineOptions:
    """Which engine is opened, and how.

    Attributes:
        folder: The engine folder.
        backend: A name of BACKENDS.
        threads: Of one run, in ONNX Runtime.
        cache: Folder of TensorRT's engine files; "": `folder`.
        cuda_graph: Replay each run as one CUDA graph.
    """

    folder: str
    backend: str = DEFAULT
    threads: int = 1
    cache: str = ""
    cuda_graph: bool = False


BACKENDS: Mapping[str, Callable[[EngineOptions, EngineManifest], Engine]] = {
    "onnxruntime": lambda options, manifest: OnnxEngine(options.folder, options.threads, manifest, True),
    "tensorrt": lambda options, manifest: TensorRtEngine(options.folder, manifest, options.cache, options.cuda_graph),
}
"""Backend -> what opens an engine folder. TensorRT and CUDA are imported when it is called."""


def check_backend(name: str, key: str) -> None:
    """Raise ConfigError, which lists the backends, unless `name`, the value of `key`, is one of them."""
    if name not in BACKENDS:
        raise ConfigError(f"{key} is {name!r}; expected {' or '.join(BACKENDS)}")


def open_engine(options: EngineOptions, manifest: EngineManifest) -> Engine:
    """Open `encode` of an engine folder.

    Raises:
        ConfigError: There is no such backend.
        ManifestError, EngineError: The folder cannot be opened with it.
    """
    check_backend(options.backend, "[engine] backend")
    return BACKENDS[options.backend](options, manifest)
