"""Builds the Debian packages of a device: the same input gives the same bytes, in any folder and under any umask.

    our code + pinned aarch64 wheels --> veilsight-runtime   /opt/veilsight/venv, for one version of Python
    OpenCV's wheel                   --> veilsight-opencv    /opt/veilsight/opencv; a CSI camera needs JetPack's instead
    units, users, power mode         --> veilsight-units
    signed engine folder             --> veilsight-engine    /opt/veilsight/engine

    python -m firmware_configs.debian --out DIR [--python 3.10] [--engine DIR --signer KEY.pub]
                                      [--wheels DIR] [--offline]

Each package has a bill of materials and a manifest of hashes, inside and beside it. No package has anything that
belongs to one device: its configuration, secrets, key and ledger are not touched by any of them. pip downloads wheels
into `--wheels`; nothing else is run. SOURCE_DATE_EPOCH, where it is set, is the time of every file.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path

from firmware_configs.archive import Entry, pack
from firmware_configs.sbom import Component, bill
from firmware_configs.units import ENABLED, templates
from firmware_configs.wheels import PYTHONS, Wheel, chosen, contents, fetch, licence, pins
from wire import __version__
from wire.arguments import former_name
from wire.artifact.manifest import EngineManifest
from wire.artifact.signature import SIGNATURE, signed_release
from wire.errors import ConfigError, VeilsightError
from wire.files import write_whole
from wire.protocol.keys import PublicKey

__all__ = ["Package", "engine", "main", "opencv", "runtime", "save", "suffix", "units"]

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parent
_FILES = _HERE / "packages"
_CODE = ("wire", "edge_runtime", "export", "firmware_configs/update")  # what a device runs
_NOT_ON_DEVICE = ("firmware_configs/update/bundle.py",)
_EPOCH = 1795824000  # 2026-11-28, where SOURCE_DATE_EPOCH is not set
_MAINTAINER = "Veilsight <veilsight@veilsight.invalid>"
_VENV = "opt/veilsight/venv"
_CAMERA = "opencv-python-headless"
_OTHERS = ("opt/veilsight/opencv/site-packages", "opt/veilsight/local/site-packages")
"""Where the runtime looks for more packages; the last is the device's own (PyCUDA): no package has a file there."""


@dataclass(frozen=True, slots=True)
class Package:
    """One Debian package, before it is written.

    Attributes:
        name: Of the package.
        version: In Debian's form.
        architecture: "arm64" or "all".
        about: Its description: a line, and one more sentence.
        relations: "Depends" and the like.
        files: Path without a leading slash -> file or link.
        scripts: "postinst", ... -> the files in packages/scripts whose texts it is made of.
        conffiles: Paths that dpkg keeps where an operator edited them.
        parts: What it consists of, for the bill of materials.
    """

    name: str
    version: str
    architecture: str
    about: tuple[str, str]
    relations: Mapping[str, str]
    files: Mapping[str, Entry]
    scripts: Mapping[str, Sequence[str]]
    conffiles: Sequence[str] = ()
    parts: Sequence[Component] = field(default_factory=tuple)


def suffix(python: str) -> str:
    """What the version of a runtime ends with: "+py310" for "3.10"."""
    return f"+py{python.replace('.', '')}"


def runtime(python: str, wheels: Path) -> Package:
    """Our code and the pinned packages that it needs, in a virtual environment whose every file is dpkg's.

    Args:
        python: One of PYTHONS: that of the device.
        wheels: Folder of the wheels.

    Raises:
        ConfigError: A wheel is missing or is another file.
    """
    site = f"{_VENV}/lib/python{python}/site-packages"
    own = {f"{site}/{path}": entry for path, entry in _own_code().items()}
    vendored, parts = _vendored(chosen([pin for pin in pins() if not pin.startswith(_CAMERA)], python), wheels, site)
    major, minor = map(int, python.split("."))
    environment = {
        # System packages stay visible: JetPack's OpenCV (CSI cameras) and TensorRT are some.
        f"{_VENV}/pyvenv.cfg": f"home = /usr/bin\ninclude-system-site-packages = true\nversion = {python}\n",
        f"{site}/veilsight.pth": "".join(f"/{folder}\n" for folder in _OTHERS),
    }
    return Package(
        name="veilsight-runtime",
        version=__version__ + suffix(python),
        architecture="arm64",
        about=("privacy camera: code and libraries", f"Gate, eye and reader, and what they need on Python {python}."),
        relations={
            "Depends": f"python3 (>= {python}), python3 (<< {major}.{minor + 1}), libc6 (>= 2.28), libstdc++6, zlib1g",
            "Provides": f"veilsight-code (= {__version__})",
        },
        files={
            **own,
            **vendored,
            **{path: Entry(text.encode()) for path, text in environment.items()},
            f"{_VENV}/bin/python": Entry(link=f"/usr/bin/python{python}"),
        },
        scripts={"postinst": ("compiled", "start"), "prerm": ("stop", "compiled")},
        parts=parts,
    )


