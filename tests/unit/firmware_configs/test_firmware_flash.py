"""flash.sh --run, against NVIDIA's tools that only log: one board, many boards, keys, a host that lacks something."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from firmware_configs.boards import BOARDS, board
from firmware_configs.image import EDGE_TOML, Asked, write
from tests.support.flash_host import RELEASES, Host
from tests.support.services import PATIENCE_S

UNITS = "etc/systemd/system"


def tools_of(host: Host) -> list[str]:
    """The names of what was called, in order."""
    return [line.split()[0] for line in host.log]


# --- one board --------------------------------------------------------------------------------------------------------


def test_the_script_refuses_to_run_without_its_parts(tmp_path: Path) -> None:
    result = Host(tmp_path / "a", board("thor")).run("--run", files=False)
    assert result.returncode == 1
    assert "--bsp" in result.stderr


def test_with_run_the_script_copies_the_overlay_before_it_flashes(tmp_path: Path) -> None:
    host = Host(tmp_path / 'it\'s a "place" $HOME')
    result = host.run()
    assert result.returncode == 0, result.stderr
    order = ["l4t_flash_prerequisites.sh", "apply_binaries.sh", "unshare", "mount", "chroot"]
    order += ["veilsight-engine_1_all.deb", "veilsight-units_1_all.deb", "lsusb", "l4t_initrd_flash.sh"]
    assert tools_of(host) == order
    assert host.log[4].endswith("/rootfs sh -c dpkg --install /opt/veilsight/packages/*.deb")
    assert (host.l4t / "bootloader/eks_t234.img").read_text() == "NVIDIA's sample", "none was given"
    ends = "-c bootloader/generic/cfg/flash_t234_qspi.xml --showlogs --network usb0 jetson-orin-nano-devkit internal"
    assert host.log[-1].endswith(ends)
    root = host.l4t / "rootfs"
    assert not (root / "opt/veilsight/packages").exists()
    assert (root / UNITS / "apport.service").is_symlink()
    assert (root / "etc/veilsight/edge.toml").stat().st_mode & 0o777 == 0o640
    assert (root / "etc").stat().st_mode & 0o777 == 0o755


def test_nothing_that_is_one_devices_own_is_flashed(tmp_path: Path) -> None:
    """NVIDIA's file system has host keys and a machine-id here: the device makes its own of both."""
    host = Host(tmp_path / "a")
    (host.place / "made/rootfs/var/lib/systemd").mkdir()
    assert host.run().returncode == 0
    root = host.l4t / "rootfs"
    assert (root / "etc/machine-id").read_bytes() == b"", "systemd makes one of its own where the file is empty"
    assert not [*(root / "etc/ssh").glob("ssh_host_*"), *root.glob("var/lib/*/machine-id"), *root.rglob("*.key")]
    assert not [path for path in root.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]


def test_a_file_system_that_a_gate_has_run_in_is_refused(tmp_path: Path) -> None:
    host = Host(tmp_path / "a", release="R36 (release), REVISION: 9.9")
    assert host.run().returncode != 0  # another release; what was unpacked stays
    (host.l4t / "rootfs/etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.4, GCID: 1\n")
    (host.l4t / "rootfs/var/lib/veilsight").mkdir()
    (host.l4t / "rootfs/var/lib/veilsight/device.key").write_bytes(b"k" * 32)
    again = host.run("--resume")
    assert again.returncode == 1 and "device.key is a device's own" in again.stderr
    assert not host.flashes


def test_a_run_that_broke_off_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """The drivers' script fails once: what was unpacked before is not unpacked again, and the rest is done."""
    host = Host(tmp_path / "a", release="R36 (release), REVISION: 5.0")
    first = host.run()
    assert first.returncode != 0 and "apply_binaries.sh" in host.log[-1]
    (host.l4t / "rootfs/etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.4, GCID: 1\n")
    marker = host.l4t / "rootfs/README"
    marker.write_text("of the first run\n")
    again = host.run()
    assert again.returncode == 1 and "--resume" in again.stderr
    again = host.run("--resume")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("done before") == 5 and marker.read_text() == "of the first run\n"
    assert tools_of(host).count("apply_binaries.sh") == 1 and tools_of(host)[-2:] == ["lsusb", "l4t_initrd_flash.sh"]
    assert host.run("--resume").returncode == 0 and len(host.flashes) == 2, "the flashing itself is never left out"
    (host.image / "overlay/etc/hostname").write_text("another\n")
    again = host.run("--resume")
    assert again.returncode == 1 and "not begun with this image" in again.stderr


