"""When an alert is raised and when it is cleared: the `[alerts]` section of the bridge's file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloud_bridge.alerts.quiet import QuietHours
from familial.evaluate.lying import LEAST_LIE_S
from wire.errors import ConfigError

__all__ = ["BY_DEFAULT", "IN_A_ROW", "AlertRule"]

IN_A_ROW = ("raise_at", "raise_for", "clear_at", "clear_for")
"""Keys of the rule that counts verdicts in a row; a budget takes their place."""

BY_DEFAULT = 24.0
"""The budget of a file that has none of these keys, one false alert an hour, where the checkpoint has a table."""


@dataclass(frozen=True, slots=True)
class AlertRule:
    """A budget of false alerts, or two thresholds and two counts; both have hysteresis, so an alert never flickers.

    Attributes:
        raise_at: An alert is raised by verdicts in a row whose probability is at least this.
        raise_for: How many verdicts in a row raise it.
        clear_at: It is cleared by verdicts in a row whose probability is at most this; below `raise_at`.
        clear_for: How many verdicts in a row clear it.
        unsure_below: A verdict is unsure where its OOD p-value is below this; that holds for about this share of known
            scenes. 0: no verdict is unsure. Alerts do not depend on it.
        false_per_day: False alerts that a camera may raise a day: a number for all risks together, which share it
            alike, or label -> number. None: verdicts in a row raise alerts, or the budget `BY_DEFAULT`
            (`BridgeConfig.alerts_by_default`).
        long_lie_s: Somebody who stays on the floor for so long after a fall is an alert of its own. 0: never. It needs
            `false_per_day`.
        quiet: When which severities are held back from webhooks: "22:00-06:00 info warning" (quiet.py).
        quiet_zone: The time zone of `quiet`.
        escalate_s: An alert that nobody has acknowledged for so long goes one severity up, and is told again. 0: never.

    Raises:
        ConfigError: A value is out of range.
    """

    raise_at: float = 0.6
    raise_for: int = 2
    clear_at: float = 0.4
    clear_for: int = 4
    unsure_below: float = 0.05
    false_per_day: float | dict[str, Any] | None = None
    long_lie_s: float = 0.0
    escalate_s: float = 0.0
    quiet: list[str] | tuple[str, ...] = ()
    quiet_zone: str = "UTC"

    def __post_init__(self) -> None:
        self._check_budget()
        QuietHours(self.quiet, self.quiet_zone)
        if self.unsure_below > 1.0:
            raise ConfigError(f"unsure_below is {self.unsure_below}; it is a share of known scenes, 0 to 1")
        if not 0.0 <= self.clear_at < self.raise_at <= 1.0:
            raise ConfigError(
                f"clear_at is {self.clear_at}, raise_at is {self.raise_at}; 0 <= clear_at < raise_at <= 1"
            )
        for name in ("raise_for", "clear_for"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it counts verdicts, so at least 1")

    def _check_budget(self) -> None:
        given = self.false_per_day
        for label, value in (given if isinstance(given, Mapping) else {"": given}).items():
            name = f"false_per_day.{label}" if label else "false_per_day"
            if value is None:
                continue
            if type(value) not in (int, float) or not 0 < value < math.inf:
                raise ConfigError(f"{name} is {value!r}; it counts false alerts a day, such as 1: a number above 0")
        if isinstance(given, Mapping) and not given:
            raise ConfigError("false_per_day is an empty table; write a number, or one for each label: { fall = 1 }")
        if 0 < self.long_lie_s < LEAST_LIE_S:
            raise ConfigError(
                f"long_lie_s is {self.long_lie_s:g}; false alerts are counted for {LEAST_LIE_S:g} or more (0: off)"
            )
        if self.long_lie_s and given is None:
            raise ConfigError(f"long_lie_s is {self.long_lie_s:g} without false_per_day; give it a budget, such as 1")
