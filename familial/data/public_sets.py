"""Public sets in the layouts they come in, or a folder per label -> a clip manifest.

    FOLDER --layout--> what is there: films, folders or archives of pictures; labels, groups, onsets
           --check---> every film opens and lasts; pictures become films beside the manifest --> manifest.csv

A group holds what must never be parted by a split: a person, a room, a source video. Where a set does not publish who
or where, docs/data.md says what its groups mean. Nothing is downloaded, and nothing of the sets is kept here.

    python -m familial.data.public_sets --layout urfd FOLDER --out manifest.csv
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from familial.data.clips import UNSCORED
from familial.synth.disk import Row, save_manifest, save_video
from wire.errors import DataError

__all__ = ["LAYOUTS", "main", "rows_of"]

_FILMS = {".avi", ".mp4", ".mkv", ".mov", ".mpg", ".mpeg", ".webm", ".m4v"}
_PICTURES = {".png", ".jpg", ".jpeg", ".bmp"}
_WIDE = 320  # pixels: films made of pictures are no wider
_LEAST_S = 0.5
_MOST_PICTURES = 20_000  # in one folder or archive


@dataclass(frozen=True, slots=True)
class _Found:
    """One clip of a set. `source` is a film, or a folder or zip of pictures; `onset` is a frame, from 0, or seconds."""

    source: Path
    label: str
    group: str
    note: str = ""
    onset_frame: int | None = None
    onset_s: float | None = None
    rate: float = 0.0  # of pictures, 0 where their names tell


# -- layouts -----------------------------------------------------------------------------------------------------------


def _urfd(root: Path) -> Iterator[_Found]:
    """UR Fall Detection: fall-NN-camC and adl-NN-camC, as folders or zips `...-rgb` of pictures or as single films.

    `urfall-cam0-falls.csv`, where it is there, tells the frame at which a fall begins (third column 0).
    """
    onsets = _urfd_onsets(root)
    for path in sorted(root.rglob("*")):
        named = re.fullmatch(r"((fall|adl)-\d+)-cam(\d)(-rgb)?", path.stem if path.is_file() else path.name)
        pictures = named is not None and named[4] is not None and (path.is_dir() or path.suffix == ".zip")
        film = named is not None and named[4] is None and path.suffix.lower() in _FILMS
        if named is None or not (pictures or film) or (path.suffix == ".zip" and path.with_suffix("").is_dir()):
            continue
        fall = named[2] == "fall"
        onset = onsets.get(named[1]) if fall and named[3] == "0" else None
        yield _Found(path, "fall" if fall else "normal", named[1], f"cam{named[3]}", onset, rate=30.0)


def _urfd_onsets(root: Path) -> dict[str, int]:
    """Sequence -> the first frame, from 0, that is labelled as falling."""
    onsets: dict[str, int] = {}
    for path in sorted(root.rglob("urfall-cam0-falls.csv")):
        for line, row in enumerate(csv.reader(path.read_text(encoding="utf-8").splitlines()), start=1):
            try:
                name, frame, state = row[0], int(row[1]), int(row[2])
            except (IndexError, ValueError) as error:
                raise DataError(f"{path}:{line}: expected sequence,frame,label ({error}); fetch it again") from error
            if state == 0:
                onsets.setdefault(name, max(0, frame - 1))
    return onsets


_UPFALL = re.compile(r"Subject(\d+)Activity(\d+)Trial(\d+)Camera(\d+)|Activity(\d+)_Subject(\d+)_Trial(\d+)Cam(\d+)")
_UPFALL_DOES = (
    "forward, hands",
    "forward, knees",
    "backward",
    "sideward",
    "sitting into no chair",
    "walking",
    "standing",
    "sitting",
    "picking up",
    "jumping",
    "laying",
)


def _upfall(root: Path) -> Iterator[_Found]:
    """UP-Fall: SubjectS/ActivityA/TrialT/SubjectSActivityATrialTCameraC as a zip or folder of pictures, or a film.

    Activities 1 to 5 are falls, 6 to 11 are not. The trial's csv, where it lies beside, tells by its last column when
    the activity begins; the pictures' names are their times.
    """
    for path in sorted(root.rglob("*")):
        named = _UPFALL.fullmatch(path.stem if path.is_file() else path.name)
        kind = path.is_dir() or path.suffix.lower() in {".zip", *_FILMS}
        if named is None or not kind or (path.suffix == ".zip" and path.with_suffix("").is_dir()):
            continue
        subject, activity, trial, camera = (int(named[i] or named[j]) for i, j in ((1, 6), (2, 5), (3, 7), (4, 8)))
        if not 1 <= activity <= len(_UPFALL_DOES):
            raise DataError(f"{path}: activity is {activity}, known are 1 to {len(_UPFALL_DOES)}: rename or remove it")
        told = path.parent / f"Subject{subject}Activity{activity}Trial{trial}.csv"
        film = path.suffix.lower() in _FILMS
        onset = _upfall_onset(told, activity, path) if activity <= 5 and told.is_file() and not film else None
        yield _Found(
            path,
            "fall" if activity <= 5 else "normal",
            f"subject{subject}",
            f"{_UPFALL_DOES[activity - 1]}, camera {camera}",
            onset_s=onset,
        )


def _upfall_onset(told: Path, activity: int, pictures: Path) -> float | None:
    """Seconds from the first picture to the first row of the trial's csv that is tagged with the activity."""
    names = _picture_names(pictures)
    first = _time_of(names[0]) if names else None
    with told.open(newline="", encoding="utf-8") as file:
        for row in csv.reader(file):
            time = _time_of(row[0]) if row else None
            tag = next((cell for cell in reversed(row) if cell.strip()), "")
            if time is not None and first is not None and tag == str(activity):
                return max(0.0, (time - first).total_seconds())
    return None


