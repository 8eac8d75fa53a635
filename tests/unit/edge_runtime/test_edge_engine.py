"""An engine must be what its manifest says, keep nothing, and pass the self-test before the first slot."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from edge_runtime.eye.engine.base import Values, self_test
from edge_runtime.eye.engine.onnx import OnnxEngine
from edge_runtime.eye.engine.registry import EngineOptions, open_engine
from tests.support.engine_factory import BROKEN_CORES, make_engine, put_weights_outside
from tests.support.services import PATIENCE_S, ROOT
from wire.artifact.manifest import EngineManifest, sha256_file
from wire.errors import ConfigError, EngineError, ManifestError, PrivacyError
from wire.people.decode import decode


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_engine(tmp_path / "engine")
    return tmp_path / "engine"


@pytest.fixture
def seeing(tmp_path: Path) -> Path:
    """An engine of a family that sees people."""
    make_engine(tmp_path / "seeing", person_frame=(64, 96))
    return tmp_path / "seeing"


def frames(value: int = 100) -> npt.NDArray[np.uint8]:
    return np.full((1, 16, 32, 32), value, np.uint8)


def test_a_code_is_small_integers_inside_the_ball(folder: Path) -> None:
    engine = OnnxEngine(folder)
    code = engine.encode(frames())
    assert code.dtype == np.int16 and code.shape == (engine.manifest.n,)
    assert np.array_equal(code, engine.run_encode(frames()).reshape(-1))
    assert 0 < int((code.astype(int) ** 2).sum()) <= engine.manifest.clip_norm**2


def test_a_code_that_does_not_fit_is_an_error_that_names_no_number(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = OnnxEngine(folder)
    for far in (32768, -32769):
        monkeypatch.setattr(engine, "_run", lambda *_, far=far: {"mu": np.full((1, 4, 16), far, np.int32)})
        with pytest.raises(EngineError, match="the code does not fit int16") as refusal:
            engine.encode(frames())
        assert str(abs(far)) not in str(refusal.value)


def test_an_engine_does_not_open_decide(folder: Path) -> None:
    (folder / "decide.onnx").write_bytes(b"no graph")
    document = json.loads((folder / "manifest.json").read_text())
    document["hashes"]["decide"] = sha256_file(folder / "decide.onnx")
    (folder / "manifest.json").write_text(json.dumps(document))
    eye = OnnxEngine(folder)
    self_test(eye)
    assert eye.encode(frames()).any()


def test_an_input_of_another_shape_or_type_is_refused(folder: Path) -> None:
    engine = OnnxEngine(folder)
    with pytest.raises(EngineError, match=r"the run failed: frames is uint8 \(1, 3, 32, 32\), expected uint8"):
        engine.encode(np.zeros((1, 3, 32, 32), np.uint8))
    with pytest.raises(EngineError, match="frames is int16"):
        engine.encode(frames().astype(np.int16))


def people(value: int = 0) -> npt.NDArray[np.int32]:
    return np.full((1, 16, 4, 56), value, np.int32)


def test_an_engine_that_sees_people_takes_both_inputs(seeing: Path) -> None:
    engine = OnnxEngine(seeing)
    self_test(engine)
    nobody, somebody = (engine.encode(frames(), people(value)) for value in (0, 900))
    assert nobody.any() and (nobody != somebody).any()
    with pytest.raises(EngineError, match=r"the run failed: people is missing, expected int32 \(1, 16, 4, 56\)"):
        engine.encode(frames())
    with pytest.raises(EngineError, match="people is int16"):
        engine.encode(frames(), people().astype(np.int16))
    with pytest.raises(EngineError, match=r"frame is uint8 \(1, 96, 64, 3\), expected uint8 \(1, 64, 96, 3\)"):
        engine.perceive(np.zeros((1, 96, 64, 3), np.uint8))


def test_an_engine_that_sees_none_takes_no_people(folder: Path) -> None:
    engine = OnnxEngine(folder)
    with pytest.raises(EngineError, match=r"people is int32 .*, expected nothing"):
        engine.encode(frames(), people())
    with pytest.raises(EngineError, match="frame is uint8 .*, expected nothing"):
        engine.perceive(np.zeros((1, 64, 96, 3), np.uint8))


def test_the_heads_of_a_frame_can_be_decoded(seeing: Path) -> None:
    frame = np.zeros((1, 64, 96, 3), np.uint8)
    frame[0, 20:24, 40:44] = 250
    found = decode(OnnxEngine(seeing).perceive(frame))
    assert found.found == 1 and found.keypoints[0, 0, :2].tolist() == pytest.approx([5 / 16, 10 / 24])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_heads_that_are_no_numbers_stop_the_eye_before_the_first_slot(
    seeing: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    engine, run = OnnxEngine(seeing), OnnxEngine._run

    def broken(part: str, inputs: Values) -> dict[str, Any]:
        made = run(engine, part, inputs)
        if part == "perceive" and inputs["frame"].all():
            made["heat"][0, 3, 2, 1] = value
        return made

    monkeypatch.setattr(engine, "_run", broken)
    with pytest.raises(EngineError, match="head 'heat' holds NaN"):
        self_test(engine)


def test_a_person_network_that_was_swapped_is_refused(seeing: Path) -> None:
    file = seeing / "perceive.onnx"
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ManifestError, match=r"perceive\.onnx"):
        OnnxEngine(seeing)


def test_what_a_runtime_says_of_a_failed_run_is_not_passed_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime names values of tensors in some errors; nothing of the text is in the error or behind it."""

    class Talks:
        def run(self, *_: object) -> None:
            raise failure

    engine = OnnxEngine(folder)
    monkeypatch.setitem(engine._sessions, "encode", Talks())
    for failure in (ort_errors.InvalidArgument("pixel 217"), RuntimeError("pixel 217"), MemoryError("pixel 217")):
        with pytest.raises(EngineError, match=rf"the run failed \({type(failure).__name__}\)$") as refusal:
            engine.encode(frames())
        assert refusal.value.__cause__ is None and refusal.value.__context__ is None
        assert "217" not in "".join(traceback.format_exception(refusal.value))


