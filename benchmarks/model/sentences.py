"""`python -m benchmarks.sentences`: sentences of events against the truth: which label, when, how sure; how various.

    held-out rendered clips --codes + noise--> member, narrator --> sentences, compared with the truth of each event
    real clips (--data MANIFEST.csv) -----------------------------> the same, as far as they are labelled

All events with stride 1; a sentence at an alert is that of the second verdict in a row that raises it (`AlertRule`). A
time is asked of those whose label is right, and right within 2 s; "8 seconds ago or earlier" is where it began 6 s
before the end or earlier. Beside it stands the one time that would be right most often. An event whose label is unclear
is told, and counted where sentences are counted, and not judged.

How many people there are is not said; what the attributes would say where they are sure (0.7) is judged all the same,
as it is and as if nobody, one and several were equally common.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness import add_checkpoint
from benchmarks.runner import Benchmark, Report
from wire.arguments import at_least_one, former_name

if TYPE_CHECKING:
    from cloud_bridge.inference.member import FamilyMember, Reading
    from cloud_bridge.ingest.events import Event
    from cloud_bridge.narrator import Narrator
    from familial.data.events import LabelledClip
    from familial.model.family import Family
    from familial.train.rl.reward import Truth

__all__ = ["COMMAND", "Told", "judged"]

_PEOPLE = {"nobody": ("empty",), "one": ("one", "low", "running"), "several": ("several",)}
_SURE_OF_PEOPLE = 0.7
_MOST_S = 60  # slots from which a real clip is cut, so that long ones do not count more than others


@dataclass(frozen=True, slots=True)
class Told:
    """One event and what is said of it.

    Attributes:
        clip: number of its clip.
        truth: what it shows; the label is -1 where that is unclear.
        began_s: seconds from the beginning of that label to the event's end; NaN where nobody knows.
        label: the index that is said.
        sure: in which words.
        said_s: the time that is said, in seconds; NaN where none is.
        sentence: the whole.
        words: the member's own.
        raises: an alert.
        people: what the attributes would say, 0, 1 or 2 for more; -1 where they are not sure.
    """

    clip: int
    truth: Truth
    began_s: float
    label: int
    sure: str
    said_s: float
    sentence: str
    words: str
    raises: bool
    people: int = -1


class _Teller:
    """Tells the events of clips as a bridge does."""

    def __init__(self, family: Family, sigma: float) -> None:
        from cloud_bridge.inference.member import FamilyMember
        from cloud_bridge.narrator import Narrator

        self._family, self._sigma = family, sigma
        self._member: FamilyMember = FamilyMember(family)
        self._narrator: Narrator = Narrator.of(family.config)

    def told(self, clip: LabelledClip, number: int, samples: int) -> Iterator[Told]:
        """Every event of a clip under every noise sample."""
        import torch

        from cloud_bridge.ingest.events import Event
        from familial.evaluate.clip_inference import clip_codes, events_of
        from familial.model.code_space import rounded_gaussian
        from wire.protocol.event import level_weight

        config = self._family.config
        codes = clip_codes(self._family, clip.footage)[: round(_MOST_S / config.window.slot_s)]
        for _ in range(samples):
            z = (codes + rounded_gaussian(codes, self._sigma)) * level_weight(config.sigma, self._sigma)
            cut, present = events_of(torch.round(z)[None], config.event_releases)
            arrays = zip(cut[0].int().numpy(), present.numpy(), strict=True)
            last = len(codes) - len(present)
            yield from self._of_stream(
                clip, number, [Event("", 0, at, last + at, *each) for at, each in enumerate(arrays)]
            )

    def _of_stream(self, clip: LabelledClip, number: int, events: Sequence[Event]) -> Iterator[Told]:
        from cloud_bridge.alerts.lifecycle import AlertBook
        from cloud_bridge.alerts.rules import AlertRule

        book, readings, words = AlertBook(AlertRule(), []), self._member.read(events), self._member.describe(events)
        for event, reading, said in zip(events, readings, words, strict=True):
            raises = any(change.raised for change in book.update(reading.probabilities))
            yield self._one(clip, number, event, reading, said, raises)

    def _one(self, clip: LabelledClip, number: int, event: Event, reading: Reading, words: str, raises: bool) -> Told:
        from cloud_bridge.narrator import how_sure
        from familial.data.events import event_label
        from familial.train.rl.reward import truth_of_event

        config, slot_s = self._family.config, self._family.config.window.slot_s
        slots = np.arange(event.last_slot + 1 - int(event.present.sum()), event.last_slot + 1)
        ends = (slot_s * (slots + 1)).tolist()
        true = event_label(clip, 0.0, ends, config.window.receptive_field_s)
        starts = [each.start for each in clip.annotations or () if each.label == true and each.start < ends[-1]]
        likeliest = max(reading.probabilities, key=reading.probabilities.__getitem__)
        label = config.labels.index(likeliest)
        said_s = self._narrator.began_s(event, likeliest) if label else None
        return Told(
            number,
            truth_of_event(clip, true, float(slots[0]) * slot_s, ends[-1]),
            ends[-1] - max(starts) if starts else float("nan"),
            label,
            how_sure(reading.probabilities[likeliest]),
            float("nan") if said_s is None else said_s,
            self._narrator.sentence(event, reading, words),
            words,
            raises,
            _people(reading),
        )


def _people(reading: Reading) -> int:
    """How many people an event's attributes speak for: 0, 1, 2 for more; -1 where they are not sure."""
    shares = reading.attributes
    found = [sum(shares.get(name, 0.0) for name in names) for names in _PEOPLE.values()]
    return int(np.argmax(found)) if max(found) >= _SURE_OF_PEOPLE else -1


