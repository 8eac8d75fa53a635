"""Attackers who know everything but the key, on the clean codes of a gallery with noise of any S put on them.

    Gallery --releases of one clip, read together--> Sight (clean) --fresh noise, every step--> reader --> who, where

Several readers attack each target and the best one counts, which errs against us. One is learned: a network trained on
at least 100,000 noised windows. The others need no training: they know the clean code of every window that the
attacker enrolled. One gives each label the likelihood of the noised releases under the enrolled runs of windows (a
mixture of Gaussians), which is the best there is where these are all that can come. One, for sequences, takes whoever
is seen to go from any enrolled window to any other, as in a hidden Markov model, and multiplies the likelihoods.

The control of each attack is the same attack on a desensitizer that was trained to leak what is asked for (`leak`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from calibration.audit.findings import Floats, macro_accuracy, resample_auc
from calibration.audit.targets import Gallery
from familial.model.desensitizer import trusted_code
from familial.train.losses import rounded_gaussian

__all__ = ["Effort", "Outcome", "Sight", "average", "leak", "look", "name_it", "name_strangers", "tell_trait"]


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard a reader is trained and how much it is tested: steps of `batch` windows, and windows of the test.

    turns: so often a naming attack is made anew, with other clips enrolled, so that every clip is tested once; 1: with
    those that the gallery enrols.
    """

    windows: int = 128_000
    batch: int = 512
    tests: int = 16_384
    turns: int = 1
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Sight:
    """What an attacker may see, clean: codes float32 (E, R, n), 0 where no release came; present bool (E, R); label
    int64 (E,); unit int64 (E,), the clip; enrol bool (E,). `scale`: sigma of the noise over that of one release."""

    codes: Tensor
    present: Tensor
    label: npt.NDArray[np.int64]
    unit: npt.NDArray[np.int64]
    enrol: npt.NDArray[np.bool_]
    scale: float = 1.0

    def noised(self, rows: Tensor, sigma: float) -> Tensor:
        """Releases float (B, R, n) of the sights `rows` int64 (B,), with fresh noise, in units of its sigma."""
        clean, spread = self.codes[rows], sigma * self.scale
        noise = rounded_gaussian(clean, spread) if self.scale == 1.0 else torch.randn_like(clean) * spread
        return (clean + noise) * self.present[rows][:, :, None] / spread


def look(gallery: Gallery, releases: int, codes: npt.NDArray[np.int16] | None = None) -> Sight:
    """Every run of `releases` consecutive windows of every clip; a shorter clip is read whole, the rest missing."""
    values = torch.from_numpy((gallery.codes if codes is None else codes).astype(np.float32))
    rows = list[npt.NDArray[np.int64]]()
    for clip in range(len(gallery.owner)):
        mine = np.flatnonzero(gallery.clip == clip)
        count = max(1, len(mine) - releases + 1)
        for first in range(count):
            taken = mine[first : first + releases]
            rows.append(np.pad(taken, (releases - len(taken), 0), constant_values=-1))
    index = np.stack(rows)
    present = torch.from_numpy(index >= 0)
    unit = gallery.clip[index.max(axis=1)]
    seen = values[torch.from_numpy(np.maximum(index, 0))] * present[:, :, None]
    return Sight(seen, present, gallery.owner[unit], unit, gallery.enrol[unit])


def average(gallery: Gallery, count: int, moving: bool, codes: npt.NDArray[np.int16] | None, seed: int) -> Sight:
    """Means of `count` releases of one clip: of one window again and again (someone sits still), or of windows drawn
    from the clip (`moving`). The mean's noise is 1 / sqrt(count) of a release's."""
    rng = np.random.default_rng([seed, count, moving])
    values = (gallery.codes if codes is None else codes).astype(np.float32)
    if not moving:
        mean, unit = values, gallery.clip
    else:
        means, units = list[Floats](), list[int]()
        for clip in range(len(gallery.owner)):
            mine = values[gallery.clip == clip]
            draws = rng.multinomial(count, np.full(len(mine), 1.0 / len(mine)), 32)
            means.append(draws @ mine / count)
            units += [clip] * 32
        mean, unit = np.concatenate(means).astype(np.float32), np.array(units)
    present = torch.ones(len(mean), 1, dtype=torch.bool)
    return Sight(
        torch.from_numpy(mean)[:, None],
        present,
        gallery.owner[unit],
        unit,
        gallery.enrol[unit],
        1.0 / math.sqrt(count) if count > 1 else 1.0,
    )


# --- the readers ------------------------------------------------------------------------------------------------------


class _Reader(nn.Module):
    """Releases (B, R, n) in units of sigma -> label logits (B, L): all of them, and their sum, in which S^2 adds."""

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


