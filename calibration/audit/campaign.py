"""The audit's list of work: which attack is run on what, at which S, and what its outcome is held against.

    Plan + galleries --tasks()--> names of independent pieces --run()--> Findings (+ pictures of rendered people)

Each piece runs in a process of its own, needs nothing but the Setting, and gives the same rows for the same seed, but
for the mechanism, whose noise is the device's own and comes from the operating system.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from calibration.audit import attacks, inversion, mechanism
from calibration.audit.attacks import Effort, Outcome, Sight
from calibration.audit.findings import (
    ATTRIBUTE_LIMIT,
    NAMING_LIMIT,
    Control,
    Finding,
    auc_bound,
    binomial_interval,
    dependence_bound,
    naming_bound,
    pair_bound,
    rounding_slack,
)
from calibration.audit.targets import WINDOWS, Gallery
from wire.artifact.manifest import EngineManifest
from wire.privacy.certificate import sigma_for

__all__ = ["ATTACKS", "ATTACKS_VERSION", "FULL", "QUICK", "Piece", "Plan", "Setting", "run", "tasks"]

ATTACKS = ("mechanism", "norm", "matched filter", "naming", "attributes", "reconstruction", "averaging")
ATTACKS_VERSION = 1
"""Part of the key under which finished pieces are kept. Raise it when a piece would give other rows for the same
engine, plan and galleries: a change of an attack, of a bound, an interval or a limit, of the core's reference in
familial/model/desensitizer.py, of the sampler or of a certificate's arithmetic."""
_WHO = {"people": "rendered person", "faces": "face (Yale)", "places": "place"}
_VIEWS = {"release": 1, "event": 0, "sequence": WINDOWS}  # 0: as many releases as an event has
_LOUD = 60.0  # S per event of the controls: practically no noise
_NAMED, _TOLD = 0.5, 0.9  # what a control must reach: half of all named right; an AUC of 0.9
_AVERAGED = (1, 10, 100, 1000)
_SHOWN = 8  # pictures in the report


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done. levels: S per event; people and their clips, bodies for attributes, clips of a place at most;
    efforts of readers and decoders; galleries, trials of the matched filter; frames tried against |mu|."""

    name: str
    levels: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 3.0)
    people: int = 20
    clips: int = 10
    bodies: int = 400
    place_clips: int = 20
    readers: Effort = Effort(turns=3)
    decoders: Effort = Effort(windows=102_400)
    galleries: tuple[int, ...] = (10, 1_000, 100_000)
    trials: int = 2_000
    frames: int = 400
    averaged: tuple[int, ...] = _AVERAGED
    seed: int = 1


FULL = Plan("full")
QUICK = Plan(
    "quick",
    levels=(1.0, 3.0),
    people=10,
    clips=6,
    bodies=100,
    place_clips=6,
    readers=Effort(100_352, tests=8_192),
    decoders=Effort(windows=100_096, tests=8_192),
    galleries=(10, 1_000),
    trials=1_000,
    frames=60,
    averaged=(1, 100),
)


@dataclass(frozen=True, slots=True)
class Setting:
    """What every piece is given: the engine's folder, engines of other precisions, the galleries' files, the plan."""

    engine: Path
    engines: tuple[tuple[str, Path], ...]
    galleries: tuple[tuple[str, Path], ...]
    plan: Plan

    def gallery(self, name: str) -> Gallery:
        return _load(dict(self.galleries)[name])


_LEAKY: dict[tuple[str, bytes], npt.NDArray[np.int16]] = {}


@cache
def _load(path: Path) -> Gallery:
    return Gallery.load(path)


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of work: its attack, on what, and how it is seen."""

    attack: str
    target: str
    view: str = ""
    shift: float = 0.0

    @property
    def name(self) -> str:
        level = f"S={self.shift:g}" if self.shift else ""
        return " ".join(part for part in (self.attack, self.target, self.view, level) if part)


def tasks(setting: Setting, only: Sequence[str] = ()) -> list[Piece]:
    """All pieces that the setting has galleries and engines for, the longest first."""
    levels, known = setting.plan.levels, dict(setting.galleries)
    views = ("release", "event")
    found = [Piece("reconstruction", "picture", view) for view in views] if "people" in known else []
    found += [Piece("mechanism", "two codes", shift=shift) for shift in sorted(levels)]
    found += [Piece("matched filter", "planted codes", shift=shift) for shift in sorted(levels)]
    met = [who for who in ("people", "places") if who in known]
    found += [Piece("averaging", who, how) for who in met for how in ("still", "moving")]
    found += [Piece("naming", who, view) for who in _WHO if who in known for view in _VIEWS]
    found += [Piece("naming", "places", "strangers")] if "places" in known else []
    for who in ("bodies", "faces"):
        if who in known:
            asked = [f"{who}/{trait}" for trait in setting.gallery(who).traits]
            found += [Piece("attributes", trait, view) for trait in asked for view in views]
    found += [Piece("norm", precision) for precision, _ in setting.engines]
    return [piece for piece in found if not only or piece.attack in only]


