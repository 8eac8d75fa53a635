"""People in clips: which frames are looked at, what the cache depends on, and pictures of all sizes and kinds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import pytest

from export.perceive.convert import convert
from export.perceive.weights import FOLDER, WHEEL, read_weights
from familial.data import people as people_module
from familial.data.clips import Clip, Footage, fill_cache, read_clip
from familial.data.people import PeopleOfClip, PersonNetwork, fitted, person_network
from familial.data.sources import manifest_clips
from familial.evaluate import __main__ as evaluate
from familial.evaluate.footage import picture_footage, rendered_footage
from familial.model.checkpoint import save
from familial.model.config import FamilyConfig, nano
from familial.model.family import Family
from familial.synth.clip import render_clip
from tests.support.clip_factory import cache_clips_in
from tests.support.family_factory import small_config
from wire.errors import CameraError, DataError, EngineError
from wire.people.decode import MOST_ENLARGED
from wire.people.packed import SCORE, UNIT, VALUES, nobody

SPEC = nano(("<pad>", "<end>")).window


def film(path: Path, seconds: float = 2.0, rate: float = 12.0, size: tuple[int, int] = (64, 48)) -> Path:
    """A black film whose first pixels say how bright each picture is."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), rate, size)
    for index in range(round(seconds * rate)):
        writer.write(np.full((size[1], size[0], 3), index % 200, np.uint8))
    writer.release()
    return path