def opencv(python: str, wheels: Path) -> Package:
    """OpenCV without a window system, for every camera but a CSI camera; arguments and errors as of `runtime`."""
    wheel = chosen([pin for pin in pins() if pin.startswith(_CAMERA)], python)
    files, parts = _vendored(wheel, wheels, _OTHERS[0])
    return Package(
        name="veilsight-opencv",
        version=wheel[0].version,
        architecture="arm64",
        about=(
            "privacy camera: OpenCV for its eye",
            "A CSI camera needs the OpenCV of JetPack, which this would hide.",
        ),
        relations={"Depends": "veilsight-runtime, libc6 (>= 2.28), libstdc++6, zlib1g"},
        files=files,
        scripts={"postinst": ("start",), "prerm": ("stop",)},
        parts=parts,
    )


def units() -> Package:
    """The units of systemd, with templates for further cameras, the users of the processes, and the power mode."""
    base = _FILES / "units"
    found = {path.relative_to(base).as_posix(): path for path in base.rglob("*") if path.is_file()}
    files = {name: Entry(path.read_bytes(), 0o755 if "/bin/" in name else 0o644) for name, path in found.items()}
    return Package(
        name="veilsight-units",
        version=__version__,
        architecture="all",
        about=("privacy camera: systemd units", "Each process is a user of its own in a sandbox of its own."),
        relations={
            "Depends": f"veilsight-code (= {__version__}), systemd",
            "Recommends": "veilsight-engine, nftables, openssh-client",
        },
        files=files | templates(files),
        scripts={"postinst": ("units", "start"), "prerm": ("stop",), "postrm": ("units",)},
        conffiles=[name for name in sorted(found) if name.startswith("etc/")],
    )


def engine(folder: Path, signer: PublicKey) -> Package:
    """A signed engine; its version is the release that the signature names.

    The signer's public key is not in it: which signer a device believes is a part of the device's configuration.

    Raises:
        ManifestError: The folder is not signed by `signer`, or a hash is wrong.
    """
    manifest = EngineManifest.load(folder, signer)
    manifest.check(folder)
    names = (*manifest.files.values(), *manifest.external, "manifest.json", SIGNATURE)
    files = {f"opt/veilsight/engine/{name}": Entry((folder / name).read_bytes()) for name in names}
    release = str(signed_release(folder, signer))
    parts = [
        Component(
            "machine-learning-model" if path.endswith(".onnx") else "data",
            path.rpartition("/")[2],
            release,
            sha256=hashlib.sha256(entry.data).hexdigest(),
        )
        for path, entry in sorted(files.items())
    ]
    return Package(
        name="veilsight-engine",
        version=release,
        architecture="all",
        about=(
            f"privacy camera: engine {manifest.family}",
            f"Model {manifest.model_id:016x}, profile {manifest.profile}.",
        ),
        relations={"Enhances": "veilsight-units"},
        files=files,
        scripts={"postinst": ("start",), "prerm": ("stop",)},
        parts=parts,
    )


def save(package: Package, out: Path, epoch: int) -> list[Path]:
    """Write a package, its bill of materials and its manifest of hashes to the folder `out`; their paths."""
    whole = Component("application", package.name, package.version, _purl(package), expression="Apache-2.0")
    sbom = bill(whole, package.parts, epoch).encode()
    files = {
        **package.files,
        **_documentation(package, epoch),
        f"usr/share/veilsight/{package.name}.cdx.json": Entry(sbom),
    }
    hashes = {path: hashlib.sha256(files[path].data).hexdigest() for path in sorted(files) if not files[path].link}
    manifest = "".join(f"{digest}  /{path}\n" for path, digest in hashes.items()).encode()
    files[f"usr/share/veilsight/{package.name}.sha256"] = Entry(manifest)
    control = {
        "Package": package.name,
        "Version": package.version,
        "Architecture": package.architecture,
        "Maintainer": _MAINTAINER,
        "Section": "misc",
        "Priority": "optional",
        **package.relations,
        "Description": f"{package.about[0]}\n {package.about[1]}",
    }
    scripts = {kind: _script(kind, parts) for kind, parts in package.scripts.items()}
    data = pack(control, files, scripts, package.conffiles, epoch)
    name = f"{package.name}_{package.version}_{package.architecture}"
    made = {out / f"{name}.deb": data, out / f"{name}.cdx.json": sbom, out / f"{name}.sha256": manifest}
    for path, content in made.items():
        write_whole(path, content)
        path.chmod(0o644)
    return list(made)


def _own_code() -> dict[str, Entry]:
    """Our packages of a device: path below site-packages -> file."""
    found = (path for package in _CODE for path in (_ROOT / package).rglob("*") if path.suffix in (".py", ".proto"))
    names = {path.relative_to(_ROOT).as_posix(): path for path in found}
    names["firmware_configs/__init__.py"] = _HERE / "__init__.py"
    return {name: Entry(path.read_bytes()) for name, path in names.items() if name not in _NOT_ON_DEVICE}


