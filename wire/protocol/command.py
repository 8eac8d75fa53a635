"""An operator's command to a device: signed, numbered, for one camera, accepted once.

    python -m wire.protocol.command --key operator.key --camera site/camera --profile strict --> JSON for `command`
    payload --size, form, signature, camera, number, profile--> Orders.take: stored durably, then obeyed

The only command is a change of profile, among those that the device's own configuration allows. A number is accepted
once: it must be larger than the last one, over restarts too. A refused command raises MessageError, and is counted.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from wire.errors import ConfigError, LedgerError, MessageError, VeilsightError
from wire.files import read_trusted, write_durably
from wire.protocol.keys import DeviceKey, PublicKey
from wire.protocol.topics import parse_topic, topic

__all__ = ["MAX_COMMAND", "Command", "Orders", "main", "open_command"]

MAX_COMMAND = 1024
"""Upper bound on the bytes of a command."""

_LOG = logging.getLogger("veilsight.command")
_CONTEXT = b"veilsight/v1/command\0"  # so that a signature on anything else is not valid for a command
_SIGNATURE = re.compile(r"[0-9a-f]{128}")


@dataclass(frozen=True, slots=True)
class Command:
    """An order to change to a profile.

    Attributes:
        camera: `site/camera`.
        number: Grows with every command to the camera, such as milliseconds since 1970.
        profile: Name of the profile.
    """

    camera: str
    number: int
    profile: str

    def seal(self, key: DeviceKey) -> bytes:
        """Sign it; returns the payload, JSON."""
        return json.dumps({**asdict(self), "signature": key.sign(self._signed()).hex()}).encode()

    def _signed(self) -> bytes:
        return _CONTEXT + json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()


def open_command(payload: bytes, public: PublicKey, camera: str) -> Command:
    """Validate and read a command to `camera` (site/camera). Raises MessageError."""
    if len(payload) > MAX_COMMAND:
        raise MessageError("oversized", f"{len(payload)} bytes, at most {MAX_COMMAND} are read")
    try:
        found = json.loads(payload)
        signature, command = found.pop("signature"), Command(**found)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MessageError("malformed", "not a command of ours") from error
    texts = all(type(text) is str for text in (signature, command.camera, command.profile))
    if not (texts and type(command.number) is int and 0 < command.number < 2**63 and _SIGNATURE.fullmatch(signature)):
        raise MessageError("malformed", "a field is not of its type or range")
    if not public.verify(bytes.fromhex(signature), command._signed()):
        raise MessageError("forged", f"the signature is not one of {public} over this command")
    if command.camera != camera:
        raise MessageError("misdirected", f"a command to {command.camera!r}, this is {camera}")
    return command


class Orders:
    """Which profile is in force: the last one that a command ordered; until then the configured one.

    Attributes:
        profile: Name of the profile in force.
        number: Of the last command that was accepted.
        counts: Commands obeyed, and commands refused by reason.
    """

    def __init__(
        self, file: Path, public: PublicKey | None, camera: str, profiles: Sequence[str], first: str = ""
    ) -> None:
        """Continue with the command that is kept in `file`.

        Args:
            file: Keeps the last accepted command as it came.
            public: The operator's key; None: nobody may order anything.
            camera: `site/camera`.
            profiles: Names that may be ordered, the most revealing last.
            first: The profile before any command; "" for the most revealing.

        Raises:
            ConfigError: `first` is not among `profiles`.
            LedgerError: The file does not hold a command of the operator's to this camera.
        """
        self._file, self._public, self._camera, self._profiles = file, public, camera, profiles
        self.profile, self.number, self.counts = first or profiles[-1], 0, Counter({"obeyed": 0})
        if self.profile not in profiles:
            raise ConfigError(f"[privacy] profile is {first!r}; expected one of {', '.join(profiles)}")
        if public is None:
            return
        try:
            last = open_command(read_trusted(file), public, camera)
        except FileNotFoundError:
            return
        except (OSError, MessageError) as error:
            raise LedgerError(
                f"{file}: {error}; restore it, or delete it: the device then starts at the configured profile, and "
                "would take the operator's earlier commands again"
            ) from error
        self.number = last.number
        if last.profile in profiles:  # else the local maximum was lowered since
            self.profile = last.profile

    def obey(self, payloads: deque[bytes]) -> None:
        """Take all waiting commands, oldest first; a refused one is counted and logged."""
        while payloads:
            try:
                _LOG.info("profile %s is ordered", self.take(payloads.popleft()))
                self.counts["obeyed"] += 1
            except MessageError as error:
                self.counts[f"refused_{error.reason}"] += 1
                _LOG.warning("a command is refused: %s", error)

    def figures(self) -> dict[str, float]:
        """`counts`, for the local page."""
        return dict(self.counts)

    def take(self, payload: bytes) -> str:
        """Accept a command and store it durably.

        Returns:
            The profile that it orders.

        Raises:
            MessageError: The command is refused.
            LedgerError: It cannot be stored on the disk.
        """
        if self._public is None:
            raise MessageError("forged", "no operator is configured: [privacy] operator_key")
        command = open_command(payload, self._public, self._camera)
        if command.number <= self.number:
            raise MessageError("replayed", f"number {command.number}, the last one accepted was {self.number}")
        if command.profile not in self._profiles:
            raise MessageError("profile", f"{command.profile!r} is not among {', '.join(self._profiles)}")
        try:
            write_durably(self._file, payload)
        except OSError as error:
            raise LedgerError(f"{self._file}: {error.strerror}; free space, make state_dir writable") from error
        self.number, self.profile = command.number, command.profile
        return command.profile


def main(argv: Sequence[str] | None = None) -> int:
    """Print a signed command, and on stderr the topic to publish it under; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m wire.protocol.command", description="Sign a command to a device.")
    parser.add_argument("--key", type=Path, required=True, help="the operator's key; made where there is none")
    parser.add_argument("--camera", required=True, help="site/camera")
    parser.add_argument("--profile", required=True)
    parser.add_argument("--number", type=int, help="larger than the last one's (default: milliseconds since 1970)")
    given = parser.parse_args(argv)
    try:
        site, _, camera = given.camera.partition("/")
        name = topic(site, camera, "command")
        if parse_topic(name) is None:
            raise ConfigError(f"--camera is {given.camera!r}; name one camera, as site/camera")
        key = DeviceKey.load_or_make(given.key)
        command = Command(given.camera, given.number or time.time_ns() // 10**6, given.profile)
    except VeilsightError as error:
        print(f"wire.protocol.command: {error}", file=sys.stderr)
        return 1
    print(f"topic {name}, operator_key {key.public.hex}", file=sys.stderr)
    print(command.seal(key).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
