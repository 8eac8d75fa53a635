"""The audit as one page for people: HTML and drawings in one file that loads nothing from elsewhere.

    audit.json --write_page--> what is promised, in words -> the certificate over S and over time
                               -> each attack beside chance, limit and certificate -> pictures -> every row

    python -m calibration.audit.report audit.json audit.html

It shows pictures of rendered people only, since only those are in the JSON. It computes certificates and nothing else.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from calibration.audit.attacks.registry import ATTACKS, attack_of
from calibration.audit.drawing import Axis, Curve, Dot, chart, rows_chart
from calibration.audit.findings import bound, number, shown, why
from calibration.audit.statement import AT_ANY_S, STATUS, head, layers, promise, signature
from calibration.audit.style import STYLE
from wire.errors import DataError, VeilsightError
from wire.files import write_whole
from wire.privacy.certificate import Certificate, guess_bound

__all__ = ["main", "page", "write_page"]

_COLOURS = ("#0b5d7a", "#b4541a", "#4a7a2c", "#7b3f8c", "#555555")


def write_page(found: Mapping[str, Any], path: Path) -> None:
    """Write the page of an audit's JSON document.

    Raises:
        DataError: the file cannot be written, or the document is not an audit's.
    """
    try:
        write_whole(path, page(found))
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); give another path") from error


def page(found: Mapping[str, Any]) -> str:
    """Return the whole page.

    Raises:
        DataError: the document is not an audit's.
        ConfigError: a row belongs to an unknown attack.
    """
    try:
        parts = [
            head(found),
            promise(found),
            layers(found),
            _over_s(found),
            _over_time(found),
            *_attacks(found),
            _pictures(found),
            _all_rows(found),
            signature(found),
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"not the document of calibration.audit ({error!r}); run the audit again") from error
    title = "<title>Veilsight: privacy audit</title>"
    return f'<!doctype html><html lang="en"><meta charset="utf-8">{title}<style>{STYLE}</style>' + "\n".join(parts)


# --- certificate ------------------------------------------------------------------------------------------------------

_GUESSES = ((0.5, "yes or no, half have it"), (1 / 10, "1 of 10"), (1e-3, "1 of 1,000"), (1e-5, "1 of 100,000"))


def _over_s(found: Mapping[str, Any]) -> str:
    own = found["engine"]["S_event"]
    shifts = [index * 0.1 for index in range(51)]
    curves = [
        Curve(name, [(s, guess_bound(s, prior)) for s in shifts], colour)
        for (prior, name), colour in zip(_GUESSES, _COLOURS, strict=False)
    ]
    drawn = chart(
        curves,
        Axis("S of what the attacker has seen", 0, 5, (0, 1, 2, 3, 4, 5)),
        Axis("chance to be right, at most", 0, 1, (0, 0.25, 0.5, 0.75, 1)),
        marks={own: "this engine, an event"},
    )
    text = (
        "S is the largest norm of a code over the standard deviation of its noise. All chances follow from this one "
        "number; over several releases its square adds."
    )
    return f'<section class="keep"><h2>The certificate over S</h2><p>{text}</p>{drawn}</section>'


def _over_time(found: Mapping[str, Any]) -> str:
    given = found["certificate"]["inputs"]
    certificate = Certificate(
        clip_norm=given["clip_norm"],
        sigma=Fraction(given["sigma"]),
        n=given["n"],
        slot_s=given["slot_s"],
        receptive_field_s=given["receptive_field_s"],
        event_releases=given["event_releases"],
        lifetime_years=given["lifetime_years"],
    )
    seconds = [10 ** (index / 10) for index in range(50)]
    curves = []
    for (prior, name), colour in zip(_GUESSES, _COLOURS, strict=False):
        bounds = [guess_bound(certificate.shift(certificate.releases_touched(s)), prior) for s in seconds]
        curves.append(Curve(name, [(math.log10(s), p) for s, p in zip(seconds, bounds, strict=True)], colour))
    ticks = {
        0.0: "1 s",
        1.0: "10 s",
        math.log10(60): "1 min",
        math.log10(300): "5 min",
        math.log10(3600): "1 h",
        math.log10(86400): "1 day",
    }
    drawn = chart(
        curves,
        Axis("seconds in view", 0, math.log10(86400), tuple(ticks), labels=ticks),
        Axis("chance to be right, at most", 0, 1, (0, 0.25, 0.5, 0.75, 1)),
        marks={},
    )
    return (
        '<section class="keep"><h2>The certificate over time</h2><p>For one person in view without a break, every '
        f"release that their picture can touch counted ({certificate.receptive_field_s:g} s of receptive field "
        "included).</p>"
        f"{drawn}</section>"
    )


# --- attacks ----------------------------------------------------------------------------------------------------------


def _attacks(found: Mapping[str, Any]) -> Iterator[str]:
    for name in {row["attack"] for row in found["attacks"]}:
        attack_of(name)  # a row of an unknown attack is an error, not left out
    for attack in ATTACKS.values():
        rows = [row for row in found["attacks"] if row["attack"] == attack.name]
        if not rows:
            continue
        shown = [row for row in rows if None not in (row["value"], *row["ci"])]  # what is no number is in the table
        drawn = list((_lines(shown) if attack.name == "averaging" else _dots(shown, attack.name)) if shown else ())
        intro = f"<h2>{escape(attack.title)}</h2><p>{escape(attack.text)}</p>{_reasons(rows)}"
        yield f"<section>{_kept(intro, drawn)}{_controls(rows)}</section>"


def _kept(intro: str, charts: Sequence[str]) -> str:
    """Return a heading with its charts; in print the heading stays with the first, and no chart is cut."""
    first, *others = charts or [""]
    more = "".join(f'<div class="keep">{drawn}</div>' for drawn in others)
    return f'<div class="keep">{intro}{first}</div>{more}'


def _reasons(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what does not hold, and why: one line for all rows with the same reason."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if reason := why(row):
            found.setdefault(reason, []).append(f"{row['name']}, S = {row['S_event']:g}")
    lines = (f"<li>{escape('; '.join(names))}: {escape(reason)}.</li>" for reason, names in found.items())
    return f'<ul class="why">{"".join(lines)}</ul>' if found else ""


def _dots(rows: Sequence[Mapping[str, Any]], attack: str) -> Iterator[str]:
    """Yield a chart for each kind of metric: value and interval, with chance, limit and certificate."""
    relative = attack in ("mechanism", "norm")

    def metric(row: Mapping[str, Any]) -> str:
        return "share of the claim" if relative else str(row["metric"]).partition(",")[0]

    for kind, group in groupby(sorted(rows, key=lambda row: (metric(row), row["name"], row["S_event"])), key=metric):
        lines = []
        for row in group:
            unit = row["certificate"] if relative else 1.0
            numbers = {key: row[key] / unit for key in ("value", "chance", "certificate", "limit")}
            low, high = (end / unit for end in row["ci"])
            label = row["name"] if attack in AT_ANY_S else f"{row['name']}, S = {row['S_event']:g}"
            lines.append(
                Dot(
                    label,
                    numbers["value"],
                    low,
                    high,
                    numbers["chance"],
                    numbers["limit"],
                    numbers["certificate"],
                    *STATUS[shown(row)],
                )
            )
        yield rows_chart(lines, kind, 1.2 if relative else 1.0)


def _lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield charts of the value over the number of releases, a curve for each S, with chance and limit."""

    def who(row: Mapping[str, Any]) -> str:
        subject, _, how = str(row["name"]).partition(", mean of ")
        return f"{subject}, {how.rpartition(', ')[2]}"

    for name, group in groupby(sorted(rows, key=lambda row: (who(row), row["S_event"], row["releases"])), key=who):
        mine = list(group)
        levels = [(shift, list(found)) for shift, found in groupby(mine, key=lambda row: row["S_event"])]
        curves = [
            Curve(f"S = {shift:g}", [(math.log10(row["releases"]), row["value"]) for row in found], colour)
            for (shift, found), colour in zip(levels, _COLOURS * 3, strict=False)
        ]
        top = max(0.25, *(row["value"] for row in mine), mine[0]["limit"] * 1.2)
        top = math.ceil(top * 10) / 10
        ticks = {math.log10(row["releases"]): f"{row['releases']:,}" for row in mine}
        yield f"<h3>{escape(name)}</h3>" + chart(
            curves,
            Axis("releases averaged", 0, max(ticks), tuple(ticks), labels=ticks),
            Axis("named right", 0, top, tuple(round(top * k / 5, 3) for k in range(6))),
            marks={},
            levels={mine[0]["chance"]: "chance", mine[0]["limit"]: "limit"},
        )


