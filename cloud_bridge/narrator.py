"""What a sentence says, for every kind of member alike: how sure, what, when, and the member's words as a guess.

    probability of the label --------------------------------> how sure, in the words of SURE
    z of the releases --log likelihood ratios, a step in them-> when it began, to TOLERANCE_S
    Member.describe -----------------------------------------> words, behind "perhaps"

    very probably a fall about 3 seconds ago; perhaps: a person falls forward and lies on the floor

A moment is seen by every release from then on, until it leaves the receptive field. So along an event z has a step,
and each place that the step may have gets the evidence of the releases that would have seen it. That takes
microseconds, and no member is asked. How many people there are and which way they go is not said: the codes tell it
less well than the label (`python -m benchmarks.sentences`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from cloud_bridge.alerts.lifecycle import AlertChange
from cloud_bridge.inference.member import Reading
from cloud_bridge.ingest.events import Event
from familial.data.labels import SUDDEN, noun
from wire.artifact.manifest import EngineManifest, WindowSpec
from wire.protocol.event import level_noise
from wire.protocol.message import MAX_SENTENCE

if TYPE_CHECKING:
    from familial.model.config import FamilyConfig

__all__ = ["SURE", "TOLERANCE_S", "Narrator", "how_sure"]

SURE = (("very probably", 0.85), ("probably", 0.6), ("possibly", 0.0))
"""Words and the least probability that they stand for, the surest first."""
TOLERANCE_S = 2.0
"""A time is right where it is no farther from the truth; of events shorter than 8 s, a quarter of the event."""

_LEAST = 0.6  # chance to be right from which on a time is said: more than without looking, and "probably"

Floats = npt.NDArray[np.float64]


def how_sure(probability: float) -> str:
    """The words for a probability."""
    return next((words for words, least in SURE if probability >= least), SURE[-1][0])


class _Places(NamedTuple):
    """Where the step of a risk may lie: M places in an event of R releases.

    Attributes:
        seen: (M, R), 1 where the release would see it.
        ages_s: (M,) seconds from the beginning to the event's end, rising; inf: longer than the event.
        log_prior: (M,).
    """

    seen: Floats
    ages_s: Floats
    log_prior: Floats

    @classmethod
    def of(cls, sudden: bool, releases: int, window: WindowSpec) -> _Places:
        """What is over in a moment is seen for a receptive field; what lasts, until the event's end or further back."""
        slot_s, index = window.slot_s, np.arange(releases)
        if sudden:
            whole = max(1, int(window.receptive_field_s // slot_s))
            first = np.arange(1 - whole, releases)
            seen, ages_s = (first[:, None] <= index) & (index < first[:, None] + whole), (releases - first) * slot_s
        else:
            gone = index[:-1]  # the last release that would have seen it
            seen = np.concatenate((index[:, None] <= index, gone[:, None] >= index))
            ages_s = np.concatenate(([np.inf], (releases - index[1:]) * slot_s, np.full(len(gone), np.inf)))
        gone_before = (ages_s > releases * slot_s) & ~seen[:, -1]  # less likely, or it would have been told before
        shares = np.where(gone_before, 1.0 / releases, 1.0)
        order = np.argsort(ages_s, kind="stable")
        return cls(seen[order].astype(np.float64), np.asarray(ages_s[order], np.float64), np.log(shares[order]))


class Narrator:
    """Makes the sentences of one engine's cameras. Pure: an event, its reading and words go in, and nothing else."""

    def __init__(
        self, directions: Mapping[str, Floats], releases: int, window: WindowSpec, unsure_below: float = 0.0
    ) -> None:
        """Take what does not change.

        Args:
            directions: Risk -> float (n,), which turns a release z into nats for the risk, against no risk.
            releases: Of an event, R.
            window: Of a release.
            unsure_below: OOD p-value below which a scene is unlike all known ones: nothing is more than "possibly".
        """
        self._directions, self._event_s, self._unsure_below = directions, releases * window.slot_s, unsure_below
        self._tolerance_s = min(TOLERANCE_S, self._event_s / 4.0)
        self._places = {label: _Places.of(label in SUDDEN, releases, window) for label in directions}

    @classmethod
    def of(cls, manifest: EngineManifest | FamilyConfig, unsure_below: float = 0.0) -> Narrator:
        """The narrator of an engine or a family. Evidence is that of the class prototypes: codes learn to be there."""
        from familial.model.code_space import prototypes  # torch, which the rest of the bridge does not wait for

        codes = prototypes(len(manifest.labels), manifest.tokens, manifest.width, float(manifest.clip_norm))
        flat = codes.flatten(1).double().numpy()
        # prototypes have one norm, so the log likelihood ratio of two of them is linear in z
        nats = (flat[1:] - flat[0]) / float(manifest.sigma) ** 2
        named = dict(zip(manifest.labels[1:], nats, strict=True))
        return cls(named, manifest.event_releases, manifest.window, unsure_below)

    def sentence(self, event: Event, reading: Reading, words: str, change: AlertChange | None = None) -> str:
        """Tell the likeliest label of an event or, of an alert that is raised, its label.

        Args:
            event: What was read.
            reading: Of it.
            words: The member's; "" where there are none.
            change: Of an alert; one that is cleared is told as the verdict that clears it.
        """
        likeliest = max(reading.probabilities, key=reading.probabilities.__getitem__)
        label, probability = likeliest, reading.probabilities[likeliest]
        if change is not None and change.raised:
            label, probability = change.label, change.probability
        if label != likeliest and label in reading.probabilities:
            words = ""  # they are of another label
        strange = event.ood_p_value is not None and event.ood_p_value < self._unsure_below
        what = f"{how_sure(0.0 if strange else probability)} {noun(label)}{self._when(event, label)}"
        return f"{what}; perhaps: {words}"[:MAX_SENTENCE] if words else what

    def _when(self, event: Event, label: str) -> str:
        """Such as ` about 3 seconds ago`; "" where it is not known, of no risk, and of what is not of now."""
        began_s = self.began_s(event, label) if label in self._directions and not event.late else None
        if began_s is None:
            return ""
        lasting = "" if label in SUDDEN else " that began"
        if began_s >= self._event_s:
            return f"{lasting} {self._event_s:g} seconds ago or earlier"
        count = max(1, round(began_s))
        return f"{lasting} about {count} second{'s' * (count > 1)} ago"

    def began_s(self, event: Event, label: str) -> float | None:
        """Seconds from the beginning of a risk to the event's end: the median of the places that its step may have.

        Args:
            event: A release that is missing speaks for nothing.
            label: A risk.

        Returns:
            The event's length where it began with the event or before; None where it is not probable that the truth
            lies within TOLERANCE_S.
        """
        places = self._places[label]
        nats = event.z.reshape(len(event.z), -1) @ self._directions[label]  # (R,), at the engine's own noise
        if event.weights is not None:
            nats /= event.weights * level_noise(event.weights) ** 2  # at that of each release's level
        odds = places.seen @ nats + places.log_prior
        chances = np.exp(odds - odds.max())
        chances /= chances.sum()
        median_s = places.ages_s[min(int(np.searchsorted(np.cumsum(chances), 0.5)), len(chances) - 1)]
        if median_s >= self._event_s:
            median_s, near = self._event_s, places.ages_s >= self._event_s - self._tolerance_s
        else:
            near = np.abs(places.ages_s - median_s) <= self._tolerance_s
        return float(median_s) if chances[near].sum() >= _LEAST else None
