"""Captured motion on the renderer's bodies: read safely, true to the capture, on the floor, reproducible."""

from __future__ import annotations

import csv
import functools
import io
import json
import lzma
import math
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from familial.synth import capture_archive
from familial.synth.actions.catalogue import CAPTIONS
from familial.synth.body import Body, draw_body, radii
from familial.synth.capture import Motion, pose
from familial.synth.capture_archive import read_archive
from familial.synth.clip import render_clip
from familial.synth.mocap import main, render_motion
from familial.synth.skeleton import JOINT, Floats
from wire.errors import DataError

BODY = Body(seed=1, height=1.75, mass=1.0, limb=1.0, stoop=0.0, pace=1.2, swing=1.0)
ONE = [1.0, 0.0, 0.0, 0.0]
# joint, parent, kind, x y z of DeepMimic: x ahead, y up, z right
SIDE = [
    ("hip", 0, "spherical", 0, 0.08),
    ("knee", None, "revolute", -0.42, 0),
    ("ankle", None, "spherical", -0.41, 0),
    ("shoulder", 1, "spherical", 0.24, 0.18),
    ("elbow", None, "revolute", -0.27, 0),
    ("wrist", None, "fixed", -0.26, 0),
]


def skeleton() -> dict[str, Any]:
    joints: list[dict[str, Any]] = []

    def add(name: str, kind: str, parent: int, y: float, z: float) -> None:
        joints.append(
            {"Name": name, "Type": kind, "Parent": parent, "AttachX": 0, "AttachY": y, "AttachZ": z}
            | {f"AttachTheta{a}": 0 for a in "XYZ"}
        )

    add("root", "none", -1, 0, 0)
    add("chest", "spherical", 0, 0.236, 0)
    add("neck", "spherical", 1, 0.224, 0)
    for side, sign in (("right", 1), ("left", -1)):
        for name, parent, kind, y, z in SIDE:
            add(f"{side}_{name}", kind, len(joints) - 1 if parent is None else parent, y, sign * z)
    bodies = [
        {"Name": j["Name"], "Shape": "sphere", "AttachX": 0, "AttachY": 0, "AttachZ": 0}
        | dict.fromkeys(("Param0", "Param1", "Param2"), 0.1)
        for j in joints
    ]
    return {"Skeleton": {"Joints": joints}, "BodyDefs": bodies}


def frame(x: float = 0.0, up: float = 0.88, knee: float = 0.0, elbow: float = 0.0, dt: float = 0.1) -> list[float]:
    leg, arm = [*ONE, knee, *ONE], [*ONE, elbow]
    return [dt, x, up, 0.0, *ONE, *ONE, *ONE, *leg, *arm, *leg, *arm]


def stroll(n: int = 11) -> dict[str, Any]:
    """A made motion: one metre ahead in a second, right knee and elbows bent."""
    return {"Loop": "wrap", "Frames": [frame(x=i / (n - 1), knee=-1.0, elbow=1.0) for i in range(n)]}


def archive(path: Path, files: dict[str, Any] | None = None, **motions: Any) -> Path:
    """A .tar.xz with the skeleton, `files` as they are and `motions` as humanoid3d_NAME.txt."""
    content = {"top/data/characters/humanoid3d.txt": skeleton()}
    content |= {f"top/humanoid3d_{name}.txt": motion for name, motion in motions.items()}
    with tarfile.open(path, "w:xz") as tar:
        for name, value in (content | (files or {})).items():
            if value is None:
                continue
            text = value if isinstance(value, bytes) else json.dumps(value).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
    return path


def made(tmp_path: Path) -> Motion:
    return read_archive(archive(tmp_path / "made.tar.xz", stroll=stroll()))["stroll"]


@functools.cache
def real(folder: Path) -> dict[str, Motion]:
    path = folder / "mocap" / "deepmimic.tar.xz"
    if not path.is_file():
        pytest.skip(f"no motion capture: {path} is missing (set VEILSIGHT_DATA)")
    return read_archive(path)


def ahead(joints: Floats, low: str, high: str, joint: str) -> Floats:
    """How far (T,) `joint` lies off the line between `low` and `high`, along where the pelvis looks."""
    across = joints[:, JOINT["hip_l"]] - joints[:, JOINT["hip_r"]]
    forward = np.cross(across, joints[:, JOINT["neck"]] - joints[:, JOINT["pelvis"]])
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    return np.asarray(
        ((joints[:, JOINT[joint]] - (joints[:, JOINT[low]] + joints[:, JOINT[high]]) / 2) * forward).sum(1)
    )


