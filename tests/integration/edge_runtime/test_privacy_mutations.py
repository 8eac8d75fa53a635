"""Every way we know to break the promise is planted here, and something that we named beforehand notices.

    PLANTED   broken while it runs, or in the graph:  what must be raised, and by what
    WRITTEN   broken in the source, in a copy of it:  the test that must fail

A mutation whose place is gone fails, too: an old list that catches nothing is worse than none.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edge_runtime.eye.engine.base import self_test
from edge_runtime.eye.engine.onnx import OnnxEngine
from edge_runtime.eye.window import Window
from edge_runtime.gate import sampler as noise_module
from edge_runtime.gate.sampler import NoiseSample, Sampler
from export.proof.lint import load_graph
from export.proof.verify_graph import prove_encode
from tests.support.engine_factory import make_engine, make_noise_table
from tests.support.services import ROOT
from wire.artifact.manifest import FILES, EngineManifest, sha256_file
from wire.errors import GraphError, ManifestError, NoiseError, PrivacyError
from wire.privacy.noise_check import NoiseCheck
from wire.privacy.noise_table import NoiseTable

BREACHES = (
    "half sigma",
    "reused noise",
    "clip skipped",
    "noise in floats",
    "guard dropped",
    "numpy's generator",
    "a retry with fresh noise",
    "a network that reads the noise",
    "an unbound noise buffer",
    "a charge after publish",
    "a varint in the message",
)


# --- in the graph: the trusted core of an engine is taken apart at its seams


def made_by(model: onnx.ModelProto, name: str) -> NodeProto:
    return next(node for node in model.graph.node if name in node.output)


def readers(model: onnx.ModelProto, name: str) -> list[NodeProto]:
    return [node for node in model.graph.node if name in node.input]


def redirect(nodes: list[NodeProto], old: str, new: str) -> None:
    for node in nodes:
        for index, name in enumerate(node.input):
            node.input[index] = new if name == old else name


def insert(model: onnx.ModelProto, before: NodeProto, kind: str, inputs: list[str], output: str, **more: Any) -> str:
    place = next(index for index, node in enumerate(model.graph.node) if node == before)
    model.graph.node.insert(place, helper.make_node(kind, inputs, [output], name=f"planted_{output}", **more))
    return output


def prune(model: onnx.ModelProto) -> None:
    """Take out what nobody reads any more, or it would be refused for that alone."""
    while dead := [n for n in model.graph.node if not any(readers(model, o) or o == "z" for o in n.output)]:
        for node in dead:
            model.graph.node.remove(node)
    for constant in [c for c in model.graph.initializer if not readers(model, c.name)]:
        model.graph.initializer.remove(constant)


def addition(model: onnx.ModelProto) -> tuple[NodeProto, str]:
    """The node that adds the noise, and the name of the code that it is added to."""
    (node,) = readers(model, "noise")
    assert node.op_type == "Add"
    return node, next(name for name in node.input if name != "noise")


def skip_clip(model: onnx.ModelProto) -> None:
    made = {output: node for node in model.graph.node for output in node.output}
    clips = [n for n in model.graph.node if n.op_type == "Clip" and made.get(n.input[0], n).op_type == "Cast"]
    assert len(clips) == 2
    for node in clips:
        redirect(readers(model, node.output[0]), node.output[0], node.input[0])


def drop_guard(model: onnx.ModelProto) -> None:
    node, mu = addition(model)
    choice = made_by(model, mu)
    assert choice.op_type == "Where"
    redirect([node], mu, choice.input[1])


def add_in_floats(model: onnx.ModelProto) -> None:
    node, mu = addition(model)
    floats = [insert(model, node, "Cast", [name], f"{name}_f", to=TensorProto.FLOAT) for name in (mu, "noise")]
    whole = node.output[0]
    node.input[:], node.output[:] = floats, ["sum_f"]
    insert(model, readers(model, whole)[0], "Cast", ["sum_f"], whole, to=TensorProto.INT32)


def let_the_network_read(model: onnx.ModelProto) -> None:
    """The code that is rounded becomes x + noise / 1000: what it then says, the noise given, is written around it."""
    rounded = next(node for node in model.graph.node if node.op_type == "Round")
    x = rounded.input[0]
    reading = readers(model, x)
    first = next(node for node in model.graph.node if node in reading)
    model.graph.initializer.append(numpy_helper.from_array(np.array(1e-3, np.float32), "thousandth"))
    insert(model, first, "Cast", ["noise"], "noise_f", to=TensorProto.FLOAT)
    insert(model, first, "Mul", ["noise_f", "thousandth"], "whisper")
    insert(model, first, "Add", [x, "whisper"], "x_told")
    redirect(reading, x, "x_told")


def halve_noise(model: onnx.ModelProto) -> None:
    node, _ = addition(model)
    model.graph.initializer.append(numpy_helper.from_array(np.array(2, np.int32), "two"))
    redirect([node], "noise", insert(model, node, "Div", ["noise", "two"], "halved"))


def unbind_noise(model: onnx.ModelProto) -> None:
    """The addition reads a buffer that nobody fills."""
    node, _ = addition(model)
    shape = next(value for value in model.graph.input if value.name == "noise").type.tensor_type.shape
    blank = np.zeros([dim.dim_value for dim in shape.dim], np.int32)
    model.graph.initializer.append(numpy_helper.from_array(blank, "never_filled"))
    redirect([node], "noise", "never_filled")


# breach -> (what is done to the graph, what the proof says, whether the self-test notices even without the proof)
GRAPHS: dict[str, tuple[str, Callable[[onnx.ModelProto], None], str, bool]] = {
    "the clip after the cast is skipped": ("clip skipped", skip_clip, "step 1", True),
    "the norm guard is dropped": ("guard dropped", drop_guard, "step 2", True),
    "code and noise are added as floats": ("noise in floats", add_in_floats, "step 3", False),
    "the code is computed from the noise": ("a network that reads the noise", let_the_network_read, "noise", True),
    "the graph halves the noise": ("half sigma", halve_noise, "step 3", True),
    "the graph reads another buffer": ("an unbound noise buffer", unbind_noise, "noise", True),
}


@pytest.mark.parametrize("engine", ["small", "shipped"])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_that_breaks_the_promise_is_refused(
    name: str, engine: str, tmp_path: Path, shipped_engine: Path
) -> None:
    _, change, says, _ = GRAPHS[name]
    folder = shipped_engine if engine == "shipped" else tmp_path / "engine"
    if engine == "small":
        make_engine(folder)
    manifest, model = EngineManifest.load(folder), load_graph(folder / FILES["encode"])
    prove_encode(model, manifest)
    change(model)
    prune(model)
    onnx.checker.check_model(model)
    with pytest.raises(GraphError, match=says):
        prove_encode(model, manifest)


@pytest.mark.parametrize("name", [name for name, (_, _, _, runs) in GRAPHS.items() if runs])
def test_an_engine_that_breaks_the_promise_stops_itself(name: str, tmp_path: Path) -> None:
    """Had the proof been left out, and the hash been pinned: driven by a network whose code is beyond all bounds."""
    _, change, _, _ = GRAPHS[name]
    folder = tmp_path / "engine"
    make_engine(folder, network="huge" if change in (skip_clip, drop_guard) else "linear")
    self_test(OnnxEngine(folder))
    model = onnx.load(folder / FILES["encode"])
    change(model)
    prune(model)
    onnx.save(model, folder / FILES["encode"])
    pin(folder, "encode")
    with pytest.raises(PrivacyError, match="self-test"):
        self_test(OnnxEngine(folder))


def pin(folder: Path, part: str) -> None:
    """Write the hash of a changed file into the manifest, as an attacker with the signing key would."""
    file = folder / "manifest.json"
    document = json.loads(file.read_text())
    document["hashes"][part] = sha256_file(folder / FILES[part])
    file.write_text(json.dumps(document))


# --- while it runs: engine and sampler are broken in place, and z is what tells


Release = npt.NDArray[np.int16]


@dataclasses.dataclass
class Bench:
    """An engine, its sampler and the check, as the loop has them."""

    folder: Path
    patch: pytest.MonkeyPatch
    manifest: EngineManifest = dataclasses.field(init=False)
    engine: OnnxEngine = dataclasses.field(init=False)
    sampler: Sampler = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.manifest = make_engine(self.folder)
        self.engine = OnnxEngine(self.folder)
        self.sampler = Sampler(make_noise_table(self.manifest.sigma), self.manifest.tokens, self.manifest.width)

    def releases(self, count: int) -> None:
        """What the loop does with `count` windows of a scene that changes."""
        check = NoiseCheck(self.sampler.sigma, self.manifest.n, self.manifest.event_releases)
        for slot in range(count):
            frames = np.full((1, *self.engine_shape), slot * 20 % 256, np.uint8)
            check.check(self.engine.encode(Window(slot, frames), self.sampler.draw()))

    @property
    def engine_shape(self) -> tuple[int, int, int]:
        return self.manifest.window.frames, self.manifest.window.height, self.manifest.window.width


def swap_table(bench: Bench) -> None:
    make_noise_table(bench.manifest.sigma / 2).save(bench.folder / FILES["noise_table"])
    OnnxEngine(bench.folder)


def swap_table_and_pin(bench: Bench) -> None:
    make_noise_table(bench.manifest.sigma / 2).save(bench.folder / FILES["noise_table"])
    pin(bench.folder, "noise_table")
    OnnxEngine(bench.folder)


def relabel_table(bench: Bench) -> None:
    """The words of half sigma under the name of the promised one."""
    half = make_noise_table(bench.manifest.sigma / 2)
    Sampler(NoiseTable(bench.manifest.sigma, half.high, half.low), 4, 16)


def promise_with_half_the_noise(bench: Bench) -> None:
    """Manifest and table agree on half of sigma; the certificate still says what it said."""
    document = json.loads((bench.folder / "manifest.json").read_text())
    half = bench.manifest.sigma / 2
    document["sigma"] = f"{half.numerator}/{half.denominator}"
    (bench.folder / "manifest.json").write_text(json.dumps(document))
    swap_table_and_pin(bench)


def halve_draws(bench: Bench) -> None:
    invert = bench.sampler._invert
    bench.patch.setattr(bench.sampler, "_invert", lambda: (invert() / 2).astype(np.int32))
    bench.releases(bench.manifest.event_releases)


def draw_from_half(bench: Bench) -> None:
    """Another sampler where the right one should be."""
    right = bench.sampler.sigma
    bench.sampler = Sampler(make_noise_table(right / 2), 4, 16)
    bench.sampler.sigma = right
    bench.releases(bench.manifest.event_releases)


def use_a_draw_twice(bench: Bench) -> None:
    draw = bench.sampler.draw()
    for slot in range(2):
        bench.engine.encode(Window(slot, np.zeros((1, *bench.engine_shape), np.uint8)), draw)


def repeat_draws(bench: Bench) -> None:
    kept = bench.sampler.draw()._array.copy()
    bench.patch.setattr(bench.sampler, "draw", lambda: NoiseSample(kept.copy()))
    bench.releases(2)


def repeat_bits(bench: Bench) -> None:
    """A kernel, or a buffer, that gives the same bits at every call."""
    bits = os.urandom(8 * 64)

    def stuck(buffer: Any, size: int, flags: int) -> int:
        buffer[:] = bits
        return size

    bench.patch.setattr(noise_module, "_getrandom", stuck)
    bench.releases(2)


def no_bits(bench: Bench) -> None:
    """A call that says it filled the buffer and did not."""
    bench.patch.setattr(noise_module, "_getrandom", lambda buffer, size, flags: size)
    bench.releases(1)


def core_without_noise(bench: Bench) -> None:
    """The noise's buffer is bound to nothing: zeros."""
    run = bench.engine.run_core
    bench.patch.setattr(bench.engine, "run_core", lambda frames, noise: run(frames, np.zeros_like(noise)))