def test_without_flash_the_root_file_system_is_made_and_no_board_is_looked_for(tmp_path: Path) -> None:
    host = Host(tmp_path / "a")
    result = host.run("--no-flash")
    assert result.returncode == 0, result.stderr
    assert "chroot" in tools_of(host) and not {"lsusb", "l4t_initrd_flash.sh"} & {*tools_of(host)}
    assert "nothing was flashed" in result.stdout


def test_another_release_is_never_flashed(tmp_path: Path) -> None:
    host = Host(tmp_path / "a", release="R36 (release), REVISION: 3.0")
    assert host.run().returncode != 0
    assert not host.flashes


@pytest.mark.parametrize("connected", [(), ("0955:7623",)])
def test_no_board_or_that_of_another_module_is_not_flashed(tmp_path: Path, connected: tuple[str, ...]) -> None:
    host = Host(tmp_path / "a", connected=connected)
    result = host.run()
    assert result.returncode == 1 and "expected 0955:7523" in result.stderr and "--module" in result.stderr
    assert not host.flashes
    assert all(name in result.stderr for name in connected), "what is connected is said"


# --- the password -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["file", "typed"])
def test_the_admins_password_is_on_no_command_line(tmp_path: Path, way: str) -> None:
    secret = "it's a 'secret' $HOME \\n"
    host = Host(tmp_path / "a")
    (host.place / "password").write_text(secret + "\n")
    more = ["--admin", "ops", *(["--password-file", "password"] if way == "file" else [])]
    result = host.run(*more, typed=secret + "\n")
    assert result.returncode == 0, result.stderr
    assert "secret" not in "\n".join(host.log) + result.stdout
    assert (host.place / "hashed").read_text() == secret + "\n"
    assert (host.place / "set").read_text() == "ops:$6$salt$hash\n"
    made = next(line for line in host.log if line.startswith("l4t_create_default_user.sh -u ops -p "))
    throwaway = made.split()[4]
    assert len(throwaway) >= 20 and "--accept-license" in made
    names = tools_of(host)
    assert names.index("openssl") < names.index("chpasswd") < names.index("l4t_initrd_flash.sh")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--admin", "ops"], "the password of ops is empty"),
        (["--admin", "ops", "--password-file", "empty"], "empty"),
        (["--admin", "ops", "--password-file", "nowhere"], "nowhere"),
        (["--admin", "ops:x"], "expected a-z"),
    ],
)
def test_no_user_without_a_name_and_a_password(tmp_path: Path, more: list[str], says: str) -> None:
    host = Host(tmp_path / "a")
    (host.place / "empty").touch()
    result = host.run(*more, typed="\n")
    assert result.returncode != 0 and says in result.stderr
    assert host.log == []


# --- the host ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "package"),
    [
        ("lsusb", "usbutils"),
        ("sshpass", "sshpass"),
        ("abootimg", "abootimg"),
        ("qemu-aarch64-static", "qemu-user-static"),
        ("xmllint", "libxml2-utils"),
        ("exportfs", "nfs-kernel-server"),
    ],
)
def test_a_tool_that_this_host_lacks_is_named_before_anything_is_done(tmp_path: Path, tool: str, package: str) -> None:
    host = Host(tmp_path / "a")
    if any(Path(folder, tool).exists() for folder in ("/usr/sbin", "/sbin")):
        pytest.skip(f"{tool} is in /usr/sbin, where flash.sh looks")
    result = host.run(path=host.own_path(tool))
    if tool == "qemu-aarch64-static" and subprocess.run(["uname", "-m"], stdout=-1).stdout == b"aarch64\n":
        pytest.skip("this host needs none")
    assert result.returncode == 1
    assert f"missing on this host: {tool} (package {package}); sudo apt-get install {package}" in result.stderr
    assert host.log == [] and not (host.place / "unpacked").exists()


def test_all_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    host = Host(tmp_path / "a")
    for tool in ("lsusb", "sshpass"):
        (host.tools / tool).unlink()
    result = host.run(path=host.own_path("lsusb"))
    found = re.search(r"missing on this host: (.*)", result.stderr)
    assert found and "lsusb (package usbutils)" in found[1] and found[1].endswith("usbutils sshpass")


