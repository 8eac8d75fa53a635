"""How good a member is on labelled clips, noise on as on the device, next to what chance and clip length reach.

    clip -> windows, slot by slot -> clean codes (in this process only) -> + noise -> events of 8 releases, stride 1
         -> probabilities (E, L) -> clip_verdict -> tables over all clips, per set, per label

A clip shorter than an event is read once, with the releases that exist. A clip's verdict is made from all its events by
`clip_verdict`. `first_verdicts` measures the other thing that matters: how soon after a fall the first verdict
names it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from familial.data.clips import UNSCORED, Clip, Footage, grouped_folds, read_clip, read_manifests, slots
from familial.data.events import Grid
from familial.model import checkpoint
from familial.model.config import FamilyConfig
from familial.model.encoder import Encoder
from familial.model.family import Family
from familial.train.losses import rounded_gaussian
from wire.artifact.checkpoint import CONFIG
from wire.errors import CheckpointError, ConfigError, VeilsightError
from wire.privacy.certificate import PROFILES, sigma_for

__all__ = [
    "Read",
    "baselines",
    "best_threshold",
    "calibration_error",
    "clip_codes",
    "clip_probabilities",
    "clip_verdict",
    "event_probabilities",
    "events_of",
    "first_verdicts",
    "intervals",
    "main",
    "metrics",
    "run",
    "sigma_of",
    "tempered",
]

_BATCH = 512
_RAREST = 1e-6  # no event is surer than this that nothing is wrong
_TEMPERATURES = [1.1**power for power in range(-10, 11)]
_BIASES = [step / 10 for step in range(-10, 11)]
_RUN = 16  # slots encoded at once: neighbours share what they look at
_Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Read:
    """One clip as read: label probabilities of its events for each noise draw (D, E, L), and the fold that read it."""

    clip: Clip
    events: _Probabilities
    reader: int
    releases: int
    duration: float

    def draws(self, temperature: float = 1.0, bias: float = 0.0) -> _Probabilities:
        """Label probabilities of the clip for each draw (D, L): logits over `temperature`, `bias` added to risks'."""
        return np.stack([clip_probabilities(tempered(rows, temperature, bias)) for rows in self.events])


@dataclass(frozen=True, slots=True)
class _Call:
    """A clip as called in one draw of noise: label probabilities (L,), the label and its probability."""

    clip: _Probabilities
    label: int
    probability: float


@dataclass(frozen=True, slots=True)
class _Training:
    """All clips as one training's families read them, and per fold its (temperature, bias, decision_threshold)."""

    reads: list[Read]
    fits: list[tuple[float, float, float]]

    def calls(self) -> list[list[_Call]]:
        """Of each clip, in each draw."""
        fitted = ((read.draws(*self.fits[read.reader][:2]), self.fits[read.reader][2]) for read in self.reads)
        return [[_Call(row, *_decide(row, decision_threshold)) for row in rows] for rows, decision_threshold in fitted]


def sigma_of(folder: Path, family: Family, profile: str | None) -> tuple[str, Fraction]:
    """Profile name and sigma: of `profile` where given, else of the checkpoint's noise.json, else of its training
    profile."""
    config = family.config
    if profile is not None:
        if profile not in PROFILES:
            raise ConfigError(f"--profile {profile}: known are {', '.join(PROFILES)}")
        return profile, sigma_for(config.clip_norm, PROFILES[profile], config.event_releases)
    path = folder / "noise.json"
    if not path.is_file():
        return config.profile, sigma_for(config.clip_norm, PROFILES[config.profile], config.event_releases)
    try:
        found = json.loads(path.read_text())
        return str(found["profile"]), Fraction(found["sigma"])
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: {error!r}; write it again with calibration.noise") from error


def clip_codes(family: Family, footage: Footage) -> Tensor:
    """Clean codes float (S, K, d) of a clip's slots; they are for noise to be added to and never leave the process."""
    spec = family.config.window
    count = slots(footage.duration, spec)
    encode, parts = Encoder(family), []
    for first in range(0, count, _RUN):
        grid = Grid.of(spec, min(_RUN, count - first))
        last = spec.slot_s * (first + len(grid.index))
        picked = spec.held(footage.times, last - grid.before_s)
        frames = footage.frames[np.maximum(picked, 0)]
        frames[picked < 0] = 0
        parts.append(encode.sequence(frames, grid.index))
    return torch.as_tensor(np.concatenate(parts)).float()


