"""Builds an engine folder from a checkpoint, or says that the one there still holds. Torch is imported to build only.

    checkpoint + its noise --trace--> graphs --prove--> --compare with torch--> manifest, certificate --rename--> --out

Everything is made in a folder beside --out and moved there in the end: whoever interrupts a build keeps the old engine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from export.backends.builder import Options
from export.backends.runners import BACKENDS, PRECISIONS, Backend, backend, check_precision
from export.precision.convert import Calibration, calibration_hash, in_precision
from wire.artifact.checkpoint import checkpoint_hash
from wire.artifact.engine_record import ENGINES, RECORD
from wire.artifact.manifest import FILES, SIGNATURE, EngineManifest, sha256_file
from wire.errors import CheckpointError, ConfigError, EngineError, ManifestError, VeilsightError
from wire.privacy.certificate import PROFILES, Certificate, round_up
from wire.privacy.level_rule import LevelRule
from wire.privacy.noise_table import NoiseTable

__all__ = ["Inputs", "build", "main", "why_build"]

_TOOLS = ("numpy", "onnx", "onnxruntime", "onnxscript", "torch", "transformers")
_ENGINE_FILES = {*FILES.values(), *ENGINES.values(), "manifest.json", SIGNATURE, "parity.json", RECORD, "timing.cache"}
_EXTERNAL = ".weights"
_OPSET = 18
_BYTES = {"fp32": 4, "fp16": 4 + 2, "int8": 4}  # of a weight on the disk while it is built, at most
# What decides how a checkpoint becomes graphs; a change of these files is a change of tools.
_SOURCES = (
    "export/*.py",
    "wire/privacy/level_rule.py",
    *(f"familial/{name}.py" for name in ("config", "desensitizer", "family", "losses", "qwen", "towers")),
)
_STEPS = 7


@dataclass(frozen=True, slots=True)
class Inputs:
    """What an engine is made of, as far as hashes and names tell: read without torch."""

    checkpoint: str
    noise_table: str
    profile: str
    clip_norm: int
    sigma: Fraction
    levels: Mapping[str, Fraction]
    precision: str
    calibration: str
    backend: str
    tools: Mapping[str, str]

    @classmethod
    def read(cls, checkpoint: Path, precision: str, backend_name: str) -> Inputs:
        """Raises CheckpointError for a file that is missing or a noise.json that contradicts itself."""
        noise = _read_noise(checkpoint)
        return cls(
            checkpoint=checkpoint_hash(checkpoint),
            noise_table=hashlib.sha256(_bytes(checkpoint, "noise_table.bin")).hexdigest(),
            profile=noise["profile"],
            clip_norm=noise["clip_norm"],
            sigma=noise["sigma"],
            levels=noise["levels"],
            precision=precision,
            calibration=calibration_hash(checkpoint, precision),
            backend=backend_name,
            tools={**{name: _version(name) for name in _TOOLS}, "sources": _hash_sources()},
        )


def _bytes(checkpoint: Path, name: str) -> bytes:
    """Content of one file of a checkpoint; CheckpointError, with the cure, where there is none."""
    try:
        return (checkpoint / name).read_bytes()
    except OSError as error:
        cure = f"run: python -m calibration.noise --checkpoint {checkpoint}"
        raise CheckpointError(f"{checkpoint / name}: {error.strerror}; {cure}") from error


def _read_noise(checkpoint: Path) -> dict[str, Any]:
    """profile, clip_norm, sigma and levels of noise.json; CheckpointError unless calibration could write it."""
    file = checkpoint / "noise.json"
    cure = f"run: python -m calibration.noise --checkpoint {checkpoint}"
    try:
        found = json.loads(_bytes(checkpoint, file.name))
        profile, clip_norm, sigma = found["profile"], found["clip_norm"], Fraction(found["sigma"])
        s_release, s_event = float(found["s_release"]), float(found["s_event"])
        levels = {str(name): Fraction(value) for name, value in found.get("levels", {}).items()}
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise CheckpointError(f"{file}: unreadable ({error!r}); {cure}") from error
    if not isinstance(clip_norm, int) or isinstance(clip_norm, bool) or not isinstance(profile, str) or sigma <= 0:
        raise CheckpointError(f"{file}: profile {profile!r}, clip_norm {clip_norm!r}, sigma {sigma} cannot be; {cure}")
    if not math.isclose(s_release, clip_norm / sigma, rel_tol=1e-4):
        raise CheckpointError(
            f"{file}: s_release is {s_release}, but clip_norm {clip_norm} and sigma {sigma} give "
            f"{float(clip_norm / sigma):.6g}; {cure}"
        )
    if s_event > PROFILES.get(profile, math.inf) * (1 + 1e-9):
        raise CheckpointError(f"{file}: s_event is {s_event}, more than profile {profile} allows; {cure}")
    return {"profile": profile, "clip_norm": clip_norm, "sigma": sigma, "levels": levels, "s_event": s_event}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _hash_sources() -> str:
    """Of the code that makes graphs out of weights; 12 hex digits."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for file in sorted(file for pattern in _SOURCES for file in root.glob(pattern)):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def why_build(out: Path, wanted: Inputs) -> str:
    """Why the engine in `out` is not the one that `wanted` gives, in words; "" where it is, every hash checked."""
    if not (out / "manifest.json").is_file():
        return "there is no engine yet"
    try:
        manifest = EngineManifest.load(out)
        manifest.check(out)
        ran_on = json.loads((out / "parity.json").read_text())["backend"]
    except (ManifestError, OSError, ValueError, KeyError, TypeError) as error:
        return f"the engine there does not hold: {error}"
    pairs = {
        "checkpoint": (manifest.hashes["checkpoint"], wanted.checkpoint),
        "noise table": (manifest.hashes["noise_table"], wanted.noise_table),
        "profile": (manifest.profile, wanted.profile),
        "clip_norm": (manifest.clip_norm, wanted.clip_norm),
        "sigma": (manifest.sigma, wanted.sigma),
        "levels": (dict(manifest.levels), dict(wanted.levels)),
        "precision": (manifest.precision, wanted.precision),
        "calibration": (manifest.hashes["calibration"], wanted.calibration),
        "backend": (ran_on, wanted.backend),
    }
    names = sorted({*manifest.tools, *wanted.tools})
    pairs |= {f"tool {name}": (manifest.tools.get(name), wanted.tools.get(name)) for name in names}
    changed = [f"{name} changed ({_short(a)} -> {_short(b)})" for name, (a, b) in pairs.items() if a != b]
    return "; ".join(changed)


