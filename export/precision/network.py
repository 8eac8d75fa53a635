"""The parts of a traced fp32 graph, and the values of its tensors when it runs. No torch.

    frames --preparation--> first layer with trained weights --> ... --> last layer --> x --integer core--> mu

The other precisions change only what lies between the first layer and the last one before x; `Network` finds it. The
last layer stays in float32, because its output is in lattice units, or one normalisation away from them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wire.errors import EngineError, GraphError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

__all__ = [
    "WEIGHTED",
    "Network",
    "activations",
    "measure",
    "open_session",
    "runtime_errors",
    "structure",
    "types",
    "without_tensors",
]

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that multiply by a matrix or a kernel."""


def structure(model: ModelProto) -> str:
    """Hash nodes, names, types and shapes, not the values of the weights: identifies the graph of a calibration."""
    digest = hashlib.sha256()
    for node in model.graph.node:
        digest.update(node.SerializeToString(deterministic=True))
    for tensor in model.graph.initializer:
        digest.update(f"{tensor.name} {tensor.data_type} {[*tensor.dims]}\n".encode())
    return digest.hexdigest()


def activations(
    model: ModelProto,
    feeds: Iterable[Mapping[str, npt.NDArray[Any]]],
    names: Sequence[str] | None = None,
    exact: bool = False,
    folder: str = "",
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Run the graph in ONNX Runtime and yield, for each feed, name -> value of the tensors `names`.

    Args:
        model: The graph.
        feeds: Input name -> value, for each run.
        names: Which tensors; None: every float32 tensor that a node makes.
        exact: As in `open_session`.
        folder: As in `open_session`.
    """
    from onnx import ModelProto, TensorProto, helper

    kinds = types(model)
    if names is None:
        names = [name for node in model.graph.node for name in node.output if kinds.get(name) == TensorProto.FLOAT]
    opened = ModelProto()
    opened.CopyFrom(model)
    del opened.graph.output[:]
    opened.graph.output.extend(helper.make_tensor_value_info(name, kinds[name], None) for name in names)
    run = open_session(opened, exact, folder)
    for feed in feeds:
        yield dict(zip(names, run(feed), strict=True))


def measure(model: ModelProto, feeds: Iterable[Mapping[str, npt.NDArray[Any]]], folder: str = "") -> dict[str, float]:
    """Largest magnitude of every float32 tensor that a node of the graph makes, over `feeds`; NaN where one was NaN."""
    peaks: dict[str, float] = {}
    for values in activations(model, feeds, folder=folder):
        for name, value in values.items():
            peaks[name] = float(np.maximum(peaks.get(name, 0.0), np.abs(value).max(initial=0.0)))  # NaN stays NaN
    return peaks


def open_session(model: ModelProto, exact: bool = False, folder: str = "") -> Any:
    """Open a graph in ONNX Runtime, on one thread of the CPU.

    Args:
        model: The graph, in memory.
        exact: Run node by node as the graph says, without the runtime's optimisations.
        folder: Where external data lies.

    Returns:
        A function: feed (input name -> value; more names than the graph has are ignored) -> list of outputs.

    Raises:
        EngineError: ONNX Runtime is not installed, or refuses the graph.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f"ONNX Runtime cannot be imported ({error}); pip install 'veilsight[export]'") from error
    errors = runtime_errors(onnxruntime)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.add_session_config_entry("session.x64quantprecision", "1")  # as the device does
    if folder:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    if exact:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except errors as error:
        raise EngineError(f"{model.graph.name}: cannot be opened in ONNX Runtime ({error}); export it again") from error
    wanted = {value.name for value in session.get_inputs()}
    return lambda feed: session.run(None, {name: value for name, value in feed.items() if name in wanted})


def runtime_errors(onnxruntime: Any) -> tuple[type[Exception], ...]:
    """Return every exception class of ONNX Runtime, which have no common base class."""
    state = vars(onnxruntime.capi.onnxruntime_pybind11_state).values()
    return tuple(kind for kind in state if isinstance(kind, type) and issubclass(kind, Exception))


def types(model: ModelProto) -> dict[str, int]:
    """Return name -> element type of every tensor of the graph. Raises GraphError where shape inference fails."""
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        raise GraphError(
            f"{model.graph.name}: shapes cannot be inferred ({' '.join(str(error).split())[:200]})"
        ) from error
    graph = inferred.graph
    found = {value.name: value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.input, *graph.output]}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


