from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Signed(_message.Message):
    __slots__ = ("body", "signature")
    BODY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    signature: bytes
    def __init__(self, body: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Features(_message.Message):
    __slots__ = ("schema", "boot_id", "slot", "model_id", "flags", "z", "level", "time_s")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    Z_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    schema: int
    boot_id: int
    slot: int
    model_id: int
    flags: int
    z: bytes
    level: int
    time_s: int
    def __init__(self, schema: _Optional[int] = ..., boot_id: _Optional[int] = ..., slot: _Optional[int] = ..., model_id: _Optional[int] = ..., flags: _Optional[int] = ..., z: _Optional[bytes] = ..., level: _Optional[int] = ..., time_s: _Optional[int] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("schema", "boot_id", "first_slot", "last_slot", "model_id", "member", "present", "labels", "probabilities", "sentence", "start_s", "end_s", "ood_p_value", "unsure", "attributes", "shares", "time_s", "late")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_SLOT_FIELD_NUMBER: _ClassVar[int]
    LAST_SLOT_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    START_S_FIELD_NUMBER: _ClassVar[int]
    END_S_FIELD_NUMBER: _ClassVar[int]
    OOD_P_VALUE_FIELD_NUMBER: _ClassVar[int]
    UNSURE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    schema: int
    boot_id: int
    first_slot: int
    last_slot: int
    model_id: int
    member: int
    present: int
    labels: _containers.RepeatedScalarFieldContainer[str]
    probabilities: _containers.RepeatedScalarFieldContainer[float]
    sentence: str
    start_s: float
    end_s: float
    ood_p_value: float
    unsure: bool
    attributes: _containers.RepeatedScalarFieldContainer[str]
    shares: _containers.RepeatedScalarFieldContainer[float]
    time_s: int
    late: bool
    def __init__(self, schema: _Optional[int] = ..., boot_id: _Optional[int] = ..., first_slot: _Optional[int] = ..., last_slot: _Optional[int] = ..., model_id: _Optional[int] = ..., member: _Optional[int] = ..., present: _Optional[int] = ..., labels: _Optional[_Iterable[str]] = ..., probabilities: _Optional[_Iterable[float]] = ..., sentence: _Optional[str] = ..., start_s: _Optional[float] = ..., end_s: _Optional[float] = ..., ood_p_value: _Optional[float] = ..., unsure: _Optional[bool] = ..., attributes: _Optional[_Iterable[str]] = ..., shares: _Optional[_Iterable[float]] = ..., time_s: _Optional[int] = ..., late: _Optional[bool] = ...) -> None: ...

class Alert(_message.Message):
    __slots__ = ("schema", "boot_id", "slot", "model_id", "raised", "label", "probability", "sentence", "at_s", "time_s", "id", "first_id", "severity", "device_time_s")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    RAISED_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    AT_S_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_ID_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    DEVICE_TIME_S_FIELD_NUMBER: _ClassVar[int]
    schema: int
    boot_id: int
    slot: int
    model_id: int
    raised: bool
    label: str
    probability: float
    sentence: str
    at_s: float
    time_s: int
    id: str
    first_id: str
    severity: int
    device_time_s: int
    def __init__(self, schema: _Optional[int] = ..., boot_id: _Optional[int] = ..., slot: _Optional[int] = ..., model_id: _Optional[int] = ..., raised: _Optional[bool] = ..., label: _Optional[str] = ..., probability: _Optional[float] = ..., sentence: _Optional[str] = ..., at_s: _Optional[float] = ..., time_s: _Optional[int] = ..., id: _Optional[str] = ..., first_id: _Optional[str] = ..., severity: _Optional[int] = ..., device_time_s: _Optional[int] = ...) -> None: ...
