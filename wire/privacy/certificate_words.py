"""What a certificate says in words: what its numbers are about, against whom they hold, and what is not proved."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["GATE_SPANS", "NOT_PROVED", "words"]

GATE_SPANS = ("release", "event", "hour", "day")
"""Spans whose numbers the gate alone guarantees; those of the others also need an eye that forgets."""

NOT_PROVED = (
    "what behaviour itself gives away to someone who knows whose behaviour it is",
    "anything about a person who stays in view without end: the bound grows with every second and nears 1",
    "anything that leaves the place outside the feature tensor",
    "the secrecy of the device itself: who holds the device holds the camera",
)

_UNITS = {
    "release": "one feature tensor, and whatever it was made of",
    "event": "the {releases} releases in a row that one verdict reads",
    "incident": "something that one camera sees for {length} s: every release that may have seen a part of it",
    "visit_5min": "five minutes of one person before one camera: every release that may have seen a part of it",
    "hour": "every release of one camera in an hour",
    "day": "every release of one camera in a day",
}
_NEIGHBOURS = {
    "chances": "the scene against pure noise, as if no code had been there; the gallery and its names may be known",
    "eps": "any two scenes, however different, in one span; the rest of the stream is the same",
}
_ADVERSARY = (
    "knows everything but the noise: weights, all pictures ever taken, the gallery, all other releases; the key stream "
    "alone bounds what it computes, see `assumes`"
)
_ASSUMES = "bits of the operating system's generator (ChaCha20) are indistinguishable from random"
_LAYERS = {
    "gate": "holds for any network, weights, runtime and driver: the gate clips the code, adds the noise and counts",
    "gate_and_eye": "holds if the eye also forgets: no frame is part of a release for longer than the receptive field",
}
_WATCHING = (
    "state.watching changes at most once an hour: a hostile eye says at most one bit an hour by it, which at most "
    "doubles the chance of a guess without looking; an honest eye says nothing by it. The numbers here are without it"
)
_WATCHING_SCENE = (
    "state.watching of each camera changes at most once an hour: hostile eyes say at most {bits} bits an hour by it, "
    "which multiply the chance of a guess without looking by at most {times}; an honest eye says nothing by it. The "
    "numbers here are without it"
)
_SCENE = "; the numbers are of this for each of the scene's {cameras} cameras, all together"
_READING = {
    "releases": "releases in the span; an incident's and a visit's: length plus receptive field; times the cameras",
    "S": "shift, C / sigma * sqrt(releases); everything below follows from it",
    "bits": "mutual information between the scene and the releases, at most, for ideal noise",
    "name_one_of": "M: chance that anyone's best guess names the right one of M people, at most (1/M without looking)",
    "right_one_among": "k: M: chance that the right one of M is among k guesses, at most (k/M without looking)",
    "attribute": "share of the majority: chance to tell a two-valued attribute, at most (the share without looking)",
    "zcdp_rho": "zero-concentrated differential privacy between any two scenes, for ideal noise",
    "eps": "differential privacy between any two scenes, with the delta beside it; a delta of 1 says nothing",
    "log2_tau": "log2 of the total variation of the noise samples from ideal noise; it is in the chances and delta",
    "time_in_view_s": "cameras: M: chance: for so long in view the bound on naming one of M stays at or below it",
}


def words(spans: Iterable[str], event_releases: int, cameras: int = 1) -> dict[str, Any]:
    """The parts of a certificate's document that are words.

    Args:
        spans: Names of the spans for which the document has numbers.
        event_releases: Releases of an event.
        cameras: Of the scene.
    """
    names = list(spans)
    layers = {"gate": [name for name in names if name in GATE_SPANS]}
    layers["gate_and_eye"] = [name for name in names if name not in GATE_SPANS]
    watching = _WATCHING if cameras == 1 else _WATCHING_SCENE.format(bits=cameras, times=2**cameras)
    return {
        "unit": {name: _unit(name, event_releases, cameras) for name in names},
        "neighbours": dict(_NEIGHBOURS),
        "adversary": _ADVERSARY,
        "assumes": _ASSUMES,
        "layers": {layer: {"spans": layers[layer], "meaning": meaning} for layer, meaning in _LAYERS.items()},
        "watching": {"period_s": 3600, "bits_hostile_eye": cameras, "bits_honest_eye": 0, "meaning": watching},
        "reading": dict(_READING),
        "not_proved": list(NOT_PROVED),
    }


def _unit(name: str, event_releases: int, cameras: int) -> str:
    together = _SCENE.format(cameras=cameras) if cameras > 1 else ""
    if name.startswith("incident_"):
        return _UNITS["incident"].format(length=name.removeprefix("incident_").removesuffix("s")) + together
    return _UNITS[name].format(releases=event_releases) + together
