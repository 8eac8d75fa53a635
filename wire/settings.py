"""Reads a process's TOML file as typed sections; all faults are reported at once, each with its cure.

    file --TOML--> document --paths relative to the file--> --checked against the keys' types--> values of the sections

The annotation of a field says what its key may be: `str`, `int`, `float`, `bool`, or one of the marked types below.
"""

from __future__ import annotations

import difflib
import logging
import math
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from wire.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["FileOrText", "FilePath", "Key", "Positive", "PositiveInt", "faults", "keys_of", "parse_toml", "refuse"]

log = logging.getLogger("veilsight")

FilePath = Annotated[str, "file"]
"""A path, relative to the file that holds it; "" for none."""
FileOrText = Annotated[str, "file or text"]
"""A path where there is such a file beside the one that holds it; otherwise the text itself."""
Positive = Annotated[float, "positive"]
PositiveInt = Annotated[int, "positive"]


@dataclass(frozen=True, slots=True)
class Key:
    """What one key of a section may be.

    Attributes:
        kind: Type of its value, or a union of types.
        note: Mark of its type, such as "file" or "positive"; "" for none.
        needed: Whether the key has no default.
    """

    kind: Any
    note: str
    needed: bool


def keys_of(kind: type) -> dict[str, Key]:
    """Return key -> what it may be, of a dataclass whose fields are the keys."""
    marks: Mapping[str, Any] = get_type_hints(kind, include_extras=True)
    types: Mapping[str, type] = get_type_hints(kind)
    return {
        item.name: Key(types[item.name], getattr(marks[item.name], "__metadata__", ("",))[0], item.default is MISSING)
        for item in fields(kind)
    }


def parse_toml(
    path: Path | str,
    sections: Mapping[str, Mapping[str, Key]],
    cure: str,
    renamed: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> dict[str, Any]:
    """Read a TOML file and make its paths relative to the file.

    Args:
        path: The file.
        sections: Section -> key -> what it may be.
        cure: What to do where there is no such file.
        renamed: Section -> name of a key in the version before -> its name now. The old name works, with a warning in
            the log.

    Raises:
        ConfigError: The file cannot be read, or is no TOML.
    """
    file = Path(path)
    try:
        document = tomllib.loads(file.read_text())
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; {cure}") from error
    except ValueError as error:
        raise ConfigError(f"{file}: not TOML ({error}); {cure}") from error
    for section, names in renamed.items():
        if section in document:
            document[section] = _with_new_names(file, section, document[section], names)
    return {section: _rooted(table, sections.get(section, {}), file.parent) for section, table in document.items()}


def _with_new_names(file: Path, section: str, table: Any, names: Mapping[str, str]) -> Any:
    """Replace former names of keys; where both names are there, the old one is left to be refused."""
    if not isinstance(table, dict):
        return table
    old = {name for name in names if name in table and names[name] not in table}
    for name in old:
        log.warning("%s: [%s] %s is now %s; the old name ends with the next version", file, section, name, names[name])
    return {names[name] if name in old else name: value for name, value in table.items()}


def _rooted(table: Any, keys: Mapping[str, Key], folder: Path) -> Any:
    """A section with its paths relative to `folder`; whatever is of a wrong type is left for `faults`."""
    if isinstance(table, list):
        return [_rooted(entry, keys, folder) for entry in table]
    if not isinstance(table, dict):
        return table
    notes = {name: keys[name].note for name, value in table.items() if name in keys and value and type(value) is str}
    files = {name: folder / table[name] for name, note in notes.items() if note.startswith("file")}
    kept = {name: str(file) for name, file in files.items() if notes[name] == "file" or file.is_file()}
    return {**table, **kept}


def faults(
    document: Mapping[str, Any], sections: Mapping[str, Mapping[str, Key]], lists: Collection[str] = ()
) -> Iterator[str]:
    """Yield every key that is unknown or missing, and every value that is not of its key's type and range.

    Args:
        document: As `parse_toml` returned it.
        sections: Section -> key -> what it may be.
        lists: Sections that are written as `[[name]]` tables.
    """
    for name, table in document.items():
        if name not in sections and not isinstance(table, dict):
            yield f"{name} is in no section"
        elif name not in sections:
            yield f"[{name}] is unknown; {_nearest(name, sections, '[{}]')}"
    for name, keys in sections.items():
        tables = document.get(name, [] if name in lists else {})
        if name in lists and isinstance(tables, dict):
            yield f"[{name}] is one table; write [[{name}]], and one for each"
            continue
        head = f"[[{name}]] {{}}" if name in lists else f"[{name}]"
        for number, table in enumerate(tables if name in lists and isinstance(tables, list) else [tables], 1):
            where = head.format(number)
            if isinstance(table, dict):
                yield from _section(table, keys, where)
            else:
                yield f"{name} is {table!r}; write it as a table, {head.replace(' {}', '')}"


def _section(table: Mapping[str, Any], keys: Mapping[str, Key], where: str) -> Iterator[str]:
    yield from (f"{where} {name} is missing" for name, key in keys.items() if key.needed and name not in table)
    for name, value in table.items():
        key = keys.get(name)
        if key is None:
            yield f"{where} {name} is unknown; {_nearest(name, keys, where + ' {}')}"
        elif not _is_of(value, key.kind):
            secret = isinstance(value, (list, dict)) or "://" in str(value) or "@" in str(value)  # perhaps an address
            shown = f"a {type(value).__name__}" if secret else repr(value)
            yield f"{where} {name} is {shown}; expected {' or '.join(kind.__name__ for kind in _kinds(key.kind))}"
        elif isinstance(value, (int, float)) and not (0 <= value < math.inf and (value or key.note != "positive")):
            yield f"{where} {name} is {value}; expected a number {'above' if key.note else 'of at least'} 0"


def _kinds(kind: Any) -> list[type]:
    """The types of an annotation, which may be a union; TOML has no None."""
    parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return [get_origin(part) or part for part in parts if part is not type(None)]


def _is_of(value: Any, kind: Any) -> bool:
    return type(value) in _kinds(kind) or (type(value) is int and float in _kinds(kind))


def _nearest(name: str, known: Iterable[str], form: str) -> str:
    close = difflib.get_close_matches(name, list(known), 1, 0.5)
    return f"did you mean {form.format(close[0])}?" if close else f"there are {', '.join(map(form.format, known))}"


def refuse(name: Path | str, problems: Iterable[str]) -> None:
    """Raise a ConfigError with one line for each problem, each with the file's name; do nothing where there is none."""
    found = list(problems)
    if found:
        raise ConfigError("\n".join(f"{name}: {problem}" for problem in found))
