"""`python -m benchmarks.reconstruction`: how often a scene can be rebuilt from what leaves, for stated priors.

    a quantity of the scene, its prior, an error eta that counts as rebuilt --> kappa: chance of the best blind guess
        S of a release, of an event --Phi(Phi^-1(kappa) + S), the sampler's tau--> gamma: chance with them, at most

Nothing is measured: this is (eta, gamma)-reconstruction robustness (Balle, Cherubin and Hayes 2022; Hayes, Mahloujifar
and Balle 2023). It depends on the prior that is stated: somebody who knows more beforehand has another kappa.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.harness import add_checkpoint
from benchmarks.runner import Benchmark, Report
from calibration.bounds import of_checkpoint
from calibration.measures import kappa_of_disc, kappa_of_normal, kappa_of_picture
from wire.privacy.certificate import round_up

__all__ = ["COMMAND", "scenes"]


def scenes() -> dict[str, float]:
    """What is rebuilt, its prior and the error that counts, in words -> kappa."""
    return {
        "where somebody stands, within 0.5 m, anywhere on 20 square metres": kappa_of_disc(0.5, 20.0),
        "a height within 2 cm, normal with a deviation of 7 cm": kappa_of_normal(7.0, 2.0),
        "an age within 5 years, even over 70 years": 10.0 / 70.0,
        "the minute of an hour, even": 1.0 / 60.0,
        "a picture of 4 x 4 blocks within 25 grey levels, each normal with 50": kappa_of_picture(16, 50.0, 25.0),
        "a picture of 8 x 8 blocks, likewise": kappa_of_picture(64, 50.0, 25.0),
    }


def _options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)


def _measure(args: argparse.Namespace) -> Report:
    profile, certificates = of_checkpoint(args.checkpoint)
    certificate = certificates[profile]
    spans = {"release": 1, "event": certificate.event_releases}
    rows: list[tuple[str, ...]] = [("what is rebuilt", "without a release", *(f"from one {name}" for name in spans))]
    found = []
    for words, kappa in scenes().items():
        gamma = {name: certificate.chance(releases, kappa) for name, releases in spans.items()}
        rows.append((words, f"{kappa:.3g}", *map(round_up, gamma.values())))
        found.append({"scene": words, "kappa": kappa, "gamma": gamma})
    notes = [
        f"profile {profile}; chances of a rebuild within the error, at most, rounded up",
        "blocks are independent: a picture whose blocks depend on each other has as many as are independent",
    ]
    figures = {"profile": profile, "releases": spans, "scenes": found}
    return Report(None, figures, rows, notes)


COMMAND = Benchmark("reconstruction", __doc__, "nothing: these are bounds", _options, _measure)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
