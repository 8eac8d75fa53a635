"""The bridge's TOML file as typed sections; wire/settings.py reads it and reports all faults at once.

    [broker]     url, username, password_file, ca, cert, key
    [model]      checkpoint, engine, quantized, free_text, member, member_token_file, member_ca, member_insecure,
                 member_timeout_s; signer, threads, sentence_every_s
    [[models]]   as [model] without its last three keys, for each further engine
    [[cameras]]  site, camera, public_key (64 hex digits, or a file that holds them), clock_behind_s
    [ingest]     max_age_s, stale_after_s, skew_s, burst, rate, shed_after_s, batch_wait_ms
    [alerts]     false_per_day, long_lie_s, or raise_at, raise_for, clear_at, clear_for; unsure_below; escalate_s,
                 quiet, quiet_zone
    [[webhooks]] url, secret_file, labels, severities, sites, give_up_h, ca, insecure
    [state]      dir
    [store]      url, password_file, keep_releases_days, keep_verdicts_days, keep_alerts_days, keep_audit_days
    [api]        listen, tokens, cert, key, requests_per_s, burst
    [[scenes]]   name, cameras, weight
    [contour]    enabled
    [commands]   operator_key
    [telemetry]  otlp, insecure, share
    [log]        format
    [run]        exit_when_offline, shard

Paths in the file are relative to the file; the defaults are relative to where the process is started. Secrets are
never in the file, only the names of their files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from cloud_bridge.address import check_address
from cloud_bridge.alerts.rules import IN_A_ROW, AlertRule
from cloud_bridge.alerts.scenes import SceneConfig
from cloud_bridge.api.config import ApiConfig
from cloud_bridge.commands.desk import CommandConfig
from cloud_bridge.contour.artist import ContourConfig
from cloud_bridge.home_assistant import HomeAssistantConfig
from cloud_bridge.ingest.freshness import IngestRule
from cloud_bridge.log import LogConfig
from cloud_bridge.store.database import StoreConfig
from cloud_bridge.store.shard import Shard
from cloud_bridge.telemetry.config import TelemetryConfig
from cloud_bridge.webhooks.config import WebhookConfig
from wire.broker import BrokerConfig
from wire.errors import ConfigError, DeviceKeyError
from wire.protocol.keys import PublicKey
from wire.protocol.topics import BRIDGES, topic
from wire.settings import FileOrText, FilePath, Positive, faults, keys_of, parse_toml, refuse

__all__ = ["RAY", "BridgeConfig", "CameraConfig", "ModelConfig", "ModelEntry", "RunConfig", "StateConfig"]

RAY = "ray"
"""The kind of member that Ray Serve serves."""

_MEMBERS = {"vllm": "vllm+https://host:port/v1", RAY: "ray+https://host:port"}  # kind -> how its address is written


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """What reads the events of one engine.

    Attributes:
        checkpoint: Folder of the checkpoint.
        engine: Engine folder whose manifest names that checkpoint.
        quantized: Hash of a quantised checkpoint, which no engine's signature covers; "": none is taken.
        free_text: Hash of the base's words that the checkpoint keeps, to say sentences in; "": in the family's own.
        member: "": the checkpoint is read in this process; "vllm+https://host:port/v1", "ray+https://host:port" or
            "ray://host:port", which is ray+http://: there (docs/serving.md).
        member_token_file: File with what the server wants as API key; "": nothing.
        member_ca: File with the authorities that may sign the server's certificate; "": the system's.
        member_insecure: Allow http:// to a host that is not this machine: who is on the way can forge verdicts.
        member_timeout_s: For all that is asked at once; then the edge's exit reads instead.

    Raises:
        ConfigError: The address of the member cannot be used, or others on the way could change its answers.
    """

    checkpoint: FilePath = "checkpoints/nano"
    engine: FilePath = "build/engines/nano"
    quantized: str = ""
    free_text: str = ""
    member: str = ""
    member_token_file: FilePath = ""
    member_ca: FilePath = ""
    member_insecure: bool = False
    member_timeout_s: Positive = 2.0

    def __post_init__(self) -> None:
        if not self.member:
            return
        if self.free_text:
            raise ConfigError("free_text is for a checkpoint in this process; leave it out, or member")
        form = _MEMBERS.get(self.member_kind)
        if form is None or "?" in self.member:
            known = ", ".join(f'"{each}"' for each in _MEMBERS.values())
            raise ConfigError(f'member is none that is known; write {known}, or "" to read in this process')
        check_address("member", self.member_url, form, self.member_insecure, "member_insecure")

    @property
    def member_kind(self) -> str:
        """Which kind of server is asked; "" without one."""
        return RAY if self.member.startswith("ray://") else self.member.partition("+")[0]

    @property
    def member_url(self) -> str:
        """Where a server is asked; "" without one."""
        http = f"ray+http://{self.member[6:]}" if self.member.startswith("ray://") else self.member
        url = http.partition("+")[2].rstrip("/")
        if not url or self.member_kind == RAY:
            return f"{url}/" if url else ""
        return f"{url if urlsplit(url).path else url + '/v1'}/completions"


@dataclass(frozen=True, slots=True)
class ModelConfig(ModelEntry):
    """The engine that is read where there is one alone, and what holds for all of them.

    Attributes:
        signer: Whose signature every engine must have: a key, or its file; "": unsigned ones are read.
        threads: torch's threads; 0: torch decides.
        sentence_every_s: A camera's verdicts have a sentence when an alert changes, and otherwise once in so many
            seconds of its stream, or a little later where many are due at once; 0: all of them.

    Raises:
        ConfigError: As `ModelEntry`, or the signer is no key.
    """

    signer: FileOrText = ""
    threads: int = 0
    sentence_every_s: float = 30.0

    def __post_init__(self) -> None:
        ModelEntry.__post_init__(self)
        try:
            self.signed_by  # noqa: B018 - for its error
        except DeviceKeyError as error:
            raise ConfigError(f"signer: {error}") from error

    @property
    def signed_by(self) -> PublicKey | None:
        """The signer's key, parsed; None where none is asked for."""
        return PublicKey.parse(self.signer) if self.signer else None

    @property
    def entry(self) -> ModelEntry:
        """What it says of its engine."""
        return ModelEntry(**{each.name: getattr(self, each.name) for each in fields(ModelEntry)})


