"""Secure boot and disk encryption: flash.sh takes the integrator's keys whole or not at all, and leaves them alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from firmware_configs.boards import board
from firmware_configs.image import EDGE_TOML, EDGE_TOML_AB, Asked
from tests.support.flash_host import Host
from tests.support.services import PATIENCE_S

CERT = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
PRIVATE = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0LW9mLWEta2V5\n-----END PRIVATE KEY-----\n"
SBK = " ".join(f"0x{number:08x}" for number in range(0x1234567, 0x1234567 + 8)) + "\n"
DISK = "00112233445566778899aabbccddeeff\n"
NAMED = {
    "UEFI_DB_1_KEY_FILE": "db 1.key",
    "UEFI_DB_1_CERT_FILE": "db 1.crt",
    "UEFI_DEFAULT_PK_ESL": "PK.esl",
    "UEFI_DEFAULT_KEK_ESL_0": "KEK.esl",
    "UEFI_DEFAULT_DB_ESL_0": "db.esl",
}


def keys(place: Path) -> dict[str, str]:
    """Every key file, as an integrator has them: option -> path, in a folder with a space in its name."""
    folder = place / "key vault"
    folder.mkdir()
    conf = "# ours\n" + "".join(f'{name}="{file}";  # a key\n' for name, file in NAMED.items())
    content = {"pkc.pem": PRIVATE, "sbk.key": SBK, "uefi_keys.conf": conf, "enc.key": "ab" * 32, "disk.key": DISK}
    content |= {"eks.img": "an encrypted blob of ours", **dict.fromkeys(NAMED.values(), PRIVATE)}
    for name, text in content.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    files = ("pkc.pem", "sbk.key", "uefi_keys.conf", "enc.key", "disk.key", "eks.img")
    options = ("--pkc", "--sbk", "--uefi-keys", "--uefi-enc", "--disk-key", "--eks")
    return {option: str(folder / file) for option, file in zip(options, files, strict=True)}


def given(found: dict[str, str], *options: str) -> list[str]:
    return [word for option in options for word in (option, found[option])]


def test_the_firmware_and_the_kernel_are_signed_with_the_integrators_keys(tmp_path: Path) -> None:
    host = Host(tmp_path / "a")
    found = keys(tmp_path)
    result = host.run(*given(found, "--pkc", "--sbk", "--uefi-keys"))
    assert result.returncode == 0, result.stderr
    (call,) = host.flashes
    signing = f"-u {found['--pkc']} -v {found['--sbk']} --uefi-keys {found['--uefi-keys']}"
    assert call.startswith(f"l4t_initrd_flash.sh {signing} --external-device nvme0n1p1")


def test_an_encrypted_kernel_comes_with_the_blob_that_has_its_key(tmp_path: Path) -> None:
    host, found = Host(tmp_path / "a"), keys(tmp_path)
    result = host.run(*given(found, "--pkc", "--uefi-keys", "--uefi-enc", "--eks"))
    assert result.returncode == 0, result.stderr
    (call,) = host.flashes
    assert f"--uefi-enc {found['--uefi-enc']} --external-device nvme0n1p1" in call
    assert (host.l4t / "bootloader/eks_t234.img").read_text() == "an encrypted blob of ours"


def test_an_encrypted_disk_is_made_in_three_calls_with_the_keys_of_its_blob(tmp_path: Path) -> None:
    host = Host(tmp_path / "a")
    found = keys(tmp_path)
    result = host.run(*given(found, *found))
    assert result.returncode == 0, result.stderr
    firmware, root, both = host.flashes
    signing = (
        f"-u {found['--pkc']} -v {found['--sbk']} --uefi-keys {found['--uefi-keys']} --uefi-enc {found['--uefi-enc']}"
    )
    assert firmware.startswith(f"l4t_initrd_flash.sh {signing} --no-flash")
    assert firmware.endswith("-p -c bootloader/generic/cfg/flash_t234_qspi.xml jetson-orin-nano-devkit internal")
    layout = "-c tools/kernel_flash/flash_l4t_t234_nvme_rootfs_enc.xml --external-only --append"
    assert root.endswith(f"-i {found['--disk-key']} {layout} jetson-orin-nano-devkit external")
    assert both.endswith("--flash-only") and signing in both
    assert "ROOTFS_ENC=1" in result.stdout
    assert (host.l4t / "bootloader/eks_t234.img").read_text() == "an encrypted blob of ours"


def test_the_disk_of_an_emmc_is_encrypted_in_one_call(tmp_path: Path) -> None:
    host = Host(tmp_path / "a", board("agx-orin"), ("0955:7023",))
    found = keys(tmp_path)
    assert host.run(*given(found, "--pkc", "--uefi-keys", "--disk-key", "--eks")).returncode == 0
    (call,) = host.flashes
    assert f"-i {found['--disk-key']} --showlogs" in call and call.endswith("jetson-agx-orin-devkit internal")


def test_no_key_is_copied_or_shown(tmp_path: Path) -> None:
    """Not into the image, the root file system or NVIDIA's folders, not on a terminal or a command line."""
    host = Host(tmp_path / "a")
    found = keys(tmp_path)
    result = host.run(*given(found, *found))
    secrets = ["c2VjcmV0LW9mLWEta2V5", SBK.split()[3], "ab" * 32, DISK.strip()]
    said = result.stdout + result.stderr + "\n".join(host.log)
    assert result.returncode == 0 and not [secret for secret in secrets if secret in said]
    written = [path for path in host.place.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [(path, secret) for path in written for secret in secrets if secret.encode() in path.read_bytes()]


HALF = [
    (("--sbk",), "--sbk without --pkc"),
    (("--pkc",), "--pkc without --uefi-keys"),
    (("--uefi-keys",), "--uefi-keys without --pkc"),
    (("--pkc", "--uefi-keys", "--uefi-enc"), "--uefi-enc without --eks"),
    (("--uefi-enc", "--eks"), "--uefi-enc without --uefi-keys"),
    (("--disk-key", "--eks"), "--disk-key without --pkc"),
    (("--pkc", "--uefi-keys", "--disk-key"), "--disk-key without --eks"),
    (("--pkc", "--uefi-keys", "--eks"), "--eks alone"),
]


@pytest.mark.parametrize("run", [True, False])
@pytest.mark.parametrize(("options", "says"), HALF)
def test_half_of_a_configuration_is_refused_with_its_cure(
    tmp_path: Path, options: tuple[str, ...], says: str, run: bool
) -> None:
    host = Host(tmp_path / "a")
    result = host.run(*given(keys(tmp_path), *options), files=run)
    assert result.returncode == 1 and says in result.stderr, result.stderr
    assert re.search("give .* too|give the|leave it out", result.stderr)
    assert host.log == [] and result.stdout == ""


@pytest.mark.parametrize(
    ("image", "options", "more", "says"),
    [
        ("ab", ("--pkc", "--uefi-keys"), (), "make it without --ab"),
        ("ab", ("--pkc", "--uefi-keys", "--disk-key", "--eks"), (), "make it without --ab"),
        ("csi", ("--pkc", "--uefi-keys"), (), "--csi-sensor"),
        ("many", ("--pkc", "--uefi-keys", "--disk-key", "--eks"), ("--massflash", "2"), "one pass phrase"),
        ("thor", ("--pkc", "--uefi-keys", "--disk-key", "--eks"), (), "no encrypted layout is known for thor"),
        ("thor", ("--pkc", "--uefi-keys", "--uefi-enc", "--eks"), (), "is not known for thor"),
        ("one", ("--pkc", "--uefi-keys"), ("--no-flash",), "leave the keys out"),
    ],
)
def test_keys_are_refused_where_the_device_would_not_be_what_they_say(
    tmp_path: Path, image: str, options: tuple[str, ...], more: tuple[str, ...], says: str
) -> None:
    config = EDGE_TOML.replace('source = "0"', 'source = "csi://0"') if image == "csi" else EDGE_TOML
    asked = Asked("imx219-a" if image == "csi" else "", image == "many")
    row = board("thor" if image == "thor" else "orin-nano")
    host = Host(tmp_path / "a", row, asked=asked, keyring=CERT if image == "ab" else b"", config=config + EDGE_TOML_AB)
    result = host.run(*given(keys(tmp_path), *options), *more)
    assert result.returncode == 1 and says in result.stderr, result.stderr
    assert host.log == []


def harm(found: dict[str, str], how: str) -> None:
    """Harm one key file."""
    pkc, conf, sbk = Path(found["--pkc"]), Path(found["--uefi-keys"]), Path(found["--sbk"])
    named = pkc.parent / "db 1.key"
    modes = {
        "readable by all": (pkc, 0o644),
        "readable by the group": (pkc, 0o640),
        "conf writable": (conf, 0o622),
        "uefi key readable": (named, 0o604),
    }
    texts = {
        "empty": (pkc, ""),
        "a public key": (pkc, "-----BEGIN PUBLIC KEY-----\nx\n"),
        "conf without keys": (conf, "# nothing\n"),
        "sbk short": (sbk, "0x12345678 0x12345678\n"),
        "sbk hex": (sbk, "12" * 32),
    }
    if how in modes:
        file, mode = modes[how]
        file.chmod(mode)
    elif how in texts:
        file, text = texts[how]
        file.write_text(text)
    else:
        file = named if how == "uefi key missing" else pkc
        file.unlink()
        if how == "a folder":
            file.mkdir()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("missing", "pkc.pem is no file"),
        ("a folder", "pkc.pem is no file"),
        ("empty", "pkc.pem is empty"),
        ("readable by all", "mode 644, and other users of this host can use it; chmod 600"),
        ("readable by the group", "mode 640"),
        ("a public key", "no private key in PEM"),
        ("conf writable", "mode 622"),
        ("uefi key readable", "db 1.key has mode 604"),
        ("uefi key missing", "UEFI_DB_1_KEY_FILE"),
        ("conf without keys", "names no UEFI_DB_1_KEY_FILE"),
        ("sbk short", "is not eight words"),
        ("sbk hex", "is not eight words"),
    ],
)
def test_a_key_file_that_cannot_be_one_is_refused_before_anything_is_done(tmp_path: Path, how: str, says: str) -> None:
    host, found = Host(tmp_path / "a"), keys(tmp_path)
    harm(found, how)
    result = host.run(*given(found, "--pkc", "--sbk", "--uefi-keys"))
    assert result.returncode == 1 and says in result.stderr, result.stderr
    assert host.log == [] and not (host.place / "unpacked").exists()


