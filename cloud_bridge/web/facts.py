"""What the page tells beside the store: the engines' certificates, and each device as its session knows it now.

    models, sessions of the bridge --> Facts --> the page's calls

The bridge's thread writes the sessions; the API's threads read single values of them here and change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloud_bridge.ingest.reasons import REASONS
from cloud_bridge.ingest.session import CameraSession
from cloud_bridge.models import Models, first_of
from wire import __version__
from wire.privacy.certificate import Certificate

__all__ = ["Facts"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What does not lie in the store.

    Attributes:
        models: Those of the bridge at this moment.
        sessions: `site/camera` -> its session, of the cameras of this bridge.
        views: Cameras of the largest scene.
    """

    models: Callable[[], Models]
    sessions: Mapping[str, CameraSession]
    views: int = 1

    @property
    def certificates(self) -> Sequence[Certificate]:
        """Those that a device of these engines may have; the page shows the worst of each number."""
        return [each for model in self.models().values() for each in model.manifest.accepted]

    @property
    def draws(self) -> bool:
        """Whether there are contours."""
        return any(model.artist is not None for model in self.models().values())

    @property
    def labels(self) -> Sequence[str]:
        """The families', the first is no risk."""
        return first_of(self.models()).manifest.labels

    def engine(self, camera: str = "") -> dict[str, Any]:
        """What is known of a camera's engine, as JSON; without a session, of that of `[model]`."""
        session = self.sessions.get(camera)
        manifest = first_of(self.models()).manifest if session is None else session.engine.manifest
        return {
            "model": f"{manifest.model_id:016x}",
            "family": manifest.family,
            "profile": manifest.profile,
            "n": manifest.n,
            "slot_s": manifest.window.slot_s,
            "event_releases": manifest.event_releases,
            "software": __version__,
        }

    def device(self, camera: str) -> dict[str, Any] | None:
        """What a camera's session counts since the bridge's start; None: no camera of this bridge."""
        session = self.sessions.get(camera)
        if session is None:
            return None
        refused = {reason: count for reason in REASONS if (count := session.refused[reason])}
        counts = {"received": session.received, "gaps": session.gaps, "refused": refused}
        about = {"heard_s": session.fresh_s, "unknown_model": session.unknown_model}
        return {"offline": session.offline, **about, **counts}
