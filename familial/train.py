"""Training, one visible loop: first what a window says, then what eight noisy windows say.

    stage 1  windows -> tower -> desensitizer -> code + noise -> which label's pole?   trains these two
    bank     every take encoded a few times by the averaged tower; codes are integers from here on
    stage 2  8 codes + fresh noise -> lifter -> backbone -> both exits and the caption   trains the rest

The noise is on in both, at the config's profile; rounding is passed straight through. Progress is a line and a CSV
row every few seconds; --resume goes on from the last saved state. With --folds N, N families are trained that each
leave one part of the groups out, for `familial.evaluate --folds`.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from wire.errors import ConfigError

from . import checkpoint
from .config import FamilyConfig, nano
from .data.batches import Releases, draw_releases, make_bank
from .data.clips import CACHE, UNSCORED, grouped_folds, read_manifests
from .data.events import Take
from .data.takes import clip_takes, rendered_takes
from .encoder import Encoder
from .family import Family, edge_exit
from .losses import (
    clean_loss,
    event_loss,
    pole_plane,
    poles,
    release_loss,
    rounded_gaussian,
    size_loss,
    weak_loss,
)
from .vocabulary import FIRST_LABEL, Vocabulary

__all__ = ["Plan", "main", "train"]

_HELD_OUT_SEED = 1_000_000  # rendered clips from here on are never trained on
_AVERAGED = 1.0  # stage 1 sees the noise of a mean over so many releases
_SHARES = {"normal": 0.5, "fall": 0.32, "fight": 0.18}  # how often the labels are drawn, where they exist
_CLEAN = 0.4  # share of stage 1 before the noise comes on


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how large. minutes: wall clock of one family; steps: at most so many (0 = no limit)."""

    minutes: float
    steps: int
    events: int
    stage_1: float
    bank_runs: int
    bank_events: int
    rate: float
    seed: int
    warm: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says; returns 0. Raises ConfigError, DataError or CheckpointError."""
    args = _parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    torch.manual_seed(args.seed)
    if not args.data and not args.rendered:
        raise ConfigError("nothing to train on: give --data MANIFEST.csv, --rendered N or both")
    size = nano(("<pad>", "<end>")) if args.base is None else FamilyConfig.load(args.base / "config.json")
    render = partial(rendered_takes, labels=size.labels, spec=size.window, processes=args.processes)
    rendered = _counted(render(range(args.rendered)), args.rendered)
    held = list(render(range(_HELD_OUT_SEED, _HELD_OUT_SEED + args.rendered // 10)))
    clips = read_manifests(args.data, size.labels) if args.data else []
    clips = [clip for clip in clips if clip.label != UNSCORED]
    real = clip_takes(clips, size.labels, size.window)
    plan = Plan(**{name: getattr(args, name) for name in Plan.__slots__ if name != "warm"}, warm=args.base is not None)
    if not args.folds:
        family = _start([*rendered, *real], size.labels, args.base, args.risk_at)
        train(family, [*rendered, *real], held or real, plan, args.out, args.resume)
        return 0
    fold_of = grouped_folds(clips, args.folds)
    for fold in range(args.folds) if args.fold is None else [args.fold]:
        out = args.out / f"fold-{fold}"
        kept = [*rendered, *(take for take, where in zip(real, fold_of, strict=True) if where != fold)]
        left = [take for take, where in zip(real, fold_of, strict=True) if where == fold]
        print(f"fold {fold}: {len(kept)} takes to train on, {len(left)} clips left out", flush=True)
        train(_start(kept, size.labels, args.base, args.risk_at), kept, left, plan, out, args.resume)
        names = [clip.name for clip, where in zip(clips, fold_of, strict=True) if where == fold]
        (out / "left_out.json").write_text(json.dumps(names, indent=0) + "\n")
    return 0


def _start(takes: Sequence[Take], labels: tuple[str, ...], base: Path | None, risk_at: float | None) -> Family:
    """A fresh family with the vocabulary of all captions, or one that begins from the weights of `base`."""
    words = Vocabulary.of_captions((take.caption for take in takes), labels).words
    config = nano(words)
    if base is not None:
        config = FamilyConfig.load(base / "config.json")
        config = replace(config, words=(*config.words, *(word for word in words if word not in config.words)))
    family = Family(config if risk_at is None else replace(config, risk_at=risk_at))
    if base is not None:
        left = checkpoint.adopt(family, base)
        print(f"began from {base}" + (f"; new: {', '.join(left)}" if left else ""), flush=True)
    return family


def train(family: Family, takes: Sequence[Take], held: Sequence[Take], plan: Plan, out: Path, resume: bool) -> Family:
    """The loop. Writes the checkpoint into `out`, curve and resumable state under build/train.

    Returns the averaged family.
    """
    work = CACHE.parent / "train" / f"{out.resolve().parent.name}-{out.name}"
    work.mkdir(parents=True, exist_ok=True)
    average = copy.deepcopy(family).eval().requires_grad_(False)
    optimiser = torch.optim.AdamW(family.parameters(), lr=plan.rate, weight_decay=0.02, betas=(0.9, 0.98))
    step, spent = 0, 0.0
    if resume and (work / "state.pt").is_file():
        step, spent = _restore(work / "state.pt", family, average, optimiser)
    curve = _Curve(work / "curve.csv", fresh=step == 0)
    clock = _Clock(plan, step, spent)
    stage: _Stage | None = None
    since = 0
    family.train()
    while clock.done < 1.0:
        if stage is None or stage.number != clock.stage:
            with clock.paused():  # what is prepared for a stage is nobody's training time
                stage = (
                    _Releases(average, takes, held, plan) if clock.stage == 1 else _Events(average, takes, held, plan)
                )
            since = clock.step
            if clock.stage == 2 and not plan.warm:
                for each in (family, average):
                    each.lifter.point_at(pole_plane(family.config.tokens, family.config.width))
        for group in optimiser.param_groups:
            warm = min(1.0, clock.part * 20 + 0.02)
            group["lr"] = plan.rate * warm * (0.5 + 0.5 * math.cos(math.pi * clock.part))
        losses = stage.losses(family, clock)
        optimiser.zero_grad(set_to_none=True)
        sum(losses.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(family.parameters(), 1.0)
        optimiser.step()
        clock.step += 1
        _average(average, family, min(0.998, (clock.step - since) / (10 + clock.step - since)))
        curve.add(clock, {name: float(value.detach()) for name, value in losses.items()})
        if curve.due():
            curve.show(stage.scores(average))
            _store(work / "state.pt", family, average, optimiser, clock)
    if isinstance(stage, _Events):
        average.config = replace(average.config, label_bias=stage.lean(average))
    checkpoint.save(average, out)
    print(
        f"{clock.step} steps in {clock.spent / 60:.1f} min; checkpoint in {out}, curve in {curve.path}",
        flush=True,
    )
    return average


class _Clock:
    """Steps and training seconds; `done` 0..1 of the plan, `stage` 1 or 2, `part` 0..1 of that stage."""

    def __init__(self, plan: Plan, step: int, spent: float) -> None:
        self.plan, self.step, self._began = plan, step, time.monotonic() - spent

    @property
    def spent(self) -> float:
        return time.monotonic() - self._began

    @property
    def done(self) -> float:
        by_time = self.spent / (60 * self.plan.minutes)
        return self.step / self.plan.steps if self.plan.steps and by_time < 1.0 else by_time

    @property
    def stage(self) -> int:
        return 1 if self.done < self.plan.stage_1 else 2

    @property
    def part(self) -> float:
        first = self.plan.stage_1
        return min(1.0, self.done / first if self.done < first else (self.done - first) / (1.0 - first))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside takes no training time."""
        began = time.monotonic()
        yield
        self._began += time.monotonic() - began