@pytest.mark.parametrize("text", ["", "xyz", DISK.strip() + "0", DISK * 3, "0x" + "zz" * 16])
def test_a_disk_key_is_hex_digits(tmp_path: Path, text: str) -> None:
    host, found = Host(tmp_path / "a"), keys(tmp_path)
    Path(found["--disk-key"]).write_text(text)
    result = host.run(*given(found, *found))
    assert result.returncode == 1 and re.search("is empty|is not 32 or 64 hex digits", result.stderr), result.stderr
    assert not text or text not in result.stderr


@pytest.mark.parametrize("place", ["image", "work folder"])
def test_keys_are_kept_outside_what_is_flashed(tmp_path: Path, place: str) -> None:
    host, found = Host(tmp_path / "a"), keys(tmp_path)
    folder = host.image / "overlay/etc" if place == "image" else host.place / "unpacked/keys"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(found["--pkc"], folder / "pkc.pem")
    (tmp_path / "link.pem").symlink_to(folder / "pkc.pem")
    result = host.run("--pkc", str(tmp_path / "link.pem"), *given(found, "--uefi-keys"))
    assert result.returncode == 1 and f"lies in the {place}; keep keys elsewhere" in result.stderr, result.stderr


def test_nvidias_sample_blob_is_refused(tmp_path: Path) -> None:
    host, found = Host(tmp_path / "a"), keys(tmp_path)
    Path(found["--eks"]).write_text("NVIDIA's sample")
    result = host.run(*given(found, *found))
    assert result.returncode == 1 and "whose keys everybody has" in result.stderr
    assert not host.flashes


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user, who may not read root's file")
def test_a_key_that_cannot_be_read_is_named() -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        host, found = Host(place / "a"), keys(place)
        for folder in (place, place / "key vault"):
            folder.chmod(0o755)
        done = subprocess.run(
            ["/bin/bash", str(host.image / "flash.sh"), *given(found, "--pkc", "--uefi-keys")],
            cwd=place,
            user=65534,
            group=65534,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    assert done.returncode == 1 and "pkc.pem cannot be read" in done.stderr, done.stderr