@dataclass(frozen=True, slots=True)
class CameraConfig:
    """One camera.

    Attributes:
        site: First part of its name.
        camera: Second part.
        public_key: The only key whose signature on its messages is accepted.
        clock_behind_s: By how much its clock is known to be behind; for a device that has no way to set it.
    """

    site: str
    camera: str
    public_key: FileOrText
    clock_behind_s: int = 0

    def __post_init__(self) -> None:
        if "+" in (self.site, self.camera):
            raise ConfigError("site and camera name one camera each; '+' stands for many")
        if self.site == BRIDGES:
            raise ConfigError(f"site is {BRIDGES!r}, under which bridges publish their status; choose another name")
        topic(self.site, self.camera, "features")
        try:
            PublicKey.parse(self.public_key)
        except DeviceKeyError as error:
            raise ConfigError(str(error)) from error

    @property
    def name(self) -> str:
        """`site/camera`: the camera's name in counters, logs and the state file."""
        return f"{self.site}/{self.camera}"

    @property
    def public(self) -> PublicKey:
        """The key, parsed."""
        return PublicKey.parse(self.public_key)


@dataclass(frozen=True, slots=True)
class StateConfig:
    """Where the bridge's own key is, and the store where `[store] url` names none."""

    dir: FilePath = "build/bridge"


