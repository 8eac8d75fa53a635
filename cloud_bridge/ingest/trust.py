"""With which engines a camera may be read, by its certificate. No MQTT and no clock here.

    state, signed: start, hash --name--> which certificate counts from that start on
    certificate --take--> kept where its hash is the one that a state names; else swapped

The broker is not trusted: a certificate that no signed state names says nothing about the camera. Until one is named
and there, the camera is trusted. What it sent in an earlier start, and comes only now, is judged by the certificate of
then: a device that was updated may still have releases of its former engine to send.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from cloud_bridge.ingest.engines import Engine, Engines
from cloud_bridge.log import log_of
from wire.errors import CertificateError
from wire.privacy.certificate import Certificate, round_up

__all__ = ["Trust"]


class Trust:
    """The certificates of one camera.

    Attributes:
        named: sha256 of the certificate that the newest state names; "" before any.
    """

    def __init__(self, camera: str, views: int = 1) -> None:
        """Begin without any. views: cameras that are known to see the same people as `site/camera`."""
        self._camera, self._views, self.named = camera, views, ""
        self._log = log_of(camera)
        self._since = self._told = -1  # the first start that names it, and the newest
        self._payload: bytes | None = None
        self._former: bytes | None = None  # of the starts before `_since`
        self._unnamed = b""  # one that came before a state
        self._found = dict[tuple[bool, int], bool]()  # of a former start or not, model id -> whether it is covered
        self._swapped, self._complained = False, ""  # what the log was told

    def name(self, digest: str, boot_id: int, engines: Engines) -> str:
        """Take the hash that the state of a start names; returns as `take`, of a certificate that came before it."""
        self._told = max(self._told, boot_id)
        if digest == self.named:
            return ""
        self._former = self._payload if boot_id > self._since else self._former
        self.named, self._since, self._payload = digest, boot_id, None
        self._found.clear()
        waiting, self._unnamed = self._unnamed, b""
        return self.take(waiting, engines) if waiting else ""

    def take(self, payload: bytes, engines: Engines) -> str:
        """Take a certificate; returns why it is refused, a key of REASONS, or ""."""
        if not self.named:
            self._unnamed = payload
            return ""
        if hashlib.sha256(payload).hexdigest() != self.named:
            if not self._swapped:
                self._log.warning(
                    "%s: the certificate under its topic is not the one that its state names", self._camera
                )
            self._swapped = True
            return "swapped"
        self._payload = _shared(payload)
        self._found.clear()
        if self._covers_any(engines):
            return ""
        if self._complained != self.named:
            self._complain(payload, engines)
        return "untrusted"

    def allows(self, engine: Engine, boot_id: int, engines: Engines) -> bool:
        """Whether what `engine` made in that start may be read; `engines` are all that are known."""
        if self._covers(engine, former=boot_id < self._since):
            return True
        return boot_id > self._told and self._covers_any(engines)  # another engine since, whose state is yet to come

    def _covers_any(self, engines: Engines) -> bool:
        return any(self._covers(engine, former=False) for engine in engines.values())

    def _covers(self, engine: Engine, former: bool) -> bool:
        payload = self._former if former else self._payload
        if payload is None:
            return True
        found = self._found.get((former, engine.id))
        if found is None:
            found = self._found[former, engine.id] = engine.manifest.covers(payload, self._views)
        return found

    def _complain(self, payload: bytes, engines: Engines) -> None:
        self._complained = self.named
        self._log.error(
            "%s: its certificate is not that of engine %s (%s); its messages are refused until it publishes the "
            "right one (is the engine on the device the one in [model] engine, or in [[models]]?)",
            self._camera,
            " or ".join(f"{model:016x}" for model in engines),
            _describe(payload),
        )


@lru_cache(maxsize=64)
def _shared(payload: bytes) -> bytes:
    """The same bytes, once for all cameras that publish them: a certificate has 16 KB."""
    return payload


def _describe(certificate: bytes) -> str:
    """Describe a certificate that is not ours; one of another schema version says how to replace it."""
    try:
        found, _ = Certificate.read(certificate)
    except CertificateError as error:
        return str(error)
    scene = f", of a scene of {found.scene_cameras} cameras" if found.scene_cameras > 1 else ""
    return f"it is that of another engine or scene: S = {round_up(found.s_release, 4)} a release{scene}"
