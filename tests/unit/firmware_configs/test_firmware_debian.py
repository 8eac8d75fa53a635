"""The Debian packages: byte for byte the same, what dpkg reads, and nothing in them that belongs to one device."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from firmware_configs.archive import Entry, pack, unpack
from firmware_configs.boards import BOARDS
from firmware_configs.debian import engine, main, opencv, runtime, save, units
from firmware_configs.wheels import PYTHONS, chosen, contents, pins
from tests.support.debian_factory import EPOCH, SIGNER, made_wheels, make_packages, make_signed_engine, make_wheel
from tests.support.services import PATIENCE_S, ROOT
from wire.errors import ConfigError, ManifestError

NAMES = ("veilsight-engine", "veilsight-opencv", "veilsight-runtime", "veilsight-units")
SITE = "opt/veilsight/venv/lib/python3.10/site-packages"
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")


@pytest.fixture
def packages(tmp_path: Path) -> dict[str, Path]:
    """Name -> the package, of all four."""
    return {file.name.partition("_")[0]: file for file in make_packages(tmp_path).glob("*.deb")}


def dpkg_deb(*arguments: str | Path) -> str:
    """What dpkg-deb prints; skips the test where it is not there."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    return subprocess.run(["dpkg-deb", *arguments], check=True, capture_output=True, text=True).stdout


# --- reproducible ----------------------------------------------------------------------------------------------------


def test_the_same_input_gives_the_same_bytes_in_another_folder_and_under_another_umask(tmp_path: Path) -> None:
    found = []
    for name, mask in (("a", 0o022), ("b/c", 0o077)):
        (tmp_path / name).mkdir(parents=True)
        before = os.umask(mask)
        try:
            made = make_packages(tmp_path / name)
        finally:
            os.umask(before)
        found.append({file.name: (file.read_bytes(), file.stat().st_mode & 0o777) for file in made.iterdir()})
    assert found[0] == found[1]
    assert len(found[0]) == 12
    assert not [name for name, (data, _) in found[0].items() if str(tmp_path).encode() in data]


def test_times_owners_and_modes_are_fixed(packages: dict[str, Path]) -> None:
    for name in NAMES:
        for line in dpkg_deb("--contents", packages[name]).splitlines():
            mode, owner, _, date, hour, path = line.split(maxsplit=5)
            assert (owner, date, hour) == ("root/root", "2023-11-14", "22:13"), line
            expected = {"d": "drwxr-xr-x", "l": "lrwxrwxrwx"}.get(mode[0])
            assert mode == (expected or ("-rwxr-xr-x" if "/bin/" in path else "-rw-r--r--")), line


def test_source_date_epoch_is_the_time_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    with made_wheels(tmp_path / "wheels") as folder:
        assert main(["--out", str(tmp_path / "out"), "--wheels", str(folder), "--offline"]) == 0
    assert "1970-01-02 00:00 ./\n" in dpkg_deb("--contents", next((tmp_path / "out").glob("veilsight-units_*.deb")))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    assert main(["--out", str(tmp_path / "other"), "--offline"]) == 2


# --- what is in them -------------------------------------------------------------------------------------------------


def test_dpkg_reads_what_we_wrote(packages: dict[str, Path]) -> None:
    for name in NAMES:
        fields = dpkg_deb("--field", packages[name])
        found = unpack(packages[name])
        assert re.search(rf"^Package: {name}$", fields, re.M)
        assert found.control["Version"] == re.search(r"^Version: (.*)$", fields, re.M)[1]  # type: ignore[index]
        listed = [line.split()[5] for line in dpkg_deb("--contents", packages[name]).splitlines() if line[0] != "d"]
        assert sorted(listed) == sorted(f"./{path}" for path in found.files)


def test_the_python_of_the_runtime_is_the_one_that_it_depends_on(tmp_path: Path) -> None:
    with made_wheels(tmp_path) as folder:
        for python in PYTHONS:
            made = runtime(python, folder)
            assert made.version.endswith(f"+py{python.replace('.', '')}")
            assert f"python3 (>= {python}), python3 (<< 3.{int(python[2:]) + 1})" in made.relations["Depends"]
            assert made.files["opt/veilsight/venv/bin/python"].link == f"/usr/bin/python{python}"
            assert f"opt/veilsight/venv/lib/python{python}/site-packages/numeric/core.so" in made.files


