"""How much can be known at most about somebody who was in view for T seconds, as texts that a page can show.

    certificates --worst of each number, rounded up--> a table over T, for 1, 2 and 4 cameras; an event, an hour, a day

Nothing is computed in the browser: the page picks a row. Chances are in percent. Digits are rounded up, times down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from wire.privacy.certificate import CAMERAS, Certificate, round_up

__all__ = ["SECONDS", "bounds"]

SECONDS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 45, 60, 120, 300, 900, 3600, 14_400, 86_400)
"""The times in view that the page's slider has."""

_SHOWN = ("name_one_of", "attribute")
_SPANS = ("release", "event", "visit_5min", "hour", "day")


@lru_cache(maxsize=8)
def bounds(certificates: tuple[Certificate, ...], views: int = 1) -> dict[str, Any]:
    """Work out everything that the page shows of certificates, of which a device may have any, once.

    Args:
        certificates: They.
        views: Cameras of the largest scene, at most 4: they see one person at once, so what they reveal adds up. Spans
            are for as many, or for the next count that the certificate has.
    """
    documents = [certificate.document() for certificate in certificates]
    together = next(count for count in CAMERAS if count >= views)
    by_span = [document if together == 1 else document["cameras"][str(together)] for document in documents]
    first = certificates[0]
    times = {
        str(cameras): {
            gallery: {level: _shortest(documents, str(cameras), gallery, level) for level in levels}
            for gallery, levels in documents[0]["time_in_view_s"][str(cameras)].items()
        }
        for cameras in CAMERAS
    }
    return {
        "slot_s": first.slot_s,
        "receptive_field_s": max(each.receptive_field_s for each in certificates),
        "cameras": {str(cameras): [_row(certificates, seconds, cameras) for seconds in SECONDS] for cameras in CAMERAS},
        "views": together,
        "spans": {name: _worst([spans[name] for spans in by_span]) for name in _SPANS},
        "time_in_view_s": times,
    }


def _row(certificates: Sequence[Certificate], seconds: float, cameras: int) -> dict[str, Any]:
    found = [each.reveals(each.releases_touched(seconds), cameras) for each in certificates]
    return {"seconds": seconds, **_worst(found)}


def _worst(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The largest of each number, as texts."""
    chances = {
        kind: {name: _percent(max(each[kind][name] for each in found)) for name in found[0][kind]} for kind in _SHOWN
    }
    bits = max(each["bits"] for each in found)
    return {"releases": max(each["releases"] for each in found), "bits": round_up(bits), **chances}


def _percent(chance: float) -> str:
    return round_up(min(100.0, 100.0 * chance))


def _shortest(documents: Sequence[Mapping[str, Any]], cameras: str, gallery: str, level: str) -> float:
    return min(float(document["time_in_view_s"][cameras][gallery][level]) for document in documents)
