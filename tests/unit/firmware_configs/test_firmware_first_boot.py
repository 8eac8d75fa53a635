"""The first boots of a board: power mode, CSI sensor and names; one restart for each reason, and never a second."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from edge_runtime.config import load_config
from firmware_configs.boards import board
from firmware_configs.debian import units
from firmware_configs.image import EDGE_TOML, Asked, overlay
from tests.support.services import PATIENCE_S
from wire.errors import ConfigError

TABLE = (
    "< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=2 NAME=15W >\n< POWER_MODEL ID=3 NAME=7W >\n"
)
# Answers as owners quote it: a switch that needs a restart asks, takes YES or yes alone, and calls all else bad input.
NVPMODEL = """\
#!/bin/bash
cd {place}
kind=$(<kind) mode=$(<mode)
echo "nvpmodel $*" >>log
if [[ $1 == -q ]]; then
    [[ $mode ]] && printf 'NV Power Mode: %s\\n%s\\n' "$mode" 2 || echo "NVPM WARN: power mode is not set!"
    exit 0
fi
name=$(sed -n "s/^< POWER_MODEL ID=$2 NAME=\\([^ ]*\\) >/\\1/p" conf)
case $kind in
    live) echo "$name" >mode; exit 0 ;;
    liar) exit 0 ;;
    fails) echo "NVPM ERROR: Error writing 408000000 to /sys/x: 22" >&2; exit 1 ;;
esac
echo "NVPM WARN: Golden image context is already created"
echo "NVPM WARN: Reboot required for changing to this power mode: $2"
echo "NVPM WARN: DO YOU WANT TO REBOOT NOW? enter YES/yes to confirm:"
read -r answer
if [[ $answer != YES && $answer != yes ]]; then
    echo "NVPM ERROR: bad input!"
    echo "NVPM ERROR: optMask is 1, no request for power mode"
    exit 255
