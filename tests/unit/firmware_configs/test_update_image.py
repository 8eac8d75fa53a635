"""An image with two slots: what an update must not lose is outside of both, and the plan makes the partitions."""

from __future__ import annotations

import configparser
import re
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from firmware_configs.boards import BOARDS, board
from firmware_configs.debian import units
from firmware_configs.flash import steps
from firmware_configs.image import EDGE_TOML, EDGE_TOML_AB, main, overlay, write
from firmware_configs.two_slots import STATE, check, files
from tests.support.services import PATIENCE_S
from wire.errors import ConfigError

CERT = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
CONFIG = EDGE_TOML + EDGE_TOML_AB
ORIN = board("orin-nano")
UNITS = {name: entry.data.decode() for name, entry in units().files.items() if name.endswith(".service")}
LAYOUT = """\
<device type="nvme">
    <partition name="APP" id="1" type="data"></partition>
    <partition name="APP_b" id="2" type="data"></partition>
    <partition name="reserved" id="16" type="data"></partition>
    <partition name="secondary_gpt" type="secondary_gpt">
    </partition>
</device>
"""


def test_every_folder_of_state_is_a_partition_of_its_own() -> None:
    found = overlay(ORIN, CONFIG, keyring=CERT)
    folders = {part.folder for part in STATE}
    for text in UNITS.values():
        for name in " ".join(re.findall(r"^StateDirectory=(.+)$", text, re.MULTILINE)).split():
            kept = {*folders, "/var/lib/veilsight-board"}  # the restarts that a slot has had are that slot's
            assert any(PurePosixPath(f"/var/lib/{name}").is_relative_to(folder) for folder in kept)
    for part in STATE:
        name = subprocess.run(
            ["systemd-escape", "--path", part.folder], capture_output=True, text=True, check=True, timeout=PATIENCE_S
        ).stdout.strip()
        mount = found[f"etc/systemd/system/{name}.mount"].data.decode()
        assert f"Where={part.folder}\n" in mount and f"What=/dev/disk/by-partlabel/{part.label}\n" in mount
        assert "nosuid,nodev,noexec" in mount
        assert f"Requires=veilsight-makefs@{part.label}.service" in mount
        assert "-" not in part.label, "a unit's instance would need an escape"
    assert len({part.number for part in STATE} | {1, 2}) == len(STATE) + 2


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('state_dir = "/var/lib/veilsight"', 'state_dir = "/srv/state"', r"\[device\] state_dir is '/srv/state'"),
        ('key = "/var/lib/veilsight/device.key"', 'key = "/etc/veilsight/device.key"', r"\[device\] key"),
        ('cache = "/var/lib/veilsight-engine"', 'cache = "/opt/veilsight/cache"', r"\[engine\] cache"),
        ('listen = ":8080"', 'listen = ""', r"\[health\] listen is missing"),
    ],
)
def test_an_image_of_which_an_update_would_lose_something_is_refused(old: str, new: str, words: str) -> None:
    assert old in CONFIG
    with pytest.raises(ConfigError, match=words):
        overlay(ORIN, CONFIG.replace(old, new), keyring=CERT)


def test_a_new_unit_with_state_inside_the_slots_is_refused() -> None:
    names = overlay(ORIN, CONFIG, keyring=CERT)
    check(CONFIG, UNITS, names)
    for line in ("StateDirectory=veilsight-engine veilsight-more", "ReadWritePaths=-/var/lib/veilsight-more"):
        with pytest.raises(ConfigError, match=r"x\.service .* is '/var/lib/veilsight-more', which an update would"):
            check(CONFIG, {**UNITS, "x.service": f"[Service]\n{line}\n"}, names)


def test_a_device_with_one_slot_has_none_of_it() -> None:
    found = overlay(ORIN, EDGE_TOML)
    assert not [name for name in found if "rauc" in name or name.endswith(".mount")]
    assert not [step for step in steps(ORIN) if "add_partitions" in step.run or "ROOTFS_AB=1" in step.run]


def test_rauc_writes_and_does_not_activate() -> None:
    parser = configparser.ConfigParser()
    parser.read_string(files(ORIN, CERT)["etc/rauc/system.conf"].data.decode())
    system = parser["system"]
    assert system["activate-installed"] == "false" and system["bootloader"] == "custom"
    assert system["compatible"] == "veilsight-orin-nano-l4t-36.4.4"
    assert system["statusfile"].startswith("/var/lib/veilsight-update/")
    assert {parser[f"slot.rootfs.{k}"]["bootname"] for k in (0, 1)} == {"A", "B"}
    scripts = units().files
    for name in parser["handlers"].values():
        assert scripts[name[1:]].mode == 0o755
    assert len({files(row, CERT)["etc/rauc/system.conf"].data for row in BOARDS if row.layout_ab}) > 1


