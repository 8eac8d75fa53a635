"""Writes everything a board needs besides NVIDIA's own files: its packages, what belongs to this device, a flash plan.

    packages (firmware_configs.debian)  ->  DIR/packages  installed by dpkg in NVIDIA's root file system
    board table + configurations + key  ->  DIR/overlay   copied over it before
                                            DIR/flash_plan.json, DIR/flash.sh   the steps, in order

    python -m firmware_configs.image --board orin-nano --out DIR [--camera-config edge.toml [--camera-config NAME.toml]]
                                     [--packages DIR --signer KEY.pub] [--module 4gb] [--storage nvme] [--dry-run]

The same input gives the same bytes, and no command is run here: flash.sh runs them, and only with --run.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from edge_runtime.config import load_config
from firmware_configs.archive import Entry, Unpacked, unpack
from firmware_configs.boards import BOARDS, MODULES, STORAGES, Board, Module, Storage, board
from firmware_configs.cameras import ETC, check_cameras, folder_of, names_of, place_of
from firmware_configs.csi import SENSORS, csi_files, is_csi
from firmware_configs.debian import suffix
from firmware_configs.debian import units as package_units
from firmware_configs.flash import encrypted_steps, mass_steps, plan, quote, script, steps
from firmware_configs.hardening import Access
from firmware_configs.hardening import files as hardened
from firmware_configs.per_device import per_device_config, per_device_file
from firmware_configs.two_slots import check, partitions
from firmware_configs.two_slots import files as two_slots
from firmware_configs.units import FOLDER, drop_ins, template, wanted
from wire.arguments import former_name
from wire.artifact.manifest import EngineManifest
from wire.errors import ConfigError, VeilsightError
from wire.files import read_trusted
from wire.protocol.keys import PublicKey
from wire.settings import refuse

__all__ = ["Asked", "Packages", "edge_config", "main", "named_files", "overlay", "packages", "write"]

_SIGNER = ETC / "signer.pub"  # written from --signer
_HEX = re.compile(r"[0-9a-fA-F]{64}")  # a key in place of its file
_NAMED = (
    *(("broker", key) for key in ("password_file", "ca", "cert", "key")),
    *(("privacy", "operator_key"), ("engine", "signer")),
)
"""Section and key of edge.toml that name a file."""
_ENGINE, _OPENCV = "veilsight-engine", "veilsight-opencv"
_CLOSED = Access()
_NO_MORE: Mapping[str, str] = MappingProxyType({})
_PACKAGES = ("veilsight-runtime", _OPENCV, "veilsight-units", _ENGINE)

# Ubuntu and JetPack packages that the image does not contain.
_APT_CSI = ("nvidia-opencv",)
_APT_TENSORRT = ("tensorrt", "python3-libnvinfer", "cuda-toolkit")
_APT_RAUC = ("rauc", "rauc-service")  # of Ubuntu's "universe": 1.6 with JetPack 6

EDGE_TOML = """\
# Veilsight edge. docs/configuration.md explains every key; unknown keys are errors.
[device]
site = "site"                          # site and camera are part of every topic: choose them before the first boot
camera = "camera"
key = "/var/lib/veilsight/device.key"  # made at the first start; its public half is in the retained state
state_dir = "/var/lib/veilsight"       # holds the ledger: if it is lost, the sums begin at 0 again

[camera]
source = "0"                           # the first USB camera; or csi://0, rtsp://..., a file
rotate = 0                             # degrees clockwise that stand its picture upright: 0, 90, 180 or 270

[engine]
folder = "/opt/veilsight/engine"
signer = "/etc/veilsight/signer.pub"   # whose signature the engine must have
cache = "/var/lib/veilsight-engine"    # where the engine files of this device are made
backend = "onnxruntime"                # or "tensorrt", once JetPack's TensorRT and PyCUDA are installed

[broker]
url = "mqtt://127.0.0.1:1883"          # mqtts:// with ca, cert and key for a broker elsewhere
"""
"""The template of the device's configuration, where no --camera-config is given."""
EDGE_TOML_AB = """
[health]
listen = ":8080"                       # the local page (loopback): an update is kept by what it shows
"""
"""What --ab adds to it."""


@dataclass(frozen=True, slots=True)
class Packages:
    """The packages of an image.

    Attributes:
        files: File name -> bytes of each Debian package.
        model_id: Of the engine, 16 hex digits; "": there is no engine among them.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    model_id: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What else an image is asked to do.

    Attributes:
        csi_sensor: The sensor that jetson-io is told of at the first boot; "": none.
        per_device: Each device takes a name of its own at its first boot, so that many are flashed with one image.
    """

    csi_sensor: str = ""
    per_device: bool = False


_NOTHING = Asked()


