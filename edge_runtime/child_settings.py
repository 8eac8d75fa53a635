"""What the gate tells an eye or a reader when it starts: the least that it needs, as JSON in one datagram.

The eye learns its camera, its engine and the clock; the reader its engine. Neither learns broker, key, ledger or site.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields

from edge_runtime.config import Config
from wire.errors import ConfigError
from wire.protocol.keys import PublicKey

__all__ = ["ChildSettings"]


@dataclass(frozen=True, slots=True)
class ChildSettings:
    """The settings of a child; each is the key of `edge.toml` of that name (`edge_runtime/config.py`).

    Attributes:
        cores: Of the processor, on which it may run.
        zero_s: When slot 0 began, in seconds of the monotonic clock; 0.0: it has not begun.
    """

    engine_folder: str
    engine_backend: str
    engine_threads: int
    engine_signer: str
    engine_cache: str
    engine_cuda_graph: bool
    camera_source: str = field(repr=False)  # it may hold a password
    camera_loop: bool
    camera_rotate: int
    camera_speed: float
    camera_timeout_s: float
    camera_lost_after_s: float
    run_release_delay_s: float
    run_memory_mb: int
    cores: tuple[int, ...]
    zero_s: float = 0.0

    @classmethod
    def of(cls, config: Config, cores: set[int], camera: bool, zero_s: float = 0.0) -> ChildSettings:
        """The settings of the eye, or, without `camera`, of the reader. Raises DeviceKeyError: no key of a signer."""
        names = {item.name for item in fields(cls)}
        taken = {name: value for name, value in vars(config).items() if name in names}
        if config.engine_signer:  # the key itself: a child may not reach the file
            taken["engine_signer"] = PublicKey.parse(config.engine_signer).hex
        if not camera:
            taken["camera_source"] = ""
        return cls(**taken, cores=tuple(sorted(cores)), zero_s=zero_s)

    def to_bytes(self) -> bytes:
        """As it is sent."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def read(cls, data: bytes) -> ChildSettings:
        """Read what `to_bytes` wrote. Raises ConfigError where gate and child are of different versions."""
        try:
            found = json.loads(data)
            return cls(**{**found, "cores": tuple(found["cores"])})
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError("the gate's settings are not understood; start gate, eye and reader anew") from error
