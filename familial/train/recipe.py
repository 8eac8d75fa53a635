"""A recipe: the trainings that make a checkpoint, one after the other, each from the weights of the one before.

    recipe.toml --[[run]] by [[run]]--> options of `familial.train` --its own parser--> arguments of each run

    [[run]]
    rendered = 300      keys are the options, - written as _; `true` is an option without a value
    data = true         the --data of the command line goes here, and must be given

Options of the command line hold for every run and override the recipe. --out and --folds are those of the last run,
--base that of the first.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from wire.artifact.checkpoint import weight_files
from wire.errors import ConfigError
from wire.settings import parse_toml

__all__ = ["FORMER_KEYS", "trainings"]

FORMER_KEYS = {
    "rate": "lr",
    "runs": "batch_size",
    "readings": "samples_per_sequence",
    "whole": "clip_stage",
    "lean": "logit_bias",
    "risk_at": "decision_threshold",
    "drawers": "workers",
    "answers": "attributes",
}
"""Options and recipe keys by the names they had one version ago."""

_CURE = "write it as familial/train/recipe.py says"
_NEVER = ("base", "fold", "folds", "out", "recipe", "resume")  # given by the command line alone


def trainings(
    path: Path, parser: argparse.ArgumentParser, argv: Sequence[str], work: Path
) -> Iterator[argparse.Namespace]:
    """Yield the arguments of each run of a recipe that is still to be made; make it before you ask for the next.

    Args:
        path: of the recipe.
        parser: raises ConfigError for an argument that it refuses.
        argv: the command line.
        work: folder for the weights of runs before the last; with --resume those that are there are not made again.

    Raises:
        ConfigError: before the first run.
    """
    given = parser.parse_args(argv)
    tables = _tables(path, set(vars(given)))
    if bool(given.data) != any("data" in table for table in tables):
        raise ConfigError(f"{path}: {'no run takes --data' if given.data else 'a run takes clips; give --data'}")
    plans = [_arguments(path, number, table, parser, argv) for number, table in enumerate(tables, 1)]
    for number, (plan, after) in enumerate(pairwise(plans), 1):
        plan.out = after.base = work / f"run-{number}"
        plan.folds, plan.fold = 0, None
        if not given.resume:
            shutil.rmtree(plan.out, ignore_errors=True)
    resume = given.resume
    for number, plan in enumerate(plans, 1):
        made = number < len(plans) and all((plan.out / name).is_file() for name in weight_files(plan.out))
        print(f"run {number} of {len(plans)}: {'made before' if made else 'begins'}", flush=True)
        if not made:
            plan.resume, resume = resume, False  # what comes after a run made now was not begun before
            yield plan


def _tables(path: Path, known: set[str]) -> list[dict[str, Any]]:
    """Return the runs, with keys that are allowed, by their present names, and values that an option can have."""
    document = parse_toml(path, {}, _CURE)
    found = document.get("run")
    tables = found if isinstance(found, list) else []
    if set(document) != {"run"} or not tables or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{path}: holds {', '.join(document) or 'nothing'}; expected [[run]] alone; {_CURE}")
    tables = [{FORMER_KEYS.get(key, key): value for key, value in table.items()} for table in tables]
    for number, table in enumerate(tables, 1):
        for key, value in table.items():
            if key not in known or key in _NEVER:
                may = ", ".join(sorted(known.difference(_NEVER)))
                raise ConfigError(f"{path}: run {number}: {key} is no key of a run; there are {may}")
            odd = key == "data" and value is not True
            if odd or value is False or not isinstance(value, (bool, int, float, str)):
                raise ConfigError(f"{path}: run {number}: {key} is {value!r}; {_CURE}")
    return tables


def _arguments(
    path: Path, number: int, table: Mapping[str, Any], parser: argparse.ArgumentParser, argv: Sequence[str]
) -> argparse.Namespace:
    options = [
        f"--{key.replace('_', '-')}" + ("" if value is True else f"={value}")
        for key, value in table.items()
        if key != "data"
    ]
    try:
        plan = parser.parse_args([*options, *argv])
    except ConfigError as error:
        raise ConfigError(f"{path}: run {number}: {error}") from error
    plan.data = plan.data if "data" in table else []
    return plan