@pytest.mark.parametrize("state", [None, "disabled\n"])
def test_a_host_that_does_not_run_programs_for_arm64_is_named(tmp_path: Path, state: str | None) -> None:
    if subprocess.run(["uname", "-m"], stdout=-1).stdout == b"aarch64\n":
        pytest.skip("this host is arm64")
    host = Host(tmp_path / "a")
    file = host.place / "binfmt/qemu-aarch64"
    file.unlink() if state is None else file.write_text(state)
    result = host.run()
    assert result.returncode == 1 and "does not run programs for arm64" in result.stderr
    assert "systemd-binfmt" in result.stderr and host.log == []


# --- many boards ------------------------------------------------------------------------------------------------------

MANY = Asked(per_device=True)


def test_many_boards_are_flashed_with_one_set_of_images(tmp_path: Path) -> None:
    host = Host(tmp_path / "a", asked=MANY)
    first = host.run("--massflash", "5")
    assert first.returncode == 0 and "give --resume as well" in first.stdout and len(host.flashes) == 1
    host.connect("0955:7523", "0955:7523", "0955:7523")
    result = host.run("--massflash", "5", "--resume")
    assert result.returncode == 0, result.stderr
    images, all_of_them = host.flashes
    assert images.startswith("l4t_initrd_flash.sh --no-flash --massflash 5 --external-device nvme0n1p1 ")
    assert images.endswith("jetson-orin-nano-devkit internal")
    assert all_of_them == "l4t_initrd_flash.sh --flash-only --massflash 5 --network usb0 --showlogs"
    assert "3 boards are in recovery mode" in result.stdout


def test_thors_tool_is_told_the_boards_name_each_time(tmp_path: Path) -> None:
    host = Host(tmp_path / "a", board("thor"), ("0955:7026",), RELEASES["38"], MANY)
    assert host.run("--massflash", "2").returncode == 0
    result = host.run("--massflash", "2", "--resume")
    assert result.returncode == 0, result.stderr
    images, all_of_them = host.flashes
    assert images.endswith("--no-flash --massflash 2 --network usb0 jetson-agx-thor-devkit internal")
    assert all_of_them.endswith("--network usb0 --showlogs jetson-agx-thor-devkit")


def test_the_images_of_many_boards_are_not_made_again(tmp_path: Path) -> None:
    """More boards than were said: some are taken off, and the run goes on with the images that it has."""
    host = Host(tmp_path / "a", asked=MANY)
    host.run("--massflash", "2")
    host.connect(*["0955:7523"] * 3)
    first = host.run("--massflash", "2", "--resume")
    assert first.returncode == 1 and "3 boards are in recovery mode, and --massflash is 2" in first.stderr
    assert len(host.flashes) == 1
    host.connect("0955:7523", "0955:7523")
    other = host.run("--massflash", "9", "--resume")
    assert other.returncode == 1 and "another --massflash" in other.stderr
    assert host.run("--massflash", "2", "--resume").returncode == 0
    assert [line.split()[1] for line in host.flashes] == ["--no-flash", "--flash-only"]


@pytest.mark.parametrize("more", [(), ("--massflash", "3")])
def test_with_several_boards_nobody_knows_which_one_is_taken(tmp_path: Path, more: tuple[str, ...]) -> None:
    host = Host(tmp_path / "a", asked=MANY, connected=("0955:7523",) * 2)
    result = host.run(*more)
    assert result.returncode == 1 and "2 boards are in recovery mode; leave one" in result.stderr
    assert not host.flashes
    host.connect()
    assert "hold the recovery button" in host.run(*more, "--resume").stderr


@pytest.mark.parametrize(
    ("asked", "more", "says"),
    [
        (Asked(), ("--massflash", "5"), "make it again with --per-device"),
        (MANY, ("--massflash", "0"), "1 to 99"),
        (MANY, ("--massflash", "5; id"), "1 to 99"),
        (MANY, ("--massflash", "-1"), "1 to 99"),
    ],
)
def test_many_boards_are_refused_where_they_would_be_one(
    tmp_path: Path, asked: Asked, more: tuple[str, ...], says: str
) -> None:
    host = Host(tmp_path / "a", asked=asked)
    result = host.run(*more)
    assert result.returncode == 1 and says in result.stderr and host.log == []


# --- all scripts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [row.name for row in BOARDS])
def test_shellcheck_finds_no_fault(tmp_path: Path, row: str) -> None:
    command = shutil.which("shellcheck")
    if command is None:
        pytest.skip("shellcheck is not installed")
    write(board(row), tmp_path / "out", EDGE_TOML)
    scripts = [tmp_path / "out/flash.sh", *Path("firmware_configs/packages/units/opt/veilsight/bin").iterdir()]
    done = subprocess.run(
        [command, *map(str, scripts)], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stdout
