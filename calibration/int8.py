"""Chooses what INT8 needs: the quantisation range of every tensor, and the layers that stay in float32.

    clips, real or rendered --windows--> encode, fp32 --codes + noise--> events --> decide, fp32
        two of three clips: magnitudes --least squared error--> ranges
        all clips:          error of INT8 layer by layer, branches of the norm guard --> layers, report
        every third clip:   the same again, on clips that chose no range
                                                          --> calibration.json in the checkpoint

`export.build_engine --precision int8` reads the file; fp16 reads its peaks. `decide` is measured with noise: its ranges
have to hold z, not mu. The noise samples come from torch with a seed: they are data here, no release is made.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from export.precision.convert import CALIBRATION
from export.precision.half import rounded, to_fp16
from export.precision.network import Network, activations, open_session, structure
from export.precision.quantise import Ranges, along_channels, layers, to_int8, unbiased
from familial.data.splits import clip_seeds
from familial.model.config import FamilyConfig
from wire.errors import DataError, EngineError, VeilsightError
from wire.files import write_whole

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["Material", "Part", "calibrate", "choose_layers", "choose_ranges", "gather", "main", "words"]

_Array = npt.NDArray[Any]
_Feed = Mapping[str, _Array]

_RENDERED = 30
_LEAST_CLIPS = 4
_MOST_WINDOWS = 192
_JUDGED = 48  # validation feeds, at most: the outputs of every layer on them are held in memory
_BINS = 2048
_GRID = np.linspace(0.2, 1.0, 81)  # candidate ranges, as shares of the peak
# Largest error of int8 at p99, on all windows and on those that chose no range: in C for a coordinate of the code, in
# logits for a verdict. Beyond it, the layer of the largest error goes back to float32.
_CODE_P99, _LOGIT_P99 = 1 / 32, 0.1
_LEAST_DB = 20.0  # signal over error of a layer's own output, in int8 alone; below, the layer is sensitive
_OUTSIDE = {
    "preparation of the pixels": "gain and mean of dark pictures differ by their last digits",
    "sums, norms, softmax": "they add up or divide by small numbers",
    "residual additions, activations": "no multiplications to save; rounding there would add up along the residual",
    "products of attention": "both factors depend on the input, and are small",
    "the last product before the code": "its output is in lattice units, or one norm away from them; it is small",
    "biases": "added in float32 behind the product; TensorRT takes no quantised bias",
    "the integer core": "integers already",
}


@dataclass(frozen=True, slots=True)
class Material:
    """Windows to calibrate on.

    Attributes:
        clips: of each clip its windows: the inputs of `encode`.
        source: where they come from, in words.
    """

    clips: Sequence[Sequence[_Feed]]
    source: str


def gather(config: FamilyConfig, data: Sequence[Path], rendered: int) -> Material:
    """Return windows of the clips of manifests `data`, and of `rendered` rendered clips.

    Raises:
        DataError: too few different clips, or all of them are dark.
    """
    from familial.data.clips import read_clip, read_manifests, slots
    from familial.data.feeds import encode_feeds
    from familial.data.people import PERCEIVE
    from familial.data.sources import rendered_clips
    from familial.model.towers.registry import tower_class

    spec, sees = config.window, tower_class(config.tower).sees_people
    listed = read_manifests(data, config.labels) if data else []
    footages = [read_clip(clip.file, spec, perceive=PERCEIVE if sees else None) for clip in listed]
    footages += [clip.footage for clip in rendered_clips(_seeds(rendered), config.labels, spec, processes=1)]
    share = max(1, _MOST_WINDOWS // max(1, len(footages)))
    clips: dict[str, Sequence[_Feed]] = {}
    for footage in footages:
        count = slots(footage.duration, spec)
        chosen = np.unique(np.linspace(0, count - 1, min(count, share)).round().astype(int))
        made = encode_feeds(footage, [spec.slot_s * (slot + 1) for slot in chosen], spec, sees)
        if any(feed["frames"].any() for feed in made):
            clips[hashlib.sha256(b"".join(feed["frames"].tobytes() for feed in made)).hexdigest()] = made
    if len(clips) < _LEAST_CLIPS:
        raise DataError(
            f"{len(clips)} different clips with a picture in them ({len(footages)} given): ranges of so few would clip "
            f"what others show; give at least {_LEAST_CLIPS} with --data, or --rendered {_RENDERED}"
        )
    parts = [f"{len(listed)} clips"] * bool(listed) + [f"{rendered} rendered clips"] * bool(rendered)
    return Material(list(clips.values()), " and ".join(parts))


def _seeds(count: int) -> range:
    return clip_seeds("int8", count)


@dataclass(frozen=True, slots=True)
class Part:
    """One graph with what it is measured on.

    Attributes:
        model: in float32.
        fit: feeds that choose the ranges.
        judge: feeds of other clips, which judge them.
        output: the tensor that is judged: x before the core, or the logits.
        limit: largest error of it at p99, on all feeds.
    """

    model: ModelProto
    fit: Sequence[_Feed]
    judge: Sequence[_Feed]
    output: str
    limit: float


def choose_ranges(part: Part) -> tuple[dict[str, float], dict[str, float]]:
    """Choose the ranges of least squared error over the fitting feeds.

    Returns:
        Range of every tensor that int8 may quantise, and peak of every tensor.

    Raises:
        EngineError: a tensor becomes NaN or infinite.
    """
    found = layers(part.model)
    network = Network(part.model)
    biases = {
        node.output[0]: along_channels(network.array(node.input[2]), len(network.constants[node.input[1]].dims))
        for node in found
        if node.op_type == "Conv" and len(node.input) > 2
    }
    reads = {node.input[0] for node in found}

    def magnitudes(values: Mapping[str, _Array]) -> Iterator[tuple[str, _Array]]:
        for name in reads:
            yield name, np.abs(values[name])
        for name, bias in biases.items():
            yield unbiased(name), np.abs(values[name] - bias)

    peaks: dict[str, float] = {}
    for values in activations(part.model, part.fit):
        for name, value in (*values.items(), *magnitudes(values)):
            peaks[name] = float(np.maximum(peaks.get(name, 0.0), np.abs(value).max()))  # NaN stays NaN
    unsound = [name for name, peak in peaks.items() if not math.isfinite(peak)]
    if unsound:
        raise EngineError(f"{part.model.graph.name}: {unsound[0]!r} becomes NaN or infinite; train the family again")
    counts: dict[str, npt.NDArray[np.float64]] = {}
    for values in activations(part.model, part.fit, sorted(reads | set(biases))):
        for name, value in magnitudes(values):
            seen = value[value > 0]  # zero is zero in int8
            counted = np.histogram(seen, _BINS, (0.0, max(peaks[name], 1e-30)))[0]
            counts[name] = counts.get(name, np.zeros(_BINS)) + counted
    ranges = {name: peaks[name] * _best_part(count) for name, count in counts.items()}
    return ranges, {name: peak for name, peak in peaks.items() if name not in map(unbiased, biases)}


def _best_part(counts: npt.NDArray[np.float64]) -> float:
    """Return the share of the peak that is the int8 range of least squared error, for a histogram up to the peak."""
    centre = (np.arange(_BINS) + 0.5) / _BINS
    errors = [counts @ np.where(centre <= f, (f / 127) ** 2 / 12, (centre - f) ** 2) for f in _GRID]
    return float(_GRID[int(np.argmin(errors))])


def _error(part: Part, ranges: Ranges, feeds: Sequence[_Feed], exact: Sequence[_Array], name: str) -> dict[str, float]:
    """Return the error of tensor `name` with the layers of `ranges` in int8, against its float32 values `exact`."""
    made = to_int8(part.model, ranges)
    found = [values[name] for values in activations(made, feeds, [name])]
    apart = np.concatenate([np.abs(a - b).ravel() for a, b in zip(found, exact, strict=True)])
    power = sum(float((b.astype(np.float64) ** 2).sum()) for b in exact)
    ratio = power / max(float((apart.astype(np.float64) ** 2).sum()), 1e-30)
    p50, p99 = np.percentile(apart, [50, 99])
    return {
        "p50": float(p50),
        "p99": float(p99),
        "max": float(apart.max()),
        "sqnr_db": 10 * math.log10(max(ratio, 1e-9)),
    }


def choose_layers(part: Part, ranges: Mapping[str, float], peaks: Mapping[str, float]) -> tuple[Ranges, dict[str, Any]]:
    """Choose the layers to quantise: measure each alone, then all, then leave out the worst until the limit holds.

    A layer's error at the output is measured on every feed: a few clips would not show the rare window with a large
    error, and layers chosen on the clips that judge them would be rated too well. All layers together must keep the
    limit on every feed, and on the judging ones alone.

    Returns:
        The ranges with the chosen layers, and the report.
    """
    digest = structure(part.model)
    found = layers(part.model)
    exact: dict[str, list[_Array]] = {name: [] for name in (part.output, *(node.output[0] for node in found))}
    for values in activations(part.model, part.judge, [*exact]):
        for name, value in values.items():
            exact[name].append(value)
    feeds = [*part.fit, *part.judge]
    outputs = [values[part.output] for values in activations(part.model, feeds, [part.output])]
    rows = []
    for node in found:
        alone = Ranges(digest, ranges, (node.name,))
        effect = _error(part, alone, feeds, outputs, part.output)
        own = _error(part, alone, part.judge, exact[node.output[0]], node.output[0])
        rows.append(_Row(node.name, node.input[1], ranges[node.input[0]], own["sqnr_db"], effect))
    kept = {
        row.layer: f"alone its output is at {row.own_sqnr_db:.1f} dB of its error, {_LEAST_DB:g} dB is the least"
        for row in rows
        if row.own_sqnr_db < _LEAST_DB
    }
    while True:
        chosen = [row for row in rows if row.layer not in kept]
        made = Ranges(digest, ranges, tuple(row.layer for row in chosen), peaks)
        together = _error(part, made, feeds, outputs, part.output)
        unseen = _error(part, made, part.judge, exact[part.output], part.output)
        cost = max(together["p99"], unseen["p99"])
        if cost <= part.limit or not chosen:
            break
        worst = max(chosen, key=lambda row: row.effect["p99"])
        kept[worst.layer] = f"with it all of int8 costs {cost:.3g} at p99, {part.limit:.3g} is allowed"
    report = {"judged": part.output, "limit_p99": part.limit, "layers": [row.document() for row in rows]}
    return made, report | {"kept_float": kept, "together": together, "unseen": unseen}


@dataclass(frozen=True, slots=True)
class _Row:
    """One layer in int8 alone: range of its input, SQNR of its own output, error of the judged output."""

    layer: str
    weights: str
    range: float
    own_sqnr_db: float
    effect: Mapping[str, float]

    def document(self) -> dict[str, Any]:
        """Return the row as JSON."""
        about = {"layer": self.layer, "weights": self.weights, "range": self.range, "own_sqnr_db": self.own_sqnr_db}
        return {**about, **self.effect}


def calibrate(checkpoint: Path, material: Material, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Return the document of calibration.json.

    Raises:
        EngineError: the guard's zero branch fires at any precision.
    """
    import torch

    from export import trace
    from familial.evaluate.clip_inference import sigma_of
    from familial.model.checkpoint import checkpoint_hash

    began = time.monotonic()
    family = trace.load_family(checkpoint)
    config = family.config
    sigma = float(sigma_of(checkpoint, family, None)[1])
    encode, decide = trace.trace_encode(family), trace.trace_decide(family)
    clips = material.clips
    session = open_session(encode)
    codes = [np.concatenate([session(feed)[0] for feed in clip]) for clip in clips]
    torch.manual_seed(0)
    events = [_events(code, config.event_releases, sigma, index) for index, code in enumerate(codes)]
    counts = f"{sum(map(len, clips))} windows, {sum(map(len, events))} events"
    say(f"{material.source}: {counts}, encoded in {time.monotonic() - began:.1f} s")
    parts = {
        "encode": Part(encode, *_split(clips), next(iter(Network(encode).code)), config.clip_norm * _CODE_P99),
        "decide": Part(decide, *_split(events), "logits", _LOGIT_P99),
    }
    chosen, report = {}, {}
    for name, part in parts.items():
        chosen[name], report[name] = choose_layers(part, *choose_ranges(part))
    graphs = {
        "fp32": encode,
        "fp16": rounded(to_fp16(encode)),
        "int8": to_int8(encode, chosen["encode"]),
    }
    feeds = [feed for clip in clips for feed in clip]
    report["codes"] = _codes(graphs, feeds, parts["encode"].output, config.clip_norm, sigma)
    return {
        "version": 1,
        "checkpoint": checkpoint_hash(checkpoint),
        "made_from": {"source": material.source, "clips": len(clips), "windows": len(feeds), "sigma": sigma},
        **{name: _part_document(ranges) for name, ranges in chosen.items()},
        "float32_always": _OUTSIDE,
        "report": report,
    }