def events_of(z: Tensor, releases: int) -> tuple[Tensor, Tensor]:
    """Releases (D, S, K, d) of D draws -> events (D, E, R, K, d) and their presence bool (E, R): whole ones, or
    one short one."""
    draws, count = z.shape[:2]
    if count < releases:
        padded = torch.zeros(draws, releases, *z.shape[2:])
        padded[:, releases - count :] = z
        present = torch.arange(releases) >= releases - count
        return padded[:, None], present[None]
    stacked = torch.stack([z[:, i : i + releases] for i in range(count - releases + 1)], dim=1)
    return stacked, torch.ones(count - releases + 1, releases, dtype=torch.bool)


@torch.inference_mode()
def event_probabilities(family: Family, z: Tensor, member: str) -> _Probabilities:
    """Noised releases float (D, S, K, d) of D independent draws -> label probabilities float64 (D, E, L) of the
    clip's events."""
    events, present = events_of(z, family.config.event_releases)
    draws, count = events.shape[:2]
    flat, there = events.flatten(0, 1), present.repeat(draws, 1)
    read = {"edge": family.edge_logits, "cloud": family.cloud_logits}[member]
    logits = torch.cat([read(flat[i : i + _BATCH], there[i : i + _BATCH]) for i in range(0, len(flat), _BATCH)])
    return np.asarray(logits.double().softmax(dim=1).reshape(draws, count, -1).cpu().numpy())


def tempered(probabilities: _Probabilities, temperature: float, bias: float) -> _Probabilities:
    """Probabilities (..., L) -> the same of logits over `temperature`, `bias` added to all but the first label's."""
    scaled = np.clip(probabilities, _RAREST, None) ** (1.0 / temperature)
    scaled[..., 1:] *= np.exp(bias)
    return np.asarray(scaled / scaled.sum(axis=-1, keepdims=True))


def clip_probabilities(probabilities: _Probabilities) -> _Probabilities:
    """Event probabilities (E, L) of one clip -> label probabilities (L,) of the clip.

    Odds of each risk against label 0, averaged over the events: what Bayes gives where the risk may be at any of them
    with equal chance. The riskiest event instead would call a clip a risk the more often, the longer it is, since every
    event is another draw of the noise.
    """
    odds = (probabilities / np.clip(probabilities[:, :1], _RAREST, None)).mean(axis=0)
    return np.asarray(odds / odds.sum())


def clip_verdict(probabilities: _Probabilities, decision_threshold: float = 0.5) -> tuple[int, float]:
    """Event probabilities (E, L) of one clip -> (label index, its probability).

    The likeliest risk label by `clip_probabilities` if the risk (1 - P(label 0)) is at least `decision_threshold`,
    else label 0.
    """
    return _decide(clip_probabilities(probabilities), decision_threshold)


def _decide(clip: _Probabilities, decision_threshold: float) -> tuple[int, float]:
    risk = 1.0 - float(clip[0])
    if risk < decision_threshold:
        return 0, 1.0 - risk
    label = 1 + int(np.argmax(clip[1:]))
    return label, float(clip[label])


def calibration_error(clips: Sequence[_Probabilities], truth: Sequence[int], bins: int = 10) -> float:
    """Expected calibration error of risk: mean distance, over `bins` bins of equal width, weighted by what is in them,
    between the stated risk 1 - P(label 0) of each row of `clips` (L,) and the share of risks in the bin."""
    risk, real = 1.0 - np.array([row[0] for row in clips]), np.asarray(truth) > 0
    place = np.minimum((risk * bins).astype(int), bins - 1)
    gaps = [abs(risk[place == k].mean() - real[place == k].mean()) * (place == k).mean() for k in np.unique(place)]
    return float(sum(gaps))


