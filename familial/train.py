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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from wire.errors import ConfigError

from . import checkpoint
from .config import FamilyConfig, nano
from .data.batches import CodeBank, Releases, draw_releases, make_bank
from .data.clips import CACHE, UNSCORED, grouped_folds, read_manifests
from .data.events import Take
from .data.takes import clip_takes, rendered_takes
from .encoder import Encoder
from .family import Family
from .losses import event_loss, poles, release_loss, rounded_gaussian, size_loss, weak_loss
from .vocabulary import FIRST_LABEL, Vocabulary

__all__ = ["main"]

_HELD_OUT_SEED = 1_000_000  # rendered clips from here on are never trained on
_AVERAGED = 4.0  # stage 1 sees the noise of a mean over four releases: a verdict has as many after a fall
_STAGE_1 = 0.55  # share of the time


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how large. minutes: wall clock of one family; steps: at most so many (0 = no limit)."""

    minutes: float
    steps: int
    events: int
    bank_runs: int
    bank_events: int
    rate: float
    seed: int


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says; returns 0. Raises ConfigError, DataError or CheckpointError."""
    args = _parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    torch.manual_seed(args.seed)
    if not args.data and not args.rendered:
        raise ConfigError("nothing to train on: give --data MANIFEST.csv, --rendered N or both")
    labels = nano(("<pad>", "<end>")).labels
    spec = nano(("<pad>", "<end>")).window
    rendered = list(
        _counted(
            rendered_takes(range(args.rendered), labels, spec, args.processes), args.rendered, "rendered"
        )
    )
    held = list(
        rendered_takes(
            range(_HELD_OUT_SEED, _HELD_OUT_SEED + args.rendered // 10), labels, spec, args.processes
        )
    )
    clips = (
        [clip for clip in read_manifests(args.data, labels) if clip.label != UNSCORED] if args.data else []
    )
    real = clip_takes(clips, labels, spec)
    plan = Plan(args.minutes, args.steps, args.events, args.bank_runs, args.bank_events, args.rate, args.seed)
    if not args.folds:
        train(
            _start(rendered, real, labels, args.base),
            rendered + real,
            held or real,
            plan,
            args.out,
            args.resume,
        )
        return 0
    folds = grouped_folds(clips, args.folds)
    for fold in range(args.folds):
        out = args.out / f"fold-{fold}"
        kept = [take for take, where in zip(real, folds, strict=True) if where != fold]
        left = [take for take, where in zip(real, folds, strict=True) if where == fold]
        print(f"fold {fold}: {len(kept)} clips to train on, {len(left)} left out", flush=True)
        train(_start(rendered, kept, labels, args.base), rendered + kept, left, plan, out, args.resume)
        names = [clip.name for clip, where in zip(clips, folds, strict=True) if where == fold]
        (out / "left_out.json").write_text(json.dumps(names, indent=0) + "\n")
    return 0


def _start(
    rendered: Sequence[Take], real: Sequence[Take], labels: tuple[str, ...], base: Path | None
) -> Family:
    """A fresh family with the vocabulary of all captions, or one that begins from the weights of `base`."""
    words = Vocabulary.of_captions((take.caption for take in [*rendered, *real]), labels).words
    if base is None:
        return Family(nano(words))
    config = checkpoint.load(base).config
    family = Family(
        replace(config, words=(*config.words, *(word for word in words if word not in config.words)))
    )
    left = checkpoint.adopt(family, base)
    print(f"began from {base}" + (f"; new: {', '.join(left)}" if left else ""), flush=True)
    return family


def train(
    family: Family, takes: Sequence[Take], held: Sequence[Take], plan: Plan, out: Path, resume: bool
) -> Family:
    """The loop. Writes the checkpoint into `out`, curve and resumable state under build/train.

    Returns the averaged family.
    """
    config, spec = family.config, family.config.window
    labels = len(config.labels)
    work = CACHE.parent / "train" / f"{out.resolve().parent.name}-{out.name}"
    work.mkdir(parents=True, exist_ok=True)
    average = copy.deepcopy(family).eval().requires_grad_(False)
    optimiser = torch.optim.AdamW(family.parameters(), lr=plan.rate, weight_decay=0.02, betas=(0.9, 0.98))
    label_poles = poles(labels, config.tokens, config.width, config.clip_norm - 1.0)
    quiet = config.sigma / math.sqrt(_AVERAGED)
    step, spent = 0, 0.0
    if resume and (work / "state.pt").is_file():
        step, spent = _restore(work / "state.pt", family, average, optimiser)
    curve = _Curve(work / "curve.csv", fresh=step == 0)
    bank: CodeBank | None = None
    held_bank: CodeBank | None = None
    began = saved = time.monotonic() - spent
    with ThreadPoolExecutor(1) as worker:

        def fetch(number: int) -> Releases:
            rng = np.random.default_rng([plan.seed, number])
            return draw_releases(takes, labels, plan.events, config.event_releases, spec, rng)

        coming = [worker.submit(fetch, step), worker.submit(fetch, step + 1)]
        while True:
            spent = time.monotonic() - began
            done = max(spent / (60 * plan.minutes), step / plan.steps if plan.steps else 0.0)
            if done >= 1.0:
                break
            in_stage_1 = done < _STAGE_1 and bank is None
            part = done / _STAGE_1 if in_stage_1 else (done - _STAGE_1) / (1.0 - _STAGE_1)
            for group in optimiser.param_groups:
                group["lr"] = (
                    plan.rate * min(1.0, part * 20 + 0.02) * (0.5 + 0.5 * math.cos(math.pi * min(part, 1.0)))
                )
            if in_stage_1:
                batch = coming.pop(0).result()
                coming.append(worker.submit(fetch, step + 2))
                family.train()
                losses = _release_step(family, batch, label_poles, quiet)
            else:
                if bank is None or held_bank is None:
                    print("encoding the bank", flush=True)
                    rng = np.random.default_rng([plan.seed, 1 << 30])
                    encode = Encoder(average)
                    bank = make_bank(takes, encode, spec, config.event_releases, plan.bank_runs, rng)
                    held_bank = make_bank(held, encode, spec, config.event_releases, 1, rng, plain=True)
                    _say_bank(bank, label_poles, config)
                family.train()
                rng = np.random.default_rng([plan.seed, step, 1])
                losses = _event_step(family, bank, takes, plan.bank_events, rng)
            total = sum(losses.values(), torch.zeros(()))
            optimiser.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            nn.utils.clip_grad_norm_(family.parameters(), 1.0)
            optimiser.step()
            _average(average, family, min(0.998, (1 + step) / (10 + step)))
            step += 1
            curve.add(step, spent, done, {name: float(value.detach()) for name, value in losses.items()})
            if curve.due():
                held_score = _held_scores(average, held_bank, plan) if held_bank is not None else {}
                curve.show(held_score)
            if time.monotonic() - saved > 120:
                _store(work / "state.pt", family, average, optimiser, step, spent)
                saved = time.monotonic()
    average.config = config
    checkpoint.save(average, out)
    print(
        f"{step} steps in {spent / 60:.1f} min; checkpoint in {out}, curve in {work / 'curve.csv'}",
        flush=True,
    )
    return average


def _release_step(family: Family, batch: Releases, label_poles: Tensor, sigma: float) -> dict[str, Tensor]:
    x = family.features(torch.from_numpy(batch.windows))
    code = family.code(x)
    named = torch.from_numpy(batch.labels)
    sure = named >= 0
    losses = {"release": release_loss(code[sure], named[sure], label_poles, sigma)}
    if not bool(sure.all()):
        owners, event = np.unique(batch.event[~sure.numpy()], return_inverse=True)
        event_labels = torch.from_numpy(batch.event_labels[owners])
        weak = weak_loss(code[~sure], torch.from_numpy(event), event_labels, label_poles, sigma)
        losses["weak"] = weak * (len(owners) / len(batch.event_labels))
    losses["size"] = 0.01 * size_loss(x, family.config.clip_norm)
    return losses


def _event_step(
    family: Family, bank: CodeBank, takes: Sequence[Take], size: int, rng: np.random.Generator
) -> dict[str, Tensor]:
    config = family.config
    drawn = bank.draw(len(config.labels), size, rng, full=0.4)
    labels = torch.from_numpy(drawn.labels)
    length = config.caption_words
    captions = torch.tensor(
        [
            family.vocabulary.encode(_caption(takes[i], int(label)), length)
            for i, label in zip(drawn.take, drawn.labels, strict=True)
        ]
    )
    words = torch.cat((labels[:, None] + FIRST_LABEL, captions[:, :-1]), dim=1)
    codes = torch.from_numpy(drawn.codes).float()
    z = codes + rounded_gaussian(codes, config.sigma)
    edge, cloud, following = family.both_exits(z, torch.from_numpy(drawn.present), words)
    at_edge, at_cloud, caption = event_loss(edge, cloud, following, labels, captions)
    return {"edge": at_edge, "cloud": at_cloud, "caption": 0.1 * caption}


def _caption(take: Take, label: int) -> str:
    """The take's own sentence where the event shows what it is about, else the plain one of what it shows instead."""
    return take.caption if label == take.label else "nothing unusual happens"


def _say_bank(bank: CodeBank, label_poles: Tensor, config: FamilyConfig) -> None:
    codes = torch.from_numpy(np.concatenate(bank.codes)).float().flatten(1)
    nearest = (codes @ label_poles.flatten(1).T).argmax(dim=1)
    shares = ", ".join(
        f"{label} {float((nearest == i).float().mean()):.2f}" for i, label in enumerate(config.labels)
    )
    norm = float(codes.norm(dim=1).mean())
    print(
        f"bank: {len(codes)} codes, mean norm {norm:.1f} of {config.clip_norm}; nearest pole: {shares}",
        flush=True,
    )


@torch.no_grad()
def _held_scores(family: Family, bank: CodeBank, plan: Plan) -> dict[str, float]:
    """Accuracy on held-out takes, noise on, labels balanced: events of any length, and whole ones."""
    scores = {}
    for name, full in (("", 0.0), ("_whole", 1.0)):
        try:
            drawn = bank.draw(len(family.config.labels), 512, np.random.default_rng(plan.seed), full)
        except ValueError:
            continue
        codes, present = torch.from_numpy(drawn.codes).float(), torch.from_numpy(drawn.present)
        z, labels = codes + rounded_gaussian(codes, family.config.sigma), torch.from_numpy(drawn.labels)
        state = family.exit_state(z, present)
        scores["held_edge" + name] = float(
            (family.edge_logits(z, present).argmax(1) == labels).float().mean()
        )
        scores["held_cloud" + name] = float(
            (family.continue_from(state, present).argmax(1) == labels).float().mean()
        )
    return scores


def _average(average: nn.Module, module: nn.Module, keep: float) -> None:
    with torch.no_grad():
        for mine, theirs in zip(average.parameters(), module.parameters(), strict=True):
            mine.lerp_(theirs, 1.0 - keep)
        for held, new in zip(average.buffers(), module.buffers(), strict=True):
            if held.is_floating_point():
                held.lerp_(new, 1.0 - keep)


class _Curve:
    """Progress for people (a line every 10 s) and for machines (the same as a CSV row)."""

    _FIELDS = ("step", "seconds", "done", "release", "weak", "size", "edge", "cloud", "caption",
               "held_edge", "held_cloud", "held_edge_whole", "held_cloud_whole")  # fmt: skip

    def __init__(self, path: Path, fresh: bool) -> None:
        self.path, self.sums, self.counts = path, dict[str, float](), dict[str, int]()
        self.head, self.shown = dict[str, float](), time.monotonic()
        if fresh:
            path.write_text(",".join(self._FIELDS) + "\n")

    def add(self, step: int, seconds: float, done: float, losses: dict[str, float]) -> None:
        """One step's losses; means are shown."""
        self.head = {"step": step, "seconds": round(seconds, 1), "done": round(done, 4)}
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def due(self) -> bool:
        return time.monotonic() - self.shown > 10

    def show(self, scores: dict[str, float]) -> None:
        """Print and write the means since the last time, with `scores` of the held-out takes."""
        means = {name: round(self.sums[name] / self.counts[name], 4) for name in self.sums}
        row = self.head | means | {name: round(value, 4) for name, value in scores.items()}
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._FIELDS, restval="").writerow(row)
        self.sums, self.counts, self.shown = {}, {}, time.monotonic()


def _store(
    path: Path, family: Family, average: Family, optimiser: torch.optim.Optimizer, step: int, spent: float
) -> None:
    part = path.with_suffix(".part")
    state = {
        "family": family.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    torch.save(state | {"step": step, "spent": spent}, part)
    part.replace(path)


def _restore(
    path: Path, family: Family, average: Family, optimiser: torch.optim.Optimizer
) -> tuple[int, float]:
    state = torch.load(path, weights_only=True)
    family.load_state_dict(state["family"])
    average.load_state_dict(state["average"])
    optimiser.load_state_dict(state["optimiser"])
    print(f"resumed at step {state['step']}", flush=True)
    return int(state["step"]), float(state["spent"])


def _counted(takes: Any, total: int, name: str) -> Any:
    began = time.monotonic()
    for index, take in enumerate(takes, start=1):
        if index % 200 == 0 or index == total:
            print(f"{name} {index}/{total} in {time.monotonic() - began:.0f} s", flush=True)
        yield take


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
    parser.add_argument("--minutes", type=float, default=20.0, help="wall clock of one family")
    parser.add_argument("--steps", type=int, default=0, help="at most so many steps")
    parser.add_argument("--events", type=int, default=40, help="events in a batch of stage 1")
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
