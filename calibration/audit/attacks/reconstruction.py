"""Pictures: a decoder with an adversarial prior, against the same decoder fed with somebody else's release."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from calibration.audit import inversion
from calibration.audit.attacks.base import CONTROL_SHIFT, Attack, Bench, Piece, Setting
from calibration.audit.bounds import dependence_bound, pair_bound
from calibration.audit.findings import Control, Finding

__all__ = ["RECONSTRUCTION"]

_GALLERIES = ("people", "bodies", "places")
_SHOWN = 8  # pictures in a row of the page


def _pieces(setting: Setting) -> list[Piece]:
    return [Piece("reconstruction", "picture", view) for view in ("release", "event")]


def _run(bench: Bench) -> Iterator[Finding]:
    found, effort = [bench.setting.gallery(name) for name in _GALLERIES if bench.setting.has(name)], bench.plan.decoders
    asked = inversion.rebuilt([(gallery, gallery.codes) for gallery in found], bench.releases)
    leaky = inversion.rebuilt(
        [(gallery, inversion.picture_codes(gallery, bench.manifest.clip_norm)) for gallery in found], bench.releases
    )
    prior = inversion.train_inverter(asked, 1.0, effort, blind=True)
    loud = float(bench.sigma(CONTROL_SHIFT))
    leaked = inversion.train_inverter(leaky, loud, effort)
    planted = inversion.score(leaky, leaked, prior, loud, effort)
    controls = (
        Control(planted.gain[0], 0.05, "SSIM gained, at least, where the code holds the picture"),
        Control(planted.matched_interval[0], 0.75, "distinguished, at least, where the code holds the picture"),
    )
    tests = 3 * 2 * len(bench.plan.levels)  # SSIM, squared error and pairs, of each view and level
    show = _Show(asked, bench.plan.seed)
    show.add("the window's last frame", None, 0.0)
    show.add("the prior alone", prior, 1.0, nothing=True)
    for shift in sorted(bench.plan.levels, reverse=True):
        sigma = float(bench.sigma(shift))
        inverter = inversion.train_inverter(asked, sigma, effort)
        show.add(f"decoded, S = {shift:g}", inverter, sigma)
        scores = inversion.score(asked, inverter, prior, sigma, effort, tests)
        yield from _findings(bench, shift, scores, controls)
    show.add("control: a code that holds the picture, no noise", leaked, loud, other=leaky)
    bench.pictures.update({bench.piece.view: show.rows})


def _findings(
    bench: Bench, shift: float, found: inversion.Scores, controls: tuple[Control, Control]
) -> Iterator[Finding]:
    total, reads = bench.total_shift(shift, bench.releases), "a release" if bench.releases == 1 else "an event"
    trained = math.ceil(bench.plan.decoders.windows / 128) * 128 * bench.releases
    yield Finding(
        attack="reconstruction",
        name=f"picture, from {reads}",
        metric="SSIM",
        shift=shift,
        releases=bench.releases,
        value=found.ssim,
        interval=found.interval,
        chance=found.ssim_shuffled,
        certificate=min(1.0, found.ssim_shuffled + found.same + dependence_bound(total)),
        limit=max(found.ssim_shuffled, found.ssim_prior),
        beyond=found.gain[0] > 0.0 or found.mse_gain[0] > 0.0,
        control=controls[0],
        detail={
            "ssim_prior_only": round(found.ssim_prior, 5),
            "gain_ci": [round(end, 5) for end in found.gain],
            "mse": round(found.mse, 6),
            "mse_shuffled": round(found.mse_shuffled, 6),
            "mse_prior_only": round(found.mse_prior, 6),
            "mse_gain_ci": [round(end, 7) for end in found.mse_gain],
            "noised_windows": trained,
            "test_clips": found.units,
        },
    )
    yield Finding(
        attack="reconstruction",
        name=f"own picture or another's, from {reads}",
        metric="distinguished by squared error",
        shift=shift,
        releases=bench.releases,
        value=found.matched,
        interval=found.matched_interval,
        chance=0.5,
        certificate=pair_bound(total),
        limit=0.5,
        beyond=found.matched_gain[0] > 0.0,
        control=controls[1],
        detail={"noised_windows": trained, "test_clips": found.units},
    )


class _Show:
    """Rows of pictures for the page, of rendered people only: the same few test windows in every row."""

    def __init__(self, asked: inversion.Inverted, seed: int) -> None:
        rng = np.random.default_rng(seed)
        may = np.flatnonzero(asked.public & ~asked.observed.enrol)
        units = rng.permutation(np.unique(asked.observed.unit[may]))[:_SHOWN]
        self._rows = torch.tensor([int(rng.choice(may[asked.observed.unit[may] == unit])) for unit in units])
        self._asked, self.rows = asked, list[dict[str, Any]]()

    @torch.no_grad()
    def add(
        self,
        title: str,
        inverter: inversion.Inverter | None,
        sigma: float,
        *,
        nothing: bool = False,
        other: inversion.Inverted | None = None,
    ) -> None:
        """Add a row: the true pictures, or what the inverter makes of their releases (of pure noise: `nothing`)."""
        asked = other or self._asked
        pictures = asked.pictures[self._rows]
        if inverter is not None:
            clean = asked.observed.codes[self._rows]
            pictures = inverter(torch.randn_like(clean) if nothing else asked.observed.noised(self._rows, sigma))
        self.rows.append({"title": title, "png": [inversion.png(picture) for picture in pictures]})


RECONSTRUCTION = Attack(
    name="reconstruction",
    title="Pictures",
    text="A decoder with an adversarial prior, against the same decoder fed with somebody else's release. It may not "
    "be better than what the prior alone gives: not significantly, in all of these tests together.",
    galleries=frozenset(_GALLERIES),
    pieces=_pieces,
    run=_run,
    weight=7,
)
