"""Changes of a true `encode` graph, each of which breaks the trusted core in one named way.

change, says = MUTANTS["guard dropped for b"]
b = build()
change(b)        # prove_encode(b.model(), MANIFEST) raises GraphError, whose message contains `says`
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from tests.support.core_graph import FRAMES, Builder, C, D, K

__all__ = ["MUTANTS", "Mutation", "attribute", "both", "drop", "find", "insert", "reads", "retype", "store"]

Mutation = Callable[[Builder], None]


def find(b: Builder, name: str) -> NodeProto:
    return next(node for node in b.nodes if node.output[0] == name)


def reads(name: str, *inputs: str) -> Mutation:
    """Node `name` reads `inputs` instead."""

    def change(b: Builder) -> None:
        node = find(b, name)
        del node.input[:]
        node.input.extend(inputs)

    return change


def store(name: str, value: Any, dtype: Any = np.int32) -> Mutation:
    return lambda b: b.constants.__setitem__(name, np.asarray(value, dtype))


def insert(before: str, kind: str, inputs: list[str], name: str, **attributes: Any) -> Mutation:
    """A new node in front of the one that makes `before`."""

    def change(b: Builder) -> None:
        place = b.nodes.index(find(b, before))
        b.nodes.insert(place, helper.make_node(kind, inputs, [name], name=f"n_{name}", **attributes))

    return change


def retype(name: str, kind: str) -> Mutation:
    return lambda b: setattr(find(b, name), "op_type", kind)


def drop(*names: str) -> Mutation:
    return lambda b: b.nodes.__setitem__(slice(None), [node for node in b.nodes if node.output[0] not in names])


def both(*changes: Mutation) -> Mutation:
    def change(b: Builder) -> None:
        for each in changes:
            each(b)

    return change


def attribute(name: str, **values: Any) -> Mutation:
    def change(b: Builder) -> None:
        node = find(b, name)
        kept = [a for a in node.attribute if a.name not in values]
        del node.attribute[:]
        node.attribute.extend([*kept, *(helper.make_attribute(k, v) for k, v in values.items())])

    return change


def _rename(b: Builder, old: str, new: str) -> None:
    for node in b.nodes:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = new if name == old else name


HALF = [[[1] * D, *[[0] * D] * (K - 1)]]
MUTANTS: dict[str, tuple[Mutation, str]] = {
    "a path around the noise": (reads("z", "mu", "z_low", "z_high"), "step 3"),
    "noise is not added": (both(reads("noised", "mu", "mu"), insert("x", "Cast", ["noise"], "n")), "noise"),
    "noise subtracted": (retype("noised", "Sub"), "step 3"),
    "noise scaled": (both(insert("noised", "Mul", ["noise", "zero"], "q"), reads("noised", "mu", "q")), "step 3"),
    "noise copied": (both(insert("noised", "Identity", ["noise"], "q"), reads("noised", "mu", "q")), "step 3"),
    "noise added twice": (reads("noised", "noise", "noise"), "noise has 2 consumers"),
    "a second consumer of the noise": (
        both(insert("z", "Sub", ["noised", "noise"], "clean"), reads("z", "clean", "z_low", "z_high")),
        "noise has 2 consumers",
    ),
    "the network reads the noise": (
        both(
            insert("h", "Cast", ["noise"], "n", to=TensorProto.FLOAT),
            insert("x", "Reshape", ["n", "flat"], "n_row"),
            insert("x", "Add", ["h", "n_row"], "h_n"),
            reads("x", "h_n", "code"),
        ),
        "noise has 2 consumers",
    ),
    "the code is chosen by the noise": (
        both(
            insert("mu", "Greater", ["noise", "zero"], "coin"),
            insert("mu", "And", ["a_fits", "coin"], "a_coin"),
            reads("mu", "a_coin", "a", "b_or_zero"),
        ),
        "noise has 2 consumers",
    ),
    "clip to another constant": (store("high", C + 1), "step 1 (round or truncate, cast, clip) of a"),
    "clip from another constant": (store("low", -C - 1), "step 1"),
    "clip constants per coordinate": (store("high", [C] * D), "step 1"),
    "clip constant of rank 4": (store("high", [[[[C]]]]), "step 1"),
    "clip in int64": (both(store("high", C, np.int64), store("low", -C, np.int64)), "step 1"),
    "clip one side only": (reads("a", "a_int", "low"), "step 1"),
    "clip without a maximum": (reads("b", "b_int", "low", ""), "step 1"),
    "the clip comes before the cast": (
        both(
            lambda b: b.constants.update(fl=np.array(-C, np.float32), fh=np.array(C, np.float32)),
            insert("a_int", "Clip", ["x_round", "fl", "fh"], "x_clip"),
            reads("a_int", "x_clip"),
            retype("a", "Identity"),
            reads("a", "a_int"),
        ),
        "step 1",
    ),
    "b is not clipped": (both(drop("b"), lambda b: _rename(b, "b_int", "b")), "step 1"),
    "cast to int64": (attribute("a_int", to=TensorProto.INT64), "step 1"),
    "cast to int8": (attribute("b_int", to=TensorProto.INT8), "step 1"),
    "rounded up": (retype("x_round", "Ceil"), "step 1"),
    "a and b of different numbers": (
        both(insert("x_abs", "Neg", ["x"], "y"), reads("x_abs", "y"), reads("x_sign", "y")),
        "step 1",
    ),
    "truncated away from zero": (retype("x_floor", "Ceil"), "step 1"),
    "norm over one axis": (store("axes", [2], np.int64), "step 2 (norm guard) of a"),
    "norm over an axis twice": (store("axes", [2, -1], np.int64), "step 2"),
    "norm over no axis": (reads("a_sum", "a_square"), "step 2"),
    "norm over half of the coordinates": (
        both(store("half", HALF), insert("a_sum", "Mul", ["a_square", "half"], "part"), reads("a_sum", "part", "axes")),
        "step 2",
    ),
    "norm of another tensor": (reads("b_square", "a", "a"), "step 2 (norm guard) of b"),
    "norm of a product": (reads("b_square", "a", "b"), "step 2 (norm guard) of b"),
    "norm before the clip": (reads("a_square", "a_int", "a_int"), "step 2"),
    "mean instead of sum": (retype("a_sum", "ReduceMean"), "step 2"),
    "limit of another constant": (store("c2", C * C + 1), "step 2"),
    "limit in float": (store("c2", C * C, np.float32), "step 2"),
    "limit per coordinate": (store("c2", np.full((1, K, D), C * C)), "step 2"),
    "compared the wrong way": (retype("a_fits", "GreaterOrEqual"), "step 2"),
    "compared less strictly": (retype("b_fits", "Greater"), "step 2"),
    "guard dropped for b": (reads("mu", "a_fits", "a", "b"), "step 2"),
    "guard dropped for both": (reads("noised", "a", "noise"), "step 2"),
    "Where swapped": (reads("mu", "a_fits", "b_or_zero", "a"), "step 2"),
    "inner Where swapped": (reads("b_or_zero", "b_fits", "zero", "b"), "step 2"),
    "Where by the other norm": (reads("mu", "b_fits", "a", "b_or_zero"), "step 2"),
    "Where hands on another tensor": (reads("mu", "a_fits", "a_int", "b_or_zero"), "step 2"),
    "the last resort is not zero": (store("zero", np.full((1, K, D), 1)), "step 2"),
    "the last resort is large": (store("zero", np.zeros((2, K, D))), "step 2"),
    "something between Where and Add": (
        both(insert("noised", "Mul", ["mu", "c2"], "loud"), reads("noised", "loud", "noise")),
        "step 2",
    ),
    "float after the core": (
        both(
            insert("noised", "Cast", ["mu"], "mu_f", to=TensorProto.FLOAT),
            insert("noised", "Cast", ["mu_f"], "mu_i", to=TensorProto.INT32),
            reads("noised", "mu_i", "noise"),
        ),
        "step 2",
    ),
    "noise added in floats": (
        both(
            insert("noised", "Cast", ["mu"], "mu_f", to=TensorProto.FLOAT),
            insert("noised", "Cast", ["noise"], "n_f", to=TensorProto.FLOAT),
            insert("z", "Cast", ["noised"], "z_i", to=TensorProto.INT32),
            reads("noised", "mu_f", "n_f"),
            reads("z", "z_i", "z_low", "z_high"),
        ),
        "step 3",
    ),
    "added after saturating": (
        both(
            insert("noised", "Clip", ["mu", "z_low", "z_high"], "narrow"),
            reads("noised", "narrow", "noise"),
            drop("z"),
            lambda b: _rename(b, "noised", "z"),
        ),
        "step 3",
    ),
    "saturated to int8": (both(store("z_low", -128), store("z_high", 127)), "step 3"),
    "a dynamic batch size": (store("code", [-1, K, D], np.int64), "shape of x"),
    "code of one token": (store("code", [1, 1, K * D], np.int64), "shape of x"),
    "no Reshape": (both(drop("x"), lambda b: _rename(b, "h", "x")), "shape of x"),
    "integers after the Reshape": (
        both(
            insert("x_round", "Cast", ["x"], "x_int", to=TensorProto.INT64),
            *(reads(name, "x_int") for name in ("x_round", "x_abs", "x_sign")),
        ),
        "shape of x",
    ),
    "dead code": (insert("mu", "Neg", ["a"], "aside"), "dead code"),
    "frames are not read": (both(drop("pixels"), store("pixels", np.zeros(FRAMES), np.float32)), "network"),
    "noise drawn in the graph": (
        both(insert("x_round", "RandomNormalLike", ["x"], "r"), reads("x_round", "r")),
        "operators: node 'n_r' (RandomNormalLike): noise is never drawn",
    ),
    "a shape that depends on data": (
        both(
            insert("h", "NonZero", ["row"], "where"), insert("h", "Cast", ["where"], "w2", to=1), reads("h", "w2", "w")
        ),
        "operators",
    ),
    "an attribute that the core does not have": (attribute("a_sum", keepdims=1, order=2), "step 2"),
    "two nodes of one name": (lambda b: setattr(find(b, "mu"), "name", "n_b_or_zero"), "names"),
    "one tensor made twice": (insert("mu", "Neg", ["b"], "a"), "names"),
    "read before it is made": (lambda b: b.nodes.insert(0, b.nodes.pop(b.nodes.index(find(b, "mu")))), "names"),
    "a constant made by a node, too": (insert("a", "Constant", [], "high", value_int=C), "names"),
    "an operator of another domain": (lambda b: setattr(find(b, "x_round"), "domain", "com.example"), "operators"),
    "an operator of the other default domain": (lambda b: setattr(find(b, "a"), "domain", "ai.onnx"), "operators"),
}
"""Name -> (what is done to the true graph, what the refusal must say)."""
