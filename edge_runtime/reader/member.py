"""The edge member in the reader: an event -> label probabilities, by NumPy alone.

    engine folder --read, plan, fold--> steps        event (z, which are present) --steps--> logits --softmax--> verdict

Why not a native runtime: the eye could signal through the machine (load, caches), and a runtime that nobody trusts
could write the signal into a published verdict, where no noise covers it. Here a verdict is a function of z and of the
graph, whatever the graph and its weights: NumPy, a list of steps, and nothing else to read.

Before anything is computed, the shapes of all tensors and the work of all nodes are known and bounded. What depends on
constants alone is then computed once. float16 is widened to float32 for each node, and its result is rounded again: as
a device computes whose products add up in float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.reader.graph import MOST_ELEMENTS, REBUILD, Array, Graph, Node, read_decide
from edge_runtime.reader.operators import OPERATORS
from wire.artifact.manifest import EngineManifest
from wire.errors import EngineError
from wire.protocol.event import EventWindow

__all__ = ["MOST_WORK", "EdgeMember", "Program"]

MOST_WORK = 2**36
"""Work of one run, at most: a multiplication of a product counts 1, an element that is read or written 16."""

_ELEMENT = 16
_FAULTS = (ValueError, TypeError, IndexError, KeyError, OverflowError, MemoryError)  # of NumPy, for a hostile graph
_HALF, _FLOAT = np.dtype(np.float16), np.dtype(np.float32)


@dataclass(frozen=True, slots=True)
class _Step:
    """A node that is run for each event.

    Attributes:
        node: The node.
        dtype: Of what it makes.
        shape: Likewise.
        half: Whether it computes in float32 what it reads or makes in float16.
        last: Names that no later step reads.
    """

    node: Node
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    half: bool
    last: tuple[str, ...] = ()


class Program:
    """A graph that can be run.

    Args:
        graph: The graph; its constants are taken over.

    Raises:
        EngineError: An operator, a type or a shape does not fit, or a run would take too much.
    """

    def __init__(self, graph: Graph) -> None:
        self._constants = {name: _widened(value) for name, value in graph.constants.items()}
        self._output = graph.output
        try:
            planned = _plan(graph)
            self._steps = _with_last(self._fold(planned), graph.output)
        except _FAULTS as error:
            raise EngineError(f"decide: the graph cannot be run ({error!r:.200}); {REBUILD}") from error

    def _fold(self, planned: Sequence[_Step]) -> list[_Step]:
        """Compute what depends on constants alone; returns the steps that are left."""
        left = []
        with np.errstate(all="ignore"):
            for step in planned:
                if all(name in self._constants for name in step.node.inputs if name):
                    self._constants[step.node.output] = np.ascontiguousarray(_widened(self._made(step, {})))
                else:
                    left.append(step)
        read = {name for step in left for name in step.node.inputs} | {self._output}
        self._constants = {name: value for name, value in self._constants.items() if name in read}
        return left

    def run(self, inputs: Mapping[str, Array]) -> Array:
        """Run the graph: name -> value of its inputs -> its output.

        Raises:
            EngineError: NumPy fails, for want of memory; without its text.
        """
        values = dict(inputs)
        try:
            with np.errstate(all="ignore"):
                for step in self._steps:
                    values[step.node.output] = self._made(step, values)
                    for name in step.last:
                        values.pop(name, None)
                return values[self._output] if self._output in values else self._constants[self._output]
        except _FAULTS as error:
            kind = type(error).__name__
        raise EngineError(f"decide: the run failed ({kind})")  # not from the error: its text stays here

    def _made(self, step: _Step, values: Mapping[str, Array]) -> Array:
        node = step.node
        given: list[Array | None] = []
        for name in node.inputs:
            value = self._constants[name] if name in self._constants else values[name] if name else None
            given.append(_widened(value) if step.half and value is not None else value)
        made = np.asarray(OPERATORS[node.kind].run(node, given))
        if step.half and made.dtype != step.dtype:
            made = made.astype(step.dtype)
        if made.dtype != step.dtype or made.shape != step.shape:
            raise EngineError(f"{node.output!r} ({node.kind}) made {made.dtype} {made.shape}, not what was planned")
        return made


def _widened(value: Array) -> Array:
    return value.astype(np.float32) if value.dtype == _HALF else value


def _ghost(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """An array of any size that takes no memory, for its dtype and shape."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def _plan(graph: Graph) -> list[_Step]:
    """Type and shape of everything that a run makes. Nothing is computed. Raises EngineError."""
    ghosts = {name: _ghost(*spec) for name, spec in graph.inputs.items()}
    ghosts |= {name: _ghost(value.dtype, value.shape) for name, value in graph.constants.items()}
    steps, work = [], 0
    for node in graph.nodes:
        operator = OPERATORS.get(node.kind)
        if operator is None:
            known = ", ".join(OPERATORS)
            raise EngineError(
                f"decide: {node.output!r} has the operator {node.kind!r}, which the reader does not have; add it to "
                f"edge_runtime/reader/operators.py, or write that layer with: {known}"
            )
        given = [_planned(node, place, graph, ghosts, operator.stored) for place in range(len(node.inputs))]
        if not given or given[0] is None or given[0].dtype.kind not in operator.types:
            raise EngineError(f"decide: {node.output!r} ({node.kind}) reads no operand of a type that it can take")
        dtype, shape = operator.shape(node, given)
        work += _work(node, given, shape)
        if math.prod(shape) > MOST_ELEMENTS or work > MOST_WORK:
            raise EngineError(
                f"decide: at {node.output!r} ({node.kind}), of shape {shape}, the graph takes more than "
                f"{MOST_ELEMENTS} elements of a tensor or {MOST_WORK} of work; {REBUILD}"
            )
        ghosts[node.output] = _ghost(dtype, shape)
        half = _HALF in {dtype, *(each.dtype for each in given if each is not None)}
        steps.append(_Step(node, dtype, shape, half))
    return steps


