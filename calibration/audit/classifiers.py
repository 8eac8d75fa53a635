"""Classifiers that read noised releases: attackers who know everything but the random bits.

    Gallery --consecutive releases of one clip--> Observations (clean) --fresh noise, every step--> classifier --> label

Several classifiers attack each target and the best one counts, which errs against us. One is a network, trained on at
least 100,000 noised windows. The others need no training: they know the clean code of every window that the attacker
enrolled. One takes the likelihood of the noised releases under each label's enrolled sequences (a mixture of
Gaussians), which is optimal where no other sequences can come. One, for sequences, lets any enrolled window follow any
other, as a hidden Markov model with equal transitions does, and multiplies the likelihoods.

The control of each attack is the same attack on a desensitizer that was trained to leak what is asked for (`leak`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from calibration.audit.targets import Gallery
from familial.evaluate.intervals import auc_interval, macro_accuracy_interval
from familial.model.code_space import rounded_gaussian
from familial.model.desensitizer import integer_code

__all__ = [
    "Effort",
    "Observations",
    "Outcome",
    "observe",
    "leak",
    "observe_mean",
    "name_owner",
    "name_strangers",
    "classify_trait",
]

_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long a classifier is trained and how much it is tested.

    Attributes:
        windows: noised windows of the training, at least.
        batch: windows in a step.
        tests: noised windows of the test, at least.
        turns: how often a naming attack is repeated with other clips enrolled, so that every clip is tested once; 1
            means with the clips that the gallery enrols.
        seed: of initial weights and batches.
    """

    windows: int = 128_000
    batch: int = 512
    tests: int = 16_384
    turns: int = 1
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Observations:
    """What an attacker may see, before noise.

    Attributes:
        codes: float32 (E, R, n), 0 where no release came.
        present: bool (E, R).
        label: int64 (E,).
        unit: int64 (E,), the clip.
        enrol: bool (E,), what the attacker learns from.
        scale: sigma of the noise over that of one release.
    """

    codes: Tensor
    present: Tensor
    label: _Integers
    unit: _Integers
    enrol: npt.NDArray[np.bool_]
    scale: float = 1.0

    def noised(self, rows: Tensor, sigma: float) -> Tensor:
        """Return releases float (B, R, n) of the rows int64 (B,), with fresh noise, in units of its sigma."""
        clean, spread = self.codes[rows], sigma * self.scale
        noise = rounded_gaussian(clean, spread) if self.scale == 1.0 else torch.randn_like(clean) * spread
        return (clean + noise) * self.present[rows][:, :, None] / spread


def observe(gallery: Gallery, releases: int, codes: npt.NDArray[np.int16] | None = None) -> Observations:
    """Return every sequence of `releases` windows of every clip; a shorter clip is read whole, the rest missing."""
    values = torch.from_numpy((gallery.codes if codes is None else codes).astype(np.float32))
    rows = list[_Integers]()
    for clip in range(len(gallery.owner)):
        mine = np.flatnonzero(gallery.clip == clip)
        count = max(1, len(mine) - releases + 1)
        for first in range(count):
            read = mine[first : first + releases]
            rows.append(np.pad(read, (releases - len(read), 0), constant_values=-1))
    index = np.stack(rows)
    present = torch.from_numpy(index >= 0)
    unit = gallery.clip[index.max(axis=1)]
    observed = values[torch.from_numpy(np.maximum(index, 0))] * present[:, :, None]
    return Observations(observed, present, gallery.owner[unit], unit, gallery.enrol[unit])