def _balanced(label: npt.NDArray[np.int64], among: npt.NDArray[np.int64]) -> Tensor:
    """Weights float (E,) that draw every label equally often, from the sights `among` alone."""
    weight = np.zeros(len(label))
    counts = np.bincount(label[among])
    weight[among] = 1.0 / counts[label[among]]
    return torch.from_numpy(weight)


def _learn(sight: Sight, among: npt.NDArray[np.int64], labels: int, sigma: float, effort: Effort) -> nn.Module:
    """Train a reader on the sights `among`, with fresh noise on every one of at least `effort.windows` windows."""
    torch.manual_seed(effort.seed)
    releases, n = sight.codes.shape[1:]
    reader = _Reader(releases, n, labels)
    batch = max(128, effort.batch // releases)
    steps = math.ceil(effort.windows / batch)  # the effort counts events where events are read
    optimiser = torch.optim.AdamW(reader.parameters(), lr=4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    weight, label = _balanced(sight.label, among), torch.from_numpy(sight.label)
    draws = torch.multinomial(weight, steps * batch, replacement=True).reshape(steps, batch)
    for rows in draws:
        loss = nn.functional.cross_entropy(reader(sight.noised(rows, sigma)), label[rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        optimiser.step()
        schedule.step()
    return reader.eval()


def _likelihoods(z: Tensor, sight: Sight, among: npt.NDArray[np.int64], labels: int, sigma: float) -> Tensor:
    """log p(z | label) up to a constant, float (B, L); z (B, R, n) in units of sigma, the clean codes `among`."""
    known = sight.codes[torch.from_numpy(among)].flatten(1) / (sigma * sight.scale)
    score = z.flatten(1) @ known.T - 0.5 * (known * known).sum(dim=1)
    of = torch.from_numpy(sight.label[among])
    columns = [
        torch.logsumexp(score[:, of == label], dim=1) - math.log(int((of == label).sum())) for label in range(labels)
    ]
    return torch.stack(columns, dim=1)


def _sequence(z: Tensor, sight: Sight, rows: Tensor, known: Sequence[Tensor], sigma: float) -> Tensor:
    """log p(z | label) up to a constant, float (B, L), where each release may come of any of the windows `known`, clean
    codes (W, n) of each label; z (B, R, n) in units of sigma of the sights `rows`."""
    columns = []
    for windows in known:
        clean = windows / (sigma * sight.scale)
        score = z @ clean.T - 0.5 * (clean * clean).sum(dim=1)
        each = torch.logsumexp(score, dim=2) - math.log(len(windows))
        columns.append((each * sight.present[rows]).sum(dim=1))
    return torch.stack(columns, dim=1)


def _windows(sight: Sight, among: npt.NDArray[np.int64], labels: int) -> list[Tensor]:
    """The different clean codes (W, n) in the sights `among`, of each label."""
    runs = (torch.from_numpy(among[sight.label[among] == label]) for label in range(labels))
    return [torch.unique(sight.codes[rows][sight.present[rows]], dim=0) for rows in runs]


@torch.no_grad()
def _outputs(
    sight: Sight, learn: npt.NDArray[np.int64], test: npt.NDArray[np.int64], labels: int, sigma: float, effort: Effort
) -> tuple[npt.NDArray[np.int64], Mapping[str, Floats]]:
    """Which sights were tested, int64 (E,), and each reader's logits float (E, L) on the same noise."""
    with torch.enable_grad():
        reader = _learn(sight, learn, labels, sigma, effort)
    repeats = max(1, math.ceil(effort.tests / (len(test) * sight.codes.shape[1])))
    rows = np.repeat(test, repeats)
    found: dict[str, list[Tensor]] = {}
    known = _windows(sight, learn, labels) if sight.codes.shape[1] > 1 else []
    for part in torch.split(torch.from_numpy(rows), 2048):
        z = sight.noised(part, sigma)
        found.setdefault("network", []).append(reader(z))
        found.setdefault("likelihood", []).append(_likelihoods(z, sight, learn, labels, sigma))
        if known:
            found.setdefault("sequence", []).append(_sequence(z, sight, part, known, sigma))
    return rows, {name: torch.cat(parts).double().numpy() for name, parts in found.items()}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Value and interval of the best reader, and what each reached."""

    value: float
    interval: tuple[float, float]
    readers: Mapping[str, float]
    units: int


def _turns(sight: Sight, effort: Effort) -> Iterator[npt.NDArray[np.bool_]]:
    """Which sights are enrolled, bool (E,), in each turn. Every clip is left out once; owners keep most of theirs."""
    if effort.turns == 1:
        yield sight.enrol
        return
    rng, turn, dealt = np.random.default_rng(19), np.zeros(int(sight.unit.max()) + 1, np.int64), 0
    for owner in np.unique(sight.label):
        mine = rng.permutation(np.unique(sight.unit[sight.label == owner]))
        turn[mine] = (dealt + np.arange(len(mine))) % effort.turns
        dealt += len(mine)
    for each in range(effort.turns):
        yield turn[sight.unit] != each


def name_it(sight: Sight, sigma: float, effort: Effort) -> Outcome:
    """Learn on what was enrolled, name the rest; accuracy where every name is equally likely."""
    labels = int(sight.label.max()) + 1
    tested: list[npt.NDArray[np.int64]] = []
    hits: dict[str, list[Floats]] = {}
    for enrol in _turns(sight, effort):
        rows, logits = _outputs(sight, np.flatnonzero(enrol), np.flatnonzero(~enrol), labels, sigma, effort)
        tested.append(rows)
        for name, value in logits.items():
            hits.setdefault(name, []).append((value.argmax(axis=1) == sight.label[rows]).astype(float))
    rows = np.concatenate(tested)
    truth, unit = sight.label[rows], sight.unit[rows]
    scored = {name: macro_accuracy(np.concatenate(found), truth, unit, effort.seed) for name, found in hits.items()}
    best = max(scored, key=lambda name: scored[name][0])
    return Outcome(*scored[best], {name: round(found[0], 4) for name, found in scored.items()}, len(np.unique(unit)))


def name_strangers(sight: Sight, sigma: float, effort: Effort) -> tuple[Outcome, int]:
    """Learn to tell every second owner apart; enrol the others by what that reader says of their enrolled releases
    (100 noisy looks at each), and name their other clips by the nearest. Outcome, and among how many was named."""
    owners = int(sight.label.max()) + 1
    known = sight.label % 2 == 0
    reader = _learn(
        Sight(sight.codes, sight.present, sight.label // 2, sight.unit, sight.enrol, sight.scale),
        np.flatnonzero(known),
        (owners + 1) // 2,
        sigma,
        effort,
    )

    def says(rows: npt.NDArray[np.int64]) -> Tensor:
        parts = torch.split(torch.from_numpy(rows), 2048)
        return torch.cat([reader(sight.noised(part, sigma)).log_softmax(dim=1) for part in parts])

    with torch.no_grad():
        names = np.unique(sight.label[~known])
        looks = [np.flatnonzero((sight.label == name) & sight.enrol) for name in names]
        met = torch.stack([says(np.repeat(rows, 100)).mean(dim=0) for rows in looks])
        test = np.flatnonzero(~known & ~sight.enrol)
        rows = np.repeat(test, max(1, math.ceil(effort.tests / (len(test) * sight.codes.shape[1]))))
        said = names[torch.cdist(says(rows), met).argmin(dim=1).numpy()]
    truth, unit = sight.label[rows], sight.unit[rows]
    value, interval = macro_accuracy((said == truth).astype(float), truth, unit, effort.seed)
    return Outcome(value, interval, {"network": round(value, 4)}, len(np.unique(unit))), len(names)


def tell_trait(sight: Sight, trait: npt.NDArray[np.int64], sigma: float, effort: Effort) -> Outcome:
    """AUC of a trait int64 (clips,) of owners nobody has met: two halves of the owners, each learned from the other."""
    has = trait[sight.unit]
    owner = sight.label
    half = np.random.default_rng(13).permutation(int(owner.max()) + 1)[owner] % 2
    told = Sight(sight.codes, sight.present, np.maximum(has, 0), sight.unit, sight.enrol, sight.scale)
    parts: dict[str, list[Floats]] = {}
    tested: list[npt.NDArray[np.int64]] = []
    for side in (0, 1):
        learn, test = (np.flatnonzero((half == which) & (has >= 0)) for which in (1 - side, side))
        rows, logits = _outputs(told, learn, test, 2, sigma, effort)
        tested.append(rows)
        for name, value in logits.items():
            parts.setdefault(name, []).append(value[:, 1] - value[:, 0])
    rows = np.concatenate(tested)
    scored = {
        name: resample_auc(np.concatenate(value), has[rows] == 1, owner[rows], half[rows], effort.seed)
        for name, value in parts.items()
    }
    best = max(scored, key=lambda name: scored[name][0])
    return Outcome(
        *scored[best], {name: round(found[0], 4) for name, found in scored.items()}, len(np.unique(owner[rows]))
    )


# --- the control ------------------------------------------------------------------------------------------------------


def leak(gallery: Gallery, label: npt.NDArray[np.int64], clip_norm: int, seed: int = 3) -> npt.NDArray[np.int16]:
    """Codes int16 (N, n) of a desensitizer that was trained to leak `label` int64 (N,), -1 unknown, from the pictures.

    It goes through the same trusted core as ours, and is trained on the very windows it is tested on: it shall leak.
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
        return np.asarray(trusted_code(x[:, None, :], clip_norm)[:, 0].numpy(), np.int16)
