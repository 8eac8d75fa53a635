"""Modules, storages, sensors, images for many devices: each is told apart; what does not go together is refused."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from firmware_configs.archive import unpack
from firmware_configs.boards import BOARDS, MODULES, STORAGES, Module, board
from firmware_configs.csi import ENV, SENSORS, csi_files
from firmware_configs.flash import encrypted_steps, mass_steps, steps
from firmware_configs.image import EDGE_TOML, EDGE_TOML_AB, Asked, main, overlay, write
from firmware_configs.per_device import FILE, MARK, per_device_config
from firmware_configs.update.bundle import compatible
from tests.support.debian_factory import make_packages
from tests.unit.firmware_configs.test_firmware_image import tree
from wire.errors import ConfigError

CERT = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
CSI = EDGE_TOML.replace('source = "0"', 'source = "csi://0"')


# --- modules and storages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [row.name for row in BOARDS])
def test_a_boards_row_is_that_of_its_first_module_and_storage(name: str) -> None:
    row = next(row for row in BOARDS if row.name == name)
    module = next(one for one in MODULES if one.board == name)
    storage = next(one for one in STORAGES if one.board == name)
    assert board(name, module.name, storage.name) == board(name) == row


@pytest.mark.parametrize("one", MODULES, ids=lambda one: f"{one.board}-{one.name}")
def test_a_modules_own_are_in_what_is_made_for_it(one: Module, tmp_path: Path) -> None:
    row = board(one.board, one.name)
    found = overlay(row, EDGE_TOML)
    assert f"VEILSIGHT_POWER_MODE={one.power_mode}\n" in found["etc/veilsight/board.env"].data.decode()
    memory = found["etc/systemd/system/veilsight-eye.service.d/10-board.conf"].data.decode()
    assert f"MemoryMax={one.ram_gb // 2}G\n" in memory
    looked_for = next(step for step in steps(row) if step.run[0] == "in_recovery").run[1:]
    assert looked_for == one.recovery_usb and all(re.fullmatch("0955:[0-9a-f]{4}", name) for name in looked_for)
    write(row, tmp_path / "a", EDGE_TOML)
    write(row, tmp_path / "b", EDGE_TOML)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert one.part in (tmp_path / "a/flash.sh").read_text()


def test_modules_of_one_board_are_told_apart() -> None:
    four, eight = board("orin-nano", "4gb"), board("orin-nano", "8gb")
    assert (four.power_mode, four.ram_gb) == ("10W", 4) and (eight.power_mode, eight.ram_gb) == ("15W", 8)
    assert not {*four.recovery_usb} & {*eight.recovery_usb}
    assert (board("orin-nx", "8gb").dla, board("orin-nx").dla) == (1, 2)
    assert compatible(four) == compatible(eight), "an update carries the module's files from slot to slot"


def test_agx_orin_goes_to_its_emmc_or_to_nvme() -> None:
    emmc, nvme = board("agx-orin"), board("agx-orin", storage="nvme")
    assert emmc.storage == "mmcblk0p1" and "--external-device" not in emmc.flash and emmc.flash[-1] == "internal"
    assert nvme.storage == "nvme0n1p1" and nvme.flash[-2:] == ("jetson-agx-orin-devkit", "external")
    assert nvme.flash[nvme.flash.index("--external-device") + 1] == "nvme0n1p1"
    assert not emmc.layout_ab and nvme.layout_ab
    assert "etc/rauc/system.conf" in overlay(nvme, EDGE_TOML + EDGE_TOML_AB, keyring=CERT)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("orin-nano", "16gb", ""), "--module '16gb' is not a module of orin-nano; choose one of 8gb, 4gb"),
        (("thor", "8gb", ""), "choose one of t5000"),
        (("orin-nx", "", "emmc"), "--storage 'emmc' is not a storage of orin-nx; choose one of nvme"),
        (("agx-orin", "", "sd"), "choose one of emmc, nvme"),
    ],
)
def test_what_a_board_has_not_is_refused_with_what_it_has(options: tuple[str, str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        board(*options)


def test_the_command_takes_module_and_storage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--board", "agx-orin", "--module", "32gb", "--storage", "nvme", "--out", str(tmp_path / "a")]
    assert main(command) == 0
    script = (tmp_path / "a/flash.sh").read_text()
    assert "P3701-0004/0000 (32 GB)" in script and "0955:7223" in script and "nvme0n1p1" in script
    assert main([*command[:-1], str(tmp_path / "b"), "--module", "4gb"]) == 2
    assert "choose one of 64gb, 32gb" in capsys.readouterr().err and not (tmp_path / "b").exists()


def test_the_other_ends_of_the_plan_are_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for row in BOARDS:
        images, ready, flash = mass_steps(row)
        assert "--no-flash" in images.run and ready.run[1:] == row.recovery_usb and "--flash-only" in flash.run
        assert bool(encrypted_steps(row)) == (row.name != "thor")
    assert main(["--board", "orin-nx", "--out", str(tmp_path / "a"), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "--massflash" in shown and "ROOTFS_ENC=1" in shown


# --- the CSI sensor ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sensor", SENSORS)
def test_a_sensor_is_named_as_jetson_io_names_it(sensor: str) -> None:
    found = overlay(board("orin-nano"), CSI, asked=Asked(csi_sensor=sensor))
    assert found[ENV].data.decode() == f'VEILSIGHT_CSI="{SENSORS[sensor]}"\n'


def test_without_the_option_nothing_is_done_to_the_connector() -> None:
    assert ENV not in overlay(board("orin-nano"), CSI) and ENV not in overlay(board("orin-nano"), EDGE_TOML)


@pytest.mark.parametrize(
    ("row", "config", "sensor", "says"),
    [
        ("orin-nano", CSI, "imx219", "imx219-a, imx219-c, imx219-dual"),
        ("orin-nano", CSI, 'x"\nVEILSIGHT_BOARD=y', "choose one of"),
        ("orin-nano", EDGE_TOML, "imx219-a", 'source = "csi://0"'),
        ("orin-nano", CSI.replace("csi://0", "csi://1"), "imx219-a", "imx219-a has csi://0"),
        ("orin-nano", CSI.replace("csi://0", "csi://2"), "imx219-dual", "csi://0 and csi://1"),
        ("agx-orin", CSI, "imx219-a", "no names of jetson-io are known for agx-orin"),
    ],
)
def test_a_sensor_that_cannot_be_is_refused(row: str, config: str, sensor: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        csi_files(board(row), [config], sensor)


def test_jetson_io_and_two_slots_are_refused_together() -> None:
    with pytest.raises(ConfigError, match="--csi-sensor with --ab"):
        overlay(board("orin-nano"), CSI + EDGE_TOML_AB, keyring=CERT, asked=Asked(csi_sensor="imx219-a"))


def test_a_csi_camera_without_the_option_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "edge.toml").write_text(CSI)
    command = ["--board", "orin-nano", "--camera-config", str(tmp_path / "edge.toml"), "--out"]
    assert main([*command, str(tmp_path / "a")]) == 0
    assert "no --csi-sensor" in capsys.readouterr().out
    assert main([*command, str(tmp_path / "b"), "--csi-sensor", "imx219-a"]) == 0
    assert "no --csi-sensor" not in capsys.readouterr().out


# --- one image for many devices ---------------------------------------------------------------------------------------


def test_an_image_for_many_devices_names_none(tmp_path: Path) -> None:
    write(board("orin-nano"), tmp_path / "out", EDGE_TOML, asked=Asked(per_device=True))
    root = tmp_path / "out/overlay"
    document = tomllib.loads((root / "etc/veilsight/edge.toml").read_text())
    assert document["device"]["camera"] == f"camera-{MARK}"
    assert document == {**tomllib.loads(EDGE_TOML), "device": document["device"]}
    assert re.fullmatch(r"veilsight-[a-z0-9-]{1,42}\n", (root / FILE).read_text())
    assert FILE not in overlay(board("orin-nano"), EDGE_TOML)


def of_one_device(content: Mapping[str, bytes]) -> list[str]:
    """Names of files that must be made on the device, so that no two have the same."""
    own = re.compile(r"(^|/)(machine-id|random-seed|ssh_host_[^/]*|[^/]*\.key|ledger[^/.]*|outbox[^/.]*)$")
    named = [name for name in content if own.search(name) or "var/lib/veilsight" in name]
    return named + [name for name, data in content.items() if re.search(b"-----BEGIN [A-Z ]*PRIVATE KEY", data)]


@pytest.mark.parametrize("name", [row.name for row in BOARDS])
@pytest.mark.parametrize("many", [False, True])
def test_no_image_holds_what_is_one_devices_own(name: str, many: bool, tmp_path: Path) -> None:
    write(board(name), tmp_path / "out", EDGE_TOML, asked=Asked(per_device=many))
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert files and not of_one_device({path.as_posix(): path.read_bytes() for path in files})


def test_no_package_holds_what_is_one_devices_own(tmp_path: Path) -> None:
    packages = sorted(make_packages(tmp_path).glob("*.deb"))
    files = {f"{deb.name}/{name}": entry.data for deb in packages for name, entry in unpack(deb).files.items()}
    assert len(packages) == 4 and not of_one_device(files)
    planted = {"a/etc/machine-id": b"", "a/device.key": b"", "a/x.pem": b"-----BEGIN EC PRIVATE KEY-----"}
    assert of_one_device(files | planted) == [*planted], "it would be found"


@pytest.mark.parametrize(
    "text",
    [
        EDGE_TOML.replace('camera = "camera" ', "camera='camera'"),
        EDGE_TOML.replace('camera = "camera" ', '\tcamera =\t"camera"'),
        '# camera = "camera"\n' + EDGE_TOML,
        '[scene]\ncamera = "camera"\n' + EDGE_TOML,
    ],
)
def test_the_cameras_name_is_found_however_it_is_written(text: str) -> None:
    changed = tomllib.loads(per_device_config(text, "x"))
    before = tomllib.loads(text)
    assert changed.pop("device")["camera"] == f"camera-{MARK}" and before.pop("device")["camera"] == "camera"
    assert changed == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            EDGE_TOML.replace('"mqtt://127.0.0.1:1883"', '"mqtts://b"\ncert = "c.pem"\nkey = "k.pem"'),
            "same private key",
        ),
        (EDGE_TOML.replace('camera = "camera"', f'camera = "{"c" * 53}"'), "53 characters"),
        ('device = { site = "s", camera = "camera" }\n', "on a line of its own"),
        ('[device]\nsite = "s"\n"camera" = "camera"\n', "on a line of its own"),
    ],
)
def test_a_configuration_that_many_devices_cannot_share_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        per_device_config(text, "edge.toml")
