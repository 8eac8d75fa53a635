"""The logic of the TensorRT engine on a simulated GPU; TensorRT and CUDA themselves are not run here."""

from __future__ import annotations

import gc
import sys
import threading
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.eye.engine import tensorrt as engine_tensorrt
from edge_runtime.eye.engine.base import self_test
from edge_runtime.eye.engine.onnx import OnnxEngine
from edge_runtime.eye.engine.tensorrt import Gpu, TensorRtEngine, device_facts, load_libraries
from tests.support.engine_factory import BROKEN_CORES, make_engine
from tests.support.fake_tensorrt import World, make_plans
from wire.artifact.engine_record import EngineRecord
from wire.artifact.manifest import sha256_file
from wire.errors import DeviceLost, EngineError, PrivacyError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_engine(tmp_path / "engine")
    return tmp_path / "engine"


@pytest.fixture
def world() -> World:
    return World()


def opened(folder: Path, world: World, cuda_graph: bool = False) -> TensorRtEngine:
    cache = folder.parent / "cache"
    if not cache.exists():
        make_plans(folder, cache, world)
    return TensorRtEngine(folder, None, cache, cuda_graph, world.libraries())


def frames(value: int = 100) -> Any:
    return np.full((1, 16, 32, 32), value, np.uint8)


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_it_computes_what_onnx_runtime_computes(folder: Path, world: World, cuda_graph: bool) -> None:
    engine, other = opened(folder, world, cuda_graph), OnnxEngine(folder)
    for value in (0, 100, 255, 3):
        assert np.array_equal(engine.encode(frames(value)), other.encode(frames(value)))
    assert ("launch" in world.log) == cuda_graph
    self_test(engine)
    engine.close()


@pytest.mark.parametrize("core", BROKEN_CORES)
def test_a_broken_core_in_an_engine_file_is_found(tmp_path: Path, world: World, core: str) -> None:
    make_engine(tmp_path / "engine", core=core)
    engine = opened(tmp_path / "engine", world)
    with pytest.raises(PrivacyError, match="self-test"):
        self_test(engine)
    engine.close()


def test_memory_is_allocated_once_and_released_in_order(folder: Path, world: World) -> None:
    engine = opened(folder, world, cuda_graph=True)
    taken = world.allocations
    assert taken == 2 * 2  # on host and device: frames, mu
    for _ in range(20):
        engine.encode(frames())
    assert world.allocations == taken
    world.log.clear()
    engine.close()
    gc.collect()
    assert not world.live
    last = len(world.log) - 1 - world.log[::-1].index("free host")
    runtime, detach = world.log.index("release runtime"), world.log.index("detach")
    contexts = [index for index, event in enumerate(world.log) if event == "release context"]
    assert world.log.index("free graph") < world.log.index("free device")
    assert len(contexts) == 1 and last < contexts[0] < runtime < detach == len(world.log) - 1
    assert contexts[0] < world.log.index("release engine")


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_every_buffer_is_overwritten_after_a_run(folder: Path, world: World, cuda_graph: bool) -> None:
    engine = opened(folder, world, cuda_graph)
    code = engine.encode(frames())
    program = engine._programs["encode"]
    assert code.any()
    for name in ("frames", "mu"):
        assert not program._host[name].any(), name
        assert not program._device[name].bytes.any(), name
    engine.close()


def _refused_shape(engine: TensorRtEngine, world: World) -> None:
    with pytest.raises(EngineError, match=r"frames is uint8 \(1, 2, 32, 32\), expected uint8"):
        engine.encode(np.ones((1, 2, 32, 32), np.uint8))


def _fails(engine: TensorRtEngine, world: World) -> None:
    world.execute_fails = True
    with pytest.raises(EngineError, match="encode: TensorRT: the run failed; make it again"):
        engine.encode(frames())