def observe_mean(
    gallery: Gallery, count: int, moving: bool, codes: npt.NDArray[np.int16] | None, seed: int
) -> Observations:
    """Return means of `count` releases of one clip. The mean's noise is 1 / sqrt(count) of a release's.

    Args:
        gallery: the clips.
        count: releases in a mean.
        moving: the windows are drawn from the whole clip; else one window is repeated (somebody sits still).
        codes: int16 (N, n) in place of the gallery's own.
        seed: of the windows that are drawn.
    """
    rng = np.random.default_rng([seed, count, moving])
    values = (gallery.codes if codes is None else codes).astype(np.float32)
    if not moving:
        mean, unit = values, gallery.clip
    else:
        means, units = list[_Floats](), list[int]()
        for clip in range(len(gallery.owner)):
            mine = values[gallery.clip == clip]
            counts = rng.multinomial(count, np.full(len(mine), 1.0 / len(mine)), 32)  # how often each window
            means.append(counts @ mine / count)
            units += [clip] * 32
        mean, unit = np.concatenate(means).astype(np.float32), np.array(units)
    present = torch.ones(len(mean), 1, dtype=torch.bool)
    return Observations(
        torch.from_numpy(mean)[:, None],
        present,
        gallery.owner[unit],
        unit,
        gallery.enrol[unit],
        1.0 / math.sqrt(count) if count > 1 else 1.0,
    )


# --- the classifiers --------------------------------------------------------------------------------------------------


class _Network(nn.Module):
    """Releases (B, R, n) in units of sigma -> label logits (B, L).

    It reads each release and the scaled sum of all of them, in which S^2 adds.
    """

    def __init__(self, releases: int, n: int, labels: int) -> None:
        super().__init__()
        self.sum_scale = 1.0 / math.sqrt(releases)
        width = n * (releases + 1) if releases > 1 else n
        self.linear = nn.Linear(width, labels)
        last = nn.Linear(128, labels)
        nn.init.zeros_(last.weight)
        self.deep = nn.Sequential(nn.Linear(width, 128), nn.GELU(), last)

    def forward(self, z: Tensor) -> Tensor:
        flat = z.flatten(1)
        if z.shape[1] > 1:
            flat = torch.cat((flat, z.sum(dim=1) * self.sum_scale), dim=1)
        logits: Tensor = self.linear(flat) + self.deep(flat)
        return logits


def _balanced(label: _Integers, among: _Integers) -> Tensor:
    """Return sampling weights float (E,): every label equally often, from the observations `among` alone."""
    weight = np.zeros(len(label))
    counts = np.bincount(label[among])
    weight[among] = 1.0 / counts[label[among]]
    return torch.from_numpy(weight)