def _vendored(wheels: Iterable[Wheel], folder: Path, site: str) -> tuple[dict[str, Entry], list[Component]]:
    """Unpack wheels below `site`. Raises ConfigError where two have the same file."""
    found, parts = dict[str, Entry](), list[Component]()
    for wheel in wheels:
        files = contents(wheel, folder)
        twice = sorted(f"{site}/{path}" for path in files if f"{site}/{path}" in found)
        if twice:
            raise ConfigError(f"{wheel.file}: {twice[0]} is in another wheel too; pin versions that do not overlap")
        found |= {f"{site}/{path}": Entry(data) for path, data in files.items()}
        expression, name = licence(files)
        purl = f"pkg:pypi/{wheel.name}@{wheel.version}"
        parts.append(Component("library", wheel.name, wheel.version, purl, wheel.sha256, expression, name))
    return found, parts


def _documentation(package: Package, epoch: int) -> dict[str, Entry]:
    """What Debian's policy wants of a package: changelog and copyright."""
    place = f"usr/share/doc/{package.name}"
    date = formatdate(epoch)[:-5] + "+0000"
    log = f"{package.name} ({package.version}) stable; urgency=medium\n\n  * See CHANGELOG.md of the project.\n\n"
    log += f" -- {_MAINTAINER}  {date}\n"
    terms = [f"  {part.name} {part.version}: {part.expression or part.licence}" for part in package.parts if part.purl]
    others = "\nContains these packages; the text of each licence is in its dist-info folder:\n\n" + "\n".join(terms)
    rights = "Copyright: the Veilsight project\nLicence: Apache-2.0, /usr/share/common-licenses/Apache-2.0\n"
    rights += f"{others}\n" if terms else ""
    notice = (_ROOT / "NOTICE").read_text()
    return {
        f"{place}/changelog.gz": Entry(gzip.compress(log.encode(), 9, mtime=0)),
        f"{place}/copyright": Entry(f"{rights}\n{notice}".encode()),
    }


def _script(kind: str, parts: Sequence[str]) -> str:
    texts = [(_FILES / "scripts" / f"{part}.{kind}").read_text() for part in parts]
    return "#!/bin/sh\nset -e\n" + "".join(texts).replace("@ENABLED@", " ".join(ENABLED))


def _purl(package: Package) -> str:
    return f"pkg:deb/veilsight/{package.name}@{package.version.replace('+', '%2B')}?arch={package.architecture}"


def _epoch() -> int:
    text = os.environ.get("SOURCE_DATE_EPOCH", str(_EPOCH))
    if not re.fullmatch("[0-9]{1,10}", text):
        raise ConfigError(f"SOURCE_DATE_EPOCH is {text!r}; expected seconds since 1970")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m firmware_configs.debian", description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=Path, help="a folder that does not exist yet, or is empty")
    parser.add_argument(
        "--python", default=PYTHONS[0], help=f"of the device: {', '.join(PYTHONS)} (default: %(default)s)"
    )
    parser.add_argument("--engine", type=Path, help="an engine folder that export.bundle signed: build/engines/nano")
    option = parser.add_argument("--signer", help="who must have signed it: 64 hex digits, or a file that holds them")
    former_name(parser, "--publisher", option)
    parser.add_argument("--wheels", type=Path, help="where wheels are kept (default: build/wheels)")
    parser.add_argument("--offline", action="store_true", help="download nothing: the wheels are all in --wheels")
    return parser


def _packages(args: argparse.Namespace) -> list[Package]:
    if bool(args.engine) != bool(args.signer):
        raise ConfigError("--engine and --signer belong together: who must have signed the engine?")
    wheels = args.wheels or _ROOT / "build/wheels"
    if not args.offline:
        fetch(chosen(pins(), args.python), args.python, wheels)
    made = [runtime(args.python, wheels), opencv(args.python, wheels), units()]
    return made + ([engine(args.engine, PublicKey.parse(args.signer))] if args.engine else [])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, or 2 with one line on stderr."""
    args = _parser().parse_args(argv)
    try:
        if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
            raise ConfigError(f"--out {args.out} exists and is not an empty folder; remove it or choose another")
        epoch, packages = _epoch(), _packages(args)
        args.out.mkdir(parents=True, exist_ok=True)
        written = [path for package in packages for path in save(package, args.out, epoch)]
    except VeilsightError as error:
        print(f"firmware_configs.debian: {error}", file=sys.stderr)
        return 2
    sizes = {path.name: path.stat().st_size for path in written if path.suffix == ".deb"}
    for name, size in sizes.items():
        print(f"{size / 1e6:8.2f} MB  {name}")
    print(json.dumps({"packages": sizes}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
