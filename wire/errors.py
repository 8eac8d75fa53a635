"""Every error Veilsight raises on purpose, in one tree; each names the field, the value and the cure.

VeilsightError
├── ConfigError             a configuration file or a command line with a fault
├── DataError               clips and clip manifests
├── CheckpointError         a checkpoint folder
├── GraphError              an ONNX graph that is refused: it has state, or a known way to fail
├── ManifestError           an engine folder whose parts do not belong together
│   └── CertificateError    a certificate that is not what C, sigma and cadence give
├── EngineError             an engine that cannot run
├── DeviceLost              an accelerator in an error that only a new process clears
├── UpdateError             an update that is refused, or a boot slot that cannot be switched
├── CameraError             a source that cannot be opened or has failed
├── BrokerError             the MQTT broker cannot be reached or refuses the connection
├── StoreError              the bridge's database cannot be used
│   └── StoreAway           it does not answer, or its disk is full: nothing was written, try again
├── RemoteError             a server that does not answer, or answers what it should not
├── DeviceKeyError          a signing key that is missing, malformed or readable by others
├── MessageError            a received message that is refused; `.reason` is the counter's name
└── PrivacyError            fail closed: the process stops before anything else is published
    ├── NoiseError          a noise sample used twice, a table that is not the pinned one, noise that is not there
    └── LedgerError         the ledger cannot be read, written or trusted
"""

from __future__ import annotations

__all__ = [
    "BrokerError",
    "CameraError",
    "CertificateError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DeviceKeyError",
    "DeviceLost",
    "EngineError",
    "GraphError",
    "LedgerError",
    "ManifestError",
    "MessageError",
    "NoiseError",
    "PrivacyError",
    "RemoteError",
    "StoreAway",
    "StoreError",
    "UpdateError",
    "VeilsightError",
]


class VeilsightError(Exception):
    """Root of all errors raised on purpose."""


class ConfigError(VeilsightError):
    """A configuration file or a command line with a fault."""


class DataError(VeilsightError):
    """A clip or a clip manifest that cannot be used."""


class CheckpointError(VeilsightError):
    """A checkpoint folder that is incomplete or contradicts itself."""


class GraphError(VeilsightError):
    """An ONNX graph that is refused: it has state, can be read in two ways, or has a known way to fail."""


class ManifestError(VeilsightError):
    """An engine folder whose parts do not belong together."""


class CertificateError(ManifestError):
    """A certificate that is not what C, sigma and cadence give."""


class EngineError(VeilsightError):
    """An engine that cannot be loaded or run."""


class DeviceLost(VeilsightError):
    """The accelerator is in an error that only a new process clears."""


class UpdateError(VeilsightError):
    """An update of a device that is refused, or a boot slot that cannot be switched."""


class CameraError(VeilsightError):
    """A source that cannot be opened, or that has failed."""


class BrokerError(VeilsightError):
    """The MQTT broker cannot be reached, or refuses the connection."""


class StoreError(VeilsightError):
    """The bridge's database cannot be used: it is another program's, of another version, or another bridge's."""


class StoreAway(StoreError):
    """The database does not answer, or its disk is full: nothing was written, and the same may be tried again."""


class RemoteError(VeilsightError):
    """A server that does not answer, or answers what it should not; its words are ours, never the server's.

    Attributes:
        again: Whether the same may be asked again.
    """

    def __init__(self, detail: str, again: bool = False) -> None:
        super().__init__(detail)
        self.again = again


class DeviceKeyError(VeilsightError):
    """A key that is missing, malformed or readable by others."""


class MessageError(VeilsightError):
    """A received message that is refused.

    Attributes:
        reason: One word, the name of the counter that it increments (`truncated`, `oversized`, `forged`, ...).
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class PrivacyError(VeilsightError):
    """A privacy check failed or could not be made: the process stops (fail closed)."""


class NoiseError(PrivacyError):
    """A noise sample used twice, a table that is not the pinned one, or noise that is not there."""


class LedgerError(PrivacyError):
    """The ledger cannot be read, written or trusted."""
