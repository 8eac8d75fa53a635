"""From a checkpoint to an engine folder: same bytes each time, reused if nothing changed, refused with a reason."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from calibration.noise import build_table
from calibration.noise import main as choose_noise
from export import parity, trace
from export.backends import runners as engines
from export.backends.runners import Runner
from export.build_engine import main
from export.describe import described
from export.inputs import Inputs, why_build
from export.precision.network import open_session
from export.proof.structure import load_graph
from export.proof.verify_graph import prove_folder, prove_graph
from familial.model.checkpoint import checkpoint_hash, load, save
from tests.support.services import ROOT
from wire.artifact.manifest import EngineManifest
from wire.errors import CheckpointError, ConfigError, EngineError
from wire.privacy.noise_table import NoiseTable

pytest_plugins = ("tests.support.small_export_fixtures",)


@pytest.fixture(scope="module")
def engine(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("engines") / "small"
    assert main(["--checkpoint", str(checkpoint), "--out", str(out)]) == 0
    return out


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may spoil."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_folder_is_complete_and_proved(checkpoint: Path, engine: Path) -> None:
    manifest = EngineManifest.load(engine)
    manifest.check(engine)
    assert any("no state goes in or out" in sentence for sentence in prove_folder(engine))
    assert manifest.hashes["checkpoint"] == checkpoint_hash(checkpoint)
    assert manifest.profile == "balanced"
    report = json.loads((engine / "parity.json").read_text())
    assert report["code"]["windows"] >= 64
    assert report["code"]["norm_mean"] > 32  # the comparison saw codes, not zeros
    assert report["verdict"]["events"] >= 32 and "noise" not in report


def test_the_same_checkpoint_gives_the_same_bytes(checkpoint: Path, engine: Path) -> None:
    family, manifest = trace.load_family(checkpoint), EngineManifest.load(engine)
    belongs = manifest.hashes["checkpoint"], manifest.hashes["certificate"]
    for part, model in (("encode", trace.trace_encode(family)), ("decide", trace.trace_decide(family))):
        made = described(model, part, *belongs)
        assert made.SerializeToString(deterministic=True) == (engine / f"{part}.onnx").read_bytes()


def test_the_graphs_hold_no_paths_and_no_traces_of_their_source(engine: Path) -> None:
    for name in ("encode.onnx", "decide.onnx"):
        data = (engine / name).read_bytes()
        for hint in (str(ROOT).encode(), b".py", b"stack_trace", b"torch", b"familial"):
            assert hint not in data


def test_every_reshape_is_fixed(engine: Path) -> None:
    model = load_graph(engine / "encode.onnx")
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Reshape":
            assert (constants[node.input[1]] > 0).all()


# --- reuse


def test_unchanged_is_reused_without_torch(checkpoint: Path, engine: Path) -> None:
    before = contents(engine)
    code = (
        "import sys; from export.build_engine import main\n"
        f"assert main(['--checkpoint', {str(checkpoint)!r}, '--out', {str(engine)!r}]) == 0\n"
        "assert not {'torch', 'onnx', 'onnxruntime'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("reused: ")
    assert contents(engine) == before


def _append(name: str) -> Callable[[Path, Path], object]:
    def change(checkpoint: Path, out: Path) -> None:
        file = (out if (out / name).exists() else checkpoint) / name
        file.write_bytes(file.read_bytes() + b" ")

    return change


def _more_noise(checkpoint: Path, out: Path) -> None:
    choose_noise(["--checkpoint", str(checkpoint), "--target", "strict"])


CHANGES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "weights": (_append("model.safetensors"), "checkpoint changed"),
    "words": (_append("vocab.json"), "checkpoint changed"),
    "noise": (_more_noise, "profile changed (balanced -> strict)"),
    "a graph": (_append("encode.onnx"), "encode.onnx: sha256"),
    "the certificate": (_append("certificate.json"), "certificate.json: sha256"),
    "the manifest": (lambda c, o: (o / "manifest.json").write_text("{}"), "manifest.json: unreadable"),
    "no parity report": (lambda c, o: (o / "parity.json").unlink(), "parity.json"),
    "no graph": (lambda c, o: (o / "decide.onnx").unlink(), "decide.onnx"),
    "no engine": (lambda c, o: shutil.rmtree(o), "there is no engine yet"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_named(copy: Path, engine: Path, tmp_path: Path, what: str) -> None:
    out = Path(shutil.copytree(engine, tmp_path / "engine"))
    assert why_build(out, Inputs.read(copy, "fp32", "onnxruntime")) == ""
    change, says = CHANGES[what]
    change(copy, out)
    assert says in why_build(out, Inputs.read(copy, "fp32", "onnxruntime"))


def test_another_tool_is_named(checkpoint: Path, engine: Path) -> None:
    wanted = Inputs.read(checkpoint, "fp32", "onnxruntime")
    newer = dataclasses.replace(wanted, tools={**wanted.tools, "torch": "99.0"})
    assert "tool torch changed" in why_build(engine, newer)
    assert "backend changed" in why_build(engine, dataclasses.replace(wanted, backend="tensorrt"))


def test_an_interrupted_build_leaves_the_old_engine(
    checkpoint: Path, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(engine)
    monkeypatch.setattr(trace, "trace_encode", lambda family, beside: onnx.load(engine / "encode.onnx"))
    monkeypatch.setattr(trace, "trace_decide", lambda family, beside: onnx.load(engine / "decide.onnx"))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parity, "compare", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(["--checkpoint", str(checkpoint), "--out", str(engine), "--force"])
    assert contents(engine) == before
    assert [path.name for path in engine.parent.iterdir()] == ["small"]


def test_a_full_disk_leaves_the_old_engine(
    checkpoint: Path, engine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(engine)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trace, "trace_encode", full)
    assert main(["--checkpoint", str(checkpoint), "--out", str(engine), "--force"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert contents(engine) == before


# --- refusals


def _edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def _spoil_weights(checkpoint: Path, value: float) -> None:
    family = load(checkpoint)
    with torch.no_grad():
        family.tower.get_parameter("stem.weight").view(-1)[3] = value
    save(family, checkpoint)


def _false_table(checkpoint: Path) -> None:
    """Entries of a narrower distribution, labelled with the true sigma."""
    narrow, (true, *others) = build_table(Fraction(20)), NoiseTable.load_all(checkpoint / "noise_table.bin")
    tables = (NoiseTable(true.sigma, narrow.high, narrow.low), *others)
    (checkpoint / "noise_table.bin").write_bytes(b"".join(table.to_bytes() for table in tables))


REFUSALS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no checkpoint": (shutil.rmtree, "noise.json: No such file"),
    "no weights": (lambda c: (c / "model.safetensors").unlink(), "run: python -m familial.train"),
    "no noise": (lambda c: (c / "noise.json").unlink(), "run: python -m calibration.noise"),
    "no table": (lambda c: (c / "noise_table.bin").unlink(), "run: python -m calibration.noise"),
    "noise that is no JSON": (lambda c: (c / "noise.json").write_text("{"), "noise.json: unreadable"),
    "noise without sigma": (lambda c: (c / "noise.json").write_text('{"profile": "strict"}'), "unreadable"),
    "noise for another C": (lambda c: _edit(c / "noise.json", clip_norm=32, s_release=32 / 60.34375), "clip_norm 32"),
    "noise of a false S": (lambda c: _edit(c / "noise.json", s_release=0.5), "s_release is 0.5"),
    "noise of a false profile": (lambda c: _edit(c / "noise.json", profile="strict"), "more than profile strict"),
    "an endless sigma": (lambda c: _edit(c / "noise.json", sigma=float("inf")), "unreadable"),
    "a sigma of zero": (lambda c: _edit(c / "noise.json", sigma="0/1"), "cannot be"),
    "a table of another sigma": (lambda c: build_table(Fraction(61)).save(c / "noise_table.bin"), "is for sigma 61"),
    "a table of false words": (_false_table, "not the distribution of sigma"),
    "a table that is cut": (lambda c: (c / "noise_table.bin").write_bytes(b"VSNOISE1"), "too few"),
    "NaN weights": (lambda c: _spoil_weights(c, float("nan")), "tower.stem.weight holds 1 weights that are NaN"),
    "infinite weights": (lambda c: _spoil_weights(c, float("inf")), "NaN or infinite"),
    "a guard that would overflow": (lambda c: _edit(c / "config.json", clip_norm=6000), "overflows int32"),
    "weights of another shape": (lambda c: _edit(c / "config.json", hidden=64), "weights do not fit config.json"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_what_cannot_be_built_is_refused_with_the_cure(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    change, says = REFUSALS[what]
    change(copy)
    out = tmp_path / "out" / "engine"
    assert main(["--checkpoint", str(copy), "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("build_engine: ") and says in error
    assert not out.exists()


def test_a_folder_that_is_not_an_engine_is_not_replaced(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "love.txt").write_text("dear")
    for out, says in (
        ("letters", "love.txt"),
        ("letters/love.txt", "is a file"),
        ("letters/love.txt/x", "cannot be written"),
    ):
        assert main(["--checkpoint", str(checkpoint), "--out", str(tmp_path / out)]) == 1
        assert says in capsys.readouterr().err
    assert (tmp_path / "letters" / "love.txt").read_text() == "dear"


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("--backend", "abacus", "not known; available: onnxruntime, tensorrt, tensorrt-rtx"),
        ("--level", "6", "--level is 6; levels are 0 to 5"),
        ("--workspace-mb", "0", "--workspace-mb is 0; it must be at least 1"),
        ("--precision", "fp3", "not known; available: fp32, fp16, int8"),
    ],
)
def test_an_invalid_option_is_refused_with_the_valid_ones(
    flag: str, value: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([flag, value]) == 1
    assert says in capsys.readouterr().err


# --- engines and parity


def test_a_graph_that_does_not_load_is_an_engine_error(engine: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(engine, tmp_path / "engine"))
    (out / "encode.onnx").write_bytes(b"none")
    with pytest.raises(EngineError, match=r"encode\.onnx: ONNX Runtime cannot load it"):
        engines.backend("onnxruntime").build(out)
    with pytest.raises(EngineError, match="the run failed"):
        engines.backend("onnxruntime").build(engine).decide(np.zeros((1, 2), np.int32), np.ones((1, 8), np.bool_))


def test_a_backend_that_is_not_installed_says_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match="pip install"):
        engines.backend("onnxruntime")
    with pytest.raises(ConfigError):
        engines.backend("none")


class Wrong:
    """An engine whose results are wrong in one way."""

    def __init__(self, inner: Runner, how: str) -> None:
        self._inner, self._how = inner, how

    def perceive(self, frame: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
        return self._inner.perceive(frame)

    def encode(
        self, frames: npt.NDArray[np.uint8], people: npt.NDArray[np.int32] | None = None
    ) -> npt.NDArray[np.int32]:
        mu = self._inner.encode(frames, people)
        return mu + {"loud": 3, "biased": 1}.get(self._how, 0) * (1 if self._how == "biased" else np.sign(mu))

    def decide(self, z: npt.NDArray[np.int32], present: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        return self._inner.decide(z, present) + np.float32({"opinion": 0.001, "nan": np.nan}.get(self._how, 0.0))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("loud", r"code: .*\|mu\|"),
        ("biased", "code: "),
        ("opinion", "verdict"),
        ("nan", "verdict"),
    ],
)
def test_parity_finds_an_engine_that_computes_something_else(
    checkpoint: Path, engine: Path, how: str, says: str
) -> None:
    runner = Wrong(engines.backend("onnxruntime").build(engine), how)
    with pytest.raises(EngineError, match=says):
        parity.compare(load(checkpoint), runner, NoiseTable.load(engine / "noise_table.bin"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_the_core_is_within_its_norm_for_weights_that_no_build_accepts(engine: Path, value: float) -> None:
    """The integer core needs no finite weights: |mu| <= C with any."""
    manifest = EngineManifest.load(engine)
    model = load_graph(engine / "encode.onnx")
    for tensor in model.graph.initializer:
        if tensor.name.startswith("desensitizer.outer"):
            weights = onnx.numpy_helper.to_array(tensor).copy()
            weights.reshape(-1)[::5] = value
            tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))
    assert prove_graph("encode", model, manifest)
    run = open_session(model)
    for window in parity.made_windows(manifest.window, 12):
        mu = run({"frames": window[None]})[0].astype(np.int64)
        assert (mu * mu).sum() <= manifest.clip_norm**2


def test_denormal_weights_are_set_to_zero_when_a_graph_is_traced(copy: Path) -> None:
    """They would slow a product 200 times, and the proof refuses them."""
    family = load(copy)
    with torch.no_grad():
        family.tower.get_parameter("stem.weight").view(-1)[3] = 1e-40
    model = trace.trace_encode(family)
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == "tower.stem.weight")
    assert onnx.numpy_helper.to_array(tensor).reshape(-1)[3:4].view(np.uint32) == 0
    assert onnx.numpy_helper.to_array(tensor).any()


def test_unsound_weights_are_named(copy: Path) -> None:
    _spoil_weights(copy, float("nan"))
    with pytest.raises(CheckpointError, match=r"tower\.stem\.weight"):
        trace.load_family(copy)


def test_made_windows_are_the_same_every_time(engine: Path) -> None:
    window = EngineManifest.load(engine).window
    first = parity.made_windows(window, 20)
    assert first.shape == (20, window.frames, window.height, window.width)
    np.testing.assert_array_equal(first, parity.made_windows(window, 20))
