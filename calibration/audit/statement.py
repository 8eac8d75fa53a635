"""The audit's words, for those who read no table: outcome, what could be tested, the promise, who signs.

    audit.json --verdict--> green, amber or red, in a sentence
               --head, promise, layers, signature--> HTML sections of the page (`calibration.audit.report`)

Amber is an outcome of its own: the promise holds, and yet an attack went beyond the limit that we set ourselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

from calibration.audit.findings import BEYOND, bound, number, shown
from wire.privacy.certificate import round_up

__all__ = ["AT_ANY_S", "STATUS", "Verdict", "head", "layers", "promise", "signature", "could_be_tested", "verdict"]

_GREEN, _AMBER, _RED = "#1f7a4d", "#a86400", "#b3261e"
STATUS = {
    "holds": (_GREEN, "holds"),
    "broken": (_RED, "broken: beyond the certificate"),
    BEYOND: (_AMBER, "beyond our own limit; nothing was found beyond the certificate"),
    "not testable": ("#6b6b6b", "not testable: the certificate allows 99 % or more, or does not cover this"),
    "attack failed its control": (_RED, "attack failed its control: it says nothing"),
}
"""What is shown of a row (`findings.shown`) -> its colour and its words."""


AT_ANY_S = ("norm", "side channels")
"""Attacks that are not about z."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome: a colour, a few words for the headline, and what it means."""

    colour: str
    words: str
    meaning: str


def verdict(found: Mapping[str, Any]) -> Verdict:
    """Return the outcome of an audit's document."""
    outcome = _outcome(found)
    return outcome if found["complete"] else replace(outcome, words=f"{outcome.words}, incomplete")


def _outcome(found: Mapping[str, Any]) -> Verdict:
    beyond = found["beyond_own_limit"]
    if any(row["status"] == "broken" for row in found["attacks"]):
        return Verdict(
            _RED,
            "not passed",
            "An attack went beyond what is certified: the promise below does not hold of this engine. Stop using it.",
        )
    if not found["passed"]:
        return Verdict(
            _RED,
            "not passed",
            "No attack went beyond what is certified, but some would not find what is there: the audit proves nothing.",
        )
    if beyond:
        count = "one attack" if beyond == 1 else f"{beyond} attacks"
        return Verdict(
            _AMBER,
            f"passed, but {count} went beyond our own limit",
            f"No attack went beyond what is certified, so the promise below holds. But {count} went beyond the "
            "stricter limit that we set ourselves beforehand: this device reveals more than we want. They are named "
            "below, and nothing is proved against them but the certificate.",
        )
    return Verdict(
        _GREEN,
        "passed",
        "No attack went beyond what is certified, nor beyond the stricter limit that we set ourselves beforehand, and "
        "each found what was planted for it. A better attack may exist; the promise below holds against that one, too.",
    )


