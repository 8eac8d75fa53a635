"""The mechanism itself, without a network that might not leak: planted codes through the REAL cores.

encode.onnx --cut at its core's float input--> mu --the gate's release, noise of the real Sampler--> z
+C against -C, likelihood-ratio test, Clopper and Pearson --> a lower bound on S, compared with the claim
one of M planted codes, matched filter                    --> how often it is named, compared with the certificate
encode.onnx with hostile weights, hostile frames --> |mu|, compared with C   (test harness only)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from calibration.noise import build_table
from edge_runtime.gate.core import release
from edge_runtime.gate.sampler import Sampler
from export.parity import made_windows
from export.precision.network import Network
from export.proof.structure import load_graph
from familial.evaluate.intervals import binomial_interval
from wire.artifact.manifest import FILES, EngineManifest
from wire.errors import EngineError

__all__ = [
    "CONFIDENCE",
    "MADE_WINDOWS",
    "TIGHT",
    "Bound",
    "Core",
    "hostile_norms",
    "match_filter",
    "trials_needed",
    "two_codes",
]

TIGHT = 0.85
"""The audited S must lie between this share of the claim and the claim."""
CONFIDENCE = 0.99
"""Of the audited S: each of the two error rates is bounded at half of the rest."""
MADE_WINDOWS = 24
"""Made windows, hostile ones among them, on which the search for a long code starts."""

_POWER = NormalDist().inv_cdf(0.999)  # how surely a sound mechanism is audited above TIGHT
_Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2.0)
_NORMAL = NormalDist()
_CHUNK = 4096
_WEIGHTS = ("as trained", "random", "too long", "overflowing", "infinite", "not a number")
_ERRORS = tuple(
    kind
    for kind in vars(onnxruntime.capi.onnxruntime_pybind11_state).values()
    if isinstance(kind, type) and issubclass(kind, Exception)
)
_FLOAT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


def _open(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except _ERRORS as error:
        raise EngineError(f"audit: ONNX Runtime cannot load the graph ({error})") from error


class Core:
    """From the float input of an engine's integer core to z, for many codes at once: that core, then the gate's.

    The nodes and constants are the file's own; only the first dimension, which is 1 in the file, is left open.
    """

    def __init__(self, folder: Path, manifest: EngineManifest) -> None:
        model = load_graph(folder / FILES["encode"])
        (name,) = Network(model).code
        nodes, kind = _after(model, name), _float_kind(model, name)
        read = {value for node in nodes for value in node.input}
        constants = [tensor for tensor in model.graph.initializer if tensor.name in read]
        nodes = [*(node for node in model.graph.node if node.op_type == "Constant" and node.output[0] in read), *nodes]
        shape: list[str | int | None] = ["batch", manifest.tokens, manifest.width]
        graph = helper.make_graph(
            nodes,
            "core",
            [helper.make_tensor_value_info(name, kind, shape)],
            [helper.make_tensor_value_info("mu", TensorProto.INT32, shape)],
            constants,
        )
        made = helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
        self._session, self._input = _open(made), name
        self._dtype = helper.tensor_dtype_to_np_dtype(kind)
        self.manifest = manifest

    def __call__(self, x: npt.NDArray[np.floating], noise: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """x float (B, K, d), noise int32 (B, K, d) -> z int32 (B, K, d)."""
        mu = self._session.run(["mu"], {self._input: x.astype(self._dtype)})[0].astype(np.int16)
        z = np.empty(noise.shape, np.int32)
        for index, code in enumerate(mu):
            z[index] = release(code.reshape(-1), noise[index].reshape(-1), self.manifest.clip_norm).reshape(code.shape)
        return z


def _after(model: onnx.ModelProto, name: str) -> list[onnx.NodeProto]:
    """Return the nodes between `name` and mu, in order, without those that make constants."""
    wanted, kept = {"mu"}, list[onnx.NodeProto]()
    for node in reversed(model.graph.node):
        if wanted.intersection(node.output) and name not in node.output and node.op_type != "Constant":
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]


def _float_kind(model: onnx.ModelProto, name: str) -> int:
    """Return the ONNX element type that the core reads: float32 or float16."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    found = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    return int(found.get(name, TensorProto.FLOAT))


