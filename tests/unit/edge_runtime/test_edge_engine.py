"""An engine must be what its manifest says, and pass the self-test before the first release."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.eye.engine.base import self_test
from edge_runtime.eye.engine.onnx import OnnxEngine
from edge_runtime.eye.window import Window
from edge_runtime.gate.sampler import NoiseSample, Sampler
from tests.support.engine_factory import BROKEN_CORES, make_engine, make_noise_table, put_weights_outside
from wire.artifact.manifest import EngineManifest, sha256_file
from wire.errors import EngineError, ManifestError, NoiseError, PrivacyError
from wire.protocol.event import EventWindow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_engine(tmp_path / "engine")
    return tmp_path / "engine"


def draw(engine: OnnxEngine) -> NoiseSample:
    manifest = engine.manifest
    return Sampler(make_noise_table(manifest.sigma), manifest.n).draw()


def window(value: int = 100) -> Window:
    return Window(0, np.full((1, 16, 32, 32), value, np.uint8))


def test_a_release_is_the_code_plus_the_drawn_noise(folder: Path) -> None:
    engine = OnnxEngine(folder)
    noise = draw(engine)
    copy = noise._array.copy()
    z = engine.encode(window(), noise)
    mu = engine.run_core(window().frames, np.zeros_like(copy))
    assert z.dtype == np.int16
    assert z.shape == (64,)
    assert np.array_equal(z, (mu + copy).reshape(-1))
    assert 0 < int((mu.astype(int) ** 2).sum()) <= engine.manifest.clip_norm**2


def test_the_noise_sample_is_wiped_and_cannot_be_used_again(folder: Path) -> None:
    engine = OnnxEngine(folder)
    noise = draw(engine)
    engine.encode(window(), noise)
    assert not noise._array.any()
    with pytest.raises(NoiseError, match="twice"):
        engine.encode(window(), noise)


def test_the_noise_sample_is_wiped_when_the_engine_fails(folder: Path) -> None:
    engine = OnnxEngine(folder)
    noise = draw(engine)
    with pytest.raises(EngineError, match="the run failed"):
        engine.encode(Window(0, np.zeros((1, 3, 32, 32), np.uint8)), noise)
    assert not noise._array.any()


def test_verdicts_are_a_distribution_over_the_labels(folder: Path) -> None:
    engine = OnnxEngine(folder)
    event = EventWindow(8, 4, 16)
    event.push(0, np.arange(64, dtype=np.int16))
    probabilities = engine.decide(event)
    assert tuple(probabilities) == engine.manifest.labels
    assert sum(probabilities.values()) == pytest.approx(1.0)


def test_logits_that_are_not_finite_are_no_verdict(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = OnnxEngine(folder)
    event = EventWindow(8, 4, 16)
    for bad in (np.nan, np.inf):
        monkeypatch.setattr(engine, "run_decide", lambda *_, bad=bad: np.array([[0, bad, 0]], np.float32))
        with pytest.raises(EngineError, match="not finite"):
            engine.decide(event)
    monkeypatch.setattr(engine, "run_decide", lambda *_: np.array([[1e30, 0, 0]], np.float32))
    assert list(engine.decide(event).values()) == [1.0, 0.0, 0.0]


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
    frames, noise = window().frames, np.zeros((1, 4, 16), np.int32)
    mu = OnnxEngine(folder).run_core(frames, noise)
    make_engine(folder.parent / "whole")
    assert np.array_equal(mu, OnnxEngine(folder.parent / "whole").run_core(frames, noise))
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
    (folder / "decide.onnx").write_bytes(b"no graph")
    document = json.loads((folder / "manifest.json").read_text())
    document["hashes"]["decide"] = sha256_file(folder / "decide.onnx")
    (folder / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(EngineError, match=r"decide\.onnx: ONNX Runtime cannot load it"):
        OnnxEngine(folder)


@pytest.mark.parametrize("network", ["linear", "nan", "infinite", "huge"])
def test_the_sound_core_passes_whatever_the_network(tmp_path: Path, network: str) -> None:
    make_engine(tmp_path / "engine", network=network)
    self_test(OnnxEngine(tmp_path / "engine"))


@pytest.mark.parametrize("core", BROKEN_CORES)
def test_a_broken_core_stops_the_process_before_the_first_release(tmp_path: Path, core: str) -> None:
    make_engine(tmp_path / "engine", core=core)
    with pytest.raises(PrivacyError, match="self-test"):
        self_test(OnnxEngine(tmp_path / "engine"))


def test_a_core_that_does_not_clip_is_found(tmp_path: Path) -> None:
    make_engine(tmp_path / "engine", core="no clip")
    with pytest.raises(PrivacyError, match="longer than C = 64"):
        self_test(OnnxEngine(tmp_path / "engine"))


def test_a_graph_that_does_not_saturate_stops_the_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = OnnxEngine(folder)
    monkeypatch.setattr(engine, "run_core", lambda frames, noise: np.full((1, 4, 16), 40000, np.int32))
    with pytest.raises(PrivacyError, match="saturate"):
        engine.encode(window(), draw(engine))
