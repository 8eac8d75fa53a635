"""The models of a bridge: for each engine that its cameras run, what reads their events.

    [model], [[models]] --open_models--> model id -> Model, the one of [model] first; or an error that names the entry

A camera's signed messages name the model that made them; `Model` is all that the bridge needs to read that one. The
models of one bridge have the same labels, slot and length of an event, since alerts, scenes and the page have them too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TypeVar

from cloud_bridge.alerts.budget import AlertBudget
from cloud_bridge.alerts.lifecycle import AlertChange
from cloud_bridge.alerts.rules import BY_DEFAULT, AlertRule
from cloud_bridge.config import BridgeConfig, ModelEntry
from cloud_bridge.contour.artist import Artist
from cloud_bridge.inference.choice import open_member
from cloud_bridge.inference.member import Member, Reading
from cloud_bridge.ingest.engines import Engine, Engines
from cloud_bridge.ingest.events import Event
from cloud_bridge.narrator import Narrator
from familial.evaluate.ood_detector import ReferenceDistribution
from familial.evaluate.sequential import AlertCalibration
from wire.artifact.checkpoint import base_hash, checkpoint_hash
from wire.artifact.manifest import EngineManifest
from wire.errors import ConfigError, ManifestError, VeilsightError
from wire.protocol.message import MAX_SENTENCE

__all__ = ["Model", "Models", "ask_each", "budget_of", "by_id", "engines", "first_of", "open_models"]

_LOG = logging.getLogger("cloud_bridge")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """What reads the events of one engine.

    Attributes:
        engine: What its releases must be.
        member: Reads events.
        budget: Of false alerts, by this checkpoint's tables; None: by the counts of the alert rule.
        artist: Draws contours; None: there are none.
        narrator: Makes sentences of the member's words; None: they are the sentences.
        entry: As the bridge's file names it.
        close: Ends the member's connections.
    """

    engine: Engine
    member: Member
    budget: AlertBudget | None = None
    artist: Artist | None = None
    narrator: Narrator | None = None
    entry: ModelEntry = ModelEntry()
    close: Callable[[], None] = lambda: None

    @property
    def manifest(self) -> EngineManifest:
        """Of its engine."""
        return self.engine.manifest

    def sentence(self, event: Event, reading: Reading, said: str | None, change: AlertChange | None = None) -> str:
        """The sentence of a verdict, or of an alert that it changes. said: by the member; None: it was not asked."""
        if said is not None and self.narrator is not None:
            said = self.narrator.sentence(event, reading, said, change)
        before = change.words if change is not None else ""
        return f"{before}: {said or ''}"[:MAX_SENTENCE] if before else said or ""

    def told(self) -> Iterable[str]:
        """What its operator should know, a line each."""
        if base := base_hash(self.entry.checkpoint):
            own = checkpoint_hash(self.entry.checkpoint)
            yield f"the cloud member is a quantised one: {own[:12]}..., of {base[:12]}..."
        yield from self.budget.told() if self.budget is not None else ()


Models = Mapping[int, Model]
"""Model id -> model, that of `[model]` first. Never changed, only replaced: other threads look into it."""


def by_id(*models: Model) -> Models:
    """These models, the first as that of `[model]`."""
    return {model.engine.id: model for model in models}


def engines(models: Models) -> Engines:
    """Model id -> engine."""
    return {number: model.engine for number, model in models.items()}


def first_of(models: Models) -> Model:
    """That of `[model]`."""
    return next(iter(models.values()))


def ask_each(models: Models, events: Sequence[Event], ask: Callable[[Member, Sequence[Event]], Sequence[T]]) -> list[T]:
    """Ask the member of each event's model, all events of one at once; returns the answers in the order of `events`."""
    found = dict[Event, T]()
    for number in dict.fromkeys(event.model_id for event in events):
        own = [event for event in events if event.model_id == number]
        found.update(zip(own, ask(models[number].member, own), strict=True))
    return [found[event] for event in events]


