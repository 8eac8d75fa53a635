"""The engine in TensorRT 10 or 11, by PyCUDA, from engine files that were made on this device.

    inputs --[:]--> pinned host --stream--> device --execute_async_v3--> device --stream--> pinned host --> outputs
    every input and output is overwritten after every run, on the host and on the device

Each graph is one `_Program`, the only owner of its buffers: allocated once, bound by name once, released in the
opposite order. Each has its own stream and lock, because `encode` and `perceive` run on different threads.
Intermediate values stay in TensorRT's scratch memory on the device until the next run.

Engine files are made by `python -m export.install`. TensorRT and PyCUDA are imported by `load_libraries`, not before.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.eye.engine.base import Engine, Values
from wire.artifact.engine_record import EngineRecord, engine_key, engine_parts
from wire.artifact.manifest import EngineManifest
from wire.errors import DeviceLost, EngineError, VeilsightError

__all__ = ["Gpu", "Libraries", "TensorRtEngine", "device_facts", "load_cuda", "load_libraries", "make_logger"]

_CURE = "make it again: python -m export.install"
_RELEASE = Path("/etc/nv_tegra_release")  # "# R36 (release), REVISION: 4.4, GCID: ..."
_OLDEST = (10, 0)
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
_CLOSE_S = 5.0

Signature = Mapping[str, tuple[str, tuple[int, ...]]]  # tensor -> (dtype, shape)


@dataclass(frozen=True, slots=True)
class Libraries:
    """The imported modules; tests pass fakes.

    Attributes:
        trt: The module `tensorrt`.
        cuda: The module `pycuda.driver`.
        driver: Makes the CUDA driver's library for ctypes.
    """

    trt: Any
    cuda: Any
    driver: Callable[[], Any] = lambda: ctypes.CDLL("libcuda.so.1")


def load_libraries() -> Libraries:
    """Import TensorRT and PyCUDA. Raises EngineError, which names what is missing or broken, and the cure."""
    try:
        import tensorrt as trt
    except ModuleNotFoundError as error:
        if error.name != "tensorrt":
            raise EngineError(
                f"TensorRT is installed, but its Python package lacks {error.name!r}; "
                "install it again: apt install --reinstall python3-libnvinfer"
            ) from error
        raise EngineError(
            "TensorRT is not installed for this Python; on a Jetson: apt install tensorrt python3-libnvinfer, and a "
            "virtual environment made with --system-site-packages. Without it set [engine] backend = 'onnxruntime'"
        ) from error
    except (ImportError, OSError) as error:
        raise EngineError(
            f"TensorRT is installed, but one of its libraries does not load ({error}): JetPack's packages do not "
            "belong together; apt update && apt install --reinstall tensorrt nvidia-jetpack"
        ) from error
    found = tuple(int(part) for part in str(trt.__version__).split(".")[:2])
    if found < _OLDEST:
        raise EngineError(
            f"TensorRT {trt.__version__} is older than {'.'.join(map(str, _OLDEST))}; install JetPack 6.1 or newer"
        )
    return Libraries(trt, load_cuda())


def load_cuda() -> Any:
    """Import and initialise `pycuda.driver`. Raises EngineError, with the cure, where it or the device is missing."""
    try:
        import pycuda.driver as cuda
    except ModuleNotFoundError as error:
        raise EngineError(
            f"PyCUDA is not installed ({error}); on the device: apt install cuda-toolkit, then "
            "pip install 'veilsight[jetson]', which compiles it there"
        ) from error
    except (ImportError, OSError) as error:
        raise EngineError(
            f"PyCUDA is installed, but does not load ({error}); a missing libcuda.so.1 means that there is no NVIDIA "
            "driver; any other library: compile it again with pip install --force-reinstall --no-binary :all: pycuda"
        ) from error
    try:
        cuda.init()
        count = cuda.Device.count()
    except cuda.Error as error:
        raise EngineError(
            f"CUDA finds no device it can use ({error}); in the unit the GPU's nodes are DeviceAllow= lines of "
            "veilsight-eye.service.d/10-board.conf, and the user is in the groups video and render"
        ) from error
    if count < 1:
        raise EngineError("CUDA finds no device; load NVIDIA's driver, or set [engine] backend = 'onnxruntime'")
    return cuda


def make_logger(trt: Any) -> Any:
    """Make a TensorRT logger that prints nothing and keeps the last four errors for `words()`."""

    class Log(trt.ILogger):  # type: ignore[misc]  # the base class is known where TensorRT is
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: deque[str] = deque(maxlen=4)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.lines.append(" ".join(message.split())[:300])

        def words(self) -> str:
            errors, self.lines = "; ".join(self.lines), deque(maxlen=4)
            return errors or "TensorRT gave no reason"

    return Log()


class Gpu:
    """The first CUDA device and its primary context, which TensorRT uses too; it is current inside a `with` block."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        device = cuda.Device(0)
        self.name = str(device.name())
        self.capability = "{}.{}".format(*device.compute_capability())
        self._context = device.retain_primary_context()

    def __enter__(self) -> Gpu:
        self._context.push()
        return self

    def __exit__(self, *_: object) -> None:
        self._cuda.Context.pop()

    def close(self) -> None:
        """Release the context; every buffer made in it must be free by then."""
        self._context.detach()


