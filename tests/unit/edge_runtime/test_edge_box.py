"""Several cameras of one box: what two must not share is refused by name, and one scene has one number of cameras."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from edge_runtime import app
from edge_runtime.app import main
from edge_runtime.box import check_box, others
from edge_runtime.config import load_config
from tests.support.engine_factory import make_edge_config, make_engine
from wire.errors import ConfigError


def add(box: Path, name: str, *, engine: str = "/e", source: str = "synthetic://walk", **sections: Any) -> Path:
    """Write the configuration of a camera; "" is the first one."""
    device = {
        "camera": name or "first",
        "key": str(box / f"{name}.key"),
        "state_dir": str(box / f"{name}.state"),
        **sections.pop("device", {}),
    }
    made = make_edge_config(box / f"made-{name}", engine=engine, source=source, device=device, **sections)
    place = box / "cameras" / f"{name}.toml" if name else box / "edge.toml"
    place.parent.mkdir(exist_ok=True)
    return made.rename(place)


def scene(name: str = "room", cameras: int = 2) -> dict[str, Any]:
    return {"scene": name, "scene_cameras": cameras}


def compare(path: Path) -> list[str]:
    return check_box(path, load_config(path))


def test_each_camera_of_a_box_finds_all_others(tmp_path: Path) -> None:
    first, door, bed = (add(tmp_path, name) for name in ("", "door", "bed"))
    assert others(first) == [bed, door]
    assert others(door) == [first, bed]
    assert compare(door) == ["lab/door", "lab/first", "lab/bed"]
    (tmp_path / "alone").mkdir()
    assert compare(add(tmp_path / "alone", "")) == ["lab/first"]


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ({"device": {"camera": "first"}}, r"\[device\] both are lab/first"),
        ({"device": {"key": "{box}/.key"}}, r"\[device\] key is .* in both"),
        ({"device": {"state_dir": "{box}/.state"}}, r"\[device\] state_dir is .* in both"),
        ({"health": {"listen": "127.0.0.1:8080"}}, r"\[health\] listen is .*port of its own"),
        ({"source": "/dev/video0"}, r"\[camera\] source is the same"),
    ],
)
def test_what_two_cameras_must_not_share_is_refused_with_both_files(
    tmp_path: Path, what: dict[str, Any], says: str
) -> None:
    first = add(tmp_path, "", source="0", health={"listen": ":8080"})
    what = {
        section: {key: value.format(box=tmp_path) for key, value in values.items()} if section != "source" else values
        for section, values in what.items()
    }
    door = add(tmp_path, "door", **what)
    for path in (first, door):
        with pytest.raises(ConfigError, match=says) as error:
            compare(path)
        assert str(first) in str(error.value) and str(door) in str(error.value)


def test_a_password_of_two_equal_sources_is_not_shown(tmp_path: Path) -> None:
    add(tmp_path, "", source="rtsp://me:Secret@192.0.2.7/s")
    with pytest.raises(ConfigError, match="source is the same") as error:
        compare(add(tmp_path, "door", source="rtsp://me:Secret@192.0.2.7/s"))
    assert "Secret" not in str(error.value)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ({"device": scene(cameras=3)}, r"\[device\] scene_cameras is [23] and [23], but both are of scene 'room'"),
        ({"engine": "/other"}, r"\[engine\] folder is '/"),
        ({"privacy": {"max_profile": "strict"}}, r"\[privacy\] max_profile is "),
        ({"privacy": {"adaptive_level": True}}, r"\[privacy\] adaptive_level is "),
    ],
)
def test_cameras_of_one_scene_say_the_same_of_it(tmp_path: Path, what: dict[str, Any], says: str) -> None:
    first = add(tmp_path, "", device=scene())
    door = add(tmp_path, "door", **{"device": scene(), **what})
    for path in (first, door):
        with pytest.raises(ConfigError, match=says):
            compare(path)


def test_more_cameras_than_a_scene_names_are_refused_by_name(tmp_path: Path) -> None:
    first, door = add(tmp_path, "", device=scene()), add(tmp_path, "door", device=scene())
    assert len(compare(first)) == 2
    bed = add(tmp_path, "bed", device=scene())
    for path in (first, door, bed):
        with pytest.raises(ConfigError, match=r"scene 'room' has scene_cameras = 2, but also .*\.toml, .*\.toml are"):
            compare(path)


def test_another_scene_and_another_site_are_not_compared(tmp_path: Path) -> None:
    first = add(tmp_path, "", device=scene())
    add(tmp_path, "door", device=scene("hall", 4))
    add(tmp_path, "bed", device={**scene("room", 3), "site": "other"})
    assert len(compare(first)) == 3


def test_a_camera_whose_configuration_is_broken_stops_itself_and_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, door = add(tmp_path, ""), add(tmp_path, "door")
    door.write_text("[device\n")
    assert compare(first) == ["lab/first"]
    assert str(door) in caplog.text
    with pytest.raises(ConfigError):
        load_config(door)


@pytest.mark.parametrize(
    "device", [{"scene": "room"}, {"scene_cameras": 2}, {"scene": "room", "scene_cameras": 1}, scene(cameras=5)]
)
def test_a_scene_without_a_number_or_a_number_without_a_scene_is_refused(
    tmp_path: Path, device: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"\[device\] scene is .* count its cameras, 2 to 4"):
        load_config(add(tmp_path, "", device=device))


def test_the_gate_publishes_and_charges_by_the_number_that_its_configuration_names(tmp_path: Path) -> None:
    manifest = make_engine(tmp_path / "engine")
    config = load_config(add(tmp_path, "", engine=str(tmp_path / "engine"), device=scene(cameras=3)))
    terms = app._terms(config, manifest)
    assert terms.certificate == manifest.certificate().of_scene(3)
    assert terms.price == 3 * Fraction(manifest.clip_norm) ** 2 / manifest.sigma**2


@pytest.mark.parametrize("option", [[], ["--check"]])
def test_the_gate_refuses_to_start_and_says_which_file(
    tmp_path: Path, option: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    make_engine(tmp_path / "engine")
    first = add(tmp_path, "", engine=str(tmp_path / "engine"), device=scene())
    door = add(tmp_path, "door", engine=str(tmp_path / "engine"), device=scene(cameras=3))
    assert main(["--config", str(first), *option]) == 2
    assert str(door) in caplog.text and "scene_cameras" in caplog.text
    assert not (tmp_path / ".state").exists(), "nothing was opened"