def test_the_runtime_has_what_a_device_runs_and_no_training_and_no_compiled_code(tmp_path: Path) -> None:
    with made_wheels(tmp_path) as folder:
        found = runtime("3.10", folder).files
    ours = {path.removeprefix(f"{SITE}/").partition("/")[0] for path in found if path.startswith(SITE)}
    assert ours == {
        "wire",
        "edge_runtime",
        "export",
        "firmware_configs",
        "numeric",
        "numeric-1.0.dist-info",
        "plain.py",
        "plain-1.0.dist-info",
    } | {"veilsight.pth"}
    updater = {path.name for path in (ROOT / "firmware_configs/update").glob("*.py")} - {"bundle.py"}
    assert {path for path in found if path.startswith(f"{SITE}/firmware_configs/")} == {
        f"{SITE}/firmware_configs/__init__.py",
        *(f"{SITE}/firmware_configs/update/{name}" for name in updater),
    }
    assert found[f"{SITE}/wire/__init__.py"].data == (ROOT / "wire/__init__.py").read_bytes()
    assert not [path for path in found if "__pycache__" in path or "opencv" in path]


def test_the_environment_runs_our_code_with_the_devices_own_packages_behind_it(tmp_path: Path) -> None:
    """Unpacked to another root, with this machine's Python in place of the device's, the environment finds both."""
    python = f"3.{sys.version_info.minor}"
    if python not in PYTHONS:
        pytest.skip(f"no package for Python {python}")
    base = Path(sys.base_prefix) / "bin" / f"python{python}"
    with made_wheels(tmp_path / "wheels") as folder:
        found = {**runtime(python, folder).files, **opencv(python, folder).files}
    for path, entry in found.items():
        if not entry.link:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(entry.data.replace(b"/opt/", f"{tmp_path}/opt/".encode()))
    venv = tmp_path / "opt/veilsight/venv"
    (venv / "pyvenv.cfg").write_text((venv / "pyvenv.cfg").read_text().replace("/usr/bin", str(base.parent)))
    (venv / "bin").mkdir()
    (venv / "bin/python").symlink_to(base)
    local = tmp_path / "opt/veilsight/local/site-packages"
    local.mkdir(parents=True)
    (local / "compiled_here.py").write_text("HERE = True\n")
    code = "import numeric, plain, cv2, compiled_here, wire, sys; print(wire.__file__, sys.prefix)"
    command = [str(venv / "bin/python"), "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env={}, cwd="/")
    site = venv / f"lib/python{python}/site-packages"
    assert result.stdout.split() == [f"{site}/wire/__init__.py", str(venv)], result.stderr


def test_no_package_has_a_file_of_one_device(packages: dict[str, Path]) -> None:
    """Configuration, secrets, key, ledger, drop-ins and what was compiled on the device belong to none."""
    found = [path for file in packages.values() for path in unpack(file).files]
    places = ("etc/veilsight/", "var/", "run/", "opt/veilsight/local/", "etc/systemd/", "usr/local/", "usr/lib/python3")
    assert not [path for path in found if path.startswith(places)]
    assert len(found) == len(set(found)), "two packages have the same file"
    outside = {path for path in found if not path.startswith(("opt/veilsight/", "usr/share/", "lib/systemd/system/"))}
    assert outside == {
        "etc/sysctl.d/90-veilsight.conf",
        "usr/lib/systemd/journald.conf.d/50-veilsight.conf",
        "usr/lib/systemd/system.conf.d/50-veilsight.conf",
        "usr/lib/sysusers.d/veilsight.conf",
        "usr/lib/tmpfiles.d/veilsight.conf",
    }
    assert dpkg_deb("--info", packages["veilsight-units"], "conffiles") == "/etc/sysctl.d/90-veilsight.conf\n"


def test_the_manifest_has_the_hash_of_every_file_inside_and_beside(packages: dict[str, Path], tmp_path: Path) -> None:
    for name, file in packages.items():
        found = unpack(file).files
        beside = file.with_name(file.name.removesuffix(".deb") + ".sha256")
        inside = f"usr/share/veilsight/{name}.sha256"
        assert found[inside].data == beside.read_bytes()
        listed = {line.split("  ")[1][1:] for line in beside.read_text().splitlines()}
        assert listed == {path for path, entry in found.items() if not entry.link} - {inside}
        root = tmp_path / name
        dpkg_deb("--extract", file, root)
        text = beside.read_text().replace("  /", f"  {root}/")
        subprocess.run(["sha256sum", "--check", "--quiet", "--strict"], input=text, text=True, check=True)


def test_the_engines_version_is_its_signed_release_and_the_signers_key_is_not_in_it(tmp_path: Path) -> None:
    made = engine(make_signed_engine(tmp_path / "engine", 1_764_000_000), SIGNER.public)
    assert made.version == "1764000000"
    assert not [path for path in made.files if "signer" in path]
    (tmp_path / "engine/certificate.json").write_text("{}")
    with pytest.raises(ManifestError, match=r"certificate\.json"):
        engine(tmp_path / "engine", SIGNER.public)


# --- bill of materials -----------------------------------------------------------------------------------------------


def test_the_bill_of_materials_names_every_wheel_with_its_hash(packages: dict[str, Path], tmp_path: Path) -> None:
    file = packages["veilsight-runtime"]
    beside = file.with_name(file.name.removesuffix(".deb") + ".cdx.json")
    assert unpack(file).files["usr/share/veilsight/veilsight-runtime.cdx.json"].data == beside.read_bytes()
    found = {part["name"]: part for part in json.loads(beside.read_text())["components"]}
    assert found.keys() == {"numeric", "plain"}
    with made_wheels(tmp_path / "wheels"):
        wheel = chosen(["numeric==1.0"], "3.10")[0]
    assert found["numeric"] == {
        "type": "library",
        "bom-ref": "pkg:pypi/numeric@1.0",
        "name": "numeric",
        "version": "1.0",
        "purl": "pkg:pypi/numeric@1.0",
        "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
        "licenses": [{"expression": "MIT"}],
    }
    assert "licenses" not in found["plain"], "a line of copyright is no licence"


def test_references_of_the_bill_are_its_own(packages: dict[str, Path]) -> None:
    for file in packages.values():
        text = file.with_name(file.name.removesuffix(".deb") + ".cdx.json").read_text()
        bill = json.loads(text)
        assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
        assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bill["serialNumber"])
        parts = [bill["metadata"]["component"], *bill["components"]]
        references = [part["bom-ref"] for part in parts]
        assert len(references) == len(set(references))
        assert [each["ref"] for each in bill["dependencies"]] == references
        assert sorted(bill["dependencies"][0]["dependsOn"]) == sorted(references[1:])


