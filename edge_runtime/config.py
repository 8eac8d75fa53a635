"""The configuration of the device's process: `edge.toml`, flat and typed. wire/settings.py reads it and reports faults.

    edge.toml + --source, --engine, --broker --> Config;   [camera] source is Config.camera_source

Secrets are read from files of their own, never written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wire.errors import ConfigError
from wire.privacy.certificate import CAMERAS
from wire.protocol.topics import topic
from wire.settings import FileOrText, FilePath, Key, Positive, PositiveInt, faults, keys_of, parse_toml, refuse

__all__ = ["Config", "load_config"]


_RENAMED = {"engine": {"publisher": "signer"}, "privacy": {"attention": "adaptive_level"}}  # in 0.1


@dataclass(frozen=True)
class Config:
    """A whole `edge.toml`: the field SECTION_KEY is `key` of `[section]`."""

    device_site: str
    device_camera: str
    device_key: FilePath  # path of the signing key, made where missing
    device_state_dir: FilePath  # holds the ledger
    camera_source: FileOrText = field(repr=False)  # see capture/sources.py; it may hold a password
    engine_folder: FilePath
    broker_url: str  # mqtt://host[:port] or mqtts://
    device_scene: str = ""  # cameras of one site that see the same people name one scene; "": this one is alone
    device_scene_cameras: PositiveInt = 1  # how many those are, this one among them: each counts for all of them
    camera_rotate: int = 0  # degrees clockwise that stand a picture upright: 0, 90, 180, 270
    camera_speed: Positive = 1.0  # of files and synthetic scenes
    camera_loop: bool = False  # play a file again at its end
    camera_timeout_s: Positive = 10.0  # how long opening or reading may take
    camera_lost_after_s: float = 600.0  # after so long without a frame the eye is started anew; 0: never
    engine_threads: PositiveInt = 1
    engine_backend: str = "onnxruntime"  # or "tensorrt": a file that export.install made on this device
    engine_signer: FileOrText = ""  # the key (hex, or its file) that signed the manifest; "": unsigned engines run
    engine_cache: FilePath = ""  # where export.install keeps what it made; "": in the folder
    engine_cuda_graph: bool = False  # replay the run as one CUDA graph
    broker_username: str = ""
    broker_password_file: FilePath = ""
    broker_ca: FilePath = ""
    broker_cert: FilePath = ""
    broker_key: FilePath = ""
    broker_required: bool = False  # end with an error where no broker accepts us within 5 s of the start
    broker_queue: PositiveInt = 600  # messages kept in memory where the disk takes none
    outbox_max_mb: float = 64.0  # what is not delivered yet, on disk; the oldest is dropped; 0: in memory alone
    outbox_max_age_h: Positive = 24.0  # what is older is dropped
    outbox_replay_per_s: Positive = 5.0  # releases a second that are sent after an outage, beside the new ones
    privacy_profile: str = ""  # at the start, until a command orders another; "": the maximum
    privacy_max_profile: str = ""  # the most revealing one that a command may order; "": the engine's own
    privacy_operator_key: FileOrText = ""  # public key, or its file, of the operator; "": no command is obeyed
    privacy_bits_per_event: float = 0.0  # budgets: see wire/privacy/budget.py; 0: none
    privacy_bits_per_hour: float = 0.0
    privacy_bits_per_day: float = 0.0
    privacy_adaptive_level: bool = False  # the engine's rule chooses each release's level: docs/adaptive-level.md
    privacy_over_budget: str = "refuse"  # or "report", or "cut": noise alone when an hour's or a day's is spent
    health_listen: str = ""  # "host:port" or ":port" (loopback) of the local page; "": none
    run_memory_mb: PositiveInt = 4096  # of the eye, and of the reader, at most
    run_refresh_eye_min: int = 60  # the eye of a live camera is started anew so often, and forgets; 0: never
    run_windows: int = 0  # end after so many releases; 0: endless
    run_release_delay_s: Positive = 0.2  # from a slot's end to its release; at most half a slot


def load_config(path: Path | str, flags: Mapping[str, str] | None = None) -> Config:
    """Read a configuration.

    Args:
        path: edge.toml.
        flags: Field of Config -> value, from the command line; they override the file.

    Raises:
        ConfigError: The file has faults; the message lists them all.
    """
    sections: dict[str, dict[str, Key]] = {}
    for name, key in keys_of(Config).items():
        section, _, short = name.partition("_")
        sections.setdefault(section, {})[short] = key
    document = parse_toml(path, sections, "docs/configuration.md has an example", _RENAMED)
    for name, value in (flags or {}).items():
        section, _, short = name.partition("_")
        document.setdefault(section, {})[short] = value
    refuse(path, faults(document, sections))
    config = Config(**{f"{name}_{key}": value for name, keys in document.items() for key, value in keys.items()})
    if "+" in topic(config.device_site, config.device_camera, "state"):
        raise ConfigError(f"{path}: [device] site and camera name one camera; '+' stands for many")
    if config.camera_rotate not in (0, 90, 180, 270):
        raise ConfigError(
            f"{path}: [camera] rotate is {config.camera_rotate}; write by how many degrees clockwise its pictures must "
            "be turned to stand upright: 0, 90, 180 or 270"
        )
    if bool(config.device_scene) != (config.device_scene_cameras > 1) or config.device_scene_cameras > CAMERAS[-1]:
        raise ConfigError(
            f"{path}: [device] scene is {config.device_scene!r}, scene_cameras is {config.device_scene_cameras}; name "
            f"the scene, and count its cameras, 2 to {CAMERAS[-1]}; or leave out both where no other camera sees it"
        )
    return config
