"""Every known breach of the promise is planted here, and the check that is named for it notices it.

    GRAPHS    broken in the graph:     what the proof says
    PLANTED   broken while it runs:    what must be raised, and by what
    WRITTEN   broken in the source, in a copy of it:  the test that must fail

A mutation whose place in the source is gone fails, too, so that the list cannot become outdated unnoticed.
"""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest

from export.proof.structure import load_graph
from export.proof.verify_graph import prove_graph
from tests.support.breaches_at_run_time import PLANTED, Bench
from tests.support.breaches_in_graph import GRAPHS
from tests.support.breaches_in_source import WRITTEN, Written, copy_of_the_code, mutate, run_tests
from tests.support.engine_factory import make_engine
from tests.support.services import ROOT
from wire.artifact.manifest import FILES, EngineManifest
from wire.errors import GraphError

BREACHES = (
    "half sigma",
    "reused noise",
    "noise in floats",
    "numpy's generator",
    "a retry with fresh noise",
    "a charge after publish",
    "a varint in the message",
    "a trap",
    "pixels in an error",
    "a read beside a buffer",
    "slow by scene",
    "an eye that remembers",
    "a graph that draws",
)


@pytest.mark.parametrize("engine", ["small", "shipped"])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_that_breaks_the_promise_is_refused_by_the_proof(
    name: str, engine: str, tmp_path: Path, shipped_engine: Path
) -> None:
    _, change, says = GRAPHS[name]
    folder = shipped_engine if engine == "shipped" else tmp_path / "engine"
    if engine == "small":
        make_engine(folder)
    manifest, model = EngineManifest.load(folder), load_graph(folder / FILES["encode"])
    prove_graph("encode", model, manifest)
    change(model)
    onnx.checker.check_model(model)
    with pytest.raises(GraphError, match=says):
        prove_graph("encode", model, manifest)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_breach_stops_the_process(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, plant, error, says = PLANTED[name]
    bench = Bench(tmp_path / "engine", monkeypatch)
    bench.releases(2 * bench.manifest.event_releases)  # sound until then
    with pytest.raises(error, match=says):
        plant(bench)


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """name -> (exit status, output) of its test on the mutated source; "" -> of all of them on the unchanged one."""
    folder = tmp_path_factory.mktemp("mutants")
    work = {"": (copy_of_the_code(folder / "true"), sorted({m.caught_by for m in WRITTEN.values()}))}
    for number, (name, mutation) in enumerate(WRITTEN.items()):
        text = mutate((ROOT / mutation.file).read_text(), mutation)
        compile(text, mutation.file, "exec")
        work[name] = copy_of_the_code(folder / str(number), mutation.file, text), [mutation.caught_by]
    return run_tests(work, folder)


@pytest.mark.slow
def test_the_named_tests_pass_on_the_unchanged_source(verdicts: dict[str, tuple[int, str]]) -> None:
    assert verdicts[""][0] == 0, verdicts[""][1]


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITTEN)
def test_a_mutation_of_the_source_is_caught_by_its_test(name: str, verdicts: dict[str, tuple[int, str]]) -> None:
    (status, output), test = verdicts[name], WRITTEN[name].caught_by
    assert status == 1, f"{test} did not fail:\n{output[-2000:]}"
    assert re.search(rf"^FAILED {re.escape(test)}", output, re.MULTILINE), output[-2000:]
    place = rf"^/.*/{test.partition('::')[0]}:\d+: "  # by its assertion, not by an error before it
    assert re.search(place, output, re.MULTILINE), output[-2000:]


def test_a_mutation_that_no_longer_applies_is_an_error() -> None:
    gone = Written("half sigma", "edge_runtime/gate/sampler.py", (("no such text", ""),), "")
    with pytest.raises(LookupError, match="write the mutation anew"):
        mutate((ROOT / gone.file).read_text(), gone)


def test_every_breach_is_planted() -> None:
    planted = {breach for breach, *_ in (*GRAPHS.values(), *PLANTED.values())} | {m.breach for m in WRITTEN.values()}
    assert planted == set(BREACHES)
    measured = [name for name, (breach, *_) in PLANTED.items() if breach == "half sigma" and "measured on z" in name]
    pinned = [name for name, (breach, *_) in PLANTED.items() if breach == "half sigma" and name not in measured]
    assert measured and pinned  # a wrong sigma is caught by hashes and tables, and by measuring z