def test_a_made_archive_is_read_as_it_was_written(tmp_path: Path) -> None:
    motion = made(tmp_path)
    assert (motion.name, motion.repeats, motion.times_s[-1]) == ("stroll", True, pytest.approx(1.0))
    np.testing.assert_allclose(motion.path[-1], [1.0, 0.0])
    assert motion.clear.max() == 0.0
    assert motion.leg == pytest.approx(0.83)


def test_upright_bodies_keep_their_own_proportions_and_travel_ahead(tmp_path: Path) -> None:
    times = np.linspace(0, 2.4, 25)
    joints, path = pose(made(tmp_path), BODY, times)
    thigh = np.linalg.norm(joints[:, JOINT["knee_l"]] - joints[:, JOINT["hip_l"]], axis=1)
    np.testing.assert_allclose(thigh, 0.245 * BODY.height)
    assert (joints[:, JOINT["head"], 2] > joints[:, JOINT["pelvis"], 2] + 0.4).all()
    assert (joints[:, JOINT["toe_l"], 2] < 0.1).any()
    assert joints[0, JOINT["hip_l"], 1] > 0 > joints[0, JOINT["hip_r"], 1]
    assert (joints[:, JOINT["nose"], 0] > joints[:, JOINT["head"], 0]).all()
    assert np.diff(path[:, 0]).min() > 0  # on and on, across the ends of cycles
    np.testing.assert_allclose(path[:, 1], 0, atol=1e-9)


def test_knees_bend_backwards_and_elbows_forwards(tmp_path: Path) -> None:
    joints, _ = pose(made(tmp_path), BODY, np.zeros(1))
    for side in "lr":
        assert ahead(joints, f"hip_{side}", f"ankle_{side}", f"knee_{side}") > 0.05
        assert ahead(joints, f"shoulder_{side}", f"wrist_{side}", f"elbow_{side}") < -0.05


def test_a_jump_leaves_the_floor_and_a_drifting_floor_does_not(tmp_path: Path) -> None:
    rise = [max(0.0, 0.3 - 5 * (t - 1.0) ** 2) for t in np.linspace(0, 2, 41)]
    jump = {"Loop": "none", "Frames": [frame(up=0.88 + r, dt=0.05) for r in rise]}
    drift = {"Loop": "none", "Frames": [frame(up=0.88 + 0.002 * i, dt=0.05) for i in range(41)]}
    motions = read_archive(archive(tmp_path / "a.tar.xz", jump=jump, drift=drift))
    times = np.linspace(0, 2, 41)
    bottom = [(pose(motions[n], BODY, times)[0][..., 2] - radii(BODY)).min(1) for n in ("jump", "drift")]
    assert bottom[0].max() == pytest.approx(0.3, abs=0.05)
    assert bottom[0][:8].max() < 1e-9
    assert bottom[1].max() < 0.02


def test_a_motion_that_does_not_repeat_returns_only_to_the_same_posture(tmp_path: Path) -> None:
    lying = frame(up=0.1)
    lying[4:8] = [math.sqrt(0.5), 0.0, 0.0, -math.sqrt(0.5)]  # face down
    rises = {"Loop": "none", "Frames": [lying, *[frame() for _ in range(10)]]}
    kicks = {"Loop": "none", "Frames": [frame(knee=-0.2 * (i % 5)) for i in range(10)]}
    motions = read_archive(archive(tmp_path / "a.tar.xz", rises=rises, kicks=kicks))
    joints, _ = pose(motions["rises"], BODY, np.array([-1.0, 0.0, 1.0, 30.0]))
    head = joints[:, JOINT["head"], 2]
    assert head[0] == head[1] < 0.4
    assert head[2] == head[3] > 1.4
    first, _ = pose(motions["kicks"], BODY, np.array([0.0, 0.9 + 0.8]))
    np.testing.assert_allclose(first[0], first[1], atol=1e-6)


def test_non_commercial_captures_are_left_out_by_rule(tmp_path: Path) -> None:
    files = {
        "top/sie/humanoid3d_punch.txt": stroll(),
        "top/sie_humanoid3d_left.txt": stroll(),
        "top/SIE/humanoid3d_kick.txt": stroll(),
        "top/README.md": b"x",
    }
    assert list(read_archive(archive(tmp_path / "a.tar.xz", files, stroll=stroll()))) == ["stroll"]
    with pytest.raises(DataError, match="outside sie/"):
        read_archive(archive(tmp_path / "b.tar.xz", files))


