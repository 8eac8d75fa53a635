"""When an alert is raised and when it is cleared: the `[alerts]` section of the bridge's file."""

from __future__ import annotations

from dataclasses import dataclass

from wire.errors import ConfigError

__all__ = ["AlertRule"]


@dataclass(frozen=True, slots=True)
class AlertRule:
    """Two thresholds and two counts (hysteresis), so that an alert never flickers.

    Attributes:
        raise_at: An alert is raised by verdicts in a row whose probability is at least this.
        raise_for: How many verdicts in a row raise it.
        clear_at: It is cleared by verdicts in a row whose probability is at most this; below `raise_at`.
        clear_for: How many verdicts in a row clear it.
        unsure_below: A verdict is unsure where its OOD p-value is below this; that holds for about this share of known
            scenes. 0: no verdict is unsure. Alerts do not depend on it.

    Raises:
        ConfigError: A value is out of range.
    """

    raise_at: float = 0.6
    raise_for: int = 2
    clear_at: float = 0.4
    clear_for: int = 4
    unsure_below: float = 0.05

    def __post_init__(self) -> None:
        if self.unsure_below > 1.0:
            raise ConfigError(f"unsure_below is {self.unsure_below}; it is a share of known scenes, 0 to 1")
        if not 0.0 <= self.clear_at < self.raise_at <= 1.0:
            raise ConfigError(
                f"clear_at is {self.clear_at}, raise_at is {self.raise_at}; 0 <= clear_at < raise_at <= 1"
            )
        for name in ("raise_for", "clear_for"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it counts verdicts, so at least 1")
