"""The parts of an update: what a bundle says of itself, fitting a slot, what the gate shows, and the commands."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.health import Health
from firmware_configs.update.__main__ import main
from firmware_configs.update.fit import fit_root
from firmware_configs.update.install import accept, backend
from firmware_configs.update.machine import run_command
from firmware_configs.update.published import Published, published, where
from firmware_configs.update.release import IMAGE, MOST_BYTES, NOTE, Release, read_bundle
from tests.support.update_device import EDGE_TOML, Device, make_root
from wire.errors import UpdateError

DIGEST = "ab" * 32
WANTS = "etc/systemd/system/veilsight.target.wants"
GOOD: dict[str, Any] = {"release": 7, "floor": 5, "size": 4, "sha256": DIGEST}


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


# --- what a bundle says of itself


def test_a_release_survives_its_text() -> None:
    assert Release.from_json(Release(**GOOD).to_json().encode()) == Release(**GOOD)


@pytest.mark.parametrize(
    "changed",
    [
        {"release": 0},
        {"release": 10**18},
        {"release": True},
        {"release": 7.0},
        {"release": "7"},
        {"floor": 8},
        {"floor": -1},
        {"size": 0},
        {"size": MOST_BYTES + 1},
        {"sha256": "AB" * 32},
        {"sha256": "ab" * 31},
        {"more": 1},
        {"release": None},
    ],
)
def test_another_release_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(UpdateError, match=r"release\.json"):
        Release.from_json(json.dumps({**GOOD, **changed}).encode())


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{" * 5000, b'{"release": 1e999}', b"\xff", b'{"release": 7, "release": 8}']
)
def test_a_hostile_note_is_refused(text: bytes) -> None:
    with pytest.raises(UpdateError, match=r"release\.json"):
        Release.from_json(text)


def content(folder: Path) -> Path:
    folder.mkdir()
    (folder / IMAGE).write_bytes(b"root")
    (folder / NOTE).write_text(Release(**GOOD).to_json())
    (folder / "manifest.raucm").write_text("[update]\n")
    return folder


def test_a_bundle_of_one_image_and_its_notes_is_read(tmp_path: Path) -> None:
    assert read_bundle(content(tmp_path / "bundle"), DIGEST) == Release(**GOOD)


def replace_by_link(folder: Path) -> None:
    (folder / IMAGE).rename(folder.parent / "elsewhere")
    (folder / IMAGE).symlink_to(folder.parent / "elsewhere")


def grow(folder: Path) -> None:
    (folder / IMAGE).write_bytes(b"roots")


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "hook.sh").write_text("#!/bin/sh\n"),
        lambda folder: (folder / "more").mkdir(),
        lambda folder: (folder / NOTE).unlink(),
        lambda folder: (folder / IMAGE).unlink(),
        replace_by_link,
        grow,
    ],
    ids=["hook", "folder", "no note", "no image", "link", "size"],
)
def test_a_bundle_with_more_less_or_other_files_is_refused(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    folder = content(tmp_path / "bundle")
    damage(folder)
    with pytest.raises(UpdateError):
        read_bundle(folder, DIGEST)


def test_an_image_of_another_hash_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UpdateError, match="SHA-256"):
        read_bundle(content(tmp_path / "bundle"), "cd" * 32)


def test_an_image_larger_than_the_slot_is_refused_before_anything_is_written(device: Device) -> None:
    folder = device.bundle(7).parent / "content"
    (folder / IMAGE).write_bytes(b"\0" * 5000)
    (folder / NOTE).write_text(Release(7, 0, 5000, DIGEST).to_json())
    given = {"RAUC_BUNDLE_MOUNT_POINT": str(folder), "RAUC_IMAGE_DIGEST_1": DIGEST}
    with pytest.raises(UpdateError, match="5000 bytes, slot B has 4096"):
        accept(device.machine, given)
    assert not device.record.is_bad("B")
    with pytest.raises(UpdateError, match="one image"):
        accept(device.machine, {**given, "RAUC_IMAGE_DIGEST_2": DIGEST})
    with pytest.raises(UpdateError, match="one image"):
        accept(device.machine, {})


# --- RAUC's questions


def test_rauc_is_answered_and_cannot_switch_slots(device: Device) -> None:
    def ask(*words: str) -> str:
        return backend(device.machine, words)

    assert (ask("get-current"), ask("get-primary")) == ("A", "A")
    assert (ask("get-state", "A"), ask("get-state", "B")) == ("good", "good")
    assert ask("set-state", "B", "bad") == ""
    assert ask("get-state", "B") == "bad"
    assert ask("set-state", "B", "good") == ""
    assert ask("get-state", "B") == "bad", "only a trial makes a slot good"
    with pytest.raises(UpdateError, match="after a trial alone"):
        ask("set-primary", "B")
    with pytest.raises(UpdateError, match="running"):
        ask("set-state", "A", "bad")
    for words in ([], ["get-state"], ["get-state", "C"], ["set-state", "A", "worse"], ["reboot"]):
        with pytest.raises(UpdateError, match="not a question"):
            ask(*words)
    device.jetson.set("RootfsStatusSlotA", 0xFF)
    assert ask("get-state", "A") == "bad"


def test_what_rauc_alone_installs_is_never_booted(device: Device) -> None:
    device.machine.run(["rauc", "install", str(device.bundle(7))])
    assert device.live() == "A"
    assert device.record.is_bad("B") and not device.record.trial


def test_a_rauc_that_does_not_ask_us_is_noticed(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "_rauc", lambda self, bundle: "")
    with pytest.raises(UpdateError, match=r"system\.conf must name it"):
        device.install(7)
    assert device.live() == "A"


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"TARGET": "/"}, "no partition of its own"),
        ({"SOURCE": "/dev/mmcblk0p9"}, r"slot A runs, but / is /dev/mmcblk0p9"),
    ],
)
def test_a_device_that_is_not_as_it_should_be_is_not_updated(
    device: Device, monkeypatch: pytest.MonkeyPatch, answers: dict[str, str], words: str
) -> None:
    usual = Device._run

    def run(self: Device, command: list[str], timeout_s: float = 0.0) -> str:
        found = [value for name, value in answers.items() if name in command]
        return found[0] if found else usual(self, command, timeout_s)

    monkeypatch.setattr(Device, "_run", run)
    with pytest.raises(UpdateError, match=words):
        device.install(7)
    assert device.slots["B"] == "empty"


def test_without_a_local_page_or_during_a_trial_nothing_is_installed(device: Device) -> None:
    device.install(7)
    with pytest.raises(UpdateError, match="slot B is on trial; wait"):
        device.install(8)
    device.live()
    (device.folder / "edge.toml").write_text(EDGE_TOML.replace('listen = ":8080"', ""))
    with pytest.raises(UpdateError, match=r"\[health\] listen is ''.*write listen"):
        device.install(9)


# --- the slot


def slots(tmp_path: Path) -> tuple[Path, Path]:
    """The running root, with what belongs to the device, and a new one."""
    running, new = make_root(tmp_path / "running"), make_root(tmp_path / "new")
    own = {
        "etc/veilsight/edge.toml": "secret\n",
        "etc/veilsight/cameras/door.toml": "door\n",
        "etc/systemd/system/veilsight-eye.service.d/20-camera.conf": "[Service]\n",
        "etc/ssh/ssh_host_ed25519_key": "key\n",
        "home/ops/.ssh/authorized_keys": "ssh-ed25519 AAAA\n",
    }
    for name, text in own.items():
        (running / name).parent.mkdir(parents=True, exist_ok=True)
        (running / name).write_text(text)
        (running / name).chmod(0o640)
    (running / WANTS).mkdir()
    for unit in ("edge@door", "gate"):
        link = running / WANTS / f"veilsight-{unit}.service"
        link.symlink_to(f"/lib/systemd/system/veilsight-{unit.partition('door')[0]}.service")
    with (running / "etc/passwd").open("a") as file:
        file.write("ops:x:1000:1000::/home/ops:/bin/bash\n")
    with (new / "etc/passwd").open("a") as file:
        file.write("fresh:x:985:985::/:/bin/false\n")
    return running, new


def test_a_slot_gets_the_devices_own_files_accounts_and_root(tmp_path: Path) -> None:
    running, new = slots(tmp_path)
    fit_root(running, new, "2534d15b-e6fb")
    assert (new / "etc/veilsight/edge.toml").read_text() == "secret\n"
    assert (new / "etc/veilsight/cameras/door.toml").read_text() == "door\n"
    assert os.readlink(new / f"{WANTS}/veilsight-edge@door.service") == "/lib/systemd/system/veilsight-edge@.service"
    assert not (new / f"{WANTS}/veilsight-gate.service").is_symlink(), "the image's own units are its packages'"
    assert stat.S_IMODE((new / "etc/veilsight/edge.toml").stat().st_mode) == 0o640
    assert (new / "home/ops/.ssh/authorized_keys").exists() and (new / "etc/ssh/ssh_host_ed25519_key").exists()
    passwd = (new / "etc/passwd").read_text()
    assert "ops:x:1000" in passwd and "fresh:x:985" in passwd and passwd.count("veilsight:") == 1
    assert "APPEND ${cbootargs} root=PARTUUID=2534d15b-e6fb rw" in (new / "boot/extlinux/extlinux.conf").read_text()
    assert "/dev/nvme0n1p1" in (running / "boot/extlinux/extlinux.conf").read_text()


def test_accounts_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    """The gate's state belongs to number 971: no other account may get it in the other slot."""
    running, new = slots(tmp_path)
    (new / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nother:x:971:971::/:/bin/false\n")
    with pytest.raises(UpdateError, match="number 971 to 'other', and here it belongs to 'veilsight'"):
        fit_root(running, new, "2534d15b-e6fb")


@pytest.mark.parametrize(
    "damage",
    [
        lambda new, outside: (new / "etc/veilsight").symlink_to(outside),
        lambda new, outside: (new / "home").symlink_to(outside),
        lambda new, outside: ((new / "etc/passwd").unlink(), (new / "etc/passwd").symlink_to(outside / "passwd")),
        lambda new, outside: (
            (new / "boot/extlinux/extlinux.conf").unlink(),
            (new / "boot/extlinux/extlinux.conf").symlink_to(outside / "passwd"),
        ),
    ],
    ids=["own folder", "parent", "accounts", "kernel"],
)
def test_no_link_in_an_image_leads_out_of_it(tmp_path: Path, damage: Callable[[Path, Path], object]) -> None:
    running, new = slots(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    damage(new, outside)
    with contextlib.suppress(UpdateError):
        fit_root(running, new, "2534d15b-e6fb")
    assert [path.name for path in outside.iterdir()] == ["passwd"]
    assert (outside / "passwd").read_text() == "root:x:0:0::/root:/bin/sh\n"


@pytest.mark.parametrize("text", ["", "APPEND quiet\n"])
def test_an_image_whose_kernel_names_no_root_is_refused(tmp_path: Path, text: str) -> None:
    running, new = slots(tmp_path)
    (new / "boot/extlinux/extlinux.conf").write_text(text)
    with pytest.raises(UpdateError, match="names no root="):
        fit_root(running, new, "2534d15b-e6fb")


# --- what the gate shows


def page(**changed: dict[str, float]) -> Health:
    """The gate's page, with the parts that it really has."""
    parts: dict[str, dict[str, float]] = {
        "loop": {"windows": 100, "alone": 10},
        "outbox": {"waiting": 3, "dropped": 0, "expired": 0},
        "publisher": {"refused": 0, "too_long": 0, "dropped": 0, "connected": True},
    }
    for part, values in changed.items():
        parts[part] = {**parts[part], **values}
    return Health("127.0.0.1:0", {name: (lambda name=name: parts[name]) for name in parts}, stalled_s=1e9)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, Published(97, 90, True)),
        ({"publisher": {"refused": 50}}, Published(47, 90, True)),
        ({"publisher": {"too_long": 50, "connected": False}}, Published(47, 90, False)),
        ({"outbox": {"waiting": 2000, "expired": 4}}, Published(0, 90, True)),
        ({"loop": {"alone": 100}}, Published(97, 0, True)),
    ],
)
def test_what_was_accepted_is_what_was_released_less_what_waits_or_was_lost(
    changed: dict[str, dict[str, float]], expected: Published
) -> None:
    health = page(**changed)
    try:
        assert published("127.0.0.1", health.port) == expected
    finally:
        health.close()


