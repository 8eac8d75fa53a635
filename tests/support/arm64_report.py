"""Runs in the emulated machine, by its own Python, once the gate is up: prints one line of JSON on the console.

It is written into the root of the test and started by a unit of the test; no package has it.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

_WAIT_S = 30
_UNITS = ("gate", "eye", "reader")
_FIELDS = ("ActiveState", "NRestarts", "MainPID", "InactiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic")


def _run(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout


def _unit(name: str) -> dict[str, object]:
    """What systemd and the kernel say of one process."""
    shown = _run("systemctl", "show", f"veilsight-{name}.service", f"--property={','.join(_FIELDS)}")
    found = dict(line.split("=", 1) for line in shown.splitlines())
    process = Path(f"/proc/{found['MainPID']}")
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
    pss = next(line for line in (process / "smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
    wanted = ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Uid", "Cpus_allowed_list")
    return {**found, **{key: status.get(key, "").strip() for key in wanted}, "pss_kb": int(pss.split()[1])}


def _verified() -> str:
    """What systemd says of the units as they are installed."""
    return _run("systemd-analyze", "verify", "--man=no", *map(str, Path("/lib/systemd/system").glob("veilsight-*")))


def _exposed() -> dict[str, str]:
    found = {}
    for name in (*_UNITS, "engine", "power"):
        said = _run("systemd-analyze", "security", "--no-pager", f"veilsight-{name}.service")
        found[name] = said.rstrip().rpartition(": ")[2].split()[0]
    return found


def main() -> None:
    """Wait, so that the gate publishes meanwhile, then report."""
    time.sleep(_WAIT_S)
    check = "/opt/veilsight/venv/bin/python -m edge_runtime --config /etc/veilsight/edge.toml --check"
    report = {
        "units": {name: _unit(name) for name in _UNITS},
        "systemd": _run("systemctl", "--version").split()[1],
        "kernel": Path("/proc/sys/kernel/osrelease").read_text().strip(),
        "security_modules": Path("/sys/kernel/security/lsm").read_text().strip(),
        "verify": _verified(),
        "security": _exposed(),
        "key": Path("/var/lib/veilsight/device.key.pub").read_text().strip(),
        "check": _run("setpriv", "--reuid=veilsight", "--regid=veilsight", "--clear-groups", "sh", "-c", check),
        "journal": _run("journalctl", "--no-pager", "-o", "cat", "-p", "warning", "-u", "veilsight-*"),
    }
    print("\nREPORT " + json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
