"""A proved graph -> an engine file: TensorRT on the device, TensorRT-RTX ahead of time, one code for both. No torch.

    graph, the bytes that were hashed --parser--> strongly typed network --builder, timing cache--> engine file
    manifest + facts of the device --> key --> engine.json: while the key is the same, the files are used again

The graph's types decide, never the builder: no precision flag is set, and TF32, which would round float32, is cleared.
Engine files that also run on other versions or other GPUs contain host code or guessed kernels; none is made here.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.eye.engine.tensorrt import make_logger
from wire.artifact.engine_record import ENGINES, EngineRecord, engine_parts
from wire.artifact.interface import GRAPHS
from wire.artifact.manifest import EngineManifest
from wire.errors import ConfigError, EngineError
from wire.files import write_whole

__all__ = ["Options", "Say", "build_engine_file", "check_targets", "keep_or_make", "load_rtx", "make", "say_line"]

Say = Callable[[str], None]
_RTX, _RTX_LIBRARIES = "tensorrt_rtx_bindings", "tensorrt_rtx_libs"
_TIMING_CACHE = "timing.cache"
_SAID_EVERY_S = 1.0
_LEVELS = range(6)


def say_line(text: str) -> None:
    """Print a progress line."""
    print(f"      {text}", flush=True)


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the builder.

    Attributes:
        workspace_mb: Scratch memory that a kernel may ask for, MB.
        level: TensorRT's optimisation level, 0 (quick to build) to 5 (searches longest).
        targets: Compute capabilities such as "8.6", for TensorRT-RTX, which builds without a GPU.
    """

    workspace_mb: int = 1024
    level: int = 3
    targets: tuple[str, ...] = ("8.6", "8.9")

    def __post_init__(self) -> None:
        if self.workspace_mb < 1:
            raise ConfigError(f"--workspace-mb is {self.workspace_mb}; it must be at least 1")
        if self.level not in _LEVELS:
            raise ConfigError(f"--level is {self.level}; levels are {_LEVELS[0]} to {_LEVELS[-1]}")

    def words(self) -> dict[str, str]:
        """The options as engine.json records them."""
        return {"workspace_mb": str(self.workspace_mb), "level": str(self.level)}


def load_rtx() -> Any:
    """Import TensorRT-RTX. Raises EngineError, with the cure, where that fails."""
    try:
        with contextlib.suppress(ModuleNotFoundError):  # the system's own libraries will do
            libraries = Path(importlib.import_module(_RTX_LIBRARIES).__file__ or "").parent
            for file in sorted(libraries.glob("*.so*"), key=lambda file: "parser" in file.name):
                ctypes.CDLL(str(file), mode=ctypes.RTLD_GLOBAL)
        return importlib.import_module(_RTX)
    except ModuleNotFoundError as error:
        raise EngineError(f"backend tensorrt-rtx is not installed ({error}); pip install 'veilsight[rtx]'") from error
    except (ImportError, OSError) as error:
        raise EngineError(
            f"backend tensorrt-rtx is installed, but does not load ({error}); it needs x86-64 Linux with glibc 2.28: "
            "pip install --force-reinstall 'veilsight[rtx]'"
        ) from error


def _make_monitor(trt: Any, part: str, say: Say) -> Any:
    """Make an IProgressMonitor that reports once a second how far the build is. `cancelled`: Ctrl-C was pressed."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the base class is known where TensorRT is
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, list[int]] = {}
            self.steps, self.cancelled, self._said = 0, False, time.monotonic()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.phases[phase_name] = [0, num_steps]

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                self.steps += 1
                self.phases[phase_name][0] = step + 1
                if time.monotonic() - self._said >= _SAID_EVERY_S:
                    self._said = time.monotonic()
                    say(f"{part}: " + ", ".join(f"{name} {at}/{of}" for name, (at, of) in self.phases.items()))
            except KeyboardInterrupt:  # must not pass through TensorRT: the build is asked to end instead
                self.cancelled = True
            return not self.cancelled

        def phase_finish(self, phase_name: str) -> None:
            self.phases.pop(phase_name, None)

    return Monitor()


def build_engine_file(
    trt: Any, file: Path, options: Options, say: Say = say_line, timing: bytes = b""
) -> tuple[bytes, bytes]:
    """Build the engine file of an ONNX file.

    Args:
        trt: The module of TensorRT or TensorRT-RTX.
        file: The ONNX file.
        options: Of the builder.
        say: Receives progress lines.
        timing: A timing cache of this device; one of another GPU or version is ignored.

    Returns:
        The engine file, and the timing cache after it (b"" for TensorRT-RTX, which has none).

    Raises:
        EngineError: The parser or the builder fails; holds its message.
        KeyboardInterrupt: The build was cancelled.
    """
    logger, started = make_logger(trt), time.monotonic()
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # what the bindings make of a null pointer
        raise EngineError(
            f"TensorRT {trt.__version__} makes no builder here ({logger.words()}); it needs the GPU it builds for"
        ) from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(trt, network, logger, file)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    config.builder_optimization_level = options.level
    config.clear_flag(trt.BuilderFlag.TF32)
    monitor = _make_monitor(trt, file.stem, say)
    config.progress_monitor = monitor
    ahead_of_time = hasattr(config, "num_compute_capabilities")  # TensorRT-RTX alone builds for a GPU that is not here
    if ahead_of_time:
        _set_targets(trt, config, options.targets)
    else:
        _use_timing_cache(config, timing)
    plan = builder.build_serialized_network(network, config)
    if monitor.cancelled:
        raise KeyboardInterrupt
    if plan is None:
        raise EngineError(
            f"{file.name}: TensorRT {trt.__version__} builds no engine: {logger.words()}; "
            "where it lacks memory, stop what else runs, or lower --workspace-mb"
        )
    data = bytes(plan)
    say(f"{file.stem}: {len(data) / 1000:,.0f} kB, {monitor.steps} steps in {time.monotonic() - started:.1f} s")
    if ahead_of_time:
        return data, b""
    timing_cache = config.get_timing_cache()
    written = timing_cache.serialize()
    return data, bytes(written)


def _parse(trt: Any, network: Any, logger: Any, file: Path) -> None:
    """Read an ONNX file into `network`. Raises EngineError with the parser's message."""
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(file.read_bytes(), str(file)):
        found = map(parser.get_error, range(parser.num_errors))
        errors = " ".join("; ".join(parser_error.desc() for parser_error in found).split())
        raise EngineError(
            f"{file.name}: TensorRT {trt.__version__} does not parse it: {errors[:600] or logger.words()}"
        )


