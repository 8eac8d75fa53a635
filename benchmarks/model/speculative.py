"""`python -m benchmarks.speculative`: words a second of the sentence, drafted and verified, against plain greedy words.

    events, prompts --plain: one word a forward-------------------> words a second       all the same words, or status 1
                    --the exit's blocks draft, all others verify--> words a second
                    --n-grams of what was said draft--------------> words a second

On the shipped family (4 blocks, exit after 1) and on a Qwen3-VL text decoder of 50 M weights that answers `report_task`
in 128 words (4 blocks, exit after 1), one sentence at a time, in float32 on one thread. The exit drafts through a small
head that learns the member's own words of other events in seconds; it is no part of the family. Seconds are this
process's own; methods take turns, sentence by sentence. "free drafts" is no measurement: forwards of the whole member
without drafts over those with them, what a second processor that drafts meanwhile could come to (PPSD).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.harness import add_checkpoint
from benchmarks.runner import Benchmark, Report
from wire.arguments import at_least_one

if TYPE_CHECKING:
    from torch import Tensor, nn

    from familial.model.decoders.speculative import ExitDraft, NgramDraft, Spoken
    from familial.model.decoders.word_decoder import Prompt, WordDecoder

__all__ = ["COMMAND"]

_HEAD = ("member: drafts", "words/s", "over plain", "accepted", "words a forward", "free drafts")


@dataclass(frozen=True, slots=True)
class _Part:
    """What speaks, and about what.

    Attributes:
        name: of the part.
        decoder: of the words.
        prompt: of N rows.
        first: int64 (N,), the last token of each prompt.
        count: the most words.
        taught: rows that the exit's head learns from, and n-grams are learned from; the rest is measured.
    """

    name: str
    decoder: WordDecoder
    prompt: Prompt
    first: Tensor
    count: int
    taught: int


def _family_part(args: argparse.Namespace) -> _Part:
    import torch

    from familial.data.sources import rendered_clips
    from familial.data.splits import clip_seeds
    from familial.model import checkpoint
    from familial.model.decoders.word_decoder import WordDecoder, family_prompt
    from familial.train.rl.sentences import read_events

    family = checkpoint.load(args.checkpoint)
    torch.manual_seed(0)
    seeds = clip_seeds("held_out", args.rendered)
    events = read_events(family, list(rendered_clips(seeds, family.config.labels, family.config.window, 1)), 2)
    prompt, first = family_prompt(family, events.z, events.present)
    mixed = torch.randperm(len(events), generator=torch.Generator().manual_seed(0))
    rows, taught = mixed[: 2 * args.sentences], min(args.sentences, len(events) // 2)
    count = family.config.caption_words
    return _Part("nano", WordDecoder.of_family(family), prompt.rows(rows), first[rows], count, taught)


def _decoder_part(args: argparse.Namespace) -> _Part:
    import torch

    from benchmarks.model.report_task import REAL, TINY, ReportTask, prompt_of, trained_base
    from familial.model.decoders.word_decoder import WordDecoder

    size = TINY if args.size == "tiny" else REAL
    bf16 = args.bf16 and args.size != "tiny"
    model = trained_base(size, args.base_steps, bf16, lambda line: print(line, flush=True)).eval()
    count = max(2, args.sentences // 4) if args.size == "real" else args.sentences
    task = ReportTask(2 * count, 8)
    with torch.no_grad():
        prompt = prompt_of(model, task)
    decoder = WordDecoder.of_text_model(model, prompt.length + size.answer)
    return _Part("decoder", decoder, prompt, task.prompts[:, -1], size.answer, count)


def _taught(part: _Part, steps: int) -> tuple[nn.Module, list[list[int]]]:
    """A head for the exit that learned the member's own words of the taught rows, and those words."""
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy

    from familial.model.decoders.speculative import speculative_words
    from familial.model.vocabulary import PAD

    rows = torch.arange(part.taught)
    said = [
        speculative_words(part.decoder, part.prompt.rows(row[None]), int(part.first[row]), part.count, None).words
        for row in rows
    ]
    words = torch.tensor([own + [PAD] * (part.count - len(own)) for own in said])
    with torch.no_grad():
        prompt = part.prompt.rows(rows)
        hidden = torch.cat((prompt.hidden, part.decoder.embed(words[:, :-1])), dim=1)
        states = part.decoder.states(hidden, blocks=(0, part.decoder.exit_at), hide=prompt.hide)[:, prompt.length - 1 :]
    width = states.shape[2]
    head = nn.Sequential(nn.RMSNorm(width), nn.Linear(width, width))
    optimiser = torch.optim.AdamW(head.parameters(), lr=2e-3)
    for _ in range(steps):
        chosen = torch.randint(len(rows), (min(8, len(rows)),))
        logits = part.decoder.logits(head(states[chosen]))
        loss = cross_entropy(logits.flatten(0, 1), words[chosen].flatten(), ignore_index=PAD)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimiser.step()
    return head.eval(), said


