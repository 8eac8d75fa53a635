"""Whether all is well: database, broker, models, the bridge's own thread, and the caller's cameras. Pure.

    the bridge's counts of a moment ago --judge--> "ok" or "failing", and what is failing

What is dead is told within 30 s: a camera after 20 s without a release (or 10 slots), the broker at once, the database
after the 10 s that it has to answer, the bridge's thread after 25 s in which it has not counted. Models fail where the
newest SIGHUP changed nothing; a camera whose model is unknown is named with it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from cloud_bridge.api.tokens import Caller

__all__ = ["judge"]

_STANDS_S = 25.0


def judge(found: Mapping[str, Any], caller: Caller, now_s: float | None = None) -> dict[str, Any]:
    """What is well. found: the bridge's counts; now_s: `time.monotonic`, where that is not now."""
    passed_s = (time.monotonic() if now_s is None else now_s) - found.get("looked_s", 0.0)
    well = {
        "bridge": passed_s < _STANDS_S,
        "database": not found.get("trouble"),
        "broker": bool(found.get("connected")),
        "models": not found.get("reload"),
    }
    silent = sorted(camera for camera in found.get("silent", ()) if caller.sees(camera))
    unknown = {camera: model for camera, model in found.get("unknown_models", {}).items() if caller.sees(camera)}
    told = {part: "ok" if good else "failing" for part, good in well.items()}
    status = "ok" if all(well.values()) and not silent and not unknown else "failing"
    return {"status": status, **told, "silent": silent, "unknown_models": unknown}