def test_a_page_that_is_not_the_gates_says_nothing() -> None:
    assert published("127.0.0.1", 1) is None, "nobody listens"
    strange = Health("127.0.0.1:0", {"loop": lambda: {"windows": "many"}}, stalled_s=1e9)
    try:
        assert published("127.0.0.1", strange.port) is None
    finally:
        strange.close()


@pytest.mark.parametrize(
    ("listen", "ok"), [(":8080", True), ("127.0.0.1:80", True), ("0.0.0.0:80", False), ("", False)]
)
def test_the_page_is_looked_for_on_this_machine_alone(device: Device, listen: str, ok: bool) -> None:
    (device.folder / "edge.toml").write_text(EDGE_TOML.replace(":8080", listen))
    if ok:
        assert where(device.machine) == {"site/camera": ("127.0.0.1", int(listen.rpartition(":")[2]))}
    else:
        with pytest.raises(UpdateError, match="listen"):
            where(device.machine)


def test_two_cameras_with_one_page_or_a_broken_configuration_are_not_updated(device: Device) -> None:
    (device.folder / "cameras").mkdir()
    door = device.folder / "cameras/door.toml"
    door.write_text(EDGE_TOML.replace('camera = "camera"', 'camera = "door"'))
    with pytest.raises(UpdateError, match=r"door\.toml: \[health\] listen is ':8080'.*another port"):
        where(device.machine)
    door.write_text("[device\n")
    with pytest.raises(UpdateError, match=r"door\.toml"):
        where(device.machine)


