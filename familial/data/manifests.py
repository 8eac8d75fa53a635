"""Clip manifests: CSV files, as a program or a spreadsheet writes them -> checked rows.

    file,label,set,group,note,onset_s     file relative to the manifest; `uncertain` rows are not scored
    bytes --BOM, delimiter, header--> rows --labels, files, duplicates--> Clip

`file` and `label` are needed. Read without a word: a byte order mark, semicolons or tabs, capitals and spaces around a
label, backslashes, empty lines, a decimal comma. Read with a note on stderr: no set or group, a row that is there
twice. All else is a DataError that names the line and the cure.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wire.errors import DataError

__all__ = ["UNSCORED", "Clip", "read_manifests"]

UNSCORED = "uncertain"
"""The label of a row that is neither trained on nor scored."""

_NEEDED = ("file", "label")
_COLUMNS = (*_NEEDED, "set", "group", "note", "onset_s")
_HEADER = "the header is file,label,set,group,note"
_DELIMITERS = ",;\t"


@dataclass(frozen=True, slots=True)
class Clip:
    """One row of a manifest.

    Attributes:
        file: where the clip lies.
        name: its path as the manifest has it.
        label: what it shows, or `UNSCORED`.
        set: the data set it comes from.
        group: clips of one group (a person, a room, a source video) are never on both sides of a split.
        note: free text.
        onset_s: seconds from the clip's start to where its label begins, where the manifest says it.
    """

    file: Path
    name: str
    label: str
    set: str
    group: str
    note: str
    onset_s: float | None = None


def read_manifests(paths: Iterable[Path | str], labels: Sequence[str]) -> list[Clip]:
    """Read the rows of all manifests, in order; a row that is there twice counts once.

    Raises:
        DataError: a manifest without rows, a column that is missing, a label that is neither in `labels` nor
            `uncertain`, a file that does not exist, two rows that contradict each other.
    """
    found: dict[Path, tuple[Clip, str]] = {}
    twice = list[str]()
    for path in paths:
        for clip, where in _read(Path(path), labels):
            first, there = found.setdefault(clip.file.resolve(), (clip, where))
            if there == where:
                continue
            if _said(first) != _said(clip):
                raise DataError(
                    f"{where}: {clip.name} is also in {there}, with another label, set, group or onset: "
                    "keep the right row"
                )
            twice.append(where)
    if not found:
        raise DataError("no clips: the manifests given have no rows")
    if twice:
        _tell(f"{twice[0]}: {len(twice)} rows are there twice; each clip counts once")
    return [clip for clip, _ in found.values()]


def _said(clip: Clip) -> tuple[object, ...]:
    return clip.label, clip.set, clip.group, clip.onset_s


def _tell(note: str) -> None:
    print(note, file=sys.stderr, flush=True)


def _read(path: Path, labels: Sequence[str]) -> list[tuple[Clip, str]]:
    """The clips of one manifest, each with its place for messages."""
    lines = _text(path).splitlines(keepends=True)
    skipped = 0
    while skipped < len(lines) and re.fullmatch(r'"?(sep=.)?[,;\t]*"?', lines[skipped].strip()):
        skipped += 1  # empty lines, and Excel's own line that names the delimiter
    header = lines[skipped] if skipped < len(lines) else ""
    delimiter = max(_DELIMITERS, key=header.count)
    try:
        rows = list(csv.reader(lines[skipped:], delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}: not readable as a clip manifest ({error}); write it again as CSV") from error
    names = [name.strip().casefold() for name in rows[0]] if rows else []
    _check_header(path, names)
    found, last = [], skipped + 1
    for line, cells in enumerate(rows[1:], start=skipped + 2):
        row = dict(zip(names, (cell.strip() for cell in cells), strict=False))
        if any(row.values()):
            found.append((_clip(path, line, row, labels, delimiter), f"{path}:{line}"))
        last = line
    absent = [name for name in ("set", "group") if name not in names]
    if absent and last > skipped + 1:
        _tell(_absent(path, absent))
    return found


def _text(path: Path) -> str:
    """The file's text, by its byte order mark, else as UTF-8."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: not readable as a clip manifest ({error})") from error
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        cure = "save it as CSV UTF-8 (Excel: Save as, CSV UTF-8)"
        raise DataError(f"{path}: not readable as a clip manifest ({error}); {cure}") from error
    if "\0" in text or content.startswith(b"PK\3\4"):
        raise DataError(f"{path}: not readable as a clip manifest (not text); a spreadsheet is saved as CSV UTF-8")
    return text


def _check_header(path: Path, names: Sequence[str]) -> None:
    lacking = [name for name in _NEEDED if name not in names]
    if names and lacking:
        raise DataError(
            f"{path}:1: no column {' and '.join(lacking)} among {', '.join(names)}; name the columns: {_HEADER}"
        )
    doubled = sorted({name for name in names if name in _COLUMNS and names.count(name) > 1})
    if doubled:
        raise DataError(f"{path}:1: column {', '.join(doubled)} is there twice; keep one of them")


def _absent(path: Path, names: Sequence[str]) -> str:
    """What it means that the manifest has no such column."""
    means = {
        "set": f"no column set: all are of the set {path.stem!r}",
        "group": (
            "no column group: each clip is a group of its own. Where clips share people, a room or a recording, "
            "figures on held-out clips are too good: add the column, with one name for all of these"
        ),
    }
    return f"{path}: " + "; ".join(means[name] for name in names)


def _clip(path: Path, line: int, row: Mapping[str, str], labels: Sequence[str], delimiter: str) -> Clip:
    where = f"{path}:{line}"
    lacking = [name for name in ("file", "label", "set", "group") if row.get(name) == "" or row.get(name) is None]
    lacking = [name for name in lacking if name in row or name in _NEEDED]  # a column that is not there has a default
    if lacking:
        raise DataError(f"{where}: {', '.join(lacking)} missing; {_HEADER}")
    name = row["file"]
    file = path.parent / name
    if not file.is_file() and "\\" in name:
        file = path.parent / name.replace("\\", "/")
    if not file.is_file():
        raise DataError(f"{where}: file {name} is missing (looked for {file})")
    onset = row.get("onset_s", "")
    onset = onset.replace(",", ".") if delimiter != "," else onset
    label = _label(row["label"], labels, where)
    set_, group = row.get("set") or path.stem, row.get("group") or name
    return Clip(file, name, label, set_, group, row.get("note", ""), _onset(onset, where))


def _label(text: str, labels: Sequence[str], where: str) -> str:
    """The label that is meant by `text`, whatever its capitals."""
    known = {label.casefold(): label for label in (*labels, UNSCORED)}
    if text.casefold() in known:
        return known[text.casefold()]
    alike = difflib.get_close_matches(text.casefold(), known, n=1)
    meant = f" (did you mean {known[alike[0]]!r}?)" if alike else ""
    raise DataError(
        f"{where}: label is {text!r}{meant}, known are {', '.join(labels)} and {UNSCORED}; correct it, or train a "
        f"family that knows it: familial.train --labels {','.join(labels)},{text.replace(' ', '_').lower()}"
    )


def _onset(text: str, where: str) -> float | None:
    """The optional column `onset_s`: seconds from the clip's start to where its label begins."""
    if not text:
        return None
    cure = "give seconds from the clip's start, or leave it empty"
    try:
        onset = float(text)
    except ValueError as error:
        raise DataError(f"{where}: onset_s is {text!r}; {cure}") from error
    if not 0.0 <= onset < 1e5:
        raise DataError(f"{where}: onset_s is {onset}; {cure}")
    return onset