def test_an_unreadable_archive_is_refused_with_the_cure(tmp_path: Path) -> None:
    whole = archive(tmp_path / "whole.tar.xz", stroll=stroll()).read_bytes()
    cases: dict[str, tuple[bytes, str]] = {
        "no xz": (b"not an archive", "fetch it again"),
        "cut": (whole[: len(whole) // 2], "fetch it again"),
        "no tar": (lzma.compress(b"hello" * 500), "fetch it again"),
    }
    for name, (content, cure) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=cure):
            read_archive(tmp_path / name)
    with pytest.raises(DataError, match=r"give the path of DeepMimic's \.tar\.xz"):
        read_archive(tmp_path / "nowhere.tar.xz")


def test_an_archive_that_unpacks_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_archive, "_UNPACKED", 1 << 20)
    (tmp_path / "bomb").write_bytes(lzma.compress(bytes(3 << 20)))
    with pytest.raises(DataError, match="unpacks to more than 1 MiB"):
        read_archive(tmp_path / "bomb")
    monkeypatch.setattr(capture_archive, "_PACKED", 100)
    with pytest.raises(DataError, match="more than 0 MiB"):
        read_archive(tmp_path / "bomb")


@pytest.mark.parametrize("name", ["../humanoid3d_x.txt", "/humanoid3d_x.txt", "top/x/../sie/humanoid3d_x.txt"])
def test_entries_that_point_outside_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="points outside the archive"):
        read_archive(archive(tmp_path / "a.tar.xz", {name: stroll()}, stroll=stroll()))


