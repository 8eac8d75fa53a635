"""Installs an engine on the device: signature, proof, engine files for this GPU, self-test through them.

    [bundle] --signature, not older, not more revealing, hashes--> engine folder
    engine folder --the same checks, proof--> engine files, made or used again --self-test--> ready, remembered

    python -m export.install --config edge.toml [--bundle FILE.tar]
    python -m export.install ENGINE [--signer KEY] [--state DIR] [--backend tensorrt] [--cache DIR]

systemd runs it before every start of the edge process; its exit status is 0 only if every step succeeded. The first
start builds engine files, which takes minutes; later starts use them again, or print which field of their key has
changed and build them again.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.config import load_config
from edge_runtime.eye.engine.base import Engine, self_test
from edge_runtime.eye.engine.onnx import OnnxEngine
from edge_runtime.eye.engine.registry import BACKENDS, DEFAULT, check_backend
from edge_runtime.eye.engine.tensorrt import Gpu, Libraries, TensorRtEngine, device_facts, load_libraries
from edge_runtime.reader.member import EdgeMember
from export.backends.builder import Options, Say, keep_or_make, say_line
from export.bundle import unpack
from export.installed import Allowed, Record, accept, remember
from export.proof.verify_graph import prove_folder
from wire.arguments import former_name
from wire.artifact.engine_record import engine_key
from wire.artifact.manifest import EngineManifest
from wire.artifact.signature import signed_release
from wire.errors import ConfigError, EngineError, VeilsightError
from wire.protocol.keys import PublicKey

__all__ = ["Place", "install", "main"]


@dataclass(frozen=True, slots=True)
class Place:
    """What is installed, and where.

    Attributes:
        folder: The engine folder.
        signer: Whose signature its manifest must have; None: unsigned engines run.
        backend: A name of `edge_runtime.eye.engine.registry.BACKENDS`.
        cache: Where engine files are kept.
        cuda_graph: Replay a run as one CUDA graph.
        threads: Of ONNX Runtime.
        state: Where the last engine is remembered; None: nowhere, and no bundle is unpacked.
        allowed: What may take its place although it is older or reveals more.
    """

    folder: Path
    signer: PublicKey | None
    backend: str
    cache: Path
    cuda_graph: bool = False
    threads: int = 1
    state: Path | None = None
    allowed: Allowed = field(default_factory=Allowed)


def install(
    place: Place, options: Options, say: Say, bundle: Path | None = None, load: Callable[[], Libraries] = load_libraries
) -> EngineManifest:
    """Run every step in order; the first that fails raises, and no later one is run.

    Args:
        place: What is installed, and where.
        options: Of TensorRT's builder.
        say: Receives a line for each step.
        bundle: A signed bundle to put in place of `place.folder` first.
        load: Imports TensorRT and CUDA.

    Raises:
        VeilsightError: A step failed; names the fault and its cure.
    """
    check_backend(place.backend, "backend")
    if bundle is not None:
        if place.signer is None:
            raise ConfigError(f"{bundle}: who signed it? Set [engine] signer, or give --signer")
        if place.state is None:
            raise ConfigError(f"{bundle}: which engine was the last? Give --config, or --state [device] state_dir")
        unpack(bundle, place.folder, place.signer, lambda new, release: _accept(place, new, release, lambda text: None))
        say(f"unpacked   {bundle} into {place.folder}")
    manifest = EngineManifest.load(place.folder, place.signer)
    if place.signer is not None:
        _accept(place, manifest, signed_release(place.folder, place.signer), say)
    signed = f"signed by {place.signer!r}" if place.signer else "unsigned: [engine] signer is empty"
    count = sum(1 for _ in prove_folder(place.folder, place.signer))
    say(f"proved     model {manifest.model_id:016x}, {manifest.precision}, {signed}; {count} statements")
    engine = _OPENERS[place.backend](place, manifest, options, say, load)
    try:
        self_test(engine)
    finally:
        engine.close()
    EdgeMember(place.folder, manifest)  # a graph that the reader cannot run is refused here
    say(f"self-test  |mu| <= {manifest.clip_norm}, the same code twice: held through {place.backend}")
    if place.signer is not None and place.state is not None:
        release = signed_release(place.folder, place.signer)
        remember(Record.of(manifest, release), place.state, place.signer)
        say(f"release    {release} is remembered in {place.state}: no older one is accepted from now on")
    return manifest


def _accept(place: Place, manifest: EngineManifest, release: int, say: Say) -> None:
    """Refuse an engine that is older or reveals more than the last one, unless that was allowed."""
    if place.signer is None or place.state is None:
        return
    for sentence in accept(Record.of(manifest, release), place.state, place.signer, place.allowed):
        say(sentence)


def _open_onnx(
    place: Place, manifest: EngineManifest, options: Options, say: Say, load: Callable[[], Libraries]
) -> Engine:
    return OnnxEngine(place.folder, place.threads, manifest)


def _open_tensorrt(
    place: Place, manifest: EngineManifest, options: Options, say: Say, load: Callable[[], Libraries]
) -> Engine:
    found = load()
    gpu = Gpu(found.cuda)
    try:
        facts = device_facts(found.trt, gpu)
    finally:
        gpu.close()
    key = engine_key(manifest, "tensorrt", facts)
    with _alone(place.cache):  # another camera's check may make the same files: they are used again
        kept = keep_or_make(found.trt, place.folder, manifest, place.cache, key, options, say)
    device = f"{facts['gpu']} ({facts['compute_capability']}), TensorRT {facts['tensorrt']}"
    say(f"engines    {'used again' if kept else 'made'} in {place.cache} for {device}")
    return TensorRtEngine(place.folder, manifest, place.cache, place.cuda_graph, found)


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Wait until no other process makes engine files in `cache`. Raises EngineError where there can be none."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        number = os.open(cache, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise EngineError(
            f"{cache}: cannot be written ({error.strerror}); make it a folder, or give another one with --cache"
        ) from error
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


_OPENERS: Mapping[str, Callable[[Place, EngineManifest, Options, Say, Callable[[], Libraries]], Engine]] = {
    "onnxruntime": _open_onnx,
    "tensorrt": _open_tensorrt,
}
"""Backend of the device -> what makes the files it needs and opens its engine; a row for each of BACKENDS."""


def _place(args: argparse.Namespace) -> Place:
    """What to install, by the configuration or the engine folder; options of the command line override both."""
    if (args.config is None) == (args.engine is None):
        raise ConfigError("give either --config edge.toml or an engine folder")
    if args.config is None:
        folder, signer, backend, cache, cuda_graph, threads = args.engine, "", DEFAULT, "", False, 1
        state, budgets = args.state, (0.0, 0.0)
    else:
        config = load_config(args.config)
        folder, signer, backend = Path(config.engine_folder), config.engine_signer, config.engine_backend
        cache, cuda_graph, threads = config.engine_cache, config.engine_cuda_graph, config.engine_threads
        state = args.state or Path(config.device_state_dir)
        kept = config.privacy_over_budget != "report"  # else a budget is told, and does not limit
        budgets = (config.privacy_bits_per_event, config.privacy_bits_per_hour) if kept else (0.0, 0.0)
    signer = args.signer or signer
    return Place(
        folder=folder,
        signer=PublicKey.parse(signer) if signer else None,
        backend=args.backend or backend,
        cache=Path(args.cache or cache or folder),
        cuda_graph=cuda_graph,
        threads=threads,
        state=state,
        allowed=Allowed(args.allow_older, args.allow_more, *budgets),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 every step succeeded, 1 one failed and nothing may run."""
    parser = argparse.ArgumentParser(prog="python -m export.install", description="Make a device's engine, or refuse.")
    parser.add_argument("engine", type=Path, nargs="?", help="engine folder, where there is no --config")
    parser.add_argument("--config", type=Path, help="the device's edge.toml")
    parser.add_argument("--bundle", type=Path, help="a signed bundle to put in place of the engine folder first")
    option = parser.add_argument(
        "--signer", help="instead of [engine] signer: 64 hex digits, or a file that holds them"
    )
    former_name(parser, "--publisher", option)
    parser.add_argument("--backend", help=f"instead of [engine] backend: {', '.join(BACKENDS)}")
    parser.add_argument("--cache", help="instead of [engine] cache: where engine files are kept")
    parser.add_argument("--state", type=Path, help="instead of [device] state_dir: remembers the last engine")
    parser.add_argument("--allow-older", default="", metavar="9:7", help="let release 7 take the place of release 9")
    more = "let an engine whose event has S = 4 take the place of one with S = 2"
    parser.add_argument("--allow-more", default="", metavar="2.00:4.00", help=more)
    parser.add_argument("--workspace-mb", type=int, default=Options().workspace_mb, help="scratch memory of a kernel")
    parser.add_argument("--level", type=int, default=Options().level, help="TensorRT's optimisation level, 0 to 5")
    args = parser.parse_args(argv)
    try:
        install(_place(args), Options(args.workspace_mb, args.level), say_line, args.bundle)
    except VeilsightError as error:
        print(f"install: refused: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
