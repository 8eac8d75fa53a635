"""Signs commands to devices with the operator's key; the store numbers and keeps them.

API: an operator asks --desk: number, signature--> the table `commands` + the audit log, one transaction
the bridge that reads the camera --once a second--> outbox --> the topic `command` --> the device obeys, once
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Engine

from cloud_bridge.store.commands import add_command, commands_of
from wire.errors import ConfigError, DataError, DeviceKeyError
from wire.privacy.certificate import PROFILES
from wire.protocol.command import Command
from wire.protocol.keys import DeviceKey
from wire.settings import FilePath

__all__ = ["CommandConfig", "CommandDesk"]


@dataclass(frozen=True, slots=True)
class CommandConfig:
    """The `[commands]` section of the bridge's file.

    Attributes:
        operator_key: The operator's key, which devices name as [privacy] operator_key; "": the API takes no commands.
    """

    operator_key: FilePath = ""


class CommandDesk:
    """Takes the orders of operators. Any thread may use it."""

    def __init__(
        self, key: DeviceKey, engine: Engine, in_force: Callable[[str], str], shard_name: Callable[[str], str] = str
    ) -> None:
        """Begin.

        Args:
            key: The operator's.
            engine: The store's.
            in_force: `site/camera` -> the profile that the device's newest state names; "": none is known.
            shard_name: `site/camera` -> the name by which it falls to a shard.
        """
        self._key, self._engine, self._in_force, self._shard_name = key, engine, in_force, shard_name

    @classmethod
    def of(
        cls,
        config: CommandConfig,
        engine: Engine,
        in_force: Callable[[str], str],
        shard_name: Callable[[str], str] = str,
    ) -> CommandDesk | None:
        """Load the key; None where no key is named. Raises ConfigError where it cannot be believed or kept secret."""
        if not config.operator_key:
            return None
        file = Path(config.operator_key)
        try:
            return cls(DeviceKey.load(file), engine, in_force, shard_name)
        except FileNotFoundError as error:
            cure = "make one with python -m wire.protocol.command --key FILE, or name another"
            raise ConfigError(f"[commands] operator_key {file}: there is no such file; {cure}") from error
        except DeviceKeyError as error:
            raise ConfigError(f"[commands] operator_key: {error}") from error

    @property
    def public(self) -> str:
        """The key's public half, hex: what devices must name."""
        return self._key.public.hex

    def order(self, who: str, camera: str, profile: str) -> dict[str, Any]:
        """Order a device to change to a profile; returns the command as the store has it.

        Raises:
            DataError: There is no such profile.
            UnknownCamera: There is no such camera.
            TooManyCommands: The camera was ordered to do something too often.
            StoreAway: Nothing was ordered.
        """
        if profile not in PROFILES:
            raise DataError(f"profile is {profile!r}; there are {', '.join(PROFILES)}")

        def seal(number: int) -> bytes:
            return Command(camera, number, profile).seal(self._key)

        return add_command(self._engine, who, camera, profile, seal, shard_name=self._shard_name(camera))

    def past(self, camera: str, limit: int) -> dict[str, Any]:
        """The newest commands to a camera, and which profile its device says is in force."""
        rows = commands_of(self._engine, camera, limit)
        return {"in_force": self._in_force(camera), "operator_key": self.public, "rows": rows}