@dataclass(frozen=True, slots=True)
class RunConfig:
    """How the process ends.

    Attributes:
        exit_when_offline: End once every camera is offline and was read to its end (demo, benchmarks).
        shard: "2/8": read the cameras of the second of eight shards; "any/8": those of whichever is free; "": all.

    Raises:
        ConfigError: The shard cannot be.
    """

    exit_when_offline: bool = False
    shard: str = ""

    def __post_init__(self) -> None:
        self.place  # noqa: B018 - for its error

    @property
    def place(self) -> Shard:
        """The shard, parsed."""
        return Shard.parse(self.shard)


@dataclass(frozen=True, slots=True)
class BridgeConfig:
    """The whole file.

    Attributes:
        alerts_by_default: It does not say when alerts are raised: a budget sets that, where a checkpoint has a table
            and there are no scenes.
    """

    cameras: tuple[CameraConfig, ...]
    broker: BrokerConfig = BrokerConfig()
    model: ModelConfig = ModelConfig()
    ingest: IngestRule = IngestRule()
    alerts: AlertRule = AlertRule()
    state: StateConfig = StateConfig()
    store: StoreConfig = StoreConfig()
    api: ApiConfig = ApiConfig()
    contour: ContourConfig = ContourConfig()
    commands: CommandConfig = CommandConfig()
    home_assistant: HomeAssistantConfig = HomeAssistantConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    log: LogConfig = LogConfig()
    run: RunConfig = RunConfig()
    webhooks: tuple[WebhookConfig, ...] = ()
    scenes: tuple[SceneConfig, ...] = ()
    models: tuple[ModelEntry, ...] = ()
    alerts_by_default: bool = False

    def shard_name(self, camera: str) -> str:
        """By which name `camera` falls to a shard: all cameras of a scene by that of the first."""
        return next((scene.cameras[0] for scene in self.scenes if camera in scene.cameras), camera)

    @classmethod
    def load(cls, path: Path | str) -> BridgeConfig:
        """Read and check a file. Raises a ConfigError that lists every problem with its cure."""
        cure = "give the bridge's file with --config; docs/configuration.md has an example"
        return cls.parse(parse_toml(path, {name: keys_of(kind) for name, kind in _SECTIONS.items()}, cure), str(path))

    @classmethod
    def parse(cls, document: Mapping[str, Any], name: str = "bridge.toml") -> BridgeConfig:
        """Check a parsed TOML document; `name` is shown in errors."""
        sections = {section: keys_of(kind) for section, kind in _SECTIONS.items()}
        refuse(name, faults(document, sections, lists=_LISTS))
        problems: list[str] = _two_rules(document.get("alerts", {}))
        made: dict[str, Any] = {
            section: _make(kind, document.get(section, {}), f"[{section}]", problems)
            for section, kind in _SECTIONS.items()
            if section not in _LISTS
        }
        cameras = _cameras(document.get("cameras", []), problems)
        webhooks = _webhooks(document.get("webhooks", []), problems)
        models = _models(document.get("models", []), problems)
        scenes = _scenes(document.get("scenes", []), [camera.name for camera in cameras], problems)
        if scenes and "false_per_day" in document.get("alerts", {}):
            problems.append(
                "[[scenes]] and [alerts] false_per_day: a budget is calibrated for a camera alone, and the views "
                "together would exceed it; remove one of the two"
            )
        if document.get("home_assistant", {}).get("enabled") and document.get("run", {}).get("shard"):
            problems.append("[home_assistant] enabled and [run] shard: only a bridge without shards describes cameras")
        refuse(name, problems)
        made |= {"cameras": tuple(cameras), "webhooks": tuple(webhooks), "scenes": tuple(scenes)}
        by_default = document.get("alerts", {}).keys().isdisjoint({*IN_A_ROW, "false_per_day"})
        return cls(models=tuple(models), alerts_by_default=by_default, **made)


_SECTIONS: Mapping[str, type[Any]] = {
    "cameras": CameraConfig,
    "broker": BrokerConfig,
    "model": ModelConfig,
    "ingest": IngestRule,
    "alerts": AlertRule,
    "state": StateConfig,
    "store": StoreConfig,
    "api": ApiConfig,
    "contour": ContourConfig,
    "commands": CommandConfig,
    "home_assistant": HomeAssistantConfig,
    "telemetry": TelemetryConfig,
    "log": LogConfig,
    "run": RunConfig,
    "webhooks": WebhookConfig,
    "scenes": SceneConfig,
    "models": ModelEntry,
}
_LISTS = ("cameras", "webhooks", "scenes", "models")  # sections that are written as [[tables]]

