"""An engine folder as one signed file, which a signer makes and a device unpacks.

    engine folder --prove--> manifest.json --signer's key--> manifest.sig --tar--> FILE.tar
    FILE.tar --signature, then every hash--> engine folder, in place of the one that is there

The manifest holds the hash of every other file, so one signature covers all of them, and the number of the release.
A bundle is a plain tar in a fixed order, manifest and signature first: nothing else is read before both are verified.
A GPU's engine files are not packed.

    python -m export.bundle --engine DIR --key KEY --out FILE.tar [--release N]        (--make-key: make KEY first)
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from export.proof.verify_graph import prove_folder
from wire.artifact.manifest import EngineManifest
from wire.artifact.signature import SIGNATURE, sign_manifest, signed_release
from wire.errors import ConfigError, ManifestError, VeilsightError
from wire.files import whole_file
from wire.protocol.keys import DeviceKey, PublicKey

__all__ = ["main", "pack", "replace_folder", "unpack"]

_FIRST = ("manifest.json", SIGNATURE)
_SMALL = 1 << 20  # bytes; the first two files are shorter


def _names(manifest: EngineManifest) -> list[str]:
    return [*_FIRST, *sorted({*manifest.files.values(), *manifest.external})]


def pack(engine: Path, key: DeviceKey, out: Path, release: int = 1) -> EngineManifest:
    """Prove and sign an engine folder, and write its bundle: the same bytes for the same folder, key and release.

    Args:
        engine: The engine folder.
        key: The signer's.
        out: The bundle.
        release: Larger than that of every bundle before: devices refuse to go back.

    Raises:
        ManifestError, GraphError: A hash of the folder is wrong, or a graph is not proved.
        ConfigError: `out` cannot be written.
    """
    for _ in prove_folder(engine):
        pass
    manifest = EngineManifest.load(engine)
    sign_manifest(engine, key, release)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(out) as part, tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as bundle:
            for name in _names(manifest):
                bundle.add(engine / name, name, filter=_plain)
    except (OSError, tarfile.TarError) as error:
        raise ConfigError(f"--out {out}: cannot be written ({error}); free space there, or choose another") from error
    return manifest


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Remove from a tar entry what describes the machine that packed it."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime, entry.mode = 0, 0o644
    return entry


def unpack(
    file: Path, folder: Path, signer: PublicKey, accept: Callable[[EngineManifest, int], None] = lambda *_: None
) -> EngineManifest:
    """Put the engine folder of a bundle that `signer` signed in place of `folder`.

    Args:
        file: The bundle.
        folder: The engine folder.
        signer: Who must have signed it.
        accept: Is given the manifest and the release, both verified, before anything is changed; it raises to refuse.

    Raises:
        ManifestError: The bundle is damaged, incomplete or signed by somebody else; `folder` is unchanged.
    """
    cure = "fetch it again from its signer"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        free, size = shutil.disk_usage(folder.parent).free, file.stat().st_size
        if free < size:
            raise ManifestError(f"{file}: {size >> 20} MB, but {free >> 20} MB free at {folder.parent}; free some")
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
            made = Path(scratch) / "engine"
            made.mkdir()
            with tarfile.open(file, "r:") as bundle:
                for name in _FIRST:
                    _extract(bundle, name, made, _SMALL)
                manifest = EngineManifest.load(made, signer)
                accept(manifest, signed_release(made, signer))
                for name in _names(manifest)[len(_FIRST) :]:
                    _extract(bundle, name, made, size)
                if bundle.next() is not None:
                    raise ManifestError(f"{file}: holds more than its manifest names; {cure}")
            manifest.check(made)
            os.sync()  # a power cut after the folder is in its place finds all of it
            replace_folder(made, folder, Path(scratch) / "before")
    except tarfile.TarError as error:
        raise ManifestError(f"{file}: is no bundle, or is cut ({error}); {cure}") from error
    except OSError as error:
        raise ManifestError(f"{error.filename or file}: {error.strerror or error}; {cure}") from error
    return manifest


def _extract(bundle: tarfile.TarFile, name: str, folder: Path, most: int) -> None:
    """Write the next entry, which must be the plain file `name` of at most `most` bytes, into `folder`."""
    entry = bundle.next()
    if entry is None or entry.name != name or entry.type != tarfile.REGTYPE or not 0 <= entry.size <= most:
        found = "its end" if entry is None else f"{entry.name!r} of type {entry.type!r}, {entry.size} bytes"
        raise ManifestError(f"bundle: expected the plain file {name!r}, found {found}; fetch it again")
    source = bundle.extractfile(entry)
    if source is None:
        raise ManifestError(f"bundle: {name!r} has no content; fetch it again")
    with source, (folder / name).open("xb") as target:
        shutil.copyfileobj(source, target)


def replace_folder(made: Path, out: Path, before: Path) -> None:
    """Rename the folder `made` to `out`. An old `out` is renamed to `before`, and back again if that fails."""
    if out.exists():
        out.rename(before)
    try:
        made.rename(out)
    except BaseException:
        if before.exists():
            before.rename(out)
        raise


def _signers_key(path: Path, make: bool) -> DeviceKey:
    """The key at `path`. A new one is made only where asked for, so that no mistyped path signs with an unknown key."""
    if make == path.exists():
        state = "is there already; leave --make-key out" if make else "is not there; make one with --make-key"
        raise ConfigError(f"--key {path} {state}")
    return DeviceKey.load_or_make(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m export.bundle", description="Sign an engine folder and pack it.")
    parser.add_argument("--engine", type=Path, required=True, help="engine folder, such as build/engines/nano")
    parser.add_argument("--key", type=Path, required=True, help="the signer's key: 32 bytes, mode 0600")
    parser.add_argument("--make-key", action="store_true", help="make the key, with its public half in KEY.pub")
    parser.add_argument("--out", type=Path, required=True, help="the bundle to write")
    parser.add_argument("--release", type=int, help="larger than the last one's (default: seconds since 1970)")
    args = parser.parse_args(argv)
    release = int(time.time()) if args.release is None else args.release
    try:
        key = _signers_key(args.key, args.make_key)
        manifest = pack(args.engine, key, args.out, release)
    except VeilsightError as error:
        print(f"bundle: {error}", file=sys.stderr)
        return 1
    size = args.out.stat().st_size
    model = f"model {manifest.model_id:016x}, {manifest.precision}, release {release}"
    print(f"bundle     {args.out}, {size / 1000:,.0f} kB, {model}")
    print(f"signer     {key.public.hex}")
    print("devices    [engine] signer = that line, or a file that holds it; python -m export.install --bundle FILE")
    return 0


if __name__ == "__main__":
    sys.exit(main())
