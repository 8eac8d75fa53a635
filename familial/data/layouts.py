"""The layouts in which public sets are downloaded: which clips lie in a folder, and what each of them shows.

To add a public set: write one function here from its folder to `Found`, give it a row in `LAYOUTS`, a row in the table
of layouts in docs/data.md, and a test of the names that it publishes. Nothing is downloaded, and no set is kept here.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from familial.data.clips import UNSCORED
from familial.data.pictures import picture_names, time_of
from wire.errors import DataError

__all__ = ["FILMS", "LAYOUTS", "Found"]

FILMS = frozenset({".avi", ".mp4", ".mkv", ".mov", ".mpg", ".mpeg", ".webm", ".m4v"})
"""Suffixes of films."""


@dataclass(frozen=True, slots=True)
class Found:
    """One clip of a set.

    Attributes:
        source: a film, or a folder or zip of pictures.
        label: as the layout calls it.
        group: what must not be parted by a split.
        note: free text for the manifest.
        onset_frame: frame, from 0, at which the label begins, if the set publishes it.
        onset_s: the same in seconds.
        rate: pictures a second; 0 where their names are their times.
        one_camera: the set also comes with depth and colour side by side, which is refused.
    """

    source: Path
    label: str
    group: str
    note: str = ""
    onset_frame: int | None = None
    onset_s: float | None = None
    rate: float = 0.0
    one_camera: bool = False


def _urfd(root: Path) -> Iterator[Found]:
    """UR Fall Detection: fall-NN-camC and adl-NN-camC, as folders or zips `...-rgb` of pictures or as single films.

    `urfall-cam0-falls.csv`, if it is there, gives the frame at which a fall begins (third column 0).
    """
    onsets = _urfd_onsets(root)
    for path in sorted(root.rglob("*")):
        named = re.fullmatch(r"((fall|adl)-\d+)-cam(\d)(-rgb)?", path.stem if path.is_file() else path.name)
        pictures = named is not None and named[4] is not None and (path.is_dir() or path.suffix == ".zip")
        film = named is not None and named[4] is None and path.suffix.lower() in FILMS
        if named is None or not (pictures or film) or (path.suffix == ".zip" and path.with_suffix("").is_dir()):
            continue
        fall = named[2] == "fall"
        onset = onsets.get(named[1]) if fall and named[3] == "0" else None
        yield Found(path, "fall" if fall else "normal", named[1], f"cam{named[3]}", onset, rate=30.0, one_camera=True)


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


def _upfall(root: Path) -> Iterator[Found]:
    """UP-Fall: SubjectS/ActivityA/TrialT/SubjectSActivityATrialTCameraC as a zip or folder of pictures, or a film.

    Activities 1 to 5 are falls, 6 to 11 are not. The last column of the trial's csv, if it lies beside, says when the
    activity begins; the pictures' names are their times.
    """
    for path in sorted(root.rglob("*")):
        named = _UPFALL.fullmatch(path.stem if path.is_file() else path.name)
        kind = path.is_dir() or path.suffix.lower() in {".zip", *FILMS}
        if named is None or not kind or (path.suffix == ".zip" and path.with_suffix("").is_dir()):
            continue
        subject, activity, trial, camera = (int(named[i] or named[j]) for i, j in ((1, 6), (2, 5), (3, 7), (4, 8)))
        if not 1 <= activity <= len(_UPFALL_DOES):
            raise DataError(f"{path}: activity is {activity}, known are 1 to {len(_UPFALL_DOES)}: rename or remove it")
        annotation = path.parent / f"Subject{subject}Activity{activity}Trial{trial}.csv"
        film = path.suffix.lower() in FILMS
        onset = (
            _upfall_onset(annotation, activity, path) if activity <= 5 and annotation.is_file() and not film else None
        )
        yield Found(
            path,
            "fall" if activity <= 5 else "normal",
            f"subject{subject}",
            f"{_UPFALL_DOES[activity - 1]}, camera {camera}",
            onset_s=onset,
        )


def _upfall_onset(annotation: Path, activity: int, pictures: Path) -> float | None:
    """Seconds from the first picture to the first row of the trial's csv that is tagged with the activity."""
    names = picture_names(pictures)
    first = time_of(names[0]) if names else None
    with annotation.open(newline="", encoding="utf-8") as file:
        for row in csv.reader(file):
            time = time_of(row[0]) if row else None
            tag = next((cell for cell in reversed(row) if cell.strip()), "")
            if time is not None and first is not None and tag == str(activity):
                return max(0.0, (time - first).total_seconds())
    return None


