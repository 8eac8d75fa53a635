"""What the demo says at its end: one document for `--json`, and the same for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.demo_source import Played
from benchmarks.harness import Rig
from benchmarks.listener import Heard, Record
from benchmarks.runner import percentiles
from wire.privacy.certificate import round_up
from wire.protocol.message import Verdict

__all__ = ["clip_label", "show", "summarise"]

_EDGE_TOPICS = ("features", "verdict/edge", "state", "certificate")


def clip_label(verdicts: Sequence[Verdict], labels: Sequence[str], decision_threshold: float) -> str:
    """The one label of a clip: `familial.evaluate.clip_inference.clip_verdict` on the events as they were published.

    Args:
        verdicts: one member's, in slot order. Only whole events count; in a clip shorter than an event, the last one.
        labels: of the family; the first one means no risk.
        decision_threshold: probability of a risk from which a clip is called one.
    """
    from familial.evaluate.clip_inference import clip_verdict  # it loads torch, which nothing else here does

    whole = [v for v in verdicts if v.last_slot - v.first_slot + 1 >= len(v.present)] or list(verdicts[-1:])
    if not whole:
        return labels[0]
    rows = np.array([[v.probabilities[label] for label in labels] for v in whole])
    return labels[clip_verdict(rows, decision_threshold)[0]]


def summarise(
    rig: Rig, records: Sequence[Record], heard: Heard, played: Played, errors: Sequence[str]
) -> dict[str, Any]:
    """The document that `--json` writes."""
    sizes = _published(records)
    windows = len(heard.features)
    publish, verdict = _latencies(rig, heard, played.speed)
    document: dict[str, Any] = {
        "source": played.source,
        "windows": windows,
        "duration_s": round(windows * rig.manifest.window.slot_s, 3),
        **_verdicts(rig, heard),
        "alerts": [{"at_s": a.at_s, "label": a.label, "raised": a.raised} for _, a in heard.alerts],
        "published_bytes": sum(sizes.values()),
        "bytes_by_topic": sizes,
        "bytes_per_window": sizes["features"] / windows if windows else 0,
        **_certified(rig, windows),
        "latency_ms": publish,
        "cloud_latency_ms": verdict,
        "speed": played.speed,
        "errors": [*errors],
    }
    if played.fall_onset_s is not None:
        document["fall_onset_s"] = played.fall_onset_s
    return document


def _verdicts(rig: Rig, heard: Heard) -> dict[str, Any]:
    """Every verdict, the clip's one label, and the end of the first event that is called a fall."""
    cloud = [verdict for _, verdict in heard.of("cloud")]
    ordered = sorted(heard.verdicts, key=lambda pair: (pair[1].end_s, pair[1].member == "cloud"))
    falls = {m: next((v.end_s for _, v in heard.of(m) if v.label == "fall"), None) for m in ("edge", "cloud")}
    return {
        "verdicts": [
            {
                "start_s": v.start_s,
                "end_s": v.end_s,
                "label": v.label,
                "probability": round(v.probability, 4),
                "member": v.member,
                "sentence": v.sentence,
            }
            for _, v in ordered
        ],
        "clip_label": clip_label(cloud, rig.manifest.labels, _decision_threshold(rig)),
        "first_fall_end_s": min((end for end in falls.values() if end is not None), default=None),
        "first_fall_end_s_by_member": falls,
    }


def _certified(rig: Rig, windows: int) -> dict[str, Any]:
    """What the certificate bounds for an event and for the whole clip, as it is written there: rounded up."""
    certificate = rig.manifest.certificate()
    document = certificate.document()
    event = document["event"]
    return {
        "certified_bits_per_event": event["bits"],
        "certified_bits_in_all": certificate.reveals(max(1, windows))["bits"],
        "S_event": event["S"],
        "name_one_of_1000": event["name_one_of"]["1000"],
        **{name: document[name] for name in ("layers", "watching", "not_proved")},
        "time_in_view_s": document["time_in_view_s"]["1"],  # one camera
    }


