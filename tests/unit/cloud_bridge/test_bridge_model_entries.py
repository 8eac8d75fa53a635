"""What the file says of models: a broken entry is refused by name at the start, and changes nothing at a reload."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import shutil
import signal
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloud_bridge import models as module
from cloud_bridge.__main__ import _with_models_of, main
from cloud_bridge.alerts.rules import AlertRule
from cloud_bridge.alerts.scenes import SceneConfig
from cloud_bridge.config import BridgeConfig, ModelConfig, ModelEntry
from cloud_bridge.inference.member import FamilyMember
from cloud_bridge.inference.remote import RemoteMember
from cloud_bridge.ingest.engines import Engine
from cloud_bridge.loop import run
from cloud_bridge.models import Model, Models, by_id, open_models
from cloud_bridge.reload import Reload
from familial.evaluate.sequential import FILE, AlertCalibration, OperatingPoint, ScoreLaw
from familial.model.checkpoint import checkpoint_hash, save
from tests.support.bridge_factory import DEVICE, OTHER, FakeMember, make_manifest
from tests.support.family_factory import make_family
from tests.support.services import until
from wire.artifact.manifest import EngineManifest, WindowSpec
from wire.artifact.signature import sign_manifest
from wire.errors import CheckpointError, ConfigError, ManifestError
from wire.privacy.certificate import sigma_for

CAMERA = {"site": "lab", "camera": "door", "public_key": DEVICE.public.hex}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders, a and b, each with a checkpoint and the manifest of its engine."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("a", "b")):
        save(make_family(seed=seed), folder / name / "checkpoint")
        put(folder / name, make_manifest(checkpoint=checkpoint_hash(folder / name / "checkpoint")))
    return folder


@pytest.fixture
def folder(shelf: Path, tmp_path: Path) -> Path:
    """A copy of `shelf` that a test may break."""
    return Path(shutil.copytree(shelf, tmp_path / "models"))


def put(where: Path, manifest: EngineManifest) -> None:
    (where / "engine").mkdir(exist_ok=True)
    manifest.save(where / "engine")


def entry(where: Path, **more: Any) -> dict[str, Any]:
    return {"checkpoint": str(where / "checkpoint"), "engine": str(where / "engine"), **more}


def config_of(folder: Path, *names: str, **model: Any) -> BridgeConfig:
    first, *more = names
    document: dict[str, Any] = {"model": {**entry(folder / first), **model}, "cameras": [CAMERA]}
    return BridgeConfig.parse({**document, "models": [entry(folder / name) for name in more]})


def names(models: Models) -> list[str]:
    return [Path(model.entry.engine).parent.name for model in models.values()]


def test_every_entry_is_read_with_the_checkpoint_of_its_engine(shelf: Path) -> None:
    models = open_models(config_of(shelf, "a", "b"))
    assert names(models) == ["a", "b"] and len(models) == 2
    for number, model in models.items():
        assert isinstance(model.member, FamilyMember) and number == model.manifest.model_id
        assert model.manifest.hashes["checkpoint"] == checkpoint_hash(model.entry.checkpoint)


def test_each_entry_has_a_member_of_its_own(shelf: Path) -> None:
    config = config_of(shelf, "a", "b")
    there = dataclasses.replace(config.models[0], member="ray://127.0.0.1:9")
    models = open_models(dataclasses.replace(config, models=(there,)))
    here, remote = models.values()
    assert isinstance(here.member, FamilyMember) and isinstance(remote.member, RemoteMember)
    for _ in range(2):  # once at a reload, and again at the end
        remote.close()


# --- when alerts are raised


def _table(checkpoint: Path, weights: str = "", rate: float = 12.0) -> None:
    """Give a checkpoint a table that supports `rate` false alerts a day of each risk, and no fewer."""
    point = OperatingPoint(2.0, rate, 0.6, 3.0, 6.0)
    laws = {label: ScoreLaw(0.0, 1.0, 2.0, (point,), direction=(0.1,) * 64) for label in ("fall", "fight")}
    hashed = weights or checkpoint_hash(checkpoint)
    AlertCalibration(hashed, str(sigma_for(64, 3.0)), "made", 1.0, laws).save(checkpoint)


def test_a_file_that_does_not_say_when_alerts_are_raised_has_a_budget_by_the_table(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One an hour, shared alike by two risks; the model without a table counts verdicts, and says that it does."""
    _table(folder / "a" / "checkpoint")
    first, second = open_models(config_of(folder, "a", "b")).values()
    assert first.budget is not None and second.budget is None
    assert [(label, point.threshold) for label, point in first.budget.points.items()] == [("fall", 2.0), ("fight", 2.0)]
    assert any(line.startswith("alert fall: at most 12 false a day") for line in first.told())
    assert "verdicts in a row raise alerts, and nobody has counted how many are false" in caplog.text
    assert f"{folder / 'b' / 'checkpoint'} has no table of alerts; run python -m calibration.alerts" in caplog.text


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda checkpoint: _table(checkpoint, weights="f" * 64), "made for weights ffffffffffff"),
        (lambda checkpoint: (checkpoint / FILE).write_text("{"), "unreadable"),
        (lambda checkpoint: _table(checkpoint, rate=13.0), "support 13 at least"),
    ],
)
def test_a_table_that_nobody_asked_for_and_that_cannot_be_used_stops_no_bridge(
    folder: Path, change: Callable[[Path], object], hint: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Asked for by a budget it is an error, as before."""
    change(folder / "a" / "checkpoint")
    config = config_of(folder, "a")
    (model,) = open_models(config).values()
    assert model.budget is None and hint in caplog.text
    asked = dataclasses.replace(config, alerts=AlertRule(false_per_day=24), alerts_by_default=False)
    with pytest.raises((ConfigError, CheckpointError), match=hint):
        open_models(asked)


def test_a_bridge_with_scenes_counts_verdicts_and_says_so(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where its file says how many in a row, it does so in silence."""
    _table(folder / "a" / "checkpoint")
    scenes = (SceneConfig("room", ("ward/bed-1", "ward/bed-2")),)
    config = dataclasses.replace(config_of(folder, "a"), scenes=scenes)
    (model,) = open_models(config).values()
    assert model.budget is None
    assert "nobody has counted how many are false: [[scenes]]: a table is of a camera alone" in caplog.text
    caplog.clear()
    (model,) = open_models(dataclasses.replace(config, alerts_by_default=False)).values()
    assert model.budget is None and "alert" not in caplog.text


def test_whoever_says_when_verdicts_raise_alerts_has_no_budget(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    _table(folder / "a" / "checkpoint")
    config = dataclasses.replace(config_of(folder, "a"), alerts=AlertRule(raise_at=0.8), alerts_by_default=False)
    (model,) = open_models(config).values()
    assert model.budget is None and "alert" not in caplog.text


# --- broken and hostile entries


def _other(name: str, **changed: Any) -> Callable[[Path], object]:
    """Give b an engine whose manifest differs, and whose certificate is its own."""

    def change(folder: Path) -> None:
        manifest = EngineManifest.load(folder / name / "engine")
        made = dataclasses.replace(manifest, **changed)
        hashes = {**made.hashes, "certificate": made.certificate().sha256()}
        put(folder / name, dataclasses.replace(made, hashes=hashes))

    return change


def _forge(folder: Path) -> None:
    """A manifest that names the certificate of an engine which reveals less than it does."""
    manifest = EngineManifest.load(folder / "b" / "engine")
    less = dataclasses.replace(manifest, sigma=sigma_for(64, 1.0)).certificate().sha256()
    put(folder / "b", dataclasses.replace(manifest, hashes={**manifest.hashes, "certificate": less}))


def _flip(folder: Path) -> None:
    weights = folder / "b" / "checkpoint" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no engine": (lambda folder: shutil.rmtree(folder / "b" / "engine"), "manifest.json"),
    "no checkpoint": (lambda folder: shutil.rmtree(folder / "b" / "checkpoint"), "config.json"),
    "a manifest of junk": (lambda folder: (folder / "b/engine/manifest.json").write_text("[" * 3000), "unreadable"),
    "other weights": (_flip, "the engine was built from"),
    "another checkpoint": (_other("b", hashes=make_manifest(checkpoint="d" * 64).hashes), "the engine was built from"),
    "a certificate of less": (_forge, "hashes.certificate is .*, and C, sigma and the cadence give another"),
    "other labels": (_other("b", labels=("normal", "fall", "fire")), "labels: .*'fire'.* and engine .* has .*'fight'"),
    "other slots": (_other("b", window=WindowSpec(96, 96, 2.0, 8, 8, 0.5, 0.5)), "slot_s: 2.0, and engine"),
    "other events": (_other("b", event_releases=4), "event_releases: 4, and engine"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_entry_is_refused_by_name(folder: Path, how: str) -> None:
    breaks, hint = BROKEN[how]
    breaks(folder)
    with pytest.raises(ConfigError, match=hint) as refused:
        open_models(config_of(folder, "a", "b"))
    assert str(refused.value).startswith(f"[[models]] 1 (engine {folder / 'b' / 'engine'}): ")


def test_the_same_engine_twice_is_refused(shelf: Path) -> None:
    with pytest.raises(ConfigError, match=r"^\[\[models\]\] 1 .*is there twice; remove one of the two"):
        open_models(config_of(shelf, "a", "a"))


def test_a_broken_first_entry_says_what_it_said_before_there_were_others(folder: Path) -> None:
    _flip(folder)
    with pytest.raises(CheckpointError, match="the engine was built from"):
        open_models(config_of(folder, "b", "a"))


def test_what_nobody_or_somebody_else_has_signed_is_refused_where_a_signer_is_named(folder: Path) -> None:
    for name in ("a", "b"):
        sign_manifest(folder / name / "engine", DEVICE)
    signer = DEVICE.public.hex
    assert names(open_models(config_of(folder, "a", "b", signer=signer))) == ["a", "b"]
    sign_manifest(folder / "b" / "engine", OTHER)
    with pytest.raises(ConfigError, match=r"^\[\[models\]\] 1 .*sign"):
        open_models(config_of(folder, "a", "b", signer=signer))
    (folder / "b" / "engine" / "manifest.sig").unlink()
    with pytest.raises(ConfigError, match=r"^\[\[models\]\] 1 .*sign"):
        open_models(config_of(folder, "a", "b", signer=signer))
    with pytest.raises(ManifestError, match="sign"):
        open_models(config_of(folder, "b", "a", signer=signer))


@pytest.mark.parametrize(
    ("document", "hint"),
    [
        ({"models": [{"engine": "b"}]}, r"\[\[models\]\] 1 has no checkpoint; name its folder"),
        ({"models": [{"checkpoint": "b"}]}, r"\[\[models\]\] 1 has no engine; name its folder"),
        ({"models": [{"engine": "b", "checkpoint": "c", "threads": 2}]}, "threads is unknown"),
        ({"models": {"engine": "b"}}, r"\[models\] is one table; write \[\[models\]\]"),
        ({"models": [{"engine": "b", "checkpoint": "c", "member": "http://x"}]}, r"\[\[models\]\] 1 member is none"),
        ({"model": {"signer": "nobody"}}, r"\[model\] signer: "),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(document: dict[str, Any], hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        BridgeConfig.parse({"cameras": [CAMERA], **document})


def test_the_process_ends_with_code_2_and_names_the_entry(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(folder / "b" / "engine")
    file = write(tmp_path, folder, "a", "b")
    before = signal.getsignal(signal.SIGHUP), signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        assert main(["--config", str(file)]) == 2
    finally:
        for number, handler in zip((signal.SIGHUP, signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)
    assert "cloud_bridge: [[models]] 1 (engine" in capsys.readouterr().err


# --- a reload


def write(tmp_path: Path, folder: Path, first: str, *more: str, tail: str = "") -> Path:
    tables = [("[model]", entry(folder / first))] + [("[[models]]", entry(folder / name)) for name in more]
    tables += [("[[cameras]]", CAMERA), ("[state]", {"dir": str(tmp_path / "state")})]
    lines = [line for head, keys in tables for line in (head, *(f"{k} = {json.dumps(v)}" for k, v in keys.items()))]
    file = tmp_path / "bridge.toml"
    file.write_text("\n".join(lines) + "\n" + tail)
    return file


def finished(reload: Reload, held: Models) -> Models | None:
    """What a reload that was asked for comes to."""
    assert reload.step(held) is None
    assert reload._thread is not None
    reload._thread.join()
    return reload.step(held)


def test_a_reload_keeps_what_the_file_still_names_and_loads_the_rest(folder: Path, tmp_path: Path) -> None:
    config = BridgeConfig.load(write(tmp_path, folder, "a"))
    file = str(tmp_path / "bridge.toml")
    reload = Reload(lambda held: open_models(_with_models_of(file, config), held))
    held = open_models(config)
    assert reload.step(held) is None, "nobody has asked"
    write(tmp_path, folder, "b", "a")  # a moves from [model] to [[models]]
    reload.ask()
    found = finished(reload, held)
    assert found is not None and names(found) == ["b", "a"] and reload.trouble == ""
    number = next(iter(held))
    assert found[number] is held[number]
    assert reload.step(found) is None, "asked once, done once"


@pytest.mark.parametrize("how", BROKEN)
def test_a_reload_with_a_broken_entry_changes_nothing_and_says_why(
    folder: Path, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = BridgeConfig.load(write(tmp_path, folder, "a"))
    file = str(tmp_path / "bridge.toml")
    reload = Reload(lambda held: open_models(_with_models_of(file, config), held))
    held = open_models(config)
    write(tmp_path, folder, "a", "b")
    kept = Path(shutil.copytree(folder / "b", tmp_path / "kept"))
    BROKEN[how][0](folder)
    reload.ask()
    assert finished(reload, held) is None
    assert reload.trouble.startswith("[[models]] 1 (engine ") and "the models stay as they are" in caplog.text
    shutil.rmtree(folder / "b")
    shutil.copytree(kept, folder / "b")
    reload.ask()
    found = finished(reload, held)
    assert found is not None and names(found) == ["a", "b"] and reload.trouble == ""


def test_a_reload_with_labels_of_its_own_alone_is_refused_too(folder: Path, tmp_path: Path) -> None:
    """The page and the alerts that are open have the labels of the start."""
    held = open_models(config_of(folder, "a"))
    _other("b", labels=("normal", "fall", "fire"))(folder)
    with pytest.raises(ConfigError, match="labels"):
        open_models(config_of(folder, "b"), held)


def test_what_was_loaded_before_an_entry_broke_is_closed_and_what_is_held_is_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, load = list[str](), module._open

    def opened(config: BridgeConfig, wanted: ModelEntry, held: Models) -> Model:
        model = load(config, wanted, held)
        name = Path(wanted.engine).parent.name
        return model if name == "a" else dataclasses.replace(model, close=lambda: closed.append(name))

    held = open_models(config_of(folder, "a"))
    kept = {n: dataclasses.replace(m, close=lambda: closed.append("a")) for n, m in held.items()}
    monkeypatch.setattr(module, "_open", opened)
    with pytest.raises(ConfigError, match=r"^\[\[models\]\] 2 .*twice"):
        open_models(config_of(folder, "a", "b", "b"), kept)
    assert closed == ["b", "b"]


def test_an_error_that_nobody_foresaw_does_not_end_the_bridge(caplog: pytest.LogCaptureFixture) -> None:
    def load(held: Models) -> Models:
        raise RuntimeError("a library, of a file")

    reload, held = Reload(load), by_id(Model(Engine(make_manifest()), FakeMember()))
    reload.ask()
    assert finished(reload, held) is None
    assert "a library, of a file" in reload.trouble and "Traceback" in caplog.text


def test_the_bridge_reads_on_while_a_model_is_loaded() -> None:
    """Two asks meanwhile are one more attempt: it reads the file as it is by then."""
    gate, loads = threading.Event(), list[int]()

    def load(held: Models) -> Models:
        loads.append(len(held))
        gate.wait()
        return held

    reload, held = Reload(load), by_id(Model(Engine(make_manifest()), FakeMember()))
    reload.ask()
    assert reload.step(held) is None
    until(lambda: loads)
    for _ in range(2):
        reload.ask()
        assert reload.step(held) is None
    gate.set()
    assert reload._thread is not None
    reload._thread.join()
    assert reload.step(held) is held and finished(reload, held) is held and loads == [1, 1]
    assert reload.step(held) is None and loads == [1, 1]


def test_a_signal_asks() -> None:
    before, reload = signal.getsignal(signal.SIGHUP), Reload(lambda held: held)
    try:
        reload.on_signal()
        os.kill(os.getpid(), signal.SIGHUP)
        held = by_id(Model(Engine(make_manifest()), FakeMember()))
        assert finished(reload, held) is held
    finally:
        signal.signal(signal.SIGHUP, before)


def test_models_change_between_batches_and_not_while_the_store_is_away() -> None:
    did, away = list[str](), [True, False, True, False]
    bridge: Any = SimpleNamespace(
        retry=lambda: not away.pop(0) if away else True,
        look=lambda: did.append("away"),
        publisher=SimpleNamespace(waiting=0),
        handle=lambda batch: did.append("batch"),
        **{name: lambda: None for name in ("tidy", "watch", "close", "settle", "rest")},
    )
    run(bridge, lambda timeout_s: ["batch"], False, lambda: did.count("batch") == 2, lambda: did.append("between"))  # type: ignore[list-item]
    assert did == ["away", "between", "batch", "away", "between", "batch"]


def test_a_model_that_is_gone_leaves_the_memory(shelf: Path) -> None:
    held = dict(open_models(config_of(shelf, "a", "b")))
    gone = weakref.ref(held.popitem()[1].member)
    gc.collect()
    assert gone() is None and names(held) == ["a"]


def test_the_entry_of_the_first_is_what_it_says_of_its_engine() -> None:
    first = ModelConfig("c", "e", quantized="q", threads=3, sentence_every_s=1.0)
    assert first.entry == ModelEntry("c", "e", quantized="q") and type(first.entry) is ModelEntry
