"""The board table and the image: complete, hardened, deterministic; nothing is run or overwritten unasked."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from export.install import main as install
from firmware_configs.archive import unpack
from firmware_configs.boards import BOARDS, Board, board
from firmware_configs.debian import units
from firmware_configs.flash import steps
from firmware_configs.image import EDGE_TOML, edge_config, main, overlay, packages, write
from tests.support.debian_factory import SIGNER, make_packages
from tests.support.services import PATIENCE_S
from wire.artifact.manifest import EngineManifest
from wire.errors import ConfigError
from wire.protocol.keys import DeviceKey

NAMES = [row.name for row in BOARDS]
UNITS = "etc/systemd/system"


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


def test_the_power_unit_is_exposed_to_little(tmp_path: Path) -> None:
    """Tenths of systemd's own exposure level, of 100; without a sandbox it is 96."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    unit_file = tmp_path / "veilsight-power.service"
    unit_file.write_bytes(units().files[f"lib/systemd/system/{unit_file.name}"].data)
    command = [analyze, "security", "--no-pager", "--offline=true", "--threshold=20", str(unit_file)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    if "unrecognized option" in result.stderr:
        pytest.skip("this systemd-analyze judges no file")
    assert result.returncode == 0, result.stdout[-200:] + result.stderr


def test_the_same_input_gives_the_same_bytes(row: Board, tmp_path: Path) -> None:
    write(row, tmp_path / "a", EDGE_TOML)
    write(row, tmp_path / "b", EDGE_TOML)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert str(tmp_path) not in "".join(content.decode() for content, _ in tree(tmp_path / "a").values())


def test_dry_run_writes_nothing(row: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--board", row.name, "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    assert not list(tmp_path.iterdir())
    assert row.flash_config in capsys.readouterr().out


def test_the_flash_script_runs_nothing_without_the_flag(row: Board, tmp_path: Path) -> None:
    """Every tool on its path is replaced by one that reports its call: it prints the whole plan and calls none."""
    write(row, tmp_path / "out", EDGE_TOML)
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


def test_the_script_runs_the_steps_of_the_plan(row: Board, tmp_path: Path) -> None:
    write(row, tmp_path / "out", EDGE_TOML)
    plan = json.loads((tmp_path / "out" / "flash_plan.json").read_text())
    assert plan["board"]["l4t"] == row.l4t
    assert plan["board"]["run_on_hardware"] is False
    assert [step["run"] for step in plan["steps"]] == [list(step.run) for step in steps(row)]
    script = (tmp_path / "out" / "flash.sh").read_text()
    assert not re.search("@[A-Z_]+@", script)
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


def test_a_csi_camera_takes_jetpacks_opencv_and_any_other_ours(tmp_path: Path) -> None:
    row, csi = board("orin-nano"), EDGE_TOML.replace('source = "0"', 'source = "csi://0"')
    assert tomllib.loads(csi)["camera"]["source"] == "csi://0"
    made = make_packages(tmp_path)
    assert not any("opencv" in name for name in packages(row, csi, made, SIGNER.public).files)
    assert any("opencv" in name for name in packages(row, EDGE_TOML, made, SIGNER.public).files)
    assert b"nvidia-opencv" in overlay(row, csi)["opt/veilsight/apt.txt"].data
    assert b"nvidia-opencv" not in overlay(row, EDGE_TOML)["opt/veilsight/apt.txt"].data


def test_the_image_has_the_packages_as_they_are(tmp_path: Path) -> None:
    folder = make_packages(tmp_path)
    command = ["--board", "orin-nano", "--out", str(tmp_path / "out"), "--packages", str(folder)]
    assert main([*command, "--signer", SIGNER.public.hex]) == 0
    found = {file.name: file.read_bytes() for file in (tmp_path / "out/packages").iterdir()}
    assert found == {file.name: file.read_bytes() for file in folder.glob("*.deb")} and len(found) == 4
    plan = json.loads((tmp_path / "out/flash_plan.json").read_text())
    assert plan["packages"] == sorted(found)
    assert plan["model_id"] == f"{EngineManifest.load(tmp_path / 'engine').model_id:016x}"
    assert (tmp_path / "out/overlay/etc/veilsight/signer.pub").read_text().strip() == SIGNER.public.hex


def test_an_engine_that_the_signer_did_not_sign_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_packages(tmp_path)
    command = ["--board", "orin-nano", "--out", str(tmp_path / "out"), "--packages", str(folder)]
    assert main(command) == 2
    assert "Give the public key of its signer" in capsys.readouterr().err
    assert main([*command, "--signer", DeviceKey(bytes(32)).public.hex]) == 2
    assert "not the signature of" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        ("missing", "has 0 of veilsight-units, expected 1"),
        ("twice", "has 2 of veilsight-units, expected 1"),
        ("damaged", "is no Debian package"),
        ("other python", "is not for Python 3.12, which thor has"),
    ],
)
def test_packages_that_are_not_a_whole_set_are_refused(
    harm: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, name = make_packages(tmp_path), "orin-nano"
    (file,) = folder.glob("veilsight-units_*.deb")
    if harm == "missing":
        file.unlink()
    elif harm == "twice":
        shutil.copy(file, folder / "veilsight-units_9_all.deb")
    elif harm == "damaged":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        name = "thor"
    command = ["--board", name, "--out", str(tmp_path / "out"), "--packages", str(folder)]
    assert main([*command, "--signer", SIGNER.public.hex]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_device_can_install_what_the_image_contains(tmp_path: Path) -> None:
    """Configuration, engine and key, at the paths that they name, pass the engine unit's command."""
    folder = make_packages(tmp_path)
    write(board("orin-nano"), tmp_path / "out", EDGE_TOML, SIGNER.public)
    root = tmp_path / "out" / "overlay"
    for path, entry in unpack(next(folder.glob("veilsight-engine_*.deb"))).files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(entry.data)
    config = root / "etc/veilsight/edge.toml"
    text = config.read_text().replace('"/opt', f'"{root}/opt').replace('"/etc', f'"{root}/etc')
    config.chmod(0o640)
    config.write_text(text.replace('"/var', f'"{tmp_path}/var'))
    assert install(["--config", str(config)]) == 0


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


def test_the_gate_wants_the_time_to_be_set() -> None:
    unit = units().files["lib/systemd/system/veilsight-gate.service"].data.decode()
    assert any(line.startswith("Wants=") and "time-sync.target" in line for line in unit.splitlines())
