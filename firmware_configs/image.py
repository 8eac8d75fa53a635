"""Writes everything a board needs besides NVIDIA's own files: its packages, what belongs to this device, a flash plan.

    packages (firmware_configs.debian)  ->  DIR/packages  installed by dpkg in NVIDIA's root file system
    board table + configuration + key   ->  DIR/overlay   copied over it before
                                            DIR/flash_plan.json, DIR/flash.sh   the steps, in order

    python -m firmware_configs.image --board orin-nano --out DIR [--camera-config edge.toml]
                                     [--packages DIR --signer KEY.pub] [--dry-run]

The same input gives the same bytes, and no command is run here: flash.sh runs them, and only with --run.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from edge_runtime.config import load_config
from firmware_configs.archive import Entry, Unpacked, unpack
from firmware_configs.boards import BOARDS, Board, board
from firmware_configs.debian import suffix
from firmware_configs.debian import units as package_units
from firmware_configs.hardening import Access
from firmware_configs.hardening import files as hardened
from firmware_configs.two_slots import STATE, check, partitions
from firmware_configs.two_slots import files as two_slots
from firmware_configs.two_slots import flash_command as two_slots_flash
from firmware_configs.units import drop_ins
from wire.arguments import former_name
from wire.artifact.manifest import EngineManifest
from wire.errors import ConfigError, VeilsightError
from wire.files import read_trusted
from wire.protocol.keys import PublicKey
from wire.settings import refuse

__all__ = ["Packages", "Step", "edge_config", "main", "named_files", "overlay", "packages", "steps", "write"]

_HERE = Path(__file__).resolve().parent
_ETC = PurePosixPath("/etc/veilsight")
_SIGNER = _ETC / "signer.pub"  # written from --signer
_HEX = re.compile(r"[0-9a-fA-F]{64}")  # a key in place of its file
_NAMED = (
    *(("broker", key) for key in ("password_file", "ca", "cert", "key")),
    *(("privacy", "operator_key"), ("engine", "signer")),
)
"""Section and key of edge.toml that name a file."""
_ENGINE, _OPENCV = "veilsight-engine", "veilsight-opencv"
_CLOSED = Access()
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
class Step:
    """One command of the flash plan and why it is there; `$names` are flash.sh's variables."""

    why: str
    run: tuple[str, ...]


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


def packages(row: Board, config: str, folder: Path, signer: PublicKey | None) -> Packages:
    """Take the packages that `firmware_configs.debian` wrote to `folder`, for a device whose edge.toml is `config`.

    A CSI camera needs JetPack's own OpenCV, which our package would hide: it is left out.

    Raises:
        ConfigError: One is missing or there twice, is damaged, or is for another Python than the board's.
        ManifestError: The engine is not signed by `signer`, or a hash is wrong.
    """
    wanted = [name for name in _PACKAGES if not (name == _OPENCV and _is_csi(config))]
    made, model_id = dict[str, bytes](), ""
    for name in wanted:
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


def _is_csi(config: str) -> bool:
    return str(tomllib.loads(config).get("camera", {}).get("source", "")).startswith("csi")