def _planned(node: Node, place: int, graph: Graph, ghosts: Mapping[str, Array], stored: int) -> Array | None:
    """The operand of a node at `place`: its value where it must be stored, else one of its type and shape."""
    name = node.inputs[place]
    if not name:
        return None
    if place < stored:
        return ghosts[name]
    if name not in graph.constants:
        raise EngineError(f"decide: {node.output!r} ({node.kind}): {name!r} must be stored in the file")
    return graph.constants[name]


def _work(node: Node, given: Sequence[Array | None], shape: tuple[int, ...]) -> int:
    elements: int = sum(each.size for each in given if each is not None) + math.prod(shape)
    first = given[0]
    if node.kind not in ("MatMul", "Gemm") or first is None:
        return _ELEMENT * elements
    inner: int = first.shape[-2] if node.kind == "Gemm" and node.attributes.get("transA", 0) else first.shape[-1]
    return _ELEMENT * elements + math.prod(shape) * inner


def _with_last(steps: Sequence[_Step], output: str) -> list[_Step]:
    """The steps, each with the names that no later one reads, so that a run holds no more than it needs."""
    seen, found = {output}, []
    for step in reversed(steps):
        names = {*step.node.inputs, step.node.output} - seen
        seen |= names
        found.append(_Step(step.node, step.dtype, step.shape, step.half, tuple(sorted(names))))
    return found[::-1]


class EdgeMember:
    """`decide` of an engine folder.

    Args:
        folder: The engine folder.
        manifest: The folder's manifest.

    Raises:
        ManifestError: A file is not the one that the manifest names.
        EngineError: The graph cannot be run here, or does not make logits.
    """

    def __init__(self, folder: Path | str, manifest: EngineManifest) -> None:
        self._labels = manifest.labels
        self._inputs = manifest.graphs()["decide"]["inputs"]
        self._program = Program(read_decide(folder, manifest))
        zeros = {name: np.zeros(shape, dtype) for name, (dtype, shape) in self._inputs.items()}
        made = self._program.run(zeros)
        if made.dtype != _FLOAT or made.shape != (1, len(self._labels)):
            raise EngineError(f"decide: it makes {made.dtype} {made.shape}, not one logit a label; {REBUILD}")

    def logits(self, z: npt.NDArray[np.int32], present: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """Run `decide`: z (1, R, K, d), present (1, R) -> logits (1, L). Raises EngineError."""
        given = {"z": z, "present": present}
        for name, (dtype, shape) in self._inputs.items():
            if given[name].dtype != dtype or given[name].shape != tuple(shape):
                got = f"{given[name].dtype} {given[name].shape}"
                raise EngineError(f"decide: the run failed: {name} is {got}, expected {dtype} {tuple(shape)}")
        return self._program.run(given)

    def decide(self, event: EventWindow) -> Mapping[str, float]:
        """Label -> probability (a softmax of the logits) for the releases of an event. Raises EngineError."""
        logits = self.logits(event.z[None], event.present[None])[0].astype(np.float64)
        if not np.isfinite(logits).all():
            raise EngineError("decide: the logits are not finite")
        weights = np.exp(logits - logits.max())
        return dict(zip(self._labels, (weights / weights.sum()).tolist(), strict=True))
