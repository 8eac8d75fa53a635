"""What closes the system around our processes: its network, its login, its name, its time.

    configurations + Access --> /etc/veilsight/firewall.nft      brokers, cameras, the time server; ssh from a network
                           sshd without passwords, a host name and /etc/hosts of its own, the time server

Caps of the journal, the hardware watchdog and new host keys are the same for every device, and in `veilsight-units`.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass

from edge_runtime.capture.address import backend_of, host_of
from firmware_configs.archive import Entry
from wire.broker import BrokerConfig
from wire.errors import ConfigError

__all__ = ["Access", "files", "host_name"]

_KEY = re.compile(r"(ssh-ed25519|ecdsa-sha2-nistp256|sk-ssh-ed25519@openssh\.com|ssh-rsa) [A-Za-z0-9+/=]+( .*)?")
_SSHD = """\
# Keys alone: a password can be guessed, and sudo asks for one anyway.
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/veilsight_keys
AllowTcpForwarding no
AllowAgentForwarding no
X11Forwarding no
MaxAuthTries 3
LoginGraceTime 30
"""
_FIREWALL = """\
# The device reaches the broker, its cameras and its time server, and nothing else; nobody but the network of the
# administrators reaches the device. Loaded by veilsight-firewall.service, before the network is up.
table inet veilsight
delete table inet veilsight
table inet veilsight {{
    chain input {{
        type filter hook input priority filter; policy drop;
        iif "lo" accept
        ct state established,related accept
        icmp type echo-request accept
        icmpv6 type {{ echo-request, nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert }} accept
{into}    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
    }}
    chain output {{
        type filter hook output priority filter; policy drop;
        oif "lo" accept
        ct state established,related accept
        udp sport 68 udp dport 67 accept
        icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit }} accept
{out}        reject with icmpx type admin-prohibited
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Access:
    """Who reaches a device, and what it reaches beside its broker and its cameras.

    Attributes:
        broker: The broker's IP address, where its URL has a name; "" else.
        ntp: IP address of the time server; "": none.
        ssh_from: Network from which ssh is allowed, such as 192.0.2.0/24; "": from nowhere.
        ssh_keys: Public keys that may log in, a line each.
    """

    broker: str = ""
    ntp: str = ""
    ssh_from: str = ""
    ssh_keys: str = ""


def files(configs: Sequence[str], access: Access) -> dict[str, Entry]:
    """The files of the overlay.

    Args:
        configs: Text of edge.toml, and of the configuration of each further camera.
        access: Beside them.

    Raises:
        ConfigError: An address or a key is none, or a broker's URL has a name and no address is given, or two have.
    """
    name, brokers = host_name(configs[0]), dict.fromkeys(_broker(config, access.broker) for config in configs)
    hosts = {host: address for host, address, _ in brokers if host}
    if len(hosts) > 1:
        both = " and ".join(hosts)
        raise ConfigError(f"[broker] url names {both}; --broker-address is one: write addresses in the URLs")
    into = list[str]()
    out = [f"{_to(address)} tcp dport {port} accept" for _, address, port in brokers if not address.is_loopback]
    for camera in dict.fromkeys(seen for config in configs if (seen := _camera(config))):
        out.append(f"{_to(camera)} accept")
        into.append(f"{_from(camera)} udp dport 1024-65535 accept")  # RTP, which the camera sends by itself
    if access.ntp:
        out.append(f"{_to(_address(access.ntp, '--ntp'))} udp dport 123 accept")
    if access.ssh_from:
        into.append(f"{_from(_network(access.ssh_from))} tcp dport 22 accept")
    lines = {"into": into, "out": out}
    text = _FIREWALL.format(**{way: "".join(f"        {line}\n" for line in found) for way, found in lines.items()})
    known = f"127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost ip6-localhost ip6-loopback\n"
    found = {
        "etc/veilsight/firewall.nft": Entry(text.encode(), 0o640),
        "etc/hostname": Entry(f"{name}\n".encode()),
        "etc/hosts": Entry((known + "".join(f"{at} {host}\n" for host, at in hosts.items())).encode()),
        "etc/ssh/sshd_config.d/10-veilsight.conf": Entry(_SSHD.encode()),
    }
    if access.ntp:
        found["etc/systemd/timesyncd.conf.d/50-veilsight.conf"] = Entry(
            f"[Time]\nNTP={access.ntp}\nFallbackNTP=\n".encode()
        )
        # Where a root file system has chrony in its place.
        found["etc/chrony/sources.d/veilsight.sources"] = Entry(f"server {access.ntp} iburst\n".encode())
    if access.ssh_keys:
        found["etc/ssh/veilsight_keys"] = Entry(_keys(access.ssh_keys).encode())
    return found


def host_name(config: str) -> str:
    """A name that no other camera's device has, of its first camera, within what a host may be called."""
    device = tomllib.loads(config).get("device", {})
    full = f"{device.get('site', '')}/{device.get('camera', '')}"
    words = re.sub("[^a-z0-9]+", "-", full.lower()).strip("-")[:40].strip("-")
    return f"veilsight-{words}-{hashlib.sha256(full.encode()).hexdigest()[:6]}"


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _broker(config: str, given: str) -> tuple[str, _Address, int]:
    """Name ("" for none), address and port of the broker."""
    broker = BrokerConfig(url=str(tomllib.loads(config).get("broker", {}).get("url", "")))
    try:
        return "", ipaddress.ip_address(broker.host), broker.port
    except ValueError as error:
        if not given:
            raise ConfigError(
                f"[broker] url names {broker.host!r}; the device reaches an address, and asks nobody for names: add "
                "--broker-address IP"
            ) from error
    return broker.host, _address(given, "--broker-address"), broker.port


def _camera(config: str) -> _Address | None:
    source = str(tomllib.loads(config).get("camera", {}).get("source", ""))
    return _address(host_of(source), "[camera] source") if backend_of(source) == "stream" else None


def _address(text: str, what: str) -> _Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise ConfigError(f"{what} is {text!r}; give an IP address, such as 192.0.2.1") from error


def _network(text: str) -> _Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigError(f"--ssh-from is {text!r}; give a network, such as 192.0.2.0/24") from error


def _to(address: _Address) -> str:
    return f"{'ip' if address.version == 4 else 'ip6'} daddr {address}"


def _from(address: _Address | _Network) -> str:
    return f"{'ip' if address.version == 4 else 'ip6'} saddr {address}"


def _keys(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    wrong = [line[:40] for line in lines if not _KEY.fullmatch(line)]
    if wrong or not lines:
        raise ConfigError(f"--ssh-key: {wrong or 'no key'}; give the .pub file of each key, not the key itself")
    return "".join(f"{line}\n" for line in lines)