def device_facts(trt: Any, gpu: Gpu, release: Path = _RELEASE) -> dict[str, str]:
    """What an engine file depends on besides its graph: TensorRT, GPU, compute capability, Jetson Linux ("": none)."""
    words = release.read_text().replace(",", " ").split() if release.is_file() else []
    l4t = f"{words[1].lstrip('R')}.{words[words.index('REVISION:') + 1]}" if "REVISION:" in words else ""
    return {"tensorrt": str(trt.__version__), "gpu": gpu.name, "compute_capability": gpu.capability, "l4t": l4t}


class TensorRtEngine(Engine):
    """Graphs on the GPU.

    Args:
        folder: The engine folder.
        manifest: The folder's manifest where it is loaded already.
        cache: Folder of the engine files; "": `folder`.
        cuda_graph: Replay each run as one CUDA graph.
        libraries: TensorRT and CUDA; None: those of this device.

    Raises:
        ManifestError: A file is not the one that the manifest names.
        EngineError: A library is missing, or the engine files are of another graph, GPU or TensorRT.
    """

    def __init__(
        self,
        folder: Path | str,
        manifest: EngineManifest | None = None,
        cache: Path | str = "",
        cuda_graph: bool = False,
        libraries: Libraries | None = None,
    ) -> None:
        super().__init__(folder, manifest)
        found = libraries or load_libraries()
        place = Path(cache or folder)
        with contextlib.ExitStack() as held:
            gpu = Gpu(found.cuda)
            held.callback(gpu.close)
            with gpu:
                record = EngineRecord.load(place)
                stale = record.why_stale(engine_key(self.manifest, "tensorrt", device_facts(found.trt, gpu)))
                if stale:
                    raise EngineError(f"{place}: the engine files are not for this device: {stale}; {_CURE}")
                logger = make_logger(found.trt)
                runtime = found.trt.Runtime(logger)
                runtime.engine_host_code_allowed = False
                self._programs: dict[str, _Program] = {}
                for part in engine_parts(self.manifest):
                    program = _Program(part, found, gpu, runtime, logger, self._signature(part))
                    held.callback(program.close)
                    program.load(record.read(place, part), cuda_graph)
                    self._programs[part] = program
            self._held = held.pop_all()

    def _signature(self, part: str) -> tuple[Signature, Signature]:
        graph = self.manifest.graphs()[part]
        inputs, outputs = (
            {name: (str(dtype), tuple(shape)) for name, (dtype, shape) in graph[kind].items()}
            for kind in ("inputs", "outputs")
        )
        return inputs, outputs

    def _run(self, part: str, inputs: Values) -> dict[str, npt.NDArray[Any]]:
        return self._programs[part].run(inputs)

    def close(self) -> None:
        self._held.close()


