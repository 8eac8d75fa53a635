"""The units: each process has what it needs and no more, systemd knows every key, and drop-ins open one thing each."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from firmware_configs.boards import BOARDS, Board, board
from firmware_configs.debian import units as package
from firmware_configs.image import EDGE_TOML, overlay
from firmware_configs.units import ENABLED, drop_ins
from tests.support.services import PATIENCE_S
from wire.errors import ConfigError

UNITS = "lib/systemd/system"
PROCESSES = ("gate", "eye", "reader")
UPDATERS = ("update-boot", "update-confirm", "update-back")
SERVICES = (*PROCESSES, "engine", "power", *UPDATERS, "makefs@", "firewall", "hostkeys", "csi", "identity")
EVERYWHERE = {
    "NoNewPrivileges": "yes",
    "DevicePolicy": "closed",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "ProtectProc": "invisible",
    "PrivateTmp": "yes",
    "CapabilityBoundingSet": "",
    "AmbientCapabilities": "",
    "LimitCORE": "0",  # a core file would hold pictures
    "MemorySwapMax": "0",  # so would swap
    "RestrictNamespaces": "yes",
    "SystemCallArchitectures": "native",
}
UNTRUSTED = {
    **EVERYWHERE,
    "PrivateNetwork": "yes",
    "IPAddressDeny": "any",
    "RestrictAddressFamilies": "AF_UNIX",
    "StandardOutput": "null",  # it may print pixels
    "StandardError": "null",
    "LimitFSIZE": "0",
    "TemporaryFileSystem": "/run:ro",
    "BindsTo": "veilsight-gate.service",
    "Restart": "always",
    "StartLimitIntervalSec": "0",  # killed again and again, it is started again and again
    "CPUAffinity": "0-2 4-63",
}
HARDENING = {
    "gate": {
        **EVERYWHERE,
        "Type": "notify",
        "User": "veilsight",
        "PrivateDevices": "yes",
        "StateDirectory": "veilsight",
        "StateDirectoryMode": "0700",
        "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
        "MemoryDenyWriteExecute": "yes",
        "CPUAffinity": "3",
        "RestartPreventExitStatus": "3",
    },
    "eye": {**UNTRUSTED, "User": "veilsight-eye", "PrivateDevices": "no"},  # yes would hide camera and GPU
    "reader": {**UNTRUSTED, "User": "veilsight-reader", "PrivateDevices": "yes", "MemoryDenyWriteExecute": "yes"},
}
# systemd's own judgement of a unit, 0 to 10: less is less exposed (systemd-analyze security --offline=true).
EXPOSURE = {"gate": 1.4, "eye": 1.0, "reader": 0.6, "engine": 0.9}


def settings(text: str) -> dict[str, list[str]]:
    """Every value of every key of a unit, in order."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def unit(name: str) -> dict[str, list[str]]:
    return settings(package().files[f"{UNITS}/veilsight-{name}"].data.decode())


def with_source(source: str) -> str:
    return EDGE_TOML.replace('source = "0"', f'source = "{source}"')


