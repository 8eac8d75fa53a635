"""Training, one visible loop: first what a window says, then what eight noisy windows say, the tower going on with it.

    sequences of 8 slots --tower, desensitizer--> codes --> which label's class prototype?                stage 1
                    `--tower--> what rendered clips know of bodies (`supervision`)
    ... + fresh noise --adapter, backbone--> both exits, attributes, the caption      stage 2, all together
                    `--adversary--> are two events of one scene? not to be told
    whole clips, tower at rest --adapter, backbone--> the verdict of the clip (`readers`)  stage 3

The noise is on at the config's profile; rounding is passed straight through. Progress is a line and a CSV row every few
seconds; --resume goes on from the last saved state. With --folds N, N families are trained that each leave one part of
the groups out, for `familial.evaluate --folds`.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from familial.data.batches import SampleBatch, SequenceBatch, sample_events, sample_sequences
from familial.data.clips import CACHE, UNSCORED, grouped_folds, read_manifests
from familial.data.events import Grid, LabelledClip
from familial.data.sources import manifest_clips, rendered_clips
from familial.data.splits import clip_seeds
from familial.evaluate.report import best_threshold, clip_codes, clip_probabilities, event_probabilities
from familial.model import checkpoint
from familial.model.config import FamilyConfig, nano
from familial.model.decoders.verdict import edge_exit
from familial.model.desensitizer import ASIDE, code_plane
from familial.model.encoder import Encoder
from familial.model.family import Family
from familial.model.towers.base import Seen
from familial.model.towers.motion import SnippetTower
from familial.model.vocabulary import FIRST_LABEL, Vocabulary
from familial.synth.truth import ATTRIBUTES
from familial.train.adversary import ReidentificationAdversary
from familial.train.body_tasks import Bodies
from familial.train.clip_stage import read_whole
from familial.train.losses import (
    attribute_loss,
    attribute_prototypes,
    clean_loss,
    event_loss,
    prototypes,
    rounded_gaussian,
    share_loss,
    size_loss,
    weak_loss,
)
from familial.train.progress import Clock, Curve, Plan, State
from familial.train.recipe import trainings
from wire.errors import CheckpointError, ConfigError, VeilsightError

__all__ = ["main", "noisy_events", "run", "train"]

_REPEATS = 4  # draws of noise for each held-out clip
_NOW = 3.0  # what happens now weighs so much more than the other tasks of single snippets
_SHARES = {"normal": 0.42, "fall": 0.33, "fight": 0.25}  # how often the labels are drawn, where they exist


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    try:
        run(argv)
    except VeilsightError as error:
        print(f"familial.train: {error}", file=sys.stderr)
        return 2
    return 0


def run(argv: Sequence[str] | None = None) -> None:
    """Train as the command line says. Raises ConfigError, DataError or CheckpointError."""
    parser, argv = _parser(), sys.argv[1:] if argv is None else argv
    args = parser.parse_args(argv)
    if args.recipe is None:
        _run(args)
        return
    for each in trainings(args.recipe, parser, argv, _work(args.out)):
        _run(each)


def _run(args: argparse.Namespace) -> None:
    """One training, or one for each fold."""
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    torch.manual_seed(args.seed)
    try:
        torch.zeros((), device=args.device)
    except (AssertionError, RuntimeError) as error:  # torch's own for a device that is unknown or not there
        why = str(error).splitlines()[0]
        raise ConfigError(f"--device {args.device}: {why}; give cpu, or a torch built for the device") from error
    with suppress(AttributeError, OSError):  # glibc gives large blocks back at once; fetching them anew costs a quarter
        ctypes.CDLL(None).mallopt(-4, 0)  # M_MMAP_MAX
        ctypes.CDLL(None).mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD, bytes
    if not args.data and not args.rendered:
        raise ConfigError("nothing to train on: give --data MANIFEST.csv, --rendered N or both")
    size = nano(("<pad>", "<end>")) if args.base is None else FamilyConfig.load(args.base / "config.json")
    if args.whole < 0 or args.stage_1 < 0 or args.whole >= 1 or args.stage_1 + args.whole > 1:
        raise ConfigError(f"--stage-1 {args.stage_1:g}, --whole {args.whole:g}: shares of the time, together at most 1")
    if args.workers < 0:
        raise ConfigError(f"--workers {args.workers}: a number of processes; 0 draws in a thread")
    if args.attributes and not size.rank:
        raise ConfigError(
            f"--attributes: codes of {args.base} lie in all directions (rank 0), none is left for answers"
        )
    if args.attributes and not size.attributes:
        size = _with_attributes(size)
    if args.context_frames is not None:
        size = replace(size, window=replace(size.window, context_frames=args.context_frames))
    render = partial(rendered_clips, labels=size.labels, spec=size.window, processes=args.processes)
    rendered = _counted(render(clip_seeds("training", args.rendered)), args.rendered)
    held = list(render(clip_seeds("held_out", args.rendered // 10)))
    clips = read_manifests(args.data, size.labels) if args.data else []
    clips = [clip for clip in clips if clip.label != UNSCORED]
    real = manifest_clips(clips, size.labels, size.window)
    plan = Plan(**{name: getattr(args, name) for name in Plan.__slots__ if name != "warm"}, warm=args.base is not None)
    if not args.folds:
        family = _start([*rendered, *real], size, args.base, args.decision_threshold)
        train(family, [*rendered, *real], held or real, plan, args.out, args.resume)
        return
    fold_of = grouped_folds(clips, args.folds)
    for fold in range(args.folds) if args.fold is None else [args.fold]:
        out = args.out / f"fold-{fold}"
        kept = [*rendered, *(clip for clip, where in zip(real, fold_of, strict=True) if where != fold)]
        left = [clip for clip, where in zip(real, fold_of, strict=True) if where == fold]
        print(f"fold {fold}: {len(kept)} clips to train on, {len(left)} clips left out", flush=True)
        # calibrated on rendered clips where there are any: what is left out must have no say in its own probabilities
        train(_start(kept, size, args.base, args.decision_threshold), kept, held or left, plan, out, args.resume)
        names = [clip.name for clip, where in zip(clips, fold_of, strict=True) if where == fold]
        (out / "left_out.json").write_text(json.dumps(names, indent=0) + "\n")


def _work(out: Path) -> Path:
    """Where curve and state of a training go whose checkpoint goes to `out`."""
    return CACHE.parent / "train" / f"{out.resolve().parent.name}-{out.name}"


def _with_attributes(size: FamilyConfig) -> FamilyConfig:
    """`size` with attributes, whose tokens come behind those of the labels."""
    words = size.words[FIRST_LABEL + len(size.labels) :]
    special = Vocabulary.of_captions((), size.labels, ATTRIBUTES).words
    return replace(size, attributes=ATTRIBUTES, words=(*special, *words))


def _start(
    clips: Sequence[LabelledClip], size: FamilyConfig, base: Path | None, decision_threshold: float | None
) -> Family:
    """A family of `size` with the words of all captions: fresh, or from the weights of `base`."""
    words = Vocabulary.of_captions((clip.caption for clip in clips), size.labels, size.attributes).words
    known = size.words if base is not None else ()
    config = replace(size, words=(*known, *(word for word in words if word not in known)))
    family = Family(config if decision_threshold is None else replace(config, decision_threshold=decision_threshold))
    if base is not None:
        left = checkpoint.adopt(family, base)
        print(f"began from {base}" + (f"; new: {', '.join(left)}" if left else ""), flush=True)
    return family


def train(
    family: Family, clips: Sequence[LabelledClip], held: Sequence[LabelledClip], plan: Plan, out: Path, resume: bool
) -> Family:
    """Train on the plan's device. Writes the checkpoint into `out`, curve and resumable state under build/train.

    Returns the averaged family, on the CPU.
    """
    with torch.device(plan.device):  # whatever is made inside is made there
        return _trained(family.to(plan.device), clips, held, plan, out, resume)


def _trained(
    family: Family, clips: Sequence[LabelledClip], held: Sequence[LabelledClip], plan: Plan, out: Path, resume: bool
) -> Family:
    """The loop."""
    work = _work(out)
    work.mkdir(parents=True, exist_ok=True)
    average = copy.deepcopy(family).eval().requires_grad_(False)
    helpers = _Helpers(family)
    every = [*family.parameters(), *helpers.parameters()]
    optimiser = torch.optim.AdamW(every, lr=plan.rate, weight_decay=0.02, betas=(0.9, 0.98))
    state = State(work / "state.pt", {"family": family, "average": average, "helpers": helpers}, optimiser)
    step, spent = state.restored() if resume else state.forgotten()
    curve = Curve(work / "curve.csv", fresh=step == 0)
    config, clock = family.config, Clock(plan, step, spent)
    clock.reading = step > 0 and clock.stage == 2
    with clock.paused():  # what is prepared is nobody's training time
        source, tests = _Sequences(config, clips, plan), _Held(average, held, plan)
    label_prototypes = prototypes(len(config.labels), config.tokens, config.width, config.clip_norm - 1.0)
    family.train()
    while clock.done < 1.0:
        if clock.stage == 2 and not clock.reading:
            clock.reading = True
            if not plan.warm:
                for each in (family, average):
                    each.adapter.point_at(code_plane(config.tokens, config.width, (config.rank or 2) + config.aside))
        for group in optimiser.param_groups:
            group["lr"] = plan.rate * clock.pace
        sequences = source.batch(clock.step)
        seen, linked = list[Seen](), 0.0
        x = family.sequence_features(torch.as_tensor(sequences.frames), source.index, plan.bf16, seen)
        losses = _window_losses(family, x, sequences, label_prototypes, source.balance(sequences))
        weighted = helpers.of_bodies(seen, sequences).items()
        losses |= {name: plan.bodies * loss * (_NOW if name == "now" else 1.0) for name, loss in weighted}
        if clock.stage == 2:
            samples = source.samples(sequences, plan.readings, [plan.seed, clock.step])
            pairs = zip(sequences.clip[samples.sequence].tolist(), samples.labels.tolist(), strict=True)
            sentences = [_caption(clips[clip], label) for clip, label in pairs]
            z, present = noisy_events(family.code(x.flatten(0, 1)).reshape(x.shape), samples, config.sigma)
            losses |= _event_losses(family, z, present, samples, sequences, source.weights(samples), sentences)
            losses["link"], linked = helpers.linked(z, present, samples, sequences, plan.adversary)
        total = sum(losses.values(), torch.zeros(()))
        if not math.isfinite(total.item()):
            raise CheckpointError(
                f"step {clock.step}: the loss is {total.item()}; the last good state is {state.path}: "
                "lower --rate and go on with --resume"
            )
        optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(every, 1.0)
        optimiser.step()
        clock.step += 1
        _average(average, family, min(0.998, (clock.step - step) / (10 + clock.step - step)))
        told = {name: float(value.detach()) for name, value in losses.items()}
        curve.add(clock, told | ({"linked": linked} if "link" in told else {}))
        if curve.due():
            with clock.paused():
                curve.show(tests.scores(average))
                state.store(clock.step, clock.spent)
    steps = max(1, round(plan.whole * plan.steps)) if plan.steps else 0
    read_whole(average, clips, _shares(config), plan.whole * plan.minutes, steps, plan.seed)
    with clock.paused():
        average.config = _leaning(tests.calibrated(average), plan)
    checkpoint.save(average.cpu(), out)
    print(
        f"{clock.step} steps in {clock.spent / 60:.1f} min; checkpoint in {out}, curve in {curve.path}",
        flush=True,
    )
    return average


class _Sequences(Dataset[SequenceBatch]):
    """Batches by their step, made ahead by a thread or by processes; always the same for a seed and a step."""

    def __init__(self, config: FamilyConfig, clips: Sequence[LabelledClip], plan: Plan) -> None:
        self.config, self.clips, self.plan, self.shares = config, clips, plan, _shares(config)
        self.grid = Grid.of(config.window, config.event_releases)
        self.index = torch.as_tensor(self.grid.index)
        self._worker = ThreadPoolExecutor(1)
        self._windows = np.full(len(config.labels), 100.0)
        self._seen = np.full((len(config.labels), config.event_releases), 10.0)
        self._coming: dict[int, Future[SequenceBatch]] = {}
        self._arriving: Iterator[tuple[Tensor, SequenceBatch]] | None = None

    def draw(self, sequences: int, seed: list[int], plain: bool = False) -> SequenceBatch:
        """A batch of one's own."""
        rng = np.random.default_rng(seed)
        return sample_sequences(self.clips, self.shares, sequences, self.grid, self.config.window, rng, plain)

    def batch(self, step: int) -> SequenceBatch:
        """The batch of `step`; the next call is for the step after it."""
        if self.plan.workers:
            if self._arriving is None:
                self._arriving = iter(self._loader(step))
            frames, sequences = next(self._arriving)
            return replace(sequences, frames=frames.numpy())
        for ahead in range(step, step + 3):
            if ahead not in self._coming:
                self._coming[ahead] = self._worker.submit(self.__getitem__, ahead)
        return self._coming.pop(step).result()

    def __getitem__(self, step: int) -> SequenceBatch:
        return self.draw(self.plan.runs, [self.plan.seed, step])

    def _loader(self, first: int) -> DataLoader[SequenceBatch]:
        """Batches of `first` and the steps after it from forked processes, which share the clips with this one."""
        return DataLoader(
            self,
            batch_size=None,
            sampler=itertools.count(first),
            num_workers=self.plan.workers,
            collate_fn=_parted,  # type: ignore[arg-type]  # typed for lists of samples alone
            multiprocessing_context="fork",
        )

    def balance(self, sequences: SequenceBatch) -> Tensor:
        """float (L,): what makes labels of single windows as frequent as `shares` says, counted over all batches so
        far."""
        self._windows += np.bincount(sequences.labels[sequences.labels >= 0], minlength=len(self._windows))
        wanted = np.array(self.shares) / (self._windows / self._windows.sum())
        return torch.as_tensor(np.clip(wanted, 0.2, 5.0)).float()

    def weights(self, samples: SampleBatch) -> Tensor:
        """float (N,): what makes labels as frequent as `shares` says at EVERY number of releases, so that the number
        tells nothing. Counted over all that was read so far."""
        counts = samples.last - samples.first
        np.add.at(self._seen, (samples.labels, counts), 1.0)
        share = self._seen / self._seen.sum(axis=0, keepdims=True)  # (L, R)
        wanted = np.array(self.shares)[:, None] / np.clip(share, 1e-6, None)
        return torch.as_tensor(np.clip(wanted, 0.2, 5.0)[samples.labels, counts]).float()

    def samples(self, sequences: SequenceBatch, each: int, seed: list[int], full: float = 0.4) -> SampleBatch:
        """What a reader is given of a batch."""
        rng = np.random.default_rng([*seed, 1])
        return sample_events(sequences, self.clips, self.config.window, each, rng, full)