def edge_config(file: Path | None) -> str:
    """Return the text of the device's edge.toml: that of `file`, or EDGE_TOML.

    Raises:
        ConfigError: `file` cannot be read, the edge process would refuse it, or it would run an unsigned engine.
    """
    if file is None:
        return EDGE_TOML
    if not load_config(file).engine_signer:
        raise ConfigError(f'{file}: [engine] signer is missing; write signer = "/etc/veilsight/signer.pub"')
    return file.read_text()


def packages(
    row: Board, config: str, folder: Path, signer: PublicKey | None, more: Mapping[str, str] = _NO_MORE
) -> Packages:
    """Take the packages that `firmware_configs.debian` wrote to `folder`, for a device whose edge.toml is `config`.

    A CSI camera needs JetPack's own OpenCV, which our package would hide: it is left out. It reads every other camera.

    Raises:
        ConfigError: One is missing or there twice, is damaged, or is for another Python than the board's.
        ManifestError: The engine is not signed by `signer`, or a hash is wrong.
    """
    csi = any(map(is_csi, (config, *more.values())))
    made, model_id = dict[str, bytes](), ""
    for name in (name for name in _PACKAGES if not (name == _OPENCV and csi)):
        found = sorted(folder.glob(f"{name}_*.deb"))
        if len(found) != 1:
            raise ConfigError(
                f"--packages {folder} has {len(found)} of {name}, expected 1; make the folder anew: "
                f"python -m firmware_configs.debian --python {row.python} --engine DIR --signer KEY.pub --out DIR"
            )
        unpacked = unpack(found[0])
        if name == _PACKAGES[0] and not unpacked.control.get("Version", "").endswith(suffix(row.python)):
            raise ConfigError(
                f"{found[0]} is not for Python {row.python}, which {row.name} has; add --python {row.python}"
            )
        if name == _ENGINE:
            model_id = _signed_model(unpacked, signer)
        made[found[0].name] = found[0].read_bytes()
    return Packages(made, model_id)


def _signed_model(unpacked: Unpacked, signer: PublicKey | None) -> str:
    """The model of an engine package, whose signature and hashes are right."""
    if signer is None:
        raise ConfigError("--packages: who signed the engine? Give the public key of its signer with --signer")
    with tempfile.TemporaryDirectory() as place:
        for path, entry in unpacked.files.items():
            if path.startswith("opt/veilsight/engine/"):
                (Path(place) / PurePosixPath(path).name).write_bytes(entry.data)
        manifest = EngineManifest.load(place, signer)
        manifest.check(place)
    return f"{manifest.model_id:016x}"


def named_files(config: str, folder: Path, camera: str = "") -> dict[str, Entry]:
    """Collect the files that an edge.toml names, for the folder of the configuration on the device.

    Args:
        config: Text of edge.toml.
        folder: Where it lies on this host. A name there stands for the same name beside it on the device.
        camera: Whose it is; "" for the first one.

    Returns:
        Path inside the root file system -> file, mode 0640 as edge.toml.

    Raises:
        ConfigError: A file is missing, or is named where the image puts none.
    """
    document, found, problems, place = tomllib.loads(config), dict[str, Entry](), list[str](), folder_of(camera)
    for section, key in _NAMED:
        text = str(document.get(section, {}).get(key, ""))
        name = place / text  # an absolute path stays as it is
        if not text or name == _SIGNER or _HEX.fullmatch(text):
            continue
        if name.parent not in (ETC, place):
            problems.append(
                f"[{section}] {key} is {text!r}; name a file in {place}, and put it beside the configuration"
            )
            continue
        try:
            found[str(name)[1:]] = Entry(read_trusted(folder / name.name), 0o640)
        except OSError as error:
            problems.append(f"[{section}] {key}: {folder / name.name}: {error.strerror}; put it there")
    refuse("--camera-config", problems)
    return found


