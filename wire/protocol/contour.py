"""The contour message: an outline figure that the cloud draws from z alone, one a release, as signed JSON.

    Contour --seal_contour(key, site, camera)--> bytes, below 1,024 --open_contour(bytes, public key, ...)--> Contour
    between(former contour, newest, share)     --> the figures between two releases, FIGURES of them a release

Outlines are bytes in base64: RAYS radii, then RAYS spreads. What a family cannot read better than a guess is null. The
text says in every message what it is: an illustration from the noised code, not a picture.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from wire.errors import MessageError
from wire.protocol.document import read_document, seal_document
from wire.protocol.keys import DeviceKey, PublicKey
from wire.protocol.topics import SCHEMA

__all__ = [
    "COUNTS",
    "FIGURES",
    "ILLUSTRATION",
    "LONGEST",
    "POSTURES",
    "RAYS",
    "WIDEST",
    "Contour",
    "Outline",
    "between",
    "contour_fields",
    "open_contour",
    "seal_contour",
]

ILLUSTRATION = "illustration from the noised code, not a picture"
"""What every contour says of itself."""
FIGURES = 8
"""Figures that are shown for each release, the last of them its own."""
POSTURES = ("upright", "bent", "lying", "fighting")
"""Of the one who is drawn: upright (sitting is), bent or crouching, lying or falling, fighting with somebody."""
COUNTS = ("nobody", "one", "several")
RAYS = 48
"""Directions of an outline: ray k points k / RAYS of a turn from the right, upwards first."""
LONGEST = 1.0
"""The longest ray, in body heights."""
WIDEST = 0.5
"""The largest spread, in body heights."""

_HEX = re.compile(r"[0-9a-f]{16}")
_COARSE_S = 60
_MOST_SLOT = 1 << 53  # JSON's readers round larger numbers
_OFF = 0.02  # by how much chances, which are rounded, may miss a sum of 1
_PLACES = 3
_FIELDS = {
    *("schema", "boot_id", "slot", "model_id", "time_s", "text", "figures", "unsure", "moving", "right"),
    *(*POSTURES, *COUNTS, "first", "second"),
}

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """A closed curve about the middle of a trunk.

    Attributes:
        radii: float (RAYS,), 0 to LONGEST.
        spread: float (RAYS,), 0 to WIDEST: how far the body's own outline is from it on average.
    """

    radii: Floats
    spread: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Contour:
    """One figure, at the end of a slot.

    Attributes:
        boot_id: Names the device's start.
        slot: Of the newest release that was read.
        model_id: First 8 bytes of the manifest's hash.
        posture: Chance of each of POSTURES; None where the family's codes do not tell it.
        count: Chance of each of COUNTS; None likewise.
        moving: Chance that the one who is drawn moves through the picture; None likewise.
        right: Chance that he goes to the right, if he moves; None likewise.
        first: Of the one who is drawn.
        second: Of another one, if there is one.
        unsure: The scene is unlike all known ones: not even the chances can be trusted.
        time_s: The bridge's clock, rounded down to a minute.
    """

    boot_id: int
    slot: int
    model_id: int
    posture: Mapping[str, float] | None
    count: Mapping[str, float] | None
    moving: float | None
    right: float | None
    first: Outline
    second: Outline
    unsure: bool = False
    time_s: int = 0


def seal_contour(contour: Contour, key: DeviceKey, site: str, camera: str) -> bytes:
    """Sign it; returns the payload. Raises MessageError where no reader would take it."""
    fields = contour_fields(contour)
    _contour({"schema": SCHEMA, **fields})
    return seal_document("contour", fields, key, site, camera)


def contour_fields(contour: Contour) -> dict[str, Any]:
    """The fields of its JSON. Raises MessageError for an outline that is none."""
    return {
        "boot_id": f"{contour.boot_id:016x}",
        "slot": contour.slot,
        "model_id": f"{contour.model_id:016x}",
        "time_s": contour.time_s,
        "text": ILLUSTRATION,
        "figures": FIGURES,
        "unsure": contour.unsure,
        **_chances(POSTURES, contour.posture),
        **_chances(COUNTS, contour.count),
        "moving": _rounded(contour.moving),
        "right": _rounded(contour.right),
        "first": _text(contour.first),
        "second": _text(contour.second),
    }


def open_contour(payload: bytes, public: PublicKey, site: str, camera: str, model_id: int) -> Contour:
    """Validate and read a contour.

    Args:
        payload: As it came.
        public: The key that must have signed it.
        site: As in its topic.
        camera: Likewise.
        model_id: The model whose codes it must be of.

    Raises:
        MessageError: It is refused; `.reason` says why.
    """
    document = read_document(payload)
    document.verify("contour", public, site, camera)
    contour = _contour(document.fields)
    if contour.model_id != model_id:
        raise MessageError("model", f"of model {contour.model_id:016x}, this camera is registered with {model_id:016x}")
    return contour


def between(former: Contour, newest: Contour, share: float) -> Contour:
    """The figure on the way from one to the next: `newest` where share is 1. A stream that began anew has no way.

    Args:
        former: The contour before.
        newest: Gives everything that is no number of the figure.
        share: 0 to 1; figure k of FIGURES has (k + 1) / FIGURES.
    """
    if former.boot_id != newest.boot_id:
        return newest
    return replace(
        newest,
        posture=_mixed(former.posture, newest.posture, share),
        count=_mixed(former.count, newest.count, share),
        moving=_part(former.moving, newest.moving, share),
        right=_part(former.right, newest.right, share),
        first=_outline_between(former.first, newest.first, share),
        second=_outline_between(former.second, newest.second, share),
    )


def _outline_between(one: Outline, other: Outline, share: float) -> Outline:
    return Outline(one.radii + share * (other.radii - one.radii), one.spread + share * (other.spread - one.spread))


def _mixed(one: Mapping[str, float] | None, other: Mapping[str, float] | None, share: float) -> Any:
    if one is None or other is None:
        return other
    return {name: one[name] + share * (other[name] - one[name]) for name in other}


def _part(one: float | None, other: float | None, share: float) -> float | None:
    return other if one is None or other is None else one + share * (other - one)


def _rounded(chance: float | None) -> float | None:
    return None if chance is None else round(float(chance), _PLACES)


def _chances(names: tuple[str, ...], chances: Mapping[str, float] | None) -> dict[str, float | None]:
    return {name: None if chances is None else _rounded(chances[name]) for name in names}


def _text(outline: Outline) -> str:
    """An outline as text; what is beyond its bounds is cut."""
    scaled = np.concatenate((outline.radii / LONGEST, outline.spread / WIDEST))
    if scaled.shape != (2 * RAYS,) or not np.isfinite(scaled).all():
        raise MessageError("values", f"an outline of shape {scaled.shape}, or with a number that is not finite")
    return base64.b64encode(np.rint(255 * np.clip(scaled, 0.0, 1.0)).astype(np.uint8).tobytes()).decode()


def _contour(fields: Mapping[str, Any]) -> Contour:
    """Read fields that anybody may have written. Raises MessageError."""
    if set(fields) != _FIELDS:
        raise MessageError("malformed", f"fields {sorted(set(fields) ^ _FIELDS)[:3]} are missing or unknown")
    if fields["text"] != ILLUSTRATION or fields["figures"] != FIGURES or type(fields["unsure"]) is not bool:
        raise MessageError("values", "text, figures or unsure is not a contour's")
    numbers = {name: fields[name] for name in ("slot", "time_s")}
    if any(type(value) is not int or not 0 <= value < _MOST_SLOT for value in numbers.values()):
        raise MessageError("values", "slot or time_s is no number of a slot or a time")
    if numbers["time_s"] % _COARSE_S:
        raise MessageError("values", f"time_s is {numbers['time_s']}; it is rounded down to a whole minute")
    return Contour(
        boot_id=_number(fields["boot_id"]),
        model_id=_number(fields["model_id"]),
        posture=_distribution(POSTURES, fields),
        count=_distribution(COUNTS, fields),
        moving=_chance(fields["moving"]),
        right=_chance(fields["right"]),
        first=_outline(fields["first"]),
        second=_outline(fields["second"]),
        unsure=fields["unsure"],
        **numbers,
    )


def _number(text: Any) -> int:
    if not isinstance(text, str) or not _HEX.fullmatch(text):
        raise MessageError("values", "boot_id or model_id is not 16 hex digits")
    return int(text, 16)


def _chance(value: Any) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not math.isfinite(value) or not 0.0 <= value <= 1.0:
        raise MessageError("values", "a chance is not 0 to 1")
    return float(value)


def _distribution(names: tuple[str, ...], fields: Mapping[str, Any]) -> dict[str, float] | None:
    found = {name: _chance(fields[name]) for name in names}
    known = {name: chance for name, chance in found.items() if chance is not None}
    if not known:
        return None
    if len(known) != len(found) or abs(sum(known.values()) - 1.0) > _OFF:
        raise MessageError("values", f"{', '.join(names)} are not a distribution")
    return known


def _outline(text: Any) -> Outline:
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != 2 * RAYS:
        raise MessageError("shape", f"an outline is not {2 * RAYS} bytes in base64")
    values = np.frombuffer(data, np.uint8).astype(np.float32) / 255
    return Outline(values[:RAYS] * LONGEST, values[RAYS:] * WIDEST)