def test_denormal_numbers_count_as_zero_where_the_eye_runs(folder: Path) -> None:
    """In a process of its own: ONNX Runtime sets it with the first session of a process."""
    code = (
        "import sys, numpy as np\n"
        "from edge_runtime.eye.engine.registry import EngineOptions, open_engine\n"
        "from wire.artifact.manifest import EngineManifest\n"
        "small = np.full(64, 1e-30, np.float32)\n"
        "assert (small * np.float32(1e-10)).any(), 'the control: before, they are kept'\n"
        "engine = open_engine(EngineOptions(sys.argv[1]), EngineManifest.load(sys.argv[1]))\n"
        "assert not (small * np.float32(1e-10)).view(np.uint32).any()\n"
    )
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["encode.onnx", "decide.onnx", "noise_table.bin", "certificate.json"])
def test_a_file_with_another_hash_than_the_manifests_is_refused(folder: Path, name: str) -> None:
    file = folder / name
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ManifestError, match=name.replace(".", r"\.")):
        OnnxEngine(folder)


def test_a_certificate_that_c_and_sigma_do_not_give_is_refused(folder: Path) -> None:
    """Even where its hash is pinned: the numbers are computed again."""
    file = folder / "certificate.json"
    document = json.loads(file.read_text())
    document["event"]["bits"] /= 2
    file.write_text(json.dumps(document))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["hashes"]["certificate"] = sha256_file(file)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ManifestError, match=r"event\.bits"):
        OnnxEngine(folder)


def test_external_weights_are_those_that_were_hashed(folder: Path) -> None:
    """They are used; with one byte changed, or the file missing, nothing is loaded."""
    put_weights_outside(folder)
    before = sorted(Path(tempfile.gettempdir()).glob("veilsight-*"))
    mu = OnnxEngine(folder).encode(frames())
    make_engine(folder.parent / "whole")
    assert np.array_equal(mu, OnnxEngine(folder.parent / "whole").encode(frames()))
    file = folder / "encode.weights"
    file.write_bytes(b"\x01" + file.read_bytes()[1:])
    with pytest.raises(ManifestError, match=r"encode\.weights: sha256"):
        OnnxEngine(folder)
    file.unlink()
    with pytest.raises(ManifestError, match=r"encode\.weights"):
        OnnxEngine(folder)
    assert sorted(Path(tempfile.gettempdir()).glob("veilsight-*")) == before


