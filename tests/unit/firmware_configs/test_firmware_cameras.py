"""A box of several cameras: each has every unit that a camera alone has, and nothing of another's."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edge_runtime.config import load_config
from firmware_configs.boards import board
from firmware_configs.cameras import place_of
from firmware_configs.debian import units as package
from firmware_configs.hardening import Access, files
from firmware_configs.image import EDGE_TOML, EDGE_TOML_AB, main, overlay
from firmware_configs.units import ENABLED, FOLDER, SUPERVISOR, instance, template
from tests.support.services import PATIENCE_S
from tests.unit.firmware_configs.test_firmware_units import EXPOSURE, analyze, settings, units

__all__ = ["units"]  # a fixture

ONE = {f"veilsight-{name}" for name in ("gate.service", "engine.service")} | {
    f"veilsight-{name}.{kind}" for name in ("eye", "reader") for kind in ("service", "socket")
}
OWN = ("/etc/veilsight/edge.toml", "/run/veilsight/eye.sock", "/run/veilsight/reader.sock", "veilsight-gate.service")
CERT = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def text(unit: str) -> str:
    return package().files[f"{FOLDER}/{unit}"].data.decode()


def door(source: str = "1", name: str = "door", port: int = 8081, more: str = "") -> str:
    """The configuration of a further camera."""
    found = (EDGE_TOML + EDGE_TOML_AB).replace('camera = "camera"', f'camera = "{name}"{more}')
    found = found.replace('"/var/lib/veilsight', f'"/var/lib/veilsight/cameras/{name}', 2).replace(":8080", f":{port}")
    return found.replace('source = "0"', f'source = "{source}"')


def box(folder: Path, *further: tuple[str, str], first: str = EDGE_TOML + EDGE_TOML_AB) -> list[str]:
    """Write configurations; returns the options that name them."""
    options = []
    for name, content in (("edge", first), *further):
        (folder / f"{name}.toml").write_text(content)
        options += ["--camera-config", str(folder / f"{name}.toml")]
    return ["--board", "orin-nano", *options, "--out", str(folder / "image")]


@pytest.mark.parametrize("unit", sorted(ONE))
def test_a_further_cameras_unit_is_the_first_ones_with_its_own_places(unit: str) -> None:
    """Line by line: every setting of confinement is there, and every place of the first camera is gone."""
    first, further = text(unit).splitlines(), text(template(unit)).splitlines()
    assert len(first) == len(further)
    changed = [(old, new) for old, new in zip(first, further, strict=True) if old != new]
    assert all("%i" in new for _, new in changed if not new.startswith("TimeoutStartSec="))
    keys = {old.partition("=")[0] for old, _ in changed if not old.startswith("#")}
    places = {"Description", "Requires", "Wants", "After", "BindsTo", "ExecStart", "Sockets", "StateDirectory"}
    places |= {"WorkingDirectory", "BindReadOnlyPaths", "ListenSequentialPacket", "Service", "LoadCredential"}
    assert keys <= places | {"TimeoutStartSec"}
    assert not [line for line in further for own in OWN if own in line]
    names = {found for line in further for found in re.findall(r"veilsight-(?:eye|reader|engine|edge)\S*", line)}
    assert all("@%i." in name for name in names if re.search(r"\.(service|socket)$", name))


def test_no_two_cameras_share_a_socket_a_state_or_a_configuration() -> None:
    gate, eye = settings(text("veilsight-edge@.service")), settings(text("veilsight-eye@.service"))
    assert gate["ExecStart"][0].endswith("--config /etc/veilsight/cameras/%i.toml")
    assert gate["StateDirectory"] == ["veilsight/cameras/%i"]
    assert gate["Sockets"] == ["veilsight-eye@%i.socket veilsight-reader@%i.socket"]
    assert settings(text("veilsight-eye@.socket"))["Service"] == ["veilsight-edge@%i.service"]
    assert eye["BindReadOnlyPaths"] == ["/run/veilsight/cameras/%i/eye.sock"]
    assert eye["BindsTo"] == ["veilsight-edge@%i.service"]
    assert settings(text("veilsight-engine@.service"))["LoadCredential"] == ["edge.toml:/etc/veilsight/cameras/%i.toml"]


def test_one_target_starts_and_stops_the_processes_of_all_cameras() -> None:
    assert SUPERVISOR in ENABLED
    assert settings(text(SUPERVISOR))["WantedBy"] == ["multi-user.target"]
    for unit in ("veilsight-gate.service", "veilsight-edge@.service"):
        found = settings(text(unit))
        assert found["PartOf"] == [SUPERVISOR] == found["WantedBy"]


def test_the_gates_of_a_box_come_before_its_eyes_by_weight() -> None:
    """A nice value counts inside one control group; instances of a template would be in a group of their own."""
    weights = {}
    for unit in sorted(each for each in ONE if each.endswith(".service")):
        for name in (unit, template(unit)):
            found = settings(text(name))
            assert found["Slice"] == ["system.slice"], "siblings: their weights are compared"
            weights[name] = int(found.get("CPUWeight", ["100"])[0])
    gates = min(weights[name] for name in ("veilsight-gate.service", "veilsight-edge@.service"))
    assert gates > 100 > max(weight for name, weight in weights.items() if re.search("eye|reader", name))


@pytest.mark.parametrize("unit", sorted(ONE))
def test_systemd_finds_no_fault_in_the_templates(unit: str, units: Path) -> None:
    result = analyze("verify", "--man=no", "--recursive-errors=no", str(units / instance(unit, "door-2")))
    assert not [line for line in result.stderr.splitlines() if "veilsight" in line], result.stderr


def test_systemd_finds_no_fault_in_the_target(units: Path) -> None:
    result = analyze("verify", "--man=no", "--recursive-errors=no", str(units / SUPERVISOR))
    assert not [line for line in result.stderr.splitlines() if "veilsight" in line], result.stderr


@pytest.mark.parametrize("name", ["gate", "eye", "reader", "engine"])
def test_a_further_camera_is_no_more_exposed(name: str, units: Path) -> None:
    file = units / template(f"veilsight-{name}.service")
    result = analyze("security", "--offline=true", "--no-pager", str(file))
    found = re.search(r"Overall exposure level for \S+: (\d+\.\d+)", result.stdout)
    assert found, result.stdout + result.stderr
    assert float(found[1]) <= EXPOSURE[name] + 0.5


def test_the_modes_of_a_further_cameras_configuration_are_those_of_the_first(tmp_path: Path) -> None:
    command = shutil.which("systemd-tmpfiles")
    if command is None:
        pytest.skip("systemd-tmpfiles is not installed")
    rules = package().files["usr/lib/tmpfiles.d/veilsight.conf"].data.decode().replace(" root veilsight ", " - - ")
    (tmp_path / "etc/veilsight/cameras").mkdir(parents=True)
    for name in ("edge.toml", "signer.pub", "cameras/door.toml"):
        (tmp_path / "etc/veilsight" / name).write_text("")
        (tmp_path / "etc/veilsight" / name).chmod(0o666)
    (tmp_path / "rules.conf").write_text(rules)
    run = [command, "--create", f"--root={tmp_path}", str(tmp_path / "rules.conf")]
    done = subprocess.run(run, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    if done.returncode:
        pytest.skip(f"systemd-tmpfiles does not work here: {done.stderr.strip()[:100]}")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "etc/veilsight").rglob("*")}
    assert modes == {"edge.toml": 0o640, "signer.pub": 0o644, "cameras": 0o755, "door.toml": 0o640}


# --- the image


def test_an_image_of_several_cameras_has_all_of_each(tmp_path: Path) -> None:
    options = box(tmp_path, ("door", door("rtsp://u:p@192.0.2.7/s")), ("bed-2", door("csi://0", "bed", 8082)))
    assert main(options) == 0
    laid = tmp_path / "image/overlay/etc"
    assert (laid / "veilsight/edge.toml").read_text() == EDGE_TOML + EDGE_TOML_AB
    for name in ("door", "bed-2"):
        config = laid / f"veilsight/cameras/{name}.toml"
        assert config.read_text() == (tmp_path / f"{name}.toml").read_text() and config.stat().st_mode & 0o777 == 0o640
        link = laid / f"systemd/system/veilsight.target.wants/veilsight-edge@{name}.service"
        assert str(link.readlink()) == "/lib/systemd/system/veilsight-edge@.service"
    opened = {path.parent.name for path in (laid / "systemd/system").rglob("20-camera.conf")}
    assert opened == {"veilsight-eye@door.service.d", "veilsight-eye@bed-2.service.d"}
    boards = {path.parent.name for path in (laid / "systemd/system").rglob("10-board.conf")}
    assert boards == {f"veilsight-{name}.service.d" for name in ("eye", "eye@", "engine", "engine@")}
    plan = json.loads((tmp_path / "image/flash_plan.json").read_text())
    assert plan["cameras"] == [place_of(name) for name in ("", "door", "bed-2")]


def test_the_eyes_of_a_box_share_half_its_memory() -> None:
    found = overlay(board("orin-nano"), EDGE_TOML, more={"door": door(), "bed": door("2", "bed", 8082)})
    for name in ("eye", "eye@"):
        drop_in = found[f"etc/systemd/system/veilsight-{name}.service.d/10-board.conf"].data.decode()
        assert settings(drop_in)["MemoryMax"] == ["1365M"]  # 8 GB / 2 / 3
        assert [line for line in drop_in.splitlines() if line.startswith("DeviceAllow=")]


def test_a_box_of_one_camera_has_none_of_it() -> None:
    assert not [name for name in overlay(board("orin-nano"), EDGE_TOML) if "@" in name or "cameras" in name]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("door", EDGE_TOML, r"edge.toml and .*door.toml: \[device\] both are site/camera"),
        ("door", door(port=8080), r"\[health\] listen"),
        ("door", door("0"), r"\[camera\] source is the same"),
        ("Door", door(), "call it NAME.toml"),
        ("a_b", door(), "call it NAME.toml"),
        (
            "door",
            door(more='\nscene = "room"\nscene_cameras = 2').replace("scene_cameras = 2", ""),
            "count its cameras",
        ),
    ],
)
def test_a_box_whose_cameras_cannot_run_together_is_refused_before_anything_is_written(
    tmp_path: Path, name: str, content: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(box(tmp_path, (name, content))) == 2
    assert re.search(says, capsys.readouterr().err)
    assert not (tmp_path / "image").exists()


def test_a_scene_with_two_numbers_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = (EDGE_TOML + EDGE_TOML_AB).replace("[device]", '[device]\nscene = "room"\nscene_cameras = 2')
    assert main(box(tmp_path, ("door", door(more='\nscene = "room"\nscene_cameras = 3')), first=first)) == 2
    said = capsys.readouterr().err
    assert "scene_cameras is 2 and 3" in said and "edge.toml" in said and "door.toml" in said


def test_one_file_is_not_two_cameras(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = box(tmp_path)
    assert main([*options, "--camera-config", str(tmp_path / "edge.toml")]) == 2
    assert "a name of its own" in capsys.readouterr().err


def test_files_that_a_further_camera_names_lie_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = door().replace('mqtt://127.0.0.1:1883"', 'mqtts://127.0.0.1"\nca = "ca.pem"')
    assert "ca.pem" in named
    (tmp_path / "ca.pem").write_text("an authority")
    (tmp_path / "ca.pem").chmod(0o600)
    assert main(box(tmp_path, ("door", named))) == 0
    assert (tmp_path / "image/overlay/etc/veilsight/cameras/ca.pem").read_text() == "an authority"
    assert not (tmp_path / "image/overlay/etc/veilsight/ca.pem").exists()


def test_the_device_reaches_all_its_cameras_and_brokers_and_nothing_else() -> None:
    first = EDGE_TOML.replace("mqtt://127.0.0.1:1883", "mqtts://192.0.2.9")
    second = door("rtsp://u:p@192.0.2.7/s").replace("mqtt://127.0.0.1:1883", "mqtts://192.0.2.9")
    third = door("rtsp://192.0.2.8/s", "bed").replace("mqtt://127.0.0.1:1883", "mqtts://192.0.2.10")
    rules = files([first, second, third], Access())["etc/veilsight/firewall.nft"].data.decode()
    assert set(re.findall(r"ip daddr (\S+)", rules)) == {"192.0.2.7", "192.0.2.8", "192.0.2.9", "192.0.2.10"}
    assert rules.count("192.0.2.9 tcp dport 8883") == 1
    assert set(re.findall(r"ip saddr (\S+)", rules)) == {"192.0.2.7", "192.0.2.8"}


# --- from one camera to several, and updates


def test_a_box_of_one_camera_becomes_one_of_two_and_its_own_camera_stays_as_it_was(tmp_path: Path) -> None:
    """What the second image lays over the device leaves the first camera's files, units and state untouched."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    assert main(box(tmp_path / "one")) == 0
    assert main(box(tmp_path / "two", ("door", door()))) == 0
    device = tmp_path / "device"
    shutil.copytree(tmp_path / "one/image/overlay", device, symlinks=True)
    kept = {name: (device / "etc/veilsight" / name).read_bytes() for name in ("edge.toml", "board.env")}
    for folder in ("etc/veilsight", "etc/systemd"):  # docs/several-cameras.md
        source = tmp_path / "two/image/overlay" / folder
        shutil.copytree(source, device / folder, symlinks=True, dirs_exist_ok=True, ignore=_existing_links(device))
    assert kept == {name: (device / "etc/veilsight" / name).read_bytes() for name in kept}
    first, second = (load_config(device / name) for name in (place_of(""), place_of("door")))
    assert first.device_state_dir == "/var/lib/veilsight" and first.device_key == "/var/lib/veilsight/device.key"
    assert second.device_state_dir == "/var/lib/veilsight/cameras/door"
    assert (device / "etc/systemd/system/veilsight.target.wants/veilsight-edge@door.service").is_symlink()
    assert (device / "etc/systemd/system/veilsight-eye@.service.d/10-board.conf").exists()


def _existing_links(device: Path):  # type: ignore[no-untyped-def]  # shutil's own form
    """copytree does not replace a link that is there; `cp -rP` does."""
    return lambda folder, names: [name for name in names if (Path(folder) / name).is_symlink() and "apport" in name]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("/var/lib/veilsight/cameras/door/device.key", "/etc/veilsight/door.key", r"camera door: \[device\] key"),
        ('listen = ":8081"', 'listen = ""', r"camera door: \[health\] listen is missing"),
    ],
)
def test_an_update_would_lose_nothing_of_a_further_camera(
    tmp_path: Path, old: str, new: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cert.pem").write_text(CERT)
    content = door()
    assert old in content
    options = [*box(tmp_path, ("door", content.replace(old, new))), "--ab", str(tmp_path / "cert.pem")]
    assert main(options) == 2
    assert re.search(says, capsys.readouterr().err)
    (tmp_path / "door.toml").write_text(content)
    assert main(options) == 0