def _use_timing_cache(config: Any, timing: bytes) -> None:
    """Start from the measurements of an earlier build; from none where they are of another GPU or TensorRT."""
    timing_cache = config.create_timing_cache(timing)
    if not config.set_timing_cache(timing_cache, False):
        timing_cache = config.create_timing_cache(b"")
        config.set_timing_cache(timing_cache, False)


def check_targets(trt: Any, targets: tuple[str, ...]) -> list[Any]:
    """TensorRT-RTX's values for `targets`, such as "8.6". Raises ConfigError for one that it cannot build for."""
    known = {name: value for name, value in trt.ComputeCapability.__members__.items() if name.startswith("SM")}
    names = {target: f"SM{target.replace('.', '')}" for target in targets}
    for target, name in names.items():
        if name not in known:
            numbers = sorted(int(name[2:]) for name in known)
            spelled = ", ".join(f"{number // 10}.{number % 10}" for number in numbers)
            raise ConfigError(
                f"--compute-capability {target}: tensorrt-rtx makes engine files for {spelled}; those of any other "
                "GPU, a Jetson's among them, are made on it: python -m export.install"
            )
    return [known[name] for name in names.values()]


def _set_targets(trt: Any, config: Any, targets: tuple[str, ...]) -> None:
    """Build for these compute capabilities and not for the GPU of this machine, if there is one."""
    found = check_targets(trt, targets)
    config.num_compute_capabilities = len(found)
    for index, capability in enumerate(found):
        config.set_compute_capability(capability, index)


def make(
    trt: Any, folder: Path, manifest: EngineManifest, cache: Path, key: Mapping[str, str], options: Options, say: Say
) -> EngineRecord:
    """Build the engine files of `encode` (and `perceive`, if there) into `cache` and record them in engine.json.

    Graphs are read from a private copy whose hashes were checked. A build that fails leaves no record, so its files are
    never run. `decide` needs none: the device's reader runs the graph itself.

    Args:
        trt: The module of TensorRT or TensorRT-RTX.
        folder: The engine folder.
        manifest: Of that folder.
        cache: Where engine files, their record and the timing cache go.
        key: What the engine files depend on, by `wire.artifact.engine_record.engine_key`.
        options: Of the builder.
        say: Receives progress lines.

    Raises:
        ManifestError: A graph is not the one that the manifest names.
        EngineError: There is too little memory or disk, or the builder refuses.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _check_space(folder, manifest, cache, options)
        (cache / "engine.json").unlink(missing_ok=True)
        timing = cache / _TIMING_CACHE
        kept, hashes = timing.read_bytes() if timing.is_file() else b"", {}
        with manifest.open_verified(folder, cache) as copy:  # a device's temporary files are in memory
            for part in engine_parts(manifest):
                data, kept = build_engine_file(trt, copy / GRAPHS[part], options, say, kept)
                write_whole(cache / ENGINES[part], data)
                hashes[part] = hashlib.sha256(data).hexdigest()
        if kept:
            write_whole(timing, kept)  # the next build on this device measures only what is new
        record = EngineRecord(dict(key), options.words(), hashes)
        record.save(cache)
    except OSError as error:
        cure = "free space there, or give another folder with --cache"
        raise EngineError(f"{error.filename or cache}: cannot be written ({error.strerror}); {cure}") from error
    return record


def _check_space(folder: Path, manifest: EngineManifest, cache: Path, options: Options) -> None:
    """Raise EngineError unless the disk holds a copy and engine files, and memory the weights twice and a workspace."""
    names = (*(GRAPHS[part] for part in engine_parts(manifest)), *manifest.external)
    weights = sum((folder / name).stat().st_size for name in names)
    free = shutil.disk_usage(cache).free
    if free < 3 * weights:
        raise EngineError(f"{cache}: {free >> 20} MB free, {3 * weights >> 20} MB needed; free some, or give --cache")
    needed, available = 2 * weights + (options.workspace_mb << 20), _available_memory()
    if available is not None and available < needed:
        raise EngineError(
            f"{available >> 20} MB of memory available, {needed >> 20} MB needed to build; stop what else runs, or "
            "lower --workspace-mb"
        )


def _available_memory() -> int | None:
    """Bytes that are available without swapping; None where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def keep_or_make(
    trt: Any, folder: Path, manifest: EngineManifest, cache: Path, key: Mapping[str, str], options: Options, say: Say
) -> bool:
    """Make the engine files in `cache` unless the present ones are valid; arguments and errors as of `make`.

    Returns:
        True where they are used again; False where they were made, after `say` received the reason.
    """
    try:
        record = EngineRecord.load(cache)
        reason = record.why_stale(key)
        for part in () if reason else engine_parts(manifest):
            record.read(cache, part)
    except EngineError as error:
        reason = str(error).split(";")[0]
    if not reason:
        return True
    say(f"building: {reason}")
    make(trt, folder, manifest, cache, key, options, say)
    return False
