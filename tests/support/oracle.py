"""Libraries that ours are held against, in build/oracle beside the environment: a process of its own asks them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.support.services import PATIENCE_S, ROOT

__all__ = ["ask_oracle"]

_FOLDER = ROOT / "build" / "oracle"


def ask_oracle(library: str, script: str) -> Any:
    """What `tests/support/SCRIPT` prints as its last line, JSON; skips where the library is not there."""
    if not (_FOLDER / library).is_dir():
        pytest.skip(f"no oracle: {library} is not in build/oracle (run .ci/oracle)")
    command = [sys.executable, str(ROOT / "tests" / "support" / script)]
    env = {"PYTHONPATH": f"{ROOT}:{_FOLDER}", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])
