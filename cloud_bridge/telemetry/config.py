"""The `[telemetry]` section of the bridge's file."""

from __future__ import annotations

from dataclasses import dataclass

from cloud_bridge.address import check_address
from wire.errors import ConfigError

__all__ = ["TelemetryConfig"]

_FORM = "https://host:4318/v1/traces"


@dataclass(frozen=True, slots=True)
class TelemetryConfig:
    """Where traces go.

    Attributes:
        otlp: Address of a collector that takes OTLP over HTTP; "": there are no traces.
        insecure: Allow http:// to a host that is not this machine: who is on the way reads what the topics say.
        share: Of the events that are traced, 0 to 1; alerts are always.

    Raises:
        ConfigError: The address cannot be used, or others on the way could read, or the share is none.
    """

    otlp: str = ""
    insecure: bool = False
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise ConfigError(f"share is {self.share}; write 0 to 1")
        if self.otlp:
            check_address("otlp", self.otlp, _FORM, self.insecure)