@pytest.fixture(params=[row.name for row in BOARDS])
def row(request: pytest.FixtureRequest) -> Board:
    return board(request.param)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The folder of the units, with commands that are found on any machine."""
    for path, entry in package().files.items():
        if path.startswith(UNITS):
            text = re.sub(r"/opt/veilsight/(venv/)?bin/[a-z-]+", "/bin/true", entry.data.decode())
            (tmp_path / Path(path).name).write_text(text)
    return tmp_path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze; skips the test where it is not there or does not work."""
    command = shutil.which("systemd-analyze")
    if command is None:
        pytest.skip("systemd-analyze is not installed")
    result = subprocess.run([command, *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    if re.search("Failed to initialize manager|Failed to connect|unrecognized option", result.stderr):
        pytest.skip(f"systemd-analyze does not work here: {result.stderr.strip()}")
    return result


@pytest.mark.parametrize("name", PROCESSES)
def test_the_units_keep_their_hardening(name: str) -> None:
    found = unit(f"{name}.service")
    assert {key: found[key][-1] for key in HARDENING[name]} == HARDENING[name]
    assert found["SystemCallFilter"][0] == "@system-service"
    assert "@privileged" in found["SystemCallFilter"][1]


def test_each_process_is_a_user_of_its_own_and_reaches_only_its_own_things() -> None:
    files = package().files
    users = settings(files["usr/lib/sysusers.d/veilsight.conf"].data.decode().replace(" -", "="))
    names = [unit(f"{name}.service")["User"][0] for name in (*PROCESSES, "engine")]
    assert len(set(names)) == len(names)
    assert {f"u {name}" for name in names} == users.keys()
    for name in ("eye", "reader"):
        found = unit(f"{name}.service")
        assert "StateDirectory" not in found
        assert {"-/etc/veilsight", "-/var/lib/veilsight"} < set(found["InaccessiblePaths"][0].split())
        assert found["BindReadOnlyPaths"] == [f"/run/veilsight/{name}.sock"]
        assert found["ExecStart"][0].endswith(f"-m edge_runtime.{name}.process --socket /run/veilsight/{name}.sock")
    assert "SupplementaryGroups" not in unit("gate.service")
    assert "SupplementaryGroups" not in unit("reader.service")
    members = [line for line in files["usr/lib/sysusers.d/veilsight.conf"].data.decode().splitlines() if line[0] == "m"]
    assert not any("veilsight " in line or "reader" in line for line in members)


def test_only_the_gate_may_read_the_configuration() -> None:
    files = package().files
    assert overlay(board("orin-nano"), EDGE_TOML)["etc/veilsight/edge.toml"].mode == 0o640
    assert "z /etc/veilsight/* 0640 root veilsight -" in files["usr/lib/tmpfiles.d/veilsight.conf"].data.decode()
    assert unit("gate.service")["ExecStart"][0].endswith("-m edge_runtime --config /etc/veilsight/edge.toml")
    assert [name for name in PROCESSES if "LoadCredential" in unit(f"{name}.service")] == []


@pytest.mark.parametrize("name", ["eye", "reader"])
def test_the_gate_is_given_a_socket_that_only_its_process_may_use(name: str) -> None:
    found = {key: values[0] for key, values in unit(f"{name}.socket").items()}
    expected = {
        "ListenSequentialPacket": f"/run/veilsight/{name}.sock",
        "SocketUser": "root",
        "SocketGroup": f"veilsight-{name}",
        "SocketMode": "0660",
        "Accept": "no",
        "FileDescriptorName": name,
        "Service": "veilsight-gate.service",
    }
    assert {key: found[key] for key in expected} == expected
    gate = unit("gate.service")
    assert f"veilsight-{name}.socket" in gate["Sockets"][0]
    assert f"veilsight-{name}.socket" in gate["Requires"][0]
    assert f"veilsight-{name}.service" in gate["Wants"][0]


def test_nothing_starts_before_the_engine_is_checked() -> None:
    gate, engine = unit("gate.service"), unit("engine.service")
    assert "veilsight-engine.service" in set(gate["Requires"][0].split())
    assert "veilsight-engine.service" in set(gate["After"][0].split())
    assert "RemainAfterExit" not in engine, "it runs before every start of the gate"
    assert "-m export.install --config ${CREDENTIALS_DIRECTORY}/edge.toml" in engine["ExecStart"][0]
    assert int(engine["TimeoutStartSec"][0]) >= 1800  # the first start builds engine files
    assert engine["PrivateNetwork"] == ["yes"]
    assert int(gate["WatchdogSec"][0]) >= 10
    assert int(gate["StartLimitBurst"][0]) > 0 < int(gate["StartLimitIntervalSec"][0])
    assert "veilsight-gate.service" in ENABLED


def test_only_the_boards_own_devices_are_opened_and_to_the_eye_alone(row: Board) -> None:
    found = overlay(row, EDGE_TOML)
    names = [name for name in found if name.endswith("10-board.conf")]
    assert names == [f"etc/systemd/system/veilsight-{name}.service.d/10-board.conf" for name in ("engine", "eye")]
    text = package().files[f"{UNITS}/veilsight-eye.service"].data + found[names[1]].data
    allowed = settings(text.decode())["DeviceAllow"]
    assert {f"{device} rw" for device in row.gpu_devices} < set(allowed)
    assert "char-video4linux rw" in allowed
    assert not any(device.startswith(("block-", "/dev/mem", "/dev/sd", "/dev/nvme")) for device in allowed)
    assert settings(found[names[1]].data.decode())["MemoryMax"] == [f"{row.ram_gb // 2}G"]
    for name in ("gate", "reader"):
        assert "DeviceAllow" not in unit(f"{name}.service")


def test_with_tensorrt_the_eye_alone_has_the_gpu(row: Board) -> None:
    config = EDGE_TOML.replace('backend = "onnxruntime"', 'backend = "tensorrt"')
    assert config != EDGE_TOML
    assert not [name for name in drop_ins(row, config) if "reader" in name or "gate" in name]


def test_a_camera_on_the_network_opens_its_own_address_alone() -> None:
    row = board("orin-nano")
    for source, address in (("rtsp://u:p@192.0.2.7:554/s", "192.0.2.7"), ("rtsp://[2001:db8::7]/s", "2001:db8::7")):
        found = settings(drop_ins(row, with_source(source))["veilsight-eye.service.d/20-camera.conf"])
        assert found["IPAddressAllow"] == [address]
        assert found["PrivateNetwork"] == ["no"]
        assert "IPAddressDeny" not in found, "the unit's own IPAddressDeny=any stays"
    for source in ("rtsp://camera.lan/s", "udp://239.1.2.3:5000", "udp://0.0.0.0:5000"):
        with pytest.raises(ConfigError, match=r"\[camera\] source: .*address"):
            drop_ins(row, with_source(source))


def test_a_csi_camera_shares_tmp_and_a_usb_camera_opens_nothing() -> None:
    row = board("orin-nano")
    csi = settings(drop_ins(row, with_source("csi://0"))["veilsight-eye.service.d/20-camera.conf"])
    assert csi == {"PrivateTmp": ["no"]}
    assert not [name for name in drop_ins(row, EDGE_TOML) if "20-camera" in name]


@pytest.mark.parametrize("name", [*(f"{name}.service" for name in SERVICES), "eye.socket", "reader.socket"])
def test_systemd_finds_no_fault(name: str, units: Path) -> None:
    """Every key is one that systemd knows; paths that only the device has are not looked for."""
    result = analyze("verify", "--man=no", "--recursive-errors=no", str(units / f"veilsight-{name}"))
    assert not [line for line in result.stderr.splitlines() if "veilsight" in line], result.stderr


@pytest.mark.parametrize("name", EXPOSURE)
def test_systemd_finds_the_units_no_more_exposed_than_recorded(name: str, units: Path) -> None:
    """A newer systemd may look for more than the 252 that these were recorded with: hence the 0.5."""
    result = analyze("security", "--offline=true", "--no-pager", str(units / f"veilsight-{name}.service"))
    found = re.search(r"Overall exposure level for \S+: (\d+\.\d+)", result.stdout)
    assert found, result.stdout + result.stderr
    assert float(found[1]) <= EXPOSURE[name] + 0.5
