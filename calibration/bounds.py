"""Prints the certificate's bounds as Markdown, rounded up, and fills them into documents.

    engine or checkpoint --certificate of each profile--> tables and numbers --> stdout
                                                              --> blocks of FILE, where it has markers

A block is the text between `<!-- bounds:NAME -->` and `<!-- /bounds -->`. `profiles`, `time` and `naming` are tables;
`event-bits`, `release-1000`, `passed-1000` and the like are numbers inside a sentence (`blocks` lists all). A test
compares README.md and docs/ with what this command writes now.

    python -m calibration.bounds --write README.md docs/*.md
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from familial.model.config import FamilyConfig
from wire.artifact.manifest import EngineManifest
from wire.errors import DataError, VeilsightError
from wire.files import write_whole
from wire.privacy.certificate import GALLERIES, PASSED, PROFILES, Certificate, round_up, sigma_for

__all__ = ["blocks", "fill", "main", "of_checkpoint", "of_engine"]

_MOST = PASSED[-1]  # a bound above it says next to nothing
_BLOCK = re.compile(r"(<!-- bounds:([\w-]+) -->)(.*?)(<!-- /bounds -->)", re.DOTALL)
_MARKER = re.compile(r"<!-- /?bounds\b")
_TABLES = ("profiles", "time", "naming")


def of_checkpoint(folder: Path) -> tuple[str, dict[str, Certificate]]:
    """Return the profile that a checkpoint was trained for, and the certificate of every profile.

    Raises:
        CheckpointError: config.json cannot be read.
    """
    config = FamilyConfig.load(folder / "config.json")
    window, releases = config.window, config.event_releases
    base = Certificate(config.clip_norm, Fraction(1), config.n, window.slot_s, window.receptive_field_s, releases)
    return config.profile, _by_profile(base)


def of_engine(folder: Path) -> tuple[str, dict[str, Certificate]]:
    """Return the profile of an engine, and the certificate of every profile, its own included.

    Raises:
        ManifestError: the manifest cannot be read.
    """
    manifest = EngineManifest.load(folder)
    own = manifest.certificate()
    return manifest.profile, _by_profile(replace(own, adaptive_level=None)) | {manifest.profile: own}


def _by_profile(base: Certificate) -> dict[str, Certificate]:
    sigmas = {name: sigma_for(base.clip_norm, shift, base.event_releases) for name, shift in PROFILES.items()}
    return {name: base.at(sigma) for name, sigma in sigmas.items()}


def blocks(profile: str, certificates: Mapping[str, Certificate]) -> dict[str, str]:
    """Return every block by name: tables (several lines) and numbers (one line) of the given profile."""
    certificate = certificates[profile]
    made = {
        "profiles": _profiles(profile, certificates),
        "time": _time(certificates),
        "naming": _naming(certificate),
    }
    for span, releases in (("release", 1), ("event", certificate.event_releases)):
        row = certificate.reveals(releases)
        made |= {f"{span}-S": round_up(row["S"]), f"{span}-bits": round_up(row["bits"])}
        made |= {f"{span}-{gallery}": round_up(row["name_one_of"][str(gallery)]) for gallery in GALLERIES}
        made |= {f"{span}-eps": round_up(row["eps"])}
    made |= {f"passed-{gallery}": _seconds(certificate.time_in_view_s(gallery, _MOST)) for gallery in GALLERIES}
    times = (certificate.time_in_view_s(gallery, _MOST, cameras=2) for gallery in GALLERIES)
    made["passed-two-cameras"] = ", ".join(map(_seconds, times))
    made["second-releases"] = str(certificate.releases_touched(1.0))
    return made


def _profiles(own: str, certificates: Mapping[str, Certificate]) -> str:
    head = ["profile", "S per event", "bits per event, at most", "name one of 10, at most"]
    rows = [[*head, *(f"of {gallery:,}" for gallery in GALLERIES[1:])]]
    for name, certificate in certificates.items():
        event = certificate.reveals(certificate.event_releases)
        chances = [round_up(event["name_one_of"][str(gallery)]) for gallery in GALLERIES]
        title = f"`{name}` (default)" if name == own else f"`{name}`"
        rows.append([title, round_up(event["S"]), round_up(event["bits"]), *chances])
    return _table(rows)


def _time(certificates: Mapping[str, Certificate]) -> str:
    rows = [["profile", "to name one of", *(f"bound passes {level:g}" for level in PASSED)]]
    for name, certificate in certificates.items():
        for gallery in GALLERIES:
            times = [certificate.time_in_view_s(gallery, level) for level in PASSED]
            rows.append([f"`{name}`", f"{gallery:,}", *map(_seconds, times)])
    return _table(rows)


def _naming(certificate: Certificate) -> str:
    rows = [["to name one of", "from one release, at most", "from an event, at most", f"bound passes {_MOST:g}"]]
    counts = (1, certificate.event_releases)
    named = [certificate.reveals(count)["name_one_of"] for count in counts]
    for gallery in GALLERIES:
        cells = [round_up(chances[str(gallery)]) for chances in named]
        rows.append([f"{gallery:,}", *cells, _seconds(certificate.time_in_view_s(gallery, _MOST))])
    return _table(rows)


def _seconds(seconds: float) -> str:
    """Return a time in view, rounded down: a bound must not be said to hold for longer than it does."""
    whole = math.floor(seconds + 1e-9)
    return f"after {whole} s" if whole else "at once"


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def fill(text: str, made: Mapping[str, str], name: str) -> str:
    """Return a document with every block filled.

    Args:
        text: the document.
        made: from `blocks`.
        name: of the document, for errors.

    Raises:
        DataError: a block's name is unknown, or its end is missing.
    """

    def filled(found: re.Match[str]) -> str:
        start, block, _, end = found.groups()
        if block not in made:
            raise DataError(f"{name}: block 'bounds:{block}' is unknown; expected one of {', '.join(made)}")
        if "\n" in made[block]:
            return f"{start}\n{made[block]}\n{end}"
        if not text[: found.start()].rpartition("\n")[2].strip():
            raise DataError(f"{name}: bounds:{block} starts a line, which ends the paragraph; put a word before it")
        return f"{start}{made[block]}{end}"

    blocks_found = _BLOCK.findall(text)
    if len(_MARKER.findall(text)) != 2 * len(blocks_found):
        raise DataError(f"{name}: write each block as <!-- bounds:NAME --> ... <!-- /bounds -->, none inside another")
    return _BLOCK.sub(filled, text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m calibration.bounds", description="Print the certificate's bounds as Markdown, rounded up."
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--engine", type=Path, metavar="DIR", help="bounds of this engine")
    source.add_argument("--checkpoint", type=Path, default=Path("checkpoints/nano"), metavar="DIR")
    parser.add_argument("--write", nargs="+", type=Path, default=(), metavar="FILE", help="fill the blocks of these")
    args = parser.parse_args(argv)
    try:
        made = blocks(*(of_engine(args.engine) if args.engine else of_checkpoint(args.checkpoint)))
        for file in args.write:
            _rewrite(file, made)
    except VeilsightError as error:
        print(f"calibration.bounds: {error}", file=sys.stderr)
        return 1
    print("\n\n".join(made[name] for name in _TABLES))
    return 0


def _rewrite(file: Path, made: Mapping[str, str]) -> None:
    try:
        text = file.read_text(encoding="utf-8")
        changed = fill(text, made, str(file))
        if changed != text:
            write_whole(file, changed)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read and written ({error}); give a text file") from error


if __name__ == "__main__":
    sys.exit(main())