def test_links_are_not_followed(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", stroll=stroll())
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress(path.read_bytes()))) as old, tarfile.open(path, "w:xz") as new:
        for entry in old:
            new.addfile(entry, old.extractfile(entry))
        link = tarfile.TarInfo("top/humanoid3d_link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        new.addfile(link)
    assert list(read_archive(path)) == ["stroll"]


def renamed(at: int, name: str) -> dict[str, Any]:
    body = skeleton()
    body["Skeleton"]["Joints"][at]["Name"] = name
    return body


BAD: dict[str, tuple[Any, str]] = {
    "broken": (b'{"Frames": [[', "broken JSON"),
    "deep": (b"[" * 200_000, "broken JSON"),
    "list": ([1], "a JSON object is expected, not list"),
    "none": ({"Loop": "wrap"}, "Frames must be a list"),
    "one": ({"Frames": [frame()]}, "Frames must be a list of 2"),
    "short": ({"Frames": [frame(), frame()[:-1]]}, "frame 1 does not hold the 44 numbers"),
    "words": ({"Frames": [frame(), [*frame()[:-1], "far"]]}, "no number"),
    "nan": ({"Frames": [frame(), frame(x=math.nan)]}, "out of range"),
    "far": ({"Frames": [frame(), frame(x=1e6)]}, "out of range"),
    "back": ({"Frames": [frame(dt=-1.0), frame()]}, "out of range"),
    "zero": ({"Frames": [frame(), [*frame()[:4], *[0.0] * 4, *frame()[8:]]]}, "rotations of root"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_malformed_motion_is_refused_with_its_file_and_the_cure(tmp_path: Path, case: str) -> None:
    content, fault = BAD[case]
    with pytest.raises(DataError, match=fault) as caught:
        read_archive(archive(tmp_path / "a.tar.xz", bad=content))
    assert "humanoid3d_bad.txt" in str(caught.value)
    assert "fetch the archive again" in str(caught.value) or "use DeepMimic's archive" in str(caught.value)


def test_an_unknown_skeleton_is_refused_joint_by_joint(tmp_path: Path) -> None:
    turned = skeleton()
    turned["Skeleton"]["Joints"][4]["AttachThetaX"] = 0.5
    bare = skeleton()
    del bare["BodyDefs"][3]
    cases = {
        "tail": renamed(5, "tail"),
        "turned frame": turned,
        "right_hip": bare,
        "Skeleton.Joints": {},
        "broken JSON": b"{",
        "is missing": None,
    }
    for fault, body in cases.items():
        with pytest.raises(DataError, match=fault):
            read_archive(archive(tmp_path / "a.tar.xz", {"top/data/characters/humanoid3d.txt": body}, stroll=stroll()))


def test_a_seed_and_a_motion_always_give_the_same_bytes(tmp_path: Path) -> None:
    motion = made(tmp_path)
    clips = [render_motion(seed, motion, size=(60, 80), fps=6.0, seconds=4.0) for seed in (3, 3, 4)]
    assert clips[0].frames.tobytes() == clips[1].frames.tobytes()
    assert clips[0].frames.tobytes() != clips[2].frames.tobytes()
    clip = clips[0]
    assert (clip.label, clip.annotations[0].kind, clip.lying_s) == ("normal", "stroll", ())
    assert clip.caption in CAPTIONS.values()
    assert clip.frames.shape == (24, 60, 80, 3)
    assert clip.keypoints.shape == (24, 1, 17, 3)
    assert (clip.silhouettes == 1).any(axis=(1, 2)).mean() > 0.7


def test_room_and_person_are_those_of_the_seed(tmp_path: Path) -> None:
    ours = render_motion(12, made(tmp_path), size=(60, 80), fps=6.0, seconds=6.0)
    theirs = render_clip(12, "walk", size=(60, 80), fps=6.0, seconds=6.0)
    assert ours.identities[0] == theirs.identities[0]
    still = ~((ours.silhouettes > 0).any(0) | (theirs.silhouettes > 0).any(0))
    apart = np.abs(np.median(ours.frames, 0).astype(float) - np.median(theirs.frames, 0))[still].mean()
    assert apart < 3.0


def test_the_command_writes_clips_grouped_by_motion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = archive(tmp_path / "a.tar.xz", walk=stroll(), jump=stroll())
    out = tmp_path / "out"
    assert main(["--archive", str(path), "--out", str(out), "--clips", "2", "--size", "60x80", "--workers", "1"]) == 0
    with (out / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["label"], r["group"], r["note"]) for r in rows] == [("normal", n, n) for n in ("jump", "walk")]
    assert all(cv2.VideoCapture(str(out / r["file"])).read()[0] for r in rows)
    assert main(["--archive", str(tmp_path / "none"), "--out", str(out)]) == 1
    assert "give the path" in capsys.readouterr().err


def test_real_captures_are_the_twenty_under_mit(data_dir: Path) -> None:
    motions = real(data_dir)
    assert len(motions) == 20
    assert {"walk", "run", "crawl", "roll", "kick", "getup_facedown", "cartwheel"} <= motions.keys()


@pytest.mark.parametrize("name", ["walk", "run", "crawl", "getup_facedown", "kick", "dance_b"])
def test_real_captures_stand_on_the_floor_with_joints_bent_the_right_way(data_dir: Path, name: str) -> None:
    motion = real(data_dir)[name]
    for seed in (1, 2):
        body = draw_body(np.random.default_rng(seed), seed)
        joints, _ = pose(motion, body, np.arange(0, 6, 0.05))
        bottom = (joints[..., 2] - radii(body))[:, [i for n, i in JOINT.items() if n != "tail"]].min(1)
        assert bottom.min() > -1e-9
        assert np.median(bottom) < 0.02
        for side in "lr":
            # the knee lies before the line from hip to ankle, in the thigh's own plane: seen along the pelvis
            assert (ahead(joints, f"hip_{side}", f"ankle_{side}", f"knee_{side}") > -0.03 * body.height).mean() > 0.9


def test_a_real_walk_goes_where_the_body_looks_and_its_standing_foot_stays(data_dir: Path) -> None:
    joints, path = pose(real(data_dir)["walk"], BODY, np.arange(0, 5, 0.02))
    forward = joints[:, JOINT["nose"], :2] - joints[:, JOINT["head"], :2]
    assert ((np.diff(path, axis=0) * forward[1:]).sum(1) > 0).all()
    feet = [JOINT["toe_l"], JOINT["toe_r"], JOINT["heel_l"], JOINT["heel_r"]]
    low = (joints[:, feet, 2] - radii(BODY)[feet]).argmin(1)[:-1]
    slide = np.linalg.norm(np.diff(joints[:, feet, :2] + path[:, None], axis=0), axis=-1) / 0.02
    assert np.median(slide[np.arange(len(low)), low]) < 0.15  # metres a second, of about one that it walks


def test_a_real_get_up_ends_standing_and_never_goes_down_again(data_dir: Path) -> None:
    joints, _ = pose(real(data_dir)["getup_facedown"], BODY, np.arange(0, 12, 0.05))
    head = joints[:, JOINT["head"], 2]
    assert head[0] < 0.6
    assert head[70:].min() > 1.4
