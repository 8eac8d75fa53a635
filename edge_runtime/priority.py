"""The priority of a process among others, where the kernel weighs groups of processes and not each by itself.

    nice value of a process    counts inside its scheduling group alone
    autogroup                  each session is such a group, with a nice value of its own: /proc/PID/autogroup
    control group with a share each is such a group (cpu.weight); the units have CPUWeight= for it

With `kernel.sched_autogroup_enabled`, as most distributions have it, a child in a session of its own has the same share
as the gate's whole session, whatever the nice values of both are. So the session of a child gets its priority, too.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["weigh_session", "weighed_apart"]

_SWITCH = Path("/proc/sys/kernel/sched_autogroup_enabled")
_CONTROL_GROUPS = Path("/sys/fs/cgroup")


def weigh_session(process: int, nice: int) -> str:
    """Give the session of a process a priority, where the kernel weighs sessions and this one is the process's own.

    Args:
        process: Its id.
        nice: As of `nice`: -20 is the most, 19 the least.

    Returns:
        Why a priority does not count beyond the session, or "".
    """
    try:
        if _SWITCH.read_text().strip() != "1" or not _in_no_share(process):
            return ""
        group = Path(f"/proc/{process}/autogroup")
        if _nice_of(group) == nice:
            return ""
        if os.getsid(process) != process:
            return (
                "the kernel weighs whole sessions (autogroups), and others are in this one: it counts among them "
                "alone; start it by its unit, or with setsid"
            )
        group.write_text(str(nice))
    except FileNotFoundError:
        return ""  # a kernel without autogroups, or the process has ended
    except (OSError, ValueError) as error:
        return f"the kernel weighs whole sessions (autogroups), and refuses another weight for this one: {error}"
    return ""


def weighed_apart(own_unit: bool) -> str:
    """Say why every thread of the eye counts as much as this process, or "" where the eye is one group beside it.

    Args:
        own_unit: Whether systemd started this process and the eye, each in a control group of its own.
    """
    try:
        shared = not _in_no_share(os.getpid())
        sessions = _SWITCH.exists() and _SWITCH.read_text().strip() == "1"
    except (OSError, ValueError) as error:
        return f"it cannot be told: {error}"
    if shared and not own_unit:
        return "one control group has the share of all three processes; start them by their units"
    if not shared and not sessions:
        return "this kernel weighs thread by thread; sysctl kernel.sched_autogroup_enabled=1, or start it by its unit"
    return ""


def _nice_of(group: Path) -> int:
    """The last word of "/autogroup-17 nice 0"; a process that is in no such group has an empty file."""
    words = group.read_text().split()
    if not words:
        raise FileNotFoundError(str(group))
    return int(words[-1])


def _in_no_share(process: int) -> bool:
    """Whether no control group of the process has a share of the processor; else that counts, and sessions do not."""
    unified = "/"
    for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(","):
            return path == "/"
        unified = unified if controllers else path
    own = _CONTROL_GROUPS / unified.lstrip("/")
    found = [own, *own.parents]
    return not any((folder / "cpu.weight").exists() for folder in found if folder.is_relative_to(_CONTROL_GROUPS))
