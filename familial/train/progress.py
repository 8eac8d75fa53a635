"""A training's progress: how long it goes, where it stands, what people and --resume are given of it.

Plan --> Clock (stage, share done, learning rate)
losses of steps --> Curve: a line and a CSV row every half minute
weights, averages, optimiser --> State: written in one move, read again by --resume
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from wire.errors import CheckpointError
from wire.files import whole_file

__all__ = ["Clock", "Curve", "Plan", "State"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how large. minutes: wall clock of one family; steps: at most so many (0 = no limit); stage_1, whole:
    shares of it for single windows and, at the end, whole clips; bodies, adversary: weights of these losses;
    decision_threshold:
    the config's limit for a clip, None to fit it on held-out clips; lean: added to a risk's log odds once they are
    fitted; device: torch's name of what computes; workers: processes that draw batches, 0 for a thread."""

    minutes: float
    steps: int
    runs: int
    readings: int
    stage_1: float
    whole: float
    bodies: float
    adversary: float
    rate: float
    seed: int
    bf16: bool
    warm: bool
    device: str = "cpu"
    workers: int = 0
    decision_threshold: float | None = None
    logit_bias: float = 0.0


class Clock:
    """Steps and training seconds; `done`: share of the plan's time before the readers', 0..1; `stage` 1 or 2."""

    def __init__(self, plan: Plan, step: int, spent: float) -> None:
        self.plan, self.step, self.reading, self._began = plan, step, False, time.monotonic() - spent

    @property
    def spent(self) -> float:
        return time.monotonic() - self._began

    @property
    def done(self) -> float:
        plan = self.plan
        by_time = self.spent / (60 * plan.minutes * (1.0 - plan.whole))
        return self.step / plan.steps if plan.steps and by_time < 1.0 else by_time

    @property
    def stage(self) -> int:
        return 1 if self.done * (1.0 - self.plan.whole) < self.plan.stage_1 else 2

    @property
    def pace(self) -> float:
        """Of the learning rate: up over the first steps, then down along a cosine."""
        return min(1.0, self.step / 100 + 0.02) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, self.done)))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside takes no training time."""
        began = time.monotonic()
        yield
        self._began += time.monotonic() - began


class Curve:
    """Progress for people (a line every half minute) and for machines (the same as a CSV row)."""

    _FIELDS = (
        "step",
        "seconds",
        "done",
        "clean",
        "weak",
        "attribute",
        "size",
        "now",
        "count",
        "tags",
        "pose",
        "outline",
        "edge",
        "cloud",
        "caption",
        "shares",
        "link",
        "linked",
        "held_release",
        "held_edge",
        "held_cloud",
        "held_edge_whole",
        "held_cloud_whole",
    )

    def __init__(self, path: Path, fresh: bool) -> None:
        self.path, self.sums, self.counts = path, dict[str, float](), dict[str, int]()
        self.head, self.shown = dict[str, float](), time.monotonic()
        if fresh:
            path.write_text(",".join(self._FIELDS) + "\n")

    def add(self, clock: Clock, losses: dict[str, float]) -> None:
        """One step's losses; means are shown."""
        self.head = {"step": clock.step, "seconds": round(clock.spent, 1), "done": round(clock.done, 4)}
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def due(self) -> bool:
        """Whether half a minute has passed since the last line."""
        return time.monotonic() - self.shown > 30

    def show(self, scores: dict[str, float]) -> None:
        """Print and write the means since the last time, with `scores` of the held-out takes."""
        means = {name: round(self.sums[name] / self.counts[name], 4) for name in self.sums}
        row = self.head | means | {name: round(value, 4) for name, value in scores.items()}
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._FIELDS, restval="").writerow(row)
        self.sums, self.counts, self.shown = {}, {}, time.monotonic()


@dataclass(frozen=True, slots=True)
class State:
    """What --resume goes on from, written in one move."""

    path: Path
    modules: dict[str, nn.Module]
    optimiser: torch.optim.Optimizer

    def store(self, step: int, spent: float) -> None:
        """Write all of it."""
        states = {name: module.state_dict() for name, module in self.modules.items()}
        with whole_file(self.path) as beside:
            torch.save(states | {"optimiser": self.optimiser.state_dict(), "step": step, "spent": spent}, beside)

    def forgotten(self) -> tuple[int, float]:
        """Remove what a run before this one has left, so that --resume never goes on from it -> 0, 0.0."""
        self.path.unlink(missing_ok=True)
        return 0, 0.0

    def restored(self) -> tuple[int, float]:
        """Read it, where there is one -> step, training seconds."""
        if not self.path.is_file():
            return 0, 0.0
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        try:
            for name, module in self.modules.items():
                module.load_state_dict(state[name])
            self.optimiser.load_state_dict(state["optimiser"])
        except (KeyError, RuntimeError, ValueError) as error:
            cure = "train without --resume, or with the options it was begun with"
            why = str(error).splitlines()[0]
            raise CheckpointError(f"{self.path}: not a state of this family ({why}); {cure}") from error
        print(f"resumed at step {state['step']}", flush=True)
        return int(state["step"]), float(state["spent"])