def _time_of(text: str) -> datetime | None:
    """The time in a picture's name or a csv's first column: 2018-07-04T12_04_17.738369, or with colons."""
    found = re.search(r"(\d{4}-\d\d-\d\d)T(\d\d)[_:](\d\d)[_:](\d\d(?:\.\d{1,6})?)", text)
    if found is None:
        return None
    day, hour, minute, second = found.groups()
    try:
        return datetime.fromisoformat(f"{day}T{hour}:{minute}:{float(second):09.6f}")
    except ValueError:
        return None


def _le2i(root: Path) -> Iterator[_Found]:
    """Le2i (ImViA): ROOM/Videos/video (N).avi and ROOM/Annotation_files/video (N).txt, the folder named twice or once.

    An annotation's first two lines are the fall's first and last frame, 0 and 0 where nobody falls; then come boxes.
    Rooms without annotations are `uncertain`. ROOM_01 and ROOM_02 are one place filmed twice: one group.
    """
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in _FILMS):
        inside = path.relative_to(root).parts
        room = inside[0] if len(inside) > 1 and inside[0] != "Videos" else root.name
        place = re.sub(r"[_ ]?\d+$", "", room).replace(" ", "_").lower()
        home = path.parent.parent if path.parent.name == "Videos" else path.parent
        told = [p for folder in sorted(home.glob("Annotation*")) if (p := folder / f"{path.stem}.txt").is_file()]
        if not told:
            yield _Found(path, UNSCORED, place, f"{room}, no annotation")
            continue
        start = _le2i_start(told[0])
        yield _Found(path, "fall" if start else "normal", place, room, start - 1 if start else None)


def _le2i_start(told: Path) -> int:
    """The frame, from 1, at which the fall begins; 0 where nobody falls."""
    lines = [line.strip() for line in told.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if not lines or "," in lines[0]:  # some files without a fall begin with the boxes at once
        return 0
    try:
        start, end = int(lines[0]), int(lines[1])
    except (IndexError, ValueError) as error:
        raise DataError(f"{told}: the first two lines must be frames ({error}); fetch it again") from error
    if start < 0 or end < start:
        raise DataError(f"{told}: a fall from frame {start} to {end}; correct the first two lines")
    return start


def _rwf(root: Path) -> Iterator[_Found]:
    """RWF-2000: train/Fight, train/NonFight, val/Fight, val/NonFight with VIDEO_PIECE.avi; one group per VIDEO."""
    labels = {"fight": "fight", "nonfight": "normal"}
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in _FILMS):
        label = labels.get(path.parent.name.lower())
        if label is None:
            raise DataError(f"{path}: lies in {path.parent.name!r}; RWF-2000 has the folders Fight and NonFight")
        yield _Found(path, label, re.sub(r"_\d+$", "", path.stem), path.parent.parent.name)


