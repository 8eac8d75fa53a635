"""`python -m benchmarks.quantized --data MANIFEST.csv`: the cloud member in integers, rounded in three ways.

    family, rendered clips --nearest, GPTQ, VLMQ at equal bits--> checkpoint folder --load--> what it says
    on real clips: F1, AUC; on rendered events: perplexity of their captions, KL of verdict and words to the floats
    a Qwen3-VL text decoder that answers `report_task`: perplexity of its answers, KL of its words

Only blocks behind the exit are quantised, 3 of 4 in both. Integers become floats when a folder is loaded: the file is
smaller, what is computed with is not. KL is in nats, from the member in floats. Without --data F1 is of rendered clips.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import add_checkpoint
from benchmarks.runner import Benchmark, Report
from wire.arguments import at_least_one, former_name
from wire.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from benchmarks.model.report_task import ReportTask, Size
    from benchmarks.privacy.frontier import Clips
    from familial.data.events import LabelledClip
    from familial.model.family import Family

__all__ = ["COMMAND", "TextCalibration"]

_METHODS = ("nearest", "gptq", "vlmq")
_HEAD = ("member", "weights", "MB", "F1", "AUC", "perplexity", "KL verdict", "KL words", "labels turn", "quantised in")
_BATCH, _ROUNDS = 64, 8  # events of a forward that is timed, and forwards
_CALIBRATED, _ANSWERS = 2, 8  # batches, and answers of each, that a decoder is calibrated on


class TextCalibration:
    """A Qwen3-VL text decoder and its own answers, as `familial.quantize.calibration.Calibration` wants them.

    Args:
        model: a `Qwen3VLTextModel`.
        task: prompts.
        size: of the decoder and its answers.
    """

    def __init__(self, model: Any, task: ReportTask, size: Size) -> None:
        import torch

        from benchmarks.model.report_task import prompt_of
        from familial.model.decoders.word_decoder import WordDecoder, sampled_words

        with torch.no_grad():
            prompt = prompt_of(model, task)
            self._start = prompt.length
            self._decoder = WordDecoder.of_text_model(model, prompt.length + size.answer)
            random = torch.Generator().manual_seed(0)
            self._said = sampled_words(self._decoder, prompt, 1, size.answer, 1.0, random)
            hidden = torch.cat((prompt.hidden, self._decoder.embed(self._said[:, :-1])), dim=1)
            self._entering = self._decoder.states(hidden, blocks=(0, self._decoder.exit_at))

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """Those behind the exit."""
        return self._decoder.layers[self._decoder.exit_at :]

    def __len__(self) -> int:
        return -(-len(self._said) // _ANSWERS)

    def _rows(self, batch: int) -> slice:
        return slice(batch * _ANSWERS, (batch + 1) * _ANSWERS)

    def entering(self, batch: int) -> Tensor:
        """Return the exit's states of prompts and answers."""
        return self._entering[self._rows(batch)]

    def through(self, block: int, hidden: Tensor, batch: int) -> Tensor:
        """Compute one block."""
        number = self._decoder.exit_at + block
        return self._decoder.states(hidden, blocks=(number, number + 1))

    def read(self, batch: int) -> Tensor:
        """All tokens: an answer is full."""
        import torch

        return torch.ones(self.entering(batch).shape[:2], dtype=torch.bool)

    def losses(self, hidden: Tensor, batch: int) -> list[Tensor]:
        """The words that it sampled, as if they were true."""
        from torch.nn.functional import cross_entropy

        logits, said = self._decoder.logits(hidden[:, self._start - 1 :]), self._said[self._rows(batch)]
        return [cross_entropy(logits.flatten(0, 1), said.flatten(), reduction="sum")]


def _decoder_part(args: argparse.Namespace) -> tuple[list[tuple[str, ...]], dict[str, Any]]:
    import torch

    from benchmarks.model.report_task import REAL, TINY, ReportTask, Size, prompt_of, trained_base
    from familial.model.decoders.word_decoder import WordDecoder
    from familial.quantize.calibration import matrices, quantise

    size = {"tiny": TINY, "small": Size(256, 4, 8, 64), "real": REAL}[args.size]
    model = trained_base(size, args.base_steps, args.bf16 and size is REAL, lambda line: print(line, flush=True)).eval()
    judged = ReportTask(_CALIBRATED * _ANSWERS, 9)
    answers = judged.answers(size.answer)

    def logs(of: Any) -> Tensor:
        decoder = WordDecoder.of_text_model(of, 16 + size.answer)
        with torch.no_grad():
            return torch.log_softmax(decoder.word_logits(prompt_of(of, judged), answers), dim=2)

    floats = logs(model)
    weights = sum(each.weight.numel() for block in list(model.layers)[1:] for each in matrices(block).values())
    rows, found = list[tuple[str, ...]](), dict[str, Any]()
    for bits, method in _variants(args.bits):
        own, began = copy.deepcopy(model), time.process_time()
        if bits != 32:
            quantise(TextCalibration(own, ReportTask(_CALIBRATED * _ANSWERS, 8), size), bits, args.group, method)
        seconds, made = time.process_time() - began, logs(own)
        perplexity = math.exp(-float(made.gather(2, answers[:, :, None]).mean()))
        divergence = float((floats.exp() * (floats - made)).sum(dim=2).mean())
        stored = weights * (bits + 24 / args.group) / 8e6 if bits != 32 else weights * 2 / 1e6
        found[_name(bits, method)] = {"perplexity": perplexity, "kl_words": divergence, "mb": stored, "s": seconds}
        figures = (f"{perplexity:.4f}", "", f"{divergence:.6f}", "", f"{seconds:.0f} s")
        rows.append((f"decoder, {args.size}", _name(bits, method), f"{stored:.3f}", "", "", *figures))
    count = sum(parameter.numel() for parameter in model.parameters())
    return rows, {"weights": count, "behind_the_exit": weights, "variants": found}