def test_a_graph_swapped_after_the_check_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes that run are the bytes that were hashed."""

    def swap(self: EngineManifest, at: Path) -> None:
        (folder / "encode.onnx").write_bytes((folder / "decide.onnx").read_bytes())

    monkeypatch.setattr(EngineManifest, "check", swap)
    with pytest.raises(ManifestError, match=r"encode\.onnx: sha256"):
        OnnxEngine(folder)


def test_a_graph_of_another_interface_is_refused(tmp_path: Path) -> None:
    make_engine(tmp_path / "small", size=16)
    make_engine(tmp_path / "large", size=32)
    other = tmp_path / "small" / "encode.onnx"
    other.write_bytes((tmp_path / "large" / "encode.onnx").read_bytes())
    document = json.loads((tmp_path / "small" / "manifest.json").read_text())
    document["hashes"]["encode"] = sha256_file(other)
    (tmp_path / "small" / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(EngineError, match=r"encode\.onnx: inputs are .*the manifest says"):
        OnnxEngine(tmp_path / "small")


def test_bytes_that_are_not_a_graph_are_refused(folder: Path) -> None:
    (folder / "encode.onnx").write_bytes(b"no graph")
    document = json.loads((folder / "manifest.json").read_text())
    document["hashes"]["encode"] = sha256_file(folder / "encode.onnx")
    (folder / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(EngineError, match=r"encode\.onnx: ONNX Runtime cannot load it"):
        OnnxEngine(folder)


@pytest.mark.parametrize("network", ["linear", "nan", "infinite", "huge"])
def test_the_integer_core_passes_whatever_the_network(tmp_path: Path, network: str) -> None:
    make_engine(tmp_path / "engine", network=network)
    self_test(OnnxEngine(tmp_path / "engine"))


@pytest.mark.parametrize("core", BROKEN_CORES)
def test_a_broken_core_stops_the_process_before_the_first_slot(tmp_path: Path, core: str) -> None:
    make_engine(tmp_path / "engine", core=core)
    with pytest.raises(PrivacyError, match="self-test.*longer than C = 64"):
        self_test(OnnxEngine(tmp_path / "engine"))


class Remembers:
    """A runtime that keeps something of one run of a graph for the next: the newest input, or every run's number."""

    def __init__(self, inner: Any, part: str, name: str, how: str) -> None:
        self._inner, self._part, self._name, self._how, self._kept = inner, part, name, how, 0

    def __call__(self, part: str, inputs: Values) -> dict[str, Any]:
        made = self._inner(part, inputs)
        if part == self._part:
            next(iter(made.values())).reshape(-1)[0] = self._kept
            self._kept = int(inputs[self._name].max()) // 16 if self._how == "newest" else self._kept + 1
        return dict(made)


@pytest.mark.parametrize("how", ["newest", "count"])
@pytest.mark.parametrize(("part", "name"), [("encode", "frames"), ("encode", "people"), ("perceive", "frame")])
def test_an_engine_that_remembers_is_found(
    folder: Path, seeing: Path, monkeypatch: pytest.MonkeyPatch, part: str, name: str, how: str
) -> None:
    engine = OnnxEngine(folder if name == "frames" else seeing)
    monkeypatch.setattr(engine, "_run", Remembers(engine._run, part, name, how))
    with pytest.raises(PrivacyError, match="depends on what was seen before|longer than C"):
        self_test(engine)


def test_the_options_choose_the_backend(folder: Path) -> None:
    manifest = OnnxEngine(folder).manifest  # a session before, so that this process keeps its denormal numbers
    assert isinstance(open_engine(EngineOptions(str(folder), threads=2), manifest), OnnxEngine)
    with pytest.raises(ConfigError, match=r"\[engine\] backend is 'abacus'; expected onnxruntime or tensorrt"):
        open_engine(EngineOptions(str(folder), backend="abacus"), manifest)
    if importlib.util.find_spec("tensorrt") is None:
        with pytest.raises(EngineError, match="TensorRT is not installed for this Python"):
            open_engine(EngineOptions(str(folder), backend="tensorrt"), manifest)


def test_engines_know_neither_gate_nor_configuration() -> None:
    """So that the process of the networks cannot come to hold the key, the ledger or the noise by an import."""
    code = "import sys, edge_runtime.eye.engine.registry; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    ours = {name for name in done.stdout.split() if name.startswith("edge_runtime.")}
    assert "edge_runtime.eye.engine.onnx" in ours and all(name.startswith("edge_runtime.eye") for name in ours)