class Network:
    """An fp32 graph and where its parts begin and end: preparation, layers with trained weights, integer core.

    Args:
        model: The graph.
        folder: Where external data lies.

    Attributes:
        layers: Indices of the nodes with trained weights that another precision may change.
        tail: Indices of the last such nodes before x, which stay in float32.
        core: Indices of the nodes after x.
        code: Name of x, in a set; empty for a graph that makes no mu.
    """

    def __init__(self, model: ModelProto, folder: str = "") -> None:
        graph = model.graph
        self._folder = folder
        self.model, self.nodes, self.types = model, list(graph.node), types(model)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.maker = {name: index for index, node in enumerate(self.nodes) for name in node.output}
        self.readers: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for name in node.input:
                self.readers.setdefault(name, []).append(index)
        self.outputs = {value.name for value in graph.output}
        self.code = self._code()
        self.core = self._after(self.code)
        weighted = [index for index, node in enumerate(self.nodes) if index not in self.core and self._weighs(node)]
        self.tail = self._last(set(weighted))
        self.layers = [index for index in weighted if index not in self.tail]

    def array(self, name: str) -> npt.NDArray[Any]:
        """The value of a constant."""
        from onnx import numpy_helper

        return numpy_helper.to_array(self.constants[name], self._folder)

    def held(self, name: str) -> TensorProto:
        """Return a constant with its value inside the tensor, even if it was external: a new graph may contain it."""
        from onnx import numpy_helper

        tensor = self.constants[name]
        return numpy_helper.from_array(self.array(name), name) if tensor.external_data else tensor

    def after_layers(self) -> set[int]:
        """Nodes that depend on a layer, and the layers themselves; what is not among them prepares the pixels."""
        return self._after({name for index in self.layers for name in self.nodes[index].output}) | set(self.layers)

    def quantisable(self) -> list[NodeProto]:
        """Layers in the form that int8 engines support: a plain product with constant weights."""
        plain = {"alpha": 1.0, "beta": 1.0, "transA": 0}
        found = [self.nodes[index] for index in self.layers]
        found = [n for n in found if n.op_type == "Conv" or len(self.constants[n.input[1]].dims) == 2]
        return [n for n in found if all(_value(a) == plain.get(a.name, _value(a)) for a in n.attribute)]

    def is_float(self, name: str) -> bool:
        from onnx import TensorProto

        return self.types.get(name) == TensorProto.FLOAT

    def _weighs(self, node: NodeProto) -> bool:
        """Whether a node multiplies by trained weights: a constant matrix or kernel that is more than 0 and 1."""
        if node.op_type not in WEIGHTED or node.input[1] not in self.constants:
            return False
        tensor = self.constants[node.input[1]]
        if len(tensor.dims) < 2:
            return False
        small = math.prod(tensor.dims) <= 1 << 16
        return not (small and np.isin(self.array(node.input[1]), (0.0, 1.0)).all())

    def _code(self) -> set[str]:
        """x, the output of the Reshape before the integer core; nothing for a graph that makes no mu."""
        todo, code = (["mu"] if "mu" in self.outputs else []), set[str]()
        while todo:
            name = todo.pop()
            index = self.maker.get(name)
            if index is not None and self.nodes[index].op_type == "Reshape":
                code.add(name)
            elif index is not None:
                todo += self.nodes[index].input
        return code

    def _last(self, weighted: set[int]) -> set[int]:
        """The weighted nodes from which x is reached without another one: they stay in float32."""
        todo, seen, found = list(self.code), set[str](), set[int]()
        while todo:
            name = todo.pop()
            index = self.maker.get(name)
            if name in seen or index is None:
                continue
            seen.add(name)
            if index in weighted:
                found.add(index)
            else:
                todo += self.nodes[index].input
        return found

    def _after(self, names: set[str]) -> set[int]:
        """Nodes that depend on one of the tensors `names`."""
        tail, found = set(names), set[int]()
        for index, node in enumerate(self.nodes):
            if tail.intersection(node.input):
                found.add(index)
                tail.update(node.output)
        return found


def _value(attribute: Any) -> Any:
    return attribute.f if attribute.type == 1 else attribute.i


def without_tensors(model: ModelProto) -> ModelProto:
    """Copy `model` without its constants, which may be large."""
    from onnx import ModelProto

    bare = ModelProto(ir_version=model.ir_version, producer_name=model.producer_name)
    bare.opset_import.extend(model.opset_import)
    bare.graph.name = model.graph.name
    bare.graph.input.extend(model.graph.input)
    bare.graph.output.extend(model.graph.output)
    bare.graph.node.extend(model.graph.node)
    return bare
