"""What a device refuses to install over what it has: an older release, or an engine that reveals more."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from export import install as install_module
from export.backends.builder import Options
from export.bundle import pack
from export.install import Place, install, main
from export.installed import Allowed
from tests.support.engine_factory import make_edge_config, make_engine
from tests.support.signed_engine import KEY, OTHER, canonical, tree
from wire.artifact.signature import signed_release
from wire.errors import ManifestError, PrivacyError
from wire.privacy.certificate import sigma_for
from wire.protocol.keys import DeviceKey

NOTHING = Allowed()


class Update:
    """Signs engines of one signer, and installs them on one device; `said` is what its operator was told."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder, ""
        self.device, self.state = folder / "device", folder / "state"

    def bundle(self, release: int, key: DeviceKey = KEY, s: int = 2, slot_s: float = 1.0) -> Path:
        file, made = self.folder / f"{release}-{s}-{slot_s}.tar", self.folder / "made"
        shutil.rmtree(made, ignore_errors=True)
        make_engine(made, sigma=sigma_for(64, float(s)), slot_s=slot_s)
        canonical(made)
        pack(made, key, file, release)
        return file

    def place(self, allowed: Allowed = NOTHING, key: DeviceKey = KEY) -> Place:
        return Place(self.device, key.public, "onnxruntime", self.folder / "cache", state=self.state, allowed=allowed)

    def install(self, bundle: Path | None = None, allowed: Allowed = NOTHING, key: DeviceKey = KEY) -> None:
        said: list[str] = []
        install(self.place(allowed, key), Options(), said.append, bundle)
        self.said = "\n".join(said)

    def refuses(self, says: str, bundle: Path | None = None, allowed: Allowed = NOTHING) -> None:
        """The engine is refused, and neither the folder nor the record changes."""
        before = tree(self.device), tree(self.state)
        with pytest.raises(ManifestError, match=says):
            self.install(bundle, allowed)
        assert (tree(self.device), tree(self.state)) == before


@pytest.fixture
def update(tmp_path: Path) -> Update:
    return Update(tmp_path)


def test_an_older_bundle_is_refused_unless_both_releases_are_named(update: Update) -> None:
    seven, nine = update.bundle(7), update.bundle(9)
    update.install(seven)
    update.install(nine)
    update.install(nine)  # the same one again
    assert "release    9 is remembered" in update.said
    update.refuses(r"release 7 is older than release 9, .*--allow-older 9:7", seven)
    for wrong in ("7:9", "9", "8:7", "9:8", "yes"):
        update.refuses("--allow-older 9:7", seven, Allowed(older=wrong))
    update.install(seven, Allowed(older="9:7"))
    assert "OLDER: release 7 takes the place of release 9" in update.said
    update.install()  # the next start needs no permission
    update.install(nine)


def test_an_older_folder_that_is_put_back_does_not_start(update: Update) -> None:
    """As an update system does that has two slots: the record is outside both."""
    update.install(update.bundle(7))
    update.device.rename(update.folder / "other-slot")
    update.install(update.bundle(9))
    shutil.rmtree(update.device)
    (update.folder / "other-slot").rename(update.device)
    update.refuses("release 7 is older than release 9")


def test_a_release_that_never_passed_its_self_test_is_not_remembered(
    update: Update, monkeypatch: pytest.MonkeyPatch
) -> None:
    update.install(update.bundle(7))
    eight, nine = update.bundle(8), update.bundle(9)
    with monkeypatch.context() as patch, pytest.raises(PrivacyError):
        patch.setattr(install_module, "self_test", _fails)
        update.install(nine)
    update.install(eight)


def _fails(engine: object) -> None:
    raise PrivacyError("self-test: it does not hold")


def test_an_engine_that_reveals_more_is_refused_unless_that_is_allowed(update: Update) -> None:
    two, four = update.bundle(1), update.bundle(2, s=4)
    update.install(two)
    says = "reveals more .*S of an event is 4.00, it was 2.00, S of an hour .*bits_per_event = .*--allow-more 2.00:4.00"
    update.refuses(says, four)
    for wrong in (
        Allowed(more="4.00:2.00"),
        Allowed(more="2.00:3.00"),
        Allowed(bits_per_event=11.5, bits_per_hour=1e5),
    ):
        update.refuses(says, four, wrong)
    update.refuses(says, four, Allowed(bits_per_event=12))  # an hour of it reveals more as well
    update.install(four, Allowed(more="2.00:4.00"))
    assert "MORE REVEALING: S of an event is 4.00, it was 2.00" in update.said
    update.install()
    update.install(update.bundle(3))
    update.install(update.bundle(4, s=4), Allowed(bits_per_event=12, bits_per_hour=1e5))
    assert "allowed by [privacy] budgets" in update.said


def test_more_releases_an_hour_reveal_more_too(update: Update) -> None:
    update.install(update.bundle(1))
    update.refuses(r"more than the one that was installed: S of an hour", update.bundle(2, slot_s=0.5))


def test_another_signer_begins_again_but_may_not_reveal_more(update: Update) -> None:
    update.install(update.bundle(9))
    update.install(update.bundle(1, key=OTHER), key=OTHER)
    with pytest.raises(ManifestError, match="reveals more"):
        update.install(update.bundle(2, key=OTHER, s=4), key=OTHER)


def test_a_damaged_record_is_refused(update: Update) -> None:
    update.install(update.bundle(7))
    file = update.state / "installed.json"
    file.write_text(file.read_text().replace('"release": 7', '"release": 1'))
    update.refuses(r"installed\.json: unreadable", update.bundle(8))


def test_the_command_reads_what_the_devices_configuration_allows(
    update: Update, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(over: str, *more: str) -> int:
        budgets = {"bits_per_event": 12.0, "bits_per_hour": 1e5, "over_budget": over}
        config = make_edge_config(
            tmp_path, engine=update.device, privacy=budgets, device={"state_dir": str(update.state)}
        )
        config.write_text(config.read_text().replace("[engine]", f'[engine]\nsigner = "{KEY.public.hex}"'))
        return main(["--config", str(config), *more])

    two, four, older = (str(update.bundle(*each)) for each in ((5, KEY, 2), (6, KEY, 4), (4, KEY, 2)))
    assert command("refuse", "--bundle", two) == 0
    assert command("report", "--bundle", four) == 1
    assert "reveals more" in capsys.readouterr().err
    assert command("refuse", "--bundle", four) == 0
    assert "MORE REVEALING" in capsys.readouterr().out
    assert command("refuse", "--bundle", older) == 1
    assert command("refuse", "--bundle", older, "--allow-older", "6:4") == 0
    assert command("refuse") == 0


def test_a_release_is_a_number_in_range(tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    make_engine(folder)
    canonical(folder)
    for release in (0, -1, 10**18):
        with pytest.raises(ManifestError, match="expected 1 to"):
            pack(folder, KEY, tmp_path / "a.tar", release)
    pack(folder, KEY, tmp_path / "a.tar", 10**18 - 1)
    assert signed_release(folder, KEY.public) == 10**18 - 1
