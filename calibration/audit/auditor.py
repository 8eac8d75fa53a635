"""Attacks an engine and compares every attack with the certificate, its preset limit and its own control.

    engine + clips (+ faces) --targets.py--> galleries of clean codes (cached) --campaign.py--> pieces of work
      --processes, resumable--> findings --> audit.json, a table, the page for people (report.py)

    python -m calibration.audit --engine build/engines/nano --data MANIFEST.csv --json audit.json --html audit.html

Every finished piece is kept under build/audit until the engine, the clips, the plan or a version constant
(`campaign.ATTACKS_VERSION`, `targets.GALLERY_VERSION`) changes, so that a run that was stopped continues where it was.
Exit status: 0 passed; 1 not passed: an attack went beyond the certificate, or failed its control; 2 could not be run;
3 passed, but an attack went beyond our own limit, which is stricter (`beyond_own_limit` of them).
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.audit import campaign, targets
from calibration.audit.attacks.base import Piece, Plan, Setting
from calibration.audit.attacks.registry import ATTACKS, attack_of
from calibration.audit.campaign import FULL, QUICK, run, tasks
from calibration.audit.findings import BEYOND, STATUSES, bound, number, shown, why
from calibration.audit.origin import origin
from calibration.audit.report import write_page
from familial.data.clips import UNSCORED, read_manifests
from familial.model.checkpoint import checkpoint_hash
from wire.arguments import at_least_one, former_name
from wire.artifact.manifest import EngineManifest
from wire.errors import ConfigError, DataError, VeilsightError
from wire.files import write_whole
from wire.privacy.certificate import round_up

__all__ = ["Request", "audit", "main"]

_ROOT = Path(__file__).resolve().parents[2]
_CACHE = _ROOT / "build" / "audit"
_FACES = "faces_yale.tar.xz"
_ORDER = (*STATUSES[:2], BEYOND, *STATUSES[2:])  # the worst first
_FEWEST = 4  # people or places of which one is to be named


@dataclass(frozen=True, slots=True)
class Request:
    """What is audited, and with what.

    Attributes:
        engine: folder of the engine.
        data: clip manifests; without any, no place is to be named.
        plan: how much is done.
        faces: folder or archive of face pictures; None: looked for beside the manifests.
        checkpoint: what engines of other precisions are built from.
        only: names of the attacks to make; all where empty.
        workers: processes.
        cache: folder where galleries and finished pieces are kept.
    """

    engine: Path
    data: tuple[Path, ...]
    plan: Plan = FULL
    faces: Path | None = None
    checkpoint: Path | None = None
    only: tuple[str, ...] = ()
    workers: int = 2
    cache: Path = _CACHE


def audit(request: Request) -> dict[str, Any]:
    """Run the missing pieces and put all findings together.

    Raises:
        VeilsightError: the audit cannot be made.
    """
    started, manifest = time.monotonic(), EngineManifest.load(request.engine)
    manifest.check(request.engine)
    if request.plan.people < _FEWEST:
        raise ConfigError(f"people is {request.plan.people}: to name one, at least {_FEWEST} are needed")
    plan = _with_own_level(request.plan, manifest)
    skipped: list[dict[str, str]] = []
    engines = _engines(request, manifest, skipped)
    galleries = _galleries(dataclasses.replace(request, plan=plan), manifest, skipped)
    setting = Setting(request.engine, engines, galleries, plan)
    work = tasks(setting, request.only)
    if request.only:
        left = sorted(set(ATTACKS) - set(request.only))
        skipped += [{"name": name, "why": "not asked for (--only)"} for name in left]
    key = _key(setting, manifest)
    rows, pictures = _work_off(setting, work, request.cache / key, request.workers)
    certificate = manifest.certificate()
    statuses = [row["status"] for row in rows]
    return {
        "passed": bool(rows) and set(statuses) <= {"holds", "not testable"} and "holds" in statuses,
        "complete": not skipped,
        "attacks": rows,
        "skipped": skipped,
        "beyond_own_limit": sum(shown(row) == BEYOND for row in rows),
        "certificate": certificate.document(),
        "engine": {
            "model": f"{manifest.model_id:016x}",
            "family": manifest.family,
            "precision": manifest.precision,
            "profile": manifest.profile,
            "S_event": float(round_up(certificate.s_event, 6)),
        },
        "plan": dataclasses.asdict(plan),
        "origin": origin(request.data, manifest.labels, request.faces or _beside(request.data)),
        "minutes": round((time.monotonic() - started) / 60, 1),
        "pictures": pictures,
    }


def _with_own_level(plan: Plan, manifest: EngineManifest) -> Plan:
    """Return the plan with the engine's own S among its levels."""
    own = round(manifest.certificate().s_event, 2)
    if any(abs(level - own) < 0.02 * own for level in plan.levels):
        return plan
    return dataclasses.replace(plan, levels=tuple(sorted({*plan.levels, own})))