@pytest.mark.parametrize("how", [_refused_shape, _fails])
def test_every_buffer_is_overwritten_when_a_run_fails(
    folder: Path, world: World, how: Callable[[TensorRtEngine, World], None]
) -> None:
    engine = opened(folder, world)
    how(engine, world)
    program = engine._programs["encode"]
    assert not any(program._host[name].any() or program._device[name].bytes.any() for name in ("frames", "mu"))
    world.execute_fails = False
    assert engine.encode(frames()).any()  # and the next run is sound
    engine.close()


def test_a_broken_device_ends_the_process_instead_of_filling_slots(folder: Path, world: World) -> None:
    engine = opened(folder, world)
    world.broken = True
    with pytest.raises(DeviceLost, match="CUDA failed|overwritten") as lost:
        engine.encode(frames())
    assert "illegal memory access" not in "".join(traceback.format_exception(lost.value, chain=False))


def test_what_tensorrt_says_of_a_failed_run_is_not_passed_on(folder: Path, world: World) -> None:
    """Its words could hold what the run read: they are forgotten, by this error and by the next one."""
    engine = opened(folder, world)
    program = engine._programs["encode"]
    program._logger.log(world.trt.ILogger.ERROR, "pixel 217")
    world.execute_fails = True
    with pytest.raises(EngineError) as refusal:
        engine.encode(frames())
    assert "217" not in "".join(traceback.format_exception(refusal.value))
    assert "217" not in str(program._error("the next one"))
    engine.close()


def test_two_threads_run_an_engine(folder: Path, world: World) -> None:
    """One after the other, and each thread pushes the context that it needs."""
    engine, found = opened(folder, world), list[Any]()
    assert len(world.streams) == 1

    def encode() -> None:
        found.extend(engine.encode(frames()) for _ in range(50))

    thread = threading.Thread(target=encode)
    thread.start()
    encode()
    thread.join()
    assert len(found) == 100 and all(np.array_equal(z, found[0]) for z in found)
    engine.close()


# --- the engine of a family that sees people


@pytest.fixture
def seeing(tmp_path: Path) -> Path:
    make_engine(tmp_path / "seeing", person_frame=(64, 96))
    return tmp_path / "seeing"


def picture() -> Any:
    return np.random.default_rng(3).integers(0, 256, (1, 64, 96, 3), np.uint8)


def people() -> Any:
    return np.full((1, 16, 4, 56), 800, np.int32)


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_both_graphs_compute_what_onnx_runtime_computes(seeing: Path, world: World, cuda_graph: bool) -> None:
    engine, other = opened(seeing, world, cuda_graph), OnnxEngine(seeing)
    self_test(engine)
    assert np.array_equal(engine.encode(frames(), people()), other.encode(frames(), people()))
    found, expected = engine.perceive(picture()), other.perceive(picture())
    assert [*found] == [*expected]
    assert all(np.array_equal(found[name], expected[name]) for name in found)
    engine.close()


def test_both_graphs_own_their_memory_and_leave_nothing_in_it(seeing: Path, world: World) -> None:
    engine = opened(seeing, world)
    taken = world.allocations
    assert taken == 2 * (3 + 7)  # on host and device: frames, people, mu; frame, six heads
    heads = engine.perceive(picture())
    code = engine.encode(frames(), people())
    assert heads["heat"].any() and code.any() and world.allocations == taken
    for program in engine._programs.values():
        assert not any(host.any() for host in program._host.values())
        assert not any(memory.bytes.any() for memory in program._device.values())
    engine.close()
    assert not world.live


def test_a_frame_is_seen_while_a_window_is_encoded(seeing: Path, world: World) -> None:
    engine = opened(seeing, world)
    heads, code = engine.perceive(picture()), engine.encode(frames(), people())
    assert len(world.streams) == 2
    seen = list[Any]()
    thread = threading.Thread(target=lambda: seen.extend(engine.perceive(picture()) for _ in range(30)))
    thread.start()
    codes = [engine.encode(frames(), people()) for _ in range(30)]
    thread.join()
    assert len(seen) == 30 and all(np.array_equal(found["heat"], heads["heat"]) for found in seen)
    assert all(np.array_equal(found, code) for found in codes)
    engine.close()