def test_bills_of_materials_are_what_the_schema_of_cyclonedx_says(packages: dict[str, Path]) -> None:
    validation = pytest.importorskip("cyclonedx.validation.json", reason="scripts/setup --all installs it")
    schema = pytest.importorskip("cyclonedx.schema", reason="scripts/setup --all installs it")
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    for file in packages.values():
        text = file.with_name(file.name.removesuffix(".deb") + ".cdx.json").read_text()
        assert validator.validate_str(text) is None
        assert validator.validate_str(text.replace('"application"', '"thing"')) is not None


# --- wheels ----------------------------------------------------------------------------------------------------------


def test_each_python_of_a_board_has_one_wheel_of_every_package_with_its_hash() -> None:
    assert {row.python for row in BOARDS} <= set(PYTHONS)
    for python in PYTHONS:
        found = chosen(pins(), python)
        assert [wheel.name for wheel in found] == [pin.partition("==")[0].lower().replace("_", "-") for pin in pins()]
        tag = f"cp{python.replace('.', '')}"
        assert {wheel.file.split("-")[2] for wheel in found if wheel.name == "numpy"} == {tag}


@pytest.mark.parametrize(("pin", "python"), [("numpy==1.26.5", "3.10"), ("numpy==1.26.4", "3.13")])
def test_a_package_without_a_known_wheel_is_refused(pin: str, python: str) -> None:
    with pytest.raises(ConfigError, match=r"no hash of numpy==1\.26\.5|'3\.13' is not one"):
        chosen([pin], python)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"../evil.py": ""}, "is not for site-packages"),
        ({"/etc/evil": ""}, "is not for site-packages"),
        ({"evil-1.0.data/scripts/evil": ""}, "is not for site-packages"),
        ({"plain.py": "OTHER = 3\n"}, "is in another wheel too"),
    ],
)
def test_a_wheel_that_reaches_beyond_its_own_files_is_refused(files: dict[str, str], says: str, tmp_path: Path) -> None:
    with made_wheels(tmp_path, evil=files) as folder, pytest.raises(ConfigError, match=says):
        runtime("3.10", folder)


def test_a_wheel_that_was_exchanged_or_is_missing_is_refused(tmp_path: Path) -> None:
    with made_wheels(tmp_path) as folder:
        wheel = chosen(["plain==1.0"], "3.10")[0]
        make_wheel(folder, "plain", "py3-none-any", {"plain.py": "import os\n"}, "")
        with pytest.raises(ConfigError, match=f"not {wheel.sha256}"):
            contents(wheel, folder)
        (folder / wheel.file).unlink()
        assert main(["--out", str(tmp_path / "out"), "--wheels", str(folder), "--offline"]) == 2
    assert not (tmp_path / "out").exists()


