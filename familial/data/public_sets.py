"""A public set in the layout it comes in, or a folder per label -> a clip manifest.

    FOLDER --layout--> what is there: films, folders or archives of pictures; labels, groups, onsets    `layouts`
           --check---> every film opens and lasts; pictures become films beside the manifest --> manifest.csv

A group holds what must never be parted by a split: a person, a room, a source video. Where a set does not publish who
or where, docs/data.md says what its groups mean. Nothing is downloaded, and nothing of the sets is kept here.

    python -m familial.data.public_sets --layout urfd FOLDER --out manifest.csv
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import cv2

from familial.data.clips import UNSCORED
from familial.data.labels import LABELS
from familial.data.layouts import FILMS, LAYOUTS, Found
from familial.data.pictures import picture_names, pictures, time_of
from familial.synth.disk import Row, save_manifest, save_video
from wire.errors import DataError

__all__ = ["main", "rows_of"]

_LEAST_S = 0.5


def _filmed(found: Found, folder: Path, name: str) -> Path:
    """The clip's film: itself, or one made of its pictures in `folder`, kept when it is there."""
    if found.source.suffix.lower() in FILMS and found.source.is_file():
        return found.source
    film = folder / f"{name}.mp4"
    if film.is_file():
        return film
    names = picture_names(found.source)
    rate = found.rate
    if not rate:
        first, last = time_of(names[0]), time_of(names[-1])
        if first is None or last is None or last <= first:
            raise DataError(f"{found.source}: its pictures' names carry no times; restore the names they came with")
        rate = (len(names) - 1) / (last - first).total_seconds()
    folder.mkdir(parents=True, exist_ok=True)
    save_video(film, pictures(found.source, names), rate)
    return film


def _checked(film: Path, found: Found) -> float | None:
    """The clip's onset in seconds. Raises DataError for a film that is broken, too short or not of one camera."""
    capture = cv2.VideoCapture(str(film))
    try:
        rate, count = capture.get(cv2.CAP_PROP_FPS), 0
        there, frame = capture.read()
        shape = frame.shape[:2] if there else (1, 1)
        while there:
            count += 1
            there = capture.grab()
    finally:
        capture.release()
    if count == 0:
        raise DataError(f"{film}: no frame could be decoded; empty, broken or no film: fetch it again or remove it")
    if not 0.5 <= rate <= 1000:
        raise DataError(f"{film}: the frame rate is {rate}; re-encode it with a constant rate")
    if count / rate < _LEAST_S:
        raise DataError(f"{film}: lasts {count / rate:.2f} s; at least {_LEAST_S} s are needed: remove it")
    if found.one_camera and shape[1] > 2 * shape[0]:
        raise DataError(
            f"{film}: is {shape[1]} x {shape[0]}, as where depth and colour are side by side; "
            "give the -rgb pictures instead"
        )
    onset = found.onset_s if found.onset_frame is None else found.onset_frame / rate
    if onset is not None and onset >= count / rate:
        raise DataError(
            f"{film}: its onset is at {onset:.1f} s, but it lasts {count / rate:.1f} s; "
            "film and annotation do not belong together"
        )
    return onset


def rows_of(
    layout: str, root: Path, out: Path, *, names: dict[str, str], leave_out: bool = False, one_group: bool = False
) -> tuple[list[Row], list[str]]:
    """Read a set and check every clip of it.

    Args:
        layout: a row of `LAYOUTS`.
        root: the folder of the set.
        out: the manifest to be; films made of pictures go to `films` beside it.
        names: what the layout calls a label -> what we call it.
        leave_out: leave out clips that cannot be used.
        one_group: make the whole set one group.

    Returns:
        The rows of the manifest, and what is wrong with each clip that was left out.

    Raises:
        DataError: a label that is not in `names`, no clip at all, or clips that cannot be used (each is named) unless
            `leave_out`.
    """
    if not root.is_dir():
        raise DataError(f"{root}: is no folder; give the one that holds the set")
    rows: list[Row] = []
    broken: list[str] = []
    for found in LAYOUTS[layout](root):
        if found.label not in names:
            known = ", ".join(sorted(set(names.values())))
            raise DataError(f"{found.source}: label is {found.label!r}; known are {known}: --label {found.label}=OURS")
        where = "_".join(found.source.relative_to(root).with_suffix("").parts[-4:])
        try:
            film = _filmed(found, out.parent / "films", where)
            onset = _checked(film, found)
        except DataError as error:
            broken.append(str(error))
            continue
        rows.append(
            {
                "file": os.path.relpath(film, out.parent),
                "label": names[found.label],
                "set": layout,
                "group": layout if one_group else found.group,
                "note": found.note,
                "onset_s": "" if onset is None else f"{onset:.3f}",
            }
        )
        print(f"\r{len(rows)} clips", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    if broken and not leave_out:
        shown = broken[:20] + [f"and {len(broken) - 20} more"] * (len(broken) > 20)
        cure = "mend them, or leave them out by --leave-out-broken"
        raise DataError("\n  ".join([f"{len(broken)} clips cannot be used; {cure}:", *shown]))
    if not rows:
        raise DataError(f"{root}: nothing of the layout {layout!r} was found there; see docs/data.md for its names")
    return rows, broken


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m familial.data.public_sets", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="the set, as it was downloaded and unpacked")
    parser.add_argument("--layout", required=True, choices=sorted(LAYOUTS))
    parser.add_argument("--out", type=Path, required=True, help="the manifest; films made of pictures go beside it")
    parser.add_argument("--label", action="append", default=[], metavar="THEIRS=OURS", help="a label's name in the set")
    parser.add_argument("--labels", default=",".join(LABELS), help="our labels, comma-separated")
    parser.add_argument("--one-group", action="store_true", help="the whole set is one group: its people are unknown")
    parser.add_argument("--one-class", action="store_true", help="a single label is fine: other manifests have more")
    parser.add_argument("--leave-out-broken", action="store_true", help="leave out what cannot be used, and say so")
    args = parser.parse_args(argv)
    names = {name: name for name in (*args.labels.split(","), UNSCORED)}
    try:
        for pair in args.label:
            theirs, equals, ours = pair.partition("=")
            if not equals or ours not in names.values():
                raise DataError(f"--label {pair}: give THEIRS=OURS, where ours is one of {', '.join(names.values())}")
            names[theirs] = ours
        args.out.parent.mkdir(parents=True, exist_ok=True)
        rows, broken = rows_of(
            args.layout, args.folder, args.out, names=names, leave_out=args.leave_out_broken, one_group=args.one_group
        )
        counts = {label: sum(row["label"] == label for row in rows) for label in sorted({row["label"] for row in rows})}
        if len(counts.keys() - {UNSCORED}) < 2 and not args.one_class:
            raise DataError(
                f"{args.folder}: every clip is {next(iter(counts))!r}; a family learns from two labels or "
                "more: add others, or pass --one-class where another manifest has them"
            )
        save_manifest(args.out, rows)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error}; check the folder, its rights and its free space", file=sys.stderr)
        return 1
    for line in broken:
        print(f"left out: {line}", file=sys.stderr)
    groups = len({row["group"] for row in rows})
    print(f"{args.out}: {', '.join(f'{n} {label}' for label, n in counts.items())}; {groups} groups")
    return 0


if __name__ == "__main__":
    sys.exit(main())
