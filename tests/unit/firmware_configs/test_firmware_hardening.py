"""The system around our processes: what the device reaches, who reaches it, and what it is called."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from firmware_configs.debian import units
from firmware_configs.hardening import Access, files, host_name
from firmware_configs.image import EDGE_TOML, main
from firmware_configs.units import ENABLED
from tests.support.services import PATIENCE_S
from wire.errors import ConfigError

ADDRESS = EDGE_TOML.replace("mqtt://127.0.0.1:1883", "mqtts://192.0.2.9")
NAME = EDGE_TOML.replace("mqtt://127.0.0.1:1883", "mqtts://broker.example:8884")
CAMERA = ADDRESS.replace('source = "0"', 'source = "rtsp://u:p@192.0.2.7:554/s"')
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ops\n"
CLOSED = Access()
OPEN = Access(broker="192.0.2.9", ntp="192.0.2.3", ssh_from="192.0.2.0/28", ssh_keys=KEY)


def rules(config: str, access: Access = CLOSED) -> dict[str, list[str]]:
    """Chain -> its lines, in order."""
    text = files([config], access)["etc/veilsight/firewall.nft"].data.decode()
    chains = re.findall(r"chain (\w+) \{(.*?)\n    \}", text, re.S)
    return {name: [line.strip() for line in body.splitlines() if line.strip()] for name, body in chains}


def allowed(lines: list[str]) -> set[str]:
    """The rules that name an address."""
    return {line for line in lines if re.search(r"\b[sd]addr\b", line)}


def test_the_device_reaches_its_broker_alone() -> None:
    found = rules(ADDRESS)
    assert allowed(found["output"]) == {"ip daddr 192.0.2.9 tcp dport 8883 accept"}
    assert allowed(found["input"]) == set(), "nobody reaches it"
    assert found["forward"] == ["type filter hook forward priority filter; policy drop;"]
    for chain in ("input", "output"):
        assert found[chain][0].endswith("policy drop;")
        assert not [line for line in found[chain] if line == "accept" or "dport 53" in line]


def test_a_camera_a_time_server_and_administrators_are_let_through_by_address() -> None:
    found = rules(CAMERA, OPEN)
    assert allowed(found["output"]) == {
        "ip daddr 192.0.2.9 tcp dport 8883 accept",
        "ip daddr 192.0.2.7 accept",
        "ip daddr 192.0.2.3 udp dport 123 accept",
    }
    assert allowed(found["input"]) == {
        "ip saddr 192.0.2.7 udp dport 1024-65535 accept",
        "ip saddr 192.0.2.0/28 tcp dport 22 accept",
    }
    assert allowed(rules(ADDRESS.replace("192.0.2.9", "[2001:db8::9]"))["output"]) == {
        "ip6 daddr 2001:db8::9 tcp dport 8883 accept"
    }


def test_a_brokers_name_needs_its_address_and_is_known_without_asking() -> None:
    with pytest.raises(ConfigError, match=r"names 'broker\.example'.*--broker-address"):
        files([NAME], Access())
    found = files([NAME], OPEN)
    assert "192.0.2.9 broker.example\n" in found["etc/hosts"].data.decode()
    assert allowed(rules(NAME, OPEN)["output"]) >= {"ip daddr 192.0.2.9 tcp dport 8884 accept"}


@pytest.mark.parametrize(
    "access",
    [
        Access(ntp="time.example"),
        Access(ssh_from="0.0.0.0/33"),
        Access(ssh_from="192.0.2.7/28"),
        Access(ssh_keys="-----BEGIN OPENSSH PRIVATE KEY-----\n"),
        Access(ssh_keys="# none\n"),
        Access(ntp="192.0.2.3 accept; x"),
    ],
)
def test_what_is_no_address_or_no_public_key_is_refused(access: Access) -> None:
    with pytest.raises(ConfigError, match="--"):
        files([ADDRESS], access)


def test_every_camera_has_a_host_name_of_its_own() -> None:
    sites = [("ward-3", "a_b"), ("ward-3", "a-b"), ("ward_3", "a-b"), ("w" * 60, "x"), ("w" * 60, "y")]
    names = {
        host_name(EDGE_TOML.replace('site = "site"', f'site = "{site}"').replace('= "camera"', f'= "{camera}"'))
        for site, camera in sites
    }
    assert len(names) == len(sites)
    assert all(re.fullmatch(r"veilsight-[a-z0-9][a-z0-9-]{0,52}", name) for name in names)


def test_nobody_logs_in_with_a_password(tmp_path: Path) -> None:
    found = files([ADDRESS], OPEN)
    assert found["etc/ssh/veilsight_keys"].data.decode() == KEY
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/bin")
    if sshd is None:
        pytest.skip("sshd is not installed")
    key = tmp_path / "host"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
    subprocess.run(command, check=True, timeout=PATIENCE_S)
    config = tmp_path / "sshd_config"
    config.write_text(found["etc/ssh/sshd_config.d/10-veilsight.conf"].data.decode() + f"HostKey {key}\n")
    Path("/run/sshd").mkdir(exist_ok=True)
    shown = subprocess.run([sshd, "-T", "-f", str(config)], capture_output=True, text=True, timeout=PATIENCE_S)
    assert shown.returncode == 0, shown.stderr
    lines = set(shown.stdout.lower().splitlines())
    assert {"passwordauthentication no", "kbdinteractiveauthentication no", "permitrootlogin no"} <= lines
    assert "authorizedkeysfile .ssh/authorized_keys /etc/ssh/veilsight_keys" in lines


@pytest.mark.parametrize("config", [ADDRESS, CAMERA, EDGE_TOML], ids=["address", "camera", "loopback"])
def test_nft_takes_the_rules(tmp_path: Path, config: str) -> None:
    """In a network namespace of its own, twice: loading them again replaces them."""
    nft, unshare = shutil.which("nft", path="/usr/sbin:/usr/bin"), shutil.which("unshare")
    if nft is None or unshare is None:
        pytest.skip("nft or unshare is not installed")
    file = tmp_path / "firewall.nft"
    file.write_bytes(files([config], OPEN)["etc/veilsight/firewall.nft"].data)
    script = f"{nft} -f {file} && {nft} -f {file} && {nft} list ruleset"
    done = subprocess.run([unshare, "-n", "sh", "-c", script], capture_output=True, text=True, timeout=PATIENCE_S)
    if re.search("Protocol not supported|not permitted|Invalid argument|Unable to initialize", done.stderr):
        pytest.skip(f"this kernel or user has no nf_tables: {done.stderr.strip()[:100]}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("chain output") == 1 and done.stdout.count("policy drop") == 3


TRY = """\
import socket
def reach(kind, host, port):
    with socket.socket(type=kind) as one:
        one.settimeout(0.3)
        try:
            one.connect((host, port))
            one.send(b"x")
        except TimeoutError:
            return "sent"  # nobody answers here
        except OSError:
            return "rejected"
        return "sent"