@pytest.mark.parametrize("at", [0, 5, 6, 19])
def test_memory_that_runs_out_at_either_graph_leaves_nothing_behind(seeing: Path, world: World, at: int) -> None:
    make_plans(seeing, seeing.parent / "cache", world)
    world.fail_at = at
    with pytest.raises(EngineError, match="(encode|perceive): the GPU gives no memory"):
        opened(seeing, world)
    assert not world.live and "detach" in world.log


@pytest.mark.parametrize("at", range(4))
def test_memory_that_runs_out_leaves_nothing_behind(folder: Path, world: World, at: int) -> None:
    make_plans(folder, folder.parent / "cache", world)
    world.fail_at = at
    with pytest.raises(EngineError, match="no memory"):
        opened(folder, world)
    assert not world.live and "detach" in world.log


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("no_execution", True, "no memory for the run"),
        ("refuse_address", "mu", "takes no buffer for 'mu'"),
        ("location", "HOST", "wants tensors on the host"),
        ("host_code", True, "does not load the engine file .*host code.*export.install"),
    ],
)
def test_what_tensorrt_refuses_is_reported(folder: Path, world: World, flag: str, value: Any, says: str) -> None:
    make_plans(folder, folder.parent / "cache", world)
    setattr(world, flag, value)
    with pytest.raises(EngineError, match=says):
        opened(folder, world)
    assert not world.live


def test_an_engine_file_for_several_kinds_of_gpu_is_refused(folder: Path, world: World) -> None:
    make_plans(folder, folder.parent / "cache", world)
    world.compatibility = world.trt.HardwareCompatibilityLevel.AMPERE_PLUS
    with pytest.raises(EngineError, match="several kinds of GPU"):
        opened(folder, world)


# --- engine.json


