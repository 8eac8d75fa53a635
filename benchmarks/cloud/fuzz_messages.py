"""Hostile MQTT messages from a seed: mutations of genuine ones, junk of two grammars, lies of a device that has a key.

    genuine messages --remember--> Fuzzer --next--> topic, payload, QoS, retained; and the kind, for the count

Nobody here has a genuine camera's key. The liars' keys are registered, so what they sign is read: any boot, slot, level
and z, states and certificates with any values.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from wire.artifact.manifest import EngineManifest
from wire.errors import MessageError
from wire.privacy.certificate import MAX_CERTIFICATE
from wire.protocol import veilsight_pb2 as pb
from wire.protocol.keys import DeviceKey
from wire.protocol.message import FeatureMessage, coarse_time
from wire.protocol.state import seal_state
from wire.protocol.topics import SCHEMA, TOPICS, signed_context, topic

__all__ = ["READ", "Fuzzer", "Hostile"]

READ = ("features", "state", "certificate")
"""The topics that a bridge subscribes to."""

_STRANGER = DeviceKey(b"s" * 32)
_REMEMBERED = 64
_WORDS = (
    *'{}[],:"',
    *("\\", "0", "9", "-1", "1e999", "1e-999", "NaN", "Infinity", "true", "false", "null", '"schema": 2', '"status"'),
    *(
        '"online"',
        '"boot_id"',
        '"signature":',
        '"certificate"',
        '"inputs"',
        '"sigma"',
        "1/0",
        "9" * 25,
        "\\ud800",
        "\x00",
    ),
)
_NUMBERS = (0, 1, 2, 7, 255, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1)
_VALUES: Sequence[Any] = (
    None,
    True,
    -1,
    0,
    0.5,
    2**53,
    1e300,
    10**20,
    "",
    "0",
    "f" * 16,
    "0" * 64,
    "\x1b[2J",
    "x" * 300,
)
_TEXTS: Sequence[Any] = ("1/0", "1e400", "1e10000000", "9" * 30_000, "0", "-1", "1/" + "9" * 99, "nan", "inf", "31")


class Hostile(NamedTuple):
    """A message, and what it is for the count."""

    kind: str
    topic: str
    payload: bytes
    qos: int
    retain: bool


class _Liar:
    """A registered device that signs what it likes."""

    def __init__(self, name: str, key: DeviceKey) -> None:
        self.name, self.key = name, key
        self.boot, self.slot, self.count = 1, 0, 0
        self.certificate = b""


class Fuzzer:
    """Makes one hostile message after the other; the same ones for the same seed and the same genuine messages."""

    def __init__(
        self,
        seed: int,
        manifest: EngineManifest,
        site: str,
        cameras: Sequence[str],
        liars: Mapping[str, DeviceKey],
    ) -> None:
        """Begin.

        Args:
            seed: Of everything that is drawn.
            manifest: Of the engine that the cameras run.
            site: Of all cameras.
            cameras: Honest ones, under whose names an outsider writes.
            liars: Registered cameras with their keys.
        """
        self._rng, self._manifest, self._site, self._cameras = random.Random(seed), manifest, site, list(cameras)
        self._liars = [_Liar(name, key) for name, key in liars.items()]
        self._genuine = deque[tuple[str, bytes]](maxlen=_REMEMBERED)
        self._certificate = json.loads(manifest.certificate().to_json())
        self._kinds: dict[str, tuple[int, Callable[[], tuple[str, str, bytes]]]] = {
            "mutated": (30, self._mutated),
            "replayed": (8, self._replayed),
            "moved": (6, self._moved),
            "JSON grammar": (12, self._json),
            "protobuf grammar": (12, self._protobuf),
            "bytes": (6, self._bytes),
            "signed by a stranger": (6, self._strange),
            "a liar's features": (10, self._lying_features),
            "a liar's state": (6, self._lying_state),
            "a liar's certificate": (4, self._lying_certificate),
        }

    def remember(self, name: str, payload: bytes) -> None:
        """Take a genuine message, to be mutated, moved and replayed."""
        self._genuine.append((name, payload))

    def next(self) -> Hostile:
        """Make the next message."""
        rng = self._rng
        weights = [weight for weight, _ in self._kinds.values()]
        kind = rng.choices([*self._kinds], weights)[0]
        camera, name, payload = self._kinds[kind][1]()
        keeps = name in ("state", "certificate") and rng.random() < 0.1
        return Hostile(kind, topic(self._site, camera, name), payload, rng.choice((0, 1, 1, 1)), keeps)

    # --- from outside

    def _anywhere(self) -> str:
        return self._rng.choice([*self._cameras, *(liar.name for liar in self._liars)])

    def _name(self) -> str:
        """Mostly what the bridge reads; else another topic, one below, or one that nobody has."""
        rng, draw = self._rng, self._rng.random()
        if draw < 0.9:
            return rng.choice(READ)
        return rng.choice([*TOPICS]) if draw < 0.97 else rng.choice(("features/x", "watching", "\u202e", "x" * 200))

    def _original(self) -> tuple[str, bytes]:
        return self._rng.choice(self._genuine) if self._genuine else ("features", b"\x0a\x00")

    def _mutated(self) -> tuple[str, str, bytes]:
        name, payload = self._original()
        data = bytearray(payload)
        for _ in range(self._rng.randint(1, 4)):
            self._mutate(data)
        return self._rng.choice(self._cameras), name, bytes(data[: 2 * MAX_CERTIFICATE])

    def _mutate(self, data: bytearray) -> None:
        rng, at = self._rng, self._rng.randrange(len(data) + 1)
        to = min(len(data), at + rng.choice((1, 2, 8, 64)))
        how = rng.randrange(7)
        if how == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            del data[at:to]
        elif how == 2:
            del data[at:]
        elif how == 3:
            data[at:at] = data[at:to] * rng.choice((1, 2, 50))
        elif how == 4:
            data[at:to] = rng.randbytes(to - at)
        elif how == 5:
            data[at:] = self._original()[1][at:]
        else:
            data[at:to] = rng.choice(_WORDS).encode()

    def _replayed(self) -> tuple[str, str, bytes]:
        return self._cameras[0], *self._original()

    def _moved(self) -> tuple[str, str, bytes]:
        return self._anywhere(), self._name(), self._original()[1]

    def _bytes(self) -> tuple[str, str, bytes]:
        rng = self._rng
        length = rng.choice((0, 1, 63, 64, 65, 500, 1024, 1025, 16 * 1024, 16 * 1024 + 1))
        if rng.random() < 0.01:
            length = rng.choice((MAX_CERTIFICATE, MAX_CERTIFICATE + 1, 250_000, 400_000))
        return self._anywhere(), self._name(), rng.randbytes(length)

    def _json(self) -> tuple[str, str, bytes]:
        rng = self._rng
        if rng.random() < 0.5:
            text = "".join(rng.choice(_WORDS) for _ in range(rng.choice((1, 5, 20, 200)))).encode()
        else:
            text = json.dumps(self._value(4)).encode()
        times = rng.choice((1, 1, 1, 1, 1, 1, 200))
        seal = b', "signature": "' + rng.randbytes(64).hex().encode() + b'"}' if rng.random() < 0.3 else b""
        return self._anywhere(), rng.choice(("state", "certificate")), (text[:-1] if seal else text) * times + seal

    def _value(self, depth: int) -> Any:
        rng = self._rng
        if depth and rng.random() < 0.6:
            values = [self._value(depth - 1) for _ in range(rng.randrange(4))]
            names = ("schema", "status", "boot_id", "count", "inputs", "sigma", "version", "certificate", "x")
            return values if rng.random() < 0.3 else {rng.choice(names): value for value in values}
        return rng.choice((*_VALUES, *_NUMBERS, *_TEXTS))

    def _protobuf(self) -> tuple[str, str, bytes]:
        rng = self._rng
        body = b"".join(self._field() for _ in range(rng.choice((0, 1, 3, 9, 100))))
        if rng.random() < 0.7:
            body = pb.Signed(body=body, signature=rng.randbytes(rng.choice((0, 63, 64, 64, 64)))).SerializeToString()
        return self._anywhere(), self._name(), body[:20_000]

    def _field(self) -> bytes:
        rng, wire = self._rng, self._rng.choice((0, 1, 2, 2, 3, 4, 5, 7))
        head = _varint(rng.choice((0, 1, 2, 3, 6, 8, 15, 16, 2**29 - 1)) << 3 | wire)
        if wire == 0:
            return head + _varint(rng.choice(_NUMBERS))
        if wire == 2:
            return head + _varint(rng.choice((0, 5, 2**31, 2**63))) + rng.randbytes(5)
        return head + rng.randbytes({1: 8, 5: 4}.get(wire, 0))

    def _strange(self) -> tuple[str, str, bytes]:
        """Well formed, as the newest release or a state would be, and signed by nobody whom the bridge knows."""
        rng, camera = self._rng, self._anywhere()
        if rng.random() < 0.5:
            return camera, "features", self._release(_STRANGER, camera, rng.randrange(4), rng.randrange(10**6))
        return camera, "state", self._state(_STRANGER, camera, rng.randrange(4), rng.randrange(1, 9), {})

    # --- from a device that has a key

    def _lying_features(self) -> tuple[str, str, bytes]:
        rng, liar = self._rng, self._rng.choice(self._liars)
        liar.slot += 1
        how, boot, slot = rng.random(), liar.boot, liar.slot
        if how < 0.4:  # as a device would, but for what it says
            return liar.name, "features", self._release(liar.key, liar.name, boot, slot)
        if how < 0.5:
            liar.boot, liar.slot = boot + rng.choice((1, 1, 1000)), rng.choice((0, 0, 1, 10**6))
        elif how < 0.6:
            boot, slot = rng.choice((0, boot - 1 if boot else 0)), rng.choice(_NUMBERS)
        elif how < 0.8:
            slot = rng.choice((max(0, slot - 3), slot + 1, slot + 3, slot + 10**6, *_NUMBERS))
        else:
            return liar.name, "features", self._malformed(liar)
        return liar.name, "features", self._release(liar.key, liar.name, boot, slot)

    def _release(self, key: DeviceKey, camera: str, boot: int, slot: int) -> bytes:
        rng, n = self._rng, self._manifest.n
        z = np.frombuffer(rng.randbytes(2 * n), "<i2").astype(np.int16) >> rng.choice((0, 0, 6, 8))
        if rng.random() < 0.1:
            z = np.full(n, rng.choice((-32768, 32767, 0)), np.int16)
        flags, level = rng.choice((0, 0, 0, 1, 2, 3)), rng.choice((0, 0, 0, 1, 9, 2**32 - 1))
        time_s = coarse_time(time.time()) + rng.choice((0, 0, 0, -60, 60, 600, -(10**6), 10**6))
        model = rng.choice((self._manifest.model_id,) * 8 + (0,))
        return FeatureMessage(boot, slot, model, flags, z, level, time_s).seal(key, self._site, camera)

    def _malformed(self, liar: _Liar) -> bytes:
        """A body of fields that cannot be, in canonical form or not, under a good signature."""
        rng = self._rng
        body = pb.Features(
            schema=rng.choice((SCHEMA, SCHEMA, 0, 1, 3, 2**32 - 1)),
            boot_id=liar.boot,
            slot=rng.choice(_NUMBERS),
            model_id=self._manifest.model_id,
            flags=rng.choice((0, 4, 2**32 - 1)),
            z=rng.randbytes(rng.choice((0, 1, 2 * self._manifest.n, 15_000))),
            level=rng.choice((0, 2**32 - 1)),
            time_s=rng.choice((0, 1, 60, 2**32 - 1)),
        ).SerializeToString()
        body = rng.choice((body, body + self._field(), self._field() + body, body[: rng.randrange(len(body))]))
        signature = liar.key.sign(signed_context("features", self._site, liar.name) + body)
        return pb.Signed(body=body, signature=signature).SerializeToString()

    def _lying_state(self) -> tuple[str, str, bytes]:
        rng, liar = self._rng, self._rng.choice(self._liars)
        liar.count += 1
        fields = {name: rng.choice(_VALUES) for name in rng.sample(_STATE, rng.choice((0, 0, 0, 1, 3)))}
        boot = rng.choice((liar.boot, liar.boot, liar.boot, 0, liar.boot + 1))
        return liar.name, "state", self._state(liar.key, liar.name, boot, liar.count, fields, liar.certificate)

    def _state(
        self, key: DeviceKey, camera: str, boot: int, count: int, fields: Mapping[str, Any], certificate: bytes = b""
    ) -> bytes:
        rng = self._rng
        made = {
            "status": rng.choice(("online", "online", "offline")),
            "reason": "",
            "boot_id": boot,
            "count": count,
            "certificate": hashlib.sha256(certificate).hexdigest(),
            "blind": rng.random() < 0.5,
            "watching": rng.random() < 0.5,
        }
        try:
            return seal_state({**made, **fields}, key, self._site, camera)
        except (MessageError, ValueError, TypeError):  # what no sealer of ours makes: sign the text itself
            body = json.dumps({"schema": SCHEMA, **made, **fields}).encode()[:3000]
            signature = key.sign(signed_context("state", self._site, camera) + body).hex()
            return body[:-1] + b', "signature": "' + signature.encode() + b'"}'

    def _lying_certificate(self) -> tuple[str, str, bytes]:
        """A certificate that the liar's next states name, or, one time in two, the one that its last states name."""
        rng, liar = self._rng, self._rng.choice(self._liars)
        if liar.certificate and rng.random() < 0.5:
            return liar.name, "certificate", liar.certificate
        document = json.loads(json.dumps(self._certificate))
        inputs = document["inputs"]
        for name in rng.sample([*inputs, "adaptive_level"], rng.choice((0, 1, 3))):
            inputs[name] = rng.choice((*_VALUES, *_TEXTS, *_NUMBERS, self._value(2)))
        liar.certificate = json.dumps(document).encode()
        if rng.random() < 0.2:
            changed = bytearray(liar.certificate)
            self._mutate(changed)
            liar.certificate = bytes(changed)
        return liar.name, "certificate", liar.certificate


_STATE = ("status", "reason", "boot_id", "count", "certificate", "blind", "watching", "model_id", "x", "schema")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