def _key(setting: Setting, manifest: EngineManifest) -> str:
    """Return a hash of everything that a piece's rows depend on, in 16 hex digits."""
    digest = hashlib.sha256(repr((manifest.sha256, setting.plan, campaign.ATTACKS_VERSION)).encode())
    for _, folder in setting.engines:
        digest.update(EngineManifest.load(folder).sha256.encode())
    for _, path in setting.galleries:
        digest.update(path.name.encode())
    return digest.hexdigest()[:16]


# --- what is attacked -------------------------------------------------------------------------------------------------


def _engines(request: Request, manifest: EngineManifest, skipped: list[dict[str, str]]) -> tuple[tuple[str, Path], ...]:
    """Return the engine, and engines of the other precisions, built from its checkpoint where they build."""
    from export.build_engine import build
    from export.inputs import Inputs
    from export.perceive.size import DEFAULT
    from export.precision.convert import PRECISIONS

    found = [(manifest.precision, request.engine)]
    others = [name for name in PRECISIONS if name != manifest.precision]
    if request.only and "norm" not in request.only or not others:
        return tuple(found)
    try:
        if request.checkpoint is None:
            raise ConfigError("no --checkpoint was given to build it from")
        if checkpoint_hash(request.checkpoint) != manifest.hashes["checkpoint"]:
            raise ConfigError(f"{request.checkpoint} is not the checkpoint that the engine was made of")
        for precision in others:
            inputs = Inputs.read(request.checkpoint, precision, "onnxruntime", manifest.person_frame or DEFAULT)
            out = request.cache / "engines" / f"{precision}-{hashlib.sha256(repr(inputs).encode()).hexdigest()[:16]}"
            if not (out / "manifest.json").is_file():
                build(request.checkpoint, out, inputs)
            found.append((precision, out))
    except VeilsightError as error:
        made = {name for name, _ in found}
        skipped += [{"name": f"norm, {name}", "why": str(error)} for name in others if name not in made]
    return tuple(found)


def _galleries(
    request: Request, manifest: EngineManifest, skipped: list[dict[str, str]]
) -> tuple[tuple[str, Path], ...]:
    """Encode the galleries that are not in the cache yet; return name and file of those there are."""
    attacks = [attack_of(name) for name in request.only or ATTACKS]
    wanted = frozenset[str]().union(*(attack.galleries for attack in attacks))
    found = list[tuple[str, Path]]()
    graphs = " ".join(manifest.hashes[part] for part in ("encode", "perceive") if part in manifest.hashes)
    made_of = f"{graphs} {manifest.window} {targets.GALLERY_VERSION}"
    sees = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    asked = _asked(request, manifest, wanted, skipped)  # all input is checked before anything is encoded
    for name, (shots, owners, names, more) in asked.items():
        path = request.cache / "galleries" / f"{name}-{sees}-{targets.fingerprint(shots)}.npz"
        if not path.is_file():
            began = time.monotonic()
            print(f"encoding {name}: {len(shots)} clips", flush=True)
            made = targets.encode_shots(request.engine, shots, owners, names, request.workers, **more)
            made.save(path)
            print(f"encoded {name}: {len(made.codes)} windows in {time.monotonic() - began:.0f} s", flush=True)
        found.append((name, path))
    return tuple(found)