# --- refusals --------------------------------------------------------------------------------------------------------


def test_an_engine_without_a_signer_and_a_full_folder_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path / "out"), "--engine", str(tmp_path)]) == 2
    assert "--engine and --signer belong together" in capsys.readouterr().err
    assert main(["--out", str(tmp_path / "out"), "--signer", SIGNER.public.hex]) == 2
    (tmp_path / "mine").write_text("mine")
    assert main(["--out", str(tmp_path)]) == 2
    assert "not an empty folder" in capsys.readouterr().err


@pytest.mark.parametrize("harm", [b"", b"!<arch>\n", b"#!/bin/sh\n", b"!<arch>\n" + b"x" * 100])
def test_what_is_no_package_is_refused_in_a_line(harm: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_bytes(harm)
    with pytest.raises(ConfigError, match="is no Debian package that we made"):
        unpack(tmp_path / "x.deb")


def test_a_field_cannot_smuggle_in_another() -> None:
    with pytest.raises(ConfigError, match="is no field of a package"):
        pack({"Package": "x\nDepends: y"}, {"a": Entry(b"")}, {}, (), EPOCH)


# --- maintainer scripts ----------------------------------------------------------------------------------------------


def test_the_scripts_are_shell_without_fault_and_touch_no_key_and_no_ledger(packages: dict[str, Path]) -> None:
    seen = 0
    for file in packages.values():
        for name in SCRIPTS:
            place = subprocess.run(["dpkg-deb", "--info", file, name], capture_output=True, text=True, check=False)
            if place.returncode:
                continue
            seen += 1
            assert place.stdout.startswith("#!/bin/sh\nset -e\n")
            subprocess.run(["sh", "-n"], input=place.stdout, text=True, check=True)
            removed = re.findall(r"\brm -rf? (\S+)", place.stdout)
            assert set(removed) <= {"/var/lib/veilsight-engine", "{}"}, (
                "keys, ledger and outbox are in /var/lib/veilsight"
            )
            assert "@" not in place.stdout
    assert seen >= 9


def test_a_purge_says_what_it_deletes_and_what_it_keeps(packages: dict[str, Path], tmp_path: Path) -> None:
    script = dpkg_deb("--info", packages["veilsight-units"], "postrm")
    for folder in ("veilsight", "veilsight-engine"):
        (tmp_path / folder).mkdir()
    script = script.replace("/var/lib/", f"{tmp_path}/").replace("command -v deb-systemd-helper", "false")
    for _ in range(2):  # a second time does no harm
        arguments = ["sh", "-s", "purge"]
        said = subprocess.run(arguments, input=script, text=True, capture_output=True, check=True).stdout
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("veilsight")] == ["veilsight"]
    assert re.search(r"purge deleted \S*veilsight-engine", said)
    assert re.search(r"purge kept \S*veilsight \(key, ledger, outbox\) and /etc/veilsight", said)


def test_an_upgrade_stops_the_gate_and_starts_it_only_where_it_is_configured(packages: dict[str, Path]) -> None:
    for file in packages.values():
        assert "deb-systemd-invoke stop veilsight.target" in dpkg_deb("--info", file, "prerm")
        after = dpkg_deb("--info", file, "postinst")
        assert "-e /etc/veilsight/edge.toml" in after and "is-enabled veilsight.target" in after


def test_the_units_package_has_every_unit_and_enables_those_that_the_boot_starts() -> None:
    made = units()
    names = {path.rpartition("/")[2] for path in made.files if path.startswith("lib/systemd/system/")}
    services = ["engine", "eye", "gate", "power", "reader", "firewall", "hostkeys", "makefs@", "csi"]
    services += ["identity", "update-boot", "update-confirm", "update-back"]
    assert names == {f"veilsight-{name}.service" for name in services} | {
        "veilsight-eye.socket",
        "veilsight-reader.socket",
        "veilsight.target",
        *(f"veilsight-{name}@.service" for name in ("edge", "engine", "eye", "reader")),
        *(f"veilsight-{name}@.socket" for name in ("eye", "reader")),
    }
    texts = [entry.data.decode() for path, entry in made.files.items() if path.startswith("lib/systemd")]
    assert not [text for text in texts if "veilsight-install" in text or "/opt/veilsight/wheels" in text]


def test_a_package_is_written_whole_with_what_belongs_beside_it(tmp_path: Path) -> None:
    written = save(units(), tmp_path, EPOCH)
    assert [path.suffix for path in written] == [".deb", ".json", ".sha256"]
    assert sorted(tmp_path.iterdir()) == sorted(written)
