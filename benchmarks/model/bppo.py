"""`python -m benchmarks.bppo`: seconds to the same held-out reward with BPPO, its two halves alone, GRPO and DAPO.

    one base --each method, each seed, the same prompts--> steps, until the held-out reward is reached or time is over

On the shipped family, whose sentences have up to 11 words, and on a Qwen3-VL text decoder of 57 M weights with answers
of 128 words (`report_task`). Seconds are this process's own on one thread, sampling, rewards and updates, without what
scoring takes. A run that does not reach the reward counts with all the seconds that it had, so its ratio is a bound.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks.harness import add_checkpoint
from benchmarks.runner import Benchmark, Report
from wire.arguments import at_least_one

if TYPE_CHECKING:
    from familial.train.rl.loop import Policy, Reward, Settings
    from familial.train.rl.objective import Objective

__all__ = ["COMMAND"]

_SHARES = ("label", "attributes", "format", "sampled_bits", "distinct", "verdict")


class _Trainable(Protocol):
    """A part of the benchmark: what is trained, and how its held-out reward is read."""

    name: str
    target: float
    settings: Settings
    prefix: int

    def fresh(self, seed: int) -> tuple[Policy, Policy, Reward, int]:
        """A policy at the base's weights, its reference, the reward and the number of prompts."""

    def scores(self, policy: Any, seed: int, whole: bool = False) -> dict[str, float]:
        """Held-out scores, "reward" among them; `whole`: also those that take long."""


@dataclass(frozen=True, slots=True)
class _Run:
    """One training: whether it reached the target, its seconds, steps, and scores at the end."""

    reached: bool
    seconds: float
    sampling_s: float
    update_s: float
    steps: int
    skipped: int
    scores: Mapping[str, float]


