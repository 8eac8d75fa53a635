"""The proof of the trusted core: true cores in every allowed spelling pass, every mutant is refused at its step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from export.proof.structure import load_graph
from export.proof.verify_graph import main, prove_decide, prove_encode
from tests.support.core_graph import FRAMES, MANIFEST, SPELLINGS, D, K, build, run
from tests.support.core_mutants import MUTANTS
from tests.support.engine_factory import BROKEN_CORES, make_engine
from wire.artifact.manifest import EngineManifest
from wire.errors import GraphError


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_the_core_is_proved_and_computes_the_same(spelling: str) -> None:
    rng = np.random.default_rng(1)
    weights = rng.normal(scale=0.007, size=(32, K * D)).astype(np.float32)
    frames = rng.integers(0, 256, FRAMES, dtype=np.uint8)
    noise = rng.integers(-300, 300, (1, K, D), dtype=np.int32)
    model = build(weights, **SPELLINGS[spelling]).model()
    assert prove_encode(model, MANIFEST)[-1].startswith("hence |mu| <= 32")
    expected = run(build(weights).model(), frames, noise)
    np.testing.assert_array_equal(run(model, frames, noise), expected)
    assert expected.any()


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_refused_at_the_step_it_breaks(mutant: str) -> None:
    change, says = MUTANTS[mutant]
    b = build()
    change(b)
    with pytest.raises(GraphError) as refusal:
        prove_encode(b.model(), MANIFEST)
    assert says in str(refusal.value)


def test_a_norm_guard_that_would_overflow_is_refused() -> None:
    large = EngineManifest(**{**vars(MANIFEST), "clip_norm": 11585})  # n C^2 = 16 * 11585^2 < 2^31 <= 16 * 11586^2
    object.__setattr__(large, "clip_norm", 11586)
    with pytest.raises(GraphError, match=r"must be below 2\^31"):
        prove_encode(build().model(), large)


def test_the_command_prints_what_it_proves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_engine(tmp_path)
    assert main([str(tmp_path)]) == 0
    assert "noise is read exactly once" in capsys.readouterr().out
    (tmp_path / "decide.onnx").write_bytes(b"other")
    assert main([str(tmp_path)]) == 1
    assert "decide.onnx: sha256" in capsys.readouterr().err


@pytest.mark.parametrize("core", BROKEN_CORES)
def test_a_broken_engine_is_refused_where_it_is_installed(tmp_path: Path, core: str) -> None:
    make_engine(tmp_path, core=core)
    assert main([str(tmp_path)]) == 1


def test_decide_with_another_interface_is_refused(tmp_path: Path) -> None:
    manifest = make_engine(tmp_path)
    model = load_graph(tmp_path / "decide.onnx")
    assert prove_decide(model, manifest)
    model.graph.output.append(helper.make_tensor_value_info("seen", TensorProto.FLOAT, (1, 8, 4, 16)))
    with pytest.raises(GraphError, match="interface: outputs"):
        prove_decide(model, manifest)
