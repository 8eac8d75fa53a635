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
from calibration.audit.findings import beyond_certificate, bound, number, why
from wire.errors import DataError, VeilsightError
from wire.files import write_whole
from wire.privacy.certificate import Certificate, guess_bound, round_up

__all__ = ["main", "page", "write_page"]

_COLOURS = ("#0b5d7a", "#b4541a", "#4a7a2c", "#7b3f8c", "#555555")
_STATUS = {
    "holds": ("#1f7a4d", "holds"),
    "broken": ("#b3261e", "broken"),
    "not testable": ("#6b6b6b", "not testable: at this S the certificate itself allows 99 % or more"),
    "attack failed its control": ("#a86400", "attack failed its control: it says nothing"),
}


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
            _head(found),
            _promise(found),
            _over_s(found),
            _over_time(found),
            *_attacks(found),
            _pictures(found),
            _all_rows(found),
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"not the document of calibration.audit ({error!r}); run the audit again") from error
    title = "<title>Veilsight: privacy audit</title>"
    return f'<!doctype html><html lang="en"><meta charset="utf-8">{title}<style>{_STYLE}</style>' + "\n".join(parts)


# --- words ------------------------------------------------------------------------------------------------------------


def _head(found: Mapping[str, Any]) -> str:
    rows, engine = found["attacks"], found["engine"]
    counts = {status: sum(row["status"] == status for row in rows) for status in _STATUS}
    said = "".join(
        f'<li><b style="color:{_STATUS[status][0]}">{count}</b> {escape(_STATUS[status][1])}</li>'
        for status, count in counts.items()
        if count
    )
    verdict = ("passed", "#1f7a4d") if found["passed"] else ("not passed", "#b3261e")
    if not found["complete"]:
        verdict = (f"{verdict[0]}, incomplete", verdict[1])
    skipped = "".join(f"<li>{escape(part['name'])}: {escape(part['why'])}</li>" for part in found["skipped"])
    left = f"<p>Not done, so nothing is said about it:</p><ul>{skipped}</ul>" if skipped else ""
    beyond = found["beyond_limit_where_not_testable"]
    more = "<p>Where the certificate excludes nothing, an attack can be compared with its preset limit alone. Beyond "
    more = f"{more}it went: {escape('; '.join(beyond))}.</p>" if beyond else ""
    return (
        f'<header><h1>Privacy audit: <span style="color:{verdict[1]}">{verdict[0]}</span></h1>'
        f"<p>Engine {escape(engine['model'])} ({escape(engine['family'])}, {escape(engine['precision'])}, profile "
        f"{escape(engine['profile'])}, S = {engine['S_event']:g} per event); "
        f"the {escape(found['plan']['name'])} audit, {len(rows)} attacks.</p><p>{_meaning(found)}</p>"
        f"<ul>{said}</ul>{left}{more}</header>"
    )


def _meaning(found: Mapping[str, Any]) -> str:
    """Return the outcome in a sentence or two, for readers who stop here."""
    rows = found["attacks"]
    if any(map(beyond_certificate, rows)):
        return "An attack went beyond what is certified: the promise below does not hold of this engine. Stop using it."
    if any(row["status"] == "broken" for row in rows):
        return (
            "No attack went beyond what is certified, so the promise below holds. But at least one went beyond the "
            "stricter limit that we set ourselves beforehand: this network reveals more than it should."
        )
    if not found["passed"]:
        return "No attack went beyond its limit, but some would not find what is there: the audit proves nothing."
    return (
        "No attack went beyond what is certified, nor beyond the stricter limit that we set ourselves beforehand, and "
        "each found what was planted for it. A better attack may exist; the promise below holds against that one, too."
    )


def _promise(found: Mapping[str, Any]) -> str:
    document = found["certificate"]
    times = document["time_to_vacuous_s"]["1"]  # one camera
    gone = ", ".join(f"1 in {int(m):,} after {_span(seconds)}" for m, seconds in times.items())
    unproved = "".join(f"<li>{escape(text)}</li>" for text in document["not_proved"])
    named = {name: round_up(document[name]["name_one_of"]["1000"]) for name in ("release", "event")}
    bits = {name: round_up(document[name]["bits"]) for name in ("release", "event")}
    return f"""<section><h2>What is promised</h2>
<p>Whatever the network does, and whoever looks: one release ({document["inputs"]["slot_s"]:g} s) reveals at most
{bits["release"]} bits about the scene, one event ({document["event"]["releases"]} releases) at most
{bits["event"]} bits. From an event, one of 1,000 equally likely people is named with a chance of at most
{named["event"]}; from a release, of at most {named["release"]}.</p>
<p>The promise ends. For somebody who stays in view, no bound is left on naming {gone}.</p>
<p>It assumes that {escape(document["assumes"])}. The sampler's distance from ideal noise, at most
2<sup>{math.ceil(document["log2_tau"])}</sup> over the device's life, is in these chances.
Not proved:</p><ul>{unproved}</ul></section>"""