def _variants(bits: Sequence[int]) -> list[tuple[int, str]]:
    return [(32, ""), *((each, method) for each in bits for method in _METHODS)]


def _name(bits: int, method: str) -> str:
    return "floats" if bits == 32 else f"int{bits} {method}"


# --- the family


class _Judge:
    """Clips and events on which members of one family are compared."""

    def __init__(self, family: Family, clips: Clips, rendered: Sequence[LabelledClip], samples: int) -> None:
        import torch

        from familial.model.code_space import rounded_gaussian
        from familial.train.rl.sentences import read_events

        self.clips, self._noised = len(clips.codes), list[Any]()
        self._risks = [int(label > 0) for label in clips.truth]
        torch.manual_seed(1)
        for code in clips.codes:
            z = code[None].repeat(samples, 1, 1, 1)
            self._noised.append(z + rounded_gaussian(z, family.config.sigma))
        read, captions = [], list[str]()
        for clip in rendered:
            try:
                events = read_events(family, [clip], 1)
            except DataError:
                continue
            kept = [index for index, truth in enumerate(events.truths) if truth.label == clip.label]
            read.append((events.z[kept], events.present[kept]))
            captions += [clip.caption] * len(kept)
        self._z, self._present = (torch.cat([each[part] for each in read]) for part in (0, 1))
        count = family.config.caption_words
        self._words = torch.tensor([family.vocabulary.encode(caption, count) for caption in captions])
        self._floats = self._said(family)

    def _said(self, family: Family) -> tuple[Tensor, Tensor]:
        """Log probabilities of labels (N, L) and of the caption's words (N, W, V)."""
        import torch

        from familial.model.vocabulary import FIRST_LABEL

        with torch.no_grad():
            labels = family.cloud_logits(self._z, self._present)
            first = labels.argmax(dim=1, keepdim=True) + FIRST_LABEL
            words = torch.cat((first, self._words[:, :-1]), dim=1)
            logits = family.both_exits(self._z, self._present, words)[2]
        return torch.log_softmax(labels, dim=1), torch.log_softmax(logits, dim=2)

    def figures(self, family: Family) -> dict[str, float]:
        """What `family` reaches."""
        import numpy as np

        from familial.evaluate.clip_inference import clip_probabilities, event_probabilities
        from familial.evaluate.metrics import area_under_curve, risk_metrics
        from familial.model.vocabulary import PAD

        labels, words = self._said(family)
        there = self._words != PAD
        divergence = (self._floats[1].exp() * (self._floats[1] - words)).sum(dim=2)[there]
        chosen = words.gather(2, self._words[:, :, None])[:, :, 0][there]
        verdicts = (self._floats[0].exp() * (self._floats[0] - labels)).sum(dim=1)
        risk = np.stack([1.0 - clip_probabilities(event_probabilities(family, z, "cloud"))[:, 0] for z in self._noised])
        truth = np.array(self._risks, bool)
        called = (risk >= family.config.decision_threshold).astype(int)
        return {
            "f1": float(np.mean([risk_metrics(self._risks, row.tolist(), [1])["f1"] for row in called.T])),
            "auc": float(np.mean([area_under_curve(1.0 - row, truth) for row in risk.T])),
            "perplexity": math.exp(-float(chosen.mean())),
            "kl_verdict": float(verdicts.mean()),
            "kl_words": float(divergence.mean()),
            "turn": float((labels.argmax(dim=1) != self._floats[0].argmax(dim=1)).float().mean()),
        }


