"""The manifest pins every file of its folder, and every change to it is noticed."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.engine_factory import make_engine, make_noise_table
from wire.artifact.manifest import FILES, EngineManifest, sha256_file
from wire.errors import CertificateError, ManifestError, NoiseError
from wire.people.decode import HEADS
from wire.people.packed import VALUES
from wire.people.tracks import TRACKS
from wire.privacy.certificate import Certificate
from wire.privacy.noise_table import NoiseTable


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine")
    make_engine(folder)
    return folder


@pytest.fixture
def engine(made: Path, tmp_path: Path) -> Path:
    """A whole engine folder of this test's own."""
    return Path(shutil.copytree(made, tmp_path / "engine"))


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads((folder / "manifest.json").read_text())
    change(document)
    (folder / "manifest.json").write_text(json.dumps(document))


def test_a_folder_agrees_with_its_own_manifest(engine: Path) -> None:
    manifest = EngineManifest.load(engine)
    manifest.check(engine)
    assert manifest.certificate() == Certificate.from_json((engine / FILES["certificate"]).read_text())
    assert EngineManifest.from_json(manifest.to_json()).model_id == manifest.model_id
    assert 0 <= manifest.model_id < 2**64


@pytest.mark.parametrize("name", FILES.values())
def test_a_file_that_was_changed_is_refused(engine: Path, name: str) -> None:
    data = bytearray((engine / name).read_bytes())
    data[len(data) // 2] ^= 1
    (engine / name).write_bytes(data)
    with pytest.raises(ManifestError, match="build the engine again"):
        EngineManifest.load(engine).check(engine)


@pytest.mark.parametrize("name", [*FILES.values(), "manifest.json"])
def test_a_file_that_is_missing_is_refused(engine: Path, name: str) -> None:
    (engine / name).unlink()
    with pytest.raises(ManifestError, match=name):
        EngineManifest.load(engine).check(engine)


def paths(document: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(document, dict):
        return [path]
    return [leaf for key, value in document.items() for leaf in paths(value, (*path, key))]


def other(value: Any) -> Any:
    if isinstance(value, str):
        return value + "1"
    if isinstance(value, list):
        return [*value[:-1], other(value[-1])]
    return 1 if value is None else value + 1


def test_no_field_can_be_changed_unnoticed(engine: Path) -> None:
    """Each change is refused when it is read or checked, or gives another model id, whose messages are refused."""
    manifest = EngineManifest.load(engine)
    document = json.loads(manifest.to_json())
    for path in paths(document):
        changed = copy.deepcopy(document)
        table = changed
        for key in path[:-1]:
            table = table[key]
        table[path[-1]] = other(table[path[-1]])
        try:
            found = EngineManifest.from_json(json.dumps(changed))
            found.check(engine)
        except ManifestError:
            continue
        assert found.model_id != manifest.model_id, path


def test_an_engine_whose_graph_reads_noise_is_refused_with_the_cure(engine: Path) -> None:
    """Manifests of version 3 say that `encode` takes noise; no edit of the number alone makes one of this version."""

    def former(document: dict[str, Any]) -> None:
        code = ["int32", [1, document["tokens"], document["width"]]]
        document["graphs"]["encode"]["inputs"]["noise"] = code
        document["graphs"]["encode"]["outputs"] = {"z": code}

    assert EngineManifest.load(engine).graphs()["encode"]["inputs"].keys() == {"frames"}
    edit(engine, former)
    with pytest.raises(ManifestError, match=r"graphs is not what the other fields give; build the engine again"):
        EngineManifest.load(engine)
    edit(engine, lambda document: document.update(version=3))
    with pytest.raises(ManifestError, match=r"version is 3, this software reads version 5; build the engine again"):
        EngineManifest.load(engine)


@pytest.mark.parametrize("key", ["clip_norm", "sigma", "window", "tokens", "width", "event_releases", "hashes"])
def test_a_changed_privacy_parameter_is_refused(engine: Path, key: str) -> None:
    def change(document: dict[str, Any]) -> None:
        value = document[key]
        if key == "window":
            value["hold_s"] += 0.5
        elif key == "hashes":
            value["noise_table"] = "0" * 64
        else:
            document[key] = str(Fraction(value) * 2) if key == "sigma" else value * 2

    edit(engine, change)
    with pytest.raises(ManifestError):
        EngineManifest.load(engine).check(engine)


def test_an_edited_certificate_is_refused_even_with_its_hash_in_the_manifest(engine: Path) -> None:
    """Someone edits the certificate and pins the edit: it is still not what C and sigma give."""
    file = engine / FILES["certificate"]
    document = json.loads(file.read_text())
    document["event"]["bits"] = 0.1
    file.write_text(json.dumps(document))
    edit(engine, lambda manifest: manifest["hashes"].update(certificate=sha256_file(file)))
    with pytest.raises(CertificateError, match=r"certificate\.event\.bits"):
        EngineManifest.load(engine).check(engine)


def test_a_certificate_of_another_engine_is_refused_even_with_its_hash(engine: Path, tmp_path: Path) -> None:
    make_engine(tmp_path / "strict", sigma=Fraction(100))
    shutil.copy(tmp_path / "strict" / FILES["certificate"], engine)
    file = engine / FILES["certificate"]
    edit(engine, lambda manifest: manifest["hashes"].update(certificate=sha256_file(file)))
    with pytest.raises(ManifestError, match="not what C, sigma and the cadence"):
        EngineManifest.load(engine).check(engine)


def test_a_table_for_another_sigma_is_refused_even_with_its_hash(engine: Path) -> None:
    file = engine / FILES["noise_table"]
    make_noise_table(Fraction(8)).save(file)
    edit(engine, lambda manifest: manifest["hashes"].update(noise_table=sha256_file(file)))
    with pytest.raises(ManifestError, match="made for sigma 8"):
        EngineManifest.load(engine).check(engine)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(surprise=1),
        lambda d: d.pop("labels"),
        lambda d: d["window"].update(surprise=1),
        lambda d: d["hashes"].pop("checkpoint"),
        lambda d: d.update(labels=["fall", "fall"]),
        lambda d: d.update(tokens=0),
        lambda d: d["window"].update(hold_s=0),
        lambda d: d.update(clip_norm=2**20),
        lambda d: d.update(version=1),
        lambda d: d.update(sigma="1/0"),
    ],
)
def test_a_manifest_with_a_faulty_field_is_refused(engine: Path, change: Callable[[dict[str, Any]], None]) -> None:
    edit(engine, change)
    with pytest.raises(ManifestError):
        EngineManifest.load(engine)