def could_be_tested(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return in a sentence at which S how many attacks could be tested against the certificate at all."""
    parts, held = [], [row for row in rows if row["attack"] not in AT_ANY_S]
    for level in sorted({row["S_event"] for row in held}):
        mine = [row for row in held if row["S_event"] == level]
        could = sum(row["status"] != "not testable" for row in mine)
        parts.append(f"at S = {level:g}, {'all' if could == len(mine) else f'{could} of'} {len(mine)} attacks")
    said = "; ".join(parts)
    return f"What could be held against the certificate at all: {said}." if parts else "Nothing was tested."


# --- sections of the page ---------------------------------------------------------------------------------------------


def head(found: Mapping[str, Any]) -> str:
    """Return the headline, the first sentence, the outcome, and where the numbers come from."""
    rows, engine, outcome = found["attacks"], found["engine"], verdict(found)
    counts = {status: sum(shown(row) == status for row in rows) for status in STATUS}
    said = "".join(
        f'<li><b style="color:{STATUS[status][0]}">{count}</b> {escape(STATUS[status][1])}</li>'
        for status, count in counts.items()
        if count
    )
    more = "".join(
        f"<p>{words}:</p>{_list([_beyond(row) for row in rows if shown(row) == which])}"
        for words, which in (("Beyond the certificate", "broken"), ("Beyond our own limit", BEYOND))
        if any(shown(row) == which for row in rows)
    )
    skipped = [f"{part['name']}: {part['why']}" for part in found["skipped"]]
    left = "<p>Not done, so nothing is said about it:</p>" + _list(skipped) if skipped else ""
    return (
        f'<header style="border-color:{outcome.colour}"><h1>Privacy audit: '
        f'<span style="color:{outcome.colour}">{escape(outcome.words)}</span></h1>'
        f"<p><b>{escape(could_be_tested(rows))}</b></p><p>{escape(outcome.meaning)}</p><ul>{said}</ul>{more}{left}"
        f"<p>Engine {escape(engine['model'])} ({escape(engine['family'])}, {escape(engine['precision'])}, profile "
        f"{escape(engine['profile'])}, S = {round_up(engine['S_event'])} per event); "
        f"the {escape(found['plan']['name'])} audit, {len(rows)} attacks in {found['minutes']:g} minutes.</p>"
        f"{_origin(found['origin'])}</header>"
    )


def _beyond(row: Mapping[str, Any]) -> str:
    certified = "not testable" if row["status"] == "not testable" else f"certified {bound(row['certificate'])}"
    found = f"{number(row['value'])} (our limit {number(row['limit'])}, {certified})"
    return f"{row['name']}, S = {row['S_event']:g}: {found}"


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _origin(origin: Mapping[str, Any]) -> str:
    """Return date, versions and data lists with their hashes, as a small table."""
    versions = ", ".join(f"{name} {number}" for name, number in origin["versions"].items())
    lines = [("made", escape(origin["date"])), ("with", escape(versions))]
    for part in origin["data"]:
        of_list = f"; of the list <code>{escape(part['sha256_list'])}</code>" if "sha256_list" in part else ""
        count = "1 file" if part["files"] == 1 else f"{part['files']} files"
        files = f"{escape(part['list'])}, {count}, SHA-256 <code>{escape(part['sha256'])}</code>"
        lines.append(("on", files + of_list))
    cells = "".join(f"<tr><th>{name}</th><td>{words}</td></tr>" for name, words in lines)
    return f'<table class="origin">{cells}</table>'


def promise(found: Mapping[str, Any]) -> str:
    """Return what is promised of a release and an event, for how long it helps, and what is not proved."""
    document = found["certificate"]
    named = {name: round_up(document[name]["name_one_of"]["1000"]) for name in ("release", "event")}
    bits = {name: round_up(document[name]["bits"]) for name in ("release", "event")}
    times = document["time_in_view_s"]["1"]["1000"]  # one camera
    until = ", ".join(f"{level} {_span(seconds)}" for level, seconds in times.items())
    return f"""<section><h2>What is promised</h2>
<p>Whatever the network does, and whoever looks: one release ({document["inputs"]["slot_s"]:g} s) reveals at most
{bits["release"]} bits about the scene, one event ({document["event"]["releases"]} releases) at most
{bits["event"]} bits. From an event, one of 1,000 equally likely people is named with a chance of at most
{named["event"]}; from a release, of at most {named["release"]}.</p>
<p>The promise wears off. The bound on naming one of 1,000 people passes {until} in view of one camera. <b>Residents are
not hidden</b>: for somebody who lives or works in view, the bound allows certainty. What protects them is that the
attacks below did not find them, and that is no proof.</p>
<p>It assumes that {escape(document["assumes"])}. The sampler's distance from ideal noise, at most
2<sup>{math.ceil(document["log2_tau"])}</sup> over the device's life, is in these chances.
Not proved:</p>{_list(document["not_proved"])}</section>"""


def _span(seconds: float) -> str:
    """Return after how long in view, in words, rounded down: no bound may be said to hold for longer than it does."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"after {math.floor(seconds / size)} {unit}"
    return "at once" if seconds < 1 else f"after {math.floor(seconds)} seconds"


_SPANS = {"release": "a release", "event": "an event", "hour": "an hour", "day": "a day"}


def layers(found: Mapping[str, Any]) -> str:
    """Return the two layers of the promise, and what the field `state.watching` can cost, in words to repeat."""
    document = found["certificate"]
    gate = [_SPANS.get(name, name) for name in document["layers"]["gate"]["spans"]]
    reach = document["inputs"]["receptive_field_s"]
    touched = document["event"]["releases"]
    return f"""<section><h2>Two layers of the promise</h2>
<p><b>The gate alone.</b> A small program adds the noise, and it never sees a picture. What it promises holds even if
the camera's software is hostile, broken or replaced. It promises the numbers of {escape(", ".join(gate))}.</p>
<p><b>The gate, and an eye that forgets.</b> "Somebody was in view for ten seconds" is another kind of statement. It
counts the releases that can still show those ten seconds, and so it needs the camera's software to forget a picture
after {reach:g} s. We build it so and check it, but a hostile program could remember. It would then tell later what it
saw, still within the numbers of {escape(gate[-2])} and {escape(gate[-1])}. With software that forgets, a glance touches
as many as {touched} releases.</p>
<p><b>The sign that the camera watches</b> (<code>state.watching</code>). The device says whether it is watching, and
changes this at most once an hour. Honest software tells nothing about the scene by it. Hostile software could use it
as a signal of one bit an hour, twenty-four a day, and not more. These bits are not in the numbers above.</p>
</section>"""


_SIGNERS = ("made by", "checked by", "privacy officer")


def signature(found: Mapping[str, Any]) -> str:
    """Return the place for signatures, with what is signed."""
    blank = "".join(f"<tr><th>{who}</th><td></td><td></td><td></td></tr>" for who in _SIGNERS)
    model = escape(found["engine"]["model"])
    return (
        '<section class="keep"><h2>Signed</h2><p>Who signs has read the outcome, the two layers of the promise and '
        f"what is not proved, and knows that this page is about engine {model} and no other.</p>"
        '<table class="signed"><tr><th></th><th>name</th><th>date</th><th>signature</th></tr>'
        f"{blank}</table></section>"
    )
