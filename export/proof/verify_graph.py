"""Proves, from the ONNX files alone, what the networks' process is promised of its graphs. No torch.

    perceive   one frame in colour -> heads (where the family sees people)
    encode     frames, and people, of one window -> mu              decide   z of one event -> label logits

What leaves a device is bounded by the gate, whatever a graph computes (`edge_runtime/gate/core.py`). Two promises need
the graphs themselves, and this program proves them where an engine is built, packed and installed:
- the eye forgets: a graph has no state, since nothing goes in but this window's frames and people, and nothing comes
  out but its code; no operator of it draws, loops or keeps anything from one run to the next;
- a scene cannot stop or slow it in a known way, nor have pixels put into a runtime's error text
  (`export.proof.operators`).
Whatever another reader of the file could understand differently is refused (`export.proof.structure`).

    python -m export.proof.verify_graph FOLDER
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx

from export.proof.operators import check_kinds, check_operands
from export.proof.structure import (
    OPSET,
    Graph,
    Signature,
    check_complete,
    check_unambiguous,
    external_files,
    load_graph,
    static_shapes,
)
from wire.arguments import former_name
from wire.artifact.interface import GRAPHS
from wire.artifact.manifest import EngineManifest
from wire.errors import GraphError, VeilsightError
from wire.protocol.keys import PublicKey

__all__ = ["check_graph", "main", "prove_folder", "prove_graph"]


def prove_graph(part: str, model: onnx.ModelProto, manifest: EngineManifest, folder: Path | str = "") -> list[str]:
    """Prove one graph.

    Args:
        part: A graph of the manifest: "encode", "decide", or "perceive" where it is there.
        model: The graph.
        manifest: Of its engine folder.
        folder: Where external weights lie.

    Returns:
        What was proved, in sentences.

    Raises:
        GraphError: The graph is refused; names step, node and reason.
    """
    if manifest.opset != OPSET:
        raise GraphError(f"{GRAPHS[part]}: the manifest says opset {manifest.opset}, this proof knows {OPSET}")
    interface = manifest.graphs()[part]
    return check_graph(model, GRAPHS[part], interface["inputs"], interface["outputs"], folder)


def check_graph(
    model: onnx.ModelProto, file: str, inputs: Signature, outputs: Signature, folder: Path | str = ""
) -> list[str]:
    """Do as `prove_graph` for a graph of any interface; file: its name, for messages."""
    graph = Graph(model, file)
    check_unambiguous(graph, inputs, outputs)
    check_kinds(graph)
    shapes = static_shapes(graph, outputs)
    check_complete(graph)
    kinds = len({node.op_type for node in graph.nodes})
    return [
        f"opset {OPSET}, {len(graph.nodes)} nodes of {kinds} kinds, all on the whitelist; every shape is static",
        "no subgraph, function, custom operator, sparse tensor or default; every name is made once, in order",
        f"inputs {_words(inputs)}; outputs {_words(outputs)}; every node leads there",
        "no state goes in or out and no operator keeps any: what a run gives depends on its own inputs alone",
        *check_operands(graph, shapes, folder),
    ]


def _words(table: Signature) -> str:
    return ", ".join(f"{name} {dtype} {tuple(shape)}" for name, (dtype, shape) in table.items())


def prove_folder(folder: Path | str, signer: PublicKey | None = None) -> Iterator[str]:
    """Compare an engine folder with its manifest, prove every graph, and yield each sentence as it is proved.

    Args:
        folder: The engine folder.
        signer: Whose signature the manifest must have; None: no signature is asked for.

    Raises:
        ManifestError: The signature or a hash is wrong.
        GraphError: A graph is refused.
    """
    manifest = EngineManifest.load(folder, signer)
    if signer is not None:
        yield f"the manifest is signed by {signer!r}"
    manifest.check(folder)
    yield f"every file has the hash that the manifest says; model {manifest.model_id:016x}"
    outside: set[str] = set()
    for part in manifest.graphs():
        model = load_graph(Path(folder) / GRAPHS[part], manifest.hashes[part])
        outside |= external_files(model)
        yield from (f"{part}: {sentence}" for sentence in prove_graph(part, model, manifest, folder))
    if outside != set(manifest.external):
        raise GraphError(
            f"weights outside the graphs are in {sorted(outside)}, the manifest pins {sorted(manifest.external)}; "
            "build the engine again: python -m export.build_engine"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 proved, 1 refused."""
    parser = argparse.ArgumentParser(
        prog="python -m export.proof.verify_graph", description="Prove an engine folder's graphs."
    )
    parser.add_argument("folder", type=Path, help="engine folder: encode.onnx, decide.onnx, manifest.json, ...")
    option = parser.add_argument("--signer", help="who must have signed it: 64 hex digits, or a file that holds them")
    former_name(parser, "--publisher", option)
    args = parser.parse_args(argv)
    try:
        signer = PublicKey.parse(args.signer) if args.signer else None
        for sentence in prove_folder(args.folder, signer):
            print(f"proved  {sentence}", flush=True)
    except VeilsightError as error:
        print(f"REFUSED {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