class _Stage(Protocol):
    """What one stage trains: losses of a step, and scores of the held-out takes."""

    number: int

    def losses(self, family: Family, clock: _Clock) -> dict[str, Tensor]: ...

    def scores(self, average: Family) -> dict[str, float]: ...


class _Releases:
    """Stage 1: windows -> codes -> their labels' poles, without noise first. The next batches are made by a thread."""

    number = 1

    def __init__(self, average: Family, takes: Sequence[Take], held: Sequence[Take], plan: Plan) -> None:
        config = average.config
        self.poles = poles(len(config.labels), config.tokens, config.width, config.clip_norm - 1.0)
        self.sigma = config.sigma / math.sqrt(_AVERAGED)
        self.clean = 0.0 if plan.warm else _CLEAN
        shares = _shares(config)

        def draw(source: Sequence[Take], events: int, seed: list[int]) -> Releases:
            rng = np.random.default_rng(seed)
            return draw_releases(source, shares, events, config.event_releases, config.window, rng)

        self.fetch = lambda step: draw(takes, plan.events, [plan.seed, step])
        self.held = draw(held, 3 * plan.events, [plan.seed]) if held else None
        self.worker = ThreadPoolExecutor(1)
        self.coming: dict[int, Future[Releases]] = {}

    def losses(self, family: Family, clock: _Clock) -> dict[str, Tensor]:
        for step in range(clock.step, clock.step + 3):
            if step not in self.coming:
                self.coming[step] = self.worker.submit(self.fetch, step)
        batch = self.coming.pop(clock.step).result()
        x = family.features(torch.from_numpy(batch.windows))
        code, named = family.code(x), torch.from_numpy(batch.labels)
        sure = named >= 0
        losses = {"size": 0.01 * size_loss(x, family.config.clip_norm)}
        if bool(sure.any()):
            losses["clean"] = clean_loss(x[sure], named[sure], self.poles)
        if bool(sure.any()) and clock.part > self.clean:
            losses["release"] = 0.5 * release_loss(code[sure], named[sure], self.poles, self.sigma)
        if not bool(sure.all()):
            owners, event = np.unique(batch.event[~sure.numpy()], return_inverse=True)
            labels = torch.from_numpy(batch.event_labels[owners])
            weak = weak_loss(code[~sure], torch.from_numpy(event), labels, self.poles, self.sigma)
            losses["weak"] = 0.5 * weak * (len(owners) / len(batch.event_labels))
        return losses

    @torch.no_grad()
    def scores(self, average: Family) -> dict[str, float]:
        """How many held-out windows lie nearest to their label's pole, without noise."""
        if self.held is None or not (self.held.labels >= 0).any():
            return {}
        codes = Encoder(average)(self.held.windows[self.held.labels >= 0])
        nearest = (torch.from_numpy(codes).float().flatten(1) @ self.poles.flatten(1).T).argmax(dim=1).numpy()
        return {"held_release": float((nearest == self.held.labels[self.held.labels >= 0]).mean())}


