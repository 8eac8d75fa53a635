"""What a signer signs and a device installs: one wrong byte, one wrong key or one failed check stops everything."""

from __future__ import annotations

import dataclasses
import fcntl
import io
import os
import shutil
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge_runtime.app import main as edge
from export.backends import builder
from export.backends.builder import Options
from export.bundle import main as bundle
from export.bundle import pack, unpack
from export.install import Place, install, main
from export.proof.structure import external_files, load_graph, save_graph
from export.proof.verify_graph import prove_folder
from tests.support.engine_factory import BROKEN_CORES, TRAP, make_edge_config, make_engine, put_weights_outside
from tests.support.fake_tensorrt import World
from tests.support.services import PATIENCE_S
from tests.support.signed_engine import KEY, OTHER, canonical, tree
from wire.artifact.engine_record import EngineRecord
from wire.artifact.manifest import FILES, EngineManifest
from wire.artifact.signature import sign_manifest
from wire.errors import EngineError, GraphError, ManifestError, PrivacyError, VeilsightError
from wire.protocol.keys import DeviceKey


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed engine folder in canonical form."""
    folder = tmp_path_factory.mktemp("made") / "engine"
    make_engine(folder)
    canonical(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "engine"))


# --- signatures and bundles


def test_a_signed_manifest_is_read_and_any_other_refused(folder: Path) -> None:
    assert EngineManifest.load(folder, KEY.public).model_id == EngineManifest.load(folder).model_id
    with pytest.raises(ManifestError, match="not the signature of PublicKey.*export.bundle"):
        EngineManifest.load(folder, OTHER.public)
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text + "\n")  # the same values, but not the bytes that were signed
    with pytest.raises(ManifestError, match="not the signature"):
        EngineManifest.load(folder, KEY.public)
    (folder / "manifest.json").write_text(text)
    good = (folder / "manifest.sig").read_bytes()
    number, digits = good.split()
    of_another_release, without = b"2 " + digits + b"\n", digits + b"\n"
    signed_else = b"1 " + KEY.sign((folder / "manifest.json").read_bytes()).hex().encode() + b"\n"
    assert number == b"1"
    for wrong in (b"", b"zz", b"00", of_another_release, without, signed_else, good + b"x", b"0" + good, b" " + good):
        (folder / "manifest.sig").write_bytes(wrong)
        with pytest.raises(ManifestError, match="signature"):
            EngineManifest.load(folder, KEY.public)
    (folder / "manifest.sig").unlink()
    with pytest.raises(ManifestError, match="no signature can be read"):
        EngineManifest.load(folder, KEY.public)


def test_a_bundle_is_unpacked_as_it_was_packed(folder: Path, tmp_path: Path) -> None:
    put_weights_outside(folder)
    canonical(folder)
    for name in ("a.tar", "b.tar"):
        pack(folder, KEY, tmp_path / name)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    unpack(tmp_path / "a.tar", tmp_path / "device", KEY.public)
    assert tree(tmp_path / "device") == tree(folder)
    assert {"encode.weights", "decide.weights", "manifest.sig"} <= set(tree(tmp_path / "device"))


def test_engine_files_are_not_packed(folder: Path, tmp_path: Path) -> None:
    for name in ("encode.engine", "engine.json", "parity.json", "timing.cache"):
        (folder / name).write_bytes(b"of another machine")
    pack(folder, KEY, tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as found:
        assert found.getnames()[:2] == ["manifest.json", "manifest.sig"]
        assert sorted(found.getnames()) == sorted([*FILES.values(), "manifest.json", "manifest.sig"])


def rewritten(file: Path, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], object]) -> None:
    with tarfile.open(file) as source:
        entries = [(entry, (source.extractfile(entry) or io.BytesIO()).read()) for entry in source]
    change(entries)
    with tarfile.open(file, "w") as target:
        for entry, data in entries:
            entry.size = len(data) if entry.isreg() else 0
            target.addfile(entry, io.BytesIO(data))


def _link(entries: list[Any]) -> None:
    entry = tarfile.TarInfo("certificate.json")
    entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
    entries[2] = (entry, b"")


def _outside(entries: list[Any]) -> None:
    entries[3] = (tarfile.TarInfo("../decide.onnx"), entries[3][1])


BUNDLES: dict[str, tuple[Callable[[Path], object], str]] = {
    "one byte of a graph": (
        lambda f: rewritten(f, lambda e: e.__setitem__(3, (e[3][0], e[3][1][:-1] + b"\x00"))),
        "sha256",
    ),
    "one byte of the manifest": (
        lambda f: rewritten(f, lambda e: e.__setitem__(0, (e[0][0], e[0][1].replace(b'"fp32"', b'"fp16"')))),
        "not the signature",
    ),
    "no signature": (lambda f: rewritten(f, lambda e: e.pop(1)), "expected the plain file 'manifest.sig'"),
    "a file too many": (lambda f: rewritten(f, lambda e: e.append((tarfile.TarInfo("x"), b"x"))), "holds more than"),
    "a file too few": (lambda f: rewritten(f, lambda e: e.pop()), "expected the plain file .*found its end"),
    "another order": (lambda f: rewritten(f, lambda e: e.reverse()), "expected the plain file 'manifest.json'"),
    "a link": (lambda f: rewritten(f, _link), "of type b'2'"),
    "a path that leads out": (lambda f: rewritten(f, _outside), r"found '\.\./decide\.onnx'"),
    "a huge signature": (
        lambda f: rewritten(f, lambda e: e.__setitem__(1, (e[1][0], bytes(2 << 20)))),
        "expected the plain file 'manifest.sig'",
    ),
    "half of it": (lambda f: f.write_bytes(f.read_bytes()[: f.stat().st_size // 2]), "is cut|expected the plain file"),
    "no tar": (lambda f: f.write_bytes(b"no tar" * 200), "is no bundle"),
    "nothing": (lambda f: f.write_bytes(b""), "is no bundle"),
    "no file": (lambda f: f.unlink(), "No such file"),
}


@pytest.mark.parametrize("what", BUNDLES)
def test_a_spoiled_bundle_changes_nothing_on_the_device(folder: Path, tmp_path: Path, what: str) -> None:
    spoil, says = BUNDLES[what]
    pack(folder, KEY, tmp_path / "a.tar")
    (tmp_path / "device").mkdir()
    (tmp_path / "device" / "manifest.json").write_text("the engine that runs")
    before = tree(tmp_path / "device")
    spoil(tmp_path / "a.tar")
    with pytest.raises(ManifestError, match=says):
        unpack(tmp_path / "a.tar", tmp_path / "device", KEY.public)
    assert tree(tmp_path / "device") == before
    assert not list(tmp_path.glob(".device-*"))


def test_what_is_not_proved_is_not_signed(tmp_path: Path) -> None:
    make_engine(tmp_path / "engine", core=TRAP)
    canonical(tmp_path / "engine")
    with pytest.raises(GraphError, match="Div"):
        pack(tmp_path / "engine", KEY, tmp_path / "a.tar")
    assert not (tmp_path / "a.tar").exists()


def test_the_command_makes_a_key_only_where_asked_to(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--engine", str(folder), "--key", str(tmp_path / "key"), "--out", str(tmp_path / "a.tar")]
    assert bundle(command) == 1
    assert "is not there; make one with --make-key" in capsys.readouterr().err
    assert bundle([*command, "--make-key"]) == 0
    output = capsys.readouterr().out
    public = (tmp_path / "key.pub").read_text().strip()
    assert f"signer     {public}" in output
    assert bundle([*command, "--make-key"]) == 1
    assert bundle(command) == 0
    (tmp_path / "key").chmod(0o644)
    assert bundle(command) == 1
    assert "lets others read it" in capsys.readouterr().err


# --- weights outside the graph


def test_large_weights_are_stored_outside_and_read_back(tmp_path: Path) -> None:
    make_engine(tmp_path / "whole")
    model = onnx.load(tmp_path / "whole" / "encode.onnx")
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    save_graph(model, tmp_path / "encode.onnx", inline_bytes=1000)
    assert external_files(model) == {"encode.weights"}
    after = onnx.load(tmp_path / "encode.onnx")
    assert all(np.array_equal(numpy_helper.to_array(t), before[t.name]) for t in after.graph.initializer)
    found = load_graph(tmp_path / "encode.onnx")
    outside = [tensor.name for tensor in found.graph.initializer if tensor.external_data]
    assert outside == ["weights"]  # small constants stay in the graph


def test_weights_that_the_manifest_does_not_pin_are_refused(folder: Path) -> None:
    manifest = put_weights_outside(folder)
    canonical(folder)
    assert any("every file has the hash" in sentence for sentence in prove_folder(folder, KEY.public))
    dataclasses.replace(EngineManifest.load(folder), external={}).save(folder)
    with pytest.raises(GraphError, match=r"outside the graphs are in \['decide.weights', 'encode.weights'\]"):
        list(prove_folder(folder))
    for name in ("manifest.json", "encode.onnx", "../x", ""):
        with pytest.raises(ManifestError, match="no name for a file of weights"):
            dataclasses.replace(manifest, external={name: "0"})


# --- the device


def place(folder: Path, backend: str = "onnxruntime", key: DeviceKey | None = KEY) -> Place:
    return Place(folder, key.public if key else None, backend, folder.parent / "cache")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A GPU whose builder returns the graph itself."""
    monkeypatch.setattr(builder, "build_engine_file", lambda trt, file, *_: (file.read_bytes(), b"timing"))
    return World()