def judged(told: Sequence[Told], event_s: float) -> dict[str, Any]:
    """Figures of sentences.

    Args:
        told: of events.
        event_s: how long an event is, the time that says "or earlier".

    Returns:
        "events" whose label is known, "label": share right; "sure": words -> how many, and the share right; "when":
        how many have a time, the share right, and that of the best constant; "different" sentences, and those without
        the member's words.
    """
    from cloud_bridge.narrator import SURE

    known = [each for each in told if each.truth.label >= 0]
    right = np.array([each.label == each.truth.label for each in known])
    sure = {
        words: _share(right[[each.sure == words for each in known]], [e.clip for e in known if e.sure == words])
        for words, _ in SURE
    }
    return {
        "events": len(known),
        "label": _share(right, [each.clip for each in known]),
        "sure": sure,
        "when": _when([each for each, hit in zip(known, right, strict=True) if hit and each.began_s >= 0.0], event_s),
        "different": len({each.sentence for each in told}),
        "different_without_words": len({each.sentence.partition(";")[0] for each in told}),
    }


def _share(hits: Any, clips: Sequence[int]) -> dict[str, Any]:
    """How many, the share of hits, and its interval over clips."""
    from familial.evaluate.intervals import macro_accuracy_interval

    if not len(hits):
        return {"n": 0}
    one = np.zeros(len(hits), np.int64)
    mean, (low, high) = macro_accuracy_interval(np.asarray(hits, np.float64), one, np.array(clips), 0)
    return {"n": len(hits), "right": mean, "low": low, "high": high}


def _when(told: Sequence[Told], event_s: float) -> dict[str, Any]:
    """How often the time of a risk is right, where its label is; "constant": of the best one."""
    from cloud_bridge.narrator import TOLERANCE_S

    timed = [each for each in told if each.said_s >= 0.0]
    began = np.array([each.began_s for each in timed])

    def near(time_s: Any) -> Any:
        return np.where(
            np.asarray(time_s) >= event_s, began >= event_s - TOLERANCE_S, np.abs(began - time_s) <= TOLERANCE_S
        )

    found = _share(near([each.said_s for each in timed]), [each.clip for each in timed])
    constants = [float(near(time_s).mean()) for time_s in (*np.arange(1.0, event_s), event_s)] if timed else []
    return {**found, "said": len(timed) / max(1, len(told)), "constant": max(constants, default=0.0)}


def _who(told: Sequence[Told], clips: Sequence[LabelledClip], family: Family) -> dict[str, float]:
    """What the member's words are right about: who is there, and the whole sentence of the clip."""
    from familial.train.rl.reward import SentenceReward

    reward, known = SentenceReward(family.vocabulary, [clip.caption for clip in clips]), [e for e in told if e.words]
    known = [each for each in known if each.truth.label >= 0]
    length = family.config.caption_words
    parts = [reward.parts(family.vocabulary.encode(each.words, length + 1), each.truth) for each in known]
    return {
        "label": float(np.mean([part["label"] for part in parts])),
        "who": float(np.mean([part["attributes"] for part in parts])),
        "exact": float(np.mean([each.words == clips[each.clip].caption for each in known])),
    }


def _counted(told: Sequence[Told]) -> dict[str, dict[str, float]]:
    """Answer -> how often it would be said, right as it is, and right if all answers were equally common."""
    known = [each for each in told if each.truth.most >= 0]
    truth, said = (np.array([each.truth.most for each in known]), np.array([each.people for each in known]))
    weight = 1.0 / np.maximum(1, np.bincount(truth, minlength=3))[truth]
    found = dict[str, dict[str, float]]()
    for answer, name in enumerate(_PEOPLE):
        mine = said == answer
        if not mine.any():
            found[name] = {"n": 0.0}
            continue
        even = float(weight[mine & (truth == answer)].sum() / weight[mine].sum())
        found[name] = {"n": float(mine.sum()), "right": float((truth[mine] == answer).mean()), "even": even}
    return found


