"""What a session must know of each engine whose releases it reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cloud_bridge.ingest.events import EventReader
from familial.evaluate.ood_detector import OodDetector, ReferenceDistribution
from wire.artifact.manifest import EngineManifest

__all__ = ["Engine", "Engines", "engines_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """One engine; made once, and shared by the cameras that run it.

    Attributes:
        manifest: Its manifest.
        reference: The scenes that its family knows; None: events have no OOD p-value.
        shape: n, model id, levels: what a release of it must have.
        level: That the manifest's profile has.
        lifetime: Slots of a device's life, as the certificate states it.
    """

    manifest: EngineManifest
    reference: ReferenceDistribution | None = None
    shape: tuple[int, int, int] = field(init=False)
    level: int = field(init=False)
    lifetime: int = field(init=False)

    def __post_init__(self) -> None:
        made = self.manifest
        object.__setattr__(self, "shape", (made.n, made.model_id, len(made.sigmas)))
        object.__setattr__(self, "level", made.level)
        object.__setattr__(self, "lifetime", made.certificate().lifetime_releases)
        for each in made.accepted:
            each.difference({})  # computed now, so that no message waits for it

    @property
    def id(self) -> int:
        """The model id."""
        return self.shape[1]

    def reader(self, camera: str) -> EventReader:
        """What makes events of the releases of `site/camera`."""
        made = self.manifest
        detector = OodDetector(self.reference, made.sigmas) if self.reference is not None else None
        return EventReader(
            camera, made.event_releases, made.tokens, made.width, made.weights, detector, model_id=self.id
        )


Engines = Mapping[int, Engine]
"""Model id -> engine, the one of `[model]` first."""


def engines_of(*manifests: EngineManifest) -> Engines:
    """Engines without known scenes, in order."""
    return dict(_by_id(manifests))


def _by_id(manifests: tuple[EngineManifest, ...]) -> Iterator[tuple[int, Engine]]:
    for manifest in manifests:
        engine = Engine(manifest)
        yield engine.id, engine
