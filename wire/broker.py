"""Where a broker is, and how we log in: the `[broker]` section of device and bridge.

url, username, files --checked--> BrokerConfig --> password, TLS context       (wire/mqtt.py connects with them)
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from wire.errors import ConfigError
from wire.files import read_trusted
from wire.settings import FilePath

__all__ = ["BrokerConfig"]

_URL = re.compile(r"mqtts?://(?:\[[0-9a-fA-F:.]+\]|[^@/:?#\[\]\s]+)(?::([0-9]{1,5}))?/?")
_PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """Where the broker is, and how we log in.

    Attributes:
        url: `mqtt://HOST[:PORT]`, or `mqtts://HOST[:PORT]` for TLS.
        username: User name; "" for none.
        password_file: File whose first line is the password; "" for none.
        ca: PEM file of the authority that signed the broker's certificate; "" for the system's authorities.
        cert: PEM file of our own certificate, for mutual TLS.
        key: PEM file of that certificate's key.

    Raises:
        ConfigError: A value is malformed, or the values contradict each other.
    """

    url: str = "mqtt://127.0.0.1:1883"
    username: str = ""
    password_file: FilePath = ""
    ca: FilePath = ""
    cert: FilePath = ""
    key: FilePath = ""

    def __post_init__(self) -> None:
        if "@" in self.url:
            raise ConfigError(
                "url holds a user or a password; write mqtt://HOST[:PORT], and use username and password_file"
            )
        match = _URL.fullmatch(self.url)
        if match is None:  # it is not shown: it may hold a password
            raise ConfigError("url cannot be parsed; write mqtt://HOST[:PORT], or mqtts://HOST[:PORT] for TLS")
        if match[1] and not 1 <= int(match[1]) <= 65535:
            raise ConfigError(f"url has the port {match[1]}; write mqtt://HOST[:PORT], where ports are 1 to 65535")
        if bool(self.cert) != bool(self.key):
            raise ConfigError("cert and key belong together; give both, or neither")
        if (self.ca or self.cert) and not self.tls:
            raise ConfigError(f"ca, cert and key are for TLS, but url is {self.url!r}; write mqtts://")

    @property
    def host(self) -> str:
        """Name or address of the broker."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """TCP port; 1883, or 8883 with TLS, where the URL has none."""
        parts = urlsplit(self.url)
        return parts.port or _PORTS[parts.scheme]

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return urlsplit(self.url).scheme == "mqtts"

    def password(self) -> str | None:
        """Read the password, without the line's end; None where no file is named. Raises ConfigError."""
        if not self.password_file:
            return None
        try:
            return read_trusted(Path(self.password_file)).decode().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"[broker] password_file {self.password_file} cannot be read ({error})") from error

    def tls_context(self) -> ssl.SSLContext | None:
        """Load the TLS files; None without TLS. Raises ConfigError."""
        if not self.tls:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the certificate and the host name
        try:
            for file in filter(None, (self.ca, self.cert, self.key)):
                read_trusted(Path(file))  # no symbolic link, nothing that others may write
            if self.cert:
                context.load_cert_chain(self.cert, self.key)
            if self.ca:
                context.load_verify_locations(self.ca)
            else:
                context.load_default_certs()
        except (OSError, ValueError) as error:
            raise ConfigError(f"[broker] ca, cert or key cannot be used ({error})") from error
        return context