def run(setting: Setting, piece: Piece) -> tuple[list[Finding], dict[str, Any]]:
    """Do one piece; its findings, and pictures to show (of rendered people only)."""
    torch.set_num_threads(1)
    pictures: dict[str, Any] = {}
    return list(_RUNS[piece.attack](_Bench(setting, piece, pictures))), pictures


class _Bench:
    """What the pieces share: the engine's numbers, sigma of each S, what a certificate says."""

    def __init__(self, setting: Setting, piece: Piece, pictures: dict[str, Any]) -> None:
        self.setting, self.piece, self.pictures = setting, piece, pictures
        self.plan = setting.plan
        self.manifest = EngineManifest.load(setting.engine)
        self.releases = _VIEWS.get(piece.view, 0) or self.manifest.event_releases

    def sigma(self, shift: float) -> Fraction:
        """The noise that the device would use at this S per event."""
        return sigma_for(self.manifest.clip_norm, shift, self.manifest.event_releases)

    def seen(self, shift: float, releases: int) -> float:
        """S of `releases` releases at S = `shift` per event."""
        return float(self.manifest.clip_norm / self.sigma(shift)) * math.sqrt(releases)

    def leaky(self, gallery: Gallery, label: npt.NDArray[np.int64]) -> npt.NDArray[np.int16]:
        """The gallery's codes from a desensitizer that was trained to leak `label`; trained once a process."""
        key = (self.piece.target, label.tobytes())
        if key not in _LEAKY:
            _LEAKY[key] = attacks.leak(gallery, label, self.manifest.clip_norm)
        return _LEAKY[key]

    def pair(self, shift: float) -> tuple[float, float]:
        """S of what this piece reads, and how far its noise is from a rounded Gaussian's."""
        slack = rounding_slack(float(self.sigma(shift)), self.releases * self.manifest.n)
        return self.seen(shift, self.releases), slack


# --- the mechanism ----------------------------------------------------------------------------------------------------


def _two_codes(bench: _Bench) -> Iterator[Finding]:
    manifest, shift = bench.manifest, bench.piece.shift
    core, sigma = mechanism.Core(bench.setting.engine, manifest), bench.sigma(shift)
    claim, unit = bench.seen(shift, 1), math.sqrt(manifest.event_releases)
    trials = mechanism.trials_needed(claim)
    found = mechanism.two_codes(core, sigma, trials)
    halved = mechanism.two_codes(core, sigma, min(trials, 20_000), gain=2)
    caught = halved.low > claim
    metric = f"audited S per event, {mechanism.CONFIDENCE:.0%} interval"
    yield Finding(
        "mechanism",
        "+C told from -C, real core and sampler",
        metric,
        shift,
        1,
        found.value * unit,
        (found.low * unit, found.high * unit),
        0.0,
        claim * unit,
        claim * unit,
        found.low > claim,
        Control(
            found.low / claim if caught else 0.0,
            mechanism.TIGHT,
            "the lower bound over the claim, where half the noise is found out too",
        ),
        probability=False,
        detail={
            "trials": 2 * trials,
            "share_of_claim": round(found.low / claim, 4),
            "half_noise_share": round(halved.low / claim, 4),
        },
    )


def _match(bench: _Bench) -> Iterator[Finding]:
    manifest, shift, trials = bench.manifest, bench.piece.shift, bench.plan.trials
    core = mechanism.Core(bench.setting.engine, manifest)
    loud = dict(mechanism.match_filter(core, bench.sigma(_LOUD), bench.plan.galleries, 200))
    for among, hits in mechanism.match_filter(core, bench.sigma(shift), bench.plan.galleries, trials):
        bound = naming_bound(bench.seen(shift, manifest.event_releases), among)
        interval = binomial_interval(hits, trials)
        yield Finding(
            "matched filter",
            f"one of {among:,} planted codes",
            "named right",
            shift,
            manifest.event_releases,
            hits / trials,
            interval,
            1.0 / among,
            bound,
            bound,
            interval[0] > bound,
            Control(loud[among] / 200, 0.99, "named right almost without noise"),
            detail={"trials": trials},
        )