def _parted(sequences: SequenceBatch) -> tuple[Tensor, SequenceBatch]:
    """The frames as a tensor, which goes from process to process without a copy, and the rest."""
    return torch.from_numpy(sequences.frames), replace(sequences, frames=sequences.frames[:0])


def _window_losses(
    family: Family, x: Tensor, sequences: SequenceBatch, label_prototypes: Tensor, weights: Tensor
) -> dict[str, Tensor]:
    """Stage 1's: x float (B, R, K, d) of a batch -> losses of the releases whose label is known, each label weighted by
    `weights` float (L,), and of those where only the sequence's is."""
    labels, weak = torch.as_tensor(sequences.labels), torch.as_tensor(sequences.weak)
    sure, hidden = labels >= 0, weak >= 0
    losses = {"size": 0.002 * size_loss(x.flatten(0, 1), family.config.clip_norm)}
    if bool(sure.any()):
        losses["clean"] = clean_loss(x[sure], labels[sure], label_prototypes, weights)
    if bool(hidden.any()):
        losses["weak"] = hidden.float().mean() * weak_loss(x[hidden], weak[hidden], label_prototypes)
    config, attributes = family.config, torch.as_tensor(sequences.attributes)
    plain = (labels == 0) & (attributes >= 0)
    if config.attributes and bool(plain.any()):
        directions = attribute_prototypes(len(config.attributes), config.rank, config.tokens, config.width)
        losses["attribute"] = 0.3 * attribute_loss(
            x[plain], attributes[plain], directions, ASIDE * (config.clip_norm - 1.0)
        )
    return losses