def _family_part(args: argparse.Namespace) -> tuple[list[tuple[str, ...]], dict[str, Any]]:
    import torch

    from benchmarks.privacy.frontier import encoded_clips
    from familial.data.sources import rendered_clips
    from familial.data.splits import clip_seeds
    from familial.model import checkpoint
    from familial.model.config import Quantization
    from familial.quantize.__main__ import quantised_member, write_quantised
    from familial.quantize.member import noised_events
    from wire.artifact.checkpoint import checkpoint_hash, weight_files

    family = checkpoint.load(args.checkpoint)
    config = family.config
    seeds = (clip_seeds("quantization", args.rendered), clip_seeds("quantization_judged", args.rendered))
    sets = [list(rendered_clips(each, config.labels, config.window, 1)) for each in seeds]
    torch.manual_seed(0)
    z, present = noised_events(family, [clip.footage for clip in sets[0]], 4)
    judge = _Judge(family, encoded_clips(family, args.data, args.rendered), sets[1], args.noise_samples)
    rows, found = list[tuple[str, ...]](), dict[str, Any]()
    with tempfile.TemporaryDirectory() as place:
        for bits, method in _variants(args.bits):
            folder, seconds = args.checkpoint, 0.0
            if bits != 32:
                folder, began = Path(place) / f"{bits}-{method}", time.process_time()
                how = Quantization(bits, args.group, method, checkpoint_hash(args.checkpoint))
                packed = quantised_member(copy.deepcopy(family), how, z, present, say=lambda line: None)
                write_quantised(args.checkpoint, folder, how, packed)
                seconds = time.process_time() - began
            own = checkpoint.load(folder)
            size = sum((folder / file).stat().st_size for file in weight_files(folder)) / 1e6
            held = sum(value.numel() * value.element_size() for value in own.state_dict().values()) / 1e6
            figures = {**judge.figures(own), "mb": size, "memory_mb": held, "s": seconds, "batch_ms": _batch_ms(own)}
            found[_name(bits, method)] = figures
            rows.append(_row(_name(bits, method), figures))
            print(rows[-1], flush=True)
    return rows, {"clips": judge.clips, "events_calibrated": len(z), "variants": found}


def _row(name: str, figures: dict[str, float]) -> tuple[str, ...]:
    shown = (("mb", 3), ("f1", 4), ("auc", 4), ("perplexity", 4), ("kl_verdict", 6), ("kl_words", 6), ("turn", 4))
    return ("nano", name, *(f"{figures[key]:.{places}f}" for key, places in shown), f"{figures['s']:.0f} s")


def _batch_ms(family: Family) -> float:
    """CPU milliseconds of the blocks behind the exit, for a batch of 64 events."""
    import torch

    config = family.config
    z = torch.randn(_BATCH, config.event_releases, config.tokens, config.width) * config.sigma
    present = torch.ones(_BATCH, config.event_releases, dtype=torch.bool)
    with torch.inference_mode():
        state = family.exit_state(z, present)
        family.continue_from(state, present)
        began = time.process_time()
        for _ in range(_ROUNDS):
            family.continue_from(state, present)
    return 1e3 * (time.process_time() - began) / _ROUNDS


def _measure(args: argparse.Namespace) -> Report:
    import torch

    torch.set_num_threads(1)
    rows: list[tuple[str, ...]] = [_HEAD]
    figures, ratio = dict[str, Any](), None
    for name, part in (("nano", _family_part), ("decoder", _decoder_part)):
        if args.part not in (name, "both"):
            continue
        more, figures[name] = part(args)
        rows += more
        kept = figures[name]["variants"]
        least = min(args.bits)
        ratio = kept[_name(least, "vlmq")]["kl_words"] / kept[_name(least, "nearest")]["kl_words"]
    notes = ["weights behind the exit alone are integers; they are floats again in memory"]
    if "nano" in figures:
        held = figures["nano"]["variants"]
        notes += [
            f"{name}: {own['memory_mb']:.2f} MB in memory, {own['batch_ms']:.1f} ms for a batch of {_BATCH}"
            for name, own in held.items()
        ]
    return Report(ratio, figures, rows, notes)


def _options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_checkpoint(parser)
    add("--part", choices=("nano", "decoder", "both"), default="both")
    add("--data", nargs="+", type=Path, default=[], metavar="MANIFEST.csv", help="real clips that F1 is of")
    add("--rendered", type=at_least_one, default=60, help="clips to calibrate on, and as many others to judge on")
    former_name(
        parser, "--draws", add("--noise-samples", type=at_least_one, default=2, metavar="N", help="of each clip")
    )
    add("--bits", nargs="+", type=int, choices=(2, 3, 4, 8), default=[8, 4, 3], help="of a weight")
    add("--group", type=at_least_one, default=64, help="weights that share a scale")
    add("--size", choices=("real", "small", "tiny"), default="real", help="of the decoder; tiny is for tests")
    add("--bf16", action=argparse.BooleanOptionalAction, default=True, help="train the real base in bfloat16")
    add("--base-steps", type=at_least_one, default=100, help="of the decoder's base")


COMMAND = Benchmark(
    "quantized",
    __doc__,
    "round-to-nearest at the fewest bits (KL of the words to the member in floats, VLMQ's over its)",
    _options,
    _measure,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
