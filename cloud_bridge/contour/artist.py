"""Draws figures of events: the decoder of the family's checkpoint on z, one figure a release of a camera.

events that are as now, of cameras that watch --ContourDecoder--> (camera, Contour), ...

An event that is late has no figure, nor has a camera of which something is wrong: blind, not watching, stale, late. The
figure of noise alone would look like any other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cloud_bridge.alerts.lifecycle import BLIND, LATE, NOT_WATCHING, STALE, UNTRUSTED_KEY
from cloud_bridge.ingest.events import Event
from familial.contour.decoder import ContourDecoder, Contours
from wire.artifact.manifest import EngineManifest
from wire.errors import ConfigError
from wire.protocol.contour import COUNTS, POSTURES, Contour, Outline

__all__ = ["Artist", "ContourConfig"]

_HIDING = frozenset((BLIND, LATE, NOT_WATCHING, STALE, UNTRUSTED_KEY))
_CURE = 'python -m familial.contour.train --checkpoint DIR makes one; or give "auto"'


@dataclass(frozen=True, slots=True)
class ContourConfig:
    """Whether figures are drawn.

    Attributes:
        enabled: "auto": where the checkpoint has a contour; "on": an error where it has none; "off": never.
    """

    enabled: str = "auto"

    def __post_init__(self) -> None:
        if self.enabled not in ("auto", "on", "off"):
            raise ConfigError(f'enabled is {self.enabled!r}; give "auto", "on" or "off"')


class Artist:
    """Draws with one decoder."""

    def __init__(self, decoder: ContourDecoder, manifest: EngineManifest, unsure_below: float = 0.0) -> None:
        """Take the parts.

        Args:
            decoder: Of the checkpoint that `manifest` names.
            manifest: Of the engine that the devices run; z is weighed to the noise of its profile.
            unsure_below: The OOD p-value below which a scene is unlike all known ones.
        """
        self._decoder, self._model_id, self._sigma = decoder, manifest.model_id, float(manifest.sigma)
        self._unsure_below = unsure_below

    @classmethod
    def load(
        cls, config: ContourConfig, checkpoint: Path | str, manifest: EngineManifest, unsure_below: float
    ) -> Artist | None:
        """Load the contour beside a checkpoint; None where there is none, or none is wanted.

        Raises:
            CheckpointError: It is damaged, or of another family.
            ConfigError: There is none, and the configuration wants one.
        """
        if config.enabled == "off":
            return None
        decoder = ContourDecoder.load(checkpoint, manifest.hashes["checkpoint"])
        if decoder is None and config.enabled == "on":
            raise ConfigError(f'[contour] enabled is "on", and {checkpoint} has no contour; {_CURE}')
        return None if decoder is None else cls(decoder, manifest, unsure_below)

    def draw(
        self, events: Sequence[Event], raised: Mapping[str, Collection[str]], time_s: int
    ) -> list[tuple[str, Contour]]:
        """Draw events of this model that may have a figure.

        Args:
            events: The newest of each camera.
            raised: Camera -> labels of its alerts that are raised.
            time_s: The bridge's clock, by `coarse_time`.

        Returns:
            Camera and figure.
        """
        shown = [event for event in events if not event.late and _HIDING.isdisjoint(raised[event.camera])]
        if not shown:
            return []
        z, present = (np.stack([getattr(event, name) for event in shown]) for name in ("z", "present"))
        found = self._decoder.read(z, present, self._sigma)
        return [(event.camera, self._contour(event, found, row, time_s)) for row, event in enumerate(shown)]

    def _contour(self, event: Event, found: Contours, row: int, time_s: int) -> Contour:
        knows = self._decoder.knows
        return Contour(
            boot_id=event.boot_id,
            slot=event.last_slot,
            model_id=self._model_id,
            posture=_named(POSTURES, found.posture[row]) if "posture" in knows else None,
            count=_named(COUNTS, found.count[row]) if "count" in knows else None,
            moving=float(found.moving[row]) if "moving" in knows else None,
            right=float(found.way[row]) if "way" in knows else None,
            first=Outline(found.first[row], found.first_spread[row]),
            second=Outline(found.second[row], found.second_spread[row]),
            unsure=event.ood_p_value is not None and event.ood_p_value < self._unsure_below,
            time_s=time_s,
        )


def _named(names: Sequence[str], chances: np.ndarray[tuple[int], np.dtype[np.float32]]) -> dict[str, float]:
    return dict(zip(names, chances.tolist(), strict=True))
