"""An operator's command: signed, for one camera, accepted once over restarts too, limited by the device's maximum."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.services import ROOT
from tests.support.simulated_disk import PowerCut, SimulatedDisk
from wire import files
from wire.errors import ConfigError, LedgerError, MessageError
from wire.protocol import command
from wire.protocol.command import Command, Inbox, Orders, main, open_command
from wire.protocol.document import MAX_DOCUMENT
from wire.protocol.keys import DeviceKey, PublicKey

KEY, OTHER = DeviceKey(bytes(range(32))), DeviceKey(bytes(32))
HERE = "ward-3/corridor"
PROFILES = ["strict", "balanced"]
letters = "abcXYZ019"
names = st.builds(str.__add__, st.sampled_from(letters), st.text(f"{letters}_.-", max_size=62))
plain = st.text(st.characters(exclude_characters="{}[", exclude_categories=["Cs"]), max_size=20)


def reason(payload: bytes, camera: str = HERE) -> str:
    with pytest.raises(MessageError) as caught:
        open_command(payload, KEY.public, camera)
    return caught.value.reason


def orders(folder: Path, first: str = "", profiles: list[str] = PROFILES, key: PublicKey | None = KEY.public) -> Orders:
    return Orders(folder / "command.json", key, HERE, profiles, first)


def order(number: int, profile: str = "strict", camera: str = HERE, key: DeviceKey = KEY) -> bytes:
    return Command(camera, number, profile).seal(key)


@settings(deadline=None)
@given(names, names, st.integers(1, 2**63 - 1), plain)
def test_a_sealed_command_is_read_back(site: str, name: str, number: int, profile: str) -> None:
    camera = f"{site}/{name}"
    command = Command(camera, number, profile)
    assert open_command(command.seal(KEY), KEY.public, camera) == command


@settings(deadline=None)
@given(st.data())
def test_no_changed_byte_gives_another_command(data: st.DataObject) -> None:
    payload = bytearray(order(17))
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        assert open_command(bytes(payload), KEY.public, HERE) == Command(HERE, 17, "strict")
    except MessageError as error:
        assert error.reason in ("malformed", "forged", "schema")


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    assert reason(data) == "malformed"


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (order(1, key=OTHER), "forged"),
        (order(1, camera="ward-3/hall"), "misdirected"),
        (order(1).replace(b"strict", b"detail"), "forged"),
        (order(0), "malformed"),
        (order(2**63), "malformed"),
        (order(1) + b" " * MAX_DOCUMENT, "oversized"),
        (json.dumps({"schema": 2, "camera": HERE, "number": 1, "profile": "strict"}).encode(), "malformed"),
        (json.dumps({"more": 1, **json.loads(order(1))}).encode(), "malformed"),
        (json.dumps({**json.loads(order(1)), "number": True}).encode(), "malformed"),
        (json.dumps({**json.loads(order(1)), "number": 1.0}).encode(), "malformed"),
        (json.dumps({**json.loads(order(1)), "camera": "a"}).encode(), "malformed"),
        (json.dumps({**json.loads(order(1)), "signature": "00"}).encode(), "malformed"),
        (json.dumps({**json.loads(order(1)), "signature": ["0"]}).encode(), "malformed"),
        (json.dumps({"camera": HERE, "number": 1, "profile": "strict", "signature": "0" * 128}).encode(), "schema"),
        (order(1).replace(b'"schema": 2', b'"schema": 3'), "schema"),
        (order(1).replace(b'"number": 1', b'"number": ' + b"1" * 30), "malformed"),
        (order(1).replace(b'"number": 1', b'"number": {"a": 1}'), "malformed"),
        (b"[" * 900, "malformed"),
        (b"[]", "malformed"),
        (b'"signature"', "malformed"),
    ],
)
def test_a_malformed_command_is_refused(payload: bytes, why: str) -> None:
    assert reason(payload) == why


def test_a_number_is_accepted_once_and_only_if_it_is_larger(tmp_path: Path) -> None:
    found = orders(tmp_path)
    assert (found.profile, found.take(order(5))) == ("balanced", "strict")
    for number in (5, 4, 1):
        with pytest.raises(MessageError, match="replayed"):
            found.take(order(number, "balanced"))
    assert found.take(order(6, "balanced")) == found.profile == "balanced"


def test_an_order_and_its_number_survive_a_restart(tmp_path: Path) -> None:
    orders(tmp_path).take(order(5))
    again = orders(tmp_path, first="balanced")
    assert again.profile == "strict"
    with pytest.raises(MessageError, match="replayed"):
        again.take(order(5))


def test_the_local_maximum_wins_over_what_was_ordered_before(tmp_path: Path) -> None:
    orders(tmp_path).take(order(5, "balanced"))
    lowered = orders(tmp_path, profiles=["strict"])
    assert lowered.profile == "strict"
    with pytest.raises(MessageError, match="profile"):
        lowered.take(order(6, "balanced"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_an_order_that_the_disk_does_not_take_waits_and_is_stored_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    """It ended the device with the status after which systemd does not start it again."""
    found, write = orders(tmp_path), os.write
    waiting = deque([order(5), order(6, "balanced")])
    monkeypatch.setattr(os, "write", _failing(number))
    for _ in range(3):
        found.obey(waiting)
    assert (found.profile, found.number, len(waiting)) == ("strict", 0, 1)  # what it may reveal is less already
    assert caplog.text.count("the command waits for that") == 1
    monkeypatch.setattr(os, "write", write)
    found.obey(waiting)
    assert (found.profile, found.number, found.counts["obeyed"]) == ("balanced", 6, 2)
    assert orders(tmp_path).number == 6


def test_an_order_to_reveal_more_is_not_in_force_before_it_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = orders(tmp_path, first="strict")
    monkeypatch.setattr(os, "write", _failing(errno.ENOSPC))
    found.obey(deque([order(5, "balanced")]))
    assert found.profile == "strict"


def test_another_fault_of_the_disk_still_ends_an_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = orders(tmp_path)
    monkeypatch.setattr(os, "write", _failing(errno.EIO))
    with pytest.raises(LedgerError, match="Input/output error"):
        found.obey(deque([order(5)]))


def _failing(number: int) -> Callable[[int, Any], int]:
    def write(file: int, data: Any) -> int:
        raise OSError(number, os.strerror(number))

    return write


def test_a_profile_beyond_the_maximum_is_refused_and_does_not_use_the_number_up(tmp_path: Path) -> None:
    found = orders(tmp_path)
    with pytest.raises(MessageError, match="'detailed' is not among strict, balanced"):
        found.take(order(7, "detailed"))
    assert found.take(order(7)) == "strict"


def test_without_an_operator_nobody_orders_anything(tmp_path: Path) -> None:
    found = orders(tmp_path, key=None)
    with pytest.raises(MessageError, match="operator_key"):
        found.take(order(1))
    assert found.profile == "balanced"


def test_refusals_are_counted_by_reason_and_the_rest_is_obeyed(tmp_path: Path) -> None:
    found = orders(tmp_path)
    came = deque([order(1), b"rubbish", order(2, key=OTHER), order(1), order(3, "none"), order(9, "balanced")])
    found.obey(came)
    assert not came
    assert found.profile == "balanced"
    refused = {"refused_malformed": 1, "refused_forged": 1, "refused_replayed": 1, "refused_profile": 1}
    assert found.figures() == {"obeyed": 2, **refused}


def test_a_first_profile_that_is_not_allowed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="profile is 'detailed'; expected one of strict, balanced"):
        orders(tmp_path, first="detailed")


@pytest.mark.parametrize("text", [b"", b"{}", b"rubbish", order(1, key=OTHER), order(1, camera="ward-3/hall")])
def test_a_damaged_stored_command_fails_closed_and_names_the_cure(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "command.json").write_bytes(text)
    with pytest.raises(LedgerError, match=r"command\.json.*commands under the old key then stay refused"):
        orders(tmp_path)


def test_a_stored_command_of_the_version_before_names_its_own_cure(tmp_path: Path) -> None:
    old = {"camera": HERE, "number": 1, "profile": "strict", "signature": "0" * 128}
    (tmp_path / "command.json").write_text(json.dumps(old))
    with pytest.raises(LedgerError, match="delete it and send the command again: none of the former schema"):
        orders(tmp_path)


def inbox(clock: Callable[[], float] = lambda: 0.0) -> Inbox:
    return Inbox(KEY.public, HERE, clock)


def test_rubbish_pushes_no_command_out(tmp_path: Path) -> None:
    """Forged, misdirected, malformed and old ones, many more than can wait."""
    waiting, found = inbox(), orders(tmp_path)
    waiting.put(order(1000))
    for number in range(40):
        for junk in (
            order(2000 + number, key=OTHER),
            order(number + 1, camera="ward-3/hall"),
            b"rubbish",
            order(number + 1),
        ):
            waiting.put(junk)
    assert len(waiting) == 8 and waiting.dropped == 120
    found.obey(waiting)
    assert (found.number, found.profile, len(waiting)) == (1000, "strict", 0)


def test_the_work_of_a_second_is_bounded_and_the_next_second_is_new() -> None:
    now = [5.0]
    waiting = inbox(lambda: now[0])
    for _ in range(10_000):
        waiting.put(b"rubbish")
    waiting.put(order(1))
    assert len(waiting) == 0 and waiting.dropped == 10_001
    now[0] = 6.0
    waiting.put(order(1))
    assert len(waiting) == 1


def test_commands_wait_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    waiting, found = inbox(), orders(tmp_path)
    for number in (3, 1, 2):
        waiting.put(order(number, "balanced" if number == 3 else "strict"))
    found.obey(waiting)
    assert (found.number, found.profile) == (3, "balanced")
    assert found.figures() == {"obeyed": 3}


def test_without_an_operator_nothing_waits() -> None:
    waiting = Inbox(None, HERE)
    waiting.put(order(1))
    assert len(waiting) == 0


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(0, 8))
def test_a_power_cut_never_lets_a_number_be_accepted_twice(data: st.DataObject, cut_at: int) -> None:
    """An order that was obeyed is refused after any cut; one that was interrupted is stored whole or not at all."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        found = orders(folder)
        found.take(order(5))
        disk = SimulatedDisk(folder, lambda many: data.draw(st.integers(0, many - 1)), cut_at)
        patch.setattr(files, "os", disk)
        obeyed = True
        try:
            found.take(order(6, "balanced"))
        except PowerCut:
            obeyed = False
        patch.undo()
        again = orders(folder)
        assert again.number == 6 if obeyed else again.number in (5, 6)
        with pytest.raises(MessageError, match="replayed"):
            again.take(order(again.number))