def core_with_stale_noise(bench: Bench) -> None:
    """The noise's buffer is bound once and never filled again."""
    run, stale = bench.engine.run_core, bench.sampler.draw().take().copy()
    bench.patch.setattr(bench.engine, "run_core", lambda frames, noise: run(frames, stale))


def then(plant: Callable[[Bench], None], after: Callable[[Bench], None]) -> Callable[[Bench], None]:
    def run(bench: Bench) -> None:
        plant(bench)
        after(bench)

    return run


def run_self_test(bench: Bench) -> None:
    self_test(bench.engine)


def release_two(bench: Bench) -> None:
    bench.releases(2)


PLANTED: dict[str, tuple[str, Callable[[Bench], None], type[Exception], str]] = {
    "a table of half sigma: its hash": ("half sigma", swap_table, ManifestError, r"noise_table\.bin"),
    "the same with its hash pinned": ("half sigma", swap_table_and_pin, ManifestError, "sigma"),
    "its words under the right name": ("half sigma", relabel_table, NoiseError, "not the distribution"),
    "half sigma in the manifest: the certificate": (
        "half sigma",
        promise_with_half_the_noise,
        ManifestError,
        "certificate",
    ),
    "a sampler that halves: measured on z": ("half sigma", halve_draws, NoiseError, "below"),
    "a sampler of half sigma: measured on z": ("half sigma", draw_from_half, NoiseError, "below"),
    "a draw used twice": ("reused noise", use_a_draw_twice, NoiseError, "twice"),
    "a sampler that repeats itself: measured on z": ("reused noise", repeat_draws, NoiseError, "stuck"),
    "bits that repeat: measured on z": ("reused noise", repeat_bits, NoiseError, "stuck"),
    "bits that never came: measured on z": ("reused noise", no_bits, NoiseError, "did not reach"),
    "a buffer of zeros: the self-test": (
        "an unbound noise buffer",
        then(core_without_noise, run_self_test),
        PrivacyError,
        "does not reach",
    ),
    "a buffer of zeros: measured on z": (
        "an unbound noise buffer",
        then(core_without_noise, release_two),
        NoiseError,
        "did not reach",
    ),
    "a buffer filled once: the self-test": (
        "an unbound noise buffer",
        then(core_with_stale_noise, run_self_test),
        PrivacyError,
        "self-test",
    ),
    "a buffer filled once: measured on z": (
        "an unbound noise buffer",
        then(core_with_stale_noise, release_two),
        NoiseError,
        "stuck",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_breach_stops_the_process(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, plant, error, says = PLANTED[name]
    bench = Bench(tmp_path / "engine", monkeypatch)
    bench.releases(2 * bench.manifest.event_releases)  # sound until then
    with pytest.raises(error, match=says):
        plant(bench)


# --- in the source: a copy of the code is changed, and the test that we name must fail on it


@dataclasses.dataclass(frozen=True)
class Written:
    """A change of the source: in `file`, each pattern's only match becomes its replacement. caught_by: a test."""

    breach: str
    file: str
    changes: tuple[tuple[str, str], ...]
    caught_by: str


NOISE, LOOP = "edge_runtime/gate/sampler.py", "edge_runtime/gate/loop.py"
T_NOISE, T_LOOP = "tests/unit/edge_runtime/test_edge_sampler.py", "tests/unit/edge_runtime/test_edge_loop.py"
SEND = r'( +)self\.publisher\.send\("features", payload\)\n'

WRITTEN: dict[str, Written] = {
    "the sampler halves what it draws": Written(
        "half sigma",
        NOISE,
        ((r"whole\.astype", "(whole / 2).astype"),),
        f"{T_NOISE}::test_the_variance_is_that_of_sigma_so_half_of_it_is_caught",
    ),
    "every other sign is lost": Written(
        "half sigma",
        NOISE,
        ((r"np\.copysign\(made, signed, made\)", "pass"),),
        f"{T_NOISE}::test_a_draw_is_the_table_inverse_to_the_last_bit[4-16-sigma2]",
    ),
    "bits are read once": Written(
        "reused noise",
        NOISE,
        ((r"with self:\n( +)while ", r"if True:\n\1while not self._words.any() and "),),
        f"{T_NOISE}::test_two_draws_differ",
    ),
    "a draw may be taken again": Written(
        "reused noise",
        NOISE,
        ((r"        self\._owner = 0\n        return (self\._array)", r"        return \1"),),
        f"{T_NOISE}::test_a_draw_is_used_once",
    ),
    "the search is done in single precision": Written(
        "noise in floats",
        NOISE,
        ((r"(self\._steps = np\.zeros\(\(.*?\))\)", r"\1, np.float32)"),),
        f"{T_NOISE}::test_no_tie_is_missed_where_the_entries_lie_one_apart[sigma2]",
    ),
    "the noise is scaled as a float, then rounded": Written(
        "noise in floats",
        NOISE,
        ((r"return whole(\.astype\(np\.int32\))", r"return np.rint(1.01 * whole)\1"),),
        f"{T_NOISE}::test_the_magnitude_turns_where_the_discrete_gaussian_says",
    ),
    "numpy's generator fills the bits": Written(
        "numpy's generator",
        NOISE,
        (
            (
                r"            return NoiseSample\(self\._invert\(\)\)",
                "            self._words[:] = np.random.default_rng().integers(0, 2**64, len(self._words), np.uint64)\n"
                "            return NoiseSample(self._invert())",
            ),
        ),
        f"{T_NOISE}::test_bits_come_from_the_kernel_and_noise_from_the_sampler",
    ),
    "a failed window is run again with a fresh draw": Written(
        "a retry with fresh noise",
        LOOP,
        (
            (
                r"( +)(z = encoder\.encode\(.*\))( if charge\.granted else None)\n",
                r"\1\2\3\n\1if z is None and charge.granted:\n\1    \2\n",
            ),
        ),
        f"{T_LOOP}::test_an_engine_failure_is_filled_with_noise_alone_and_charged",
    ),
    "a release is sent again under other noise": Written(
        "a retry with fresh noise",
        LOOP,
        (
            (
                r"( +)(payload) = (fill_message\(.*?)z(, .*)\n",
                r"\1\2 = \3z\4\n\1again = \3noise.draw().alone()\4\n",
            ),
            (SEND, r'\1self.publisher.send("features", payload)\n\1self.publisher.send("features", again)\n'),
        ),
        f"{T_LOOP}::test_every_slot_is_released_with_its_number_and_read_as_events",
    ),
    "the engine is given no noise": Written(
        "an unbound noise buffer",
        "edge_runtime/eye/engine/onnx.py",
        ((r"frames=frames, noise=noise\)", "frames=frames, noise=np.zeros_like(noise))"),),
        "tests/unit/edge_runtime/test_edge_engine.py::test_a_release_is_the_code_plus_the_drawn_noise",
    ),
    "the device is given no noise": Written(
        "an unbound noise buffer",
        "edge_runtime/eye/engine/tensorrt.py",
        ((r'"noise": noise\}', '"noise": np.zeros_like(noise)}'),),
        "tests/unit/edge_runtime/test_edge_tensorrt.py::test_it_computes_what_the_other_form_computes",
    ),
    "a slot is charged when it is out": Written(
        "a charge after publish",
        LOOP,
        (
            (
                r"( +)charge = (self\.ledger\.charge\(.*?\))(  #.*)?\n",
                r"\1from edge_runtime.gate.ledger import Charge\n\1charge, late = Charge(slot, True), lambda: \2\n",
            ),
            (SEND, r'\1self.publisher.send("features", payload)\n\1late()\n'),
        ),
        f"{T_LOOP}::test_every_release_is_charged_before_it_is_published",
    ),
    "the slot's number is a varint": Written(
        "a varint in the message",
        "wire/protocol/veilsight_pb2.py",
        ((r"(61tures.*?slot\\x18\\x03 \\x01\()\\x06", r"\1\\x04"),),
        "tests/unit/wire/test_wire_message.py::test_a_release_has_the_same_size_whatever_it_says",
    ),
}


def mutate(text: str, mutation: Written) -> str:
    """The source with the mutation; a place that is gone, or not the only one, is an error."""
    for pattern, new in mutation.changes:
        text, count = re.subn(pattern, new, text)
        if count != 1:
            raise LookupError(f"{mutation.file}: {count} places match {pattern!r}, not one: write the mutation anew")
    return text


def copy_of_the_code(folder: Path, file: str = "", text: str = "") -> Path:
    """The project in `folder`: what may change, and what looks for it beside itself, is copied; the rest is linked."""
    folder.mkdir()
    for path in ROOT.iterdir():
        if path.name in ("edge_runtime", "wire", "tests", "pyproject.toml"):
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, folder / path.name)
        elif not path.name.startswith((".", "build")):
            (folder / path.name).symlink_to(path)
    if file:
        (folder / file).write_text(text)
    return folder


# One process imports what is not ours and forks for every copy: it reads (folder, tests), and says how pytest ended.
SERVER = """
import json, os, sys
import cryptography.hazmat.primitives.asymmetric.ed25519, cv2, google.protobuf.message, mpmath, numpy, onnx
import hypothesis, onnxruntime, paho.mqtt.client, pytest, pytest_timeout

def run(folder, tests):
    os.chdir(folder)
    sys.path.insert(0, folder)
    out = os.open("out.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(out, 1), os.dup2(out, 2)
    quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis is imported already
    return int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "--tb=line", *quiet, *tests]))

running, ended = {}, {}
for name, (folder, tests) in json.load(sys.stdin).items():
    if len(running) == 2:
        pid, status = os.wait()
        ended[running.pop(pid)] = os.waitstatus_to_exitcode(status)
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = run(folder, tests)
        finally:
            os._exit(status)
    running[pid] = name
for pid, name in running.items():
    ended[name] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(json.dumps(ended))
"""


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """name -> (exit status, output) of its test on the mutated source; "" -> of all of them on the true one."""
    folder = tmp_path_factory.mktemp("mutants")
    work = {"": (copy_of_the_code(folder / "true"), sorted({m.caught_by for m in WRITTEN.values()}))}
    for number, (name, mutation) in enumerate(WRITTEN.items()):
        text = mutate((ROOT / mutation.file).read_text(), mutation)
        compile(text, mutation.file, "exec")
        work[name] = copy_of_the_code(folder / str(number), mutation.file, text), [mutation.caught_by]
    ended = subprocess.run(
        [sys.executable, "-c", SERVER],
        input=json.dumps({name: (str(copy), tests) for name, (copy, tests) in work.items()}),
        env={**os.environ, "OMP_NUM_THREADS": "1", "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis")},
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    found = json.loads(ended.stdout)
    return {name: (status, (work[name][0] / "out.txt").read_text()) for name, status in found.items()}


@pytest.mark.slow
def test_the_named_tests_pass_on_the_true_source(verdicts: dict[str, tuple[int, str]]) -> None:
    assert verdicts[""][0] == 0, verdicts[""][1]


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITTEN)
def test_a_mutation_of_the_source_is_caught_by_its_test(name: str, verdicts: dict[str, tuple[int, str]]) -> None:
    (status, output), test = verdicts[name], WRITTEN[name].caught_by
    assert status == 1, f"{test} did not fail:\n{output[-2000:]}"
    assert re.search(rf"^FAILED {re.escape(test)}", output, re.MULTILINE), output[-2000:]
    place = rf"^/.*/{test.partition('::')[0]}:\d+: "  # by what it asserts, not by an error on the way
    assert re.search(place, output, re.MULTILINE), output[-2000:]


def test_a_mutation_that_no_longer_applies_is_an_error() -> None:
    gone = Written("half sigma", NOISE, (("no such text", ""),), "")
    with pytest.raises(LookupError, match="write the mutation anew"):
        mutate((ROOT / NOISE).read_text(), gone)


def test_every_breach_is_planted() -> None:
    planted = {breach for breach, *_ in (*GRAPHS.values(), *PLANTED.values())} | {m.breach for m in WRITTEN.values()}
    assert planted == set(BREACHES)
    measured = [name for name, (breach, *_) in PLANTED.items() if breach == "half sigma" and "measured on z" in name]
    pinned = [name for name, (breach, *_) in PLANTED.items() if breach == "half sigma" and name not in measured]
    assert measured and pinned  # a wrong sigma is caught by what is written down, and by what comes out
