"""The messages: features, verdict, alert. Constant size, signed, validated before any array is made.

    FeatureMessage --seal(key, site, camera)--> bytes --open_features(bytes, public key, site, camera, ...)--> the same

Order of the checks on receipt: size, envelope, signature (which is over site and camera too), body, canonical form,
schema, model, values. What fails raises MessageError with a one-word reason; only the payload was allocated by then.
There is a message type for noised data only: a code without noise cannot be sent. Layout: `veilsight.proto`.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError, Message

from wire.errors import MessageError
from wire.protocol import veilsight_pb2 as pb
from wire.protocol.document import check_schema
from wire.protocol.keys import SIGNATURE_BYTES, DeviceKey, PublicKey
from wire.protocol.release_layout import features_size, read_release
from wire.protocol.topics import SCHEMA, signed_context

__all__ = [
    "FLAG_ADAPTIVE",
    "FLAG_SPENT",
    "MAX_PAYLOAD",
    "MAX_SENTENCE",
    "SEVERITIES",
    "UNSURE",
    "Alert",
    "FeatureMessage",
    "Sealed",
    "Verdict",
    "coarse_time",
    "features_size",
    "open_alert",
    "open_features",
    "open_verdict",
    "trace_id",
]

FLAG_SPENT = 1
"""The budget is spent, the release is noise alone: by slot, configuration and, where the level adapts, past z."""

FLAG_ADAPTIVE = 2
"""The level was chosen by the manifest's level rule. A function of configuration."""

MAX_PAYLOAD = 16 * 1024
"""Upper bound on the bytes of a message; a longer one is refused unread."""
MAX_SENTENCE = 400
"""Characters of a text in a message, at most."""

UNSURE = "unsure"
"""What a verdict says in place of the label that is no risk, where the scene is out of distribution."""

SEVERITIES = ("info", "warning", "critical", "emergency")
"""Of alerts, the least urgent first."""

_COARSE_S = 60
_INT16 = np.dtype("<i2")
_ALERT_ID = re.compile(r"([0-9a-f]{32})?")
_MEMBERS: Mapping[str, int] = {"edge": 1, "cloud": 2}
_MAX_LABELS = 64

M = TypeVar("M", bound=Message)


class Sealed(bytes):
    """A payload that a device signed: made by the `seal` of a message, or found signed by `checked`."""

    __slots__ = ()

    @classmethod
    def checked(cls, kind: str, payload: bytes, public: PublicKey, site: str, camera: str) -> Sealed:
        """Return a payload that was kept, where `public` signed it as `kind` of this camera. Raises MessageError.

        Args:
            kind: "features", "verdict" or "alert".
            payload: As `seal` made it.
            public: The device's key.
            site: Whose message it is.
            camera: Likewise.
        """
        _signed(kind, payload, public, site, camera)
        return cls(payload)