def _noise_samples(sampler: Sampler, count: int, shape: tuple[int, int]) -> npt.NDArray[np.int32]:
    """Return int32 (count, K, d) of fresh noise samples of the real sampler."""
    noise = np.empty((count, *shape), np.int32)
    for row in noise:
        with sampler.draw() as drawn:
            row[:] = drawn.reshape(shape)
    return noise


# --- two codes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bound:
    """What the likelihood-ratio test shows about S of one release: the estimate, its interval, and trials a side."""

    value: float
    low: float
    high: float
    trials: int


def trials_needed(s_release: float) -> int:
    """Return the trials a side that audit a sound mechanism above TIGHT of its claim with probability 0.999.

    At the threshold between the two codes each error rate is Phi(-S); its estimate's deviation, carried over to S, is
    sqrt(a (1 - a) / N) / phi(S). The lower bound subtracts _Z of it for each rate, and both together vary by sqrt(2).
    """
    error = _NORMAL.cdf(-s_release)
    deviation = math.sqrt(error * (1.0 - error)) / _NORMAL.pdf(s_release)
    margin = (1.0 - TIGHT) * 2.0 * s_release
    return math.ceil(((2.0 * _Z + math.sqrt(2.0) * _POWER) * deviation / margin) ** 2)


def two_codes(core: Core, sigma: Fraction, trials: int, *, gain: int = 1) -> Bound:
    """Distinguish x = +C from x = -C on one coordinate, the next one for every trial, from one release each.

    The likelihood ratio of two Gaussians grows with that coordinate of z alone, so its sign is the test. An error rate
    of at most a and one of at most b show a distance of at least -Phi^-1(a) - Phi^-1(b) in sigmas, which is 2 S.

    Args:
        core: of the engine.
        sigma: of the noise.
        trials: a side.
        gain: divides the noise, for the control: a mechanism with too little noise must be detected.
    """
    manifest = core.manifest
    shape, n = (manifest.tokens, manifest.width), manifest.n
    sampler = Sampler(build_table(sigma), n)
    coin = np.random.default_rng(5)
    errors = []
    for sign in (1.0, -1.0):
        wrong = 0
        for first in range(0, trials, _CHUNK):
            count = min(_CHUNK, trials - first)
            at = (first + np.arange(count)) % n
            x = np.zeros((count, n), np.float32)
            x[np.arange(count), at] = sign * manifest.clip_norm
            z = core(x.reshape(count, *shape), _noise_samples(sampler, count, shape) // gain).reshape(count, n)
            seen = sign * z[np.arange(count), at]
            wrong += int((seen < 0).sum()) + int(coin.binomial(int((seen == 0).sum()), 0.5))
        errors.append((wrong, *binomial_interval(wrong, trials, CONFIDENCE)))
    half = [[_quantile(rate) for rate in (wrong / trials, high, low)] for wrong, low, high in errors]
    value, low, high = (-(a + b) / 2.0 for a, b in zip(*half, strict=True))
    return Bound(value, low, high, trials)


def _quantile(rate: float) -> float:
    return _NORMAL.inv_cdf(min(max(rate, 1e-12), 1.0 - 1e-12))


# --- one of M codes ---------------------------------------------------------------------------------------------------


def match_filter(
    core: Core, sigma: Fraction, galleries: tuple[int, ...], trials: int, seed: int = 17
) -> Iterator[tuple[int, int]]:
    """Yield (M, hits of `trials`): one of M planted codes is named by the largest likelihood from an event's releases.

    The codes are random directions of norm just below C, about as far apart as so many can be; the attacker knows them
    as the core makes them. The noise is the real sampler's, summed over the releases of an event.
    """
    manifest, rng = core.manifest, np.random.default_rng(seed)
    shape, n, releases = (manifest.tokens, manifest.width), manifest.n, manifest.event_releases
    drawn = rng.normal(size=(max(galleries), n)).astype(np.float32)
    x = drawn / np.linalg.norm(drawn, axis=1, keepdims=True) * (manifest.clip_norm - 0.5)
    quiet = np.zeros((_CHUNK, *shape), np.int32)
    known = np.concatenate(
        [
            core(x[i : i + _CHUNK].reshape(-1, *shape), quiet[: len(x[i : i + _CHUNK])]).reshape(-1, n)
            for i in range(0, len(x), _CHUNK)
        ]
    ).astype(np.float32)
    sampler = Sampler(build_table(sigma), n)
    truths = {among: rng.integers(among, size=trials) for among in galleries}
    totals = {among: np.zeros((trials, n), np.int64) for among in galleries}
    for _ in range(releases):  # each gallery's releases go through the core; they share the noise
        noise = _noise_samples(sampler, trials, shape)
        for among, truth in truths.items():
            totals[among] += core(x[truth].reshape(-1, *shape), noise).reshape(trials, n)
    for among, truth in truths.items():
        codes = known[:among]
        weight = 0.5 * releases * (codes * codes).sum(axis=1)
        hits = 0
        for i in range(0, trials, 256):
            score = totals[among][i : i + 256].astype(np.float32) @ codes.T - weight
            hits += int((score.argmax(axis=1) == truth[i : i + 256]).sum())
        yield among, hits


# --- |mu| under hostile weights and frames ----------------------------------------------------------------------------


def hostile_norms(folder: Path, manifest: EngineManifest, tries: int) -> Iterator[tuple[str, float, float]]:
    """Yield (weights, largest |mu|, largest norm before the core) of encode.onnx with hostile weights.

    Each reads hostile frames, random frames and frames that a search found to make |mu| long.
    """
    model = load_graph(folder / FILES["encode"])
    (before,) = Network(model).code
    for name in _WEIGHTS:
        made = onnx.ModelProto()
        made.CopyFrom(model)
        if name != "as trained":
            _spoil(made, name, np.random.default_rng(23))
        made.graph.output.append(helper.make_tensor_value_info(before, _float_kind(model, before), None))
        session = _open(made)
        yield name, *_longest(session, manifest, tries)


def _spoil(model: onnx.ModelProto, how: str, rng: np.random.Generator) -> None:
    """Replace the network's float constants by hostile values; quantisation scales stay positive."""
    scales = {node.input[1] for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
    for tensor in model.graph.initializer:
        if tensor.data_type not in _FLOAT_TYPES or (tensor.name in scales and how != "too long"):
            continue
        value = numpy_helper.to_array(tensor).astype(np.float64)
        if how == "random" and value.ndim >= 2:
            value = rng.normal(size=value.shape) / math.sqrt(value[0].size)
        if how in ("infinite", "not a number"):
            value = np.where(rng.random(value.shape) < 0.3, np.inf if how == "infinite" else np.nan, value)
        value = value * {"too long": 1.03, "overflowing": 1e30}.get(how, 1.0)
        with np.errstate(over="ignore"):
            spoiled = np.asarray(value, helper.tensor_dtype_to_np_dtype(tensor.data_type))
        tensor.CopyFrom(numpy_helper.from_array(spoiled, tensor.name))


def _longest(session: onnxruntime.InferenceSession, manifest: EngineManifest, tries: int) -> tuple[float, float]:
    """Return the largest |mu| and the largest norm before the core (maybe infinite), hostile frames and a search."""
    rng, best, worst_x = np.random.default_rng(29), -1.0, 0.0
    frames = made_windows(manifest.window, MADE_WINDOWS)
    champion = frames[:1]

    def look(window: npt.NDArray[np.uint8]) -> float:
        nonlocal worst_x
        mu, x = session.run(None, {"frames": window})
        with np.errstate(over="ignore", invalid="ignore"):
            norm_x = float(np.sqrt((x.astype(np.float64) ** 2).sum()))
        worst_x = max(worst_x, norm_x if math.isfinite(norm_x) else math.inf)
        return float(np.sqrt((mu.astype(np.int64) ** 2).sum()))

    for window in frames:
        if (norm := look(window[None])) > best:
            best, champion = norm, window[None]
    for attempt in range(tries):  # hill climbing on |mu|: blocks of the best window replaced at random
        window = champion.copy()
        t, y, x = (int(rng.integers(0, size)) for size in window.shape[1:])
        side = max(1, manifest.window.height >> (attempt % 5))
        window[:, t:, y : y + side, x : x + side] = rng.integers(0, 256, dtype=np.uint8)
        if (norm := look(window)) > best:
            best, champion = norm, window
    return best, worst_x