class Counting:
    """In place of `PersonNetwork.people`: one person whose score says how many pictures came before."""

    def __init__(self) -> None:
        self.pictures: list[npt.NDArray[np.uint8]] = []

    def __call__(self, network: PersonNetwork, picture: npt.NDArray[np.uint8]) -> Any:
        rows = nobody(1)[0]
        rows[0, SCORE] = 500 + len(self.pictures)
        self.pictures.append(picture)
        return rows


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    made = Counting()
    monkeypatch.setattr(PersonNetwork, "people", lambda network, picture: made(network, picture))
    return made


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """A file that is read and hashed, not run."""
    file = tmp_path / "perceive.onnx"
    file.write_bytes(b"a graph")
    return file


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The true graph."""
    if not (FOLDER / WHEEL).is_file():
        pytest.skip(f"the person network's weights are not in {FOLDER}: scripts/setup --all gets them")
    file = tmp_path_factory.mktemp("perceive") / "perceive.onnx"
    onnx.save(convert(read_weights(), 192, 256), str(file))
    return file


@pytest.mark.parametrize("rate", [1.0, 6.0, 7.99, 8.0, 12.0, 15.0, 25.0, 29.97, 30.0])
def test_the_frames_looked_at_are_those_that_windows_hold(rate: float, graph: Path, counting: Counting) -> None:
    """At every tick from the start until nothing is held any more; and no frame beside those."""
    reader, count = PeopleOfClip(PersonNetwork(graph), rate), 50
    for index in range(count):
        reader.see(np.full((4, 4, 3), index, np.uint8))
    people, times = reader.found()
    of_frames = np.arange(count) / rate
    ticks = np.arange(0, count / rate + 3, 0.125)
    held, found = SPEC.held(of_frames, ticks), SPEC.held(times, ticks)
    assert np.array_equal(held < 0, found < 0)
    assert np.array_equal(of_frames[held[held >= 0]], times[found[found >= 0]])
    wanted = sorted({*SPEC.held(of_frames, np.arange(0, count / rate, 0.125)).tolist(), count - 1} - {-1})
    assert times.tolist() == of_frames[wanted].tolist()
    assert [int(picture[0, 0, 0]) for picture in counting.pictures] == wanted
    assert people[:, 0, SCORE].tolist() == list(range(500, 500 + len(wanted)))


def test_people_are_found_once_for_each_clip_graph_and_version(
    tmp_path: Path, graph: Path, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, cache = film(tmp_path / "a.avi"), tmp_path / "cache"
    first = read_clip(clip, SPEC, cache, graph)
    assert first.people is not None and first.people_times is not None
    assert first.people.shape == (len(first.people_times), 6, VALUES) and first.people.dtype == np.int16
    looked = len(counting.pictures)
    again = read_clip(clip, SPEC, cache, graph)
    assert len(counting.pictures) == looked
    assert np.array_equal(again.people, first.people) and np.array_equal(again.people_times, first.people_times)  # type: ignore[arg-type]
    copied = graph.with_name("copy.onnx")
    copied.write_bytes(graph.read_bytes())
    read_clip(clip, SPEC, cache, copied)
    assert len(counting.pictures) == looked  # the graph's bytes count, not its name
    graph.write_bytes(b"another graph")
    read_clip(clip, SPEC, cache, graph)
    assert len(counting.pictures) == 2 * looked
    monkeypatch.setattr(people_module, "PEOPLE_VERSION", 99)
    people_module._network.cache_clear()
    read_clip(clip, SPEC, cache, graph)
    assert len(counting.pictures) == 3 * looked
    read_clip(film(tmp_path / "b.avi", seconds=1.0), SPEC, cache, graph)
    assert len(counting.pictures) > 3 * looked


def test_people_do_not_depend_on_the_window_size(tmp_path: Path, graph: Path, counting: Counting) -> None:
    clip, cache = film(tmp_path / "a.avi"), tmp_path / "cache"
    read_clip(clip, SPEC, cache)
    assert not counting.pictures
    read_clip(clip, SPEC, cache, graph)
    assert counting.pictures[0].shape == (48, 64, 3)  # as the film has them, not the window's small frames
    assert len(list(cache.glob("people-*/*.npz"))) == 1


def test_nobody_asked_for_is_none(tmp_path: Path) -> None:
    footage = read_clip(film(tmp_path / "a.avi"), SPEC, None)
    assert footage.people is None and footage.people_times is None


def test_damaged_clips_are_named_with_a_network_too(tmp_path: Path, graph: Path, counting: Counting) -> None:
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(DataError, match=r"noise\.mp4: no frame could be decoded"):
        read_clip(tmp_path / "noise.mp4", SPEC, None, graph)
    with pytest.raises(DataError, match=r"gone\.mp4: not readable"):
        fill_cache([tmp_path / "gone.mp4"], SPEC, tmp_path / "cache", graph)
    assert not counting.pictures


def test_a_missing_graph_names_the_command_that_makes_it(tmp_path: Path) -> None:
    clip = film(tmp_path / "a.avi")
    with pytest.raises(EngineError, match=r"nowhere\.onnx: .*not there; make it: python -m export\.perceive"):
        read_clip(clip, SPEC, tmp_path / "cache", tmp_path / "nowhere.onnx")
    with pytest.raises(EngineError, match="cannot be read .*make it"):
        person_network(tmp_path)
    assert not (tmp_path / "cache").exists()


def test_another_graph_is_refused_with_its_interface(tmp_path: Path, graph: Path) -> None:
    clip = film(tmp_path / "a.avi")
    with pytest.raises(EngineError, match="ONNX Runtime cannot load it .*make it"):
        read_clip(clip, SPEC, None, graph)
    value = onnx.helper.make_tensor_value_info
    frames, made = value("frames", onnx.TensorProto.FLOAT, [1, 4]), value("mu", onnx.TensorProto.FLOAT, [1, 4])
    node = onnx.helper.make_node("Relu", ["frames"], ["mu"])
    other = onnx.helper.make_model(
        onnx.helper.make_graph([node], "other", [frames], [made]),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=10,
    )
    graph.write_bytes(other.SerializeToString())
    with pytest.raises(EngineError, match=r"frames.*it is not the person network, which takes frame uint8"):
        read_clip(clip, SPEC, None, graph)


def test_training_clips_keep_their_people_where_frames_are_thinned(
    tmp_path: Path, graph: Path, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, cache = film(tmp_path / "a.avi", rate=30.0), tmp_path / "cache"
    cache_clips_in(cache, monkeypatch)
    (made,) = manifest_clips([Clip(file, "a", "fall", "home", "g", "")], ("normal", "fall"), SPEC, perceive=graph)
    whole: Footage = read_clip(file, SPEC, cache, graph)
    assert len(made.footage.frames) < len(whole.frames)
    assert np.array_equal(made.footage.people, whole.people)  # type: ignore[arg-type]
    assert np.array_equal(made.footage.people_times, whole.people_times)  # type: ignore[arg-type]


@pytest.fixture
def fused(tmp_path: Path) -> Path:
    """The checkpoint of an untrained family that sees people."""
    save(Family(replace(small_config(), tower="fused", people_width=16)), tmp_path / "fused")
    return tmp_path / "fused"


def test_a_family_that_sees_people_is_evaluated_on_them(
    tmp_path: Path,
    fused: Path,
    graph: Path,
    counting: Counting,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cache_clips_in(tmp_path / "cache", monkeypatch)
    films = [film(tmp_path / f"{label}.avi", seconds) for label, seconds in (("normal", 2.0), ("fall", 3.0))]
    rows = [f"{each.name},{each.stem},home,{each.stem}," for each in films]
    (tmp_path / "manifest.csv").write_text("\n".join(["file,label,set,group,note", *rows]) + "\n")
    asked = ["--checkpoint", str(fused), "--data", str(tmp_path / "manifest.csv"), "--noise-samples", "1"]
    assert evaluate.main([*asked, "--perceive", str(tmp_path / "nowhere.onnx")]) == 2
    assert "nowhere.onnx: the person network's graph is not there" in capsys.readouterr().err
    assert evaluate.main([*asked, "--perceive", str(graph)]) == 0
    assert len(counting.pictures) == 17 + 25


def test_rendered_pictures_are_read_as_a_film_is(fused: Path, graph: Path, counting: Counting) -> None:
    config = FamilyConfig.load(fused / "config.json")
    pictures = np.stack([np.full((48, 64, 3), index, np.uint8) for index in range(24)])
    footage = picture_footage(pictures, 12.0, config, graph)
    assert footage.people is not None and footage.people_times is not None
    assert footage.duration == 2.0 and footage.frames[:, 0, 0].tolist() == list(range(24))
    at = [int(picture[0, 0, 0]) for picture in counting.pictures]
    assert footage.people_times.tolist() == [index / 12 for index in at] and len(at) == 17
    assert picture_footage(pictures, 12.0, small_config(), graph.with_name("nowhere.onnx")).people is None


def test_many_missing_clips_are_read_by_several_processes(tmp_path: Path) -> None:
    files = [film(tmp_path / f"{index}.avi", seconds=0.5 + index / 12) for index in range(17)]
    fill_cache(files, SPEC, tmp_path / "cache", processes=2)
    assert len(list((tmp_path / "cache" / "clips").glob("*.npz"))) == 17


def test_long_reading_says_how_far_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("familial.data.clips._SAY_S", -1.0)
    files = [film(tmp_path / f"{index}.avi", seconds=1 + index) for index in range(2)]
    fill_cache(files, SPEC, tmp_path / "cache")
    assert capsys.readouterr().out.startswith("read 1/2 clips in ")
    fill_cache(files, SPEC, tmp_path / "cache")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("size", [(1, 1), (24, 32), (48, 30), (95, 100), (5, 900), (900, 5)])
def test_a_clip_is_enlarged_as_far_as_needed_and_a_camera_is_not(size: tuple[int, int]) -> None:
    frame = fitted(np.full((*size, 3), 9, np.uint8))
    assert frame.shape == (192, 256, 3) and frame[0, 0].tolist() == [9, 9, 9]
    assert frame[-1].any() or frame[:, -1].any()  # one side is filled
    if max(size[0] / 192, size[1] / 256) < 0.5:
        with pytest.raises(CameraError, match="too small for the person network"):
            fitted(np.zeros((*size, 3), np.uint8), most_enlarged=MOST_ENLARGED)


def test_a_grey_picture_fits_too() -> None:
    assert (fitted(np.full((192, 256), 7, np.uint8)) == 7).all()


def test_an_all_black_clip_has_nobody(tmp_path: Path, network: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 8.0, (320, 240))
    for _ in range(3):
        writer.write(np.zeros((240, 320, 3), np.uint8))
    writer.release()
    people = read_clip(tmp_path / "a.avi", SPEC, None, network).people
    assert people is not None and people.shape == (3, 6, VALUES) and not people.any()


def test_somebody_is_found_in_a_rendered_clip_and_where_they_are(tmp_path: Path, network: Path) -> None:
    """A strip of the same pictures, which gets a margin in the network's frame, shows the same person at that place."""
    clips, found = [render_clip(seed, size=(240, 320), fps=1.0, seconds=8.0) for seed in (7, 11, 14)], []
    for name, rows in (("whole", slice(0, 240)), ("strip", slice(30, 210))):
        high = rows.stop - rows.start
        writer = cv2.VideoWriter(str(tmp_path / f"{name}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 8.0, (320, high))
        for clip in clips:
            for picture in clip.frames:
                writer.write(picture[rows])
        writer.release()
        people = read_clip(tmp_path / f"{name}.avi", SPEC, None, network).people
        assert people is not None
        found.append(people[:, 0].astype(np.float64) / UNIT * 320)  # the surest of each picture, in its pixels
    whole, strip = found
    sure = (whole[:, SCORE] > 0.25 * 320) & (strip[:, SCORE] > 0.25 * 320)
    assert sure.any()
    joints = (whole[sure, :51] - strip[sure, :51]).reshape(-1, 17, 3)
    assert np.median(joints[..., 0]) == pytest.approx(30, abs=4)
    assert np.median(joints[..., 1]) == pytest.approx(0, abs=4)


def test_rendered_clips_are_read_as_in_training_with_people() -> None:
    """Everybody who is planned is found most of the time, frame by frame, and the same clip has the same errors."""
    config, how = replace(small_config(), tower="fused"), {"size": (60, 80), "fps": 8.0, "seconds": 10.0}
    footage, clip = rendered_footage(3, "walk", config, **how)  # type: ignore[arg-type]
    assert footage.people is not None and footage.people_times is not None
    assert len(footage.people) == len(footage.frames) == len(clip.frames) == 80
    assert (footage.people[..., SCORE] > 0).any(axis=1).mean() > 0.3
    again, _ = rendered_footage(3, "walk", config, **how)  # type: ignore[arg-type]
    assert np.array_equal(np.asarray(again.people), footage.people)
    alone, _ = rendered_footage(3, "walk", replace(config, tower="snippets"), **how)  # type: ignore[arg-type]
    assert alone.people is None and np.array_equal(alone.frames, footage.frames)


def test_a_held_picture_holds_its_people() -> None:
    config = replace(small_config(), tower="fused")
    footage, _ = rendered_footage(3, "walk", config, size=(60, 80), fps=8.0, seconds=10.0, still=True)
    assert footage.people is not None
    assert (footage.frames == footage.frames[0]).all() and (footage.people == footage.people[0]).all()