@dataclass(frozen=True, slots=True, eq=False)
class FeatureMessage:
    """One release.

    Attributes:
        boot_id: Names the device's start.
        slot: Number of the release since that start.
        model_id: First 8 bytes of the manifest's hash.
        flags: FLAG_SPENT and FLAG_ADAPTIVE.
        z: Code plus noise, int16 (n,).
        level: Whose noise is in z: an index into the manifest's levels.
        time_s: The device's clock before the eye was asked for the slot, by `coarse_time`.
    """

    boot_id: int
    slot: int
    model_id: int
    flags: int
    z: npt.NDArray[np.int16]
    level: int = 0
    time_s: int = 0

    def seal(self, key: DeviceKey, site: str, camera: str) -> Sealed:
        """Sign it; returns the payload, `features_size(n)` bytes whatever the values."""
        if self.z.dtype != np.int16 or self.z.ndim != 1:
            raise MessageError("shape", f"z is {self.z.dtype} {self.z.shape}; expected int16 (n,)")
        body = pb.Features(
            schema=SCHEMA,
            boot_id=self.boot_id,
            slot=self.slot,
            model_id=self.model_id,
            flags=self.flags,
            z=self.z.astype(_INT16, copy=False).tobytes(),
            level=self.level,
            time_s=self.time_s,
        )
        return _seal("features", body, key, site, camera)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a member for an event.

    Attributes:
        boot_id: Names the device's start.
        first_slot: First slot of the event.
        last_slot: Last slot of the event.
        model_id: First 8 bytes of the manifest's hash.
        member: "edge" or "cloud".
        present: One bool for each release of the event, oldest first.
        probabilities: Label -> probability, in the model's order, summing to 1.
        sentence: What happens, in words; "" from the edge.
        start_s: Begin of the event, in seconds since slot 0 began.
        end_s: End of the event, on the same clock.
        ood_p_value: Of the camera's last minutes (familial/evaluate/ood_detector.py); None where it is not known.
        unsure: The OOD p-value is so low that a label of no risk must not be trusted.
        attributes: Attribute -> share of the event's time for which it holds, if nothing happens in it; empty where the
            family has none.
        time_s: The clock of who signed, by `coarse_time`.
        late: The event came too late to be read as now, or a clock is wrong (cloud_bridge/ingest/freshness.py).
    """

    boot_id: int
    first_slot: int
    last_slot: int
    model_id: int
    member: str
    present: tuple[bool, ...]
    probabilities: Mapping[str, float]
    sentence: str
    start_s: float
    end_s: float
    ood_p_value: float | None = None
    unsure: bool = False
    attributes: Mapping[str, float] = field(default_factory=dict)
    time_s: int = 0
    late: bool = False

    @property
    def label(self) -> str:
        """The most probable label."""
        return max(self.probabilities, key=lambda label: self.probabilities[label])

    @property
    def says(self) -> str:
        """The label, or UNSURE where the verdict is unsure and its label, the model's first, is no risk."""
        return UNSURE if self.unsure and self.label == next(iter(self.probabilities)) else self.label

    @property
    def probability(self) -> float:
        """The probability of `label`."""
        return self.probabilities[self.label]

    def seal(self, key: DeviceKey, site: str, camera: str) -> Sealed:
        """Sign it; returns the payload, of constant size for the edge member, which writes no sentence."""
        body = pb.Verdict(
            schema=SCHEMA,
            boot_id=self.boot_id,
            first_slot=self.first_slot,
            last_slot=self.last_slot,
            model_id=self.model_id,
            member=_MEMBERS[self.member],
            present=sum(1 << k for k, here in enumerate(reversed(self.present)) if here),
            labels=list(self.probabilities),
            probabilities=list(self.probabilities.values()),
            sentence=self.sentence,
            start_s=self.start_s,
            end_s=self.end_s,
            attributes=list(self.attributes),
            shares=list(self.attributes.values()),
            time_s=self.time_s,
        )
        if self.member == "cloud":
            body.late = self.late
        if self.ood_p_value is not None:
            body.ood_p_value, body.unsure = self.ood_p_value, self.unsure
        return _seal("verdict", body, key, site, camera)