fi
echo "answered yes" >>log
[[ $kind != refuses ]] || {{ echo "NVPM ERROR: failed to write status"; exit 1; }}
echo "NVPM WARN: rebooting"
[[ $kind == never ]] || echo "$name" >pending
[[ $kind != killed ]] || exit 1
"""


class Machine:
    """A board that boots: what its units' scripts see, and what they did."""

    def __init__(
        self, place: Path, kind: str, mode: str = "MAXN", wanted: str = "15W", disk: str = "ext2/ext3"
    ) -> None:
        self.place, self.wanted = place, wanted
        place.mkdir()
        for name, text in {"kind": kind, "mode": mode, "conf": TABLE, "log": ""}.items():
            (place / name).write_text(text + ("" if name == "conf" else "\n"))
        self.state = place / "state of the slot"
        self.state.mkdir()
        self._tool("nvpmodel", NVPMODEL.format(place=shlex.quote(str(place))))
        self._tool("systemctl", f'#!/bin/bash\necho "systemctl $*" >>{shlex.quote(str(place / "log"))}\n')
        self._tool("stat", f"#!/bin/bash\necho {disk}\n")

    def _tool(self, name: str, text: str) -> None:
        (self.place / "bin").mkdir(exist_ok=True)
        (self.place / "bin" / name).write_text(text)
        (self.place / "bin" / name).chmod(0o755)

    def boot(self, wish: str = "") -> subprocess.CompletedProcess[str]:
        """One boot: what was pending holds, and the power unit runs once."""
        pending, run = self.place / "pending", self.place / "run"
        if pending.exists():
            (self.place / "mode").write_text(pending.read_text())
            pending.unlink()
        (self.place / "log").write_text("")
        run.mkdir(exist_ok=True)
        (run / "restart").write_text(wish)
        script = units().files["opt/veilsight/bin/power-mode"].data.decode()
        own = {"NVPMODEL_CONF": str(self.place / "conf"), "NVPMODEL": str(self.place / "bin/nvpmodel")}
        own |= {"STATE_DIRECTORY": str(self.state), "RUNTIME_DIRECTORY": str(run)}
        return subprocess.run(
            ["bash", "-c", script],
            env={"PATH": f"{self.place}/bin:/usr/bin:/bin", "VEILSIGHT_POWER_MODE": self.wanted, **own},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    @property
    def mode(self) -> str:
        return (self.place / "mode").read_text().strip()

    @property
    def log(self) -> list[str]:
        return (self.place / "log").read_text().splitlines()

    @property
    def restarted(self) -> bool:
        return "systemctl --no-block reboot" in self.log


# --- the power mode ---------------------------------------------------------------------------------------------------


def test_the_power_mode_is_found_by_name(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "a", "live")
    assert machine.boot().returncode == 0
    assert machine.mode == "15W" and "nvpmodel -m 2" in machine.log and not machine.restarted
    again = machine.boot()
    assert again.returncode == 0 and machine.log == ["nvpmodel -q"], "what is right is not set again"


def test_a_name_that_the_board_has_not_is_said_with_those_that_it_has(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "a", "live", wanted="10W")
    done = machine.boot()
    assert done.returncode == 1 and "0 MAXN, 2 15W, 3 7W" in done.stderr and not machine.restarted


@pytest.mark.parametrize("kind", ["reboot", "killed"])
def test_a_mode_that_needs_a_restart_gets_one(tmp_path: Path, kind: str) -> None:
    """killed: nvpmodel notes the mode, and its own restart fails in the unit's sandbox."""
    machine = Machine(tmp_path / "a", kind)
    first = machine.boot()
    assert first.returncode == 0 and machine.restarted and "15W needs a restart" in first.stderr
    assert machine.log.count("answered yes") == 1
    second = machine.boot()
    assert second.returncode == 0 and machine.mode == "15W" and not machine.restarted
    assert not [*machine.state.iterdir()], "the next change may restart the board again"


def test_a_mode_that_was_never_set_is_set(tmp_path: Path) -> None:
    """nvpmodel's own service cannot answer its question, and leaves the board without a mode."""
    machine = Machine(tmp_path / "a", "reboot", mode="")
    machine.boot()
    assert machine.restarted
    assert machine.boot().returncode == 0 and machine.mode == "15W"


def test_a_mode_that_never_takes_restarts_the_board_once(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "a", "never")
    assert machine.boot().returncode == 0 and machine.restarted
    for _ in range(3):
        done = machine.boot()
        assert done.returncode == 1 and not machine.restarted and "answered yes" not in machine.log
        assert "asked for again; not once more" in done.stderr and "nvpmodel -q" in done.stderr
    machine.wanted = "7W"
    assert machine.boot().returncode == 0 and machine.restarted, "another mode is another reason"
    assert machine.boot().returncode == 1 and not machine.restarted
    machine.wanted = "15W"
    assert machine.boot().returncode == 1 and not machine.restarted, "two that never take do not take turns for ever"


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("liar", "nvpmodel took 15W, and the board is in 'MAXN'"),
        ("fails", "ended with status 1: NVPM ERROR: Error writing"),
        ("refuses", "ended with status 1; not starting anew"),
    ],
)
def test_an_nvpmodel_that_fails_is_said_and_restarts_nothing(tmp_path: Path, kind: str, says: str) -> None:
    machine = Machine(tmp_path / "a", kind)
    for _ in range(2):
        done = machine.boot()
        assert done.returncode == 1 and not machine.restarted
    assert says in Machine(tmp_path / "b", kind).boot().stderr


@pytest.mark.parametrize("disk", ["tmpfs", "overlayfs", "ramfs"])
def test_without_a_lasting_note_there_is_no_restart(tmp_path: Path, disk: str) -> None:
    """Else the board would start anew for ever: each boot would find no note of the one before."""
    machine = Machine(tmp_path / "a", "reboot", disk=disk)
    done = machine.boot()
    assert done.returncode == 1 and not machine.restarted and "does not outlive a restart" in done.stderr
    assert "answered yes" not in machine.log


def test_a_note_that_cannot_be_written_is_no_restart(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "a", "reboot")
    (machine.state / "restarted").mkdir()  # nothing can be written there, even by root
    done = machine.boot()
    assert done.returncode == 1 and not machine.restarted and "cannot be written" in done.stderr


def test_a_new_sensor_and_a_new_mode_share_a_restart(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "a", "reboot")
    assert machine.boot("CSI sensor Camera IMX219-A\n").returncode == 0 and machine.restarted
    assert machine.boot().returncode == 0 and not machine.restarted and machine.mode == "15W"