def test_an_engine_is_made_tested_and_used_again(folder: Path, world: World) -> None:
    said: list[str] = []
    where = place(folder, "tensorrt")
    install(where, Options(), said.append, load=world.libraries)
    assert [line.split()[0] for line in said] == ["proved", "building:", "engines", "self-test"]
    assert "signed by PublicKey" in said[0] and "engines    made" in said[2] and "Orin (8.7)" in said[2]
    assert not world.live
    said.clear()
    install(where, Options(), said.append, load=world.libraries)
    assert "used again" in said[1] and len(said) == 3
    said.clear()
    install(where, Options(), said.append, load=World(version="10.4.0").libraries)
    assert said[1] == "building: tensorrt changed (10.3.0 -> 10.4.0)"


def test_the_cpu_needs_no_engine_files(folder: Path) -> None:
    said: list[str] = []
    install(place(folder), Options(), said.append)
    assert [line.split()[0] for line in said] == ["proved", "self-test"]
    assert not (folder.parent / "cache").exists()
    said.clear()
    install(place(folder, key=None), Options(), said.append)
    assert "unsigned" in said[0]


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "another signer": (lambda f: sign_manifest(f, OTHER), "not the signature"),
    "no signature": (lambda f: (f / "manifest.sig").unlink(), "no signature can be read"),
    "a changed graph": (lambda f: (f / "decide.onnx").write_bytes(b"x"), "sha256"),
    "a changed table": (lambda f: (f / "noise_table.bin").write_bytes(b"x"), "sha256"),
    "no certificate": (lambda f: (f / "certificate.json").unlink(), "certificate.json"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt"])
def test_nothing_is_built_unless_the_signer_signed_it(folder: Path, world: World, what: str, backend: str) -> None:
    spoil, says = REFUSED[what]
    spoil(folder)
    with pytest.raises(ManifestError, match=says):
        install(place(folder, backend), Options(), lambda text: None, load=world.libraries)
    assert not (folder.parent / "cache").exists() and not world.log


def test_a_graph_that_is_not_proved_is_not_built(tmp_path: Path, world: World) -> None:
    make_engine(tmp_path / "engine", core=TRAP)
    canonical(tmp_path / "engine")
    with pytest.raises(GraphError, match="Div"):
        install(place(tmp_path / "engine", "tensorrt"), Options(), lambda text: None, load=world.libraries)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("core", BROKEN_CORES)
def test_a_builder_that_breaks_the_core_is_caught_by_the_self_test(
    folder: Path, tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch, core: str
) -> None:
    """The graph is sound and proved; the file that the builder returns is not."""
    make_engine(tmp_path / "broken", core=core)
    file = tmp_path / "broken" / "encode.onnx"
    monkeypatch.setattr(builder, "build_engine_file", lambda *_: (file.read_bytes(), b""))
    with pytest.raises(PrivacyError, match="self-test"):
        install(place(folder, "tensorrt"), Options(), lambda text: None, load=world.libraries)
    assert not world.live


def test_a_device_without_tensorrt_is_refused(folder: Path) -> None:
    def absent() -> Any:
        raise EngineError("TensorRT is not installed for this Python")

    with pytest.raises(EngineError, match="not installed"):
        install(place(folder, "tensorrt"), Options(), lambda text: None, load=absent)


def test_the_command_reads_the_devices_configuration(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "signer.pub").write_text(KEY.public.hex + "\n")
    config = make_edge_config(tmp_path, engine=folder)
    config.write_text(config.read_text().replace("[engine]", '[engine]\nsigner = "signer.pub"'))
    assert main(["--config", str(config)]) == 0
    assert "held through onnxruntime" in capsys.readouterr().out
    sign_manifest(folder, OTHER)
    assert main(["--config", str(config)]) == 1
    assert "install: refused: " in capsys.readouterr().err
    assert edge(["--config", str(config)]) == 2  # the edge process checks again
    assert main([str(folder), "--backend", "abacus"]) == 1
    assert "expected onnxruntime or tensorrt" in capsys.readouterr().err
    assert main([]) == 1
    assert "either --config edge.toml or an engine folder" in capsys.readouterr().err


def test_the_command_accepts_a_bundle_of_its_signer(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(folder, KEY, tmp_path / "a.tar")
    command = [str(tmp_path / "device"), "--bundle", str(tmp_path / "a.tar")]
    assert main(command) == 1
    assert "who signed it?" in capsys.readouterr().err
    assert main([*command, "--signer", OTHER.public.hex]) == 1
    assert not (tmp_path / "device").exists()
    assert main([*command, "--signer", KEY.public.hex]) == 1
    assert "which engine was the last? Give --config, or --state" in capsys.readouterr().err
    assert main([*command, "--signer", KEY.public.hex, "--state", str(tmp_path / "state")]) == 0
    assert tree(tmp_path / "device") == tree(folder)


def test_every_refusal_is_a_veilsight_error(folder: Path, tmp_path: Path) -> None:
    """A cache that cannot be written, a record that is wrong: errors with a cure, never a traceback."""
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(VeilsightError, match="cannot be written|Not a directory"):
        install(place(folder, "tensorrt"), Options(), lambda text: None, load=World().libraries)
    with pytest.raises(EngineError):
        EngineRecord.load(tmp_path / "cache")


def test_two_checks_of_one_box_do_not_make_engine_files_at_once(folder: Path, world: World) -> None:
    """A second camera's check waits while the first one's has the folder, and then uses its files again."""
    cache, said = folder.parent / "cache", list[str]()
    cache.mkdir()
    held = os.open(cache, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    check = threading.Thread(
        target=lambda: install(place(folder, "tensorrt"), Options(), said.append, load=world.libraries)
    )
    check.start()
    check.join(0.5)
    assert check.is_alive() and not any(cache.iterdir())
    os.close(held)
    check.join(PATIENCE_S)
    assert not check.is_alive() and "engines    made" in said[2]