@dataclass(frozen=True, slots=True)
class Alert:
    """A risk, or trouble of a camera, raised (`raised` True) or cleared; raised again where its severity went up.

    Attributes:
        boot_id: Names the device's start.
        slot: The last slot read.
        model_id: First 8 bytes of the manifest's hash.
        raised: False: cleared.
        label: What it is about.
        probability: Of the label.
        sentence: What happens, in words; "" where there are none.
        at_s: Seconds since slot 0 began.
        time_s: The bridge's clock, by `coarse_time`.
        id: Of this change, 32 hex digits; "" from a bridge that gives none.
        first_id: Of the change that raised the alert.
        severity: One of SEVERITIES; "" from a bridge that gives none.
        device_time_s: The device's clock at its last release, as that says; 0: unknown.
    """

    boot_id: int
    slot: int
    model_id: int
    raised: bool
    label: str
    probability: float
    sentence: str
    at_s: float
    time_s: int = 0
    id: str = ""
    first_id: str = ""
    severity: str = ""
    device_time_s: int = 0

    def seal(self, key: DeviceKey, site: str, camera: str) -> Sealed:
        """Sign it; returns the payload."""
        body = pb.Alert(
            schema=SCHEMA,
            boot_id=self.boot_id,
            slot=self.slot,
            model_id=self.model_id,
            raised=self.raised,
            label=self.label,
            probability=self.probability,
            sentence=self.sentence,
            at_s=self.at_s,
            time_s=self.time_s,
            id=self.id,
            first_id=self.first_id,
            severity=("", *SEVERITIES).index(self.severity),
            device_time_s=self.device_time_s,
        )
        return _seal("alert", body, key, site, camera)


def coarse_time(unix_s: float) -> int:
    """Round a clock down to a whole minute, as messages state it.

    A device reads its clock before it asks the eye for the slot: read after it, a minute that passes meanwhile would
    tell how long the eye took.
    """
    return min(max(0, int(unix_s)), (1 << 32) - 1) // _COARSE_S * _COARSE_S


def trace_id(camera: str, boot_id: int, slot: int) -> str:
    """32 hex digits that name a release of `site/camera` from edge to cloud: a hash of what its messages say anyhow."""
    return hashlib.sha256(f"{camera}/{boot_id:016x}/{slot:016x}".encode()).hexdigest()[:32]


def open_features(
    payload: bytes, public: PublicKey, site: str, camera: str, n: int, model_id: int, levels: int = 1
) -> FeatureMessage:
    """Validate and read a release.

    Args:
        payload: The message as it came.
        public: The key that must have signed it.
        site: As in the topic under which it came.
        camera: As in that topic.
        n: Coordinates of a code.
        model_id: The model that must have made it.
        levels: How many levels that model has.

    Raises:
        MessageError: The message is refused; `.reason` says why.
    """
    if len(payload) != (expected := features_size(n)):
        _refuse_other_model(payload, public, site, camera, model_id)
        reason = "truncated" if len(payload) < expected else "oversized"
        raise MessageError(reason, f"{len(payload)} bytes, a release of this model has {expected}")
    found = read_release(payload, n)
    if found is None:  # something is missing, twice there or elsewhere: protobuf finds out what
        body = _open("features", payload, public, site, camera, pb.Features())
        _present(body, "boot_id", "slot", "model_id", "flags", "z", "level", "time_s")
        raise MessageError("shape", f"z has {len(body.z)} bytes, expected {2 * n}")
    if not public.verify(found.signature, signed_context("features", site, camera) + found.body):
        _refuse_other_schema(payload, pb.Features())
        raise _forged("features", public, site, camera)
    check_schema(found.schema)
    _same_model(found.model_id, model_id)
    if found.flags & ~(FLAG_SPENT | FLAG_ADAPTIVE):
        raise MessageError("flags", f"flags are {found.flags:#x}; only bits 0 and 1 have a meaning")
    if found.level >= levels:
        raise MessageError("level", f"level is {found.level}; this model has {levels}")
    _whole_minute(found.time_s)
    z = np.frombuffer(found.z, _INT16).astype(np.int16, copy=False)
    return FeatureMessage(found.boot_id, found.slot, model_id, found.flags, z, found.level, found.time_s)