def _le2i(root: Path) -> Iterator[Found]:
    """Le2i (ImViA): ROOM/Videos/video (N).avi and ROOM/Annotation_files/video (N).txt, the folder named twice or once.

    An annotation's first two lines are the fall's first and last frame, 0 and 0 where nobody falls; then come boxes.
    Rooms without annotations are `uncertain`. ROOM_01 and ROOM_02 are one place filmed twice: one group.
    """
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in FILMS):
        inside = path.relative_to(root).parts
        room = inside[0] if len(inside) > 1 and inside[0] != "Videos" else root.name
        place = re.sub(r"[_ ]?\d+$", "", room).replace(" ", "_").lower()
        home = path.parent.parent if path.parent.name == "Videos" else path.parent
        annotations = [p for folder in sorted(home.glob("Annotation*")) if (p := folder / f"{path.stem}.txt").is_file()]
        if not annotations:
            yield Found(path, UNSCORED, place, f"{room}, no annotation")
            continue
        start = _le2i_start(annotations[0])
        yield Found(path, "fall" if start else "normal", place, room, start - 1 if start else None)


def _le2i_start(annotation: Path) -> int:
    """The frame, from 1, at which the fall begins; 0 where nobody falls."""
    lines = [
        line.strip() for line in annotation.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
    ]
    if not lines or "," in lines[0]:  # some files without a fall begin with the boxes at once
        return 0
    try:
        start, end = int(lines[0]), int(lines[1])
    except (IndexError, ValueError) as error:
        raise DataError(f"{annotation}: the first two lines must be frames ({error}); fetch it again") from error
    if start < 0 or end < start:
        raise DataError(f"{annotation}: a fall from frame {start} to {end}; correct the first two lines")
    return start


def _rwf(root: Path) -> Iterator[Found]:
    """RWF-2000: train/Fight, train/NonFight, val/Fight, val/NonFight with VIDEO_PIECE.avi; one group per VIDEO."""
    labels = {"fight": "fight", "nonfight": "normal"}
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in FILMS):
        label = labels.get(path.parent.name.lower())
        if label is None:
            raise DataError(f"{path}: lies in {path.parent.name!r}; RWF-2000 has the folders Fight and NonFight")
        yield Found(path, label, re.sub(r"_\d+$", "", path.stem), path.parent.parent.name)


def _plain(root: Path) -> Iterator[Found]:
    """Folders: LABEL/clip.mp4 or LABEL/GROUP/clip.mp4.

    Without a group's folder, a clip's group is its name less a number at the end, so pieces of one recording stay
    together.
    """
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in FILMS):
        inside = path.relative_to(root).parts
        if len(inside) == 1:
            raise DataError(f"{path}: lies beside the label folders; move it into one of them")
        own = re.sub(r"[-_ .]*\(?\d+\)?$", "", path.stem) or path.stem
        yield Found(path, inside[0], "/".join(inside[1:-1]) or own, "")


LAYOUTS: dict[str, Callable[[Path], Iterator[Found]]] = {
    "urfd": _urfd,
    "upfall": _upfall,
    "le2i": _le2i,
    "rwf2000": _rwf,
    "folders": _plain,
}
"""Layout -> the clips of a folder laid out so, in order. Raises DataError for what cannot be understood."""