OTHERS: dict[str, tuple[World, str]] = {
    "another GPU": (World(name="Orin NX"), r"gpu changed \(Orin -> Orin NX\)"),
    "another compute capability": (World(capability=(11, 0)), r"compute_capability changed \(8\.7 -> 11\.0\)"),
    "another TensorRT": (World(version="10.4.0"), r"tensorrt changed \(10\.3\.0 -> 10\.4\.0\)"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_an_engine_file_of_another_device_is_refused(folder: Path, what: str) -> None:
    make_plans(folder, folder.parent / "cache", World())
    device, says = OTHERS[what]
    with pytest.raises(EngineError, match=says + ".*export.install"):
        opened(folder, device)


def test_an_engine_file_of_another_release_is_refused(
    folder: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(folder, world).close()
    monkeypatch.setattr(engine_tensorrt, "device_facts", lambda *_: {**world.facts(), "l4t": "36.4.5"})
    with pytest.raises(EngineError, match=r"l4t changed \(nothing -> 36\.4\.5\)"):
        opened(folder, world)


def test_an_engine_file_of_another_graph_is_refused(folder: Path, world: World) -> None:
    opened(folder, world).close()
    make_engine(folder, seed=1)
    with pytest.raises(EngineError, match=r"encode changed \(.* -> .*\)"):
        opened(folder, world)


@pytest.mark.parametrize("name", ["encode.engine"])
def test_an_engine_file_that_is_not_the_recorded_one_is_refused(folder: Path, world: World, name: str) -> None:
    opened(folder, world).close()
    file = folder.parent / "cache" / name
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(EngineError, match=f"{name}: not the file that engine.json records"):
        opened(folder, world)
    file.unlink()
    with pytest.raises(EngineError, match=f"{name}: No such file"):
        opened(folder, world)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"key": {}, "options": {}, "engines": {}}', '{"key": 3}'])
def test_a_record_that_cannot_be_read_is_refused(folder: Path, world: World, text: str) -> None:
    opened(folder, world).close()
    (folder.parent / "cache" / "engine.json").write_text(text)
    with pytest.raises(EngineError, match=r"engine\.json: unreadable.*export\.install"):
        opened(folder, world)
    (folder.parent / "cache" / "engine.json").unlink()
    with pytest.raises(EngineError, match=r"engine\.json: No such file.*export\.install"):
        opened(folder, world)


def test_an_engine_file_of_another_interface_is_refused(folder: Path, world: World) -> None:
    """Even where its hash and key are recorded: names, types and shapes are the manifest's."""
    record = make_plans(folder, folder.parent / "cache", world)
    make_engine(folder.parent / "other", size=16)
    file = folder.parent / "cache" / "encode.engine"
    file.write_bytes((folder.parent / "other" / "encode.onnx").read_bytes())
    EngineRecord(record.key, {}, {**record.engines, "encode": sha256_file(file)}).save(folder.parent / "cache")
    with pytest.raises(EngineError, match="the engine file has .*the manifest says"):
        opened(folder, world)
    file.write_bytes(b"no engine")
    EngineRecord(record.key, {}, {**record.engines, "encode": sha256_file(file)}).save(folder.parent / "cache")
    with pytest.raises(EngineError, match=r"does not load the engine file \(Serialization assertion failed\)"):
        opened(folder, world)
    assert not world.live


def test_the_release_of_jetson_linux_is_read(tmp_path: Path, world: World) -> None:
    file = tmp_path / "nv_tegra_release"
    assert device_facts(world.trt, Gpu(world.cuda), file)["l4t"] == ""
    file.write_text("# R36 (release), REVISION: 4.4, GCID: 41062509, BOARD: generic, EABI: aarch64\n")
    assert device_facts(world.trt, Gpu(world.cuda), file)["l4t"] == "36.4.4"


# --- missing libraries


class Broken:
    """A finder whose import of one module fails in one way."""

    def __init__(self, name: str, error: Exception) -> None:
        self._name, self._error = name, error

    def find_spec(self, name: str, *_: object) -> None:
        if name == self._name:
            raise self._error


def module(name: str, **values: Any) -> types.ModuleType:
    made = types.ModuleType(name)
    made.__dict__.update(values)
    return made


def no_device(error: str) -> types.ModuleType:
    def init() -> None:
        raise RuntimeError(error)

    return module("pycuda.driver", init=init, Error=RuntimeError)


def absent(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


NO_GPU = module("pycuda.driver", init=lambda: None, Error=RuntimeError, Device=types.SimpleNamespace(count=lambda: 0))
TRT = module("tensorrt", __version__="10.3.0")
OLD = module("tensorrt", __version__="8.5.2")
MISSING: list[tuple[dict[str, Any], str]] = [
    ({"tensorrt": absent("tensorrt")}, "apt install tensorrt"),
    ({"tensorrt": absent("nvinfer")}, "lacks 'nvinfer'"),
    ({"tensorrt": ImportError("libnvdla_compiler.so: cannot open")}, "libnvdla_compiler.so.*JetPack"),
    ({"tensorrt": OLD}, r"8\.5\.2 is older than 10\.0; install JetPack 6\.1"),
    ({"tensorrt": TRT, "pycuda": absent("pycuda")}, r"veilsight\[jetson\]"),
    ({"tensorrt": TRT, "pycuda": ImportError("libcuda.so.1: cannot open")}, r"libcuda\.so\.1 means .* no NVIDIA"),
    ({"tensorrt": TRT, "pycuda.driver": no_device("cuInit failed: no device")}, "cuInit failed.*10-board"),
    ({"tensorrt": TRT, "pycuda.driver": NO_GPU}, "CUDA finds no device; load NVIDIA's driver"),
]


@pytest.mark.parametrize(("modules", "says"), MISSING, ids=[says[:24] for _, says in MISSING])
def test_each_missing_or_broken_library_has_its_own_message(
    modules: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, found in modules.items():
        monkeypatch.delitem(sys.modules, name, raising=False)
        if isinstance(found, Exception):
            monkeypatch.setattr(sys, "meta_path", [Broken(name, found), *sys.meta_path])
            continue
        if name == "pycuda.driver":
            monkeypatch.setitem(sys.modules, "pycuda", module("pycuda", driver=found, __path__=[]))
        monkeypatch.setitem(sys.modules, name, found)
    with pytest.raises(EngineError, match=says):
        load_libraries()
