"""The mechanism itself, without a network that might not leak: codes of a planted eye through the device as it runs.

planted codes --device.py: socket, core, sampler, signed payloads--> z, as a subscriber opens it
+C against -C, likelihood-ratio test, Clopper and Pearson --> a lower bound on S, compared with the claim
one of M planted codes, matched filter                    --> how often it is named, compared with the certificate
encode.onnx with hostile weights, hostile frames --> |mu|, compared with C   (test harness only)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from calibration.audit.device import releases
from export.made_people import made_people
from export.parity import made_windows
from export.precision.network import Network
from export.proof.structure import load_graph
from familial.evaluate.intervals import binomial_interval
from wire.artifact.manifest import FILES, EngineManifest
from wire.errors import EngineError
from wire.people.packed import VALUES

__all__ = [
    "CONFIDENCE",
    "MADE_WINDOWS",
    "TIGHT",
    "Bound",
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
    options.add_session_config_entry("session.x64quantprecision", "1")  # as the device does
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except _ERRORS as error:
        raise EngineError(f"audit: ONNX Runtime cannot load the graph ({error})") from error


def _float_kind(model: onnx.ModelProto, name: str) -> int:
    """Return the ONNX element type that the core reads: float32 or float16."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    found = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    return int(found.get(name, TensorProto.FLOAT))


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


def two_codes(manifest: EngineManifest, sigma: Fraction, trials: int, *, length: int = 0) -> Bound:
    """Distinguish +C from -C on one coordinate, the next one for every trial, from one release of the device each.

    The likelihood ratio of two Gaussians grows with that coordinate of z alone, so its sign is the test. An error rate
    of at most a and one of at most b show a distance of at least -Phi^-1(a) - Phi^-1(b) in sigmas, which is 2 S.

    Args:
        manifest: of the engine.
        sigma: of the noise. Less than the claim's is the control: a mechanism with too little noise must be detected.
        trials: a side.
        length: of the codes that the eye says; 0: C. Longer ones must not leave the gate.
    """
    n, coin = manifest.n, np.random.default_rng(5)
    plus = np.eye(n, dtype=np.int16) * np.int16(min(length or manifest.clip_norm, 2**15 - 1))
    trial = np.arange(trials)
    index = np.stack([trial % n, n + trial % n], axis=1).reshape(-1)  # a trial of +C, one of -C, and so on
    wrong, even = [0, 0], [0, 0]

    def hear(slot: int, z: npt.NDArray[np.int16]) -> None:
        side = slot % 2
        seen = int(z[slot // 2 % n]) * (1 - 2 * side)
        wrong[side] += seen < 0
        even[side] += seen == 0

    releases(manifest, sigma, np.concatenate([plus, -plus]), index, hear)
    errors = [count + int(coin.binomial(ties, 0.5)) for count, ties in zip(wrong, even, strict=True)]
    ends = [(count / trials, *binomial_interval(count, trials, CONFIDENCE)) for count in errors]
    half = [[_quantile(rate) for rate in (found, high, low)] for found, low, high in ends]
    value, low, high = (-(a + b) / 2.0 for a, b in zip(*half, strict=True))
    return Bound(value, low, high, trials)


def _quantile(rate: float) -> float:
    return _NORMAL.inv_cdf(min(max(rate, 1e-12), 1.0 - 1e-12))


# --- one of M codes ---------------------------------------------------------------------------------------------------


def match_filter(
    manifest: EngineManifest, sigma: Fraction, galleries: tuple[int, ...], trials: int, seed: int = 17
) -> Iterator[tuple[int, int]]:
    """Yield (M, hits of `trials`): one of M planted codes is named by the largest likelihood from an event's releases.

    The codes are random directions of norm just below C, about as far apart as so many can be. A planted eye says the
    same code for a whole event; the attacker knows all M codes and adds the event's releases, as a subscriber reads
    them.
    """
    n, count = manifest.n, manifest.event_releases
    for among in galleries:
        rng = np.random.default_rng([seed, among])
        drawn = rng.normal(size=(among, n)).astype(np.float32)
        known = np.trunc(drawn / np.linalg.norm(drawn, axis=1, keepdims=True) * manifest.clip_norm)  # towards 0
        truth, totals = rng.integers(among, size=trials), np.zeros((trials, n), np.int64)

        def hear(slot: int, z: npt.NDArray[np.int16], totals: npt.NDArray[np.int64] = totals) -> None:
            totals[slot // count] += z

        releases(manifest, sigma, known[truth].astype(np.int16), np.arange(trials * count) // count, hear)
        weight, hits = 0.5 * count * (known * known).sum(axis=1), 0
        for i in range(0, trials, 256):
            score = totals[i : i + 256].astype(np.float32) @ known.T - weight
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
    feeds = _made_feeds(manifest)
    champion = feeds[0]

    def look(feed: Mapping[str, npt.NDArray[Any]]) -> float:
        nonlocal worst_x
        mu, x = session.run(None, dict(feed))
        with np.errstate(over="ignore", invalid="ignore"):
            norm_x = float(np.sqrt((x.astype(np.float64) ** 2).sum()))
        worst_x = max(worst_x, norm_x if math.isfinite(norm_x) else math.inf)
        return float(np.sqrt((mu.astype(np.int64) ** 2).sum()))

    for feed in feeds:
        if (norm := look(feed)) > best:
            best, champion = norm, feed
    for attempt in range(tries):  # hill climbing on |mu|: blocks of the best window replaced at random
        feed = {name: value.copy() for name, value in champion.items()}
        window = feed["frames"]
        t, y, x = (int(rng.integers(0, size)) for size in window.shape[1:])
        side = max(1, manifest.window.height >> (attempt % 5))
        window[:, t:, y : y + side, x : x + side] = rng.integers(0, 256, dtype=np.uint8)
        if "people" in feed:
            rows = rng.random(feed["people"].shape[1:3]) < 1.0 / (1 + attempt % 5)
            feed["people"][0, rows] = rng.integers(-(2**15), 2**15, VALUES) * (1 if attempt % 7 else 2**16)
        if (norm := look(feed)) > best:
            best, champion = norm, feed
    return best, worst_x


def _made_feeds(manifest: EngineManifest) -> list[dict[str, npt.NDArray[Any]]]:
    """Return inputs of `encode`, hostile ones among them."""
    feeds: list[dict[str, npt.NDArray[Any]]] = [
        {"frames": window[None]} for window in made_windows(manifest.window, MADE_WINDOWS)
    ]
    if manifest.person_frame is not None:
        for feed, people in zip(feeds, made_people(manifest.window, MADE_WINDOWS), strict=True):
            feed["people"] = people[None]
    return feeds
