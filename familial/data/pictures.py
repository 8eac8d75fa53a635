"""Clips that come as pictures: their names and times, and the pictures one by one, from a folder or a zip.

Nothing is unpacked to disk. Errors are DataError and name the folder or archive.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from wire.errors import DataError

__all__ = ["picture_names", "pictures", "time_of"]

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp"}
_WIDE = 320  # pixels: wider pictures are scaled down to it
_MOST = 20_000  # in one folder or archive


def picture_names(source: Path) -> list[str]:
    """Names of the pictures in a folder or zip, in order; DataError for too few, too many, or no zip."""
    if source.is_dir():
        names = [p.name for p in source.iterdir()]
    else:
        try:
            with zipfile.ZipFile(source) as archive:
                names = [n for n in archive.namelist() if "__MACOSX" not in n]
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{source}: not readable as a zip ({error}); fetch it again") from error
    found = sorted(n for n in names if Path(n).suffix.lower() in _SUFFIXES)
    if not 2 <= len(found) <= _MOST:
        raise DataError(f"{source}: holds {len(found)} pictures; 2 to {_MOST} are expected: fetch it again")
    return found


def pictures(source: Path, names: list[str]) -> Iterator[NDArray[np.uint8]]:
    """The pictures `names` u8 (H, W, 3) BGR, all of the size of the first, at most `_WIDE` pixels wide."""
    archive = None if source.is_dir() else zipfile.ZipFile(source)
    size: tuple[int, int] | None = None
    try:
        for name in names:
            packed = (source / name).read_bytes() if archive is None else archive.read(name)
            picture = cv2.imdecode(np.frombuffer(packed, np.uint8), cv2.IMREAD_COLOR) if packed else None
            if picture is None:
                raise DataError(f"{source}: picture {name} is empty or broken; fetch it again")
            if size is None:
                shrink = min(1.0, _WIDE / picture.shape[1])
                size = (2 * round(picture.shape[1] * shrink / 2), 2 * round(picture.shape[0] * shrink / 2))
            yield np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    except (OSError, zipfile.BadZipFile, RuntimeError) as error:
        raise DataError(f"{source}: not readable ({error}); fetch it again") from error
    finally:
        if archive is not None:
            archive.close()


def time_of(text: str) -> datetime | None:
    """The time in a picture's name or a csv's first column: 2018-07-04T12_04_17.738369, or with colons."""
    found = re.search(r"(\d{4}-\d\d-\d\d)T(\d\d)[_:](\d\d)[_:](\d\d(?:\.\d{1,6})?)", text)
    if found is None:
        return None
    day, hour, minute, second = found.groups()
    try:
        return datetime.fromisoformat(f"{day}T{hour}:{minute}:{float(second):09.6f}")
    except ValueError:
        return None
