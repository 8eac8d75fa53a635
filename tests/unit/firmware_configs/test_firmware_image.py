"""The board table and the image: complete, hardened, deterministic; nothing is run or overwritten unasked."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import onnx
import pytest

from export.install import main as install
from firmware_configs.boards import BOARDS, Board, board
from firmware_configs.image import EDGE_TOML, edge_config, main, overlay, packages, steps, write
from firmware_configs.wheels import INSTALLER, hashed, pins
from tests.support.engine_factory import make_engine, put_weights_outside
from tests.support.services import PATIENCE_S, ROOT
from wire.artifact.manifest import EngineManifest, sha256_file
from wire.artifact.signature import sign_manifest
from wire.errors import ConfigError
from wire.protocol.keys import DeviceKey

NAMES = [row.name for row in BOARDS]
SIGNER = DeviceKey(bytes(range(32)))
UNITS = "etc/systemd/system"
HASHES = ROOT / "constraints" / "edge-aarch64-hashes.txt"


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file and link under `folder`: name -> (content or target, mode)."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = (path.readlink().as_posix().encode(), 0)
        elif path.is_file():
            found[name] = (path.read_bytes(), path.stat().st_mode & 0o777)
        else:
            found[name] = (b"", path.stat().st_mode & 0o777)
    return found


@pytest.fixture(params=NAMES)
def row(request: pytest.FixtureRequest) -> Board:
    return board(request.param)


def test_there_are_four_boards() -> None:
    assert NAMES == ["orin-nano", "orin-nx", "agx-orin", "thor"]
    assert not any(row.run_on_hardware for row in BOARDS)


def test_an_unknown_board_is_refused_with_the_known_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="orin-nano, orin-nx, agx-orin, thor"):
        board("nano")
    assert main(["--board", "nano", "--out", str(tmp_path / "out")]) == 2
    assert "'nano'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "most"), [("veilsight-power", 20), ("veilsight-install", 20)])
def test_a_unit_is_exposed_to_little(name: str, most: int, tmp_path: Path) -> None:
    """Tenths of systemd's own exposure level, of 100; without a sandbox it is 96."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    write(board("orin-nano"), tmp_path / "out", EDGE_TOML, None)
    unit_file = tmp_path / "out" / "overlay" / UNITS / f"{name}.service"
    command = [analyze, "security", "--no-pager", "--offline=true", f"--threshold={most}", str(unit_file)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    if "unrecognized option" in result.stderr:
        pytest.skip("this systemd-analyze judges no file")
    assert result.returncode == 0, result.stdout[-200:] + result.stderr


def test_the_same_input_gives_the_same_bytes(row: Board, tmp_path: Path) -> None:
    write(row, tmp_path / "a", EDGE_TOML, None)
    write(row, tmp_path / "b", EDGE_TOML, None)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert str(tmp_path) not in "".join(content.decode() for content, _ in tree(tmp_path / "a").values())


def test_dry_run_writes_nothing(row: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--board", row.name, "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    assert not list(tmp_path.iterdir())
    assert row.flash_config in capsys.readouterr().out


def test_the_flash_script_runs_nothing_without_the_flag(row: Board, tmp_path: Path) -> None:
    """Every tool on its path is replaced by one that reports its call: it prints the whole plan and calls none."""
    write(row, tmp_path / "out", EDGE_TOML, None)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("tar", "sudo", "python3", "cp", "lsusb", "grep", "mkdir"):
        (tools / name).write_text(f"#!/bin/bash\ntouch {tmp_path}/called-{name}\n")
        (tools / name).chmod(0o755)
    before = tree(tmp_path)
    result = subprocess.run(
        [str(tmp_path / "out" / "flash.sh")],
        cwd=tmp_path,
        env={"PATH": f"{tools}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert tree(tmp_path) == before
    order = ["tar xf", "tar xpf", "apply_binaries.sh", "cp -rP", "l4t_initrd_flash.sh"]
    places = [result.stdout.index(word) for word in order]
    assert places == sorted(places)
    assert result.stdout.splitlines()[-1].startswith("nothing was run")


def test_the_flash_script_refuses_to_run_without_its_parts(tmp_path: Path) -> None:
    write(board("thor"), tmp_path / "out", EDGE_TOML, None)
    command = [str(tmp_path / "out" / "flash.sh"), "--run"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert result.returncode == 1
    assert "--bsp" in result.stderr


def flash(
    tmp_path: Path, release: str, *more: str, typed: str = ""
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run flash.sh --run on a made board support package whose scripts only log that they ran.

    openssl and chpasswd log what they read: the password and its hash.
    """
    write(board("orin-nano"), tmp_path / "out", EDGE_TOML, None)
    (tmp_path / "out/overlay/opt/veilsight/engine").mkdir()
    (tmp_path / "out/overlay/opt/veilsight/engine/manifest.json").write_text("{}")
    log = f'#!/bin/bash\necho "${{0##*/}} $*" >>{tmp_path}/log\n'
    l4t = tmp_path / "made" / "Linux_for_Tegra"
    rootfs = tmp_path / "made" / "rootfs" / "etc"
    rootfs.mkdir(parents=True)
    made = {
        l4t / "tools/l4t_flash_prerequisites.sh": log,
        l4t / "tools/l4t_create_default_user.sh": log,
        tmp_path / "tools/openssl": log + f"cat >{tmp_path}/hashed\necho '$6$salt$hash'\n",
        tmp_path / "tools/chpasswd": log + f"cat >{tmp_path}/set\n",
        l4t / "apply_binaries.sh": log + f"echo '# {release}, GCID: 1' >rootfs/etc/nv_tegra_release\n",
        l4t / "tools/kernel_flash/l4t_initrd_flash.sh": log,
        l4t / "rootfs/README": "",
        tmp_path / "tools/lsusb": log,
        tmp_path / "tools/sudo": '#!/bin/bash\nexec "$@"\n',
        tmp_path / "tools/python3": log + f"mkdir -p {tmp_path}/unpacked/wheels\ntouch $_/a.whl\n",
        tmp_path / "checkout/setup.py": "",
    }
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    subprocess.run(["tar", "cf", tmp_path / "bsp.tar", "-C", tmp_path / "made", "Linux_for_Tegra"], check=True)
    subprocess.run(["tar", "cf", tmp_path / "rootfs.tar", "-C", tmp_path / "made/rootfs", "etc"], check=True)
    options = ["--bsp", "bsp.tar", "--rootfs", "rootfs.tar", "--source", "checkout", "--work", "unpacked"]
    result = subprocess.run(
        [str(tmp_path / "out" / "flash.sh"), "--run", *options, *more],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}/tools:/usr/bin:/bin"},
        input=typed,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    log_file = tmp_path / "log"
    return result, log_file.read_text().splitlines() if log_file.exists() else []


def test_with_run_the_script_copies_the_overlay_before_it_flashes(tmp_path: Path) -> None:
    result, log = flash(tmp_path, "R36 (release), REVISION: 4.4")
    assert result.returncode == 0, result.stderr
    order = ["l4t_flash_prerequisites.sh", "apply_binaries.sh", *["python3"] * 3, "lsusb", "l4t_initrd_flash.sh"]
    assert [line.split()[0] for line in log] == order
    downloads = [line for line in log if " pip download " in line or " pip install " in line]
    assert len(downloads) == 2 and all("--require-hashes" in line and "--no-deps" in line for line in downloads)
    assert "pip wheel --quiet --no-deps --no-index --no-build-isolation" in log[4]
    assert "-c bootloader/generic/cfg/flash_t234_qspi.xml --showlogs --network usb0 jetson-orin-nano-devkit" in log[-1]
    unpacked = tmp_path / "unpacked" / "Linux_for_Tegra" / "rootfs"
    assert (unpacked / "opt/veilsight/wheels/a.whl").is_file()
    assert (unpacked / UNITS / "multi-user.target.wants/veilsight-gate.service").is_symlink()
    assert (unpacked / "opt/veilsight/bin/install").stat().st_mode & 0o777 == 0o755
    assert (unpacked / "etc").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("way", ["file", "typed"])
def test_the_admins_password_is_on_no_command_line(tmp_path: Path, way: str) -> None:
    secret = "it's a 'secret' $HOME \\n"
    (tmp_path / "password").write_text(secret + "\n")
    more = ["--admin", "ops", *(["--password-file", "password"] if way == "file" else [])]
    result, log = flash(tmp_path, "R36 (release), REVISION: 4.4", *more, typed=secret + "\n")
    assert result.returncode == 0, result.stderr
    assert "secret" not in "\n".join(log) + result.stdout
    assert (tmp_path / "hashed").read_text() == secret + "\n"
    assert (tmp_path / "set").read_text() == "ops:$6$salt$hash\n"
    made = next(line for line in log if line.startswith("l4t_create_default_user.sh -u ops -p "))
    throwaway = made.split()[4]
    assert len(throwaway) >= 20 and "--accept-license" in made
    names = [line.split()[0] for line in log]
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
    (tmp_path / "empty").touch()
    result, log = flash(tmp_path, "R36 (release), REVISION: 4.4", *more, typed="\n")
    assert result.returncode != 0 and says in result.stderr
    assert log == []


def test_every_package_is_pinned_to_the_hashes_of_its_files(row: Board) -> None:
    found = overlay(row, EDGE_TOML, None)
    lines = found["opt/veilsight/requirements.txt"].data + found["opt/veilsight/installer.txt"].data
    assert len(lines.decode().splitlines()) == len(packages(row, EDGE_TOML)["pip"]) + 1
    for line in lines.decode().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9_-]+==[0-9.]+( --hash=sha256:[0-9a-f]{64})+", line), line


def test_each_python_of_a_board_has_a_wheel_of_every_package() -> None:
    """By the tags in the names of the wheels whose hashes are known."""
    names = [line.split()[1] for line in HASHES.read_text().splitlines() if not line.startswith("#")]
    for version in {row.python.replace(".", "") for row in BOARDS}:
        for pin in [*pins(), INSTALLER]:
            name, _, number = pin.lower().replace("-", "_").partition("==")
            tags = [each.split("-")[2:4] for each in names if each.lower().startswith(f"{name}-{number}-")]
            assert any(
                python == f"cp{version}" or "py3" in python or (abi == "abi3" and int(python[3:]) <= int(version[1:]))
                for python, abi in tags
            ), (pin, version)


def test_a_package_without_a_known_hash_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no hash of numpy==1\.26\.5; make the file again"):
        hashed(["numpy==1.26.5"])


def test_another_release_is_never_flashed(tmp_path: Path) -> None:
    result, log = flash(tmp_path, "R36 (release), REVISION: 3.0")
    assert result.returncode != 0
    assert not any("l4t_initrd_flash" in line for line in log)


def test_the_script_runs_the_steps_of_the_plan(row: Board, tmp_path: Path) -> None:
    write(row, tmp_path / "out", EDGE_TOML, None)
    plan = json.loads((tmp_path / "out" / "flash_plan.json").read_text())
    assert plan["board"]["l4t"] == row.l4t
    assert plan["board"]["run_on_hardware"] is False
    assert [step["run"] for step in plan["steps"]] == [list(step.run) for step in steps(row)]
    script = (tmp_path / "out" / "flash.sh").read_text()
    assert "@" not in script.replace('"$@"', "")
    subprocess.run(["bash", "-n", str(tmp_path / "out" / "flash.sh")], check=True, timeout=PATIENCE_S)


@pytest.mark.parametrize("kind", ["file", "full folder"])
def test_nothing_is_overwritten(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine").write_text("mine")
    before = tree(tmp_path)
    assert main(["--board", "thor", "--out", str(out)]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert tree(tmp_path) == before


def test_an_unreadable_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing.toml"):
        edge_config(tmp_path / "missing.toml")
    (tmp_path / "bad.toml").write_text("[device\n")
    with pytest.raises(ConfigError, match="bad.toml.*line 1"):
        edge_config(tmp_path / "bad.toml")
    (tmp_path / "unknown.toml").write_text(EDGE_TOML + '\n[colour]\nname = "red"\n')
    with pytest.raises(ConfigError, match="colour"):
        edge_config(tmp_path / "unknown.toml")
    unsigned = "".join(line for line in EDGE_TOML.splitlines(True) if not line.startswith("signer"))
    (tmp_path / "unsigned.toml").write_text(unsigned)
    with pytest.raises(ConfigError, match=r"unsigned\.toml: \[engine\] signer is missing"):
        edge_config(tmp_path / "unsigned.toml")


def test_the_edge_process_accepts_the_template(tmp_path: Path) -> None:
    (tmp_path / "edge.toml").write_text(EDGE_TOML)
    assert edge_config(tmp_path / "edge.toml") == EDGE_TOML


def test_a_csi_camera_takes_jetpacks_opencv_and_any_other_the_wheel() -> None:
    row = board("orin-nano")
    csi = EDGE_TOML.replace('source = "0"', 'source = "csi://0"')
    assert tomllib.loads(csi)["camera"]["source"] == "csi://0"
    assert b"opencv" not in overlay(row, csi, None)["opt/veilsight/requirements.txt"].data
    assert b"nvidia-opencv" in overlay(row, csi, None)["opt/veilsight/apt.txt"].data
    assert b"opencv" in overlay(row, EDGE_TOML, None)["opt/veilsight/requirements.txt"].data


def test_an_engine_that_differs_from_its_manifest_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = tmp_path / "engine"
    engine.mkdir()
    (engine / "manifest.json").write_text("{}")
    sign_manifest(engine, SIGNER)
    command = ["--board", "thor", "--out", str(tmp_path / "out"), "--engine", str(engine)]
    assert main([*command, "--signer", SIGNER.public.hex]) == 2
    assert "manifest.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_engine_that_the_signer_did_not_sign_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_engine(tmp_path / "engine")
    command = ["--board", "thor", "--out", str(tmp_path / "out"), "--engine", str(tmp_path / "engine")]
    assert main(command) == 2
    assert "Give the public key of its signer" in capsys.readouterr().err
    assert main([*command, "--signer", SIGNER.public.hex]) == 2
    assert "no signature can be read" in capsys.readouterr().err
    sign_manifest(tmp_path / "engine", DeviceKey(bytes(32)))
    assert main([*command, "--signer", SIGNER.public.hex]) == 2
    assert "not the signature of" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    sign_manifest(tmp_path / "engine", SIGNER)
    assert main([*command, "--signer", SIGNER.public.hex]) == 0


def test_the_overlay_contains_the_whole_engine(tmp_path: Path) -> None:
    make_engine(tmp_path / "engine")
    put_weights_outside(tmp_path / "engine")
    sign_manifest(tmp_path / "engine", SIGNER)
    (tmp_path / "engine" / "engine.json").write_text("{}")  # made on another device: not copied
    found = overlay(board("thor"), EDGE_TOML, tmp_path / "engine", SIGNER.public)
    parts = ["certificate.json", "decide.onnx", "decide.weights", "encode.onnx", "encode.weights", "manifest.json"]
    parts += ["manifest.sig", "noise_table.bin"]
    assert [name for name in found if "/engine/" in name] == [f"opt/veilsight/engine/{part}" for part in parts]
    assert found["etc/veilsight/signer.pub"].data.decode().strip() == SIGNER.public.hex


def test_the_device_can_install_what_the_image_contains(tmp_path: Path) -> None:
    """The overlay's own configuration, engine and key, at the paths that they name, pass the unit's first command."""
    make_engine(tmp_path / "engine", size=16)
    for part in ("encode", "decide"):
        model = onnx.load(tmp_path / "engine" / f"{part}.onnx")
        (tmp_path / "engine" / f"{part}.onnx").write_bytes(model.SerializeToString(deterministic=True))
    manifest = EngineManifest.load(tmp_path / "engine")
    pinned = {part: sha256_file(tmp_path / "engine" / f"{part}.onnx") for part in ("encode", "decide")}
    dataclasses.replace(manifest, hashes={**manifest.hashes, **pinned}).save(tmp_path / "engine")
    sign_manifest(tmp_path / "engine", SIGNER)
    write(board("orin-nano"), tmp_path / "out", EDGE_TOML, tmp_path / "engine", SIGNER.public)
    root = tmp_path / "out" / "overlay"
    config = root / "etc/veilsight/edge.toml"
    text = config.read_text().replace('"/opt', f'"{root}/opt').replace('"/etc', f'"{root}/etc')
    config.chmod(0o640)
    config.write_text(text.replace('"/var', f'"{tmp_path}/var'))
    assert install(["--config", str(config)]) == 0


def power_mode(tmp_path: Path, mode: str, table: str) -> subprocess.CompletedProcess[str]:
    """Run the overlay's power-mode script over a made nvpmodel.conf; the fake nvpmodel prints its arguments."""
    (tmp_path / "nvpmodel.conf").write_text(table)
    script = overlay(board("orin-nano"), EDGE_TOML, None)["opt/veilsight/bin/power-mode"].data
    names = {"NVPMODEL_CONF": str(tmp_path / "nvpmodel.conf"), "NVPMODEL": "/bin/echo", "VEILSIGHT_POWER_MODE": mode}
    return subprocess.run(
        ["bash", "-c", script.decode()],
        env={"PATH": "/usr/bin:/bin", **names},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_the_power_mode_is_found_by_name(tmp_path: Path) -> None:
    table = "< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=2 NAME=15W >\n"
    assert power_mode(tmp_path, "15W", table).stdout == "-m 2\n"
    missing = power_mode(tmp_path, "7W", table)
    assert missing.returncode == 1
    assert "0 MAXN, 2 15W" in missing.stderr


def test_a_second_boot_installs_nothing(tmp_path: Path) -> None:
    """The installer ends at once when the environment was made from exactly these packages."""
    home = tmp_path / "veilsight"
    for name in ("bin", "wheels", "venv"):
        (home / name).mkdir(parents=True)
    script = overlay(board("orin-nano"), EDGE_TOML, None)["opt/veilsight/bin/install"].data
    (home / "bin" / "install").write_bytes(script)
    (home / "requirements.txt").write_text("numpy\n")
    (home / "wheels" / "a.whl").write_bytes(b"wheel")
    stamp = subprocess.run(["sha256sum"], input=b"numpy\nwheel", capture_output=True, check=True).stdout
    (home / "venv" / ".installed").write_bytes(stamp.rstrip(b"\n"))
    before = tree(home)
    subprocess.run(["bash", str(home / "bin" / "install")], check=True, timeout=PATIENCE_S)
    assert tree(home) == before


# --- files that the configuration names ------------------------------------------------------------------------------


def with_files(folder: Path, **broker: str) -> Path:
    """An edge.toml whose [broker] names files."""
    keys = "".join(f'{key} = "{value}"\n' for key, value in broker.items())
    text = EDGE_TOML.replace('"mqtt://127.0.0.1:1883"', '"mqtts://127.0.0.1"') + keys
    (folder / "edge.toml").write_text(text)
    return folder / "edge.toml"


def test_files_that_the_configuration_names_are_in_the_image(tmp_path: Path) -> None:
    """They were missing, without a word, and the device did not connect."""
    for name, content in (("password", "open sesame\n"), ("ca.pem", "an authority")):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
    config = with_files(tmp_path, username="me", password_file="/etc/veilsight/password", ca="ca.pem")
    assert main(["--board", "thor", "--out", str(tmp_path / "image"), "--camera-config", str(config)]) == 0
    placed = tmp_path / "image/overlay/etc/veilsight"
    assert (placed / "password").read_text() == "open sesame\n" and (placed / "ca.pem").read_text() == "an authority"
    assert {(placed / name).stat().st_mode & 0o777 for name in ("password", "ca.pem", "edge.toml")} == {0o640}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing", "No such file"),
        ("/home/me/password", "name a file in /etc/veilsight"),
        ("../password", "name a file in /etc/veilsight"),
        ("writable", "chmod 600"),
    ],
)
def test_a_file_that_the_image_cannot_hold_is_refused(
    tmp_path: Path, name: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "writable").write_text("open sesame")
    (tmp_path / "writable").chmod(0o666)
    config = with_files(tmp_path, username="me", password_file=name)
    assert main(["--board", "thor", "--out", str(tmp_path / "image"), "--camera-config", str(config)]) == 2
    said = capsys.readouterr().err
    assert says in said and "[broker] password_file" in said and "sesame" not in said
    assert not (tmp_path / "image").exists()


def test_a_camera_whose_address_cannot_be_parsed_is_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "edge.toml").write_text(EDGE_TOML.replace('source = "0"', 'source = "rtsp://me:1/Secret@10.0.0.7/x"'))
    arguments = ["--board", "thor", "--out", str(tmp_path / "image"), "--camera-config", str(tmp_path / "edge.toml")]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert "cannot be parsed" in said and "Secret" not in said and "me:" not in said


def test_the_gate_wants_the_time_to_be_set(tmp_path: Path) -> None:
    unit = overlay(board("thor"), EDGE_TOML)["etc/systemd/system/veilsight-gate.service"].data.decode()
    assert any(line.startswith("Wants=") and "time-sync.target" in line for line in unit.splitlines())