class _Sentences:
    """The family's sentence. Greedy sentences of held-out events are scored."""

    name = "nano"

    def __init__(self, args: argparse.Namespace) -> None:
        import torch

        from familial.data.sources import rendered_clips
        from familial.data.splits import clip_seeds
        from familial.model import checkpoint
        from familial.train.rl.loop import Settings
        from familial.train.rl.objective import Objective
        from familial.train.rl.reward import SentenceReward
        from familial.train.rl.sentences import SentencePolicy, read_events

        self.target, self.prefix = args.target, args.prefix
        self.settings = Settings(Objective(), group=8, prompts=16, lr=args.lr)
        torch.manual_seed(0)
        self._family = family = checkpoint.load(args.checkpoint)
        seeds = (clip_seeds("fusion", args.rendered), clip_seeds("held_out", max(1, args.rendered // 3)))
        train, held = (list(rendered_clips(each, family.config.labels, family.config.window, 1)) for each in seeds)
        self._reward = SentenceReward(family.vocabulary, [clip.caption for clip in (*train, *held)])
        self._base = SentencePolicy(family, read_events(family, train, 2))
        self._held = SentencePolicy(family, read_events(family, held, 2))

    def fresh(self, seed: int) -> tuple[Policy, Policy, Reward, int]:
        """As `_Trainable.fresh`."""
        truths = self._base.events.truths
        return (
            self._base.copied(seed),
            self._base,
            lambda prompts, answers: self._reward(answers, [truths[index] for index in prompts.tolist()]),
            len(truths),
        )

    def scores(self, policy: Any, seed: int, whole: bool = False) -> dict[str, float]:
        """As `_Trainable.scores`."""
        import torch

        from familial.train.rl.sentences import SentencePolicy, scores

        held = SentencePolicy(policy.family, self._held.events, seed, self._held.prompt)
        if whole:
            return scores(held, self._reward)
        greedy = held.sample(torch.arange(len(held.events)), 1, 0.0)
        return {"reward": float(self._reward(greedy, held.events.truths).mean())}


class _Reports:
    """A text decoder on `report_task`. Scored is how likely the right words are on held-out prompts."""

    name = "decoder"
    _PROMPTS, _HELD = 512, 256

    def __init__(self, args: argparse.Namespace) -> None:
        from benchmarks.model.report_task import REAL, TINY, ReportTask, TextPolicy, trained_base
        from familial.train.rl.loop import Settings
        from familial.train.rl.objective import Objective

        tiny = args.size == "tiny"
        self._size, self._bf16 = TINY if tiny else REAL, bool(args.bf16 and not tiny)
        self.target, self.prefix = args.decoder_target, args.decoder_prefix
        self.settings = Settings(Objective(), group=8, prompts=8 if tiny else 4, lr=args.decoder_lr)
        self._held = ReportTask(self._HELD, 7)
        model = trained_base(self._size, args.base_steps, self._bf16, lambda line: print(line, flush=True))
        self._base = TextPolicy(model, ReportTask(self._PROMPTS, 6), self._size, 0, self._bf16)
        self.weights = sum(parameter.numel() for parameter in model.parameters())

    def fresh(self, seed: int) -> tuple[Policy, Policy, Reward, int]:
        """As `_Trainable.fresh`."""
        return self._base.copied(seed), self._base, self._base.task.reward, self._PROMPTS

    def scores(self, policy: Any, seed: int, whole: bool = False) -> dict[str, float]:
        """As `_Trainable.scores`."""
        import torch

        from benchmarks.model.report_task import TextPolicy

        held = TextPolicy(policy.model, self._held, self._size, 1000 + seed, self._bf16)
        found = {"reward": self._held.right(held)}
        if whole:
            index = torch.arange(16)
            found["whole_reward"] = float(self._held.reward(index, held.sample(index, 1, 1.0)).mean())
        return found


def _methods(part: _Trainable, dapo: bool) -> dict[str, Objective]:
    """Name -> objective: BPPO, each half of it alone, and what it is compared with."""
    from familial.train.rl.objective import METHODS

    grpo = METHODS["grpo"]
    found = {
        "grpo": grpo,
        "bppo": replace(METHODS["bppo"], prefix=part.prefix),
        "pairs alone": replace(grpo, pairs=True),
        "prefix alone": replace(grpo, prefix=part.prefix),
    }
    return found | ({"dapo": METHODS["dapo"]} if dapo else {})


def _run(part: _Trainable, objective: Objective, seed: int, most_s: float, every: int) -> _Run:
    """Train until the held-out reward is reached, scored every `every` steps, or `most_s` are spent."""
    import torch

    from familial.train.rl.loop import training

    torch.manual_seed(seed)
    policy, reference, reward, count = part.fresh(seed)
    settings = replace(part.settings, objective=objective)
    steps = training(policy, reference, reward, count, settings, seed, now=time.process_time)
    sampling = update = 0.0
    done = skipped = 0
    while True:
        result = next(steps)
        sampling, update = sampling + result.sampling_s, update + result.update_s
        done, skipped = done + 1, skipped + result.skipped
        over = sampling + update >= most_s
        if done % every == 0 or over:
            scored = part.scores(policy, seed)
            if over or scored["reward"] >= part.target:
                scored |= part.scores(policy, seed, whole=True)
                reached = scored["reward"] >= part.target
                return _Run(reached, sampling + update, sampling, update, done, skipped, scored)


def _measured(part: _Trainable, seeds: int, most_s: float, every: int, dapo: bool) -> dict[str, list[_Run]]:
    """Method -> one run a seed; methods take turns, so that a machine that slows down slows all of them."""
    found: dict[str, list[_Run]] = {}
    for seed in range(1, seeds + 1):
        for name, objective in _methods(part, dapo).items():
            run = _run(part, objective, seed, most_s, every)
            found.setdefault(name, []).append(run)
            state = "reached" if run.reached else "not reached"
            print(
                f"{part.name}, seed {seed}, {name}: {state} in {run.seconds:.1f} s, {run.steps} steps, "
                f"reward {run.scores['reward']:.3f}",
                flush=True,
            )
    return found


def _mean(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """The mean over seeds, and its interval."""
    import numpy as np

    from familial.evaluate.intervals import macro_accuracy_interval

    many = np.array(values, np.float64)
    return macro_accuracy_interval(many, np.zeros(len(many), np.int64), np.arange(len(many)), 0)


def _ratio(runs: Mapping[str, Sequence[_Run]], name: str, of: Callable[[_Run], float]) -> tuple[float, float, float]:
    """GRPO's over `name`'s, as a geometric mean over seeds, and its interval."""
    import numpy as np

    pairs = zip(runs["grpo"], runs[name], strict=True)
    mean, (low, high) = _mean([float(np.log(max(of(grpo), 1e-9) / max(of(other), 1e-9))) for grpo, other in pairs])
    return float(np.exp(mean)), float(np.exp(low)), float(np.exp(high))


def _summary(part: _Trainable, runs: Mapping[str, Sequence[_Run]]) -> tuple[dict[str, Any], list[tuple[str, ...]]]:
    """Figures and table rows of a part."""
    figures: dict[str, Any] = {}
    rows = list[tuple[str, ...]]()
    for name, own in runs.items():
        seconds, interval = _mean([run.seconds for run in own])
        faster = _ratio(runs, name, lambda run: run.seconds)
        step = _ratio(runs, name, lambda run: run.update_s / run.steps)
        figures[name] = {
            "reached": sum(run.reached for run in own),
            "seconds": round(seconds, 3),
            "seconds_interval": [round(end, 3) for end in interval],
            "each_seconds": [round(run.seconds, 3) for run in own],
            "steps": _mean([run.steps for run in own])[0],
            "sampling_share": round(sum(run.sampling_s for run in own) / sum(run.seconds for run in own), 3),
            "skipped": sum(run.skipped for run in own),
            "faster_than_grpo": [round(value, 3) for value in faster],
            "update_faster_than_grpo": [round(value, 3) for value in step],
            "scores": {key: round(_mean([run.scores[key] for run in own])[0], 4) for key in own[0].scores},
        }
        reward = figures[name]["scores"]["reward"]
        rows.append(
            (
                f"{part.name}: {name}",
                f"{figures[name]['reached']} of {len(own)}",
                f"{seconds:.1f} ({interval[0]:.1f} to {interval[1]:.1f})",
                f"{figures[name]['steps']:.1f}",
                f"{faster[0]:.2f} ({faster[1]:.2f} to {faster[2]:.2f})",
                f"{step[0]:.2f}",
                f"{reward:.3f}",
            )
        )
    return figures, rows


_HEAD = ("method", "reached", "seconds", "steps", "GRPO's seconds over its", "of an update", "reward")


def _measure(args: argparse.Namespace) -> Report:
    import torch

    torch.set_num_threads(1)
    figures: dict[str, Any] = {"seeds": args.seeds}
    rows: list[tuple[str, ...]] = [_HEAD]
    notes, ratio = list[str](), None
    for kind in (_Sentences, _Reports):
        if args.part not in (kind.name, "both"):
            continue
        part: _Trainable = kind(args)
        before = part.scores(part.fresh(0)[0], 0, whole=True)
        most_s, every = (args.most_s, 5) if kind is _Sentences else (args.decoder_most_s, args.decoder_every)
        runs = _measured(part, args.seeds, most_s, every, kind is _Sentences or args.size == "tiny")
        found, own = _summary(part, runs)
        rows += own
        figures[part.name] = {"target": part.target, "prefix": part.prefix, "before": before, "methods": found}
        if isinstance(part, _Reports):
            figures[part.name]["weights"] = part.weights
        notes += _notes(part, before, runs)
        ratio = found["bppo"]["faster_than_grpo"][0]
    return Report(ratio, figures, rows, notes)


def _notes(part: _Trainable, before: Mapping[str, float], runs: Mapping[str, Sequence[_Run]]) -> list[str]:
    """The target, and what became of the sentences."""
    notes = [f"{part.name}: target {part.target:g}, before {before['reward']:.3f}, prefix {part.prefix} words"]
    for name, own in runs.items():
        said = [f"{key} {before[key]:.2f} -> {_mean([run.scores[key] for run in own])[0]:.2f}" for key in _SHARES
                if key in before]  # fmt: skip
        notes += [f"{part.name}, {name}: {', '.join(said)}"] if said else []
    return notes


def _options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_checkpoint(parser)
    add("--part", choices=("nano", "decoder", "both"), default="both")
    add("--seeds", type=at_least_one, default=5)
    add("--rendered", type=at_least_one, default=240, help="clips to train on, and a third as many to score on")
    add("--target", type=float, default=0.845, help="held-out reward of greedy sentences")
    add("--prefix", type=at_least_one, default=8, help="words of a sentence that BPPO trains")
    add("--learning-rate", dest="lr", type=float, default=2e-4, help="of the sentences")
    add("--most-s", type=float, default=30.0, help="seconds of a run on the sentences")
    add("--size", choices=("real", "tiny"), default="real", help="of the decoder; tiny is for tests")
    add("--bf16", action=argparse.BooleanOptionalAction, default=True, help="the decoder computes in bfloat16")
    add("--base-steps", type=at_least_one, default=100, help="of the decoder's base")
    add("--decoder-target", type=float, default=0.85, help="held-out reward of sampled answers")
    add("--decoder-prefix", type=at_least_one, default=32, help="words of an answer that BPPO trains")
    add("--decoder-lr", type=float, default=1e-4)
    add("--decoder-most-s", type=float, default=120.0, help="seconds of a run of the decoder")
    add("--decoder-every", type=at_least_one, default=1, metavar="STEPS", help="between its scores")


COMMAND = Benchmark(
    "bppo",
    __doc__,
    "GRPO in the same loop (speed to the same held-out reward; the last part measured)",
    _options,
    _measure,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