_Asked = tuple[list[targets.Shot], npt.NDArray[np.int64], tuple[str, ...], dict[str, Any]]


def _asked(
    request: Request, manifest: EngineManifest, wanted: frozenset[str], skipped: list[dict[str, str]]
) -> dict[str, _Asked]:
    """Return shots, owners, names and further arguments of each wanted gallery; add what is missing to `skipped`."""
    plan, asked = request.plan, dict[str, _Asked]()
    if "people" in wanted:
        asked["people"] = *targets.people(plan.people, plan.clips), {"public": True}
    if "bodies" in wanted:
        shots, owners, names = targets.bodies(plan.bodies)
        asked["bodies"] = shots, owners, names, {"traits": targets.body_traits(shots), "public": True}
    if "faces" in wanted:
        if source := request.faces or _beside(request.data):
            shots, owners, names, glasses = targets.faces(source)
            asked["faces"] = shots, owners, names, {"traits": {"glasses": glasses}}
        else:
            skipped.append({"name": "faces", "why": f"no {_FACES} beside the manifests, and no --faces"})
    if "places" in wanted and not request.data:
        skipped.append({"name": "places", "why": "no --data: real clips, whose places are to be named"})
    elif "places" in wanted:
        clips = [clip for clip in read_manifests(request.data, manifest.labels) if clip.label != UNSCORED]
        shots, owners, names = _fewer(*targets.places(clips), plan.place_clips)
        if len(names) < _FEWEST:
            why = f"the manifests have {len(names)} groups of at least 4 clips, {_FEWEST} are needed"
            skipped.append({"name": "places", "why": why})
        else:
            asked["places"] = shots, owners, names, {}
    return asked


def _beside(manifests: Sequence[Path]) -> Path | None:
    """Return the face archive in a manifest's folder or the one above it."""
    places = [folder / _FACES for path in manifests for folder in path.resolve().parents[:2]]
    return next((path for path in places if path.is_file()), None)


def _fewer(
    shots: list[targets.Shot], owner: Any, names: tuple[str, ...], most: int
) -> tuple[list[targets.Shot], Any, tuple[str, ...]]:
    """Keep at most `most` clips of each place."""
    rank = np.array([int((owner[:index] == name).sum()) for index, name in enumerate(owner)], np.int64)
    kept = np.flatnonzero(rank < most)
    return [shots[index] for index in kept], owner[kept], names


# --- the pieces of work -----------------------------------------------------------------------------------------------


def _done(setting: Setting, piece: Piece) -> tuple[list[dict[str, Any]], dict[str, Any], float]:
    """Return rows, pictures and seconds of one piece."""
    began = time.monotonic()
    try:
        findings, pictures = run(setting, piece)
    except Exception as error:
        error.add_note(f"in the piece {piece.name!r}")
        raise
    return [finding.document() for finding in findings], pictures, time.monotonic() - began