def _split(groups: Sequence[Sequence[_Feed]]) -> tuple[list[_Feed], list[_Feed]]:
    """Return the feeds of two of three groups, to fit, and up to `_JUDGED` feeds of every third, to judge."""
    fit = [feed for index, group in enumerate(groups) if index % 3 != 2 for feed in group]
    judge = [feed for index, group in enumerate(groups) if index % 3 == 2 for feed in group]
    return fit, [judge[i] for i in np.unique(np.linspace(0, len(judge) - 1, _JUDGED).round().astype(int))]


def _events(codes: _Array, releases: int, sigma: float, seed: int) -> list[_Feed]:
    """Return noised events of one clip: whole or short, every other one with releases missing."""
    import torch

    from familial.model.code_space import rounded_gaussian

    rng = np.random.default_rng(seed)
    made: list[_Feed] = []
    for last in range(1, len(codes) + 1, max(1, len(codes) // 8)):
        z = np.zeros((1, releases, *codes.shape[1:]), np.int32)
        present = np.zeros((1, releases), np.bool_)
        part = codes[max(0, last - releases) : last]
        noised = torch.from_numpy(part).float()
        z[0, releases - len(part) :] = (noised + rounded_gaussian(noised, sigma)).numpy().astype(np.int32)
        present[0, releases - len(part) :] = rng.random(len(part)) < (0.7 if last % 2 else 1.0)
        z[~present] = 0
        made.append({"z": z, "present": present})
    return made


def _codes(
    graphs: Mapping[str, ModelProto], feeds: Sequence[_Feed], x: str, clip_norm: int, sigma: float
) -> dict[str, dict[str, Any]]:
    """Return per precision how often each branch of the guard fires on all windows, and how far mu is from fp32's."""
    found: dict[str, dict[str, Any]] = {}
    exact = None
    for name, model in graphs.items():
        values = list(activations(model, feeds, [x, "mu"], exact=name == "fp16"))
        mu = np.concatenate([row["mu"] for row in values]).astype(np.float64)
        exact = mu if exact is None else exact
        branches = _branches(np.concatenate([row[x] for row in values]), clip_norm)
        if branches["zero"]:
            raise EngineError(
                f"precision {name}: the guard's zero branch fired on {branches['zero']} of {len(mu)} windows: the code "
                "left the ball of C; train the family again, or leave this precision"
            )
        apart = np.abs(mu - exact)
        norms = np.sqrt((apart**2).sum(axis=(1, 2)))
        lengths = np.sqrt((mu**2).sum(axis=(1, 2)) * (exact**2).sum(axis=(1, 2)))
        cosine = (mu * exact).sum(axis=(1, 2)) / np.maximum(lengths, 1e-9)
        found[name] = {
            "guard": branches,
            "p50": float(np.percentile(apart, 50)),
            "p99": float(np.percentile(apart, 99)),
            "norm_p50": float(np.percentile(norms, 50)),
            "norm_p99": float(np.percentile(norms, 99)),
            "norm_p99_in_sigma": float(np.percentile(norms, 99)) / sigma,
            "cosine_mean": float(cosine.mean()),
            "cosine_min": float(cosine.min()),
        }
    return found


def _branches(x: _Array, clip_norm: int) -> dict[str, int]:
    """Return how many windows take the guard's rounded, truncated and zero branch; x float (B, K, d)."""
    ways = (np.clip(cut(x.astype(np.float64)), -clip_norm, clip_norm) for cut in (np.round, np.trunc))
    rounded_fits, cut_fits = ((way**2).sum(axis=(1, 2)) <= clip_norm**2 for way in ways)
    return {
        "rounded": int(rounded_fits.sum()),
        "truncated": int((~rounded_fits & cut_fits).sum()),
        "zero": int((~rounded_fits & ~cut_fits).sum()),
    }


def _part_document(ranges: Ranges) -> dict[str, Any]:
    return {
        "structure": ranges.structure,
        "int8": list(ranges.int8),
        "ranges": {name: float(f"{value:.6g}") for name, value in sorted(ranges.ranges.items())},
        "peaks": {name: float(f"{value:.6g}") for name, value in sorted(ranges.peaks.items())},
    }


def words(document: Mapping[str, Any]) -> str:
    """Return the report as tables."""
    lines = []
    for part, unit in (("encode", "lattice units of the code"), ("decide", "logits")):
        found = document["report"][part]
        lines.append(f"{part}: error of {unit} (all together at most {found['limit_p99']:g} at p99)")
        lines.append(f"  {'layer in int8, alone':22}{'weights':34}{'own SQNR':>9}{'p50':>9}{'p99':>9}{'max':>9}")
        for row in found["layers"]:
            kept = "  kept in float32" if row["layer"] in found["kept_float"] else ""
            lines.append(
                f"  {row['layer']:22}{row['weights'][-32:]:34}{row['own_sqnr_db']:6.1f} dB"
                f"{row['p50']:9.3g}{row['p99']:9.3g}{row['max']:9.3g}{kept}"
            )
        count = f"{len(document[part]['int8'])} of {len(found['layers'])} layers"
        for name, row in ((count, found["together"]), ("on clips that chose no range", found["unseen"])):
            lines.append(f"  {name:56}{row['sqnr_db']:6.1f} dB{row['p50']:9.3g}{row['p99']:9.3g}{row['max']:9.3g}")
    lines.append("codes against fp32, all windows; the guard's zero branch must not fire")
    head = ("", "p50", "p99", "|error| p99", "in sigma", "cosine", "rounded", "truncated", "zero")
    lines.append("".join(name.rjust(12) for name in head))
    for name, row in document["report"]["codes"].items():
        cells = [f"{row[key]:.3g}" for key in ("p50", "p99", "norm_p99", "norm_p99_in_sigma")]
        cells += [f"{row['cosine_mean']:.4f}", *(str(row["guard"][key]) for key in head[-3:])]
        lines.append("".join(cell.rjust(12) for cell in (name, *cells)))
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m calibration.int8", description="Choose a checkpoint's INT8 ranges."
    )
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/nano"), metavar="DIR")
    parser.add_argument(
        "--data", nargs="+", type=Path, default=[], metavar="MANIFEST.csv", help="clips to calibrate on"
    )
    parser.add_argument(
        "--rendered", type=int, metavar="N", help=f"rendered clips (default: {_RENDERED} without --data)"
    )
    args = parser.parse_args(argv)
    count = args.rendered if args.rendered is not None else (0 if args.data else _RENDERED)
    try:
        if count < 0:
            raise DataError(f"--rendered is {count}; give how many clips to render, {_RENDERED} for one")
        config = FamilyConfig.load(args.checkpoint / "config.json")
        document = calibrate(args.checkpoint, gather(config, args.data, count))
        _write(args.checkpoint / CALIBRATION, document)
    except VeilsightError as error:
        print(f"calibration.int8: {error}", file=sys.stderr)
        return 1
    print(words(document))
    print(f"written: {args.checkpoint / CALIBRATION}; now: python -m export.build_engine --precision int8")
    return 0


def _write(file: Path, document: Mapping[str, Any]) -> None:
    try:
        write_whole(file, json.dumps(document, indent=1) + "\n")
    except OSError as error:
        raise DataError(f"{file}: cannot be written ({error.strerror}); the folder must be writable") from error


if __name__ == "__main__":
    sys.exit(main())
