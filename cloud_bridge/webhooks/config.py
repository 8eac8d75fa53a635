"""Who is told over HTTP, and of what: a `[[webhooks]]` table of the bridge's file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cloud_bridge.address import check_address
from wire.errors import ConfigError
from wire.files import read_trusted
from wire.protocol.message import SEVERITIES
from wire.settings import FilePath, Positive

__all__ = ["WebhookConfig"]

_LEAST_SECRET = 16  # bytes

Names = list[str] | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WebhookConfig:
    """One receiver.

    Attributes:
        url: Where alerts are posted.
        secret_file: File with the secret that signs what is sent; one for each receiver.
        labels: Which alerts, by label; (): all.
        severities: Which, by severity; (): all.
        sites: Of which sites; (): all.
        give_up_h: What could not be delivered for so long is given up, counted and written into the audit log.
        ca: File with the authorities that may sign the receiver's certificate; "": the system's.
        insecure: Allow http:// to a host that is not this machine: everybody on the way reads what is sent.

    Raises:
        ConfigError: The address cannot be used, or would carry alerts in the clear; a severity is none.
    """

    url: str
    secret_file: FilePath
    labels: Names = ()
    severities: Names = ()
    sites: Names = ()
    give_up_h: Positive = 24.0
    ca: FilePath = ""
    insecure: bool = False

    def __post_init__(self) -> None:
        check_address("url", self.url, "https://host/path", self.insecure)
        for name in ("labels", "severities", "sites"):
            if not all(isinstance(value, str) and value for value in getattr(self, name)):
                raise ConfigError(f"{name} holds something that is no name; write a list of texts")
        if wrong := sorted(set(self.severities) - set(SEVERITIES)):
            raise ConfigError(f"severities has {', '.join(wrong)}; there are {', '.join(SEVERITIES)}")

    @property
    def key(self) -> str:
        """What the store calls this receiver: a hash of its address."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:16]

    @property
    def shown(self) -> str:
        """Host and port: what logs and counters call it. The rest of the address may be a secret."""
        return urlsplit(self.url).netloc.lower()

    def secret(self) -> bytes:
        """Read the secret. Raises ConfigError where that cannot be done, or it could be guessed."""
        try:
            secret = read_trusted(Path(self.secret_file)).strip()
        except OSError as error:
            raise ConfigError(f"[[webhooks]] secret_file {self.secret_file}: {error}") from error
        if len(secret) < _LEAST_SECRET:
            raise ConfigError(
                f"[[webhooks]] secret_file {self.secret_file}: {len(secret)} bytes, which can be guessed; make it with "
                "openssl rand -hex 32"
            )
        return secret