class _Events:
    """Stage 2: codes of the averaged tower, fresh noise on them at every step -> both exits and the caption."""

    number = 2

    def __init__(self, average: Family, takes: Sequence[Take], held: Sequence[Take], plan: Plan) -> None:
        config = average.config
        print("encoding all takes", flush=True)
        rng = np.random.default_rng([plan.seed, 1 << 30])
        encode, self.takes, self.plan, self.shares = Encoder(average), takes, plan, _shares(config)
        self.bank = make_bank(takes, encode, config.window, config.event_releases, plan.bank_runs, rng)
        self.held = make_bank(held, encode, config.window, config.event_releases, 2, rng, plain=True) if held else None
        norm = float(np.linalg.norm(np.concatenate(self.bank.codes).reshape(-1, config.n), axis=1).mean())
        print(f"{sum(map(len, self.bank.codes))} codes, mean norm {norm:.1f} of {config.clip_norm}", flush=True)

    def losses(self, family: Family, clock: _Clock) -> dict[str, Tensor]:
        config = family.config
        rng = np.random.default_rng([self.plan.seed, clock.step, 1])
        drawn = self.bank.draw(self.shares, self.plan.bank_events, rng, full=0.4)
        labels = torch.from_numpy(drawn.labels)
        pairs = zip(drawn.take.tolist(), drawn.labels.tolist(), strict=True)
        sentences = [_caption(self.takes[take], label) for take, label in pairs]
        captions = torch.tensor([family.vocabulary.encode(text, config.caption_words) for text in sentences])
        words = torch.cat((labels[:, None] + FIRST_LABEL, captions[:, :-1]), dim=1)
        codes = torch.from_numpy(drawn.codes).float()
        z = codes + rounded_gaussian(codes, config.sigma)
        edge, cloud, following = family.both_exits(z, torch.from_numpy(drawn.present), words)
        at_edge, at_cloud, caption = event_loss(edge, cloud, following, labels, captions)
        return {"edge": at_edge, "cloud": at_cloud, "caption": 0.1 * caption}

    @torch.no_grad()
    def scores(self, average: Family) -> dict[str, float]:
        """Accuracy on held-out takes, noise on, labels drawn as in training: events of any length, and whole ones."""
        found: dict[str, float] = {}
        for name, full in (("", 0.0), ("_whole", 1.0)):
            if self.held is None or not self.held.has(len(average.config.labels), bool(full)):
                continue
            drawn = self.held.draw(self.shares, 384, np.random.default_rng(self.plan.seed), full)
            codes, present = torch.from_numpy(drawn.codes).float(), torch.from_numpy(drawn.present)
            z, labels = codes + rounded_gaussian(codes, average.config.sigma), torch.from_numpy(drawn.labels)
            state = average.exit_state(z, present)
            edge, cloud = edge_exit(average, state, present), average.continue_from(state, present)
            found["held_edge" + name] = float((edge.argmax(1) == labels).float().mean())
            found["held_cloud" + name] = float((cloud.argmax(1) == labels).float().mean())
        return found

    @torch.no_grad()
    def lean(self, average: Family) -> tuple[float, ...]:
        """The `label_bias` towards all risks alike that gives the highest risk F1 on held-out whole events.

        Noise on, risk and normal equally frequent, both exits together. The config's own where nothing is held out.
        """
        config = average.config
        if self.held is None or not self.held.has(len(config.labels), True):
            return config.label_bias
        risks = len(config.labels) - 1
        drawn = self.held.draw([0.5] + [0.5 / risks] * risks, 2048, np.random.default_rng(self.plan.seed), 1.0)
        codes, present = torch.from_numpy(drawn.codes).float(), torch.from_numpy(drawn.present)
        state = average.exit_state(codes + rounded_gaussian(codes, config.sigma), present)
        truth = torch.from_numpy(drawn.labels) > 0
        unbiased = torch.stack((edge_exit(average, state, present), average.continue_from(state, present)))
        unbiased = unbiased - torch.tensor(config.label_bias)
        grid = [step / 10 for step in range(-10, 11)]
        scores = []
        for lean in grid:
            said = (unbiased + torch.tensor([0.0] + [lean] * risks)).argmax(dim=2) > 0  # (exits, B)
            hits = float((said & truth).sum())
            scores.append(2 * hits / max(1.0, float(said.sum() + truth.sum() * len(said))))
        best = grid[int(np.argmax(scores))]
        print(f"label_bias {best:+.1f} towards risk: held-out risk F1 {max(scores):.3f}, {scores[10]:.3f} without")
        return (0.0, *([best] * risks))