def _published(records: Sequence[Record]) -> dict[str, int]:
    """Payload bytes by topic of what the edge has published."""
    sizes = dict.fromkeys(_EDGE_TOPICS, 0)
    for record in records:
        name = record.topic.split("/", 4)[-1]
        if name in sizes:
            sizes[name] += len(record.payload)
    return sizes


def _latencies(rig: Rig, heard: Heard, speed: float) -> tuple[dict[str, float], dict[str, float]]:
    """Milliseconds from a slot's end to its features, by the device's own clock, and to the cloud's verdict as heard.

    The listener's clock is set by the device's: half of the features are heard within the device's own p50.
    """
    loop = rig.summary().get("loop", {})
    if not heard.features or not loop:
        return {}, {}
    publish = {name: float(loop[f"latency_ms_{name}"]) for name in ("p50", "p99")}
    slot_s = rig.manifest.window.slot_s / speed
    heard_at = float(np.median([at - (message.slot + 1) * slot_s for at, message in heard.features]))
    began = heard_at - publish["p50"] / 1e3
    last = max(message.slot for _, message in heard.features)
    verdict = [1e3 * (at - began - (v.last_slot + 1) * slot_s) for at, v in heard.of("cloud") if v.last_slot <= last]
    return publish, percentiles(verdict)


def _decision_threshold(rig: Rig) -> float:
    from familial.model.config import FamilyConfig

    return float(FamilyConfig.load(rig.checkpoint / "config.json").decision_threshold)


def show(document: Mapping[str, Any], n: int) -> None:
    """Print the summary for people. n: integers of a release."""
    sizes, windows = document["bytes_by_topic"], document["windows"]
    lines = [("clip", f"{document['clip_label']}  ({windows} windows, {document['duration_s']:g} s)")]
    if document.get("fall_onset_s") is not None:
        lines.append(("fall", f"onset at {document['fall_onset_s']:.1f} s, {_first_fall(document)}"))
    by_topic = ", ".join(f"{size} {topic}" for topic, size in sizes.items())
    lines += [
        ("left the box", f"{document['published_bytes']} bytes: {by_topic}"),
        ("a window", f"{document['bytes_per_window']:g} bytes: {n} noised integers, signed"),
        *_bounds(document),
        ("beside it", "whether the eye watches, said at most once an hour: a bit from a hostile eye, none from ours"),
        ("who guarantees", "release, event, hour, day: the gate alone; a moment: also that the eye forgets"),
        *zip(["not proved", *[""] * 99], document["not_proved"], strict=False),
    ]
    for name, key in (("to the features", "latency_ms"), ("to the verdict", "cloud_latency_ms")):
        if document[key]:
            p50, p99 = document[key]["p50"], document[key]["p99"]
            lines.append((name, f"{p50:.1f} ms after the slot's end (p50), {p99:.1f} ms (p99)"))
    lines += [("errors", str(len(document["errors"])))]
    print()
    for name, text in lines:
        print(f"{name:18} {text}")
    for error in document["errors"]:
        print(f"  {error}")


def _first_fall(document: Mapping[str, Any]) -> str:
    first = document["first_fall_end_s"]
    if first is None:
        return "never named"
    return f"first verdict that says so ends {first - document['fall_onset_s']:+.1f} s"


def _bounds(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is certified, in words; every bound is rounded up."""
    names = ("certified_bits_per_event", "S_event", "name_one_of_1000", "certified_bits_in_all")
    bits, shift, p, in_all = (round_up(document[name]) for name in names)
    seconds, windows = document["time_in_view_s"]["1000"]["0.99"], document["windows"]
    return [
        ("an event reveals", f"at most {bits} bits (S = {shift}); one of 1,000 people is named with p <= {p}"),
        ("", f"for {seconds:g} s in view naming one of 1,000 stays at p <= 0.99, no longer"),
        ("the clip reveals", f"at most {in_all} bits, all {windows} windows together"),
    ]
