"""Small Debian packages for tests: made wheels and a made engine in place of the pinned ones, by the real builder.

with made_wheels(tmp_path / "wheels") as folder: runtime("3.10", folder)
packages = make_packages(tmp_path)
"""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import onnx

from firmware_configs import wheels
from firmware_configs.debian import engine, opencv, runtime, save, units
from tests.support.engine_factory import make_engine
from wire.artifact.manifest import EngineManifest, sha256_file
from wire.artifact.signature import sign_manifest
from wire.protocol.keys import DeviceKey

__all__ = ["EPOCH", "SIGNER", "make_packages", "make_signed_engine", "make_wheel", "made_wheels"]

SIGNER = DeviceKey(bytes(range(32)))
EPOCH = 1_700_000_000


def make_wheel(folder: Path, name: str, tag: str, files: dict[str, str], metadata: str) -> str:
    """Write `name`-1.0-`tag`.whl; the line of it as sha256sum prints it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-1.0-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**files, f"{name}-1.0.dist-info/METADATA": metadata}.items():
            archive.writestr(zipfile.ZipInfo(file), text)  # without the time of day
    return f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}"


@contextmanager
def made_wheels(folder: Path, **more: dict[str, str]) -> Iterator[Path]:
    """Constraints that pin three small wheels, and those of `more`: name -> files; the folder of the wheels."""
    licence = "Name: x\nLicense-Expression: MIT\n"
    numeric = {"numeric/__init__.py": "ONE = 1\n", "numeric/__pycache__/x.pyc": "old", "numeric/core.so": "arm64"}
    lines = [
        *(
            make_wheel(folder, "numeric", f"cp3{k}-cp3{k}-manylinux2014_aarch64", numeric, licence)
            for k in (10, 11, 12)
        ),
        make_wheel(folder, "plain", "py3-none-any", {"plain.py": "TWO = 2\n"}, "License: Copyright of many\n"),
        make_wheel(folder, "opencv_python_headless", "cp37-abi3-any", {"cv2/__init__.py": ""}, licence),
        *(make_wheel(folder, name, "py3-none-any", files, licence) for name, files in more.items()),
    ]
    pinned = ["numeric", "plain", "opencv-python-headless", *more]
    (folder / "pins.txt").write_text("".join(f"{name}==1.0\n" for name in pinned))
    (folder / "hashes.txt").write_text("# made\n" + "\n".join(lines) + "\n")
    with mock.patch.multiple(wheels, _PINS=folder / "pins.txt", _HASHES=folder / "hashes.txt"):
        yield folder


def make_signed_engine(folder: Path, release: int = 7) -> Path:
    """A signed engine folder whose graphs are written as `export.build_engine` writes them."""
    make_engine(folder, size=16)
    for part in ("encode", "decide"):
        model = onnx.load(folder / f"{part}.onnx")
        (folder / f"{part}.onnx").write_bytes(model.SerializeToString(deterministic=True))
    manifest = EngineManifest.load(folder)
    pinned = {part: sha256_file(folder / f"{part}.onnx") for part in ("encode", "decide")}
    dataclasses.replace(manifest, hashes={**manifest.hashes, **pinned}).save(folder)
    sign_manifest(folder, SIGNER, release)
    return folder


def make_packages(place: Path, python: str = "3.10") -> Path:
    """All four packages in `place`/packages, with an engine in `place`/engine that SIGNER signed; their folder."""
    out = place / "packages"
    out.mkdir()
    with made_wheels(place / "wheels") as folder:
        made = [runtime(python, folder), opencv(python, folder), units()]
    for package in (*made, engine(make_signed_engine(place / "engine"), SIGNER.public)):
        save(package, out, EPOCH)
    return out
