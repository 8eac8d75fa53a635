"""`python -m familial.train.rl`: fine-tune the sentence of a checkpoint by GRPO, DAPO or BPPO.

--base DIR, --rendered N, --data MANIFEST --`train.material`--> clips --> events, truths --`loop.training`--> --out DIR
                                                        held-out clips --> scores before and after
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from familial.data.people import PERCEIVE
from familial.model import checkpoint
from familial.model.card import Card, write_card
from familial.train.budget import Budget
from familial.train.material import gather
from familial.train.progress import State, run_folder
from familial.train.rl.loop import Settings, StepResult, optimiser_of, training
from familial.train.rl.objective import METHODS
from familial.train.rl.reward import SentenceReward
from familial.train.rl.sentences import SentencePolicy, read_events, scores
from wire.errors import CheckpointError, ConfigError, VeilsightError

__all__ = ["main"]

_DRAWS = 2  # noise samples of an event
_SAVE_EVERY = 20  # steps


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    try:
        _run(_parser().parse_args(argv))
    except VeilsightError as error:
        print(f"familial.train.rl: {error}", file=sys.stderr)
        return 2
    return 0


def _run(args: argparse.Namespace) -> None:
    """Fine-tune, score before and after, and write the checkpoint."""
    if args.out.resolve() == args.base.resolve():
        raise ConfigError(f"--out {args.out}: is --base itself, which is the reference; give another folder")
    if args.steps < 1:
        raise ConfigError(f"--steps {args.steps}: give 1 or more")
    numbers = {name: getattr(args, name) for name in ("prefix", "epsilon", "epsilon_high", "beta")}
    objective = METHODS[args.method].with_numbers(**numbers)
    settings = Settings(objective, args.group, args.prompts, args.updates, args.lr, args.temperature)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    family, budget = checkpoint.load(args.base), Budget(args.minutes)
    material = gather(args, family.config, budget)
    clips, held = material.split([True] * len(material.rows))
    if not held:
        raise ConfigError("no clip is held out to score on: give --rendered 10 or more, or --held-out above 0")
    reward = SentenceReward(family.vocabulary, [clip.caption for clip in (*clips, *held)])
    policy = SentencePolicy(family, read_events(family, clips, _DRAWS), args.seed)
    unseen = SentencePolicy(family, read_events(family, held, _DRAWS), args.seed)
    print(f"{args.method}: {len(policy.events)} events to train on, {len(unseen.events)} to score on", flush=True)
    before = scores(unseen, reward)
    _train(policy, reward, settings, args, budget)
    after = scores(unseen, reward)
    for name, value in after.items():
        print(f"{name:>16}: {before[name]:.4f} -> {value:.4f}", flush=True)
    checkpoint.save(family, args.out)
    card = Card("familial.train.rl", family.config, dict(Counter(clip.set for clip in clips)), len(held), {}, args.base)
    print(write_card(args.out, card), flush=True)


def _train(
    policy: SentencePolicy, reward: SentenceReward, settings: Settings, args: argparse.Namespace, budget: Budget
) -> None:
    """Make the steps; a state is saved now and then, and named where a step fails."""
    optimiser = optimiser_of(policy, settings.lr)
    state = State(run_folder(args.out) / "rl.pt", {"family": policy.family}, optimiser)
    reference = policy.copied()
    first, _ = state.load() if args.resume else state.discard()
    truths = policy.events.truths

    def rewarded(prompts: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        return reward(answers, [truths[index] for index in prompts.tolist()])

    steps = training(policy, reference, rewarded, len(policy.events), settings, args.seed + first, optimiser)
    step = first
    while step < args.steps and budget.left:
        result = _guarded(lambda: next(steps), step, args.base, state)
        step += 1
        if step % _SAVE_EVERY == 0 or step == args.steps:
            state.save(step, budget.spent)
            print(_line(step, result, settings), flush=True)
    if step < args.steps:
        print(f"--minutes {args.minutes:g} are over after {step} of {args.steps} steps", flush=True)


def _guarded(step: Callable[[], StepResult], number: int, base: Path, state: State) -> StepResult:
    """Make a step; where it fails, say what is left to go on from."""
    try:
        return step()
    except CheckpointError as error:
        good = f"{state.path}: go on with --resume" if state.path.is_file() else f"{base}, the base"
        raise CheckpointError(f"step {number}: {error}; the last good state is {good}") from error


def _line(step: int, result: StepResult, settings: Settings) -> str:
    return (
        f"step {step}  reward {result.reward:.4f}  loss {result.loss:.4f}  skipped {result.skipped} of "
        f"{settings.prompts} groups, all equal  tokens {result.tokens}  sampling {result.sampling_s:.2f} s  "
        f"updates {result.update_s:.2f} s"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m familial.train.rl",
        description="Fine-tune the sentence of a checkpoint by reinforcement learning; the edge member stays as it is.",
    )
    add = parser.add_argument
    add("--base", type=Path, required=True, metavar="DIR", help="the checkpoint to begin from, and the reference")
    add("--out", type=Path, required=True, metavar="DIR", help="checkpoint folder to write")
    add("--method", choices=tuple(METHODS), default="bppo")
    add("--data", nargs="+", type=Path, default=[], metavar="MANIFEST.csv", help="clips: file,label,set,group,note")
    add("--perceive", type=Path, default=PERCEIVE, metavar="FILE", help="graph of the person network")
    add("--held-out", type=float, default=0.2, metavar="SHARE", help="of these clips, where no rendered ones are")
    add("--rendered", type=int, default=0, metavar="N", help="clips to render, and N / 10 more to score on")
    add("--group", type=int, default=8, metavar="G", help="sentences of an event")
    add("--prompts", type=int, default=16, metavar="P", help="events of a step")
    add("--updates", type=int, default=1, metavar="N", help="of the weights, for each batch of sentences")
    add("--prefix", type=int, metavar="N", help="words of a sentence that have a gradient; 0: all; default: 8 of bppo")
    add("--epsilon", type=float, help="how far below 1 an importance ratio counts; default 0.2")
    add("--epsilon-high", type=float, help="how far above 1 it counts; default 0.2, of dapo 0.28")
    add("--beta", type=float, help="weight of the KL divergence to the base; default 0.04, of dapo 0")
    add("--temperature", type=float, default=1.0, help="of the sampling")
    add("--learning-rate", dest="lr", type=float, default=2e-4, help="learning rate")
    add("--steps", type=int, default=200)
    add("--minutes", type=float, default=20.0, help="wall clock, at most")
    add("--seed", type=int, default=1)
    add("--threads", type=int, default=2, help="of torch")
    add("--processes", type=int, default=2, help="that render clips, and read others")
    add("--resume", action="store_true", help="go on from the last saved state of this --out")
    # Clips that the tower has not learned from: codes of those it knows would flatter the sentence.
    parser.set_defaults(freeze_motion=True, tower_steps=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
