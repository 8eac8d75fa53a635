"""The first boots of a board under a real systemd, in the units' own sandboxes: names, sensor, mode, and one restart.

nvpmodel and jetson-io are scripts that answer as owners quote them; the serial number is in the machine's device tree.
.ci/arm64 prepares what this needs.
"""

from __future__ import annotations

import json
import re
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from firmware_configs.archive import Entry
from firmware_configs.boards import board
from firmware_configs.debian import save, units
from firmware_configs.image import EDGE_TOML, Asked, overlay
from tests.support.arm64_machine import Machine, Root, make_disk, unpacked_root

pytestmark = pytest.mark.slow

BOOT_S = 300
SERIAL = "1424721003456"
CONFIG = EDGE_TOML.replace('source = "0"', 'source = "csi://0"')
# The mode that was said yes to holds from the next boot on; "never" does not hold it.
NVPMODEL = """\
#!/bin/bash
status=/var/lib/nvpmodel/status boot=$(cat /proc/sys/kernel/random/boot_id)
if [[ $1 == -q ]]; then
    read -r mode at <"$status" 2>/dev/null
    [[ $mode && $at != "$boot" ]] && echo "NV Power Mode: $mode" || echo "NV Power Mode: MAXN"
    exit 0
fi
echo "NVPM WARN: Reboot required for changing to this power mode: $2"
echo "NVPM WARN: DO YOU WANT TO REBOOT NOW? enter YES/yes to confirm:"
read -r answer
[[ $answer == YES ]] || {{ echo "NVPM ERROR: optMask is 1, no request for power mode"; exit 255; }}
echo "yes in $boot" >>/var/lib/nvpmodel/log
{hold} echo "15W $boot" >"$status"
echo "NVPM WARN: rebooting"
exit 1
"""
JETSON_IO = """\
#!/bin/bash
[[ $1 == -l ]] && printf 'Header 2: Jetson 24pin CSI Connector\\n  1. Camera IMX219-A\\n'
[[ $1 == -n ]] || exit 0
cat >/boot/extlinux/extlinux.conf <<'END'
DEFAULT JetsonIO
LABEL JetsonIO
    MENU LABEL Custom Header Config: <CSI Camera IMX219-A>
    OVERLAYS /boot/imx219-a.dtbo
END
"""
REPORT = """\
#!/bin/sh
sleep 25
for unit in identity csi power; do systemctl show -p ActiveState --value veilsight-$unit.service; done >/root/active
owner=$(stat -c %a:%U:%G /etc/veilsight/edge.toml)
camera=$(sed -n 's/^camera = "\\([^"]*\\)".*/\\1/p' /etc/veilsight/edge.toml)
{
    printf 'REPORT {"active": "%s", ' "$(tr '\\n' ' ' </root/active)"
    printf '"host": "%s", "kept": "%s", ' "$(cat /proc/sys/kernel/hostname)" "$(cat /etc/hostname)"
    printf '"known": "%s", "camera": "%s", ' "$(sed -n 's/^127.0.1.1 //p' /etc/hosts)" "$camera"
    printf '"machine": "%s", "default": "%s", ' "$(cat /etc/machine-id)" "$(head -1 /boot/extlinux/extlinux.conf)"
    printf '"yes": "%s", "modes": "%s", ' "$(wc -l </var/lib/nvpmodel/log)" "$owner"
    printf '"notes": "%s"}\\n' "$(tr '\\n' ';' </var/lib/veilsight-board/restarted 2>/dev/null)"
} >/root/report
cat /root/report
journalctl -b --no-pager -o cat -u veilsight-identity -u veilsight-csi -u veilsight-power
"""
UNIT = """\
[Unit]
After=veilsight-power.service veilsight-identity.service veilsight-csi.service
[Service]
Type=oneshot
ExecStart=/bin/sh /root/report.sh
ExecStopPost=/usr/bin/systemctl --no-block poweroff
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyAMA0
TimeoutStartSec=200
"""