def overlay(
    row: Board,
    config: str,
    signer: PublicKey | None = None,
    named: Mapping[str, Entry] = MappingProxyType({}),
    keyring: bytes = b"",
    access: Access = _CLOSED,
    more: Mapping[str, str] = _NO_MORE,
    asked: Asked = _NOTHING,
) -> dict[str, Entry]:
    """Collect what belongs to this device, and is copied over NVIDIA's root file system. No package has such a file.

    Args:
        row: The board.
        config: Text of edge.toml.
        signer: Who must have signed the engine that the device runs.
        named: What `named_files` found.
        keyring: Certificates whose bundles the device takes, PEM; b"": it has one slot, and takes none.
        access: Who reaches the device, and what it reaches.
        more: Name -> configuration of each further camera.
        asked: What else.

    Returns:
        Path inside the root file system -> file or link, sorted by path.

    Raises:
        ConfigError: With two slots, an update would lose a file of the device, or could not be kept; or `asked` does
            not go with the configuration.
    """
    found: dict[str, Entry] = {}
    # Ubuntu's crash collector would keep the memory of a crashed process, pictures included.
    found["etc/systemd/system/apport.service"] = Entry(link="/dev/null")
    for name, text in drop_ins(row, config, more).items():
        found[f"etc/systemd/system/{name}"] = Entry(text.encode())
    found["etc/veilsight/board.env"] = Entry(
        f"VEILSIGHT_BOARD={row.name}\nVEILSIGHT_POWER_MODE={row.power_mode}\n".encode(), 0o640
    )
    found |= hardened((config, *more.values()), access)
    found |= named
    found |= csi_files(row, (config, *more.values()), asked.csi_sensor)
    found |= per_device_file(config) if asked.per_device else {}
    for camera, text in {"": config, **more}.items():
        own = per_device_config(text, place_of(camera)) if asked.per_device else text
        found[place_of(camera)] = Entry(own.encode(), 0o640)
    for camera in more:
        found[f"etc/systemd/system/{wanted(camera)}"] = Entry(link=f"/{FOLDER}/{template('veilsight-gate.service')}")
    if keyring:
        if asked.csi_sensor:
            raise ConfigError(
                "--csi-sensor with --ab: jetson-io writes extlinux.conf of the first slot alone, and no update would "
                "be kept for want of pictures; leave one of the two out"
            )
        found |= two_slots(row, keyring)
        units = {name: entry.data.decode() for name, entry in package_units().files.items()}
        for camera, text in {"": config, **more}.items():
            check(text, units, found, camera)
    found["opt/veilsight/apt.txt"] = _apt((config, *more.values()), bool(keyring))
    if signer is not None:
        found["etc/veilsight/signer.pub"] = Entry(f"{signer.hex}\n".encode())
    return dict(sorted(found.items()))


def _apt(configs: Sequence[str], two_slots: bool) -> Entry:
    """The packages of Ubuntu and JetPack that the image does not contain, a line each."""
    names = [*(_APT_CSI if any(map(is_csi, configs)) else ()), *_APT_TENSORRT, *(_APT_RAUC if two_slots else ())]
    return Entry("".join(f"{name}\n" for name in names).encode())


def write(
    row: Board,
    out: Path,
    config: str,
    signer: PublicKey | None = None,
    named: Mapping[str, Entry] = MappingProxyType({}),
    made: Packages = Packages(),  # frozen, and empty
    keyring: bytes = b"",
    access: Access = _CLOSED,
    more: Mapping[str, str] = _NO_MORE,
    asked: Asked = _NOTHING,
) -> list[Path]:
    """Write overlay, packages, plan and script under `out`; arguments as of `overlay`, and what `packages` found.

    Returns:
        The files written, in order.

    Raises:
        ConfigError: `out` exists and is not an empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out} exists and is not an empty folder; remove it or choose another")
    laid = overlay(row, config, signer, named, keyring, access, more, asked)
    entries = {f"overlay/{path}": entry for path, entry in laid.items()}
    entries |= {f"packages/{name}": Entry(data) for name, data in sorted(made.files.items())}
    cameras = [place_of(camera) for camera in ("", *more)]
    entries["flash_plan.json"] = Entry(plan(row, cameras, made.model_id, sorted(made.files), bool(keyring)).encode())
    image = {"per_device": asked.per_device, "csi": bool(asked.csi_sensor)}
    entries["flash.sh"] = Entry(script(row, bool(keyring), image).encode(), 0o755)
    if keyring:
        entries["partitions.xml"] = Entry(partitions().encode())
    written = []
    for name, entry in entries.items():
        target = out / name
        _make_folder(target.parent)
        if entry.link:
            target.symlink_to(entry.link)
        else:
            target.write_bytes(entry.data)
            target.chmod(entry.mode)
        written.append(target)
    return written


def _make_folder(folder: Path) -> None:
    """Make a folder of mode 0755, whatever the umask: the root file system gets its mode."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir()
        folder.chmod(0o755)


def _given(file: Path, option: str) -> bytes:
    """The content of a file that an option names. Raises ConfigError."""
    try:
        return read_trusted(file)
    except OSError as error:
        raise ConfigError(f"{option} {file}: {error.strerror}") from error


def _cameras(files: Sequence[Path]) -> tuple[str, dict[str, str], dict[str, Entry]]:
    """The first camera's configuration, those of further ones by name, and the files that they name."""
    found = names_of(files)
    texts = {camera: edge_config(file) for camera, file in found.items()}
    check_cameras(found)
    named = dict[str, Entry]()
    for camera, text in texts.items():
        for name, entry in named_files(text, found[camera].parent, camera).items():
            if named.setdefault(name, entry) != entry:
                raise ConfigError(f"{found[camera]}: another camera's /{name} has other content; name them differently")
    return texts.pop("", EDGE_TOML), texts, named


