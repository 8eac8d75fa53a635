"""Where the parts of a device are that an update reads and changes, and how it runs commands there.

Everything that lasts goes through `Machine.before`, so that a test can cut the power before each such step.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wire.errors import UpdateError

__all__ = ["OTHER", "SLOTS", "Machine", "run_command"]

SLOTS = ("A", "B")
OTHER = {"A": "B", "B": "A"}
_PARTITIONS = {"A": Path("/dev/disk/by-partlabel/APP"), "B": Path("/dev/disk/by-partlabel/APP_b")}
_TOOL_S = 120.0  # any command but rauc
_MOST = 1 << 16  # characters of a command's answer that are looked at


def run_command(command: Sequence[str], timeout_s: float = _TOOL_S) -> str:
    """Run a command; returns what it printed. Raises UpdateError where it fails, cannot be run or does not end."""
    try:
        done = subprocess.run(
            [*command], capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False
        )
    except OSError as error:
        raise UpdateError(
            f"{command[0]}: {error.strerror}; install it (docs/update.md lists what is needed)"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise UpdateError(
            f"{command[0]} has not ended after {timeout_s:g} s; look at journalctl, then reboot"
        ) from error
    if done.returncode:
        said = " ".join((done.stderr + done.stdout)[-_MOST:].split())[-400:]
        raise UpdateError(f"{' '.join(command)} failed ({done.returncode}): {said or 'it said nothing'}")
    return done.stdout[:_MOST]


@dataclass(frozen=True)
class Machine:
    """A device.

    Attributes:
        folder: Holds the record; a partition that no update writes.
        efivars: UEFI's variables.
        config: The device's edge.toml.
        root: The running root file system.
        partitions: Slot -> the device of its root file system.
        run: Runs a command and gives what it printed; raises UpdateError.
        before: Is told of every step that lasts, before it is made.
    """

    folder: Path = Path("/var/lib/veilsight-update")
    efivars: Path = Path("/sys/firmware/efi/efivars")
    config: Path = Path("/etc/veilsight/edge.toml")
    root: Path = Path("/")
    partitions: Mapping[str, Path] = field(default_factory=lambda: dict(_PARTITIONS))
    run: Callable[..., str] = run_command
    before: Callable[[str], None] = lambda step: None