tcp, udp = socket.SOCK_STREAM, socket.SOCK_DGRAM
for kind, host, port in ((tcp, "192.0.2.9", 8883), (tcp, "192.0.2.9", 80), (tcp, "192.0.2.10", 8883),
                         (udp, "192.0.2.3", 123), (udp, "192.0.2.3", 53), (udp, "192.0.2.9", 8883)):
    print(reach(kind, host, port))
"""


def test_what_is_not_allowed_does_not_leave(tmp_path: Path) -> None:
    nft, unshare, ip = (shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") for name in ("nft", "unshare", "ip"))
    if nft is None or unshare is None or ip is None:
        pytest.skip("nft, unshare or ip is not installed")
    file = tmp_path / "firewall.nft"
    file.write_bytes(files([ADDRESS], OPEN)["etc/veilsight/firewall.nft"].data)
    (tmp_path / "try.py").write_text(TRY)
    net = f"{ip} link set lo up && {ip} link add out0 type veth peer name in0 && {ip} link set in0 up"
    net += f" && {ip} addr add 192.0.2.1/24 dev out0 && {ip} link set out0 up"
    script = f"{net} && {nft} -f {file} && exec {sys.executable} {tmp_path}/try.py"
    done = subprocess.run(
        [unshare, "-n", "sh", "-c", script], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    if re.search("not supported|not permitted|Unable to initialize|Unknown device", done.stderr):
        pytest.skip(f"no namespace with nf_tables here: {done.stderr.strip()[:100]}")
    assert done.stdout.split() == ["sent", "rejected", "rejected", "sent", "rejected", "rejected"], done.stderr


def test_the_time_comes_from_the_server_that_was_named_alone() -> None:
    """By systemd's own client, or by chrony where a root file system has that in its place."""
    found = {name: entry.data.decode() for name, entry in files([ADDRESS], OPEN).items()}
    assert found["etc/systemd/timesyncd.conf.d/50-veilsight.conf"] == "[Time]\nNTP=192.0.2.3\nFallbackNTP=\n"
    assert found["etc/chrony/sources.d/veilsight.sources"] == "server 192.0.2.3 iburst\n"
    assert not [name for name in files([ADDRESS], CLOSED) if "timesyncd" in name or "chrony" in name]


def test_host_keys_are_made_where_there_are_none_and_before_ssh() -> None:
    unit = units().files["lib/systemd/system/veilsight-hostkeys.service"].data.decode()
    assert "ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key\n" in unit and "Before=ssh.service\n" in unit
    assert "ExecStart=/usr/bin/ssh-keygen -A\n" in unit and "veilsight-hostkeys.service" in ENABLED


def test_journal_and_watchdog_have_their_caps() -> None:
    found = units().files
    journal = found["usr/lib/systemd/journald.conf.d/50-veilsight.conf"].data.decode()
    assert re.search(r"^SystemMaxUse=\d+M$", journal, re.M) and re.search(r"^RuntimeMaxUse=\d+M$", journal, re.M)
    assert "RuntimeWatchdogSec=30\n" in found["usr/lib/systemd/system.conf.d/50-veilsight.conf"].data.decode()


def test_the_command_writes_it_and_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "edge.toml").write_text(NAME)
    (tmp_path / "ops.pub").write_text(KEY)
    options = ["--board", "orin-nano", "--camera-config", str(tmp_path / "edge.toml"), "--ssh-from", "192.0.2.0/28"]
    options += ["--ssh-key", str(tmp_path / "ops.pub"), "--ntp", "192.0.2.3"]
    assert main([*options, "--out", str(tmp_path / "a")]) == 2
    assert "--broker-address" in capsys.readouterr().err
    assert main([*options, "--out", str(tmp_path / "b"), "--broker-address", "192.0.2.9"]) == 0
    overlay = tmp_path / "b/overlay"
    assert (overlay / "etc/veilsight/firewall.nft").stat().st_mode & 0o777 == 0o640
    assert (overlay / "etc/hostname").read_text().startswith("veilsight-site-camera-")
    assert '-n "$(<"$here/overlay/etc/hostname")"' in (tmp_path / "b/flash.sh").read_text()