def _span(seconds: float) -> str:
    """Return a time in view in words, rounded down: no bound may be said to hold for longer than it does."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{math.floor(seconds / size)} {unit}"
    return "one glance" if seconds < 1 else f"{math.floor(seconds)} seconds"


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
    return f"<section><h2>The certificate over S</h2><p>{text}</p>{drawn}</section>"


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
        f"<section><h2>The certificate over time</h2><p>For one person in view without a break, every release "
        f"that their picture can touch counted ({certificate.receptive_field_s:g} s of receptive field included).</p>"
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
        drawn = "".join((_lines(shown) if attack.name == "averaging" else _dots(shown, attack.name)) if shown else ())
        content = f"<p>{escape(attack.text)}</p>{_reasons(rows)}{drawn}{_controls(rows)}"
        yield f"<section><h2>{escape(attack.title)}</h2>{content}</section>"


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
            label = row["name"] if attack == "norm" else f"{row['name']}, S = {row['S_event']:g}"
            lines.append(
                Dot(
                    label,
                    numbers["value"],
                    low,
                    high,
                    numbers["chance"],
                    numbers["limit"],
                    numbers["certificate"],
                    *_STATUS[row["status"]],
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
    return (
        "<section><h2>Reconstructions</h2><p>Rendered people in rendered rooms, from clips that the attacker did not "
        "enrol. Compare what is decoded with the prior alone, which was fed no release at all, and with the control, a "
        f"code that was made to hold the picture.</p>{''.join(parts)}</section>"
    )


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
    head = "".join(f"<th>{name}" for name in _COLUMNS)
    lines = []
    for row in found["attacks"]:
        colour, _ = _STATUS[row["status"]]
        low, high = (number(end) for end in row["ci"])
        control = row["control"]
        lines.append(
            f'<tr><td style="color:{colour}">{escape(row["status"])}<td>{escape(row["name"])}<td>{row["S_event"]:g}'
            f"<td>{row['releases']}<td>{escape(row['metric'])}<td>{number(row['value'])}<td>{low} .. {high}"
            f"<td>{number(row['chance'])}<td>{bound(row['certificate'])}<td>{number(row['limit'])}"
            f"<td>{number(control['value'])} ({control['needed']:g})</tr>"
        )
    rules = (
        "An attack is <b>broken</b> where its value lies beyond the preset limit, or its whole interval beyond the "
        "certificate; <b>not testable</b> where the certificate allows 0.99 or more; it <b>failed its control</b> "
        "where the same attack could not find what was put there for it; else the promise <b>holds</b> against it. "
        "Intervals: 95 %, whole clips or people drawn anew; Clopper and Pearson's for planted codes; 99 % for S."
    )
    return (
        f"<section><h2>Every attack</h2><p>{rules}</p><details><summary>{len(lines)} rows</summary>"
        f"<table><tr>{head}</tr>{''.join(lines)}</table></details></section>"
    )


_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#1d2327;max-width:62rem;margin:2rem auto;padding:0 1rem;background:#fff}
h1{font-size:1.8rem;margin:.2rem 0}h2{font-size:1.3rem;margin:2.2rem 0 .3rem}h3{font-size:1rem;margin:1rem 0 .2rem}
svg{width:100%;height:auto;display:block}
table{border-collapse:collapse;font-size:.8rem}td,th{padding:.15rem .5rem;text-align:left;vertical-align:top}
tr:nth-child(even) td{background:#f5f6f7}.pictures td,.pictures th{padding:.1rem .15rem;vertical-align:middle}
.pictures th{font-weight:400;max-width:11rem}
.pictures img{width:72px;height:72px;image-rendering:pixelated;display:block}
.note{font-size:.9rem;color:#444}summary{cursor:pointer}.why{color:#b3261e;font-size:.9rem}
"""


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