def _drafts(part: _Part, args: argparse.Namespace) -> dict[str, ExitDraft | NgramDraft | None]:
    """Name -> what drafts."""
    import torch

    from familial.model.decoders.speculative import ExitDraft, NgramDraft

    torch.manual_seed(0)
    head, said = _taught(part, args.head_steps)
    told = NgramDraft(args.ahead)
    for words in said:
        told.learn([int(part.first[said.index(words)]), *words])
    return {
        "none": None,
        "the exit, as it is": ExitDraft(None, args.ahead),
        "the exit, a head taught": ExitDraft(head, args.ahead),
        "n-grams of what was said": NgramDraft(args.ahead),
        "n-grams, taught too": told,
    }


def _spoken(part: _Part, drafts: dict[str, Any]) -> tuple[dict[str, list[tuple[float, Spoken]]], int]:
    """Name -> seconds and sentence for each measured row; and how many sentences differ from the plain ones."""
    import torch

    from familial.model.decoders.speculative import speculative_words

    found: dict[str, list[tuple[float, Spoken]]] = {name: [] for name in drafts}
    differ = 0
    for row in range(part.taught, len(part.first)):
        prompt, first = part.prompt.rows(torch.tensor([row])), int(part.first[row])
        for name, draft in drafts.items():
            began = time.process_time()
            spoken = speculative_words(part.decoder, prompt, first, part.count, draft)
            found[name].append((time.process_time() - began, spoken))
            differ += spoken.words != found["none"][-1][1].words
    return found, differ


def _ratio(plain: Sequence[tuple[float, Spoken]], own: Sequence[tuple[float, Spoken]]) -> tuple[float, float, float]:
    """Plain seconds over these, as a geometric mean over sentences, and its interval."""
    import numpy as np

    from familial.evaluate.intervals import macro_accuracy_interval

    logs = np.log([before[0] / after[0] for before, after in zip(plain, own, strict=True)])
    mean, ends = macro_accuracy_interval(logs, np.zeros(len(logs), np.int64), np.arange(len(logs)), 0)
    return float(np.exp(mean)), float(np.exp(ends[0])), float(np.exp(ends[1]))


def _measure(args: argparse.Namespace) -> Report:
    import torch

    torch.set_num_threads(1)
    rows: list[tuple[str, ...]] = [_HEAD]
    figures: dict[str, Any] = {}
    differ, best = 0, None
    for name, make in (("nano", _family_part), ("decoder", _decoder_part)):
        if args.part not in (name, "both"):
            continue
        part = make(args)
        found, wrong = _spoken(part, _drafts(part, args))
        differ += wrong
        own: dict[str, Any] = {}
        for kind, runs in found.items():
            ratio = _ratio(found["none"], runs)
            words, seconds = sum(len(run[1].words) for run in runs), sum(run[0] for run in runs)
            forwards, plain = (sum(run[1].forwards for run in each) for each in (runs, found["none"]))
            drafted, accepted = sum(run[1].drafted for run in runs), sum(run[1].accepted for run in runs)
            share = accepted / drafted if drafted else None
            own[kind] = {
                "words_per_s": round(words / seconds, 1),
                "over_plain": [round(value, 3) for value in ratio],
                "accepted": None if share is None else round(share, 3),
                "words_per_forward": round(words / forwards, 2),
                "free_drafts": round(plain / forwards, 2),
            }
            rows.append(
                (
                    f"{name}: {kind}",
                    f"{words / seconds:.0f}",
                    f"{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})",
                    "" if share is None else f"{share:.2f}",
                    f"{words / forwards:.2f}",
                    f"{plain / forwards:.2f}",
                )
            )
        figures[name] = {"sentences": len(found["none"]), "differ": wrong, "drafts": own}
        best = max(each["over_plain"][0] for kind, each in own.items() if kind != "none")
    told = [f"{differ} sentences differ from plain greedy ones"] if differ else []
    return Report(best, figures, rows, wrong=told)


def _options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_checkpoint(parser)
    add("--part", choices=("nano", "decoder", "both"), default="both")
    add("--rendered", type=at_least_one, default=60, help="clips to render")
    add(
        "--sentences",
        type=at_least_one,
        default=80,
        help="measured, and as many learned from; a quarter of long ones",
    )
    add("--ahead", type=at_least_one, default=6, help="words that are drafted at a time, at most")
    add("--head-steps", type=at_least_one, default=300, help="of teaching the exit's head")
    add("--size", choices=("real", "tiny"), default="real", help="of the decoder; tiny is for tests")
    add("--bf16", action=argparse.BooleanOptionalAction, default=True, help="train the decoder's base in bfloat16")
    add("--base-steps", type=at_least_one, default=100, help="of the decoder's base")


COMMAND = Benchmark(
    "speculative",
    __doc__,
    "plain greedy words with kept keys and values (speed; the best draft of the last part measured)",
    _options,
    _measure,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