def test_a_full_disk_stops_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An order that cannot be stored is not obeyed: after a restart it could be replayed."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    found = orders(tmp_path)
    monkeypatch.setattr(command, "write_durably", full)
    with pytest.raises(LedgerError, match="No space left"):
        found.take(order(1))
    assert found.profile == "balanced"


def test_the_command_line_makes_a_command_that_a_device_accepts(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "wire.protocol.command", "--key", str(tmp_path / "operator.key"), "--camera", HERE]
    made = subprocess.run([*call, "--profile", "strict"], cwd=ROOT, capture_output=True, text=True, check=True)
    public = PublicKey.parse(str(tmp_path / "operator.key.pub"))
    assert public.hex in made.stderr
    assert "topic veilsight/v1/ward-3/corridor/command" in made.stderr
    first = open_command(made.stdout.strip().encode(), public, HERE)
    assert first.profile == "strict"
    later = subprocess.run([*call, "--profile", "balanced"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert open_command(later.stdout.strip().encode(), public, HERE).number > first.number


@pytest.mark.parametrize("camera", ["corridor", "ward-3/+", "a/b/c", "/"])
def test_an_invalid_camera_name_is_refused(tmp_path: Path, camera: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--key", str(tmp_path / "k"), "--camera", camera, "--profile", "strict"]) == 1
    assert "wire.protocol.command:" in capsys.readouterr().err
