"""Adding an attack is guided: what is missing is an error that says so, never an attack that is silently not made."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.audit import attacks
from calibration.audit.attacks import registry
from calibration.audit.attacks.base import Attack, Bench, Piece, Setting
from calibration.audit.attacks.registry import ATTACKS, attack_of
from calibration.audit.campaign import QUICK, run, tasks
from calibration.audit.findings import Finding
from calibration.audit.report import _attacks
from calibration.audit.targets import GALLERIES, Gallery
from wire.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]


def no_rows(bench: Bench) -> Iterator[Finding]:
    yield from ()


def parts(**changes: Any) -> dict[str, Any]:
    """Arguments of a whole attack, with changes."""
    whole = {
        "name": "new",
        "title": "A new attack",
        "text": "What it does.",
        "galleries": frozenset({"people"}),
        "pieces": lambda setting: [Piece("new", "people")],
        "run": no_rows,
    }
    return whole | changes


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    """A setting where all galleries are there; their owners have one trait."""
    empty = np.zeros(0, np.int64)
    path = tmp_path / "gallery.npz"
    Gallery(
        codes=np.zeros((0, 4), np.int16),
        pictures=np.zeros((0, 2, 2), np.uint8),
        clip=empty,
        owner=empty,
        enrol=np.zeros(0, np.bool_),
        names=(),
        traits={"tall": empty},
        public=True,
    ).save(path)
    return Setting(tmp_path, (("fp32", tmp_path),), tuple((name, path) for name in GALLERIES), QUICK)


@pytest.mark.parametrize("missing", ["name", "title", "text", "pieces", "run"])
def test_a_half_made_attack_is_refused_by_what_is_missing(missing: str) -> None:
    with pytest.raises(ConfigError, match=f"{missing} is missing"):
        Attack(**parts(**{missing: None}))
    with pytest.raises(TypeError, match=missing):
        Attack(**{name: part for name, part in parts().items() if name != missing})


def test_an_unknown_gallery_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"galleries are \['voices'\]; expected some of people"):
        Attack(**parts(galleries=frozenset({"voices"})))


def test_an_unknown_attack_is_refused_everywhere(setting: Setting) -> None:
    with pytest.raises(ConfigError, match="attack 'new' is unknown; expected one of mechanism"):
        tasks(setting, ("new",))
    with pytest.raises(ConfigError, match="registry"):
        run(setting, Piece("new", "people"))
    with pytest.raises(ConfigError, match="unknown"):
        attack_of("new")


def test_an_attack_without_pieces_is_an_error_unless_its_galleries_are_missing(setting: Setting) -> None:
    silent = Attack(**parts(pieces=lambda setting: []))
    with pytest.raises(ConfigError, match="`pieces` yields nothing, but galleries people are there"):
        silent.work(setting)
    assert silent.work(dataclasses.replace(setting, galleries=())) == []
    with pytest.raises(ConfigError, match="needs no gallery"):
        Attack(**parts(pieces=lambda setting: [], galleries=frozenset())).work(setting)


def test_a_piece_of_another_attack_is_refused(setting: Setting) -> None:
    with pytest.raises(ConfigError, match="a piece names the attack 'naming'; name it 'new'"):
        Attack(**parts(pieces=lambda setting: [Piece("naming", "people")])).work(setting)


def test_a_row_of_an_unknown_attack_is_not_left_out_of_the_page() -> None:
    with pytest.raises(ConfigError, match="attack 'new' is unknown"):
        list(_attacks({"attacks": [{"attack": "new"}]}))


def test_every_module_of_attacks_is_registered() -> None:
    """A forgotten entry in ATTACKS would mean an attack that is never made."""
    registered = list(ATTACKS.values())
    for found in pkgutil.iter_modules(attacks.__path__):
        if found.name in ("base", "registry"):
            continue
        module = importlib.import_module(f"{attacks.__name__}.{found.name}")
        made = [value for value in vars(module).values() if isinstance(value, Attack)]
        assert made, f"calibration/audit/attacks/{found.name}.py makes no Attack: see attacks/__init__.py"
        for attack in made:
            assert attack in registered, f"{attack.name!r} of {found.name}.py is not in ATTACKS of {registry.__file__}"


@pytest.mark.parametrize("name", [*ATTACKS])
def test_every_attack_has_work_and_a_place_in_the_docs(setting: Setting, name: str) -> None:
    attack = ATTACKS[name]
    assert attack.name == name
    assert tasks(setting, (name,)), f"{name!r} yields no pieces where all galleries are there"
    row = f"| {name} |"
    assert row in (ROOT / "docs" / "audit.md").read_text(), f"docs/audit.md, 'The audit': add a row {row} ..."


def test_the_heaviest_attacks_start_first(setting: Setting) -> None:
    order = list(dict.fromkeys(piece.attack for piece in tasks(setting)))
    assert order == [
        "side channels",
        "reconstruction",
        "mechanism",
        "matched filter",
        "averaging",
        "naming",
        "attributes",
        "norm",
    ]
