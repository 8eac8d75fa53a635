"""Where the API listens: the `[api]` section of the bridge's file."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from wire.errors import ConfigError
from wire.settings import FilePath, Positive

__all__ = ["ApiConfig"]


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """The API over HTTP; off where `listen` is empty.

    Attributes:
        listen: `address:port`; "": no API.
        tokens: The file of tokens (cloud_bridge/api/tokens.py).
        cert: The server's certificate, and
        key: its private key; without them only a loopback address is listened on.
        requests_per_s: Of one token in the long run.
        burst: Of one token at once.

    Raises:
        ConfigError: The address cannot be, no tokens are named, or tokens would cross a network in the clear.
    """

    listen: str = ""
    tokens: FilePath = ""
    cert: FilePath = ""
    key: FilePath = ""
    requests_per_s: Positive = 20.0
    burst: Positive = 100.0

    def __post_init__(self) -> None:
        if not self.listen:
            return
        host, _ = self.address
        if not self.tokens:
            raise ConfigError("listen is set, and tokens is not; name the file that python -m cloud_bridge.api makes")
        if bool(self.cert) != bool(self.key):
            raise ConfigError("cert and key go together; give both or neither")
        if not self.cert and not host.is_loopback:
            raise ConfigError(
                f"listen is {self.listen}, which others can reach; give cert and key, or listen on 127.0.0.1 behind a "
                "proxy: a token would be read by everybody on the way"
            )

    @property
    def address(self) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
        """Address and port. Raises ConfigError."""
        host, _, port = self.listen.rpartition(":")
        try:
            found = ipaddress.ip_address(host.strip("[]")), int(port)
        except ValueError as error:
            raise ConfigError(f"listen is {self.listen!r}; write an address and a port, 127.0.0.1:8443") from error
        if not 0 <= found[1] < 65_536:
            raise ConfigError(f"listen has the port {port}; 0 to 65535 are ports")
        return found