T = TypeVar("T")


def _make(kind: type[T], table: Mapping[str, Any], where: str, problems: list[str]) -> T | None:
    """Make `kind` of a section whose types were checked; None where its values contradict each other."""
    try:
        return kind(**table)
    except ConfigError as error:
        problems.append(f"{where} {error}")
        return None


def _two_rules(alerts: Mapping[str, Any]) -> list[str]:
    """A problem where a budget stands beside the keys of the rule whose place it takes."""
    both = [name for name in IN_A_ROW if name in alerts] if "false_per_day" in alerts else []
    cure = "a budget sets when alerts are raised and cleared; remove one of the two"
    return [f"[alerts] false_per_day is given, and {', '.join(both)} as well: {cure}"] if both else []


def _webhooks(tables: Sequence[Mapping[str, Any]], problems: list[str]) -> list[WebhookConfig]:
    found = [_make(WebhookConfig, table, f"[[webhooks]] {number}", problems) for number, table in enumerate(tables, 1)]
    webhooks = [webhook for webhook in found if webhook is not None]
    for number, webhook in enumerate(webhooks, 1):
        if webhook.key in {before.key for before in webhooks[: number - 1]}:
            problems.append(f"[[webhooks]] {number} has the url of one before it; write one table for each receiver")
    return webhooks


def _models(tables: Sequence[Mapping[str, Any]], problems: list[str]) -> list[ModelEntry]:
    for number, table in enumerate(tables, 1):
        missing = [name for name in ("checkpoint", "engine") if not table.get(name)]
        problems += [f"[[models]] {number} has no {name}; name its folder" for name in missing]
    found = [_make(ModelEntry, table, f"[[models]] {number}", problems) for number, table in enumerate(tables, 1)]
    return [entry for entry in found if entry is not None]


def _scenes(tables: Sequence[Mapping[str, Any]], cameras: Sequence[str], problems: list[str]) -> list[SceneConfig]:
    found = [_make(SceneConfig, table, f"[[scenes]] {number}", problems) for number, table in enumerate(tables, 1)]
    scenes = [scene for scene in found if scene is not None]
    taken: dict[str, str] = {}
    for scene in scenes:
        if [each.name for each in scenes].count(scene.name) > 1:
            problems.append(f"[[scenes]] {scene.name} is there twice; one table for each scene")
        for camera in scene.cameras:
            if camera not in cameras:
                known = ", ".join(cameras[:5])
                problems.append(f"[[scenes]] {scene.name}: there is no camera {camera}; there are {known}: correct it")
            if taken.setdefault(camera, scene.name) != scene.name:
                problems.append(
                    f"[[scenes]] {scene.name}: {camera} is of scene {taken[camera]}, too; a camera is of one scene"
                )
    return scenes


def _cameras(tables: Sequence[Mapping[str, Any]], problems: list[str]) -> list[CameraConfig]:
    if not tables:
        problems.append("cameras: none; add a [[cameras]] table with site, camera and public_key for each")
    found = [_make(CameraConfig, table, f"[[cameras]] {number}", problems) for number, table in enumerate(tables, 1)]
    cameras = [camera for camera in found if camera is not None]
    names: set[str] = set()
    owners: dict[str, str] = {}
    for camera in cameras:
        if camera.name in names:
            problems.append(f"cameras: {camera.name} is there twice; one table for each camera")
        other = owners.setdefault(camera.public.hex, camera.name)
        if other != camera.name:
            problems.append(
                f"cameras: {camera.name} has the public key of {other}; every device makes its own, "
                "or one could speak for the other"
            )
        names.add(camera.name)
    return cameras
