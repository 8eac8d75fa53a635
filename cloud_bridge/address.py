"""Checks an address that the bridge sends to: a receiver of webhooks, a server of the cloud member."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from wire.errors import ConfigError

__all__ = ["check_address"]

_HOST = re.compile(r"[A-Za-z0-9._:-]+")


def check_address(name: str, url: str, form: str, insecure: bool, insecure_key: str = "insecure") -> None:
    """Refuse an address that cannot be used, or over which others would read; none of it is shown: it may be a secret.

    Args:
        name: Of the key, for messages.
        url: The address.
        form: What to write, such as "https://host/path".
        insecure: Whether http:// may lead to a host that is not this machine.
        insecure_key: The key that says so, for messages.

    Raises:
        ConfigError: One sentence with the cure.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise ConfigError(f"{name} is no address; write {form}") from error
    if not url.isascii() or not url.isprintable() or not _HOST.fullmatch(host) or parts.fragment:
        raise ConfigError(f"{name} is no address; write {form}")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"{name} has a name or a password in it; secrets lie in files, so leave them out")
    if parts.scheme != "https" and not (parts.scheme == "http" and (insecure or _is_loopback(host))):
        raise ConfigError(
            f"{name} begins with {parts.scheme}://, which others can read; write {form}, or {insecure_key} = true "
            "where nobody else is on the way"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