class _Program:
    """One graph of an engine file with its buffers, its stream and its lock. `close` releases all of them."""

    def __init__(
        self, part: str, found: Libraries, gpu: Gpu, runtime: Any, logger: Any, signature: tuple[Signature, Signature]
    ) -> None:
        self._part = part
        self._trt, self._cuda, self._driver = found.trt, found.cuda, found.driver
        self._gpu, self._runtime, self._logger = gpu, runtime, logger
        self._inputs, self._outputs = signature
        self._lock = threading.Lock()
        self._held = contextlib.ExitStack()
        self._host: dict[str, npt.NDArray[Any]] = {}
        self._device: dict[str, Any] = {}
        self._graph: _Graph | None = None

    def load(self, data: bytes, cuda_graph: bool) -> None:
        """Deserialise an engine file, and make its context, stream and buffers. Raises EngineError."""
        trt, cuda, runtime = self._trt, self._cuda, self._runtime
        cuda_engine = runtime.deserialize_cuda_engine(data)
        if cuda_engine is None:
            raise self._error(f"TensorRT {trt.__version__} does not load the engine file")
        self._check(cuda_engine)
        execution = cuda_engine.create_execution_context()
        if execution is None:
            raise self._error("no memory for the run; free some, or build a smaller model")
        self._execution = execution
        self._held.callback(self._forget)
        try:
            self._stream = cuda.Stream()
            for name, (dtype, shape) in {**self._inputs, **self._outputs}.items():
                host = cuda.pagelocked_empty(shape, np.dtype(dtype))
                self._held.callback(host.base.free)
                device = cuda.mem_alloc(host.nbytes)
                self._held.callback(device.free)
                host.fill(0)
                self._host[name], self._device[name] = host, device
                if not execution.set_tensor_address(name, int(device)):
                    raise self._error(f"TensorRT takes no buffer for {name!r}")
            self._held.callback(self._wipe)
            self._wipe()
            if cuda_graph:
                self._enqueue()  # TensorRT allocates in its first run, which a capture must not see
                self._stream.synchronize()
                self._graph = _Graph(self._driver(), self._stream.handle, self._enqueue)
                self._held.callback(self._graph.close)
        except cuda.Error as error:
            raise EngineError(f"{self._part}: the GPU gives no memory or no stream ({error}); free some") from error

    def _forget(self) -> None:
        """Drop TensorRT's own objects, which go last: the context (it holds the engine), then the runtime."""
        self.__dict__.pop("_stream", None)
        del self._execution, self._runtime

    def _check(self, cuda_engine: Any) -> None:
        """Raise EngineError unless names, types, shapes are the manifest's, and the file is for this GPU alone."""
        trt = self._trt
        if cuda_engine.hardware_compatibility_level != trt.HardwareCompatibilityLevel.NONE:
            raise EngineError(f"{self._part}: the engine file was made to run on several kinds of GPU; {_CURE}")
        types = {
            trt.DataType.UINT8: "uint8",
            trt.DataType.INT32: "int32",
            trt.DataType.BOOL: "bool",
            trt.DataType.FLOAT: "float32",
        }
        for mode, expected in ((trt.TensorIOMode.INPUT, self._inputs), (trt.TensorIOMode.OUTPUT, self._outputs)):
            names = [cuda_engine.get_tensor_name(index) for index in range(cuda_engine.num_io_tensors)]
            has = {
                name: (types.get(cuda_engine.get_tensor_dtype(name), "?"), tuple(cuda_engine.get_tensor_shape(name)))
                for name in names
                if cuda_engine.get_tensor_mode(name) == mode
            }
            if has != expected:
                raise EngineError(f"{self._part}: the engine file has {has}, the manifest says {expected}; {_CURE}")
            if any(cuda_engine.get_tensor_location(name) != trt.TensorLocation.DEVICE for name in names):
                raise EngineError(f"{self._part}: the engine file wants tensors on the host; {_CURE}")

    def run(self, inputs: Values) -> dict[str, npt.NDArray[Any]]:
        """Run the graph once; its buffers are overwritten on host and device before this returns or raises.

        Args:
            inputs: Name -> value, of the manifest's dtypes and shapes.

        Returns:
            Copies of the graph's outputs.

        Raises:
            EngineError: TensorRT refuses the run.
            DeviceLost: CUDA failed; the process must be restarted.
        """
        with self._lock, self._gpu:
            try:
                for name in self._inputs:
                    self._host[name][...] = inputs[name]
                if self._graph is not None:
                    self._graph.launch()
                else:
                    self._enqueue()
                self._stream.synchronize()
                return {name: self._host[name].copy() for name in self._outputs}
            except self._cuda.Error as error:
                kind = type(error).__name__
            finally:
                self._wipe()
        raise DeviceLost(f"{self._part}: CUDA failed ({kind}); the process must be restarted")

    def _enqueue(self) -> None:
        """Enqueue on the stream: copy the inputs in, run, copy the outputs out."""
        cuda, stream, execution = self._cuda, self._stream, self._execution
        for name in self._inputs:
            cuda.memcpy_htod_async(self._device[name], self._host[name], stream)
        done = execution.execute_async_v3(stream.handle)
        for name in self._outputs:
            cuda.memcpy_dtoh_async(self._host[name], self._device[name], stream)
        if not done:
            self._logger.words()  # forgotten: they may tell of what the run read
            raise EngineError(f"{self._part}: TensorRT: the run failed; {_CURE}")

    def _wipe(self) -> None:
        """Overwrite every buffer; what is left of a run is TensorRT's scratch memory."""
        cuda, stream = self._cuda, self._stream
        for host in self._host.values():
            host.fill(0)
        try:
            for name, device in self._device.items():
                cuda.memset_d8_async(device, 0, self._host[name].nbytes, stream)
            stream.synchronize()
            return
        except self._cuda.Error as error:
            kind = type(error).__name__
        raise DeviceLost(f"{self._part}: the device's buffers cannot be overwritten ({kind}); restart the process")

    def _error(self, what: str) -> EngineError:
        return EngineError(f"{self._part}: {what} ({self._logger.words()}); {_CURE}")

    def close(self) -> None:
        """Wait for a run in progress, then release everything, last taken first."""
        held = self._lock.acquire(timeout=_CLOSE_S)
        with self._gpu:
            self._held.close()
        if held:
            self._lock.release()


