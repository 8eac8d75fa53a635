"""What an engineer reads in a graph, in a viewer or a debugger: what it is, and the shape of every tensor. No torch.

    graph --shape inference--> value_info      texts below --> doc strings      hashes --> metadata

Nothing of it changes what is computed, and all of it follows from the checkpoint and its noise: the same ones give the
same bytes. The names of nodes are those of the modules that made them (`trace.tidy`).
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import ModelProto

from export.proof.structure import METADATA

__all__ = ["described"]

_GRAPHS: Mapping[str, str] = {
    "perceive": "One frame -> heads of the person network, in cells of 4 x 4 pixels; wire.people.decode reads them.",
    "encode": "One window -> mu, a code of whole numbers with |mu| <= C: pixels prepared, tower, desensitizer, core.",
    "decide": "One event of noised codes -> label logits of the edge's exit, calibrated.",
}
_VALUES: Mapping[str, str] = {
    "frame": "RGB, in the picture's proportions, top left, the rest black",
    "frames": "grey, oldest first; a black frame is a missing one",
    "people": "tracks of the people in these frames, 4 persons of 56 numbers, in 1/4096; zeros are nobody",
    "mu": "the code, before the gate adds its noise",
    "z": "codes with noise, oldest first",
    "present": "which of them arrived",
    "logits": "one for each label of the manifest, the first is no risk",
}


def described(model: ModelProto, part: str, checkpoint: str, certificate: str) -> ModelProto:
    """Return the same graph with doc strings, the type and shape of every tensor, and what it belongs to.

    Args:
        model: The graph, which is changed.
        part: "perceive", "encode" or "decide".
        checkpoint: sha256 of the checkpoint, hex.
        certificate: sha256 of the certificate, hex.
    """
    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {value.name: value for value in inferred.value_info}
    outputs = {value.name for value in graph.output}
    del graph.value_info[:], model.metadata_props[:]
    graph.value_info.extend(
        shapes[name] for node in graph.node for name in node.output if name in shapes and name not in outputs
    )
    graph.doc_string = _GRAPHS[part]
    for value in [*graph.input, *graph.output]:
        value.doc_string = _VALUES.get(value.name, "")
    for key, text in zip(METADATA, (checkpoint, certificate), strict=True):
        model.metadata_props.add(key=key, value=text)
    return model