def best_threshold(truth: Sequence[int], clips: Sequence[_Probabilities], sets: Sequence[str]) -> float:
    """The `decision_threshold` with the highest mean of accuracy and risk F1; every set weighs the same, ties go to
    the middle."""
    grid = np.linspace(0.05, 0.95, 91)
    weight = np.array([1.0 / sets.count(name) for name in sets])
    labels = np.asarray(truth)
    scores = []
    for at in grid:
        said = np.array([_decide(row, float(at))[0] for row in clips])
        hits = weight @ ((said > 0) & (labels > 0))
        f1 = 2 * hits / max(1e-9, weight @ (said > 0) + weight @ (labels > 0))
        scores.append(weight @ (said == labels) / weight.sum() + f1)
    best = np.flatnonzero(np.asarray(scores) >= max(scores) - 1e-9)
    return float(grid[best[len(best) // 2]])


def first_verdicts(
    family: Family,
    footage: Footage,
    onset_s: float,
    member: str,
    sigma: float,
    draws: int = 2000,
    label: str = "fall",
    within_s: float = 4.0,
) -> dict[str, float]:
    """Over `draws` noise draws: how often the first event whose likeliest label is `label` ends within
    0..`within_s` s of the onset.

    Whole events only, stride 1, from the slot that completes the first. Returns the shares `in_time`, `early`, `late`
    (after the limit) and `never`, and the median `delay_s` where one came in time.
    """
    clean = clip_codes(family, footage)
    index = family.config.labels.index(label)
    parts = []
    for begin in range(0, draws, 250):
        z = clean[None].expand(min(250, draws - begin), *clean.shape)
        parts.append(event_probabilities(family, z + rounded_gaussian(z, sigma), member).argmax(axis=2) == index)
    named = np.concatenate(parts)  # (D, E)
    slot = family.config.window.slot_s
    ends = slot * (np.arange(named.shape[1]) + min(family.config.event_releases, len(clean)))
    delay = np.where(named.any(axis=1), ends[named.argmax(axis=1)] - onset_s, np.inf)
    in_time = (delay >= 0) & (delay <= within_s)
    return {
        "in_time": float(in_time.mean()),
        "early": float((delay < 0).mean()),
        "late": float((np.isfinite(delay) & (delay > within_s)).mean()),
        "never": float(np.isinf(delay).mean()),
        "delay_s": float(np.median(delay[in_time])) if in_time.any() else float("nan"),
    }


def metrics(truth: Sequence[int], predicted: Sequence[int], positive: Sequence[int]) -> dict[str, float]:
    """n, accuracy over all labels; precision, recall and F1 of "one of `positive`" against the rest.

    0 where undefined.
    """
    t, p = np.asarray(truth), np.asarray(predicted)
    is_true, is_said = np.isin(t, positive), np.isin(p, positive)
    hits = int((is_true & is_said).sum())
    precision = hits / int(is_said.sum()) if is_said.any() else 0.0
    recall = hits / int(is_true.sum()) if is_true.any() else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    accuracy = float((t == p).mean()) if len(t) else 0.0
    return {"n": len(t), "accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1}


def intervals(
    truth: Sequence[int], said: npt.NDArray[np.int64], groups: Sequence[str], resamples: int = 2000
) -> dict[str, list[float]]:
    """95 % intervals of accuracy and risk F1: bootstrap over groups, whose clips stay together, and draws of noise.

    truth (N,), said int64 (N, D), groups (N,). They say how far other clips of the same kind could be, no more.
    """
    rng, (names, member) = np.random.default_rng(0), np.unique(np.asarray(groups), return_inverse=True)
    times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), resamples)[:, member]  # (resamples, N)
    drawn = said[:, rng.integers(0, said.shape[1], resamples)].T  # (resamples, N)
    real = np.asarray(truth)
    hits = (times * ((drawn > 0) & (real > 0))).sum(axis=1)
    f1 = 2 * hits / np.maximum(1, (times * (drawn > 0)).sum(axis=1) + (times * (real > 0)).sum(axis=1))
    accuracy = (times * (drawn == real)).sum(axis=1) / np.maximum(1, times.sum(axis=1))
    found = {"accuracy": accuracy, "f1": f1}
    return {name: [round(float(edge), 4) for edge in np.percentile(row, (2.5, 97.5))] for name, row in found.items()}


def baselines(
    clips: Sequence[Clip], durations: Sequence[float], labels: Sequence[str], folds: int = 3
) -> dict[str, Any]:
    """What needs no look at the picture, on grouped folds: the commonest label, and the labels of the nearest clip
    lengths."""
    truth = np.array([labels.index(clip.label) for clip in clips])
    length = np.log(np.asarray(durations))
    fold = np.array(grouped_folds(clips, folds))
    common, nearest = np.zeros_like(truth), np.zeros_like(truth)
    for index in range(len(truth)):
        rest = np.flatnonzero(fold != fold[index])
        if len(rest) == 0:
            continue
        common[index] = np.bincount(truth[rest]).argmax()
        close = rest[np.argsort(np.abs(length[rest] - length[index]), kind="stable")[:9]]
        nearest[index] = np.bincount(truth[close]).argmax()
    risks = range(1, len(labels))
    sets = sorted({clip.set for clip in clips})
    of_set = {name: np.array([clip.set == name for clip in clips]) for name in sets}
    return {
        "chance": metrics(truth.tolist(), common.tolist(), list(risks)),
        "length_only": metrics(truth.tolist(), nearest.tolist(), list(risks)),
        "length_only_sets": {
            name: metrics(truth[m].tolist(), nearest[m].tolist(), list(risks)) for name, m in of_set.items()
        },
        "folds": folds,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    try:
        run(argv)
    except VeilsightError as error:
        print(f"familial.evaluate: {error}", file=sys.stderr)
        return 2
    return 0


def run(argv: Sequence[str] | None = None) -> None:
    """Evaluate as the command line says: writes the JSON, prints the tables. Raises VeilsightError."""
    args = _parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    if args.fit is not None and not args.folds:
        raise ConfigError("--fit: what is fitted comes from folds; give --folds DIR too")
    trained = [_folds(folder) for folder in args.folds] or [[(checkpoint.load(one), None)] for one in args.checkpoint]
    family = trained[0][0][0]
    labels = family.config.labels
    if any(other.config.labels != labels for families in trained for other, _ in families):
        raise CheckpointError(f"not every family has the labels {', '.join(labels)}; evaluate them one by one")
    profile, exact = sigma_of(args.checkpoint[0], family, args.profile)
    sigma = float(exact) if args.noise == "on" else 0.0
    if args.draws < 1:
        raise ConfigError(f"--draws {args.draws}: how often each clip's noise is drawn; give 1 or more")
    clips = [clip for clip in read_manifests(args.data, labels) if clip.label != UNSCORED]
    trainings = []
    for families in trained:
        reads = _all_read(families, clips, args.member, sigma, args.draws)
        own = [(1.0, 0.0, families[0][0].config.decision_threshold)]
        trainings.append(_Training(reads, _fits(reads, labels) if args.folds else own))
    fits = [fit for training in trainings for fit in training.fits]
    if args.fit is not None:
        _write_fits(args.fit, fits)
    s_release = float(family.config.clip_norm / exact)
    reads = trainings[0].reads
    summary = {
        "member": args.member,
        "noise": args.noise,
        "profile": profile,
        "S_release": s_release,
        "S_event": s_release * family.config.event_releases**0.5,
        "S_used": s_release * max(read.releases for read in reads) ** 0.5,
        **_summary(trainings, labels),
        "baselines": baselines(clips, [read.duration for read in reads], labels),
        "left_out": bool(args.folds),
        "temperature": [fit[0] for fit in fits],
        "bias": [fit[1] for fit in fits],
        "decision_threshold": [fit[2] for fit in fits],
    }
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(summary, indent=1) + "\n")
    _print(summary)


def _folds(folder: Path) -> list[tuple[Family, set[str] | None]]:
    """The families of a training in folds, with the clips that each may be scored on: those it left out."""
    parts = sorted(folder.glob("fold-*/left_out.json"))
    if not parts:
        raise CheckpointError(
            f"{folder}: no fold-*/left_out.json; make them with familial.train --folds N --out {folder}"
        )
    return [(checkpoint.load(part.parent), set(json.loads(part.read_text()))) for part in parts]


def _all_read(
    families: Sequence[tuple[Family, set[str] | None]], clips: Sequence[Clip], member: str, sigma: float, draws: int
) -> list[Read]:
    reads = []
    for index, clip in enumerate(clips):
        reads.append(_read(families, clip, member, sigma, draws))
        if sys.stderr.isatty():
            print(f"\r{index + 1}/{len(clips)}", end="", file=sys.stderr, flush=True)
    return reads


def _read(
    families: Sequence[tuple[Family, set[str] | None]], clip: Clip, member: str, sigma: float, draws: int
) -> Read:
    reader = next((i for i, (_, names) in enumerate(families) if names is None or clip.name in names), None)
    if reader is None:
        raise CheckpointError(f"{clip.name} was left out of no fold: it would be scored by a family trained on it")
    family = families[reader][0]
    footage = read_clip(clip.file, family.config.window)
    clean = clip_codes(family, footage)
    z = clean[None].repeat(draws if sigma else 1, 1, 1, 1)
    if sigma:  # another profile's noise is read by its weight, as the bridge does
        z = (z + rounded_gaussian(z, sigma)) * (family.config.sigma / sigma) ** 2
    return Read(clip, event_probabilities(family, z, member), reader, len(clean), footage.duration)


def _fits(reads: Sequence[Read], labels: Sequence[str]) -> list[tuple[float, float, float]]:
    """Per fold (temperature, bias, decision_threshold), from what the OTHER folds left out: no clip has a say in its
    own.

    The first two make the clips' labels likeliest, risk and normal equally frequent; the last is `best_threshold`.
    """
    found = []
    for fold in range(1 + max(read.reader for read in reads)):
        others = [read for read in reads if read.reader != fold]
        found.append(_fit(others, labels) if others else (1.0, 0.0, 0.5))
    return found


def _fit(reads: Sequence[Read], labels: Sequence[str]) -> tuple[float, float, float]:
    truth = np.array([labels.index(read.clip.label) for read in reads])
    risky = float((truth > 0).mean())
    weight = np.where(truth > 0, 0.5 / max(risky, 1e-9), 0.5 / max(1.0 - risky, 1e-9))

    def loss(temperature: float, bias: float) -> float:
        said = np.stack([read.draws(temperature, bias) for read in reads])  # (N, D, L)
        named = np.take_along_axis(said, truth[:, None, None], axis=2)[:, :, 0]
        return float(-(weight[:, None] * np.log(np.clip(named, _RAREST, None))).mean())

    temperature, bias = 1.0, 0.0
    for _ in range(2):  # one after the other, twice: the two hardly depend on each other
        temperature = min(_TEMPERATURES, key=lambda value: loss(value, bias))
        bias = min(_BIASES, key=lambda value: loss(temperature, value))
    named = zip(truth.tolist(), reads, strict=True)
    rows = [(label, row, read.clip.set) for label, read in named for row in read.draws(temperature, bias)]
    return temperature, bias, best_threshold(*zip(*rows, strict=True))


def _write_fits(folder: Path, fits: Sequence[tuple[float, float, float]]) -> None:
    """The folds' mean temperature, bias and limit into the config of `folder`, whose own ones they correct."""
    temperature, bias, decision_threshold = (float(np.mean(column)) for column in zip(*fits, strict=True))
    config = FamilyConfig.load(folder / CONFIG)
    leans = tuple(round(old / temperature + bias * (index > 0), 4) for index, old in enumerate(config.label_bias))
    made = replace(
        config,
        temperature=round(config.temperature * temperature, 4),
        label_bias=leans,
        decision_threshold=round(decision_threshold, 4),
    )
    made.save(folder / CONFIG)
    print(f"{folder}: temperature {made.temperature}, bias {leans}, a clip is a risk from {made.decision_threshold} on")


def _summary(trainings: Sequence[_Training], labels: Sequence[str]) -> dict[str, Any]:
    """Tables of the first training's first draw; means, intervals and calibration over all draws of all trainings."""
    reads = trainings[0].reads
    of_each = zip(*(training.calls() for training in trainings), strict=True)
    calls = [[call for draws in of_clip for call in draws] for of_clip in of_each]  # per clip: every draw of every one
    truth = np.array([labels.index(read.clip.label) for read in reads])
    every = np.array([[call.label for call in row] for row in calls])  # (clips, draws)
    draws = every.shape[1] // len(trainings)
    groups = np.array([f"{read.clip.set}/{read.clip.group}" for read in reads])
    risks = list(range(1, len(labels)))

    def tables(rows: npt.NDArray[np.int64]) -> list[dict[str, float]]:
        return [metrics(truth[rows].tolist(), column.tolist(), risks) for column in every[rows].T]

    def within(rows: npt.NDArray[np.int64]) -> dict[str, list[float]]:
        return intervals(truth[rows].tolist(), every[rows], groups[rows].tolist())

    set_of, whole = np.array([read.clip.set for read in reads]), np.arange(len(reads))
    rows_of = {name: np.flatnonzero(set_of == name) for name in sorted(set(set_of.tolist()))}
    by_draw, sets = tables(whole), {name: tables(rows) for name, rows in rows_of.items()}
    return {
        "overall": by_draw[0],
        "sets": {name: found[0] for name, found in sets.items()},
        "intervals": {**{name: within(rows) for name, rows in rows_of.items()}, "overall": within(whole)},
        "labels": {label: metrics(truth.tolist(), every[:, 0].tolist(), [index]) for index, label in enumerate(labels)},
        "repeats": {"draws": every.shape[1], **_spread(by_draw)},
        "sets_repeats": {name: _spread(found) for name, found in sets.items()},
        "trainings": [_spread(by_draw[k : k + draws]) for k in range(0, every.shape[1], draws)],
        "calibration_error": calibration_error(
            [call.clip for row in calls for call in row], truth.repeat(every.shape[1]).tolist()
        ),
        "clips": [
            {
                "file": read.clip.name,
                "label": read.clip.label,
                "predicted": labels[row[0].label],
                "probability": round(row[0].probability, 4),
                "releases": read.releases,
            }
            for read, row in zip(reads, calls, strict=True)
        ],
    }


def _spread(tables: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation, over draws, of accuracy and risk F1."""
    columns = {key: [table[key] for table in tables] for key in ("accuracy", "f1")}
    return {key: {"mean": float(np.mean(one)), "sd": float(np.std(one))} for key, one in columns.items()}


def _print(summary: dict[str, Any]) -> None:
    print(
        f"{summary['member']} member, noise {summary['noise']}, profile {summary['profile']}, "
        f"S per event {summary['S_event']:.2f}"
    )
    rows = [
        ("all", summary["overall"]),
        *summary["sets"].items(),
        *(("label " + k, v) for k, v in summary["labels"].items()),
    ]
    rows += [("chance", summary["baselines"]["chance"]), ("length only", summary["baselines"]["length_only"])]
    print(f"{'':16}{'n':>5}{'accuracy':>10}{'precision':>11}{'recall':>8}{'F1':>7}{'mean F1':>9}{'95 %':>16}")
    spread = {"all": summary["intervals"]["overall"], **summary["intervals"]}
    means = {"all": summary["repeats"], **summary["sets_repeats"]}
    for name, m in rows:
        figures = f"{m['accuracy']:10.3f}{m['precision']:11.3f}{m['recall']:8.3f}{m['f1']:7.3f}"
        if name in means:
            low, high = spread[name]["f1"]
            figures += f"{means[name]['f1']['mean']:9.3f}{f'{low:.3f} to {high:.3f}':>16}"
        print(f"{name:16}{m['n']:5}{figures}")
    print(f"expected calibration error of the clips' risk: {summary['calibration_error']:.3f}")
    trainings = summary["trainings"]
    print(_words(f"over {summary['repeats']['draws']} noise draws", summary["repeats"]))
    for number, training in enumerate(trainings if len(trainings) > 1 else [], 1):
        print(_words(f"training {number}", training))


def _words(what: str, spread: dict[str, Any]) -> str:
    accuracy, f1 = spread["accuracy"], spread["f1"]
    return f"{what}: accuracy {accuracy['mean']:.3f} +- {accuracy['sd']:.3f}, F1 {f1['mean']:.3f} +- {f1['sd']:.3f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m familial.evaluate", description="Accuracy, precision, recall, F1 per label and set."
    )
    default = Path(__file__).resolve().parents[2] / "checkpoints" / "nano"
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        type=Path,
        default=[default],
        metavar="DIR",
        help="several: the same training with other seeds",
    )
    parser.add_argument(
        "--folds",
        nargs="+",
        type=Path,
        default=[],
        metavar="DIR",
        help="score each clip by the family of familial.train --folds that left it out; several: as --checkpoint",
    )
    parser.add_argument(
        "--fit",
        type=Path,
        metavar="DIR",
        help="with --folds: write the folds' temperature, bias and limit into this checkpoint, trained on all clips",
    )
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="MANIFEST.csv")
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--member", choices=("edge", "cloud"), default="cloud")
    parser.add_argument("--noise", choices=("on", "off"), default="on")
    parser.add_argument("--profile", metavar="NAME", help=f"one of {', '.join(PROFILES)}; default: the checkpoint's")
    parser.add_argument("--draws", type=int, default=5, help="of noise, for each clip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    return parser
