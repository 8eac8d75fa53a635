"""`python -m benchmarks.side_channel`: does anything but the noised content reveal the scene?

    random scenes, slot by slot --> the real edge process --> broker --> listener --> classifiers --> which scene?

The listener has everything that a network shows: on which topics messages came in a slot, when, how long each was,
every field but z and the signature (a message holds nothing else: it is canonical, or it does not open), and the slots
without any message. Runs: an idle machine, a loaded one, a budget that is spent on the way, a live stream whose
frames come in time, in bursts or not at all, and hostile eyes that load the processor, sleep or die when it is dark, on
an idle machine and beside eight busy processes. For those the release times are judged alone, too: the area under their
ROC curve as a test of darkness, with its interval. A logistic regression and a forest of random trees learn from some
slots and name the others; a channel is closed where the lower end of the exact confidence interval of their share is
not above the share of the commonest scene.

Controls: the same classifiers on sizes and times that were tampered with, down to the smallest change that they find,
and on a process that was made to wait before it publishes a dark scene. The verdict is a function of z and is not
compared with chance: it is computed again from the published z.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.broker import Tap
from benchmarks.harness import Rig, add_engine, engine_folder, running_rig
from benchmarks.listener import Listener
from benchmarks.privacy.side_channel_classifiers import (
    FALSE_ALARM,
    LAGS_OF_AN_EYE,
    Finding,
    classify_slots,
    told_by_time,
    worst,
)
from benchmarks.privacy.side_channel_streams import SCENES, Labels, Stream, load, start, write_clip
from benchmarks.privacy.side_channel_view import Seen, by_the_kernel, observe, recomputed, tampered
from benchmarks.runner import Benchmark, Report
from wire.arguments import at_least_one
from wire.errors import VeilsightError
from wire.privacy.certificate import bits

__all__ = ["COMMAND", "planted_delays"]

_DELAYS_MS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_EYES = ("loads", "sleeps", "dies-by-division")
_LOAD = 8
_SLOT_S = 0.25  # a slot of the runs that play a file takes at least so long


def _is_dark(labels: Labels) -> Labels:
    return np.where(labels == SCENES.index("dark"), 1, 0).astype(np.int64)


def planted_delays(seen: Seen, labels: Labels) -> dict[float, bool]:
    """Milliseconds by which the releases of a dark scene were made later, and whether that was found."""
    dark, where = _is_dark(labels), np.zeros(len(seen.rows), bool)
    where[: len(labels)] = dark[: len(seen.rows)] == 1
    delays = {}
    for ms in _DELAYS_MS:
        later = tampered(seen, "features: late", where, ms / 1000)
        delays[ms] = worst(classify_slots(later, dark, lags=(0,))).leaks
    return delays


@dataclass
class _Campaign:
    """The runs of the benchmark: where they are kept, and what they share."""

    folder: Path
    rig: Rig
    listener: Listener
    slots: int

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng()
        self.slot_s = self.rig.manifest.window.slot_s
        self.speed = max(1.0, self.slot_s / _SLOT_S)
        self.labels = self.rng.permutation(np.arange(self.slots) % len(SCENES))
        self.clip = write_clip(
            self.folder / "clip.mp4", self.labels, self.slot_s, 10.0 if self.slot_s >= 1 else 25.0, self.rng
        )
        self.followed, self.areas = [0, 0], dict[str, tuple[float, tuple[float, float]]]()

    def play(self, camera: str, **how: Any) -> Seen:
        """The clip through the edge process."""
        limit_s = 60 + 3 * self.slots * self.slot_s / self.speed
        with start(self.rig, str(self.clip), camera, speed=self.speed, **how) as edge:
            if edge.wait(limit_s) != 0:
                raise VeilsightError(edge.output()[-2000:])
        return self.look(camera, self.speed)

    def look(self, camera: str, speed: float) -> Seen:
        """What was heard of a camera; its verdicts are computed again on the way."""
        time.sleep(0.5)
        records = self.listener.records()
        for k, count in enumerate(recomputed(records, self.rig, camera)):
            self.followed[k] += count
        return observe(records, self.rig, camera, self.slot_s, speed)

    def hostile(self, eye: str, busy: int) -> list[Finding]:
        """The clip before a hostile eye, with so many busy processes; what its release times tell is in `areas`."""
        name = f"{eye}-{busy}"
        with load(busy) if busy else contextlib.nullcontext(), Tap(self.rig.broker, keep=True) as tap:
            heard = self.play(name, eye=eye, windows=self.slots, broker=tap)
            seen = by_the_kernel(heard, tap.released, self.slot_s / self.speed)
        dark = _is_dark(self.labels)
        self.areas[name] = told_by_time(seen, dark == 1)
        return classify_slots(seen, dark, lags=LAGS_OF_AN_EYE)

    def spend(self) -> str:
        """Configuration with a budget for an hour that a third of the run's releases spend."""
        price = bits(float(self.rig.manifest.clip_norm / self.rig.manifest.sigma))
        return f'[privacy]\nbits_per_hour = {self.slots / 3 * price}\nover_budget = "cut"\n'

    def stream(self) -> tuple[Seen, Labels, Labels]:
        """A live stream for half as many slots: (seen, scenes, arrivals)."""
        with Stream(self.slot_s) as stream:
            with start(self.rig, stream.url, "stream", windows=self.slots // 2) as edge:
                if edge.wait(60 + 2 * self.slots * self.slot_s) != 0:
                    raise VeilsightError(edge.output()[-2000:])
            seen = self.look("stream", 1.0)
            scenes, arrivals = stream.labels(seen.begin + (np.arange(len(seen.rows)) + 0.5) * self.slot_s)
        return seen, scenes, arrivals


def _options(parser: argparse.ArgumentParser) -> None:
    add_engine(parser)
    parser.add_argument("--slots", type=at_least_one, default=400, help="slots of each run; of the live one half")


def _measure(args: argparse.Namespace) -> Report:
    with running_rig("side-channel", engine_folder(args)) as (rig, listener):
        return _report(_Campaign(rig.folder, rig, listener, args.slots))


def _report(campaign: _Campaign) -> Report:
    idle = campaign.play("idle")
    found = _runs(campaign, idle)
    controls = _controls(campaign, idle)
    delays = planted_delays(idle, campaign.labels)
    least = min((ms for ms, seen in delays.items() if seen), default=None)
    same, all_verdicts = campaign.followed
    rows = [["run", "slots", "best named", "interval", "chance", "verdict"]]
    figures: dict[str, Any] = {"least_delay_found_ms": least, "verdicts_from_z": [same, all_verdicts]}
    for kind, runs, words in (("runs", found, ("LEAKS", "closed")), ("controls", controls, ("found", "MISSED"))):
        figures[kind] = {name: _figures(all_found) for name, all_found in runs.items()}
        rows += [_row(name, worst(all_found), words) for name, all_found in runs.items()]
    figures["auc_of_times"] = {
        name: {"auc": round(area, 4), "ci": [round(low, 4), round(high, 4)]}
        for name, (area, (low, high)) in campaign.areas.items()
    }
    notes = [
        "AUC of release times, dark or not: "
        + ", ".join(
            f"{name} {area:.3f} ({low:.3f} to {high:.3f})" for name, (area, (low, high)) in campaign.areas.items()
        ),
        f"{same} of {all_verdicts} verdicts follow from the published z",
        f"the least delay of one scene's releases that the classifiers still find: {least} ms",
        f"intervals are exact, either end passed with probability {FALSE_ALARM:g} at most; shown is the worst of all "
        "classifiers and lags",
    ]
    wrong = [f"{name}: a listener tells the scenes apart" for name, each in found.items() if worst(each).leaks]
    wrong += [f"control {name}: not found" for name, each in controls.items() if not worst(each).leaks]
    wrong += [f"{all_verdicts - same} verdicts do not follow from the published z"] if same != all_verdicts else []
    ratio = max(top.share / top.chance for each in found.values() for top in [worst(each)])
    return Report(ratio, figures, rows, notes, wrong)


def _runs(campaign: _Campaign, idle: Seen) -> dict[str, list[Finding]]:
    """Runs of a sound process, in which nothing may be found."""
    found = {"idle machine": classify_slots(idle, campaign.labels)}
    with load():
        found["loaded machine"] = classify_slots(campaign.play("loaded"), campaign.labels)
    spent = campaign.play("spent", extra=campaign.spend())
    found["budget spent on the way"] = classify_slots(spent, campaign.labels)
    found["after it was spent"] = classify_slots(spent, campaign.labels, spent.spent)
    for eye in _EYES:
        found[f"an eye that {eye} in the dark"] = campaign.hostile(eye, 0)
        found[f"the same at load {_LOAD}: {eye}"] = campaign.hostile(eye, _LOAD)
    stream, scenes, arrivals = campaign.stream()
    found["live stream: scene"] = classify_slots(stream, scenes)
    found["live stream: arrival of frames"] = classify_slots(stream, arrivals)
    return found


def _controls(campaign: _Campaign, idle: Seen) -> dict[str, list[Finding]]:
    """Leaks that were planted, all of which must be found."""
    labels = campaign.labels
    crowd = np.zeros(len(idle.rows), bool)
    crowd[: len(labels)] = labels[: len(idle.rows)] == SCENES.index("crowd")
    larger, silent = tampered(idle, "features: size", crowd, 1.0), tampered(idle, "features: late", crowd, math.nan)
    return {
        "control: a byte more for a crowd": classify_slots(larger, labels, lags=(0,)),
        "control: no release for a crowd": classify_slots(silent, labels, lags=(0,)),
        "control: a process that waits in the dark": classify_slots(
            campaign.play("leaky", eye="tells"), _is_dark(labels)
        ),
    }


def _row(name: str, top: Finding, words: tuple[str, str]) -> list[str]:
    """Cells of a run; words: what is said where the scene was found, and where it was not."""
    shown = f"{top.share:.3f} ({top.classifier}, {top.lag} on)"
    interval = f"{top.low:.3f} to {top.high:.3f}"
    return [name, str(top.count), shown, interval, f"{top.chance:.3f}", words[0] if top.leaks else words[1]]


def _figures(found: Sequence[Finding]) -> Mapping[str, Any]:
    top = worst(found)
    return {
        "n": top.count,
        "share": round(top.share, 4),
        "ci": [round(top.low, 4), round(top.high, 4)],
        "chance": round(top.chance, 4),
        "tests": len(found),
        "leaks": top.leaks,
    }


COMMAND = Benchmark("side_channel", __doc__, "chance", _options, _measure)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
