"""Small engine folders for tests: a fixed linear network before the integer core, and a configuration to run them.

    engine = make_engine(tmp_path / "engine", slot_s=0.1)
    config = make_edge_config(tmp_path, engine=tmp_path / "engine", source="synthetic://walk", port=1883)

The network is not trained; everything around it is as in an engine that `export.build_engine` writes. `core` and
`network` break it in one named way each, for tests of what must notice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support.perceive_graph import perceive_graph
from wire.artifact.interface import GRAPHS
from wire.artifact.manifest import FILES, EngineManifest, WindowSpec, sha256_file
from wire.people.packed import UNIT, VALUES
from wire.people.tracks import TRACKS
from wire.privacy.certificate import sigma_for
from wire.privacy.level_rule import LevelRule
from wire.privacy.noise_table import NoiseTable

__all__ = ["BROKEN_CORES", "TRAP", "make_edge_config", "make_engine", "make_noise_table", "put_weights_outside"]

OPSET = 18
HASHED = ("encode", "decide", "noise_table", "certificate", "calibration")
BROKEN_CORES = ("no clip", "no core")
"""Cores of `make_engine(core=...)` whose codes leave the ball, which the self-test finds; "" is the integer core."""
TRAP = "integer division"
"""A core of `make_engine(core=...)` that divides integers, which the proof refuses and no self-test finds."""


@cache
def make_noise_table(sigma: Fraction) -> NoiseTable:
    """The table of |round(g)| at `sigma`: entry j = floor(2^128 P(|g| < j + 1/2)), as far as the entries increase."""
    entries: list[int] = []
    with mpmath.workprec(320):
        scale = mpmath.mpf(sigma.numerator) / sigma.denominator * mpmath.sqrt(2)
        while True:
            inside = mpmath.erf((len(entries) + mpmath.mpf(0.5)) / scale)
            entry = min(int(mpmath.floor(inside * 2**128)), 2**128 - 1)
            if entries and entry <= entries[-1]:
                break
            entries.append(entry)
    high = np.array([entry >> 64 for entry in entries], np.uint64)
    low = np.array([entry & (2**64 - 1) for entry in entries], np.uint64)
    return NoiseTable(sigma, high, low)


def make_engine(
    folder: Path | str,
    *,
    seed: int = 0,
    clip_norm: int = 64,
    sigma: Fraction | None = None,
    labels: tuple[str, ...] = ("normal", "fall", "fight"),
    slot_s: float = 1.0,
    tokens: int = 4,
    width: int = 16,
    event_releases: int = 8,
    size: int = 32,
    gain: float = 8.0,
    network: str = "linear",
    core: str = "",
    levels: Mapping[str, Fraction] | None = None,
    adaptive_level: LevelRule | None = None,
    person_frame: tuple[int, int] | None = None,
) -> EngineManifest:
    """Write a whole engine folder and return its manifest; the same arguments write the same bytes.

    Args:
        sigma: Of the noise; None: that of S = 3 for an event.
        tokens: K, rows of a code; width: d, its columns.
        size: Frames are (size, size).
        gain: How strongly the scene moves the code.
        network: "linear", or "nan", "infinite", "huge": what the float part feeds into the core.
        core: "", TRAP or one of BROKEN_CORES.
        levels: Other profiles' noise, by name.
        adaptive_level: The rule that chooses among them.
        person_frame: Height and width of the person network's frame: `perceive_graph`; `encode` then reads people.
    """
    assert core in ("", TRAP, *BROKEN_CORES)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    window = WindowSpec(size, size, slot_s, 8, 8, context_step_s=slot_s / 2, hold_s=0.5)
    sigma = sigma_for(clip_norm, 3.0, event_releases) if sigma is None else sigma
    rng = np.random.default_rng(seed)
    encode = _encode(window, tokens, width, clip_norm, gain, network, core, rng, bool(person_frame))
    onnx.save(encode, folder / FILES["encode"])
    onnx.save(_decide(event_releases, tokens, width, len(labels), float(sigma), rng), folder / FILES["decide"])
    manifest = EngineManifest(
        family="test",
        labels=labels,
        window=window,
        tokens=tokens,
        width=width,
        event_releases=event_releases,
        clip_norm=clip_norm,
        sigma=sigma,
        profile="balanced",
        precision="fp32",
        opset=OPSET,
        hashes=_first_hashes(folder, person_frame),
        tools={"engine_factory": "1"},
        levels=levels or {},
        adaptive_level=adaptive_level,
        person_frame=person_frame,
    )
    return _completed(folder, manifest)


def _first_hashes(folder: Path, person_frame: tuple[int, int] | None) -> dict[str, str]:
    """Write the person network's graph where there is one; the hashes that are known before the manifest is."""
    hashes = dict.fromkeys(HASHED, "") | {"checkpoint": hashlib.sha256(b"none").hexdigest()}
    if person_frame is not None:
        onnx.save(perceive_graph(*person_frame), folder / GRAPHS["perceive"])
        hashes["perceive"] = sha256_file(folder / GRAPHS["perceive"])
    return hashes


