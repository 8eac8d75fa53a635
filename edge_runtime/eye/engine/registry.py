"""The backends of the device, and the choice of one by `[engine] backend`. A new backend is a row of BACKENDS."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edge_runtime.config import Config
from edge_runtime.eye.engine.base import Engine
from edge_runtime.eye.engine.onnx import OnnxEngine
from edge_runtime.eye.engine.tensorrt import TensorRtEngine
from wire.artifact.manifest import EngineManifest
from wire.errors import ConfigError

__all__ = ["BACKENDS", "DEFAULT", "check_backend", "open_engine"]

BACKENDS: Mapping[str, Callable[[Config, EngineManifest], Engine]] = {
    "onnxruntime": lambda config, manifest: OnnxEngine(config.engine_folder, config.engine_threads, manifest),
    "tensorrt": lambda config, manifest: TensorRtEngine(
        config.engine_folder, manifest, config.engine_cache, config.engine_cuda_graph
    ),
}
"""Backend -> what opens the engine folder of a configuration. TensorRT and CUDA are imported when it is called."""

DEFAULT = "onnxruntime"


def check_backend(name: str, key: str) -> None:
    """Raise ConfigError, which lists the backends, unless `name`, the value of `key`, is one of them."""
    if name not in BACKENDS:
        raise ConfigError(f"{key} is {name!r}; expected {' or '.join(BACKENDS)}")


def open_engine(config: Config, manifest: EngineManifest) -> Engine:
    """Open the engine of `[engine] folder` with `[engine] backend`.

    Raises:
        ConfigError: There is no such backend.
        ManifestError, EngineError: The folder cannot be opened with it.
    """
    check_backend(config.engine_backend, "[engine] backend")
    return BACKENDS[config.engine_backend](config, manifest)