def _event_losses(
    family: Family,
    z: Tensor,
    present: Tensor,
    samples: SampleBatch,
    sequences: SequenceBatch,
    weights: Tensor,
    sentences: Sequence[str],
) -> dict[str, Tensor]:
    """Stage 2's: noised events z float (N, R, K, d), present bool (N, R), of samples of sequences, with weights and
    captions -> losses of both exits."""
    config, labels = family.config, torch.as_tensor(samples.labels)
    captions = torch.tensor([family.vocabulary.encode(text, config.caption_words) for text in sentences])
    words = torch.cat((labels[:, None] + FIRST_LABEL, captions[:, :-1]), dim=1)
    edge, cloud, following, attributes = family.both_exits(z, present, words)
    at_edge, at_cloud, caption = event_loss(edge, cloud, following, labels, captions, weights)
    losses = {"edge": at_edge, "cloud": at_cloud, "caption": 0.05 * caption}
    if config.attributes:
        losses["shares"] = 0.2 * share_loss(
            attributes, torch.as_tensor(samples.shares(sequences, len(config.attributes)))
        )
    return losses


def noisy_events(code: Tensor, samples: SampleBatch, sigma: float) -> tuple[Tensor, Tensor]:
    """Codes float (B, R, K, d) -> z float (N, R, K, d) with fresh noise, present bool (N, R).

    What arrived is moved to the event's end, with zeros before it.
    """
    count = code.shape[1]
    sequence, last = torch.as_tensor(samples.sequence), torch.as_tensor(samples.last)
    length = last - torch.as_tensor(samples.first) + 1
    place = last[:, None] - torch.arange(count - 1, -1, -1)  # (N, R): which release comes to each place
    present = torch.arange(count - 1, -1, -1) < length[:, None]
    chosen = code[sequence[:, None], place.clamp(min=0)]
    return (chosen + rounded_gaussian(chosen, sigma)) * present[:, :, None, None], present