@pytest.mark.parametrize("keyring", [b"no certificate", CERT + b"-----BEGIN PRIVATE KEY-----\n"])
def test_a_keyring_is_certificates_and_no_key(keyring: bytes) -> None:
    with pytest.raises(ConfigError, match="certificates"):
        files(ORIN, keyring)


@pytest.mark.parametrize("row", [row for row in BOARDS if not row.layout_ab], ids=lambda row: row.name)
def test_a_board_without_a_known_layout_is_refused(row: object, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_bytes(CERT)
    name = getattr(row, "name")  # noqa: B009  # a parameter's type
    assert main(["--board", name, "--out", str(tmp_path / "out"), "--ab", str(tmp_path / "cert.pem")]) == 2


@pytest.mark.parametrize("row", [row for row in BOARDS if row.layout_ab], ids=lambda row: row.name)
def test_the_plan_adds_the_partitions_and_flashes_two_slots(row: object, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_bytes(CERT)
    name = getattr(row, "name")  # noqa: B009  # a parameter's type
    assert main(["--board", name, "--out", str(tmp_path / "out"), "--ab", str(tmp_path / "cert.pem")]) == 0
    plan = (tmp_path / "out/flash.sh").read_text()
    assert plan.index("add_partitions tools/kernel_flash/") < plan.index("env ROOTFS_AB=1 ROOTFS_RETRY_COUNT_MAX=3")
    flash = steps(board(name), True)[-1].run
    assert flash.count(board(name).layout_ab) == 1 and "tools/kernel_flash/flash_l4t_t234_nvme.xml" not in flash
    assert "veilsight_update" in (tmp_path / "out/flash_plan.json").read_text()


def add(tmp_path: Path, layout: str) -> tuple[int, str, str]:
    """Run the script's own function on a layout: its status, the layout afterwards, what it said."""
    out = tmp_path / "out"
    write(ORIN, out, CONFIG, keyring=CERT)
    file = tmp_path / "work/Linux_for_Tegra" / ORIN.layout_ab
    file.parent.mkdir(parents=True)
    file.write_text(layout)
    text = (out / "flash.sh").read_text()
    function = text[text.index("add_partitions() {") : text.index("random_word() {")]
    script = f'die() {{ echo "$1" >&2; exit 1; }}\nas_root() {{ "$@"; }}\nhere={out} work={tmp_path}/work\n'
    script += f"l4t=$work/Linux_for_Tegra\nset -euo pipefail\n{function}\nadd_partitions {ORIN.layout_ab}\n"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return done.returncode, file.read_text(), done.stderr


def test_the_partitions_stand_before_the_end_of_nvidias_layout(tmp_path: Path) -> None:
    code, layout, said = add(tmp_path, LAYOUT)
    assert code == 0, said
    names = re.findall(r'<partition name="(\w+)"', layout)
    assert names == ["APP", "APP_b", "reserved", *(part.label for part in STATE), "secondary_gpt"]
    assert f"<size> {STATE[0].mib << 20} </size>" in layout
    assert layout.count("</partition>") == layout.count("<partition ") == 7


@pytest.mark.parametrize(
    "layout", [LAYOUT.replace("secondary_gpt", "end"), LAYOUT + LAYOUT, LAYOUT.replace('id="16"', 'id="18"')]
)
def test_a_layout_of_another_form_is_refused(tmp_path: Path, layout: str) -> None:
    code, after, said = add(tmp_path, layout)
    assert code == 1 and after == layout and ORIN.layout_ab in said


def test_nothing_publishes_before_the_slot_may_run_and_nothing_is_called_good_before_it_is_kept() -> None:
    gate, boot, confirm = (
        UNITS[f"lib/systemd/system/veilsight-{name}.service"] for name in ("gate", "update-boot", "update-confirm")
    )
    for key in ("Requires", "After"):
        assert re.search(rf"^{key}=.*veilsight-update-boot\.service", gate, re.MULTILINE)
    assert "RemainAfterExit=yes" in boot, "once a boot, however often the gate is started"
    assert "Before=nv-l4t-bootloader-config.service" in confirm
    assert "IPAddressAllow=localhost\n" in confirm and "IPAddressDeny=any\n" in confirm
    for text in (boot, confirm):
        assert "OnFailure=veilsight-update-back.service" in text
        assert "ConditionPathExists=/etc/rauc/system.conf" in text, "a device with one slot has no use for it"
