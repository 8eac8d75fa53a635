"""Why a message of a camera is refused: all the words that the counters, the metrics and the page can have."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["LOGGED", "REASONS"]

REASONS: Mapping[str, str] = {
    "unknown": "no camera of that name is configured",
    "untrusted": "the camera published a certificate that is not this engine's",
    "swapped": "a certificate that the camera's signed state does not name",
    "truncated": "shorter than a release of this model",
    "oversized": "longer than a release of this model, or than a state",
    "forged": "not signed by the camera's key as a message of this camera",
    "malformed": "not a message of ours, or not in canonical form",
    "schema": "of a schema this software does not read: update the device, or the bridge",
    "flags": "flags without a meaning",
    "level": "at a level that this model does not have, or that its rule cannot have chosen",
    "shape": "z of another length",
    "model": "made by a model that this bridge does not have, or by another one than its start began with",
    "values": "values that cannot be, such as a slot beyond the device's life",
    "flood": "more than the slots that have passed: the camera sends too fast",
    "clock": "its time is long before that of the slot before it: the clock was set back",
    "replayed": "an older boot id, a slot read long ago, or a state older than the newest",
    "duplicate": "a slot that was read a moment ago",
    "late": "a slot that was waited for and given up",
}
"""Reason why a message is refused -> explanation."""

LOGGED: Mapping[str, str] = {
    "schema": "",
    "flood": "",
    "forged": ". If the device was given a new key, register it: put the line of its <key>.pub into [[cameras]] "
    "public_key",
    "model": ". If that is an engine of yours, add it and its checkpoint as [[models]], and send SIGHUP",
}
"""Reasons whose first message is logged, since somebody has to act, and what is added to the error's own words."""
