"""Makes a signed bundle of a root file system, on a build host, by `rauc bundle`.

    rootfs.ext4 + release, floor --> manifest.raucm, release.json --rauc: signed by KEY--> FILE.raucb

    python -m firmware_configs.update.bundle --board orin-nano --image rootfs.ext4 --release 7 --floor 5
        --cert update.cert.pem --key update.key.pem --keyring update.ca.pem --out veilsight-7.raucb

The image is the same for every device of a board: it holds no configuration, secret or account of one. A device takes
it where its Jetson Linux is the board's row's: bootloader and kernel drivers stay as they were flashed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from firmware_configs.boards import BOARDS, Board, board
from firmware_configs.update.machine import run_command
from firmware_configs.update.release import IMAGE, MOST_BYTES, NOTE, Release
from wire.errors import ConfigError, VeilsightError

__all__ = ["FORMATS", "compatible", "main", "make"]

FORMATS = ("verity", "plain")
"""Of RAUC: verity needs dm-verity in the device's kernel, and checks each block when it is read; plain checks first."""
_CHUNK = 1 << 20
_BUNDLE_S = 3600.0


def compatible(row: Board) -> str:
    """What RAUC compares between a bundle and a device: the board and its Jetson Linux."""
    return f"veilsight-{row.name}-l4t-{row.l4t}"


def make(
    row: Board,
    image: Path,
    out: Path,
    release: int,
    floor: int,
    signing: tuple[Path, Path, Path],
    kind: str = FORMATS[0],
) -> Release:
    """Write a bundle.

    Args:
        row: The board whose devices may take it.
        image: An ext4 file system, as a file.
        out: The bundle; its name ends in .raucb.
        release: Larger than that of every bundle before.
        floor: The lowest release that may run once this one is kept.
        signing: Certificate, private key, and the certificates that devices believe (PEM).
        kind: One of FORMATS.

    Returns:
        What the bundle says of itself.

    Raises:
        ConfigError: A file is missing, is no ext4 file system, or `out` is there already.
        UpdateError: A number is out of range, or rauc refuses.
    """
    cert, key, keyring = signing
    if out.exists() or out.suffix != ".raucb":
        raise ConfigError(f"--out {out} exists or does not end in .raucb; choose another")
    for file in (image, *signing):
        if not file.is_file():
            raise ConfigError(f"{file} is no file; give its path")
    found = Release(release, floor, image.stat().st_size, _digest(image))
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=out.parent) as place:
        content = Path(place)
        _link_or_copy(image, content / IMAGE)
        (content / NOTE).write_text(found.to_json())
        (content / "manifest.raucm").write_text(
            f"[update]\ncompatible={compatible(row)}\nversion={release}\n\n[bundle]\nformat={kind}\n\n"
            f"[image.rootfs]\nfilename={IMAGE}\n"
        )
        keys = [f"--cert={cert}", f"--key={key}", f"--keyring={keyring}"]
        run_command(["rauc", *keys, "bundle", str(content), str(out)], _BUNDLE_S)
    return found


def _digest(image: Path) -> str:
    """SHA-256 of an ext4 image. Raises ConfigError where it is none, or is too large."""
    digest, size = hashlib.sha256(), image.stat().st_size
    with image.open("rb") as file:
        head = file.read(2048)
        if size > MOST_BYTES or head[1080:1082] != b"\x53\xef":
            raise ConfigError(f"--image {image}: {size} bytes; expected an ext4 file system of at most {MOST_BYTES}")
        file.seek(0)
        while part := file.read(_CHUNK):
            digest.update(part)
    return digest.hexdigest()


def _link_or_copy(image: Path, target: Path) -> None:
    """Give the image a second name; copy it where that is another disk."""
    try:
        os.link(image.resolve(), target)
    except OSError:
        subprocess.run(["cp", "--sparse=always", str(image), str(target)], check=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m firmware_configs.update.bundle", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--board", required=True, help=", ".join(row.name for row in BOARDS))
    parser.add_argument("--image", required=True, type=Path, help="root file system: an ext4 image (docs/update.md)")
    parser.add_argument("--release", required=True, type=int, help="larger than the last bundle's")
    parser.add_argument("--floor", type=int, default=0, help="no older release may run after it (default: any may)")
    parser.add_argument("--cert", required=True, type=Path, help="whose bundle it is: a certificate, PEM")
    parser.add_argument("--key", required=True, type=Path, help="its private key, PEM")
    parser.add_argument("--keyring", required=True, type=Path, help="what devices believe, PEM: the bundle is checked")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="of RAUC (default: %(default)s)")
    parser.add_argument("--out", required=True, type=Path, help="FILE.raucb")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, or 2 with one line on stderr."""
    args = _parser().parse_args(argv)
    try:
        signing = (args.cert, args.key, args.keyring)
        found = make(board(args.board), args.image, args.out, args.release, args.floor, signing, args.format)
    except VeilsightError as error:
        print(f"firmware_configs.update.bundle: {error}", file=sys.stderr)
        return 2
    size = args.out.stat().st_size
    print(f"release {found.release}, floor {found.floor}, for {compatible(board(args.board))}: {size / 1e6:.1f} MB")
    print(f"on the device, as root: veilsight-update install {args.out.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
