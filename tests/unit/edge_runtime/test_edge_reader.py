"""The reader: its verdict is a function of z for any graph, and a hostile graph ends as an error, soon."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper

from edge_runtime.child_settings import ChildSettings
from edge_runtime.config import load_config
from edge_runtime.gate.children import spawned
from edge_runtime.reader.graph import MOST_NODES, parse
from edge_runtime.reader.member import EdgeMember, Program
from edge_runtime.reader.onnx_file import MOST_FIELDS, read_message
from edge_runtime.record import event_bytes
from export.precision.network import open_session
from tests.support.engine_factory import make_edge_config, make_engine, put_weights_outside
from tests.support.reader_graphs import decide_graph, pinned
from tests.support.services import PATIENCE_S, ROOT
from tests.support.source_tree import imports
from wire.artifact.manifest import EngineManifest
from wire.errors import EngineError, ManifestError, VeilsightError
from wire.protocol.event import EventWindow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_engine(tmp_path / "engine")
    return tmp_path / "engine"


def events(manifest: EngineManifest, count: int = 8) -> list[dict[str, npt.NDArray[Any]]]:
    rng = np.random.default_rng(5)
    shape = (1, manifest.event_releases, manifest.tokens, manifest.width)
    return [
        {"z": rng.integers(-300, 300, shape).astype(np.int32), "present": rng.random(shape[:2]) < 0.8}
        for _ in range(count)
    ]


def opened(folder: Path) -> EdgeMember:
    return EdgeMember(folder, EngineManifest.load(folder))


def an_event(slots: int = 1) -> EventWindow:
    event = EventWindow(8, 4, 16)
    for slot in range(slots):
        event.push(slot, (np.arange(64) * (slot + 7) % 601 - 300).astype(np.int16))
    return event


def test_logits_are_those_of_onnx_runtime(folder: Path) -> None:
    member, run = opened(folder), open_session(onnx.load(folder / "decide.onnx"))
    for event in events(EngineManifest.load(folder)):
        found, expected = member.logits(**event), run(event)[0]
        assert found.dtype == np.float32 and found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max())


def test_verdicts_are_a_distribution_over_the_labels(folder: Path) -> None:
    probabilities = opened(folder).decide(an_event())
    assert tuple(probabilities) == EngineManifest.load(folder).labels
    assert sum(probabilities.values()) == pytest.approx(1.0)


def test_logits_that_are_not_finite_are_no_verdict(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    member = opened(folder)
    for bad in (np.nan, np.inf):
        monkeypatch.setattr(member, "logits", lambda *_, bad=bad: np.array([[0, bad, 0]], np.float32))
        with pytest.raises(EngineError, match="not finite"):
            member.decide(an_event())
    monkeypatch.setattr(member, "logits", lambda *_: np.array([[1e30, 0, 0]], np.float32))
    assert list(member.decide(an_event()).values()) == [1.0, 0.0, 0.0]


def test_the_same_event_gives_the_same_bytes_whatever_was_read_before(folder: Path) -> None:
    member = opened(folder)
    first = [member.logits(**event).tobytes() for event in events(EngineManifest.load(folder))]
    again = [member.logits(**event).tobytes() for event in reversed(events(EngineManifest.load(folder)))]
    assert first == again[::-1] and len(set(first)) == len(first)
    assert opened(folder).logits(**events(EngineManifest.load(folder))[0]).tobytes() == first[0]


def test_an_event_of_another_shape_or_type_is_refused(folder: Path) -> None:
    member, (event,) = opened(folder), events(EngineManifest.load(folder), 1)
    with pytest.raises(EngineError, match="z is int64"):
        member.logits(event["z"].astype(np.int64), event["present"])
    with pytest.raises(EngineError, match=r"present is bool \(1, 7\)"):
        member.logits(event["z"], event["present"][:, :7])


def test_weights_beside_the_graph_are_those_that_were_hashed(folder: Path) -> None:
    (event,) = events(EngineManifest.load(folder), 1)
    inside = opened(folder).logits(**event).tobytes()
    put_weights_outside(folder)
    assert opened(folder).logits(**event).tobytes() == inside
    file = folder / "decide.weights"
    whole = file.read_bytes()
    file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(ManifestError, match=r"decide\.weights: its sha256"):
        opened(folder)
    file.unlink()
    with pytest.raises(ManifestError, match=r"decide\.weights: No such file"):
        opened(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("location", "../engine/encode.onnx", "which the manifest does not name"),
        ("location", "manifest.json", "which the manifest does not name"),
        ("offset", "4096", "too short"),
        ("offset", "-4", "which the manifest does not name"),
        ("length", "99999999999999999999", "which the manifest does not name"),
        ("length", "4", "has 4 bytes, its shape"),
    ],
)
def test_weights_lie_in_pinned_files_alone(folder: Path, key: str, value: str, message: str) -> None:
    put_weights_outside(folder)
    model = onnx.load(folder / "decide.onnx", load_external_data=False)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "weights")
    place = {entry.key: entry.value for entry in tensor.external_data} | {key: value}
    del tensor.external_data[:]
    for name, text in place.items():
        tensor.external_data.add(key=name, value=text)
    manifest = pinned(folder, model.SerializeToString())
    with pytest.raises(EngineError, match=message):
        EdgeMember(folder, manifest)


def test_a_file_with_another_hash_than_the_manifests_is_refused(folder: Path) -> None:
    file = folder / "decide.onnx"
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ManifestError, match=r"decide\.onnx: sha256"):
        opened(folder)


def nodes(*rows: tuple[str, list[str], str, dict[str, Any]]) -> list[onnx.NodeProto]:
    return [helper.make_node(kind, inputs, [output], **attributes) for kind, inputs, output, attributes in rows]


FLOAT = {"to": 1}
LARGE = np.array([2**14, 2**14], np.int64)
HOSTILE: dict[str, tuple[list[onnx.NodeProto], dict[str, Any], str]] = {
    "an operator that is not there": (nodes(("Loop", ["z"], "logits", {})), {}, "operator 'Loop', which the reader"),
    "a random draw": (nodes(("RandomNormalLike", ["z"], "logits", {})), {}, "'RandomNormalLike'.*or write that layer"),
    "a circle": (
        nodes(("Cast", ["z"], "a", FLOAT), ("Add", ["a", "c"], "b", {}), ("Neg", ["b"], "c", {})),
        {},
        "reads 'c', which nothing before it makes",
    ),
    "a name that is made twice": (
        nodes(("Cast", ["z"], "a", FLOAT), ("Cast", ["z"], "a", FLOAT)),
        {},
        "'a' is made twice",
    ),
    "a product too large": (
        nodes(("Expand", ["one", "large"], "a", {}), ("MatMul", ["a", "a"], "logits", {})),
        {"one": np.ones((1, 1), np.float32), "large": LARGE},
        "takes more than",
    ),
    "a tensor too large": (
        nodes(("Cast", ["z"], "a", FLOAT), ("Expand", ["a", "large"], "logits", {})),
        {"large": np.array([2**21, 1, 1, 1], np.int64)},
        "takes more than",
    ),
    "more elements than a number holds": (
        nodes(("Cast", ["z"], "a", FLOAT), ("Expand", ["a", "large"], "logits", {})),
        {"large": np.array([2**62, 8, 4, 16], np.int64)},
        "cannot be run",
    ),
    "many large sums": (
        nodes(
            ("Expand", ["one", "large"], "a0", {}),
            *(("Add", [f"a{k}", "a0"], f"a{k + 1}", {}) for k in range(999)),
        ),
        {"one": np.ones((1, 1), np.float32), "large": np.array([2**14, 2**14], np.int64)},
        "takes more than",
    ),
    "too many nodes": (
        nodes(*(("Cast", ["z"], f"a{k}", FLOAT) for k in range(MOST_NODES + 1))),
        {},
        f"at most {MOST_NODES}",
    ),
    "no logits": (nodes(("Cast", ["present"], "logits", FLOAT)), {}, "not one logit a label"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_graph_is_refused_before_it_runs(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, constants, message = HOSTILE[name]
    manifest = EngineManifest.load(folder)
    rows = rows if "logits" in rows[-1].output else [*rows, *nodes(("Neg", [rows[-1].output[0]], "logits", {}))]
    manifest = pinned(folder, decide_graph(manifest, rows, constants).SerializeToString())
    ran: list[str] = []
    made = Program._made

    def record(self: Program, step: Any, values: Any) -> Any:
        ran.append(step.node.kind)
        return made(self, step, values)

    monkeypatch.setattr(Program, "_made", record)
    with pytest.raises(EngineError, match=message):
        EdgeMember(folder, manifest)
    assert not ran or name == "no logits"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_no_verdict(folder: Path, value: float) -> None:
    model = onnx.load(folder / "decide.onnx")
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "weights")
    tensor.raw_data = np.full(tuple(tensor.dims), value, np.float32).tobytes()
    member = EdgeMember(folder, pinned(folder, model.SerializeToString()))
    with pytest.raises(EngineError, match="not finite"):
        member.decide(an_event())


def test_a_run_that_finds_no_memory_is_an_error_without_its_text(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    member = opened(folder)

    def fail(*_: object) -> None:
        raise MemoryError("pixel 217")

    monkeypatch.setattr(Program, "_made", fail)
    with pytest.raises(EngineError, match=r"the run failed \(MemoryError\)$") as refusal:
        member.decide(an_event())
    assert refusal.value.__cause__ is None and refusal.value.__context__ is None


def test_a_damaged_file_is_refused_or_read_and_nothing_else(folder: Path) -> None:
    """Bytes changed, cut and repeated at random: an error of ours, or a program that gives logits or such an error."""
    whole = (folder / "decide.onnx").read_bytes()
    rng = np.random.default_rng(11)
    refused = 0
    head = len(whole) - 200  # names, shapes and types lie at both ends, weights between
    for number in range(400):
        data = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            place = int(rng.integers(600) if rng.random() < 0.6 else rng.integers(head, len(whole)))
            data[place] = int(rng.integers(256))
        if number % 4 == 0:
            del data[int(rng.integers(len(whole))) :]
        try:
            made = Program(parse(bytes(data)))
            made.run(events(EngineManifest.load(folder), 1)[0])
        except VeilsightError:
            refused += 1
    assert refused > 200


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no graph", "which graphs of this project do not use"),
        (b"\x08", "cut off"),
        (b"\x3a\x7f\x00", "cut off"),
        (b"\x08" + b"\xff" * 10, "more than 10 bytes"),
        (b"\x08" + b"\xff" * 9 + b"\x7f", "more than 64 bits"),
        (b"\x08\x08\x08\x08", "gives ir_version twice"),
        (b"\x0a\x01\x00", "has wire type 2"),
        (b"\x42\x03\x0a\x01\xff", "no UTF-8"),
        (b"", "its operators are"),
        (b"\x42\x02\x10\x12", "its outputs are"),
        (b"\x42\x02\x10\x11", "must be the standard ones at 18"),
        (b"\x42\x00" * (MOST_FIELDS + 1), "fields"),
    ],
)
def test_bytes_that_are_no_graph_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        parse(data)


def test_numbers_below_zero_are_read() -> None:
    attribute = helper.make_attribute("axis", -2).SerializeToString()
    assert read_message("attribute", memoryview(attribute))["i"] == -2


READER = """
import sys
from edge_runtime.reader.process import main
status = main(sys.argv[1:])
native = {"onnxruntime", "tensorrt", "onnx", "torch", "cv2"} & set(sys.modules)
sys.exit(status or len(native))
"""


def test_the_readers_process_holds_no_native_runtime(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real process, confined, from its settings to a verdict; then what it has loaded."""
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def begin(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen([sys.executable, "-c", READER, *command[3:]], cwd=ROOT, **options))
        return started[0]

    monkeypatch.setattr("edge_runtime.gate.children.subprocess.Popen", begin)
    running = spawned("reader")()
    edge = make_edge_config(folder.parent, engine=folder)
    running.link.send(ChildSettings.of(load_config(edge), set(), camera=False).to_bytes())
    event, verdict = an_event(8), np.zeros(64, np.uint8)
    running.link.send(event_bytes(event))
    assert running.link.receive(verdict, PATIENCE_S) == 8 + 4 * 3
    assert verdict[:8].view("<u8")[0] == event.last_slot
    expected = np.array(list(opened(folder).decide(event).values()), "<f4")
    assert np.array_equal(verdict[8:20].view("<f4"), expected)
    running.link.close()
    assert started[0].wait(PATIENCE_S) == 0, "a native runtime is loaded, or the reader failed"


ALLOWED = [
    "__future__",
    "collections",
    "dataclasses",
    "hashlib",
    "math",
    "numpy",
    "pathlib",
    "struct",
    "types",
    "typing",
]
OURS = ("edge_runtime.reader.", "wire.artifact.manifest.", "wire.errors.", "wire.protocol.event.")


@pytest.mark.parametrize("name", ["onnx_file", "graph", "operators", "member"])
def test_what_computes_a_verdict_has_no_clock_no_chance_and_no_thread(name: str) -> None:
    file = ROOT / "edge_runtime" / "reader" / f"{name}.py"
    found = {module for _, module in imports(file, file.read_text())}
    others = {module for module in found if module.partition(".")[0] not in ALLOWED and not module.startswith(OURS)}
    assert found and not others
    assert not re.findall(r"np\.random|np\.ctypeslib|\bopen\(|globals\(", file.read_text())