def _names(rows: Sequence[Module] | Sequence[Storage]) -> str:
    boards = dict.fromkeys(row.board for row in rows)
    return "; ".join(f"{name} {', '.join(row.name for row in rows if row.board == name)}" for name in boards)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m firmware_configs.image", description=__doc__.splitlines()[0])
    parser.add_argument("--board", required=True, help=", ".join(row.name for row in BOARDS))
    text = f"of that board: {_names(MODULES)} (default: the first)"
    parser.add_argument("--module", default="", help=text)
    text = f"where its root file system goes: {_names(STORAGES)} (default: the first)"
    parser.add_argument("--storage", default="", help=text)
    parser.add_argument("--out", required=True, type=Path, help="a folder that does not exist yet, or is empty")
    text = "the device's edge.toml (default: a template to edit); again, as NAME.toml: that of a further camera"
    parser.add_argument("--camera-config", default=[], type=Path, action="append", metavar="FILE.toml", help=text)
    parser.add_argument("--packages", type=Path, help="the folder that firmware_configs.debian wrote, with --engine")
    text = "who must have signed the engine: 64 hex digits, or a file that holds them"
    option = parser.add_argument("--signer", help=text)
    former_name(parser, "--publisher", option)
    text = "two root file systems, updated by bundles of whoever has this certificate (PEM): docs/update.md"
    parser.add_argument("--ab", type=Path, metavar="CERT", help=text)
    parser.add_argument("--broker-address", default="", metavar="IP", help="where the broker's URL has a name")
    parser.add_argument("--ntp", default="", metavar="IP", help="the time server; without one the clock is never set")
    parser.add_argument("--ssh-from", default="", metavar="NETWORK", help="who may log in by ssh (default: nobody)")
    parser.add_argument("--ssh-key", default=[], type=Path, action="append", metavar="FILE.pub", help="with which keys")
    text = f"tell jetson-io of a CSI camera at the first boot: {', '.join(SENSORS)}"
    parser.add_argument("--csi-sensor", default="", metavar="NAME", help=text)
    text = "each device takes a name of its own at its first boot: for flash.sh --massflash"
    parser.add_argument("--per-device", action="store_true", help=text)
    parser.add_argument("--dry-run", action="store_true", help="print what would be written; write nothing")
    return parser


def _show(row: Board, laid: Mapping[str, Entry], made: Packages, two_slots: bool) -> None:
    """Print what would be written."""
    for name, entry in laid.items():
        print(f"overlay/{name}" + (f" -> {entry.link}" if entry.link else f" ({len(entry.data)} bytes)"))
    for name, data in made.files.items():
        print(f"packages/{name} ({len(data)} bytes)")
    ends = {"--massflash": mass_steps(row, two_slots), "--disk-key": () if two_slots else encrypted_steps(row)}
    for title, found in {"": steps(row, two_slots), **ends}.items():
        print(f"# instead of the last, with {title}:" if title and found else "", end="\n" if title and found else "")
        for step in found:
            print(f"# {step.why}\n{' '.join(map(quote, step.run))}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, or 2 with one line on stderr."""
    args = _parser().parse_args(argv)
    try:
        row = board(args.board, args.module, args.storage)
        config, more, named = _cameras(args.camera_config)
        if args.ab and not args.camera_config:
            config += EDGE_TOML_AB
        signer = PublicKey.parse(args.signer) if args.signer else None
        made = packages(row, config, args.packages, signer, more) if args.packages else Packages()
        keyring = _given(args.ab, "--ab") if args.ab else b""
        keys = "".join(_given(file, "--ssh-key").decode(errors="replace") for file in args.ssh_key)
        access = Access(args.broker_address, args.ntp, args.ssh_from, keys)
        asked = Asked(args.csi_sensor, args.per_device)
        if args.dry_run:
            _show(row, overlay(row, config, signer, named, keyring, access, more, asked), made, bool(keyring))
            return 0
        written = write(row, args.out, config, signer, named, made, keyring, access, more, asked)
    except VeilsightError as error:
        print(f"firmware_configs.image: {error}", file=sys.stderr)
        return 2
    print(f"{len(written)} files for {row.name} (Jetson Linux {row.l4t}) in {args.out}")
    if args.packages is None:
        print("no packages yet: flash.sh refuses to run without them (--packages DIR --signer KEY.pub)")
    if any(map(is_csi, (config, *more.values()))) and not args.csi_sensor:
        print("no --csi-sensor: run NVIDIA's jetson-io on the device, or it finds no CSI camera; see docs/boards.md")
    print(f"next: {args.out}/flash.sh prints the plan, {args.out}/flash.sh --run flashes; see docs/flash.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