def _completed(folder: Path, manifest: EngineManifest) -> EngineManifest:
    """Write noise tables, certificate and manifest beside the graphs; the manifest with the hashes of all."""
    others = sorted(manifest.levels.values(), reverse=True)
    tables = b"".join(make_noise_table(each).to_bytes() for each in (manifest.sigma, *others))
    (folder / FILES["noise_table"]).write_bytes(tables)
    hashes = {part: sha256_file(folder / FILES[part]) for part in ("encode", "decide", "noise_table")}
    without = dataclasses.replace(manifest, hashes={**manifest.hashes, **hashes, "certificate": ""})
    (folder / FILES["certificate"]).write_text(without.certificate().to_json())
    made = dataclasses.replace(
        without, hashes={**without.hashes, "certificate": sha256_file(folder / FILES["certificate"])}
    )
    made.save(folder)
    return made


def put_weights_outside(folder: Path) -> EngineManifest:
    """Move the network's weights of an engine folder into files of their own, and pin those in its manifest."""
    external = {}
    for part in ("encode", "decide"):
        model = onnx.load(folder / FILES[part])
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "weights")
        name = f"{part}.weights"
        (folder / name).write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=name)
        tensor.external_data.add(key="length", value=str((folder / name).stat().st_size))
        (folder / FILES[part]).write_bytes(model.SerializeToString(deterministic=True))
        external[name] = sha256_file(folder / name)
    found = EngineManifest.load(folder)
    hashes = {**found.hashes, **{part: sha256_file(folder / FILES[part]) for part in ("encode", "decide")}}
    made = dataclasses.replace(found, hashes=hashes, external=external)
    made.save(folder)
    return made


def make_edge_config(
    folder: Path | str,
    *,
    engine: Path | str,
    source: str = "synthetic://walk",
    port: int = 1883,
    windows: int = 0,
    **sections: dict[str, Any],
) -> Path:
    """Write `edge.toml` (with key and state beside it) and return its path; `sections` update its values."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    document: dict[str, dict[str, Any]] = {
        "device": {
            "site": "lab",
            "camera": "door",
            "key": str(folder / "device.key"),
            "state_dir": str(folder / "state"),
        },
        "camera": {"source": source},
        "engine": {"folder": str(engine)},
        "broker": {"url": f"mqtt://127.0.0.1:{port}"},
        "run": {"windows": windows},
    }
    for section, values in sections.items():
        document.setdefault(section, {}).update(values)
    lines = []
    for section, values in document.items():
        lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""]
    path = folder / "edge.toml"
    path.write_text("\n".join(lines))
    return path


class _Graph:
    """Nodes and constants of one graph while it is written."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def model(self, name: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> onnx.ModelProto:
        def values(table: dict[str, Any]) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(key, kind, shape) for key, (kind, shape) in table.items()]

        graph = helper.make_graph(self.nodes, name, values(inputs), values(outputs), self.constants)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        onnx.checker.check_model(made, full_check=True)
        return made