# --- the command


def test_the_command_says_what_it_did_and_why_not(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    device.live()
    assert main(["status"], device.machine) == 0
    assert "last update  none yet" in capsys.readouterr().out
    assert main(["install", str(device.bundle(7))], device.machine) == 0
    assert "release 7 is in slot B" in capsys.readouterr().out
    assert main(["status", "--json"], device.machine) == 0
    assert json.loads(capsys.readouterr().out)["on trial"] == "B"
    assert main(["rollback"], device.machine) == 2
    assert "reboot first" in capsys.readouterr().err
    assert main(["backend", "get-current"], device.machine) == 0
    assert capsys.readouterr().out == "A\n"
    assert main(["install", "/nowhere"], device.machine) == 2
    assert device.live() == "B"
    assert main(["confirm"], device.machine) == 0
    assert "nothing is on trial" in capsys.readouterr().out


def test_a_command_that_fails_is_quoted_shortly() -> None:
    with pytest.raises(UpdateError, match=r"false failed \(1\): it said nothing"):
        run_command(["false"])
    with pytest.raises(UpdateError, match="install it"):
        run_command(["/nowhere/nvbootctrl"])
    with pytest.raises(UpdateError, match="has not ended"):
        run_command(["sleep", "60"], 0.01)
    with pytest.raises(UpdateError) as error:
        run_command(["sh", "-c", "yes | head -100000; exit 1"])
    assert len(str(error.value)) < 600