def test_a_sensor_that_is_never_there_restarts_the_board_once(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "a", "live")
    assert machine.boot("CSI sensor x\n").returncode == 0 and machine.restarted
    done = machine.boot("CSI sensor x\n")
    assert done.returncode == 1 and not machine.restarted and "for 'CSI sensor x'" in done.stderr


# --- the CSI sensor ---------------------------------------------------------------------------------------------------

EXTLINUX = """\
TIMEOUT 30
DEFAULT primary

MENU TITLE L4T boot options

LABEL primary
      MENU LABEL primary kernel
      LINUX /boot/Image
      INITRD /boot/initrd
      APPEND ${cbootargs} root=PARTUUID=0 rw rootwait

# LABEL backup
"""
LIST = """\
Header 1 [default]: Jetson 40pin Header
  Available hardware modules:
  1. Adafruit UDA1334A
Header 2: Jetson 24pin CSI Connector
  Available hardware modules:
  1. Camera IMX219 Dual
  2. Camera IMX219-A
  3. Camera IMX219-A and IMX477-C
Header 3: Jetson M.2 Key E Slot
  No hardware configurations found!
"""
ENTRY = """
LABEL JetsonIO
    MENU LABEL Custom Header Config: <CSI {name}>
    LINUX /boot/Image
    FDT /boot/dtb/kernel_tegra234-p3768-0000+p3767-0005-nv.dtb
    APPEND ${{cbootargs}} root=PARTUUID=0 rw rootwait
    OVERLAYS /boot/{overlay}
"""


def csi(root: Path, name: str = "Camera IMX219-A", kind: str = "works") -> subprocess.CompletedProcess[str]:
    """Run the CSI step on a root file system with a jetson-io that answers as NVIDIA's does."""
    extlinux, tool = root / "boot/extlinux/extlinux.conf", root / "jetson-io"
    extlinux.parent.mkdir(parents=True, exist_ok=True)
    if not extlinux.exists():
        extlinux.write_text(EXTLINUX)
    (root / "run").mkdir(exist_ok=True)
    (root / "list").write_text(LIST)
    entry = shlex.quote(ENTRY.format(name=name, overlay="none.dtbo" if kind == "no overlay" else "imx219.dtbo"))
    (root / "boot/imx219.dtbo").write_text("overlay")
    at = shlex.quote(str(extlinux))
    done = {"fails": "exit 1", "nothing": ":"}
    write = f"printf %s {entry} >>{at}; sed -i 's/^DEFAULT .*/DEFAULT JetsonIO/' {at}"
    tool.write_text(
        f'#!/bin/bash\necho "$*" >>{shlex.quote(str(root / "log"))}\n'
        f"[[ $1 != -l ]] || {{ cat {shlex.quote(str(root / 'list'))}; exit; }}\n"
        f"{done.get(kind, write)}\necho 'Reboot system to reconfigure.'\n"
    )
    tool.chmod(0o755)
    script = units().files["opt/veilsight/bin/csi-overlay"].data.decode()
    own = {"CSI_ROOT": str(root), "JETSON_IO": str(tool), "RUNTIME_DIRECTORY": str(root / "run"), "VEILSIGHT_CSI": name}
    return subprocess.run(
        ["bash", "-c", script],
        env={"PATH": "/usr/bin:/bin", **own},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_jetson_io_is_told_of_the_sensor_once(tmp_path: Path) -> None:
    root = tmp_path / "a root"
    first = csi(root)
    assert first.returncode == 0, first.stderr
    assert (root / "log").read_text().splitlines() == ["-l", "-n 2=Camera IMX219-A"]
    assert (root / "run/restart").read_text() == "CSI sensor Camera IMX219-A\n"
    (root / "run/restart").unlink()
    again = csi(root)
    assert again.returncode == 0 and "is configured" in again.stdout
    assert not (root / "run/restart").exists() and (root / "log").read_text().count("\n") == 2


def test_an_entry_of_another_sensor_or_one_that_is_not_booted_is_not_enough(tmp_path: Path) -> None:
    csi(tmp_path / "a", "Camera IMX219 Dual")
    assert csi(tmp_path / "a").returncode == 0 and "-n 2=Camera IMX219-A\n" in (tmp_path / "a/log").read_text()
    csi(tmp_path / "b")
    extlinux = tmp_path / "b/boot/extlinux/extlinux.conf"
    text = extlinux.read_text().replace("DEFAULT JetsonIO", "DEFAULT primary")
    extlinux.write_text(text.replace("# LABEL backup", "      OVERLAYS /boot/imx219.dtbo"))  # of something else
    csi(tmp_path / "b")
    assert (tmp_path / "b/log").read_text().count("-n 2=") == 2


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("Camera IMX999", "works", "jetson-io has no 'Camera IMX999'; it has: .*Camera IMX219-A;"),
        ("Camera IMX219", "works", "jetson-io has no 'Camera IMX219';"),  # the start of a name is no name
        ("Camera IMX219-A", "fails", "failed; look at the lines above"),
        ("Camera IMX219-A", "nothing", "does not boot 'Camera IMX219-A' by default"),
        ("Camera IMX219-A", "no overlay", "does not boot 'Camera IMX219-A' by default"),
    ],
)
def test_a_jetson_io_that_does_not_do_it_restarts_nothing(tmp_path: Path, name: str, kind: str, says: str) -> None:
    done = csi(tmp_path / "a", name, kind)
    assert done.returncode == 1 and re.search(says, done.stderr), done.stderr
    assert not (tmp_path / "a/run/restart").exists()


