"""Budgets: what the cadence can spend is known before the first release, and a budget that it breaks is refused."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.engine_factory import make_engine
from wire.artifact.manifest import EngineManifest
from wire.errors import ConfigError, ManifestError
from wire.privacy.budget import OVER, Budget, Terms, slots_an_hour
from wire.privacy.certificate import Certificate, bits, sigma_for
from wire.privacy.level_rule import UNIT, units

NO_CUT_OFF = (Fraction(0), Fraction(0))
PRICE = Fraction(64) ** 2 / sigma_for(64, 3.0) ** 2
EVENT, HOUR = bits(math.sqrt(8 * PRICE)), bits(math.sqrt(3600 * PRICE))


def check(budget: Budget, price: Fraction = PRICE) -> tuple[Fraction, Fraction]:
    return budget.check(lambda releases: releases * price, 8, 1.0)


@pytest.mark.parametrize("over", OVER[:2])
def test_a_budget_that_the_cadence_keeps_is_accepted_and_cuts_nothing(over: str) -> None:
    assert check(Budget(EVENT * 1.001, HOUR * 1.001, 24 * HOUR * 1.001, over)) == NO_CUT_OFF
    assert check(Budget(over=over)) == NO_CUT_OFF


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(EVENT * 0.999), r"bits_per_event is 6\.48.* can spend 6\.491.*or over_budget = 'report'"),
        (Budget(0, HOUR * 0.999), "bits_per_hour.*'report' to accept it, or 'cut'"),
        (Budget(0, 0, 24 * HOUR * 0.999), "bits_per_day.*'report' to accept it, or 'cut'"),
        (Budget(EVENT * 0.999, 0, HOUR, "cut"), "bits_per_event.*stricter"),
        (Budget(0, 0, 0, "cut"), "bits_per_hour and bits_per_day are missing"),
        (Budget(EVENT, 0, 0, "cut"), "bits_per_hour and bits_per_day are missing"),
        (Budget(0, 0.5, 0, "cut"), "less than the 0.812 bits of one release"),
        (Budget(0, HOUR * 1.001, 0, "cut"), "no hour spends more than 2921.*would never act"),
        (Budget(0, 0, 1e9, "cut"), "would never act"),
        (Budget(0, 0, 1, "maybe"), "over_budget is 'maybe'; expected one of refuse, report, cut"),
        (Budget(-1), r"bits_per_event is -1; expected a number above 0"),
        (Budget(0, math.inf), "bits_per_hour is inf"),
        (Budget(0, 0, math.nan), "bits_per_day is nan"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused_with_its_reason(budget: Budget, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(budget)


@pytest.mark.parametrize("shift", [0.7, 1.0, 2.0, 3.0, 4.0])
def test_a_budget_copied_from_the_message_is_large_enough(shift: float) -> None:
    price = Fraction(64) ** 2 / sigma_for(64, shift) ** 2
    with pytest.raises(ConfigError) as caught:
        check(Budget(1e-3, 1e-3, 1e-3), price)
    copied = [float(bits) for bits in re.findall(r"can spend ([\d.]+) in it", str(caught.value))]
    assert check(Budget(copied[0], copied[1], copied[2]), price) == NO_CUT_OFF and len(copied) == 3


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        check(Budget(1, 10, 100))
    assert [line.split()[1] for line in str(caught.value).splitlines()] == [
        "bits_per_event",
        "bits_per_hour",
        "bits_per_day",
    ]


def test_reported_budgets_are_accepted_whatever_the_cadence_spends() -> None:
    assert check(Budget(0.1, 0.1, 0.1, "report")) == NO_CUT_OFF


@settings(deadline=None)
@given(st.floats(1.0, 2000.0), st.floats(1.0, 60_000.0), st.floats(0.5, 4.0))
def test_a_cut_off_never_allows_more_bits_than_its_budget(per_hour: float, per_day: float, shift: float) -> None:
    price = Fraction(64) ** 2 / sigma_for(64, shift) ** 2
    budget = Budget(0, per_hour, per_day, "cut")
    try:
        limits = check(budget, price)
    except ConfigError:
        return
    for limit, allowed in zip(limits, (per_hour, per_day), strict=True):
        granted = limit // price  # releases
        assert bits(math.sqrt(granted * price)) <= allowed
        assert bits(math.sqrt((granted + 1) * price)) > allowed * (1 - 1e-12)


@settings(deadline=None)
@given(st.fractions(Fraction(1, 10**9), 100))
def test_units_are_rounded_up(price: Fraction) -> None:
    assert Fraction(units(price), UNIT) >= price > Fraction(units(price) - 1, UNIT)


@pytest.mark.parametrize(("slot_s", "slots"), [(1.0, 3600), (0.25, 14400), (7.0, 514), (5000.0, 1)])
def test_an_hour_is_counted_in_slots(slot_s: float, slots: int) -> None:
    assert slots_an_hour(slot_s) == slots


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> EngineManifest:
    levels = {"strict": sigma_for(64, 2.0), "detailed": sigma_for(64, 4.0)}
    return make_engine(tmp_path_factory.mktemp("engine"), levels=levels)


def test_the_terms_are_those_of_the_most_revealing_profile_that_may_be_ordered(manifest: EngineManifest) -> None:
    """Certified, priced and budgeted at the local maximum, whatever is in force."""
    own, lowered = Terms.of(manifest, "", Budget()), Terms.of(manifest, "strict", Budget())
    assert own.profiles == {"strict": 0, "balanced": 1}
    assert lowered.profiles == {"strict": 0}
    assert own.certificate == manifest.certificate()
    assert lowered.certificate.sigma == sigma_for(64, 2.0)
    assert own.price > lowered.price == Fraction(64) ** 2 / sigma_for(64, 2.0) ** 2
    assert own.costs[:2] == (units(lowered.price), units(own.price))
    with pytest.raises(ConfigError, match="bits_per_event"):
        Terms.of(manifest, "", Budget(per_event=4.0))
    assert Terms.of(manifest, "strict", Budget(per_event=4.0)).cut_off == NO_CUT_OFF


@pytest.mark.parametrize("maximum", ["detailed", "gold"])
def test_a_maximum_beyond_the_certificate_or_without_noise_is_refused(manifest: EngineManifest, maximum: str) -> None:
    with pytest.raises(ManifestError, match=f"'{maximum}': this engine is certified for balanced .* strict"):
        Terms.of(manifest, maximum, Budget())


def test_the_summary_says_when_coverage_ends(manifest: EngineManifest) -> None:
    words = Terms.of(manifest, "", Budget(0, 0, 30000, "cut")).words
    assert "noise alone after 36,972 s of every day" in words
    assert "noise alone" not in Terms.of(manifest, "", Budget()).words


def test_a_manifest_covers_the_certificates_of_its_own_levels_that_reveal_no_more(manifest: EngineManifest) -> None:
    own = manifest.certificate()
    strict, detailed = sigma_for(64, 2.0), sigma_for(64, 4.0)
    for sigma, covered in ((own.sigma, True), (strict, True), (detailed, False), (own.sigma * 2, False)):
        assert manifest.covers(own.at(sigma).to_json().encode()) is covered
    other = Certificate(64, own.sigma, own.n, 2.0, own.receptive_field_s)
    assert not manifest.covers(other.to_json().encode())
    edited = own.to_json().encode().replace(b"6.43489", b"3.43489")
    assert edited != own.to_json().encode() and not manifest.covers(edited)
    assert not manifest.covers(b"\xff")