def named_files(config: str, folder: Path) -> dict[str, Entry]:
    """Collect the files that an edge.toml names, for the folder of the configuration on the device.

    Args:
        config: Text of edge.toml.
        folder: Where it lies on this host. A name there stands for the same name below /etc/veilsight on the device.

    Returns:
        Path inside the root file system -> file, mode 0640 as edge.toml.

    Raises:
        ConfigError: A file is missing, or is named where the image puts none.
    """
    document, found, problems = tomllib.loads(config), dict[str, Entry](), list[str]()
    for section, key in _NAMED:
        text = str(document.get(section, {}).get(key, ""))
        name = _ETC / text  # an absolute path stays as it is
        if not text or name == _SIGNER or _HEX.fullmatch(text):
            continue
        if name.parent != _ETC:
            problems.append(
                f"[{section}] {key} is {text!r}; name a file in {_ETC}, and put it beside the configuration"
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
) -> dict[str, Entry]:
    """Collect what belongs to this device, and is copied over NVIDIA's root file system. No package has such a file.

    Args:
        row: The board.
        config: Text of edge.toml.
        signer: Who must have signed the engine that the device runs.
        named: What `named_files` found.
        keyring: Certificates whose bundles the device takes, PEM; b"": it has one slot, and takes none.
        access: Who reaches the device, and what it reaches.

    Returns:
        Path inside the root file system -> file or link, sorted by path.

    Raises:
        ConfigError: With two slots, an update would lose a file of the device, or could not be kept.
    """
    found: dict[str, Entry] = {}
    # Ubuntu's crash collector would keep the memory of a crashed process, pictures included.
    found["etc/systemd/system/apport.service"] = Entry(link="/dev/null")
    for name, text in drop_ins(row, config).items():
        found[f"etc/systemd/system/{name}"] = Entry(text.encode())
    found["etc/veilsight/board.env"] = Entry(
        f"VEILSIGHT_BOARD={row.name}\nVEILSIGHT_POWER_MODE={row.power_mode}\n".encode(), 0o640
    )
    found |= hardened(config, access)
    found |= named
    found["etc/veilsight/edge.toml"] = Entry(config.encode(), 0o640)
    if keyring:
        found |= two_slots(row, keyring)
        check(config, {name: entry.data.decode() for name, entry in package_units().files.items()}, found)
    apt = [*(_APT_CSI if _is_csi(config) else ()), *_APT_TENSORRT, *(_APT_RAUC if keyring else ())]
    found["opt/veilsight/apt.txt"] = Entry("".join(f"{name}\n" for name in apt).encode())
    if signer is not None:
        found["etc/veilsight/signer.pub"] = Entry(f"{signer.hex}\n".encode())
    return dict(sorted(found.items()))


def steps(row: Board, two_slots: bool = False) -> tuple[Step, ...]:
    """Return the flash plan, in order: board support package, root file system, drivers, our files, flash."""
    major, revision = row.release
    flash = two_slots_flash(row) if two_slots else _local(row.flash)
    parts = Step("partitions that no update writes", ("add_partitions", row.layout_ab))
    return (
        Step("NVIDIA's board support package", ("tar", "xf", "$bsp", "-C", "$work")),
        Step("NVIDIA's root file system", ("as_root", "tar", "xpf", "$rootfs", "-C", "$l4t/rootfs")),
        Step("what the flashing tools need on this host", ("in_l4t", "as_root", "./tools/l4t_flash_prerequisites.sh")),
        Step("NVIDIA's drivers into it", ("in_l4t", "as_root", "./apply_binaries.sh", *row.apply_binaries)),
        Step(
            f"it is Jetson Linux {row.l4t}, which the engine and the units were written for",
            ("grep", "-F", f"R{major} (release), REVISION: {revision},", "$l4t/rootfs/etc/nv_tegra_release"),
        ),
        Step(
            "what belongs to this device over the root file system",
            ("as_root", "cp", "-rP", "--preserve=mode", "$here/overlay/.", "$l4t/rootfs/"),
        ),
        Step("our packages into it, by its own dpkg", ("install_packages",)),
        Step("a login user, if one was asked for", ("maybe_create_admin",)),
        Step("the board is in recovery mode", ("in_recovery", *row.recovery_usb)),
        *([parts] if two_slots else []),
        Step(f"flash; the root file system goes to {row.storage}", ("in_l4t", "as_root", *flash)),
    )


def _local(command: tuple[str, ...]) -> tuple[str, ...]:
    return (f"./{command[0]}", *command[1:])


def _quote(word: str) -> str:
    """A word for bash: `$name` is a variable of the script, everything else is literal."""
    return f'"{word}"' if "$" in word else shlex.quote(word)