# --- names of its own -------------------------------------------------------------------------------------------------


def identity(root: Path, serial: bytes | None) -> subprocess.CompletedProcess[str]:
    """Run the step on a root file system; hostname says what it is called, and is told another name."""
    node = root / "proc/device-tree/serial-number"
    node.parent.mkdir(parents=True, exist_ok=True)
    if serial is not None:
        node.write_bytes(serial)
    (root / "bin").mkdir(exist_ok=True)
    running = shlex.quote(str(root / "running"))
    (root / "bin/hostname").write_text(f"#!/bin/bash\n[[ $# == 0 ]] && cat {running} || echo $1 >{running}\n")
    (root / "bin/hostname").chmod(0o755)
    if not (root / "running").exists():
        (root / "running").write_text("localhost\n")
    return subprocess.run(
        ["bash", "-c", units().files["opt/veilsight/bin/identity"].data.decode()],
        env={"PATH": f"{root}/bin:/usr/bin:/bin", "IDENTITY_ROOT": str(root)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def flashed(root: Path, config: str = EDGE_TOML, further: str = "") -> Path:
    """A root file system with the overlay of an image for many devices."""
    more = {"door": further} if further else {}
    for name, entry in overlay(board("orin-nano"), config, more=more, asked=Asked(per_device=True)).items():
        if not entry.link:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(entry.data)
            (root / name).chmod(entry.mode)
    return root


def names(root: Path) -> tuple[str, str, str]:
    """Host name, its name in /etc/hosts, and the camera's."""
    hosts = (root / "etc/hosts").read_text()
    found = re.findall(r"(?m)^127\.0\.1\.1 (.+)$", hosts)
    assert len(found) == 1 and "127.0.0.1 localhost" in hosts
    return (
        (root / "etc/hostname").read_text().strip(),
        found[0],
        load_config(root / "etc/veilsight/edge.toml").device_camera,
    )


def test_devices_of_one_image_have_names_of_their_own(tmp_path: Path) -> None:
    found = []
    for serial in (b"1424721003456\0", b"1424721003457\0"):
        root = flashed(tmp_path / serial.decode().strip("\0"))
        done = identity(root, serial)
        assert done.returncode == 0, done.stderr
        host, known, camera = names(root)
        assert host == known == (root / "running").read_text().strip()
        assert re.fullmatch(r"veilsight-[a-z0-9-]+-[0-9a-f]{10}", host) and len(host) <= 63
        assert camera == f"camera-{host[-10:]}"
        assert serial.decode().strip("\0") not in (root / "etc/veilsight/edge.toml").read_text() + host
        found.append((host, camera))
    assert found[0] != found[1] and found[0][1] != found[1][1]


def test_a_second_boot_changes_nothing(tmp_path: Path) -> None:
    root = flashed(tmp_path / "a")
    identity(root, b"1424721003456\0")
    before = {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (root / "etc").rglob("*") if path.is_file()
    }
    assert identity(root, b"1424721003456\0").returncode == 0
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (root / "etc").rglob("*") if path.is_file()}
    assert after == before
    assert (root / "etc/veilsight/edge.toml").stat().st_mode & 0o777 == 0o640
    assert not [*root.rglob(".identity*")]


def test_a_host_name_that_nvidias_script_wrote_over_ours_is_set_right(tmp_path: Path) -> None:
    root = flashed(tmp_path / "a")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1\ttegra-ubuntu\n192.0.2.9 broker\n")
    (root / "etc/hostname").write_text("tegra-ubuntu\n")
    assert identity(root, b"1424721003456\0").returncode == 0
    assert names(root)[0].startswith("veilsight-site-camera-")
    assert "192.0.2.9 broker\n" in (root / "etc/hosts").read_text()


def test_every_camera_of_a_box_is_named_after_its_module(tmp_path: Path) -> None:
    root = flashed(tmp_path / "a", further=EDGE_TOML.replace('camera = "camera"', "camera = 'door' # two"))
    assert identity(root, b"1424721003456\0").returncode == 0
    own = names(root)[0][-10:]
    assert f"camera = 'door-{own}' # two" in (root / "etc/veilsight/cameras/door.toml").read_text()


@pytest.mark.parametrize(
    "serial",
    [None, b"", b"\0", b"0000000000000\0", b"abc", b"$(touch x)\0", b"a b c d", b"x" * 100, b"\xff\xfe\xfd\xfc"],
)
def test_without_a_serial_number_the_gate_does_not_start_under_anothers_name(
    tmp_path: Path, serial: bytes | None
) -> None:
    root = flashed(tmp_path / "a")
    done = identity(root, serial)
    assert done.returncode == 1 and "no serial number" in done.stderr and "by hand" in done.stderr
    with pytest.raises(ConfigError, match="camera"):
        load_config(root / "etc/veilsight/edge.toml")
    assert not (tmp_path / "x").exists() and not Path("x").exists()


def test_a_link_in_the_place_of_a_configuration_is_not_followed(tmp_path: Path) -> None:
    root = flashed(tmp_path / "a")
    (tmp_path / "outside.toml").write_text("@MODULE@\n")
    (root / "etc/veilsight/cameras").mkdir()
    (root / "etc/veilsight/cameras/x.toml").symlink_to(tmp_path / "outside.toml")
    assert identity(root, b"1424721003456\0").returncode == 0
    assert (tmp_path / "outside.toml").read_text() == "@MODULE@\n"
    assert (root / "etc/veilsight/cameras/x.toml").is_symlink()


@pytest.mark.parametrize("base", ["", "a b", "../x", "-x", "x" * 53, "$(id)", "veilsight-é"])
def test_a_base_that_is_no_host_name_is_refused(tmp_path: Path, base: str) -> None:
    root = flashed(tmp_path / "a")
    (root / "etc/veilsight/per-device").write_text(base + "\n")
    before = (root / "etc/hostname").read_text()
    done = identity(root, b"1424721003456\0")
    assert (
        done.returncode == 1 and "holds no host name" in done.stderr and (root / "etc/hostname").read_text() == before
    )


def test_names_come_before_the_network_and_restarts_are_of_the_slot() -> None:
    found = {name: entry.data.decode() for name, entry in units().files.items() if name.endswith(".service")}
    own = found["lib/systemd/system/veilsight-identity.service"]
    assert re.search(r"^Before=network-pre\.target basic\.target", own, re.M) and "DefaultDependencies=no" in own
    power = found["lib/systemd/system/veilsight-power.service"]
    assert re.search(r"^After=.*veilsight-csi\.service", power, re.M) and "StateDirectory=veilsight-board\n" in power
    gate = found["lib/systemd/system/veilsight-gate.service"]
    assert "veilsight-power" not in gate, "a gate that fails would ask a failed unit again at each of its starts"
    assert "ConditionPathExists=/etc/veilsight/csi.env\n" in found["lib/systemd/system/veilsight-csi.service"]
    assert "ConditionPathExists=/etc/veilsight/per-device\n" in own
    assert os.access(Path("firmware_configs/packages/units/opt/veilsight/bin/identity"), os.X_OK)