def open_verdict(
    payload: bytes, public: PublicKey, site: str, camera: str, model_id: int, event_releases: int = 8
) -> Verdict:
    """Validate and read a verdict on a camera. Raises MessageError."""
    body = _open("verdict", payload, public, site, camera, pb.Verdict())
    _present(body, "boot_id", "first_slot", "last_slot", "model_id", "member", "present")
    _present(body, "sentence", "start_s", "end_s", "time_s")
    _same_model(body.model_id, model_id)
    _whole_minute(body.time_s)
    members = {number: name for name, number in _MEMBERS.items()}
    if body.member not in members:
        raise MessageError("member", f"member is {body.member}; expected one of {sorted(members)}")
    if not 2 <= len(body.labels) == len(body.probabilities) <= _MAX_LABELS or len(set(body.labels)) != len(body.labels):
        raise MessageError("shape", f"{len(body.labels)} labels, {len(body.probabilities)} probabilities")
    values, shares = list(body.probabilities), list(body.shares)
    if not _distribution(values) or (shares and not _distribution(shares)):
        raise MessageError("values", "the probabilities are not a distribution")
    if len(shares) != len(body.attributes) or len(shares) > _MAX_LABELS or len(set(body.attributes)) != len(shares):
        raise MessageError("shape", f"{len(body.attributes)} attributes, {len(shares)} shares")
    for text in (body.sentence, *body.labels, *body.attributes):
        _sane_text(text)
    if not (math.isfinite(body.start_s) and math.isfinite(body.end_s)) or body.first_slot > body.last_slot:
        raise MessageError("values", "the event's span is not one")
    has_p_value = body.HasField("ood_p_value")
    if has_p_value != body.HasField("unsure") or not 0.0 <= body.ood_p_value <= 1.0:
        raise MessageError("values", f"ood_p_value is {body.ood_p_value}; it goes with unsure, and is 0 to 1")
    if (has_p_value or shares) and members[body.member] != "cloud":
        raise MessageError("values", "an OOD p-value or attributes, which only the cloud member gives")
    if body.HasField("late") != (members[body.member] == "cloud"):
        raise MessageError("values", "late, which the cloud member gives and no other")
    present = tuple(bool(body.present >> k & 1) for k in reversed(range(event_releases)))
    return Verdict(
        boot_id=body.boot_id,
        first_slot=body.first_slot,
        last_slot=body.last_slot,
        model_id=body.model_id,
        member=members[body.member],
        present=present,
        probabilities=dict(zip(body.labels, values, strict=True)),
        sentence=body.sentence,
        start_s=body.start_s,
        end_s=body.end_s,
        ood_p_value=body.ood_p_value if has_p_value else None,
        unsure=body.unsure,
        attributes=dict(zip(body.attributes, shares, strict=True)),
        time_s=body.time_s,
        late=body.late,
    )


def open_alert(payload: bytes, public: PublicKey, site: str, camera: str, model_id: int) -> Alert:
    """Validate and read an alert on a camera. Raises MessageError."""
    body = _open("alert", payload, public, site, camera, pb.Alert())
    _present(body, "boot_id", "slot", "model_id", "raised", "label", "probability", "sentence", "at_s", "time_s")
    _same_model(body.model_id, model_id)
    _whole_minute(body.time_s)
    _sane_text(body.label)
    _sane_text(body.sentence)
    if not (0.0 <= body.probability <= 1.0 and math.isfinite(body.at_s)):
        raise MessageError("values", f"probability is {body.probability}, at_s is {body.at_s}")
    _whole_minute(body.device_time_s)
    if body.severity > len(SEVERITIES) or not all(_ALERT_ID.fullmatch(text) for text in (body.id, body.first_id)):
        raise MessageError("values", f"severity is {body.severity}, or an id is not 32 hex digits")
    return Alert(
        boot_id=body.boot_id,
        slot=body.slot,
        model_id=body.model_id,
        raised=body.raised,
        label=body.label,
        probability=body.probability,
        sentence=body.sentence,
        at_s=body.at_s,
        time_s=body.time_s,
        id=body.id,
        first_id=body.first_id,
        severity=("", *SEVERITIES)[body.severity],
        device_time_s=body.device_time_s,
    )