class _Helpers(nn.Module):
    """What only training has: heads for bodies, where the tower knows snippets, and the adversary."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        tower = family.tower
        self.bodies = Bodies(tower, len(family.config.labels)) if isinstance(tower, SnippetTower) else None
        self.reid_adversary = ReidentificationAdversary(family.config.n, family.config.sigma)

    def of_bodies(self, seen: Sequence[Seen], sequences: SequenceBatch) -> dict[str, Tensor]:
        """Losses of what is known of bodies, where anything is."""
        return (
            self.bodies(seen[0], torch.as_tensor(sequences.now), sequences.truth)
            if self.bodies is not None and seen
            else {}
        )

    def linked(
        self, z: Tensor, present: Tensor, samples: SampleBatch, sequences: SequenceBatch, weight: float
    ) -> tuple[Tensor, float]:
        """The adversary's loss, and the share that it links right beyond chance."""
        attributes = np.where(samples.labels == 0, sequences.attributes[samples.sequence, samples.last], -1)
        kind = torch.as_tensor(samples.labels * 100 + attributes)
        linked: tuple[Tensor, float] = self.reid_adversary(z, present, torch.as_tensor(samples.sequence), kind, weight)
        return linked


class _Held:
    """Clips that are not trained on: scores now and then, and calibration at the end."""

    def __init__(self, average: Family, clips: Sequence[LabelledClip], plan: Plan) -> None:
        self.source = _Sequences(average.config, clips, plan) if clips else None
        self.sequences = (
            self.source.draw(min(64, 2 * len(clips)), [plan.seed, 1 << 30], plain=True) if self.source else None
        )
        config = average.config
        self.prototypes = prototypes(len(config.labels), config.tokens, config.width, config.clip_norm - 1.0)
        self.plan = plan

    @torch.no_grad()
    def scores(self, average: Family) -> dict[str, float]:
        """Shares right: of windows without noise, nearest to their label's class prototype; of noisy samples, at
        each exit."""
        if self.source is None or self.sequences is None:
            return {}
        codes, found = self._codes(average, self.sequences), dict[str, float]()
        labels = torch.as_tensor(self.sequences.labels)
        nearest = (codes.flatten(2) @ self.prototypes.flatten(1).T).argmax(dim=2)
        if bool((labels >= 0).any()):
            found["held_release"] = float((nearest == labels)[labels >= 0].float().mean())
        for name, full in (("", 0.0), ("_whole", 1.0)):
            samples = self.source.samples(self.sequences, 8, [self.plan.seed], full)
            if len(samples.labels):
                edge, cloud, truth = _read(average, codes, samples)
                found["held_edge" + name] = float((edge.argmax(1) == truth).float().mean())
                found["held_cloud" + name] = float((cloud.argmax(1) == truth).float().mean())
        return found

    def _codes(self, average: Family, sequences: SequenceBatch) -> Tensor:
        assert self.source is not None
        encode = Encoder(average)
        return torch.as_tensor(
            np.stack([encode.sequence(frames, self.source.grid.index) for frames in sequences.frames])
        ).float()

    @torch.no_grad()
    def calibrated(self, average: Family) -> FamilyConfig:
        """The config with the temperature and the bias towards all risks alike that make probabilities of both exits
        likeliest on held-out samples of whole sequences, noise on, risk and normal equally frequent.

        The config as it is where nothing is held out.
        """
        config, risks = average.config, len(average.config.labels) - 1
        if self.source is None:
            return config
        sequences = self.source.draw(min(256, 8 * len(self.source.clips)), [self.plan.seed, 1 << 29], plain=True)
        samples = self.source.samples(sequences, 12, [self.plan.seed, 2], 1.0)
        if len(set((samples.labels > 0).tolist())) < 2:
            return config
        edge, cloud, labels = _read(average, self._codes(average, sequences), samples)
        raw = (torch.stack((edge, cloud)) - torch.tensor(config.label_bias)) * config.temperature  # (exits, N, L)
        share = (labels > 0).float().mean()
        weight = torch.where(labels > 0, 0.5 / share, 0.5 / (1.0 - share))

        def loss(temperature: float, logit_bias: float) -> float:
            logits = raw / temperature + torch.tensor([0.0] + [logit_bias] * risks)
            each = nn.functional.cross_entropy(logits.flatten(0, 1), labels.repeat(2), reduction="none")
            return float((each * weight.repeat(2)).mean())

        grid = [(1.1**power, step / 10) for power in range(-8, 13) for step in range(-15, 16)]
        best = min(grid, key=lambda pair: loss(*pair))
        print(
            f"temperature {best[0]:.2f}, bias {best[1]:+.1f} towards risk: held-out loss {loss(*best):.4f}, "
            f"{loss(config.temperature, 0.0):.4f} without"
        )
        bias = (0.0, *([round(best[1], 4)] * risks))
        return self._limited(average, replace(config, temperature=round(best[0], 4), label_bias=bias))

    def _limited(self, average: Family, config: FamilyConfig) -> FamilyConfig:
        """`config` with the `decision_threshold` that is best on the held-out clips, each read whole, noise on."""
        if self.plan.decision_threshold is not None or self.source is None:
            return config
        family = Family(config).eval()
        family.load_state_dict(average.state_dict())
        rows, truth = [], []
        for clip in self.source.clips:
            z = clip_codes(family, clip.footage)[None].repeat(_REPEATS, 1, 1, 1)
            read = event_probabilities(family, z + rounded_gaussian(z, config.sigma), "cloud")
            rows += [clip_probabilities(events) for events in read]
            truth += [clip.label] * _REPEATS
        found = best_threshold(truth, rows, ["held out"] * len(truth))
        print(f"a clip is a risk from {found:.2f} on", flush=True)
        return replace(config, decision_threshold=round(found, 4))