class _Graph:
    """A run as one CUDA graph. PyCUDA has no functions for capture, so the driver's own are called."""

    def __init__(self, driver: Any, stream: int, enqueue: Callable[[], None]) -> None:
        self._driver, self._stream = driver, ctypes.c_void_p(stream)
        graph, self._made = ctypes.c_void_p(), ctypes.c_void_p()
        with self._capture(graph):
            enqueue()
        self._call("cuGraphInstantiateWithFlags", ctypes.byref(self._made), graph, ctypes.c_ulonglong(0))
        self._call("cuGraphDestroy", graph)

    @contextlib.contextmanager
    def _capture(self, graph: ctypes.c_void_p) -> Iterator[None]:
        self._call("cuStreamBeginCapture_v2", self._stream, ctypes.c_int(_THREAD_LOCAL))
        try:
            yield
        finally:
            self._call("cuStreamEndCapture", self._stream, ctypes.byref(graph))

    def _call(self, name: str, *arguments: Any, error: type[VeilsightError] = EngineError) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code:
            raise error(f"CUDA graph: {name} gives error {code}; set [engine] cuda_graph = false")

    def launch(self) -> None:
        """Enqueue the whole run on its stream."""
        self._call("cuGraphLaunch", self._made, self._stream, error=DeviceLost)

    def close(self) -> None:
        """Release the graph."""
        self._call("cuGraphExecDestroy", self._made)