def _norm(bench: _Bench) -> Iterator[Finding]:
    folder = dict(bench.setting.engines)[bench.piece.target]
    manifest = EngineManifest.load(folder)
    rows = {how: (mu, x) for how, mu, x in mechanism.hostile_norms(folder, manifest, bench.plan.frames)}
    worst, bound = max(mu for mu, _ in rows.values()), float(manifest.clip_norm)
    before = min(1e9, max(x for _, x in rows.values()))
    yield Finding(
        "norm",
        f"|mu| of the {manifest.precision} engine, hostile weights and frames",
        "largest |mu|, lattice units",
        manifest.certificate().s_event,
        1,
        worst,
        (worst, worst),
        0.0,
        bound,
        bound,
        worst > bound,
        Control(before / bound, 1.0, "the norm before the core over C: these weights do try"),
        probability=False,
        detail={"weights": {how: round(mu, 3) for how, (mu, _) in rows.items()}, "frames": bench.plan.frames + 24},
    )


# --- learned ----------------------------------------------------------------------------------------------------------


def _learned(effort: Effort, outcome: Outcome, releases: int) -> dict[str, Any]:
    per_step = max(128, effort.batch // releases)
    trained = math.ceil(effort.windows / per_step) * per_step * releases
    return {"noised_windows": trained, "readers": dict(outcome.readers), "test_clips": outcome.units}


def _naming(bench: _Bench) -> Iterator[Finding]:
    gallery, view, effort = bench.setting.gallery(bench.piece.target), bench.piece.view, bench.plan.readers
    who = _WHO[bench.piece.target]
    leaky = bench.leaky(gallery, gallery.owner[gallery.clip])

    def attack(sight: Sight, shift: float) -> tuple[Outcome, int]:
        if view == "strangers":
            return attacks.name_strangers(sight, float(bench.sigma(shift)), effort)
        return attacks.name_it(sight, float(bench.sigma(shift)), effort), len(gallery.names)

    control = Control(
        attack(attacks.look(gallery, bench.releases, leaky), _LOUD)[0].value,
        _NAMED,
        "named right where the code is trained to tell",
    )
    sight = attacks.look(gallery, bench.releases)
    reads = {
        "release": "a release",
        "event": "an event",
        "strangers": "an event; met at enrolment only",
        "sequence": f"a sequence of {WINDOWS - bench.manifest.event_releases + 1} events",
    }[view]
    for shift in bench.plan.levels:
        outcome, among = attack(sight, shift)
        yield _named(bench, shift, outcome, among, control, f"{who}, from {reads}", bench.releases, "naming")


def _named(
    bench: _Bench, shift: float, outcome: Outcome, among: int, control: Control, name: str, releases: int, attack: str
) -> Finding:
    limit = min(1.0, NAMING_LIMIT / among)
    return Finding(
        attack,
        name,
        f"named right, 1 of {among}",
        shift,
        releases,
        outcome.value,
        outcome.interval,
        1.0 / among,
        naming_bound(bench.seen(shift, releases), among),
        limit,
        outcome.value > limit,
        control,
        detail=_learned(bench.plan.readers, outcome, releases if attack == "naming" else 1),
    )


def _averaging(bench: _Bench) -> Iterator[Finding]:
    gallery, moving, plan = bench.setting.gallery(bench.piece.target), bench.piece.view == "moving", bench.plan
    leaky = bench.leaky(gallery, gallery.owner[gallery.clip])
    who, how = _WHO[bench.piece.target], "moving" if moving else "still"

    def attack(codes: npt.NDArray[np.int16] | None, count: int, shift: float) -> Outcome:
        sight = attacks.average(gallery, count, moving, codes, plan.seed)
        return attacks.name_it(sight, float(bench.sigma(shift)), plan.readers)

    # enough noise that ten releases alone would not do, and a thousand must
    control = Control(attack(leaky, 1000, 3.0).value, _NAMED, "1,000 releases at S = 3, the code is trained to tell")
    for shift in plan.levels:
        for count in plan.averaged:
            outcome = attack(None, count, shift)
            name = f"{who}, mean of {count:,} releases, {how}"
            yield _named(bench, shift, outcome, len(gallery.names), control, name, count, "averaging")


def _attribute(bench: _Bench) -> Iterator[Finding]:
    who, _, trait = bench.piece.target.partition("/")
    gallery, effort = bench.setting.gallery(who), bench.plan.readers
    has = gallery.traits[trait]
    leaky = bench.leaky(gallery, has[gallery.clip])
    control = attacks.tell_trait(attacks.look(gallery, bench.releases, leaky), has, float(bench.sigma(_LOUD)), effort)
    sight = attacks.look(gallery, bench.releases)
    for shift in bench.plan.levels:
        outcome = attacks.tell_trait(sight, has, float(bench.sigma(shift)), effort)
        yield Finding(
            "attributes",
            f"{'rendered body' if who == 'bodies' else 'face'}: {trait}, from "
            f"{'a release' if bench.releases == 1 else 'an event'}",
            "AUC",
            shift,
            bench.releases,
            outcome.value,
            outcome.interval,
            0.5,
            auc_bound(*bench.pair(shift)),
            ATTRIBUTE_LIMIT,
            outcome.value > ATTRIBUTE_LIMIT,
            Control(control.value, _TOLD, "AUC where the code is trained to tell"),
            detail=_learned(effort, outcome, bench.releases),
        )


def _reconstruction(bench: _Bench) -> Iterator[Finding]:
    names = [name for name in ("people", "bodies", "places") if name in dict(bench.setting.galleries)]
    found, effort = [bench.setting.gallery(name) for name in names], bench.plan.decoders
    asked = inversion.rebuilt([(gallery, gallery.codes) for gallery in found], bench.releases)
    leaky = inversion.rebuilt(
        [(gallery, inversion.picture_codes(gallery, bench.manifest.clip_norm)) for gallery in found], bench.releases
    )
    prior = inversion.train_inverter(asked, 1.0, effort, blind=True)
    loud = float(bench.sigma(_LOUD))
    leaked = inversion.train_inverter(leaky, loud, effort)
    told = inversion.score(leaky, leaked, prior, loud, effort)
    controls = (
        Control(told.gain[0], 0.05, "SSIM gained, at least, where the code holds the picture"),
        Control(told.matched_interval[0], 0.75, "told apart, at least, where the code holds the picture"),
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
        yield from _inverted(bench, shift, scores, controls)
    show.add("control: a code that holds the picture, no noise", leaked, loud, other=leaky)
    bench.pictures.update({bench.piece.view: show.rows})


def _inverted(
    bench: _Bench, shift: float, found: inversion.Scores, controls: tuple[Control, Control]
) -> Iterator[Finding]:
    seen, reads = bench.seen(shift, bench.releases), "a release" if bench.releases == 1 else "an event"
    trained = math.ceil(bench.plan.decoders.windows / 128) * 128 * bench.releases
    detail = {
        "ssim_prior_only": round(found.ssim_prior, 5),
        "gain_ci": [round(end, 5) for end in found.gain],
        "mse": round(found.mse, 6),
        "mse_shuffled": round(found.mse_shuffled, 6),
        "mse_prior_only": round(found.mse_prior, 6),
        "mse_gain_ci": [round(end, 7) for end in found.mse_gain],
        "noised_windows": trained,
        "test_clips": found.units,
    }
    yield Finding(
        "reconstruction",
        f"picture, from {reads}",
        "SSIM",
        shift,
        bench.releases,
        found.ssim,
        found.interval,
        found.ssim_shuffled,
        min(1.0, found.ssim_shuffled + found.same + dependence_bound(seen)),
        max(found.ssim_shuffled, found.ssim_prior),
        found.gain[0] > 0.0 or found.mse_gain[0] > 0.0,
        controls[0],
        detail=detail,
    )
    yield Finding(
        "reconstruction",
        f"own picture or another's, from {reads}",
        "told apart by squared error",
        shift,
        bench.releases,
        found.matched,
        found.matched_interval,
        0.5,
        pair_bound(*bench.pair(shift)),
        0.5,
        found.matched_gain[0] > 0.0,
        controls[1],
        detail={"noised_windows": trained, "test_clips": found.units},
    )


class _Show:
    """Rows of pictures for the report, of rendered people only: the same few test windows in every row."""

    def __init__(self, asked: inversion.Inverted, seed: int) -> None:
        rng = np.random.default_rng(seed)
        may = np.flatnonzero(asked.public & ~asked.sight.enrol)
        units = rng.permutation(np.unique(asked.sight.unit[may]))[:_SHOWN]
        self._rows = torch.tensor([int(rng.choice(may[asked.sight.unit[may] == unit])) for unit in units])
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
        asked = other or self._asked
        pictures = asked.pictures[self._rows]
        if inverter is not None:
            clean = asked.sight.codes[self._rows]
            pictures = inverter(torch.randn_like(clean) if nothing else asked.sight.noised(self._rows, sigma))
        self.rows.append({"title": title, "png": [inversion.png(picture) for picture in pictures]})


_RUNS: dict[str, Callable[[_Bench], Iterator[Finding]]] = {
    "mechanism": _two_codes,
    "norm": _norm,
    "matched filter": _match,
    "naming": _naming,
    "attributes": _attribute,
    "reconstruction": _reconstruction,
    "averaging": _averaging,
}