def _leaning(config: FamilyConfig, plan: Plan) -> FamilyConfig:
    """The config with the plan's lean towards risks; a limit that was fitted moves with it, so the same clips are
    called."""
    if not plan.logit_bias:
        return config
    bias = (config.label_bias[0], *(round(risk + plan.logit_bias, 4) for risk in config.label_bias[1:]))
    if plan.decision_threshold is not None:
        return replace(config, label_bias=bias)
    odds = math.exp(plan.logit_bias) * config.decision_threshold / (1.0 - config.decision_threshold)
    return replace(config, label_bias=bias, decision_threshold=round(odds / (1.0 + odds), 4))


def _read(average: Family, codes: Tensor, samples: SampleBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Codes float (B, R, K, d) -> edge and cloud logits (N, L) of noisy samples, and their labels (N,)."""
    z, present = noisy_events(codes, samples, average.config.sigma)
    state = average.exit_state(z, present)
    edge, cloud = edge_exit(average, state, present), average.continue_from(state, present)
    return edge, cloud, torch.as_tensor(samples.labels)


def _shares(config: FamilyConfig) -> list[float]:
    """How often each label is drawn: a family that watches is wrong most often about nothing, so nothing comes most."""
    weights = [_SHARES.get(label, 0.2) for label in config.labels]
    return [weight / sum(weights) for weight in weights]


def _caption(clip: LabelledClip, label: int) -> str:
    """The clip's own sentence where the event shows what it is about, else the plain one of what it shows instead."""
    return clip.caption if label == clip.label else "nothing unusual happens"


def _average(average: nn.Module, module: nn.Module, keep: float) -> None:
    with torch.no_grad():
        for mine, theirs in zip(average.parameters(), module.parameters(), strict=True):
            mine.lerp_(theirs, 1.0 - keep)
        for held, new in zip(average.buffers(), module.buffers(), strict=True):
            if held.is_floating_point():
                held.lerp_(new, 1.0 - keep)


def _counted(clips: Iterator[LabelledClip], total: int) -> list[LabelledClip]:
    began, found = time.monotonic(), []
    for clip in clips:
        found.append(clip)
        if len(found) % 200 == 0 or len(found) == total:
            print(f"rendered {len(found)}/{total} in {time.monotonic() - began:.0f} s", flush=True)
    return found


class _Parser(argparse.ArgumentParser):
    """Raises ConfigError where argparse would exit: a recipe's options are read by it too."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m familial.train", description="Train the family.")
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
    parser.add_argument("--recipe", type=Path, metavar="FILE.toml", help="trainings one after the other; options win")
    parser.add_argument("--context-frames", type=int, metavar="N", help="of a window; default: the base's, or 52")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoint folder to write")
    parser.add_argument(
        "--folds",
        type=int,
        default=0,
        metavar="N",
        help="train N families, each leaving a part of the groups out",
    )
    parser.add_argument("--fold", type=int, metavar="K", help="of --folds, train this one only")
    parser.add_argument("--decision-threshold", type=float, help="limit for calling a clip a risk; default: fitted")
    parser.add_argument(
        "--logit-bias", type=float, default=0.0, help="added to a risk's log odds; a fitted limit goes along"
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="wall clock of one family")
    parser.add_argument("--steps", type=int, default=0, help="at most so many steps")
    parser.add_argument("--runs", type=int, default=16, help="sequences of 8 slots in a batch")
    parser.add_argument("--readings", type=int, default=6, help="noisy samples of each sequence in stage 2")
    parser.add_argument("--stage-1", type=float, default=0.6, help="share of the time for single windows")
    parser.add_argument("--whole", type=float, default=0.12, help="share of the time for whole clips, at the end")
    parser.add_argument("--bodies", type=float, default=0.3, help="weight of what rendered clips know of bodies")
    parser.add_argument("--adversary", type=float, default=0.3, help="weight of the adversary against links")
    parser.add_argument("--attributes", action="store_true", help="attributes: how many people, low, running")
    parser.add_argument("--bf16", action="store_true", help="tower in bfloat16: for CPUs that multiply it fast")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="what computes, as torch names it: cpu, cuda")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0, help="processes that draw batches; default: a thread")
    parser.add_argument("--processes", type=int, default=2, help="renderer's workers")
    parser.add_argument("--resume", action="store_true", help="go on from the last saved state of this --out")
    return parser
