"""Side channels in the audit: what an attacker reads of a device's packets, and that each kind of leak is found."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from calibration.audit import channels, planted_eye
from calibration.audit.channels import Heard, Play
from calibration.audit.wiretap import CONNECT, DISCONNECT, GONE, PUBLISH, Packet, Wiretap
from tests.support.engine_factory import make_engine
from wire.artifact.manifest import EngineManifest
from wire.broker import BrokerConfig
from wire.errors import DataError
from wire.mqtt import Message, MqttClient
from wire.protocol.keys import DeviceKey
from wire.protocol.message import FeatureMessage, coarse_time

CAMERA, PATIENCE_S = "camera", 30.0


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> EngineManifest:
    return make_engine(tmp_path_factory.mktemp("engine"))


def wait_for(tap: Wiretap, kind: int) -> list[Packet]:
    until = time.monotonic() + PATIENCE_S
    while kind not in [packet.kind for packet in tap.packets()]:
        assert time.monotonic() < until
        time.sleep(0.01)
    return tap.packets()


@pytest.mark.parametrize("ends_well", [True, False])
def test_a_wiretap_keeps_every_packet_and_sees_how_the_connection_ends(ends_well: bool) -> None:
    payloads = [b"", b"x" * 127, b"y" * 20_000]
    with Wiretap() as tap:
        client = MqttClient(BrokerConfig(f"mqtt://127.0.0.1:{tap.port}"), "me", will=Message("w", b"gone", 1, True))
        client.open()
        assert client.wait(PATIENCE_S)
        for payload in payloads:
            client.send(Message("veilsight/v1/a/b/state", payload, 1, False))
        assert client.flush(PATIENCE_S)
        if ends_well:
            client.close()
        else:
            client._client.socket().close()  # type: ignore[union-attr]
            client._client.loop_stop()
        packets = wait_for(tap, GONE)
    kinds = [packet.kind for packet in packets if packet.client == "me"]
    assert [packet.body for packet in packets if packet.kind == PUBLISH] == payloads
    assert {packet.topic for packet in packets if packet.kind == PUBLISH} == {"veilsight/v1/a/b/state"}
    assert b"gone" in packets[0].body and kinds[0] == CONNECT
    assert (DISCONNECT in kinds[: kinds.index(GONE)]) is ends_well


def stream(manifest: EngineManifest, key: DeviceKey, slots: list[int], **changes: int) -> list[Packet]:
    """A device's packets in slots of its clock; changes: fields of the last release."""
    at = 1_000_000.0
    packets = [Packet(at, "d", CONNECT, "", b"")]
    for slot in slots:
        now = at + slot * channels.SLOT_S
        fields = {"flags": 0, "time_s": coarse_time(now)} | (changes if slot == slots[-1] else {})
        z = np.zeros(manifest.n, np.int16)
        message = FeatureMessage(1, slot, manifest.model_id, fields["flags"], z, 0, fields["time_s"])
        topic = f"veilsight/v1/audit/{CAMERA}/features"
        packets.append(Packet(now, "d", PUBLISH, topic, message.seal(key, "audit", CAMERA)))
    return [*packets, Packet(at, "d", DISCONNECT, "", b""), Packet(at, "d", GONE, "", b"")]


def differences(manifest: EngineManifest, key: DeviceKey, packets: list[Packet]) -> list[str]:
    return channels._opened(packets, manifest, key, CAMERA)[1]


def test_an_honest_stream_has_no_difference_and_each_kind_is_named(manifest: EngineManifest) -> None:
    key = DeviceKey.new()
    honest = stream(manifest, key, [0, 1, 2, 5])
    assert differences(manifest, key, honest) == []
    cases = {
        "Last Will": [*honest[:-2], honest[-1]],
        "reconnect": [*honest, *honest[:1], *honest[-2:]],
        "a slot twice": stream(manifest, key, [0, 1, 1]),
        "flags": stream(manifest, key, [0, 1], flags=2),
        "it says": stream(manifest, key, [0, 1], time_s=60),
        "topic": [*honest[:-2], Packet(1.0, "d", PUBLISH, "pixels", b""), *honest[-2:]],
        "forged": stream(manifest, DeviceKey.new(), [0, 1]),
        "size": [*honest[:1], Packet(1.0, "d", PUBLISH, honest[1].topic, honest[1].body + b"x"), *honest[1:]],
    }
    for name, packets in cases.items():
        found = differences(manifest, key, packets)
        assert any(name in line for line in found), (name, found)


def heard(late: npt.NDArray[np.float64], secrets: npt.NDArray[np.bool_]) -> Heard:
    return Heard(late, secrets, [], [])


@pytest.mark.parametrize("shift", [0.0, 0.004, -0.004])
def test_times_tell_what_moves_them_and_nothing_else(shift: float) -> None:
    rng = np.random.default_rng(4)
    secrets = rng.random(400) < 0.5
    value, (low, high) = channels.told_by_time(heard(rng.normal(0, 0.002, 400) + shift * secrets, secrets))
    if shift:
        assert low > 0.8
    else:
        assert low < 0.55 and high > 0.45 and value < 0.6


def test_a_release_that_moves_the_next_one_is_told_too() -> None:
    rng = np.random.default_rng(5)
    secrets = rng.random(400) < 0.5
    assert channels.told_by_time(heard(rng.normal(0, 0.002, 400) + 0.006 * np.roll(secrets, 1), secrets))[1][0] > 0.7


def test_lateness_is_counted_from_each_slots_turn_and_a_missing_release_has_none() -> None:
    late = channels._lateness([(0, 10.0), (1, 10.1), (3, 10.35), (4, 10.4)])
    assert late == pytest.approx([0.0, 0.0, np.nan, 0.05, 0.0], nan_ok=True)


@pytest.mark.parametrize("form", planted_eye.written(planted_eye.mark(3)))
def test_pixels_are_found_in_every_form_on_disk_and_in_packets(tmp_path: Path, form: bytes) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "ledger.json").write_bytes(b"{}")
    assert channels._spoken(tmp_path, [], 3) == []
    assert channels._spoken(tmp_path, [Packet(0.0, "d", PUBLISH, "t", b".." + form)], 3) == ["packet 0"]
    (tmp_path / "state" / "journal").write_bytes(b"a line with " + form)
    assert channels._spoken(tmp_path, [], 3) == ["state/journal"]


def test_a_device_that_cannot_run_is_an_error_with_its_words(tmp_path: Path) -> None:
    make_engine(tmp_path / "engine")
    (tmp_path / "engine" / "noise_table.bin").write_bytes(b"")
    with pytest.raises(DataError, match="released 0 of 9 slots.*noise_table"):
        channels.play(tmp_path / "engine", tmp_path / "runs", [Play("speaks", 1)], 9)


def test_secrets_are_fair_and_differ_by_key() -> None:
    bits = np.array([[planted_eye.secret(key, slot) for slot in range(2_000)] for key in (1, 2)])
    assert np.abs(bits.mean(axis=1) - 0.5).max() < 0.05 and abs(np.corrcoef(bits)[0, 1]) < 0.1
    assert planted_eye.mark(1) != planted_eye.mark(2) and len(planted_eye.mark(1)) == planted_eye.MARK_BYTES
