"""Topics, keys and errors: unambiguous names, secrets that are not shown, and a source for every field."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire import errors
from wire.errors import ConfigError, DeviceKeyError, VeilsightError
from wire.protocol import veilsight_pb2 as pb
from wire.protocol.keys import DeviceKey, PublicKey
from wire.protocol.topics import TOPICS, Source, parse_topic, signed_context, topic

letters = "abcXYZ019"
names = st.builds(str.__add__, st.sampled_from(letters), st.text(f"{letters}_.-", max_size=62))


@settings(deadline=None)
@given(names, names, st.sampled_from(sorted(TOPICS)))
def test_a_topic_is_read_back_as_it_was_written(site: str, camera: str, name: str) -> None:
    assert parse_topic(topic(site, camera, name)) == (site, camera, name)


@pytest.mark.parametrize("bad", ["", "a/b", "#", "a+", " ", "-a", ".", "a\n", "a" * 64, "ä", "$share"])
def test_a_name_that_would_change_the_topic_is_refused(bad: str) -> None:
    with pytest.raises(ConfigError, match="letters, digits"):
        topic(bad, "door", "features")
    with pytest.raises(ConfigError, match="letters, digits"):
        topic("lab", bad, "features")


def test_what_is_signed_names_one_camera_and_one_kind() -> None:
    contexts = {
        signed_context(kind, site, camera)
        for kind in ("features", "verdict", "alert", "state", "command")
        for site, camera in (("a", "b"), ("b", "a"), ("ab", "c"), ("a", "bc"))
    }
    assert len(contexts) == 20
    assert not any(one != other and other.startswith(one) for one in contexts for other in contexts)
    assert signed_context("state", "lab", "door") == b"veilsight/v2/state\0lab\0door\0"
    for site, camera in (("+", "door"), ("lab", "+"), ("lab\0", "door"), ("lab", ""), ("a/b", "c")):
        with pytest.raises(ConfigError):
            signed_context("state", site, camera)


@settings(deadline=None)
@given(st.text() | st.text("veilsight/v1+#abc"))
def test_a_topic_that_is_not_ours_is_none(text: str) -> None:
    parts = parse_topic(text)
    assert parts is None or topic(*parts) == text


@pytest.mark.parametrize(
    "text",
    [
        "x/veilsight/v1/lab/door/features",
        "veilsight/v1/lab/door",
        "veilsight/v1/lab/door/frames",
        "veilsight/v1/+/a/state",
    ],
)
def test_a_topic_that_is_almost_ours_is_none(text: str) -> None:
    assert parse_topic(text) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [("features", pb.Features), ("verdict/edge", pb.Verdict), ("verdict/cloud", pb.Verdict), ("alert", pb.Alert)],
)
def test_every_field_of_every_message_is_in_the_table(name: str, message: type) -> None:
    assert set(TOPICS[name].fields) == {field.name for field in message.DESCRIPTOR.fields}  # type: ignore[attr-defined]


def test_a_devices_messages_depend_on_the_scene_through_z_alone() -> None:
    scene = {
        f"{name}.{field}"
        for name, row in TOPICS.items()
        if row.writer == "edge"
        for field, source in row.fields.items()
        if source is Source.Z
    }
    watch = {f"{n}.{f}" for n, row in TOPICS.items() for f, source in row.fields.items() if source is Source.WATCH}
    assert watch == {"state.watching"}  # at most one bit an hour, from a hostile eye alone
    of_past_z = {"features.level", "features.flags", "state.blind"}
    assert scene == {"features.z", "verdict/edge.probabilities", "verdict/edge.sentence"} | of_past_z


def test_what_holds_until_it_changes_is_retained_and_nothing_else() -> None:
    kept = {name for name, row in TOPICS.items() if row.retain}
    assert kept == {"state", "certificate", "alert/open", "bridge"}


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "device.key"
    key = DeviceKey.load_or_make(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert DeviceKey.load_or_make(file).public == key.public
    assert PublicKey.parse(f"{file}.pub") == key.public == PublicKey.parse(key.public.hex)


@pytest.mark.parametrize("beside", [None, "", "0" * 64 + "\n"], ids=["missing", "half", "another's"])
def test_the_public_half_is_made_from_the_key_where_it_is_not_its_own(tmp_path: Path, beside: str | None) -> None:
    file, public = tmp_path / "device.key", tmp_path / "device.key.pub"
    key = DeviceKey.load_or_make(file)
    public.unlink()
    if beside is not None:
        public.write_text(beside)
    assert DeviceKey.load_or_make(file).public == key.public == PublicKey.parse(str(public))


def test_a_public_half_that_is_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    file, public, target = tmp_path / "device.key", tmp_path / "device.key.pub", tmp_path / "target"
    key = DeviceKey.load_or_make(file)
    target.write_text("untouched")
    public.unlink()
    public.symlink_to(target)
    DeviceKey.load_or_make(file)
    assert target.read_text() == "untouched" and not public.is_symlink() and PublicKey.parse(str(public)) == key.public


def test_a_key_that_is_a_link_is_refused(tmp_path: Path) -> None:
    DeviceKey.load_or_make(tmp_path / "real.key")
    (tmp_path / "device.key").symlink_to(tmp_path / "real.key")
    with pytest.raises(DeviceKeyError, match="symbolic link"):
        DeviceKey.load_or_make(tmp_path / "device.key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "device.key"
    DeviceKey.load_or_make(file)
    os.chmod(file, mode)
    with pytest.raises(DeviceKeyError, match="chmod 600"):
        DeviceKey.load_or_make(file)


@pytest.mark.parametrize("data", [b"", b"x" * 31, b"x" * 33])
def test_a_malformed_key_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "device.key"
    file.touch(0o600)
    file.write_bytes(data)
    with pytest.raises(DeviceKeyError, match=f"{len(data)} bytes"):
        DeviceKey.load_or_make(file)


def test_a_keys_repr_hides_its_secret() -> None:
    seed = bytes(range(32))
    shown = f"{DeviceKey(seed)!r} {DeviceKey(seed)}"
    assert "***" in shown and seed.hex() not in shown and seed.hex()[:8] not in shown and repr(seed) not in shown


@pytest.mark.parametrize("text", ["", "beef", "z" * 64, "/nowhere/device.key.pub", "0" * 66])
def test_other_text_than_a_public_key_is_refused(text: str) -> None:
    with pytest.raises(DeviceKeyError):
        PublicKey.parse(text)


def test_a_public_key_may_lie_at_a_path_of_64_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("k" * 64)
    file.write_text(DeviceKey(b"d" * 32).public.hex + "\n")
    assert len(str(file)) == 64 and PublicKey.parse(str(file)) == DeviceKey(b"d" * 32).public


@settings(deadline=None)
@given(st.binary(min_size=64, max_size=64), st.binary(max_size=64))
def test_only_the_owners_signature_over_exactly_these_bytes_counts(noise: bytes, data: bytes) -> None:
    key, other = DeviceKey(b"d" * 32), DeviceKey(b"o" * 32)
    signature = key.sign(data)
    assert key.public.verify(signature, data)
    assert not key.public.verify(signature, data + b"\0")
    assert not other.public.verify(signature, data)
    assert not key.public.verify(noise, data)


def test_every_error_is_a_veilsight_error_and_in_the_drawn_tree() -> None:
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), VeilsightError)
        assert name in (errors.__doc__ or "")
