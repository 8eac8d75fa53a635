"""What the page tells beside the store: the engine's certificates, and each device as its session knows it now.

    manifest, sessions of the bridge --Facts.of--> Facts --> the page's calls

The bridge's thread writes the sessions; the API's threads read single values of them here and change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloud_bridge.ingest.reasons import REASONS
from cloud_bridge.ingest.session import CameraSession
from wire import __version__
from wire.artifact.manifest import EngineManifest
from wire.privacy.certificate import Certificate

__all__ = ["Facts"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What does not lie in the store.

    Attributes:
        certificates: Those that a device of this engine may have; the page shows the worst of each number.
        engine: What is known of the engine, as JSON.
        labels: The family's, the first is no risk.
        draws: Whether there are contours.
        views: Cameras of the largest scene.
        device: `site/camera` -> what its session counts since the bridge's start; None: no camera of this bridge.
    """

    certificates: Sequence[Certificate]
    engine: Mapping[str, Any]
    labels: Sequence[str]
    device: Callable[[str], dict[str, Any] | None]
    draws: bool = False
    views: int = 1

    @classmethod
    def of(
        cls, manifest: EngineManifest, sessions: Mapping[str, CameraSession], draws: bool = False, views: int = 1
    ) -> Facts:
        """Take them from the parts of a bridge."""
        engine = {
            "model": f"{manifest.model_id:016x}",
            "family": manifest.family,
            "profile": manifest.profile,
            "n": manifest.n,
            "slot_s": manifest.window.slot_s,
            "event_releases": manifest.event_releases,
            "software": __version__,
        }
        return cls(
            manifest.accepted, engine, manifest.labels, lambda camera: _count(sessions.get(camera)), draws, views
        )


def _count(session: CameraSession | None) -> dict[str, Any] | None:
    if session is None:
        return None
    refused = {reason: count for reason in REASONS if (count := session.refused[reason])}
    counts = {"received": session.received, "gaps": session.gaps, "refused": refused}
    return {"offline": session.offline, "heard_s": session.fresh_s, **counts}
