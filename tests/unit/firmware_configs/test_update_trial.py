"""A/B updates with a firmware that misbehaves as people report, and with the power cut before every step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from firmware_configs.update.published import Published
from firmware_configs.update.record import OUTCOMES, Record
from firmware_configs.update.trial import MOST_BOOTS, boot, confirm, roll_back
from tests.support.fake_jetson import FAULTS
from tests.support.update_device import EDGE_TOML, Device, PowerCut, Reboot
from wire.errors import UpdateError


@pytest.fixture
def device(tmp_path: Path) -> Device:
    made = Device(tmp_path)
    assert made.live() == "A"
    return made


def outcome(device: Device) -> str:
    return OUTCOMES[device.record.outcome]


def test_an_update_that_publishes_is_kept(device: Device) -> None:
    assert "slot B" in device.install(7, floor=5)
    assert device.record.trial == "B"
    assert device.live() == "B"
    assert (device.record.release("B"), device.record.floor, device.record.trial) == (7, 5, "")
    assert "kept" in outcome(device)
    for cold in (False, True, False):
        assert device.live(cold) == "B" == device.served
    device.install(8)
    assert device.live() == "A"
    assert device.record.release("A") == 8
    assert device.record.floor == 5, "a bundle with a lower floor does not lower it"


@pytest.mark.parametrize("holds", ["silent", "panics", "no python"])
def test_an_update_that_does_not_publish_ends_in_the_old_slot(device: Device, holds: str) -> None:
    device.install(7, floor=7, holds=holds)
    assert device.live() == "A" == device.served
    assert "B" in device.boots
    assert device.record.floor == 0, "the floor grows only with a release that is kept"
    assert device.record.is_bad("B") and not device.record.trial
    assert outcome(device) != OUTCOMES[2]
    for cold in (False, True):
        device.boots.clear()
        assert device.live(cold) == "A"
        assert device.boots == ["A"], "the slot that failed is not booted again"


def test_after_an_update_that_failed_the_next_one_is_kept(device: Device) -> None:
    for holds in ("silent", "panics"):
        device.install(7, holds=holds)
        assert device.live() == "A"
    assert device.jetson.get("RootfsStatusSlotB") == 0xFF, "the firmware has marked it"
    device.install(8)
    assert device.live() == "A", "the register still counts 0 for that slot: it takes the power off"
    assert "power" in outcome(device)
    device.install(9)
    assert device.live(cold=True) == "B"
    assert device.record.release("B") == 9


@pytest.mark.parametrize("accepted", [Published(59, 99, True), Published(99, 0, True), Published(99, 99, False), None])
def test_noise_alone_or_too_few_accepted_releases_do_not_count(device: Device, accepted: Published | None) -> None:
    device.install(7)
    device.at = device.jetson.power_on()
    assert "on trial: boot 1" in boot(device.machine)
    with pytest.raises(Reboot):
        confirm(device.machine, 60, 0.05, lambda host, port: accepted, lambda seconds: None)
    assert device.live() == "A"
    assert outcome(device) == "did not publish enough in time"


@pytest.mark.parametrize("second", [Published(99, 99, True), Published(59, 99, True), None])
def test_every_camera_of_the_box_must_have_published(device: Device, second: Published | None) -> None:
    """One camera that publishes does not speak for another one that is dark under the new system."""
    text = EDGE_TOML.replace(":8080", ":8081").replace('camera = "camera"', 'camera = "door"')
    (device.folder / "cameras").mkdir()
    (device.folder / "cameras/door.toml").write_text(text)
    device.install(7)
    device.at = device.jetson.power_on()
    assert "on trial: boot 1" in boot(device.machine)
    pages = {8080: Published(99, 99, True), 8081: second}
    if second == pages[8080]:
        said = confirm(device.machine, 60, 1e9, lambda host, port: pages[port], lambda seconds: None)
        assert "is kept" in said and "site/camera: 99 releases" in said and "site/door: 99 releases" in said
        return
    with pytest.raises(Reboot):
        confirm(device.machine, 60, 0.05, lambda host, port: pages[port], lambda seconds: None)
    assert outcome(device) == "did not publish enough in time"


def test_a_slot_on_trial_that_keeps_rebooting_is_left_after_a_few_boots(device: Device) -> None:
    """Something reboots it before it has published, and our unit always comes up."""
    device.install(7)
    for count in range(1, MOST_BOOTS + 1):
        device.at = device.jetson.power_on(cold=True)
        assert f"boot {count} of {MOST_BOOTS}" in boot(device.machine)
    device.at = device.jetson.power_on(cold=True)
    with pytest.raises(Reboot):
        boot(device.machine)
    assert device.live() == "A" == device.served


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in ("", "unarmed")])
def test_a_firmware_that_cannot_switch_is_told_before_or_after_and_the_old_slot_stays(
    device: Device, fault: str
) -> None:
    device.jetson.fault = fault
    with pytest.raises(UpdateError, match=r"nvbootctrl|power|flash") as error:
        device.install(7)
    assert "\n" not in str(error.value).strip()
    device.jetson.fault = ""
    assert device.live() == "A" == device.served
    assert not device.record.trial
    device.install(8)
    assert device.live() == "B"


def test_a_switch_that_is_taken_and_ignored_at_boot_is_noticed(device: Device) -> None:
    device.jetson.fault = "unarmed"
    device.install(7)
    assert device.live() == "A" == device.served
    assert "never booted" in outcome(device)
    assert not device.record.trial and device.record.is_bad("B")


@pytest.mark.parametrize("level", [0, None])
def test_a_device_without_redundancy_is_refused_before_anything_is_written(device: Device, level: int | None) -> None:
    device.jetson.set("RootfsRedundancyLevel", level)
    with pytest.raises(UpdateError, match="RootfsRedundancyLevel is .*expected 1.*--ab"):
        device.install(7)
    assert device.slots["B"] == "empty"


def test_a_switch_that_is_left_over_does_not_stop_the_next_one(device: Device) -> None:
    device.jetson.set("BootChainFwStatus", 0)
    device.install(7)
    assert device.live() == "B"


@pytest.mark.parametrize("holds", ["silent", "no python"])
def test_where_the_way_back_is_ignored_the_firmwares_own_count_ends_it(device: Device, holds: str) -> None:
    """Nothing calls the boots of a slot on trial good, so the firmware gives the slot up."""
    device.install(7, holds=holds)
    device.at = device.jetson.power_on()
    device.jetson.fault = "unarmed"
    assert device.live() == "A" == device.served
    assert len(device.boots) <= MOST_BOOTS + 2


@pytest.mark.parametrize("holds", ["silent", "no python"])
def test_a_slot_that_can_never_be_left_does_not_reboot_for_ever(device: Device, holds: str) -> None:
    """The power goes at every boot, so the firmware counts nothing either."""
    device.install(7, holds=holds)
    device.at = device.jetson.power_on()
    device.jetson.fault = "unarmed"
    assert device.live(cold=True, always_cold=True) == "B"
    assert device.served == "", "and it publishes nothing"
    assert len(device.boots) < 20


@pytest.mark.parametrize("fault", ["version", "single", "fails"])
def test_a_firmware_that_cannot_be_read_stops_a_device_only_where_it_matters(device: Device, fault: str) -> None:
    device.jetson.fault = fault
    assert device.live() == "A" == device.served, "never updated: nothing can be wrong"
    device.jetson.fault = ""
    device.install(7)
    assert device.live() == "B"
    device.jetson.fault = fault
    device.live()
    assert device.served == ("" if fault == "fails" else "B"), "which slot runs must be known, the rest need not"


# --- the power goes


def walk(tmp_path: Path, run: Callable[[Device], None]) -> list[tuple[str, Device]]:
    """Run a story once to count its steps, then once for each step with the power cut before it."""
    whole = Device(tmp_path / "whole")
    run(whole)
    made = []
    for number, step in enumerate(whole.steps):
        device = Device(tmp_path / f"cut-{number}")
        device.cut_at = number
        try:
            run(device)
        except PowerCut:
            device.live(cold=True)
        assert device.cut_at == -1, "the power was cut"
        made.append((f"{number}: {step}", device))
    return made


def test_a_power_cut_at_any_step_of_a_good_update_leaves_a_slot_that_publishes(tmp_path: Path) -> None:
    def run(device: Device) -> None:
        device.install(7, floor=7)
        device.live()

    made = walk(tmp_path, run)
    assert len(made) > 10
    ends = set()
    for step, device in made:
        slot = device.live()
        ends.add(slot)
        assert device.slots[slot] == "good" and device.served == slot, step
        assert not device.record.trial, step
        assert device.record.floor == (7 if slot == "B" else 0), step
        assert device.record.may_run(slot), step
        device.install(8)
        assert device.live(cold=True) != slot, f"{step}: the next update is kept"
        assert device.record.release(device.at) == 8, step
    assert ends == {"A", "B"}


@pytest.mark.parametrize("holds", ["silent", "panics", "no python"])
def test_a_power_cut_at_any_step_of_a_bad_update_ends_in_the_old_slot(tmp_path: Path, holds: str) -> None:
    def run(device: Device) -> None:
        device.install(7, floor=7, holds=holds)
        device.live()

    for step, device in walk(tmp_path, run):
        assert device.live() == "A" == device.served, step
        assert device.record.floor == 0 and not device.record.trial, step


def test_a_power_cut_at_any_step_of_a_rollback_leaves_a_slot_that_publishes(tmp_path: Path) -> None:
    def run(device: Device) -> None:
        device.install(7)
        device.live()
        device.install(8)
        device.live()
        roll_back(device.machine)
        device.live()

    for step, device in walk(tmp_path, run):
        slot = device.live()
        assert device.slots[slot] == "good" and device.served == slot, step
        assert not device.record.trial, step


# --- versions


def two_releases(device: Device, floor: int = 0) -> None:
    """Release 7 in B, 8 in A, which runs."""
    device.install(7)
    assert device.live() == "B"
    device.install(8, floor)
    assert device.live() == "A"


def test_a_rollback_is_a_trial_of_the_other_slot(device: Device) -> None:
    two_releases(device)
    roll_back(device.machine)
    assert device.record.trial == "B"
    assert device.live() == "B"
    assert "kept" in outcome(device)
    device.slots["A"] = "silent"
    roll_back(device.machine)
    assert device.live() == "B", "a slot that fails a rollback is left again"


def test_a_trial_can_be_left_by_hand(device: Device) -> None:
    device.install(7)
    with pytest.raises(UpdateError, match="reboot first"):
        roll_back(device.machine)
    device.at = device.jetson.power_on()
    boot(device.machine)
    with pytest.raises(Reboot):
        roll_back(device.machine)
    assert device.live() == "A"
    assert "by hand" in outcome(device)


def test_no_rollback_to_a_slot_of_unknown_failed_or_withdrawn_content(device: Device) -> None:
    with pytest.raises(UpdateError, match="slot B is of an unknown release"):
        roll_back(device.machine)
    device.install(7, holds="silent")
    device.live()
    with pytest.raises(UpdateError, match="slot B is bad"):
        roll_back(device.machine)
    device.install(7)
    device.live()
    device.install(9, floor=8)
    assert device.live() == "A"
    with pytest.raises(UpdateError, match=r"slot B is release 7; releases below 8 are withdrawn; install release 8"):
        roll_back(device.machine)


def test_a_withdrawn_release_is_not_installed(device: Device) -> None:
    two_releases(device, floor=8)
    with pytest.raises(UpdateError, match="the bundle is release 7; releases below 8 are withdrawn"):
        device.install(7)
    assert device.slots["B"] == "good", "nothing was written"
    assert device.record.release("B") == 7


def test_where_the_firmware_falls_back_to_a_withdrawn_release_nothing_publishes(device: Device) -> None:
    two_releases(device, floor=8)
    device.slots["A"] = "panics"
    assert device.live() == "B"
    assert device.served == "", "release 7 is withdrawn: the gate is not started"
    assert len(device.boots) < 15
    with pytest.raises(UpdateError, match="withdrawn"):
        boot(device.machine)


def test_a_damaged_record_stops_everything(device: Device) -> None:
    two_releases(device)
    file = device.machine.folder / "record.json"
    text = file.read_text()
    edited = text.replace('"floor": 0', '"floor": 1'), text.replace(": 7", ": -7")
    for damaged in (*edited, text[:40], "", "[" * 100_000):
        file.write_text(damaged)
        with pytest.raises(UpdateError, match=r"record\.json: unreadable .*remove the file"):
            Record.load(device.machine)
        with pytest.raises(UpdateError, match="unreadable"):
            boot(device.machine)
        with pytest.raises(UpdateError, match="unreadable"):
            device.install(9)
