"""An operator's command to a device: signed, numbered, for one camera, accepted once.

    python -m wire.protocol.command --key operator.key --camera site/camera --profile strict --> JSON for `command`
    payload --size, form, signature, camera--> Inbox --number, profile--> Orders.take: stored durably, then obeyed

The only command is a change of profile, among those that the device's own configuration allows. A number is accepted
once: it must be larger than the last one, over restarts too. A refused command raises MessageError, and is counted.
What is not signed never enters the inbox, so that nobody but the operator can push a command out of it.
"""

from __future__ import annotations

import argparse
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from wire.errors import ConfigError, LedgerError, MessageError, VeilsightError
from wire.files import disk_takes_nothing, read_trusted, write_durably
from wire.protocol.document import read_document, seal_document
from wire.protocol.keys import DeviceKey, PublicKey
from wire.protocol.topics import parse_topic, topic

__all__ = ["Command", "Inbox", "Orders", "Waiting", "main", "open_command"]

_LOG = logging.getLogger("veilsight.command")
_FORMER = ("camera", "number", "profile")
_WAITING = 8  # commands in the inbox
_CHECKED_A_SECOND = 200  # signatures; about 3 % of a small board's core


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
        """Sign it; returns the payload, JSON. Raises ConfigError where `camera` names none."""
        site, _, camera = self.camera.partition("/")
        return seal_document("command", asdict(self), key, site, camera)


def open_command(payload: bytes, public: PublicKey, camera: str) -> Command:
    """Validate and read a command to `camera` (site/camera). Raises MessageError."""
    document = read_document(payload, _FORMER)
    try:
        command = Command(**{name: value for name, value in document.fields.items() if name != "schema"})
    except TypeError as error:
        raise MessageError("malformed", "not a command of ours") from error
    texts = type(command.camera) is str and type(command.profile) is str
    if not (texts and type(command.number) is int and 0 < command.number < 2**63):
        raise MessageError("malformed", "a field is not of its type or range")
    site, _, name = command.camera.partition("/")
    document.verify("command", public, site, name)
    if command.camera != camera:
        raise MessageError("misdirected", f"a command to {command.camera!r}, this is {camera}")
    return command


class Waiting(Protocol):
    """Payloads that wait to be obeyed: a deque of them, or an `Inbox`."""

    def __len__(self) -> int: ...

    def popleft(self) -> bytes:
        """Remove the next one and return it."""


class Inbox:
    """Commands that came and wait to be obeyed: verified when they come, in the order of their numbers.

    Of more than can wait, those with the largest numbers stay. A payload that is not the operator's to this camera is
    counted and forgotten, so neither rubbish nor an old command that is sent again pushes a new one out. At most 200
    signatures a second are checked; what comes beyond that is dropped unread.

    Attributes:
        dropped: Payloads that were not let in.
    """

    def __init__(self, public: PublicKey | None, camera: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin empty. public: the operator's key, None: nobody may order; camera: `site/camera`; clock: in seconds."""
        self._public, self._camera, self._clock = public, camera, clock
        self._lock, self._waiting = threading.Lock(), dict[int, bytes]()  # number -> payload
        self._second, self._checked = -1, 0
        self.dropped = 0

    def put(self, payload: bytes) -> None:
        """Let a payload in if it is a command to this camera. For the network's thread; never raises."""
        second = int(self._clock())
        self._checked = self._checked + 1 if second == self._second else 1
        self._second = second
        if self._checked > _CHECKED_A_SECOND:
            self.dropped += 1
            return
        if self._public is None:
            return
        try:
            number = open_command(payload, self._public, self._camera).number
        except MessageError as error:
            self.dropped += 1
            if self._checked == 1:  # at most one line a second
                _LOG.warning("a command is refused: %s", error)
            return
        with self._lock:
            self._waiting[number] = payload
            if len(self._waiting) > _WAITING:
                del self._waiting[min(self._waiting)]

    def __len__(self) -> int:
        return len(self._waiting)

    def popleft(self) -> bytes:
        """Remove the waiting command with the smallest number and return its payload."""
        with self._lock:
            return self._waiting.pop(min(self._waiting))


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
        self._put_off = b""  # a command that the disk did not take
        if self.profile not in profiles:
            raise ConfigError(f"[privacy] profile is {first!r}; expected one of {', '.join(profiles)}")
        if public is None:
            return
        try:
            last = open_command(read_trusted(file), public, camera)
        except FileNotFoundError:
            return
        except (OSError, MessageError) as error:
            raise LedgerError(f"{file}: {error}; {_cure(error)}") from error
        self.number = last.number
        if last.profile in profiles:  # else the local maximum was lowered since
            self.profile = last.profile

    def obey(self, payloads: Waiting) -> None:
        """Take all waiting commands in their order; a refused one is counted and logged.

        One that a full or read-only disk does not take is tried again at the next call. Until then it is in force where
        it orders the less revealing profile.

        Raises:
            LedgerError: The disk fails in another way.
        """
        while self._put_off or payloads:
            payload, again = self._put_off or payloads.popleft(), bool(self._put_off)
            self._put_off = b""
            try:
                _LOG.info("profile %s is ordered", self.take(payload))
                self.counts["obeyed"] += 1
            except MessageError as error:
                self.counts[f"refused_{error.reason}"] += 1
                _LOG.warning("a command is refused: %s", error)
            except LedgerError as error:
                if not disk_takes_nothing(error):
                    raise
                self._wait_with(payload)
                if not again:
                    _LOG.error("%s; the command waits for that", error)
                return

    def _wait_with(self, payload: bytes) -> None:
        """Keep a command that was verified and not stored; it may make releases less revealing already."""
        self._put_off = payload
        ordered = open_command(payload, self._public, self._camera).profile if self._public else self.profile
        self.profile = min(self.profile, ordered, key=self._profiles.index)

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


def _cure(error: Exception) -> str:
    """What to do about the stored command; never a way to make old commands count again."""
    if isinstance(error, MessageError) and error.reason == "schema":
        return "delete it and send the command again: none of the former schema is accepted, so none can be replayed"
    return (
        "restore it from a backup; without one make a new operator's key, set [privacy] operator_key, and delete the "
        "file: commands under the old key then stay refused"
    )


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
