"""Which engine this device has accepted last: no older one, and none that reveals more, takes its place unasked.

    signed release number, S of an event and of an hour --compared with--> installed.json --> accepted, or refused

The record is in [device] state_dir, which no update replaces. It is compared before a bundle is unpacked, and before
every start: so a folder that an update system puts back, signed as it is, is refused too. What the record does not
allow, the device's own budgets may ([privacy] bits_per_event, bits_per_hour), or an operator who names both versions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wire.artifact.manifest import EngineManifest
from wire.errors import ManifestError
from wire.files import load_counts, make_folder, save_counts
from wire.privacy.budget import slots_an_hour
from wire.privacy.certificate import bits, round_up
from wire.privacy.level_rule import UNIT, units
from wire.protocol.keys import PublicKey

__all__ = ["Allowed", "Record", "accept", "remember"]

_NAME = "installed.json"
_SPANS = ("event", "hour")


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may take the place of the installed engine although it is older, or reveals more.

    Attributes:
        older: "9:7": release 7 over release 9; "" for no older one.
        more: "2.00:4.00": an event's S of 4 over one of 2, and whatever an hour of it reveals; "" for no more.
        bits_per_event: Mutual information that the device's configuration allows, bits; 0: it says nothing.
        bits_per_hour: Likewise.
    """

    older: str = ""
    more: str = ""
    bits_per_event: float = 0.0
    bits_per_hour: float = 0.0


@dataclass(frozen=True, slots=True)
class Record:
    """An engine: its release, and S^2 of an event and of an hour in units of `wire.privacy.level_rule.UNIT`."""

    release: int
    event: int
    hour: int

    @classmethod
    def of(cls, manifest: EngineManifest, release: int) -> Record:
        """The record of an engine of which its signer said that it is `release`."""
        certificate, hour = manifest.certificate(), slots_an_hour(manifest.window.slot_s)
        spans = (manifest.event_releases, hour)
        return cls(release, *(units(certificate.spends(releases)) for releases in spans))

    def s(self, span: str) -> float:
        """S of "event" or "hour"."""
        return float((getattr(self, span) / UNIT) ** 0.5)


def accept(found: Record, state: Path, signer: PublicKey, allowed: Allowed) -> list[str]:
    """Compare an engine with the one that was installed last.

    Args:
        found: The engine.
        state: `[device] state_dir`.
        signer: Who signed it. Another signer counts releases anew.
        allowed: What the configuration and the operator allow.

    Returns:
        Sentences for the operator on what was allowed; none for an engine that needs no permission.

    Raises:
        ManifestError: It is refused, or the record is damaged.
    """
    try:
        counts, owner = load_counts(state / _NAME, Record.__dataclass_fields__)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise ManifestError(
            f"{state / _NAME}: unreadable ({error}); if you know that the engine is the newest, remove the file"
        ) from error
    last = Record(**counts)
    said = _older(found, last, allowed.older) if owner == signer.hex else []
    return said + _more(found, last, allowed)


def remember(found: Record, state: Path, signer: PublicKey) -> None:
    """Make an engine the one that was installed last; durable. Raises ManifestError."""
    try:
        make_folder(state)
        save_counts(state / _NAME, {name: getattr(found, name) for name in Record.__dataclass_fields__}, signer.hex)
    except OSError as error:
        raise ManifestError(f"{state / _NAME}: {error.strerror}; make [device] state_dir writable") from error


def _older(found: Record, last: Record, allowed: str) -> list[str]:
    if found.release >= last.release:
        return []
    both = f"{last.release}:{found.release}"
    if allowed != both:
        raise ManifestError(
            f"release {found.release} is older than release {last.release}, which was installed; install a newer one, "
            f"or, if you mean to go back: --allow-older {both}"
        )
    return [f"OLDER: release {found.release} takes the place of release {last.release}, as --allow-older says"]


def _more(found: Record, last: Record, allowed: Allowed) -> list[str]:
    grown = [span for span in _SPANS if getattr(found, span) > getattr(last, span)]
    if not grown:
        return []
    budgets = {"event": allowed.bits_per_event, "hour": allowed.bits_per_hour}
    both = f"{round_up(last.s('event'))}:{round_up(found.s('event'))}"
    by_budget = all(bits(found.s(span)) <= budgets[span] for span in grown)
    words = ", ".join(f"S of an {span} is {round_up(found.s(span))}, it was {round_up(last.s(span))}" for span in grown)
    if not by_budget and allowed.more != both:
        wants = " and ".join(f"bits_per_{span} = {round_up(bits(found.s(span)), 6)}" for span in grown)
        raise ManifestError(
            f"this engine reveals more than the one that was installed: {words}; install one that does not, or, if "
            f"the people who are filmed know of it: [privacy] {wants}, or once --allow-more {both}"
        )
    return [f"MORE REVEALING: {words}; allowed by {'[privacy] budgets' if by_budget else '--allow-more'}"]