def _shares(config: FamilyConfig) -> list[float]:
    """How often each label is drawn: a family that watches is wrong most often about nothing, so nothing comes most."""
    weights = [_SHARES.get(label, 0.2) for label in config.labels]
    return [weight / sum(weights) for weight in weights]


def _caption(take: Take, label: int) -> str:
    """The take's own sentence where the event shows what it is about, else the plain one of what it shows instead."""
    return take.caption if label == take.label else "nothing unusual happens"


def _average(average: nn.Module, module: nn.Module, keep: float) -> None:
    with torch.no_grad():
        for mine, theirs in zip(average.parameters(), module.parameters(), strict=True):
            mine.lerp_(theirs, 1.0 - keep)
        for held, new in zip(average.buffers(), module.buffers(), strict=True):
            if held.is_floating_point():
                held.lerp_(new, 1.0 - keep)


class _Curve:
    """Progress for people (a line every 10 s) and for machines (the same as a CSV row)."""

    _FIELDS = ("step", "seconds", "done", "clean", "release", "held_release", "weak", "size", "edge", "cloud",
               "caption", "held_edge", "held_cloud", "held_edge_whole", "held_cloud_whole")  # fmt: skip

    def __init__(self, path: Path, fresh: bool) -> None:
        self.path, self.sums, self.counts = path, dict[str, float](), dict[str, int]()
        self.head, self.shown = dict[str, float](), time.monotonic()
        if fresh:
            path.write_text(",".join(self._FIELDS) + "\n")

    def add(self, clock: _Clock, losses: dict[str, float]) -> None:
        """One step's losses; means are shown."""
        self.head = {"step": clock.step, "seconds": round(clock.spent, 1), "done": round(clock.done, 4)}
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def due(self) -> bool:
        return time.monotonic() - self.shown > 15

    def show(self, scores: dict[str, float]) -> None:
        """Print and write the means since the last time, with `scores` of the held-out takes."""
        means = {name: round(self.sums[name] / self.counts[name], 4) for name in self.sums}
        row = self.head | means | {name: round(value, 4) for name, value in scores.items()}
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._FIELDS, restval="").writerow(row)
        self.sums, self.counts, self.shown = {}, {}, time.monotonic()