def test_a_manifest_of_the_version_before_is_refused_with_the_cure(engine: Path) -> None:
    """It has no `person_frame`."""

    def change(document: dict[str, Any]) -> None:
        document.update(version=4)
        del document["person_frame"], document["requires"]

    edit(engine, change)
    cure = r"version is 4, this software reads version 5; build the engine again: python -m export\.build_engine"
    with pytest.raises(ManifestError, match=cure):
        EngineManifest.load(engine)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "3", "\udcff", "[" * 100_000])
def test_other_text_than_a_manifest_is_refused(engine: Path, text: str) -> None:
    (engine / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ManifestError):
        EngineManifest.load(engine)


def test_a_noise_table_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    table = make_noise_table(Fraction(4))
    table.save(tmp_path / "table.bin")
    again = NoiseTable.load(tmp_path / "table.bin", sha256_file(tmp_path / "table.bin"))
    assert again.sigma == 4 and np.array_equal(again.high, table.high) and np.array_equal(again.low, table.low)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"X" + data[1:],
        lambda data: data[:16] + bytes(8) + data[24:],
        lambda data: data[:32] + data[40:48] + data[32:40] + data[48:],
    ],
    ids=["empty", "cut", "longer", "magic", "denominator", "order"],
)
def test_a_spoiled_noise_table_is_refused(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    file = tmp_path / "table.bin"
    file.write_bytes(spoil(make_noise_table(Fraction(4)).to_bytes()))
    with pytest.raises(NoiseError):
        NoiseTable.load(file)


def test_a_noise_table_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    make_noise_table(Fraction(4)).save(tmp_path / "table.bin")
    with pytest.raises(NoiseError, match="not the pinned one"):
        NoiseTable.load(tmp_path / "table.bin", "0" * 64)


@pytest.fixture
def seeing(tmp_path: Path) -> Path:
    """An engine folder with a person network."""
    make_engine(tmp_path / "seeing", person_frame=(64, 96))
    return tmp_path / "seeing"


def test_a_folder_with_a_person_network_says_how_large_its_frame_is_and_what_encode_reads(seeing: Path) -> None:
    manifest = EngineManifest.load(seeing)
    manifest.check(seeing)
    graphs, frames = manifest.graphs(), manifest.window.frames
    assert manifest.person_frame == (64, 96)
    assert graphs["perceive"]["inputs"] == {"frame": ["uint8", [1, 64, 96, 3]]}
    assert graphs["perceive"]["outputs"] == {name: ["float32", [1, count, 16, 24]] for name, count in HEADS.items()}
    assert graphs["encode"]["inputs"]["people"] == ["int32", [1, frames, TRACKS, VALUES]]
    assert EngineManifest.from_json(manifest.to_json()) == manifest


def test_without_a_person_network_nothing_of_it_is_in_the_manifest(engine: Path) -> None:
    manifest = EngineManifest.load(engine)
    assert manifest.person_frame is None and manifest.files == FILES
    assert manifest.graphs().keys() == {"encode", "decide"}
    assert manifest.graphs()["encode"]["inputs"].keys() == {"frames"}


def test_a_person_network_that_was_changed_or_is_missing_is_refused(seeing: Path) -> None:
    manifest, file = EngineManifest.load(seeing), seeing / "perceive.onnx"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    for read in (manifest.check, lambda folder: manifest.read_graph(folder, "perceive")):
        with pytest.raises(ManifestError, match=r"perceive\.onnx: sha256 .* build the engine again"):
            read(seeing)
    with pytest.raises(ManifestError, match=r"perceive\.onnx: sha256"), manifest.open_verified(seeing):
        pass
    file.unlink()
    with pytest.raises(ManifestError, match=r"perceive\.onnx"):
        manifest.check(seeing)


def test_the_private_copy_holds_every_graph(seeing: Path) -> None:
    manifest = EngineManifest.load(seeing)
    with manifest.open_verified(seeing) as copy:
        assert {file.name for file in copy.iterdir()} == {"perceive.onnx", "encode.onnx", "decide.onnx"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(person_frame=[64, 90]), "person_frame is 64 x 90; both sides must be multiples of 32"),
        (lambda d: d.update(person_frame=[0, 64]), "person_frame is 0 x 64"),
        (lambda d: d.update(person_frame=[64, 4096]), "person_frame is 64 x 4096"),
        (lambda d: d.update(person_frame=[64]), "unreadable"),
        (lambda d: d.update(person_frame=None), "hashes.perceive is there, but person_frame is null"),
        (lambda d: d["hashes"].pop("perceive"), "hashes: perceive missing"),
        (lambda d: d.update(person_frame=[96, 64]), "graphs is not what the other fields give"),
    ],
)
def test_a_person_network_that_contradicts_itself_is_refused(
    seeing: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    edit(seeing, change)
    with pytest.raises(ManifestError, match=words):
        EngineManifest.load(seeing)
