"""Proves, from the ONNX files alone, that the trusted core holds for any network before it. No torch.

    frames --any network--> Reshape to the constant (1, K, d) = x
    step 1   a = clip(int32(round(x)), -C, C)        b = clip(int32(trunc(x)), -C, C)
    step 2   mu = a where sum(a a) <= C^2, else b where sum(b b) <= C^2, else 0
    step 3   z = clip(mu + noise, -32768, 32767)

The proof walks back from z, node by node. Each node must be the operator that the step requires, on exactly the
tensors that the step requires; else the graph is refused (GraphError: step, node, what was expected). Why that is
enough, for all frames and all weights, NaN and infinity included:
- the result of a Cast of NaN, infinity or a float beyond int32 is undefined, but it is an int32, and the clip follows;
- then every coordinate is an integer of at most C, and n C^2 < 2^31: squares and sums are exact, in any order;
- the norms are those of the same tensors that Where selects, over all n coordinates: the Reshape fixes their shape,
  so the proof does not depend on shape inference, and no constant is large enough to broadcast it to another shape;
- noise is read once, by the addition, so the network before the core does not depend on it.
Whatever another reader of the file could understand differently is refused: subgraphs, functions, custom operators,
names made twice, inputs with defaults, protobuf that is not in canonical form, dead nodes, dynamic shapes
(`export.proof.structure`).

The same program runs where an engine is built and where it is installed: python -m export.proof.verify_graph FOLDER
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, TensorProto

from export.proof.structure import (
    OPSET,
    Graph,
    check_complete,
    check_structure,
    check_unambiguous,
    external_files,
    load_graph,
)
from wire.arguments import former_name
from wire.artifact.manifest import FILES, EngineManifest
from wire.errors import GraphError, VeilsightError
from wire.protocol.keys import PublicKey

__all__ = ["core_input", "main", "prove_decide", "prove_encode", "prove_folder"]

_INT16 = (-(2**15), 2**15 - 1)
_FLOATS = ([TensorProto.FLOAT], [TensorProto.FLOAT16])
# Operators of the core -> how many inputs, and which integer attributes, whose defaults are all harmless.
_CORE: Mapping[str, tuple[int, tuple[str, ...]]] = {
    **dict.fromkeys(("Abs", "Floor", "Identity", "Not", "Round", "Sign"), (1, ())),
    **dict.fromkeys(("Add", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mul"), (2, ())),
    **dict.fromkeys(("Clip", "Where"), (3, ())),
    "Cast": (1, ("to",)),
    "ReduceSum": (2, ("keepdims", "noop_with_empty_axes")),
    "Reshape": (2, ("allowzero",)),
}


class _Core(Graph):
    """A graph with the two queries that every step of the proof needs."""

    def maker(self, name: str, step: str, *kinds: str) -> NodeProto:
        """The node that makes `name`: one of `kinds`, with the inputs and attributes of a core node; else refuse."""
        root = self.root(name)
        node = self.makers.get(root)
        if node is None:
            kind = "an input" if root in self.inputs else "a constant"
            self.fail(step, None, f"expected {' or '.join(kinds)}, but {root!r} is {kind}")
        if node.op_type not in kinds:
            self.fail(step, node, f"expected {' or '.join(kinds)}")
        reads, allowed = _CORE[node.op_type]
        if len(node.input) != reads or not all(node.input) or len(node.output) != 1:
            self.fail(step, node, f"expected {reads} inputs and one output, found {[*node.input]}, {[*node.output]}")
        for attribute in node.attribute:
            if attribute.name not in allowed or attribute.type != AttributeProto.INT:
                self.fail(step, node, f"attribute {attribute.name!r} is not one that this step knows")
        return node

    def is_scalar(self, name: str, value: int) -> bool:
        """Whether `name` is the int32 constant `value`, too small to broadcast a code to another shape."""
        found = self.constant(name)
        if found is None or found.dtype != np.int32 or found.size != 1 or found.ndim > 3:
            return False
        return int(found.item()) == value


def prove_encode(model: onnx.ModelProto, manifest: EngineManifest, file: str = FILES["encode"]) -> list[str]:
    """Prove the trusted core on `encode` with the manifest's C, K and d.

    Returns:
        What was proved, in sentences.

    Raises:
        GraphError: The graph is refused; names step, node and what was expected.
    """
    bound, code = manifest.clip_norm, (1, manifest.tokens, manifest.width)
    if manifest.n * bound**2 >= 2**31:
        raise GraphError(f"{file}: n C^2 = {manifest.n * bound**2} must be below 2^31, or the guard overflows; lower C")
    if manifest.opset != OPSET:
        raise GraphError(f"{file}: the manifest says opset {manifest.opset}, this proof knows {OPSET}")
    graph = _Core(model, file)
    frames = (1, manifest.window.frames, manifest.window.height, manifest.window.width)
    inputs, outputs = {"frames": ("uint8", frames), "noise": ("int32", code)}, {"z": ("int32", code)}
    check_unambiguous(graph, inputs, outputs)
    _noise_is_read_once(graph)
    mu = _step_3(graph)
    a, b = _step_2(graph, mu, bound, code)
    x = _step_1(graph, a, b, bound)
    _code_shape(graph, x, code)
    if "noise" in graph.ancestors(mu):
        graph.fail("noise", None, "the code depends on the noise")
    if "frames" not in graph.ancestors(x):
        graph.fail("network", None, "the code does not depend on the frames")
    return [
        *check_complete(graph, inputs, outputs),
        "z is the only output: mu + noise, saturated to int16, and nothing after it",
        "noise is read exactly once, by that addition; nothing that mu depends on depends on it",
        f"mu is a where |a|^2 <= {bound**2}, else b where |b|^2 <= {bound**2}, else 0; all {manifest.n} coordinates",
        f"a and b are int32(round(x)) and int32(trunc(x)), clipped to +-{bound} per coordinate after the cast",
        f"x has shape {code} by a Reshape to a constant; n C^2 = {manifest.n * bound**2} < 2^31",
        f"hence |mu| <= {bound} and z = saturate(mu + noise) for any frames and any weights, NaN and infinity included",
    ]


def core_input(model: onnx.ModelProto, manifest: EngineManifest, file: str = FILES["encode"]) -> str:
    """The name of x, the float tensor that the trusted core of `encode` reads; GraphError where there is no core."""
    graph, bound = _Core(model, file), manifest.clip_norm
    a, b = _step_2(graph, _step_3(graph), bound, (1, manifest.tokens, manifest.width))
    return _step_1(graph, a, b, bound)


def _noise_is_read_once(graph: _Core) -> None:
    """Refuse a second reader of the noise: every path around the addition needs one. Runs before the steps."""
    readers = graph.readers("noise")
    if len(readers) != 1:
        other = next((node for node in readers if node.op_type != "Add"), readers[-1] if readers else None)
        graph.fail("noise", other, f"noise has {len(readers)} consumers; it is read exactly once, by the final Add")


def _step_3(graph: _Core) -> str:
    """z = saturate(mu + noise); returns the name of mu."""
    step = "step 3 (z = saturate(mu + noise))"
    add = graph.maker(_clipped(graph, "z", step, *_INT16), step, "Add")
    if "noise" not in add.input:
        graph.fail(step, add, f"adds {[*add.input]}; one operand must be the input 'noise' itself")
    return next(name for name in add.input if name != "noise")


def _clipped(graph: _Core, name: str, step: str, low: int, high: int) -> str:
    """`name` is clip(inner, low, high), in one node or as Min and Max; returns the name of inner."""
    node = graph.maker(name, step, "Clip", "Min", "Max")
    if node.op_type == "Clip":
        if not (graph.is_scalar(node.input[1], low) and graph.is_scalar(node.input[2], high)):
            graph.fail(step, node, f"must clip to the int32 constants {low} and {high}")
        return node.input[0]
    other = graph.maker(_beside(graph, node, step, low, high), step, "Min" if node.op_type == "Max" else "Max")
    return _beside(graph, other, step, low, high)


def _beside(graph: _Core, node: NodeProto, step: str, low: int, high: int) -> str:
    """The operand of a Min with the constant `high`, or of a Max with the constant `low`, that is not the constant."""
    limit = high if node.op_type == "Min" else low
    constant = [graph.is_scalar(name, limit) for name in node.input]
    if sum(constant) != 1:
        graph.fail(step, node, f"one operand must be the int32 constant {limit}")
    return node.input[constant.index(False)]


def _step_2(graph: _Core, mu: str, bound: int, code: tuple[int, ...]) -> tuple[str, str]:
    """mu = a where it fits, else b where it fits, else 0; returns the names of a and b."""
    step = "step 2 (norm guard)"
    outer = graph.maker(mu, step, "Where")
    a = graph.root(outer.input[1])
    _norm_fits(graph, outer.input[0], f"{step} of a", a, bound)
    inner = graph.maker(outer.input[2], step, "Where")
    b = graph.root(inner.input[1])
    _norm_fits(graph, inner.input[0], f"{step} of b", b, bound)
    zero = graph.constant(inner.input[2])
    if zero is None or zero.dtype != np.int32 or zero.shape not in ((), (1,), code) or zero.any():
        graph.fail(step, inner, f"where neither fits, mu must be an int32 zero of shape () or {code}")
    return a, b


def _norm_fits(graph: _Core, condition: str, step: str, code: str, bound: int) -> None:
    """`condition` says that sum(code * code) <= bound^2, over all coordinates of that same `code`."""
    node = graph.maker(condition, step, "LessOrEqual", "GreaterOrEqual", "Not")
    if node.op_type == "Not":
        node = graph.maker(node.input[0], step, "Greater", "Less")
    total, limit = node.input if node.op_type in ("LessOrEqual", "Greater") else reversed(node.input)
    if not graph.is_scalar(limit, bound**2):
        graph.fail(step, node, f"the squared norm must be compared with the int32 constant C^2 = {bound**2}")
    summed = graph.maker(total, step, "ReduceSum")
    axes = graph.constant(summed.input[1])
    given = {int(axis) % 3 for axis in axes.ravel() if -3 <= axis < 3} if axes is not None else set()
    if axes is None or axes.dtype != np.int64 or axes.ndim != 1 or not given >= {1, 2} or len(given) != axes.size:
        graph.fail(step, summed, "the sum must run over all coordinates: constant axes, 1 and 2 among them")
    square = graph.maker(summed.input[0], step, "Mul")
    if [graph.root(name) for name in square.input] != [code, code]:
        graph.fail(step, square, f"must square {code!r}, the tensor that Where hands on, not {[*square.input]}")


def _step_1(graph: _Core, a: str, b: str, bound: int) -> str:
    """a = clip(int32(round(x))), b = clip(int32(trunc(x))) of one x; returns its name."""
    step = "step 1 (round or truncate, cast, clip)"
    rounded = _cast(graph, _clipped(graph, a, f"{step} of a", -bound, bound), f"{step} of a")
    x = graph.root(graph.maker(rounded, f"{step} of a", "Round").input[0])
    step = f"{step} of b"
    truncated = _cast(graph, _clipped(graph, b, step, -bound, bound), step)
    if graph.root(truncated) == x:  # Cast itself truncates
        return x
    product = graph.maker(truncated, step, "Mul")
    parts = {node.op_type: node for node in (graph.maker(name, step, "Floor", "Sign") for name in product.input)}
    if set(parts) != {"Floor", "Sign"}:
        graph.fail(step, product, "trunc(x) is Floor(Abs(x)) times Sign(x), or what Cast does")
    inner = graph.maker(parts["Floor"].input[0], step, "Abs").input[0]
    if not graph.root(inner) == graph.root(parts["Sign"].input[0]) == x:
        graph.fail(step, product, f"must truncate {x!r}, the tensor that is rounded for a")
    return x


def _cast(graph: _Core, name: str, step: str) -> str:
    """`name` is a Cast to int32; returns the name of what is cast."""
    node = graph.maker(name, step, "Cast")
    if [attribute.i for attribute in node.attribute] != [TensorProto.INT32]:
        graph.fail(step, node, "must cast to int32")
    return node.input[0]


def _code_shape(graph: _Core, x: str, code: tuple[int, ...]) -> None:
    """x comes out of a Reshape to the constant `code`; only casts between floats may follow it."""
    step = "shape of x"
    node = graph.maker(x, step, "Reshape", "Cast")
    while node.op_type == "Cast":
        if [attribute.i for attribute in node.attribute] not in _FLOATS:
            graph.fail(step, node, "between Reshape and the core only casts to float32 or float16 are allowed")
        node = graph.maker(node.input[0], step, "Reshape", "Cast")
    shape = graph.constant(node.input[1])
    if shape is None or shape.dtype != np.int64 or shape.ndim != 1 or tuple(shape) != code:
        graph.fail(step, node, f"the shape must be the int64 constant {[*code]}, so that nothing can be broadcast")


def prove_decide(model: onnx.ModelProto, manifest: EngineManifest, file: str = FILES["decide"]) -> list[str]:
    """Check interface and structure of `decide`, which reads z alone; returns what holds, in sentences."""
    releases = manifest.event_releases
    event = (1, releases, manifest.tokens, manifest.width)
    inputs = {"z": ("int32", event), "present": ("bool", (1, releases))}
    return check_structure(model, file, inputs, {"logits": ("float32", (1, len(manifest.labels)))})


def prove_folder(folder: Path | str, signer: PublicKey | None = None) -> Iterator[str]:
    """Compare an engine folder with its manifest, prove both graphs, and yield each sentence as it is proved.

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
    for part, prove in (("encode", prove_encode), ("decide", prove_decide)):
        model = load_graph(Path(folder) / FILES[part], manifest.hashes[part])
        outside |= external_files(model)
        yield from (f"{part}: {sentence}" for sentence in prove(model, manifest))
    if outside != set(manifest.external):
        raise GraphError(
            f"weights outside the graphs are in {sorted(outside)}, the manifest pins {sorted(manifest.external)}; "
            "build the engine again: python -m export.build_engine"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 proved, 1 refused."""
    parser = argparse.ArgumentParser(
        prog="python -m export.proof.verify_graph", description="Prove an engine folder's core."
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