def with_serial_number(tree: bytes) -> bytes:
    """A flattened device tree (Devicetree Specification 0.4, chapter 5) whose root has a serial number."""
    head = list(struct.unpack(">10I", tree[:40]))
    structure, strings = head[2], head[3]
    words, names = tree[structure : structure + head[9]], tree[strings : strings + head[8]]
    value = SERIAL.encode() + b"\0"
    entry = struct.pack(">3I", 3, len(value), len(names)) + value + b"\0" * (-len(value) % 4)
    words, names = words[:8] + entry + words[8:], names + b"serial-number\0"  # after the root's begin and empty name
    made = tree[40:structure] + words
    head[1], head[2], head[3] = 40 + len(made) + len(names), structure, 40 + len(made)
    head[8], head[9] = len(names), len(words)
    return struct.pack(">10I", *head) + made + names


def device_tree(place: Path) -> Path:
    """The device tree of the emulated machine, with a serial number as a Jetson's has."""
    dumped, made = place / "virt.dtb", place / "serial.dtb"
    command = ["qemu-system-aarch64", "-M", f"virt,dumpdtb={dumped}", "-cpu", "cortex-a76", "-smp", "4", "-m", "2048"]
    subprocess.run([*command, "-display", "none"], check=True, capture_output=True)
    made.write_bytes(with_serial_number(dumped.read_bytes()))
    return made


def provisioned(place: Path, hold: str) -> Root:
    """A root with the units' package, an image's overlay and NVIDIA's two tools."""
    root = unpacked_root(place)
    service = "etc/systemd/system"
    asked = Asked(csi_sensor="imx219-a", per_device=True)
    root.write(
        {
            **overlay(board("orin-nano"), CONFIG, asked=asked),
            "usr/sbin/nvpmodel": Entry(NVPMODEL.format(hold=hold).encode(), 0o755),
            "etc/nvpmodel.conf": Entry(b"< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=15W >\n"),
            "var/lib/nvpmodel/log": Entry(b""),
            "opt/nvidia/jetson-io/config-by-hardware.py": Entry(JETSON_IO.encode(), 0o755),
            "boot/extlinux/extlinux.conf": Entry(b"DEFAULT primary\nLABEL primary\n"),
            "boot/imx219-a.dtbo": Entry(b"overlay"),
            "root/report.sh": Entry(REPORT.encode()),
            f"{service}/report.service": Entry(UNIT.encode()),
            f"{service}/multi-user.target.wants/report.service": Entry(link=f"/{service}/report.service"),
        }
    )
    (root.path / "etc/machine-id").write_bytes(b"")  # as flash.sh leaves it
    (package,) = (path for path in save(units(), place, 1795824000) if path.suffix == ".deb")
    (root.path / "root/units.deb").write_bytes(package.read_bytes())
    root.run("dpkg", "--force-depends", "--install", "/root/units.deb")
    return root


def boot(disk: Path, tree: Path) -> tuple[dict[str, Any], list[str]]:
    """Boot until the machine switches itself off or starts anew ({} for its report), and all that it said."""
    with Machine(disk, ("-dtb", str(tree))) as machine:
        machine.process.wait(BOOT_S)
        machine.finished()
        said = [line for line in machine.console if line.startswith("REPORT ")]
    return (json.loads(said[0].removeprefix("REPORT ")) if said else {}), machine.console


@pytest.mark.parametrize("hold", ["", "false &&"], ids=["takes", "never takes"])
def test_the_first_boot_names_the_device_and_restarts_once(tmp_path: Path, hold: str) -> None:
    root, tree = provisioned(tmp_path, hold), device_tree(tmp_path)
    make_disk(root, tmp_path / "disk")
    first, words = boot(tmp_path / "disk", tree)
    assert first == {}, "the first boot starts anew, for sensor and mode\n" + "\n".join(words[-40:])
    second, words = boot(tmp_path / "disk", tree)
    said = "\n".join(words[-40:])
    assert second, "the second one does not\n" + said
    assert re.fullmatch(r"veilsight-site-camera-[0-9a-f]{6}-[0-9a-f]{10}", second["host"]), said
    assert second["host"] == second["kept"] == second["known"]
    assert second["camera"] == f"camera-{second['host'][-10:]}" and second["modes"] == "640:root:veilsight"
    assert re.fullmatch("[0-9a-f]{32}", second["machine"]), "systemd made one"
    assert second["default"] == "DEFAULT JetsonIO" and second["yes"] == "1", said
    if hold:
        assert second["active"].split() == ["active", "active", "failed"], said
        assert second["notes"] == "power mode 15W;CSI sensor Camera IMX219-A;" and "not once more" in said
    else:
        assert second["active"].split() == ["active", "active", "active"], said
        assert second["notes"] == "", said