def _seal(kind: str, body: Message, key: DeviceKey, site: str, camera: str) -> Sealed:
    data = body.SerializeToString(deterministic=True)
    signature = key.sign(signed_context(kind, site, camera) + data)
    return Sealed(pb.Signed(body=data, signature=signature).SerializeToString(deterministic=True))


def _signed(kind: str, payload: bytes, public: PublicKey, site: str, camera: str) -> bytes:
    """The body of a signed envelope. Raises MessageError."""
    if len(payload) > MAX_PAYLOAD:
        raise MessageError("oversized", f"{len(payload)} bytes, at most {MAX_PAYLOAD} are read")
    envelope = _parse(payload, pb.Signed())
    _present(envelope, "body", "signature")
    right_length = len(envelope.signature) == SIGNATURE_BYTES
    if not (right_length and public.verify(envelope.signature, signed_context(kind, site, camera) + envelope.body)):
        raise _forged(kind, public, site, camera)
    return bytes(envelope.body)


def _forged(kind: str, public: PublicKey, site: str, camera: str) -> MessageError:
    return MessageError("forged", f"not signed by {public} as {kind} of {site}/{camera}")


def _open(kind: str, payload: bytes, public: PublicKey, site: str, camera: str, body: M) -> M:
    try:
        signed = _signed(kind, payload, public, site, camera)
    except MessageError as error:
        if error.reason == "forged":
            _refuse_other_schema(payload, type(body)())
        raise
    _parse(signed, body)
    _present(body, "schema")
    check_schema(_schema_of(body))
    return body


def _schema_of(body: Message) -> int:
    return int(getattr(body, "schema"))  # noqa: B009 - any of our three messages, all of which have it


def _refuse_other_schema(payload: bytes, body: Message) -> None:
    """Raise the schema's MessageError where the payload is well formed in another schema; nothing of it is believed.

    Other schemas sign something else, so their signatures fail, and that alone would read as an attack.
    """
    try:
        _parse(_parse(payload[: MAX_PAYLOAD + 1], pb.Signed()).body, body)
    except MessageError:
        return
    if len(payload) <= MAX_PAYLOAD and body.HasField("schema"):
        check_schema(_schema_of(body))


def _refuse_other_model(payload: bytes, public: PublicKey, site: str, camera: str, model_id: int) -> None:
    """Raise where a payload is of another schema, or the camera's own release and made by a model of another n."""
    try:
        body = _open("features", payload, public, site, camera, pb.Features())
    except MessageError as error:
        if error.reason == "schema":
            raise
        return
    _same_model(body.model_id, model_id)


def _parse(data: bytes, into: M) -> M:
    """Parse canonical bytes only: what serialises to other bytes hides unknown or repeated fields."""
    try:
        into.ParseFromString(data)
    except DecodeError as error:
        raise MessageError("malformed", "not a protobuf message of ours") from error
    into.DiscardUnknownFields()
    if into.SerializeToString(deterministic=True) != data:
        raise MessageError("malformed", "not in canonical form")
    return into


def _present(body: Message, *names: str) -> None:
    absent = [name for name in names if not body.HasField(name)]
    if absent:
        raise MessageError("malformed", f"{', '.join(absent)} missing")


def _whole_minute(time_s: int) -> None:
    if time_s % _COARSE_S:
        raise MessageError("values", f"time_s is {time_s}; it is rounded down to a whole minute")


def _same_model(found: int, expected: int) -> None:
    if found != expected:
        raise MessageError("model", f"made by model {found:016x}, this camera is registered with {expected:016x}")


def _distribution(values: list[float]) -> bool:
    return all(0.0 <= p <= 1.0 for p in values) and abs(sum(values) - 1.0) <= 1e-3


def _sane_text(text: str) -> None:
    if len(text) > MAX_SENTENCE or not text.isprintable():
        raise MessageError("values", f"a text of {len(text)} characters, or one that is not printable")
