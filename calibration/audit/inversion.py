"""Pictures out of releases: a decoder with an adversarial prior, against the same decoder fed with others' releases.

    release (or an event of them) --decoder--> picture 24 x 24 --+-- compared with the window's last frame: SSIM, MSE
    shuffled release ---------------same decoder--> picture -----+-- what the prior alone gives
                                       critic: is this a picture of these rooms?   (trained in turns with the decoder)

The decoder may be right about what all pictures share; what counts is how much its own release improves the picture. A
second decoder, trained on noise alone, is the best that the prior alone can do. The control is the same decoder on
codes that carry the picture (`picture_codes`).
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from calibration.audit.classifiers import Effort, Observations
from calibration.audit.targets import PICTURE, Gallery
from familial.evaluate.intervals import bonferroni_mean_interval, macro_accuracy_interval
from familial.model.desensitizer import integer_code

__all__ = ["Inverted", "Inverter", "Scores", "picture_codes", "png", "rebuilt", "score", "ssim", "train_inverter"]

_PULL = 0.001  # weight of the critic against the squared error


class Inverter(nn.Module):
    """Releases (B, R, n) in units of sigma -> picture (B, 1, PICTURE, PICTURE) in 0..1."""

    def __init__(self, releases: int, n: int) -> None:
        super().__init__()
        self.straight = nn.Linear(releases * n, PICTURE**2)  # the linear part; the other layers learn the rest
        nn.init.zeros_(self.straight.weight)
        self.coarse = nn.Sequential(
            nn.Linear(releases * n, 128), nn.GELU(), nn.Linear(128, 256), nn.GELU(), nn.Linear(256, PICTURE**2)
        )
        last = nn.Conv2d(16, 4, 3, padding=1)
        nn.init.zeros_(last.weight)
        self.fine = (
            nn.Sequential(  # on blocks of 2 x 2 pixels: a receptive field of 5 x 5 pixels at a sixth of the cost
                nn.PixelUnshuffle(2), nn.Conv2d(4, 16, 3, padding=1), nn.GELU(), last, nn.PixelShuffle(2)
            )
        )
        self.mean = nn.Parameter(torch.zeros(1, 1, PICTURE, PICTURE))

    def forward(self, z: Tensor) -> Tensor:
        flat = z.flatten(1)
        drawn = self.mean + (self.straight(flat) + self.coarse(flat)).view(-1, 1, PICTURE, PICTURE)
        refined: Tensor = drawn + self.fine(drawn)
        return torch.sigmoid(refined)


def _critic() -> nn.Module:
    """Return the discriminator: picture (B, 1, P, P) -> logit that it is a picture of these rooms (B, 1)."""
    return nn.Sequential(
        nn.PixelUnshuffle(4),
        nn.Conv2d(16, 12, 1),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(12 * (PICTURE // 4) ** 2, 48),
        nn.LeakyReLU(0.2),
        nn.Linear(48, 1),
    )


def _pictures(gallery: Gallery) -> Tensor:
    """Return pictures float32 (N, 1, PICTURE, PICTURE) in 0..1, brightness and contrast normalised as in the tower."""
    raw = torch.from_numpy(gallery.pictures.astype(np.float32))[:, None]
    mean, spread = raw.mean(dim=(2, 3), keepdim=True), raw.std(dim=(2, 3), keepdim=True)
    return torch.clamp(0.5 + 0.2 * (raw - mean) / (spread + 4.0), 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Inverted:
    """What the decoder is asked for.

    Attributes:
        observed: for each window, the clean releases up to it; labels are owners, different ones in each gallery.
        pictures: float32 (N, 1, PICTURE, PICTURE), the window's last frame.
        public: bool (N,), whether the picture may be shown.
    """

    observed: Observations
    pictures: Tensor
    public: npt.NDArray[np.bool_]


def rebuilt(galleries: Sequence[tuple[Gallery, npt.NDArray[np.int16]]], releases: int) -> Inverted:
    """Return all galleries' windows, each with the `releases` up to it; those before a clip's first are missing."""
    codes, present, pictures, unit, enrol, public, owner = [], [], [], [], [], [], []
    clips, owners = 0, 0
    for gallery, values in galleries:
        count = len(gallery.clip)
        index = np.arange(count)[:, None] - np.arange(releases - 1, -1, -1)
        same = (index >= 0) & (gallery.clip[np.maximum(index, 0)] == gallery.clip[:, None])
        there = torch.from_numpy(same)
        seen = torch.from_numpy(values.astype(np.float32))[torch.from_numpy(np.maximum(index, 0))]
        codes.append(seen * there[:, :, None])
        present.append(there)
        pictures.append(_pictures(gallery))
        unit.append(gallery.clip + clips)
        enrol.append(gallery.enrol[gallery.clip])
        public.append(np.full(count, gallery.public))
        owner.append(gallery.owner[gallery.clip] + owners)
        clips, owners = clips + len(gallery.owner), owners + len(gallery.names)
    label = np.concatenate(owner)
    observed = Observations(torch.cat(codes), torch.cat(present), label, np.concatenate(unit), np.concatenate(enrol))
    return Inverted(observed, torch.cat(pictures), np.concatenate(public))


def train_inverter(asked: Inverted, sigma: float, effort: Effort, *, blind: bool = False) -> Inverter:
    """Train decoder and critic in turns on the enrolled windows; `blind`: on noise alone, so it learns the prior."""
    torch.manual_seed(effort.seed)
    releases, n = asked.observed.codes.shape[1:]
    inverter, critic = Inverter(releases, n), _critic()
    rows = torch.from_numpy(np.flatnonzero(asked.observed.enrol))
    with torch.no_grad():
        inverter.mean.copy_(torch.logit(asked.pictures[rows].mean(dim=0, keepdim=True), eps=1e-3))
    batch = 128
    steps = math.ceil(effort.windows / batch)
    makes = torch.optim.AdamW(inverter.parameters(), lr=2e-3, betas=(0.7, 0.99))
    judges = torch.optim.AdamW(critic.parameters(), lr=1e-3, betas=(0.5, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(makes, 4e-3, total_steps=steps)
    for step in range(steps):
        chosen = rows[torch.randint(len(rows), (batch,))]
        z = torch.randn(batch, releases, n) if blind else asked.observed.noised(chosen, sigma)
        truth, made = asked.pictures[chosen], inverter(z)
        loss = (made - truth).square().mean() + _PULL * nn.functional.softplus(-critic(made)).mean()
        makes.zero_grad()
        loss.backward()
        makes.step()
        schedule.step()
        if step % 2:
            continue
        judged = nn.functional.softplus(-critic(truth)) + nn.functional.softplus(critic(made.detach()))
        judges.zero_grad()
        judged.mean().backward()  # type: ignore[no-untyped-call]  # as above
        judges.step()
    return inverter.eval()


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Return the structural similarity float (B,) of pictures (B, 1, P, P) in 0..1; windows of 7 x 7, negative as 0."""
    mean = nn.functional.avg_pool2d
    ma, mb = mean(a, 7, 1), mean(b, 7, 1)
    va, vb, cov = mean(a * a, 7, 1) - ma**2, mean(b * b, 7, 1) - mb**2, mean(a * b, 7, 1) - ma * mb
    found = (2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
    return found.mean(dim=(1, 2, 3)).clamp(0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Scores:
    """What a decoder reached on the test windows.

    Attributes:
        ssim: mean structural similarity, from a picture's own releases.
        interval: of it.
        ssim_shuffled: the same from another owner's releases.
        ssim_prior: the same of the prior alone.
        gain: interval of what `ssim` gains over the better of these two, in all of the audit's tests together.
        mse, mse_shuffled, mse_prior, mse_gain: likewise, of the mean squared error.
        matched: how often the picture is nearer to its own truth than to another's.
        matched_interval: of it.
        matched_gain: interval of what it gains over chance, in all of the audit's tests together.
        same: share of one owner's pairs among all pairs, which the shuffled pairs leave out.
        units: clips of the test.
    """

    ssim: float
    interval: tuple[float, float]
    ssim_shuffled: float
    ssim_prior: float
    gain: tuple[float, float]
    mse: float
    mse_shuffled: float
    mse_prior: float
    mse_gain: tuple[float, float]
    matched: float
    matched_interval: tuple[float, float]
    matched_gain: tuple[float, float]
    same: float
    units: int


@torch.no_grad()
def score(asked: Inverted, inverter: Inverter, prior: Inverter, sigma: float, effort: Effort, tests: int = 1) -> Scores:
    """Score both decoders on the windows of clips that the attacker did not enrol; one of `tests` such tests."""
    rng = np.random.default_rng(effort.seed)
    test = np.flatnonzero(~asked.observed.enrol)
    repeats = max(1, math.ceil(effort.tests / len(test) / 4))
    rows = np.repeat(test, repeats)
    unit = asked.observed.unit[rows]
    other = _strangers(rows, asked.observed.label, rng)
    columns = [list[Tensor]() for _ in range(7)]
    for part in np.array_split(np.arange(len(rows)), max(1, len(rows) // 1024)):
        own, strange = torch.from_numpy(rows[part]), torch.from_numpy(other[part])
        truth = asked.pictures[own]
        made = inverter(asked.observed.noised(own, sigma))
        without = inverter(asked.observed.noised(strange, sigma))
        alone = prior(torch.randn_like(asked.observed.codes[own]))
        for at, picture in enumerate((made, without, alone)):
            columns[at].append(ssim(picture, truth))
            columns[3 + at].append((picture - truth).square().mean(dim=(1, 2, 3)))
        columns[6].append((made - asked.pictures[strange]).square().mean(dim=(1, 2, 3)))
    like, like_other, like_prior, off, off_other, off_prior, off_strange = (
        torch.cat(column).double().numpy() for column in columns
    )
    matched: npt.NDArray[np.float64] = (off < off_strange).astype(float) + 0.5 * (off == off_strange)
    seed = effort.seed
    # the preset limit: no better than the better of the two priors
    gain = like - (like_other if like_other.mean() > like_prior.mean() else like_prior)
    less = (off_other if off_other.mean() < off_prior.mean() else off_prior) - off
    all_alike = np.zeros(len(rows), np.int64)
    value, interval = macro_accuracy_interval(like, all_alike, unit, seed)
    hits, hits_interval = macro_accuracy_interval(matched, all_alike, unit, seed)
    share = np.bincount(asked.observed.label[rows]) / len(rows)
    return Scores(
        value,
        interval,
        float(like_other.mean()),
        float(like_prior.mean()),
        bonferroni_mean_interval(gain, unit, seed, tests),
        float(off.mean()),
        float(off_other.mean()),
        float(off_prior.mean()),
        bonferroni_mean_interval(less, unit, seed, tests),
        hits,
        hits_interval,
        bonferroni_mean_interval(matched - 0.5, unit, seed, tests),
        float((share * share).sum()),
        len(np.unique(unit)),
    )


def _strangers(
    rows: npt.NDArray[np.int64], owner: npt.NDArray[np.int64], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return for each row another one, of another owner: two pictures of one place are hardly distinguishable."""
    other = rng.permutation(rows)
    for _ in range(50):
        same = np.flatnonzero(owner[other] == owner[rows])
        if len(same) == 0:
            break
        other[same] = rng.choice(rows, len(same))
    return other


def picture_codes(gallery: Gallery, clip_norm: int) -> npt.NDArray[np.int16]:
    """Return codes int16 (N, n) that leak the picture: its principal components, through the integer core."""
    pixels = _pictures(gallery).flatten(1)
    centred = pixels - pixels.mean(dim=0)
    n = gallery.codes.shape[1]
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    x = centred @ axes[:n].T
    if x.shape[1] < n:
        x = nn.functional.pad(x, (0, n - x.shape[1]))
    size = x.norm(dim=1, keepdim=True)
    x = x / torch.maximum(size, size.quantile(0.5)) * (clip_norm - 1)  # the larger half to the rim
    return np.asarray(integer_code(x[:, None, :], clip_norm)[:, 0].numpy(), np.int16)


def png(picture: Tensor, scale: int = 4) -> str:
    """Return a picture (1, P, P) in 0..1 as a PNG in base64, enlarged."""
    grey = (picture[0].clamp(0, 1) * 255).round().byte().numpy()
    large = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    return base64.b64encode(cv2.imencode(".png", large)[1].tobytes()).decode()
