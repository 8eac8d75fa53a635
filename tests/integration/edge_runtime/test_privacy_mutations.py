"""Every known breach of the promise is planted here, and the check that is named for it notices it.

    GRAPHS    broken in the graph:     what the proof says
    PLANTED   broken while it runs:    what must be raised, and by what
    PLAYED    broken in the real gate, with a hostile eye:  the judgement that must find it
    WRITTEN   broken in the source, in a copy of it:  the test that must fail

A mutation whose place in the source is gone fails, too, so that the list cannot become outdated unnoticed.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from export.proof.structure import load_graph
from export.proof.verify_graph import prove_graph
from familial.evaluate.intervals import binomial_interval
from tests.support.breaches_at_run_time import PLANTED, PLAYED, Bench
from tests.support.breaches_in_graph import GRAPHS
from tests.support.breaches_in_source import WRITTEN, Runner, Written, copy_of_the_code, mutate
from tests.support.engine_factory import make_engine
from tests.support.hostile_runs import LIVE, SCENE, Arena, Play, Run, faults, guessed, may_be_right, told_by_time
from tests.support.mutant_gate import FAULTS, mutant_gate
from tests.support.services import ROOT
from tests.support.timekeeping import Wakeups
from wire.artifact.manifest import FILES, EngineManifest
from wire.errors import GraphError
from wire.privacy.certificate import guess_bound

STATISTICS = ("z", "time", "ends")
STATISTIC = 120  # releases
UNTIL_IT_ENDS = 3000  # releases of a gate that is to end with its eye, however long that takes to start
STEADY_S = 0.01
"""How late a thread of this process may wake, one time in twenty, where times are judged."""

BREACHES = (
    "half sigma",
    "reused noise",
    "clip skipped",
    "what is used is kept",
    "a code of another slot",
    "a code that was not granted",
    "words kept",
    "a bit in another field",
    "a bit in the state",
    "a slot without a release",
    "a release of another size",
    "an end by the eye",
    "a time of the eye's",
    "a time by what waits",
    "pixels on disk",
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
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Arena, dict[str, Run], float]]:
    """fault -> what came of it; "" -> an honest run; "sound ..." -> the eyes of a statistic on the gate as it is."""
    eyes = {"": "honest", **{fault: eye for fault, (_, eye, _) in PLAYED.items()}}
    eyes |= {f"sound {eye}": eye for _, eye, judge in PLAYED.values() if judge in STATISTICS}
    plays = {}
    for number, (fault, eye) in enumerate(eyes.items()):
        name, own = f"tests.support.hostile_eye:{eye}", fault if fault in PLAYED else "none"
        judge = PLAYED.get(fault, ("", "", ""))[2]
        statistic = fault.startswith("sound") or judge in STATISTICS
        source = LIVE if eye == "says-last" else SCENE
        windows = UNTIL_IT_ENDS if judge == "ends" else STATISTIC if statistic else 12
        plays[f"c{number}"] = Play(gate=mutant_gate(own, name), source=source, windows=windows, tap=statistic)
    with Arena(tmp_path_factory.mktemp("played")) as arena:
        with Wakeups() as wakeups:
            runs = arena.play(plays)
        yield arena, dict(zip(eyes, runs.values(), strict=True)), wakeups.late_s


def told_by_z(arena: Arena, run: Run, eye: str) -> bool:
    """Whether z tells more than it may: the bound of two scenes, or nothing where no code of the eye's is a slot's."""
    bound = guess_bound(float(arena.rig.manifest.clip_norm / arena.rig.manifest.sigma), 0.5)
    allowed = 0.5 if eye == "shouts-ahead" else may_be_right(run, bound)
    return binomial_interval(*guessed(run), 0.999)[0] > allowed


@pytest.mark.parametrize("fault", PLAYED)
def test_a_fault_of_the_gate_is_found_in_what_leaves(played: tuple[Arena, dict[str, Run], float], fault: str) -> None:
    arena, runs, late_s = played
    (_, eye, judge), run, honest = PLAYED[fault], runs[fault], runs[""]
    if judge == "stops":
        assert run.status == 3 and "ERROR" in run.log and len(run.slots) < arena.rig.manifest.event_releases
        return
    if judge == "looks":
        assert faults(run, honest) != []
        return
    sound = runs[f"sound {eye}"]
    if judge == "ends":
        assert len(run.slots) < UNTIL_IT_ENDS and len(sound.slots) == STATISTIC
        return
    assert faults(run, honest) == faults(sound, honest) == [f"releases: {STATISTIC} and not 12"]
    if judge == "z":
        assert told_by_z(arena, run, eye) and not told_by_z(arena, sound, eye)
        return
    if late_s > STEADY_S:
        pytest.skip(f"this machine is too busy to keep time: {late_s * 1e3:.0f} ms late one time in twenty")
    assert told_by_time(run)[1][0] > 0.7 > told_by_time(sound)[1][0]


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with Runner(tmp_path_factory.mktemp("mutants")) as runner:
        yield runner


@pytest.mark.slow
def test_the_named_tests_pass_on_the_unchanged_source(runner: Runner, tmp_path: Path) -> None:
    status, output = runner.run(copy_of_the_code(tmp_path / "copy"), sorted({m.caught_by for m in WRITTEN.values()}))
    assert status == 0, output


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITTEN)
def test_a_mutation_of_the_source_is_caught_by_its_test(name: str, runner: Runner, tmp_path: Path) -> None:
    mutation = WRITTEN[name]
    text = mutate((ROOT / mutation.file).read_text(), mutation)
    compile(text, mutation.file, "exec")
    status, output = runner.run(copy_of_the_code(tmp_path / "copy", mutation.file, text), [mutation.caught_by])
    assert status == 1 and "Timeout" not in output, f"{mutation.caught_by} did not fail:\n{output[-2000:]}"
    assert re.search(rf"^FAILED {re.escape(mutation.caught_by)}", output, re.MULTILINE), output[-2000:]
    place = rf"^/.*/{mutation.caught_by.partition('::')[0]}:\d+: "  # by its assertion, not by an error before it
    assert re.search(place, output, re.MULTILINE), output[-2000:]


@pytest.mark.slow
def test_a_copy_that_hangs_is_left_to_its_own_test(runner: Runner, tmp_path: Path) -> None:
    """The next copy is run by a fresh process."""
    hangs = tmp_path / "hangs"
    hangs.mkdir()
    (hangs / "test_hangs.py").write_text("import time\n\n\ndef test_it() -> None:\n    time.sleep(10_000)\n")
    before = signal.signal(signal.SIGUSR1, _interrupt)
    try:
        threading.Timer(1.0, signal.pthread_kill, [threading.get_ident(), signal.SIGUSR1]).start()
        with pytest.raises(InterruptedError):
            runner.run(hangs, ["test_hangs.py"])
    finally:
        signal.signal(signal.SIGUSR1, before)
    (hangs / "test_hangs.py").write_text("def test_it() -> None:\n    pass\n")
    assert runner.run(hangs, ["test_hangs.py"])[0] == 0


def _interrupt(*_: object) -> None:
    raise InterruptedError("as the time limit of a test does")


def test_a_mutation_that_no_longer_applies_is_an_error() -> None:
    gone = Written("half sigma", "edge_runtime/gate/sampler.py", (("no such text", ""),), "")
    with pytest.raises(LookupError, match="write the mutation anew"):
        mutate((ROOT / gone.file).read_text(), gone)


def test_every_breach_is_planted() -> None:
    planted = {breach for breach, *_ in (*GRAPHS.values(), *PLANTED.values(), *PLAYED.values())} | {
        m.breach for m in WRITTEN.values()
    }
    assert planted == set(BREACHES)
    assert PLAYED.keys() == FAULTS.keys() - {"none"}
    measured = [name for name, (breach, *_) in PLANTED.items() if breach == "half sigma" and "measured on z" in name]
    pinned = [name for name, (breach, *_) in PLANTED.items() if breach == "half sigma" and name not in measured]
    assert measured and pinned  # a wrong sigma is caught by hashes and tables, and by measuring z