def _short(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text


class _Progress:
    """A line a step: number, name, seconds, what came of it; and lines within a step that takes long."""

    def __init__(self) -> None:
        self._step, self._lead = 0, ""

    def say(self, text: str) -> None:
        """A line within a step."""
        print(f"\n      {text}", end="", flush=True)
        self._lead = f"\n{'':32}"

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """The block appends what it has to say to the list."""
        self._step += 1
        print(f"[{self._step}/{_STEPS}] {name:26}", end="", flush=True)
        started, said = time.monotonic(), list[str]()
        try:
            yield said
        except BaseException:
            print("failed", flush=True)
            raise
        print(f"{self._lead}{time.monotonic() - started:6.1f} s  {'; '.join(said)}", flush=True)
        self._lead = ""


def build(checkpoint: Path, out: Path, wanted: Inputs, engine: Backend | None = None) -> EngineManifest:
    """Make the engine folder `out`, in place of the one that is there; a VeilsightError leaves that one untouched."""
    from export.bundle import replace_folder

    engine = engine or backend(wanted.backend)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; give a folder")
    names = set(os.listdir(out)) - _ENGINE_FILES if out.is_dir() else set()
    foreign = sorted(name for name in names if not name.endswith(_EXTERNAL))
    if foreign:
        raise ConfigError(f"--out {out} holds {foreign[0]!r}, which is no part of an engine; give a folder of its own")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
            made = Path(scratch) / "engine"
            made.mkdir()
            manifest = _make(checkpoint, made, wanted, engine)
            replace_folder(made, out, Path(scratch) / "before")
    except BrokenPipeError:  # nobody reads our progress any more: no fault of the folder
        raise
    except OSError as error:
        cure = "free space there, or give another folder with --out"
        raise EngineError(f"{error.filename or out}: cannot be written ({error.strerror}); {cure}") from error
    manifest.check(out)
    return manifest


def _make(checkpoint: Path, made: Path, wanted: Inputs, engine: Backend) -> EngineManifest:
    """All files of the engine, in the folder `made`."""
    progress = _Progress()
    with progress.step("load checkpoint") as said:
        from edge_runtime.gate.sampler import Sampler
        from export import parity, trace
        from export.proof.lint import save_graph
        from export.proof.verify_graph import prove_decide, prove_encode, prove_folder

        family = trace.load_family(checkpoint)
        config = family.config
        table, *others = _noise_tables(checkpoint, wanted, config.clip_norm)
        for each in (table, *others):
            Sampler(each, config.tokens, config.width)  # refuses a table that is not sigma's distribution
        weights = sum(value.numel() for value in family.state_dict().values())
        said.append(f"{config.family}: {weights / 1e6:.2f} M weights, noise of profile {wanted.profile}")
    with progress.step("trace") as said:
        trace.require_space(weights, made, _BYTES[wanted.precision], checkpoint)
        beside = _beside(made, wanted.precision)
        traced = {
            "encode": trace.trace_encode(family, beside and beside / f"encode{_EXTERNAL}"),
            "decide": trace.trace_decide(family, beside and beside / f"decide{_EXTERNAL}"),
        }
        said += [f"{FILES[part]} {len(graph.graph.node)} nodes" for part, graph in traced.items()]
    with progress.step(f"set precision {wanted.precision}") as said:
        calibration = Calibration.load(checkpoint, wanted.checkpoint) if wanted.calibration else None
        graphs, place = {}, str(beside or "")
        for part, graph in traced.items():
            graphs[part] = in_precision(part, graph, wanted.precision, calibration, place)
            save_graph(graphs[part], made / FILES[part])
            said.append(f"{FILES[part]} {len(graphs[part].graph.node)} nodes")
        half = (
            parity.compare_half(family, traced, graphs, table, place, str(made)) if wanted.precision == "fp16" else {}
        )
        said += [f"{part} at most {found['peak']:.3g} in float16" for part, found in half.items()]
    (made / FILES["noise_table"]).write_bytes(b"".join(each.to_bytes() for each in (table, *others)))
    hashes = {part: sha256_file(made / FILES[part]) for part in ("encode", "decide", "noise_table")}
    certificate = Certificate(
        clip_norm=config.clip_norm,
        sigma=wanted.sigma,
        n=config.n,
        slot_s=config.window.slot_s,
        receptive_field_s=config.window.receptive_field_s,
        event_releases=config.event_releases,
    )
    (made / FILES["certificate"]).write_text(certificate.to_json())
    hashes |= {"checkpoint": wanted.checkpoint, "calibration": wanted.calibration, "certificate": certificate.sha256()}
    manifest = EngineManifest(
        family=config.family,
        labels=tuple(config.labels),
        window=config.window,
        tokens=config.tokens,
        width=config.width,
        event_releases=config.event_releases,
        clip_norm=config.clip_norm,
        sigma=wanted.sigma,
        levels=wanted.levels,
        adaptive_level=_adaptive_level(wanted, trace.directions(config), config.event_releases),
        profile=wanted.profile,
        precision=wanted.precision,
        opset=_OPSET,
        hashes=hashes,
        tools=wanted.tools,
        external={file.name: sha256_file(file) for file in sorted(made.glob(f"*{_EXTERNAL}"))},
    )
    manifest.save(made)
    with progress.step("prove the trusted core") as said:
        proved = prove_encode(graphs["encode"], manifest) + prove_decide(graphs["decide"], manifest)
        said.append(f"{len(proved)} statements; |mu| <= {config.clip_norm} for any weights")
    with progress.step(f"open in {engine.name}") as said:
        runner = engine.build(made, progress.say)
        said.append(f"{engine.name} {engine.version}, {wanted.precision}")
    with progress.step(f"compare {engine.runs_in}, torch") as said:
        report = parity.compare(family, runner, table, wanted.precision)
        report |= {"half": half} if half else {}
        parity.write({"ran_in": engine.runs_in, **report}, engine.name, made)
        said += parity.words(report)
    with progress.step("final check") as said:
        for _ in prove_folder(made):
            pass
        said.append(f"model {manifest.model_id:016x}")
    return manifest


def _beside(made: Path, precision: str) -> Path | None:
    """Where the traced graphs' weights go if they are large: fp16 is made of them, int8 of weights in the graph."""
    if precision == "fp32":
        return made
    if precision == "int8":
        return None
    traced = made.with_name("traced")
    traced.mkdir()
    return traced


def _adaptive_level(wanted: Inputs, directions: list[list[int]], releases: int) -> LevelRule | None:
    """The rule around the profile; None where there is no quieter level to rest at, or no louder one to rise to."""
    sigmas = sorted({wanted.sigma, *wanted.levels.values()}, reverse=True)
    level = sigmas.index(wanted.sigma)
    if not 0 < level < len(sigmas) - 1:
        return None
    return LevelRule.around(directions, wanted.clip_norm, sigmas, level, releases)


def _noise_tables(checkpoint: Path, wanted: Inputs, clip_norm: int) -> tuple[NoiseTable, ...]:
    """The checkpoint's tables, held against noise.json and config.json. Raises CheckpointError or NoiseError."""
    cure = f"run: python -m calibration.noise --checkpoint {checkpoint}"
    if wanted.clip_norm != clip_norm:
        raise CheckpointError(
            f"{checkpoint}: noise.json was made for clip_norm {wanted.clip_norm}, config.json says {clip_norm}; {cure}"
        )
    tables = NoiseTable.load_all(checkpoint / "noise_table.bin", wanted.noise_table)
    sigmas = [table.sigma for table in tables]
    if sigmas[0] != wanted.sigma or sorted(sigmas[1:]) != sorted(wanted.levels.values()):
        raise CheckpointError(
            f"{checkpoint}: noise_table.bin is for sigma {', '.join(map(str, sigmas))}, noise.json says "
            f"{', '.join(map(str, (wanted.sigma, *wanted.levels.values())))}; {cure}"
        )
    return tables


def _summary(manifest: EngineManifest, out: Path) -> str:
    """The short table at the end."""
    release, event = (manifest.certificate().reveals(count) for count in (1, manifest.event_releases))
    sizes = ", ".join(f"{name} {(out / name).stat().st_size / 1000:,.0f} kB" for name in sorted(FILES.values()))
    named = event["name_one_of"]["1000"]
    bound = (
        f"names one of 1,000 with chance {round_up(named)} at most" if named < 1 else "no bound on naming one of 1,000"
    )
    return (
        f"engine       {out}, model {manifest.model_id:016x}\n"
        f"certificate  profile {manifest.profile}: C = {manifest.clip_norm}, sigma = {float(manifest.sigma):g}; "
        f"S {round_up(release['S'])} a release, {round_up(event['S'])} an event\n"
        f"             an event reveals {round_up(event['bits'])} bits at most; {bound}\n"
        f"files        {sizes}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m export.build_engine", description="Build an engine from a checkpoint."
    )
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/nano"))
    parser.add_argument("--out", type=Path, help="engine folder (default: build/engines/ and the checkpoint's name)")
    parser.add_argument("--backend", default="onnxruntime", help=f"{', '.join(BACKENDS)}")
    parser.add_argument("--precision", default="fp32", help=f"{', '.join(PRECISIONS)}")
    parser.add_argument("--compute-capability", metavar="X.Y", nargs="+", help="what tensorrt-rtx builds for")
    parser.add_argument("--workspace-mb", type=int, default=Options().workspace_mb, help="scratch memory of a kernel")
    parser.add_argument("--level", type=int, default=Options().level, help="TensorRT's optimisation level, 0 to 5")
    parser.add_argument("--force", action="store_true", help="build even where nothing changed")
    args = parser.parse_args(argv)
    out = args.out or Path("build/engines") / args.checkpoint.resolve().name
    try:
        check_precision(args.precision)
        options = Options(args.workspace_mb, args.level, tuple(args.compute_capability or Options().targets))
        # ONNX Runtime is asked for where something is built: a folder that still holds needs no runtime.
        engine = None if args.backend == "onnxruntime" else backend(args.backend, options)
        wanted = Inputs.read(args.checkpoint, args.precision, args.backend)
        reason = "--force" if args.force else why_build(out, wanted)
        if engine is not None:
            reason = reason or engine.why_stale(out, EngineManifest.load(out))
        if not reason:
            print(f"reused: {out}; checkpoint, noise, tools and every hash are as they were")
            manifest = EngineManifest.load(out)
        else:
            print(f"building {out} from {args.checkpoint}: {reason}", flush=True)
            manifest = build(args.checkpoint, out, wanted, engine)
    except VeilsightError as error:
        print(f"build_engine: {error}", file=sys.stderr)
        return 1
    print(_summary(manifest, out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
