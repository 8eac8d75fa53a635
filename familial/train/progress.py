"""Progress of a training: its clock and stages, its curve, and the state from which --resume continues.

TrainConfig --> Clock (stage, share done, learning rate factor)
losses of steps --> Curve: a line, a CSV row and TensorBoard's scalars every half minute, and how long it still takes
weights, average, optimiser --> State: one file, replaced atomically, read again by --resume
"""

from __future__ import annotations

import csv
import math
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from familial.data.clips import CACHE
from familial.train.board import Board
from familial.train.budget import Budget, minutes_text
from familial.train.config import TrainConfig
from wire import files
from wire.errors import CheckpointError

__all__ = ["Clock", "Curve", "State", "run_folder"]

_WARM_UP = 100  # steps over which the learning rate rises
_EVERY_S = 30  # between lines of the curve
_BETWEEN = 9.0  # times what the last scores took, before the next


def run_folder(out: Path) -> Path:
    """Make and return the folder for curve and state of a training whose checkpoint goes to `out`."""
    folder = CACHE.parent / "train" / f"{out.resolve().parent.name}-{out.name}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Clock:
    """Steps and seconds of stages 1 and 2.

    Args:
        config: how long.
        budget: of the whole training.
        step: steps that were made before this process.
        spent: seconds that they took.

    Attributes:
        kept: seconds of the budget that are for what comes after these stages; may change at any time.
    """

    def __init__(self, config: TrainConfig, budget: Budget, step: int, spent: float) -> None:
        self.config, self.budget, self.step, self.kept = config, budget, step, 0.0
        self._first, self._spent_before, self._began = step, spent, budget.now()

    @property
    def spent(self) -> float:
        """Seconds of stages 1 and 2, validation included."""
        return self._spent_before + self.budget.now() - self._began

    @property
    def done(self) -> float:
        """Share of the time before the clip stage, from 0; at 1 it is over."""
        config, spent, left = self.config, self.spent, max(0.0, self.budget.left - self.kept)
        by_time = spent / (spent + left) if left else 1.0
        return self.step / config.steps if config.steps and by_time < 1.0 else by_time

    @property
    def left(self) -> float:
        """Seconds until the checkpoint is written, as it looks now."""
        made = self.step - self._first
        if not self.config.steps or not made:
            return self.budget.left
        by_steps = (self.config.steps - self.step) * (self.budget.now() - self._began) / made
        return min(self.budget.left, by_steps + self.kept)

    @property
    def stage(self) -> int:
        """1 or 2."""
        return 1 if self.done * (1.0 - self.config.clip_stage) < self.config.stage_1 else 2

    @property
    def lr_factor(self) -> float:
        """Share of the highest learning rate: a linear warm-up, then down along a cosine."""
        return min(1.0, self.step / _WARM_UP + 0.02) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, self.done)))


class Curve:
    """Progress for people (a line every half minute) and for machines (the same as a CSV row, and for TensorBoard).

    Validation takes at most a tenth of the time: lines in between have no scores.

    Args:
        path: of the CSV file.
        fresh: begin the file anew.
    """

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
        "motion",
        "people",
        "agree",
        "far",
        "pose",
        "outline",
        "edge",
        "cloud",
        "caption",
        "shares",
        "link",
        "linked",
        "val_release",
        "val_edge",
        "val_cloud",
        "val_edge_full",
        "val_cloud_full",
    )

    def __init__(self, path: Path, fresh: bool) -> None:
        self.path, self.sums, self.counts = path, dict[str, float](), dict[str, int]()
        self.head, self.shown, self.left = dict[str, float](), time.monotonic(), 0.0
        self._board = Board(path.parent / "tensorboard", fresh)
        self._scored_at, self._scoring = -math.inf, 0.0
        if fresh:
            path.write_text(",".join(self._FIELDS) + "\n")

    def add(self, clock: Clock, losses: dict[str, float]) -> None:
        """Add one step's losses; means are shown."""
        self.left = clock.left
        self.head = {"step": clock.step, "seconds": round(clock.spent, 1), "done": round(clock.done, 4)}
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def due(self) -> bool:
        """Tell whether half a minute has passed since the last line."""
        return time.monotonic() - self.shown > _EVERY_S

    def scores(self, scored: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Return what `scored` gives, or nothing where that has taken more than a tenth of the time."""
        began = time.monotonic()
        if began - self._scored_at < _BETWEEN * self._scoring:
            return {}
        found = scored()
        self._scored_at, self._scoring = time.monotonic(), time.monotonic() - began
        return found

    def show(self, scores: dict[str, float]) -> None:
        """Print and write the means since the last time, with `scores` of the validation set."""
        means = {name: round(self.sums[name] / self.counts[name], 4) for name in self.sums}
        row = self.head | means | {name: round(value, 4) for name, value in scores.items()}
        left = f"about {minutes_text(self.left)} left"
        print("  ".join([*(f"{name} {value}" for name, value in row.items()), left]), flush=True)
        self._board.add(row)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._FIELDS, restval="").writerow(row)
        self.sums, self.counts, self.shown = {}, {}, time.monotonic()


@dataclass(frozen=True, slots=True)
class State:
    """What --resume goes on from.

    Attributes:
        path: of the file.
        modules: name -> module whose weights are saved and loaded.
        optimiser: of their parameters.
    """

    path: Path
    modules: dict[str, nn.Module]
    optimiser: torch.optim.Optimizer

    def save(self, step: int, spent: float) -> None:
        """Replace the file by the state after `step` steps and `spent` training seconds."""
        states = {name: module.state_dict() for name, module in self.modules.items()}
        with files.whole_file(self.path) as beside:
            torch.save(states | {"optimiser": self.optimiser.state_dict(), "step": step, "spent": spent}, beside)

    def discard(self) -> tuple[int, float]:
        """Delete the state of an earlier training, so that --resume never goes on from it; return 0 steps, 0.0 s."""
        self.path.unlink(missing_ok=True)
        return 0, 0.0

    def load(self) -> tuple[int, float]:
        """Load the file into modules and optimiser, where there is one; return steps and training seconds.

        Raises:
            CheckpointError: it is damaged, or the state of another training.
        """
        if not self.path.is_file():
            return 0, 0.0
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            for name, module in self.modules.items():
                module.load_state_dict(state[name])
            self.optimiser.load_state_dict(state["optimiser"])
            step, spent = int(state["step"]), float(state["spent"])
        except (LookupError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            cure = "train without --resume, or with the options it was begun with"
            why = str(error).splitlines()[0]
            raise CheckpointError(f"{self.path}: not a state of this family ({why}); {cure}") from error
        print(f"resumed at step {step}", flush=True)
        return step, spent
