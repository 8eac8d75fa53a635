"""A fake of TensorRT and PyCUDA, as far as the engine uses them, in host memory; an "engine file" is the ONNX graph.

    world = World()                      what was allocated, freed, pushed and run, in order
    TensorRtEngine(folder, cache=..., libraries=world.libraries())

A stream runs nothing until it is synchronised, and every call outside a pushed context fails, so a missing
synchronisation or a missing push is noticed.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort

from edge_runtime.eye.engine.tensorrt import Gpu, Libraries, device_facts
from wire.artifact.engine_record import ENGINES, EngineRecord, engine_key, engine_parts
from wire.artifact.interface import GRAPHS
from wire.artifact.manifest import EngineManifest, sha256_file

__all__ = ["World", "make_plans"]

_TYPES = {"tensor(uint8)": "UINT8", "tensor(int32)": "INT32", "tensor(bool)": "BOOL", "tensor(float)": "FLOAT"}


class CudaError(Exception):
    """pycuda.driver.Error."""


class Pinned(np.ndarray):  # any dtype
    """A page-locked array: its `base` frees it."""

    allocation: Any = None

    @property
    def base(self) -> Any:
        return self.allocation


class Memory:
    """One allocation, on the host or on the device."""

    def __init__(self, world: World, where: str, size: int) -> None:
        world.need_context()
        if world.allocations == world.fail_at:
            raise CudaError("cuMemAlloc failed: out of memory")
        world.allocations += 1
        self.world, self.where, self.address = world, where, 4096 * world.allocations
        self.bytes = np.full(size, 0xA5, np.uint8)
        world.live[self.address] = self
        world.log.append(f"alloc {where}")

    def free(self) -> None:
        self.world.need_context()
        del self.world.live[self.address]
        self.world.log.append(f"free {self.where}")

    def __int__(self) -> int:
        return self.address


class Stream:
    """A queue of work that is done when somebody synchronises."""

    def __init__(self, world: World) -> None:
        world.need_context()
        self.world, self.work, self.captured = world, list[Callable[[], None]](), None
        self.handle = 77 + len(world.streams)
        world.streams[self.handle] = self

    captured: list[Callable[[], None]] | None

    def add(self, work: Callable[[], None]) -> None:
        self.world.need_context()
        (self.work if self.captured is None else self.captured).append(work)

    def synchronize(self) -> None:
        self.world.need_context()
        if self.captured is not None:
            raise CudaError("operation not permitted when stream is capturing")
        work, self.work = self.work, []
        for step in work:
            step()
        if self.world.broken:
            raise CudaError("an illegal memory access was encountered")


class Tracked:
    """Logs when it is released."""

    def __init__(self, world: World, name: str, keeps: Any = None) -> None:
        self._world, self._name, self._keeps = world, name, keeps

    def __del__(self) -> None:
        self._world.log.append(f"release {self._name}")


class Execution(Tracked):
    def __init__(self, world: World, engine: CudaEngine) -> None:
        super().__init__(world, "context", engine)
        self.engine, self.addresses = engine, dict[str, int]()

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in self.engine.tensors and name != self._world.refuse_address

    def execute_async_v3(self, handle: int) -> bool:
        world = self._world
        world.log.append("execute")
        if world.execute_fails:
            return False
        memory = {name: world.live[address].bytes for name, address in self.addresses.items()}

        def run() -> None:
            values = {
                name: memory[name].view(dtype).reshape(shape)
                for name, (mode, dtype, shape) in self.engine.tensors.items()
                if mode == "INPUT"
            }
            names = [name for name, (mode, *_) in self.engine.tensors.items() if mode == "OUTPUT"]
            for name, value in zip(names, self.engine.session.run(names, values), strict=True):
                memory[name][:] = np.ascontiguousarray(value).reshape(-1).view(np.uint8)

        world.streams[handle].add(run)
        return True


class CudaEngine(Tracked):
    def __init__(self, world: World, runtime: Any, data: bytes) -> None:
        super().__init__(world, "engine", runtime)
        self.hardware_compatibility_level = world.compatibility
        self.session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
        self.tensors = {
            value.name: (mode, np.dtype(_TYPES[value.type].lower().replace("float", "float32")), tuple(value.shape))
            for mode, values in (("INPUT", self.session.get_inputs()), ("OUTPUT", self.session.get_outputs()))
            for value in values
        }
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return str([*self.tensors][index])

    def get_tensor_mode(self, name: str) -> Any:
        return self._world.trt.TensorIOMode[self.tensors[name][0]]

    def get_tensor_dtype(self, name: str) -> Any:
        return self._world.trt.DataType[str(self.tensors[name][1]).upper().replace("FLOAT32", "FLOAT")]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name][2]

    def get_tensor_location(self, name: str) -> Any:
        return self._world.trt.TensorLocation[self._world.location]

    def create_execution_context(self) -> Execution | None:
        return None if self._world.no_execution else Execution(self._world, self)


class Runtime(Tracked):
    def __init__(self, world: World, logger: Any) -> None:
        super().__init__(world, "runtime")
        self.logger, self.engine_host_code_allowed = logger, True  # the worse of the two defaults it could have

    def deserialize_cuda_engine(self, data: bytes) -> CudaEngine | None:
        self._world.need_context()
        if self._world.host_code and not self.engine_host_code_allowed:
            self.logger.log(self._world.trt.ILogger.ERROR, "The engine contains host code, which is not allowed")
            return None
        try:
            return CudaEngine(self._world, self, data)
        except Exception:  # noqa: BLE001 - TensorRT says None, whatever was wrong
            self.logger.log(self._world.trt.ILogger.ERROR, "Serialization assertion failed")
            return None


class ILogger:
    ERROR, INTERNAL_ERROR, WARNING = 1, 0, 2


class World:
    """The simulated GPU. Each flag makes it fail in one named way."""

    def __init__(self, name: str = "Orin", capability: tuple[int, int] = (8, 7), version: str = "10.3.0") -> None:
        self.log: list[str] = []
        self.live: dict[int, Memory] = {}
        self.streams: dict[int, Stream] = {}
        self.allocations, self.fail_at, self.pushed = 0, -1, threading.local()
        self.execute_fails = self.broken = self.no_execution = self.host_code = False
        self.refuse_address, self.location, self.graphs = "", "DEVICE", list[list[Callable[[], None]]]()
        self.trt = SimpleNamespace(
            __version__=version,
            ILogger=ILogger,
            Runtime=lambda logger: Runtime(self, logger),
            TensorIOMode=enum.Enum("TensorIOMode", "NONE INPUT OUTPUT"),
            TensorLocation=enum.Enum("TensorLocation", "DEVICE HOST"),
            DataType=enum.Enum("DataType", "FLOAT HALF INT8 INT32 BOOL UINT8"),
            HardwareCompatibilityLevel=enum.Enum("HardwareCompatibilityLevel", "NONE AMPERE_PLUS"),
        )
        self.compatibility = self.trt.HardwareCompatibilityLevel.NONE
        context = SimpleNamespace(push=self._push, detach=lambda: self.log.append("detach"))
        device = SimpleNamespace(
            name=lambda: name, compute_capability=lambda: capability, retain_primary_context=lambda: context
        )
        self.cuda = SimpleNamespace(
            Error=CudaError,
            Device=lambda index: device,
            Context=SimpleNamespace(pop=self._pop),
            Stream=lambda: Stream(self),
            mem_alloc=lambda size: Memory(self, "device", size),
            pagelocked_empty=self._pinned,
            memcpy_htod_async=self._to_device,
            memcpy_dtoh_async=self._to_host,
            memset_d8_async=self._memset,
        )

    def libraries(self) -> Libraries:
        return Libraries(self.trt, self.cuda, lambda: Driver(self))

    def facts(self) -> dict[str, str]:
        return device_facts(self.trt, Gpu(self.cuda))

    def need_context(self) -> None:
        if not getattr(self.pushed, "depth", 0):
            raise CudaError("invalid device context")

    def _push(self) -> None:
        self.pushed.depth = getattr(self.pushed, "depth", 0) + 1

    def _pop(self) -> None:
        self.need_context()
        self.pushed.depth -= 1

    def _pinned(self, shape: tuple[int, ...], dtype: Any) -> Pinned:
        memory = Memory(self, "host", int(np.prod(shape)) * np.dtype(dtype).itemsize)
        made: Pinned = memory.bytes.view(dtype).reshape(shape).view(Pinned)
        made.allocation = memory
        return made

    def _to_device(self, target: Memory, source: Any, stream: Stream) -> None:
        stream.add(lambda: np.copyto(target.bytes, np.asarray(source).reshape(-1).view(np.uint8)))

    def _to_host(self, target: Any, source: Memory, stream: Stream) -> None:
        stream.add(lambda: np.copyto(np.asarray(target).reshape(-1).view(np.uint8), source.bytes))

    def _memset(self, target: Memory, value: int, size: int, stream: Stream) -> None:
        stream.add(lambda: target.bytes[:size].fill(value))


class Driver:
    """The driver's calls for CUDA graphs, with ctypes' arguments."""

    def __init__(self, world: World) -> None:
        self._world = world

    def cuStreamBeginCapture_v2(self, stream: ctypes.c_void_p, mode: ctypes.c_int) -> int:
        self._world.streams[stream.value or 0].captured = []
        return 0

    def cuStreamEndCapture(self, stream: ctypes.c_void_p, graph: Any) -> int:
        found = self._world.streams[stream.value or 0]
        self._world.graphs.append(found.captured or [])
        found.captured, graph._obj.value = None, len(self._world.graphs)
        return 0

    def cuGraphInstantiateWithFlags(self, made: Any, graph: ctypes.c_void_p, flags: ctypes.c_ulonglong) -> int:
        made._obj.value = graph.value
        return 0

    def cuGraphDestroy(self, graph: ctypes.c_void_p) -> int:
        return 0

    def cuGraphLaunch(self, made: ctypes.c_void_p, stream: ctypes.c_void_p) -> int:
        self._world.log.append("launch")
        for work in self._world.graphs[(made.value or 0) - 1]:
            self._world.streams[stream.value or 0].add(work)
        return 0

    def cuGraphExecDestroy(self, made: ctypes.c_void_p) -> int:
        self._world.graphs[(made.value or 0) - 1].clear()
        self._world.log.append("free graph")
        return 0


def make_plans(folder: Path, cache: Path, world: World) -> EngineRecord:
    """Write engine files of `folder` for this GPU, as the installer would."""
    manifest = EngineManifest.load(folder)
    cache.mkdir(parents=True, exist_ok=True)
    engines = {part: ENGINES[part] for part in engine_parts(manifest)}
    for part, name in engines.items():
        with contextlib.suppress(FileNotFoundError):
            (cache / name).unlink()
        (cache / name).write_bytes((folder / GRAPHS[part]).read_bytes())
    key = engine_key(manifest, "tensorrt", world.facts())
    record = EngineRecord(key, {}, {part: sha256_file(cache / name) for part, name in engines.items()})
    record.save(cache)
    return record
