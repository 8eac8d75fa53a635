"""Where the fields of a sealed release lie: all of them have a fixed width, so its bytes can be read without a parser.

    0a length | 0d schema | 11 boot_id | 19 slot | 21 model_id | 2d flags | 32 length z | 3d level | 45 time_s
    12 length signature
    payload --read_release--> its fields, nothing of them believed yet; None: not in this, the only canonical, form

protobuf writes the fields in the order of their numbers, each after one byte that names its number and type. A payload
that has these bytes in these places is therefore canonical and whole, and every other one is not. Reading it so takes a
tenth of the time of parsing it and writing it again to compare.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple

from wire.protocol.keys import SIGNATURE_BYTES

__all__ = ["SealedRelease", "features_size", "read_release", "stated_in"]

_TAGS = (0x0D, 0x11, 0x19, 0x21, 0x2D, 0x3D, 0x45)  # of the fields with a fixed width: number << 3, and the type
_BODY, _Z, _SIGNATURE = 0x0A, 0x32, 0x12  # of the fields with a length
_STATED = struct.Struct("<BIBQBQBQ")  # the body up to the model's id


class SealedRelease(NamedTuple):
    """A release as it came, before any check of its values.

    Attributes:
        body: What is signed, after its context.
        z: Little-endian int16.
    """

    signature: bytes
    body: bytes
    schema: int
    boot_id: int
    slot: int
    model_id: int
    flags: int
    z: bytes
    level: int
    time_s: int


def features_size(n: int) -> int:
    """Bytes of a sealed FeatureMessage with n coordinates."""
    return _layout(n)[0].size


def read_release(payload: bytes, n: int) -> SealedRelease | None:
    """Split a payload of `features_size(n)` bytes into its fields; None where they are not where they must be."""
    layout, begin, lengths = _layout(n)
    head, a, schema, b, boot, c, slot, d, model, e, flags, middle, z, f, level, g, time_s, tail, signature = (
        layout.unpack(payload)
    )
    if (a, b, c, d, e, f, g) != _TAGS or (head, middle, tail) != lengths:
        return None
    body = payload[begin : -SIGNATURE_BYTES - len(tail)]
    return SealedRelease(signature, body, schema, boot, slot, model, flags, z, level, time_s)


def stated_in(payload: bytes) -> tuple[int, int] | None:
    """Boot id and model id that a payload states, whatever its n; None where it is too short. Nothing is believed.

    Where `read_release` finds a release, they are that release's.
    """
    if len(payload) < 4 + _STATED.size:  # what comes after it is longer still
        return None
    begin = 2 if payload[1] < 128 else 3 if payload[2] < 128 else 4
    _, _, _, boot_id, _, _, _, model_id = _STATED.unpack_from(payload, begin)
    return boot_id, model_id


@lru_cache(maxsize=16)
def _layout(n: int) -> tuple[struct.Struct, int, tuple[bytes, bytes, bytes]]:
    """The whole payload, where the body begins, and what stands before body, z and signature."""
    z = bytes([_Z]) + _varint(2 * n)
    middle = f"BIBQBQBQBI{len(z)}s{2 * n}sBIBI"
    head = bytes([_BODY]) + _varint(struct.calcsize(f"<{middle}"))
    tail = bytes([_SIGNATURE]) + _varint(SIGNATURE_BYTES)
    whole = struct.Struct(f"<{len(head)}s{middle}{len(tail)}s{SIGNATURE_BYTES}s")
    return whole, len(head), (head, z, tail)


def _varint(number: int) -> bytes:
    """A length as protobuf writes it: seven bits a byte, the least significant first."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])