def _flash_script(row: Board, two_slots: bool) -> str:
    lines = [f"step {shlex.quote(step.why)} {' '.join(map(_quote, step.run))}" for step in steps(row, two_slots)]
    text = (_HERE / "flash.sh.in").read_text()
    values = {"NAME": row.name, "MODULE": row.module, "L4T": row.l4t, "JETPACK": row.jetpack, "STORAGE": row.storage}
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text.replace("@STEPS@", "\n".join(lines))


def _plan(row: Board, made: Packages, two_slots: bool) -> str:
    document = {
        "board": asdict(row),
        "model_id": made.model_id,
        "packages": sorted(made.files),
        "outside_the_slots": [asdict(part) for part in STATE] if two_slots else [],
        "steps": [{"why": step.why, "run": list(step.run)} for step in steps(row, two_slots)],
    }
    return json.dumps(document, indent=2) + "\n"


def write(
    row: Board,
    out: Path,
    config: str,
    signer: PublicKey | None = None,
    named: Mapping[str, Entry] = MappingProxyType({}),
    made: Packages = Packages(),  # frozen, and empty
    keyring: bytes = b"",
    access: Access = _CLOSED,
) -> list[Path]:
    """Write overlay, packages, plan and script under `out`; arguments as of `overlay`, and what `packages` found.

    Returns:
        The files written, in order.

    Raises:
        ConfigError: `out` exists and is not an empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out} exists and is not an empty folder; remove it or choose another")
    entries = {f"overlay/{path}": entry for path, entry in overlay(row, config, signer, named, keyring, access).items()}
    entries |= {f"packages/{name}": Entry(data) for name, data in sorted(made.files.items())}
    entries["flash_plan.json"] = Entry(_plan(row, made, bool(keyring)).encode())
    entries["flash.sh"] = Entry(_flash_script(row, bool(keyring)).encode(), 0o755)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m firmware_configs.image", description=__doc__.splitlines()[0])
    parser.add_argument("--board", required=True, help=", ".join(row.name for row in BOARDS))
    parser.add_argument("--out", required=True, type=Path, help="a folder that does not exist yet, or is empty")
    parser.add_argument("--camera-config", type=Path, help="the device's edge.toml (default: a template to edit)")
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
    parser.add_argument("--dry-run", action="store_true", help="print what would be written; write nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, or 2 with one line on stderr."""
    args = _parser().parse_args(argv)
    try:
        row = board(args.board)
        config = edge_config(args.camera_config)
        if args.ab and args.camera_config is None:
            config += EDGE_TOML_AB
        signer = PublicKey.parse(args.signer) if args.signer else None
        named = named_files(config, args.camera_config.parent) if args.camera_config else {}
        made = packages(row, config, args.packages, signer) if args.packages else Packages()
        keyring = _given(args.ab, "--ab") if args.ab else b""
        keys = "".join(_given(file, "--ssh-key").decode(errors="replace") for file in args.ssh_key)
        access = Access(args.broker_address, args.ntp, args.ssh_from, keys)
        if args.dry_run:
            for name, entry in overlay(row, config, signer, named, keyring, access).items():
                print(f"overlay/{name}" + (f" -> {entry.link}" if entry.link else f" ({len(entry.data)} bytes)"))
            for name, data in made.files.items():
                print(f"packages/{name} ({len(data)} bytes)")
            for step in steps(row, bool(keyring)):
                print(f"# {step.why}\n{' '.join(map(_quote, step.run))}")
            return 0
        written = write(row, args.out, config, signer, named, made, keyring, access)
    except VeilsightError as error:
        print(f"firmware_configs.image: {error}", file=sys.stderr)
        return 2
    print(f"{len(written)} files for {row.name} (Jetson Linux {row.l4t}) in {args.out}")
    if args.packages is None:
        print("no packages yet: flash.sh refuses to run without them (--packages DIR --signer KEY.pub)")
    print(f"next: {args.out}/flash.sh prints the plan, {args.out}/flash.sh --run flashes; see docs/flash.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