def _plain(root: Path) -> Iterator[_Found]:
    """LABEL/clip.mp4 or LABEL/GROUP/clip.mp4. Without a folder of its own a clip's group is its name less a number at
    the end, so that pieces of one recording stay together."""
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in _FILMS):
        inside = path.relative_to(root).parts
        if len(inside) == 1:
            raise DataError(f"{path}: lies beside the label folders; move it into one of them")
        own = re.sub(r"[-_ .]*\(?\d+\)?$", "", path.stem) or path.stem
        yield _Found(path, inside[0], "/".join(inside[1:-1]) or own, "")


LAYOUTS: dict[str, Callable[[Path], Iterator[_Found]]] = {
    "urfd": _urfd,
    "upfall": _upfall,
    "le2i": _le2i,
    "rwf2000": _rwf,
    "folders": _plain,
}


# -- films and pictures ------------------------------------------------------------------------------------------------


def _picture_names(source: Path) -> list[str]:
    """Names of the pictures in a folder or zip, in order. Raises DataError where there are none, or it is no zip."""
    if source.is_dir():
        names = [p.name for p in source.iterdir()]
    else:
        try:
            with zipfile.ZipFile(source) as archive:
                names = [n for n in archive.namelist() if "__MACOSX" not in n]
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{source}: not readable as a zip ({error}); fetch it again") from error
    pictures = sorted(n for n in names if Path(n).suffix.lower() in _PICTURES)
    if not 2 <= len(pictures) <= _MOST_PICTURES:
        raise DataError(f"{source}: holds {len(pictures)} pictures; 2 to {_MOST_PICTURES} are expected: fetch it again")
    return pictures


def _pictures(source: Path, names: list[str]) -> Iterator[NDArray[np.uint8]]:
    """The pictures (H, W, 3) BGR, at most _WIDE wide. Nothing is unpacked to disk."""
    archive = None if source.is_dir() else zipfile.ZipFile(source)
    size: tuple[int, int] | None = None
    try:
        for name in names:
            packed = (source / name).read_bytes() if archive is None else archive.read(name)
            picture = cv2.imdecode(np.frombuffer(packed, np.uint8), cv2.IMREAD_COLOR) if packed else None
            if picture is None:
                raise DataError(f"{source}: picture {name} is empty or broken; fetch it again")
            if size is None:
                shrink = min(1.0, _WIDE / picture.shape[1])
                size = (2 * round(picture.shape[1] * shrink / 2), 2 * round(picture.shape[0] * shrink / 2))
            yield np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    except (OSError, zipfile.BadZipFile, RuntimeError) as error:
        raise DataError(f"{source}: not readable ({error}); fetch it again") from error
    finally:
        if archive is not None:
            archive.close()


def _filmed(found: _Found, folder: Path, name: str) -> Path:
    """The clip's film: itself, or one made of its pictures in `folder`, kept when it is there."""
    if found.source.suffix.lower() in _FILMS and found.source.is_file():
        return found.source
    film = folder / f"{name}.mp4"
    if film.is_file():
        return film
    names = _picture_names(found.source)
    rate = found.rate
    if not rate:
        first, last = _time_of(names[0]), _time_of(names[-1])
        if first is None or last is None or last <= first:
            raise DataError(f"{found.source}: its pictures' names tell no times; restore the names they came with")
        rate = (len(names) - 1) / (last - first).total_seconds()
    folder.mkdir(parents=True, exist_ok=True)
    save_video(film, _pictures(found.source, names), rate)
    return film


def _checked(film: Path, found: _Found, urfd: bool) -> float | None:
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
    if urfd and shape[1] > 2 * shape[0]:
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
    """Manifest rows of the set under `root`, for a manifest at `out`; and what is wrong with clips that were left out.

    `names` maps what a layout calls a label to ours; films made of pictures go to `out`'s folder. Raises DataError,
    with every broken clip named unless `leave_out`, and for labels that nobody knows.
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
            onset = _checked(film, found, layout == "urfd")
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
    """Write the manifest of a set."""
    parser = argparse.ArgumentParser(prog="python -m familial.data.public_sets", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="the set, as it was downloaded and unpacked")
    parser.add_argument("--layout", required=True, choices=sorted(LAYOUTS))
    parser.add_argument("--out", type=Path, required=True, help="the manifest; films made of pictures go beside it")
    parser.add_argument("--label", action="append", default=[], metavar="THEIRS=OURS", help="a label's name in the set")
    parser.add_argument("--labels", default="normal,fall,fight", help="our labels, comma-separated")
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