def _work_off(
    setting: Setting, work: Sequence[Piece], folder: Path, workers: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return every piece's rows in the order of `work`; those that `folder` lacks are made on `workers` processes."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {piece: folder / f"{hashlib.sha256(piece.name.encode()).hexdigest()[:16]}.json" for piece in work}
    todo = [piece for piece in work if not files[piece].is_file()]
    if len(todo) < len(work):
        print(f"{len(work) - len(todo)} of {len(work)} pieces are done already ({folder})", flush=True)
    made = 0

    def keep(piece: Piece, rows: list[dict[str, Any]], pictures: dict[str, Any], seconds: float) -> None:
        nonlocal made
        made += 1
        write_whole(files[piece], json.dumps({"rows": rows, "pictures": pictures}))
        worst = min(map(shown, rows), key=_ORDER.index)
        said = f"{len(rows):3} rows, {worst if len(rows) == 1 else 'the worst: ' + worst}"
        print(f"[{made}/{len(todo)}] {piece.name:44} {seconds:6.1f} s  {said}", flush=True)

    if workers > 1 and len(todo) > 1:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            futures = {pool.submit(_done, setting, piece): piece for piece in todo}
            try:
                for future in as_completed(futures):
                    keep(futures[future], *future.result())
            except BrokenProcessPool as error:
                cure = "give it more memory, or --workers 1, and run it again: what is finished is kept"
                raise DataError(f"a process of the audit died, as it does where memory is short; {cure}") from error
            finally:
                pool.shutdown(wait=False, cancel_futures=True)  # an error shows at once, not after all that is left
    else:
        for piece in todo:
            keep(piece, *_done(setting, piece))
    found = [json.loads(files[piece].read_text()) for piece in work]
    pictures = {name: rows for part in found for name, rows in part["pictures"].items()}
    return [row for part in found for row in part["rows"]], pictures


def _table(found: dict[str, Any]) -> str:
    """Return a line for each row, the worst first, with the reason under those that do not hold; then the outcome."""
    lines = [f"{'status':26}{'S':>6}  {'value':>9} {'interval':>19} {'chance':>8} {'bound':>8} {'limit':>8}  attack"]
    for row in sorted(found["attacks"], key=lambda row: _ORDER.index(shown(row))):
        cells = [number(row["value"]), number(row["chance"]), bound(row["certificate"]), number(row["limit"])]
        low, high = (number(end) for end in row["ci"])
        lines.append(
            f"{shown(row):26}{row['S_event']:6.3g}  {cells[0]:>9} {low:>9} {high:>9} {cells[1]:>8} {cells[2]:>8} "
            f"{cells[3]:>8}  {row['name']} ({row['metric']})"
        )
        if reason := why(row):
            lines.append(f"{'':26}{reason}")
    lines += [f"{'skipped':26}{part['name']}: {part['why']}" for part in found["skipped"]]
    counts = {outcome: sum(shown(row) == outcome for row in found["attacks"]) for outcome in _ORDER}
    said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    verdict = "PASSED" if found["passed"] else "NOT PASSED"
    if found["passed"] and found["beyond_own_limit"]:
        verdict += ", BUT BEYOND OUR OWN LIMIT"
    if not found["complete"]:
        verdict += f", INCOMPLETE ({len(found['skipped'])} skipped)"
    return "\n".join([*lines, f"{verdict}: {said}; {found['minutes']} minutes"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m calibration.audit", description="Attack an engine; compare the attacks with its certificate."
    )
    parser.add_argument("--engine", type=Path, default=_ROOT / "build" / "engines" / "nano", metavar="DIR")
    parser.add_argument("--data", nargs="+", type=Path, default=(), metavar="MANIFEST.csv", help="real clips")
    parser.add_argument("--faces", type=Path, help=f"face pictures; default: {_FACES} beside a manifest")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=_ROOT / "checkpoints" / "nano",
        metavar="DIR",
        help="what the engine was made of, to build the other precisions",
    )
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--html", type=Path, metavar="OUT", help="the page for people")
    parser.add_argument("--quick", action="store_true", help="two levels of S, fewer people; --data may be left out")
    parser.add_argument("--only", nargs="+", default=(), choices=ATTACKS, metavar="ATTACK", help=", ".join(ATTACKS))
    workers = parser.add_argument("--workers", type=at_least_one, default=min(2, os.cpu_count() or 1), help="processes")
    former_name(parser, "--jobs", workers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    args = _parser().parse_args(argv)
    plan = QUICK if args.quick else FULL
    try:
        places = any("places" in attack_of(name).galleries for name in args.only or ATTACKS)
        if places and not args.data and not args.quick:
            raise ConfigError("--data is missing: the full audit names places of real clips; --quick goes without")
        request = Request(
            args.engine, tuple(args.data), plan, args.faces, args.checkpoint, tuple(args.only), max(1, args.workers)
        )
        found = audit(request)
        for out in filter(None, (args.json, args.html)):
            out.parent.mkdir(parents=True, exist_ok=True)
        if args.json:
            write_whole(args.json, json.dumps(found, indent=1, allow_nan=False) + "\n")
        if args.html:
            write_page(found, args.html)
    except VeilsightError as error:
        print(f"calibration.audit: {error}", file=sys.stderr)
        return 2
    print(_table(found))
    if not found["passed"]:
        return 1
    return 3 if found["beyond_own_limit"] else 0