def _options(parser: argparse.ArgumentParser) -> None:
    from familial.data.people import PERCEIVE

    add_checkpoint(parser)
    parser.add_argument("--rendered", type=at_least_one, default=200, help="clips to render")
    samples = parser.add_argument("--noise-samples", type=at_least_one, default=2, help="of each clip")
    former_name(parser, "--draws", samples)
    parser.add_argument("--data", nargs="+", type=Path, default=[], metavar="MANIFEST.csv", help="real clips, too")
    parser.add_argument("--perceive", type=Path, default=PERCEIVE, metavar="FILE", help="graph of the person network")


def _measure(args: argparse.Namespace) -> Report:
    import torch

    from familial.data.sources import rendered_clips
    from familial.data.splits import clip_seeds
    from familial.evaluate.clip_inference import sigma_of
    from familial.model import checkpoint

    torch.set_num_threads(1)  # small tensors: two threads would wait for each other on a busy machine
    torch.manual_seed(0)
    family = checkpoint.load(args.checkpoint)
    config = family.config
    teller = _Teller(family, float(sigma_of(args.checkpoint, family, None)[1]))
    event_s = config.event_releases * config.window.slot_s
    clips = list(rendered_clips(clip_seeds("sentences", args.rendered), config.labels, config.window, 1))
    told = [each for number, clip in enumerate(clips) for each in teller.told(clip, number, args.noise_samples)]
    figures: dict[str, Any] = {"rendered": judged(told, event_s), "words": _who(told, clips, family)}
    figures["people"] = _counted(told)
    figures["alerts"] = judged([each for each in told if each.raises], event_s)
    if args.data:
        figures["real"] = _of_real(args, config, teller)
    rows: list[tuple[str, ...]] = [("what", "rendered", "at their alerts", *(["real clips"] if args.data else []))]
    rows += _rows([figures[name] for name in ("rendered", "alerts", "real") if name in figures])
    words, when = figures["words"], figures["rendered"]["when"]
    notes = [
        f"the member's own words: right about the label {words['label']:.3f}, about who is there {words['who']:.3f}; "
        f"the clip's own caption {words['exact']:.3f}",
        "people, not said: "
        + ", ".join(
            f"{name} {each['right']:.3f} of {each['n']:.0f} ({each['even']:.3f} if equally common)"
            for name, each in figures["people"].items()
            if each["n"]
        ),
        f"{len(clips)} rendered clips, {args.noise_samples} noise samples; intervals over clips",
    ]
    return Report(when["right"] / when["constant"] if when["n"] else None, figures, rows, notes)


def _of_real(args: argparse.Namespace, config: Any, teller: _Teller) -> dict[str, Any]:
    """Figures of the real clips; "people": set -> answer -> share of events in which it would be said."""
    told, of_set = list[Told](), dict[str, list[Told]]()
    for number, clip in enumerate(_real(args, config)):
        own = list(teller.told(clip, number, args.noise_samples))
        told += own
        of_set.setdefault(clip.set, []).extend(own)
    people = {
        name: {answer: float(np.mean([each.people == k for each in own])) for k, answer in enumerate(_PEOPLE)}
        for name, own in sorted(of_set.items())
    }
    clips = len({each.clip for each in told})
    return {**judged(told, config.event_releases * config.window.slot_s), "clips": clips, "people": people}


def _real(args: argparse.Namespace, config: Any) -> Iterator[LabelledClip]:
    """The clips of the manifests, those that are labelled; one at a time, as their frames fill the memory."""
    from familial.data.clips import UNSCORED, read_manifests
    from familial.data.sources import manifest_clips
    from familial.evaluate.footage import graph_for

    clips = [clip for clip in read_manifests(args.data, config.labels) if clip.label != UNSCORED]
    for clip in clips:
        yield from manifest_clips([clip], config.labels, config.window, perceive=graph_for(config, args.perceive))


def _rows(columns: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    from cloud_bridge.narrator import SURE

    def each(what: str, value: Any) -> tuple[str, ...]:
        return (what, *(value(column) for column in columns))

    return [
        each("events", lambda column: str(column["events"])),
        each("label right", lambda column: _told(column["label"])),
        *(each(f'... where "{words}"', lambda column, w=words: _told(column["sure"][w], True)) for words, _ in SURE),
        each("time right, of right labels", lambda column: _told(column["when"])),
        each("... the best constant", lambda column: f"{column['when']['constant']:.3f}"),
        each("different sentences", lambda column: str(column["different"])),
        each("... without the member's words", lambda column: str(column["different_without_words"])),
    ]


def _told(share: dict[str, Any], count: bool = False) -> str:
    if not share["n"]:
        return "none"
    text = f"{share['right']:.3f} ({share['low']:.3f} to {share['high']:.3f})"
    return f"{text} of {share['n']}" if count else text


COMMAND = Benchmark(
    "sentences",
    __doc__,
    "always saying the time that is right most often (share of right labels' times, rendered clips)",
    _options,
    _measure,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
