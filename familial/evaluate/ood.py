"""`python -m familial.evaluate.ood --checkpoint DIR`: fit the reference distribution of the OOD detector.

checkpoint, rendered rooms, real clips --cameras--> codes --ood_reference.fit--> ood_reference.json beside the
weights, which the cloud's `OodDetector` reads
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from familial.evaluate.cameras import Source
from familial.evaluate.ood_reference import fit
from wire.errors import VeilsightError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Fit the reference of a checkpoint and write it there; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m familial.evaluate.ood",
        description="Fit what known scenes are like, for the OOD detector of the cloud.",
    )
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR")
    parser.add_argument("--rendered", type=int, default=150, metavar="N", help="rendered rooms that are known")
    parser.add_argument("--data", nargs="+", type=Path, default=[], metavar="MANIFEST.csv", help="known real clips")
    parser.add_argument("--known", nargs="+", default=[], metavar="SET", help="sets of --data; default: all of them")
    args = parser.parse_args(argv)
    try:
        path, known = _fit_checkpoint(args.checkpoint, args.rendered, args.data, args.known)
    except VeilsightError as error:
        print(f"familial.evaluate.ood: {error}", file=sys.stderr)
        return 2
    print(f"{path}: {known}")
    return 0


def _fit_checkpoint(folder: Path, rendered: int, data: Sequence[Path], known: Sequence[str]) -> tuple[Path, str]:
    """Return where the reference was written, and what it was made of, in words."""
    source = Source.open(folder)
    rooms = source.rendered(rendered)
    sets = source.sets(data, known)
    said = f"{len(rooms)} rendered rooms" + "".join(f", {len(found)} of {name}" for name, found in sets.items())
    made = fit(
        [*(room.ordinary for room in rooms), *(camera for found in sets.values() for camera in found)],
        source.sigmas,
        source.directions,
        source.clip_norm,
        risks=[risk for room in rooms for risk in room.risks],
        checkpoint=source.checkpoint,
        known=said,
    )
    return made.save(folder), said


if __name__ == "__main__":
    sys.exit(main())