def open_models(config: BridgeConfig, held: Models | None = None) -> Models:
    """Load every model that the file names.

    Args:
        config: The bridge's file.
        held: Those that are loaded. One that the file still names, in the same words, is taken as it is; the others
            must fit to them. Nothing of them is changed or closed.

    Raises:
        ConfigError: An entry of `[[models]]` cannot be used; it is named, with the reason.
        VeilsightError: `[model]` cannot be used.
    """
    found, held = dict[int, Model](), held or {}
    entries = {"": config.model.entry, **{f"[[models]] {n}": each for n, each in enumerate(config.models, 1)}}
    with ExitStack() as stack:
        for where, entry in entries.items():
            try:
                model = _open(config, entry, held)
                stack.callback(model.close if held.get(model.engine.id) is not model else _nothing)
                _check(model, found, [*held.values(), *found.values()])
            except VeilsightError as error:
                raise (ConfigError(f"{where} (engine {entry.engine}): {error}") if where else error) from error
            found[model.engine.id] = model
        stack.pop_all()
    return found


def _open(config: BridgeConfig, entry: ModelEntry, held: Models) -> Model:
    manifest = EngineManifest.load(entry.engine, config.model.signed_by)
    if manifest.hashes["certificate"] != manifest.certificate().sha256():
        raise ManifestError(
            f"hashes.certificate is {manifest.hashes['certificate'][:12]}..., and C, sigma and the cadence give "
            "another certificate; get the engine again from whoever built it"
        )
    former = held.get(manifest.model_id)
    if former is not None and former.entry == entry:
        return former
    with ExitStack() as stack:
        member = stack.enter_context(open_member(entry, manifest, config.model.threads))
        engine = Engine(manifest, ReferenceDistribution.load(entry.checkpoint, manifest))
        artist = Artist.load(config.contour, entry.checkpoint, manifest, config.alerts.unsure_below)
        budget = budget_of(config, entry.checkpoint, manifest)
        narrator = Narrator.of(manifest, config.alerts.unsure_below)
        return Model(engine, member, budget, artist, narrator, entry, stack.pop_all().close)


def budget_of(config: BridgeConfig, checkpoint: str, manifest: EngineManifest) -> AlertBudget | None:
    """The thresholds of a budget of false alerts; None: verdicts are counted. Raises ConfigError, CheckpointError."""
    if not config.alerts_by_default:
        return _thresholds(config.alerts, checkpoint, manifest)
    try:
        if config.scenes:
            raise ConfigError("[[scenes]]: a table is of a camera alone, and the views together would exceed its rates")
        return _thresholds(replace(config.alerts, false_per_day=BY_DEFAULT), checkpoint, manifest)
    except VeilsightError as error:
        why = "; ".join(str(error).splitlines())  # words alone: a record of an error keeps its frames, and the model
        _LOG.warning("verdicts in a row raise alerts, and nobody has counted how many are false: %s", why)
        return None


def _thresholds(rule: AlertRule, checkpoint: str, manifest: EngineManifest) -> AlertBudget | None:
    """Those of `rule`; None where it has no budget. Raises ConfigError, CheckpointError."""
    if rule.false_per_day is None:
        return None
    calibration = AlertCalibration.load(checkpoint, manifest)
    shape = (manifest.labels, manifest.event_releases, manifest.window.slot_s)
    budget = AlertBudget.of(rule, calibration, *shape, checkpoint)
    if budget is not None:
        budget.warn()
    return budget


def _check(model: Model, found: Models, others: Iterable[Model]) -> None:
    """Refuse a model that does not fit to the others of this bridge. Raises ConfigError."""
    if model.engine.id in found:
        raise ConfigError(f"engine {model.engine.id:016x} is there twice; remove one of the two")
    own = _must_agree(model.manifest)
    for other in others:
        for name, value in _must_agree(other.manifest).items():
            if own[name] != value:
                raise ConfigError(
                    f"{name}: {own[name]}, and engine {other.engine.id:016x} has {value}; the models of one bridge "
                    "agree in it: give this one a bridge of its own"
                )


def _must_agree(manifest: EngineManifest) -> Mapping[str, object]:
    window = manifest.window
    return {"labels": manifest.labels, "slot_s": window.slot_s, "event_releases": manifest.event_releases}


def _nothing() -> None:
    """What closes a model that stays."""
