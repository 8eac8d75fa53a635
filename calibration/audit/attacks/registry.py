"""Which attacks there are, in the order of the page."""

from __future__ import annotations

from collections.abc import Mapping

from calibration.audit.attacks.attributes import ATTRIBUTES
from calibration.audit.attacks.averaging import AVERAGING
from calibration.audit.attacks.base import Attack
from calibration.audit.attacks.hostile_weights import HOSTILE_WEIGHTS
from calibration.audit.attacks.naming import NAMING
from calibration.audit.attacks.planted_codes import PLANTED_CODES
from calibration.audit.attacks.reconstruction import RECONSTRUCTION
from calibration.audit.attacks.side_channels import SIDE_CHANNELS
from calibration.audit.attacks.two_codes import TWO_CODES
from wire.errors import ConfigError

__all__ = ["ATTACKS", "attack_of"]

ATTACKS: Mapping[str, Attack] = {
    attack.name: attack
    for attack in (
        TWO_CODES,
        PLANTED_CODES,
        SIDE_CHANNELS,
        HOSTILE_WEIGHTS,
        NAMING,
        ATTRIBUTES,
        RECONSTRUCTION,
        AVERAGING,
    )
}
"""Name -> attack."""


def attack_of(name: str) -> Attack:
    """Return the attack of this name; ConfigError where there is none."""
    try:
        return ATTACKS[name]
    except KeyError:
        raise ConfigError(
            f"attack {name!r} is unknown; expected one of {', '.join(ATTACKS)}, or put it into ATTACKS in "
            "calibration/audit/attacks/registry.py"
        ) from None