def _learn(observed: Observations, among: _Integers, labels: int, sigma: float, effort: Effort) -> nn.Module:
    """Train a network on the observations `among`, with a fresh noise sample on every window of every step."""
    torch.manual_seed(effort.seed)
    releases, n = observed.codes.shape[1:]
    network = _Network(releases, n, labels)
    batch = max(128, effort.batch // releases)
    steps = math.ceil(effort.windows / batch)  # the effort counts events where events are read
    optimiser = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    weight, label = _balanced(observed.label, among), torch.from_numpy(observed.label)
    batches = torch.multinomial(weight, steps * batch, replacement=True).reshape(steps, batch)
    for rows in batches:
        loss = nn.functional.cross_entropy(network(observed.noised(rows, sigma)), label[rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        optimiser.step()
        schedule.step()
    return network.eval()


def _likelihoods(z: Tensor, observed: Observations, among: _Integers, labels: int, sigma: float) -> Tensor:
    """Return log p(z | label) up to a constant, float (B, L), under the clean codes of the observations `among`.

    z is float (B, R, n), in units of sigma.
    """
    known = observed.codes[torch.from_numpy(among)].flatten(1) / (sigma * observed.scale)
    score = z.flatten(1) @ known.T - 0.5 * (known * known).sum(dim=1)
    of = torch.from_numpy(observed.label[among])
    columns = [
        torch.logsumexp(score[:, of == label], dim=1) - math.log(int((of == label).sum())) for label in range(labels)
    ]
    return torch.stack(columns, dim=1)


def _sequence(z: Tensor, observed: Observations, rows: Tensor, known: Sequence[Tensor], sigma: float) -> Tensor:
    """Return log p(z | label) up to a constant, float (B, L), where each release may come from any known window.

    Args:
        z: float (B, R, n), releases of the observations `rows`, in units of sigma.
        observed: all observations.
        rows: int64 (B,).
        known: clean codes (W, n) of the windows of each label.
        sigma: of one release.
    """
    columns = []
    for windows in known:
        clean = windows / (sigma * observed.scale)
        score = z @ clean.T - 0.5 * (clean * clean).sum(dim=1)
        each = torch.logsumexp(score, dim=2) - math.log(len(windows))
        columns.append((each * observed.present[rows]).sum(dim=1))
    return torch.stack(columns, dim=1)


def _windows(observed: Observations, among: _Integers, labels: int) -> list[Tensor]:
    """Return the distinct clean codes (W, n) of each label in the observations `among`."""
    of_label = (torch.from_numpy(among[observed.label[among] == label]) for label in range(labels))
    return [torch.unique(observed.codes[rows][observed.present[rows]], dim=0) for rows in of_label]


@torch.no_grad()
def _outputs(
    observed: Observations, learn: _Integers, test: _Integers, labels: int, sigma: float, effort: Effort
) -> tuple[_Integers, Mapping[str, _Floats]]:
    """Return the tested observations, int64 (E,), and each classifier's logits float (E, L) on the same noise."""
    with torch.enable_grad():
        network = _learn(observed, learn, labels, sigma, effort)
    repeats = max(1, math.ceil(effort.tests / (len(test) * observed.codes.shape[1])))
    rows = np.repeat(test, repeats)
    found: dict[str, list[Tensor]] = {}
    known = _windows(observed, learn, labels) if observed.codes.shape[1] > 1 else []
    for part in torch.split(torch.from_numpy(rows), 2048):
        z = observed.noised(part, sigma)
        found.setdefault("network", []).append(network(z))
        found.setdefault("likelihood", []).append(_likelihoods(z, observed, learn, labels, sigma))
        if known:
            found.setdefault("sequence", []).append(_sequence(z, observed, part, known, sigma))
    return rows, {name: torch.cat(parts).double().numpy() for name, parts in found.items()}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Value and interval of the best classifier, the value of each, and how many units (clips, owners) were tested."""

    value: float
    interval: tuple[float, float]
    classifiers: Mapping[str, float]
    units: int

    @classmethod
    def best(cls, scored: Mapping[str, tuple[float, tuple[float, float]]], units: int) -> Outcome:
        """Take the classifier of the largest value from (value, interval) of each."""
        value, interval = max(scored.values(), key=lambda one: one[0])
        return cls(value, interval, {name: round(one[0], 4) for name, one in scored.items()}, units)


def _turns(observed: Observations, effort: Effort) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield which observations are enrolled, bool (E,), in each turn.

    Every clip is left out once, and every owner keeps most of theirs.
    """
    if effort.turns == 1:
        yield observed.enrol
        return
    rng, turn, dealt = np.random.default_rng(19), np.zeros(int(observed.unit.max()) + 1, np.int64), 0
    for owner in np.unique(observed.label):
        mine = rng.permutation(np.unique(observed.unit[observed.label == owner]))
        turn[mine] = (dealt + np.arange(len(mine))) % effort.turns
        dealt += len(mine)
    for each in range(effort.turns):
        yield turn[observed.unit] != each


def name_owner(observed: Observations, sigma: float, effort: Effort) -> Outcome:
    """Learn from the enrolled clips, name the owners of the others; accuracy where every owner is equally likely."""
    labels = int(observed.label.max()) + 1
    tested: list[_Integers] = []
    hits: dict[str, list[_Floats]] = {}
    for enrol in _turns(observed, effort):
        rows, logits = _outputs(observed, np.flatnonzero(enrol), np.flatnonzero(~enrol), labels, sigma, effort)
        tested.append(rows)
        for name, value in logits.items():
            hits.setdefault(name, []).append((value.argmax(axis=1) == observed.label[rows]).astype(float))
    rows = np.concatenate(tested)
    truth, unit = observed.label[rows], observed.unit[rows]
    scored = {
        name: macro_accuracy_interval(np.concatenate(found), truth, unit, effort.seed) for name, found in hits.items()
    }
    return Outcome.best(scored, len(np.unique(unit)))


def name_strangers(observed: Observations, sigma: float, effort: Effort) -> tuple[Outcome, int]:
    """Name owners whom the network was not trained on.

    The network learns to tell every second owner apart. The others are enrolled by its mean output on their enrolled
    releases (100 noise samples each), and each of their other clips is named by the nearest mean.

    Returns:
        The outcome, and among how many owners one was named.
    """
    owners = int(observed.label.max()) + 1
    known = observed.label % 2 == 0
    network = _learn(
        replace(observed, label=observed.label // 2),
        np.flatnonzero(known),
        (owners + 1) // 2,
        sigma,
        effort,
    )

    def says(rows: _Integers) -> Tensor:
        parts = torch.split(torch.from_numpy(rows), 2048)
        return torch.cat([network(observed.noised(part, sigma)).log_softmax(dim=1) for part in parts])

    with torch.no_grad():
        names = np.unique(observed.label[~known])
        looks = [np.flatnonzero((observed.label == name) & observed.enrol) for name in names]
        met = torch.stack([says(np.repeat(rows, 100)).mean(dim=0) for rows in looks])
        test = np.flatnonzero(~known & ~observed.enrol)
        rows = np.repeat(test, max(1, math.ceil(effort.tests / (len(test) * observed.codes.shape[1]))))
        said = names[torch.cdist(says(rows), met).argmin(dim=1).numpy()]
    truth, unit = observed.label[rows], observed.unit[rows]
    value, interval = macro_accuracy_interval((said == truth).astype(float), truth, unit, effort.seed)
    return Outcome.best({"network": (value, interval)}, len(np.unique(unit))), len(names)


def classify_trait(observed: Observations, trait: _Integers, sigma: float, effort: Effort) -> Outcome:
    """Return the AUC of a trait int64 (clips,); each half of the owners is classified by classifiers of the other."""
    has = trait[observed.unit]
    owner = observed.label
    half = np.random.default_rng(13).permutation(int(owner.max()) + 1)[owner] % 2
    labelled = replace(observed, label=np.maximum(has, 0))
    parts: dict[str, list[_Floats]] = {}
    tested: list[_Integers] = []
    for side in (0, 1):
        learn, test = (np.flatnonzero((half == which) & (has >= 0)) for which in (1 - side, side))
        rows, logits = _outputs(labelled, learn, test, 2, sigma, effort)
        tested.append(rows)
        for name, value in logits.items():
            parts.setdefault(name, []).append(value[:, 1] - value[:, 0])
    rows = np.concatenate(tested)
    scored = {
        name: auc_interval(np.concatenate(value), has[rows] == 1, owner[rows], half[rows], effort.seed)
        for name, value in parts.items()
    }
    return Outcome.best(scored, len(np.unique(owner[rows])))


# --- the control ------------------------------------------------------------------------------------------------------


def leak(gallery: Gallery, label: _Integers, clip_norm: int, seed: int = 3) -> npt.NDArray[np.int16]:
    """Train a desensitizer to leak a label from the pictures, through the same integer core as ours.

    It is tested on the very windows it was trained on: it is meant to leak.

    Args:
        gallery: the windows.
        label: int64 (N,), -1 for unknown.
        clip_norm: C.
        seed: of weights and batches.

    Returns:
        Codes int16 (N, n).
    """
    torch.manual_seed(seed)
    pixels = torch.from_numpy(gallery.pictures.reshape(len(gallery.pictures), -1).astype(np.float32))
    pixels = (pixels - pixels.mean(dim=1, keepdim=True)) / (pixels.std(dim=1, keepdim=True) + 1.0)
    n, labels = gallery.codes.shape[1], int(label.max()) + 1
    inner = nn.Sequential(nn.Linear(pixels.shape[1], 128), nn.GELU(), nn.Linear(128, n))
    head = nn.Linear(n, labels)
    optimiser = torch.optim.AdamW([*inner.parameters(), *head.parameters()], lr=4e-3)
    known, target = torch.from_numpy(np.flatnonzero(label >= 0)), torch.from_numpy(label)
    for _ in range(300):
        rows = known[torch.randint(len(known), (128,))]
        loss = nn.functional.cross_entropy(head(nn.functional.normalize(inner(pixels[rows]), dim=1) * 8), target[rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        optimiser.step()
    with torch.no_grad():
        x = nn.functional.normalize(inner(pixels), dim=1) * (clip_norm - 1)
        return np.asarray(integer_code(x[:, None, :], clip_norm)[:, 0].numpy(), np.int16)