def _encode(
    window: WindowSpec,
    tokens: int,
    width: int,
    clip_norm: int,
    gain: float,
    network: str,
    core: str,
    rng: np.random.Generator,
    people: bool,
) -> onnx.ModelProto:
    """frames uint8 (1, T, H, W), with `people` also int32 (1, T, 4, 56) -> mu int32 (1, K, d)."""
    g = _Graph()
    n, cells = tokens * width, 4
    g.add("Cast", ["frames"], "grey", to=TensorProto.FLOAT)
    strides = [window.height // cells, window.width // cells]
    g.add("AveragePool", ["grey"], "pooled", kernel_shape=strides, strides=strides)  # (1, T, 4, 4)
    g.add("Reshape", ["pooled", g.constant("flat", np.array([1, -1], np.int64))], "pixels")
    features = window.frames * cells * cells
    weights = rng.normal(size=(features, n)).astype(np.float32) * np.float32(gain / 255.0 / np.sqrt(features * n))
    special = {"nan": np.nan, "infinite": np.inf, "huge": 1e30}.get(network)
    if special is not None:
        weights[:, ::2] = special
    g.add("MatMul", ["pixels", g.constant("weights", weights)], "h_frames" if people else "h")
    inputs = {"frames": (TensorProto.UINT8, [1, window.frames, window.height, window.width])}
    if people:
        shape = [1, window.frames, TRACKS, VALUES]
        inputs["people"] = (TensorProto.INT32, shape)
        _add_people(g, math.prod(shape), n)
    if network == "linear":  # norm below C - 1, as the desensitizer gives it
        g.add("Mul", ["h", "h"], "h2")
        g.add("ReduceSum", ["h2", g.constant("axis", np.array([1], np.int64))], "norm2", keepdims=1)
        g.add("Add", ["norm2", g.constant("one", np.float32(1.0))], "norm2_1")
        g.add("Sqrt", ["norm2_1"], "norm_1")
        g.add("Div", ["h", "norm_1"], "unit")
        g.add("Mul", ["unit", g.constant("radius", np.float32(clip_norm - 1))], "bounded")
        if core:
            g.add("Mul", ["bounded", g.constant("over", np.float32(1.5))], "h_out")
    source = {"linear": "h_out" if core else "bounded"}.get(network, "h")
    g.add("Reshape", [source, g.constant("code_shape", np.array([1, tokens, width], np.int64))], "x")
    _core(g, clip_norm, core)
    code = [1, tokens, width]
    return g.model("encode", inputs, {"mu": (TensorProto.INT32, code)})


def _add_people(g: _Graph, numbers: int, n: int) -> None:
    """h_frames + a linear map of the people -> h."""
    rng = np.random.default_rng(numbers)
    weights = rng.normal(size=(numbers, n)).astype(np.float32) * np.float32(16.0 / UNIT / np.sqrt(numbers * n))
    g.add("Cast", ["people"], "places", to=TensorProto.FLOAT)
    g.add("Reshape", ["places", "flat"], "row")
    g.add("MatMul", ["row", g.constant("people_weights", weights)], "h_people")
    g.add("Add", ["h_frames", "h_people"], "h")


def _core(g: _Graph, clip_norm: int, core: str) -> None:
    """x -> mu: the two steps of the integer core, or what `core` makes of them."""
    if core == "no core":
        g.add("Cast", ["x"], "mu", to=TensorProto.INT32)
        return
    low, high = g.constant("c_low", np.int32(-clip_norm)), g.constant("c_high", np.int32(clip_norm))
    axes = g.constant("code_axes", np.array([1, 2], np.int64))
    square = g.constant("c_squared", np.int32(clip_norm**2))
    g.add("Round", ["x"], "x_round")
    g.add("Sign", ["x"], "x_sign")
    g.add("Abs", ["x"], "x_abs")
    g.add("Floor", ["x_abs"], "x_floor")
    g.add("Mul", ["x_sign", "x_floor"], "x_trunc")
    for name, value in (("a", "x_round"), ("b", "x_trunc")):
        g.add("Cast", [value], f"{name}_int", to=TensorProto.INT32)
        whole = f"{name}_int"
        if core == TRAP:
            whole = g.add("Div", [whole, g.constant(f"{name}_one", np.int32(1))], f"{name}_divided")
        g.add("Clip", [whole, low, high], name)
        g.add("Mul", [name, name], f"{name}_sq")
        g.add("ReduceSum", [f"{name}_sq", axes], f"{name}_norm2", keepdims=1)
        g.add("LessOrEqual", [f"{name}_norm2", square], f"{name}_fits")
    if core == "no clip":
        g.add("Identity", ["a"], "mu")
        return
    g.add("Where", ["b_fits", "b", g.constant("zero", np.int32(0))], "b_or_zero")
    g.add("Where", ["a_fits", "a", "b_or_zero"], "mu")


def _decide(
    releases: int, tokens: int, width: int, labels: int, sigma: float, rng: np.random.Generator
) -> onnx.ModelProto:
    """z int32 (1, R, K, d), present bool (1, R) -> logits float32 (1, L)."""
    g = _Graph()
    g.add("Cast", ["z"], "z_float", to=TensorProto.FLOAT)
    g.add("Cast", ["present"], "there", to=TensorProto.FLOAT)
    g.add("Reshape", ["there", g.constant("there_shape", np.array([1, releases, 1, 1], np.int64))], "mask")
    g.add("Mul", ["z_float", "mask"], "seen")
    g.add("Reshape", ["seen", g.constant("flat", np.array([1, -1], np.int64))], "vector")
    size = releases * tokens * width
    weights = (rng.normal(size=(size, labels)) / (sigma * np.sqrt(size))).astype(np.float32)
    g.add("MatMul", ["vector", g.constant("weights", weights)], "logits")
    event = [1, releases, tokens, width]
    inputs = {"z": (TensorProto.INT32, event), "present": (TensorProto.BOOL, [1, releases])}
    return g.model("decide", inputs, {"logits": (TensorProto.FLOAT, [1, labels])})