def _controls(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what the same attacks reached where there is something to find, a line for each kind of control."""
    parts = []
    for what in sorted({str(row["control"]["what"]) for row in rows}):
        mine = [row["control"] for row in rows if row["control"]["what"] == what]
        values = [control["value"] for control in mine if control["value"] is not None]
        failed = sum(not control["succeeded"] for control in mine)
        span = f"{min(values):.3g} to {max(values):.3g}" if values else "no number"
        said = f"{failed} of {len(mine)} failed" if failed else "all succeeded"
        parts.append(f"{escape(what)}: {span}, {mine[0]['needed']:g} is needed; {said}.")
    return f'<p class="note">Control, the same attack where there is something to find. {"<br>".join(parts)}</p>'


# --- pictures and rows ------------------------------------------------------------------------------------------------


def _pictures(found: Mapping[str, Any]) -> str:
    if not found["pictures"]:
        return ""
    parts = []
    for view, rows in found["pictures"].items():
        lines = "".join(
            f"<tr><th>{escape(row['title'])}</th>"
            + "".join(f'<td><img alt="" src="data:image/png;base64,{picture}"></td>' for picture in row["png"])
            + "</tr>"
            for row in rows
        )
        reads = "a release" if view == "release" else "an event"
        parts.append(f'<h3>From {reads}</h3><table class="pictures">{lines}</table>')
    intro = (
        "<h2>Reconstructions</h2><p>Rendered people in rendered rooms, from clips that the attacker did not "
        "enrol. Compare what is decoded with the prior alone, which was fed no release at all, and with the control, a "
        "code that was made to hold the picture.</p>"
    )
    return f"<section>{_kept(intro, parts)}</section>"


_COLUMNS = (
    "status",
    "attack",
    "S per event",
    "releases",
    "metric",
    "value",
    "interval",
    "chance",
    "certificate",
    "limit",
    "control (needed)",
)


def _all_rows(found: Mapping[str, Any]) -> str:
    columns = "".join(f"<th>{name}" for name in _COLUMNS)
    lines = []
    for row in found["attacks"]:
        colour, _ = STATUS[shown(row)]
        low, high = (number(end) for end in row["ci"])
        control = row["control"]
        lines.append(
            f'<tr><td style="color:{colour}">{escape(shown(row))}<td>{escape(row["name"])}<td>{row["S_event"]:g}'
            f"<td>{row['releases']}<td>{escape(row['metric'])}<td>{number(row['value'])}<td>{low} .. {high}"
            f"<td>{number(row['chance'])}<td>{bound(row['certificate'])}<td>{number(row['limit'])}"
            f"<td>{number(control['value'])} ({control['needed']:g})</tr>"
        )
    rules = (
        "The promise is <b>broken</b> where an attack's whole interval lies beyond the certificate; <b>not "
        "testable</b> where the certificate allows 0.99 or more, or does not cover it; the attack <b>failed its "
        "control</b> where it could not find what was put there for it; else the promise <b>holds</b>. <b>Beyond our "
        "own limit</b> is where a row that holds, or is not testable, lies beyond the stricter limit that we set "
        "beforehand. "
        "Intervals: 95 %, whole clips or people drawn anew; Clopper and Pearson's for planted codes; 99 % for S."
    )
    return (
        f'<section class="rows"><h2>Every attack</h2><p>{rules}</p>'
        f'<input type="checkbox" id="all"><label for="all">show all {len(lines)} rows</label>'
        f"<table><thead><tr>{columns}</tr></thead><tbody>{''.join(lines)}</tbody></table></section>"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m calibration.audit.report", description="An audit's JSON as a page."
    )
    parser.add_argument("json", type=Path)
    parser.add_argument("html", type=Path)
    args = parser.parse_args(argv)
    try:
        try:
            found = json.loads(args.json.read_text())
        except (OSError, ValueError) as error:
            raise DataError(f"{args.json}: not readable as an audit ({error}); run calibration.audit --json") from error
        write_page(found, args.html)
    except VeilsightError as error:
        print(f"calibration.audit.report: {error}", file=sys.stderr)
        return 1
    print(f"written: {args.html}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