def _store(path: Path, family: Family, average: Family, optimiser: torch.optim.Optimizer, clock: _Clock) -> None:
    part = path.with_suffix(".part")
    state = {
        "family": family.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    torch.save(state | {"step": clock.step, "spent": clock.spent}, part)
    part.replace(path)


def _restore(path: Path, family: Family, average: Family, optimiser: torch.optim.Optimizer) -> tuple[int, float]:
    state = torch.load(path, weights_only=True)
    family.load_state_dict(state["family"])
    average.load_state_dict(state["average"])
    optimiser.load_state_dict(state["optimiser"])
    print(f"resumed at step {state['step']}", flush=True)
    return int(state["step"]), float(state["spent"])


def _counted(takes: Iterator[Take], total: int) -> list[Take]:
    began, found = time.monotonic(), []
    for take in takes:
        found.append(take)
        if len(found) % 200 == 0 or len(found) == total:
            print(f"rendered {len(found)}/{total} in {time.monotonic() - began:.0f} s", flush=True)
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m familial.train", description="Train the family.")
    parser.add_argument(
        "--data",
        nargs="+",
        type=Path,
        default=[],
        metavar="MANIFEST.csv",
        help="clips: file,label,set,group,note",
    )
    parser.add_argument("--rendered", type=int, default=0, metavar="N", help="clips to render and train on")
    parser.add_argument("--base", type=Path, metavar="DIR", help="begin from this checkpoint")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoint folder to write")
    parser.add_argument(
        "--folds",
        type=int,
        default=0,
        metavar="N",
        help="train N families, each leaving a part of the groups out",
    )
    parser.add_argument("--fold", type=int, metavar="K", help="of --folds, train this one only")
    parser.add_argument("--risk-at", type=float, help="store this limit for calling a clip a risk")
    parser.add_argument("--minutes", type=float, default=20.0, help="wall clock of one family")
    parser.add_argument("--steps", type=int, default=0, help="at most so many steps")
    parser.add_argument("--events", type=int, default=40, help="events in a batch of stage 1")
    parser.add_argument("--stage-1", type=float, default=0.6, help="share of the time for the tower; 0 keeps it")
    parser.add_argument("--bank-runs", type=int, default=3, help="runs of each take in the bank")
    parser.add_argument("--bank-events", type=int, default=128, help="events in a batch of stage 2")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processes", type=int, default=2, help="renderer's workers")
    parser.add_argument("--resume", action="store_true", help="go on from the last saved state of this --out")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
