"""Run by a test in a process of its own, with llmcompressor on the path: its GPTQ and ours on one matrix.

The last line of the output is a JSON list of [bits, largest difference of the weights, largest of round-to-nearest].
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import types

import torch

from familial.quantize.rounding import gptq, nearest

__all__ = ["main"]

_GROUP = 16


def main() -> None:
    """Print the differences."""
    _without_its_commands("llmcompressor", "llmcompressor.modifiers", "llmcompressor.modifiers.gptq")
    theirs = importlib.import_module("llmcompressor.modifiers.gptq.gptq_quantize").quantize_weight
    arguments = importlib.import_module("compressed_tensors.quantization").QuantizationArgs
    torch.manual_seed(3)
    weight, mixed = torch.randn(24, 64), torch.randn(64, 64) * torch.linspace(0.1, 2.0, 64)
    read = torch.randn(500, 64) @ mixed
    hessian, found = read.T @ read, []
    for bits in (4, 8):
        ours = gptq(weight, hessian, bits, _GROUP)
        scale, zero = ours.scale.float()[None], (ours.zero.float() - 2 ** (bits - 1))[None]
        how = {"num_bits": bits, "type": "int", "symmetric": False, "strategy": "group", "group_size": _GROUP}
        args = arguments(**how, actorder="static")
        made = theirs(weight[None].clone(), hessian[None].clone(), scale, zero, None, args)[0][0]
        pairs = (ours.floats(_GROUP), nearest(weight, bits, _GROUP).floats(_GROUP))
        found.append((bits, *(float((made - each).abs().max()) for each in pairs)))
    print(json.dumps(found))


def _without_its_commands(*packages: str) -> None:
    """Let modules of these packages be imported without what the packages themselves import: data sets, a trainer."""
    for name in packages:
        if name.partition(".")[2]:
            places = [f"{sys.modules[name.rpartition('.')[0]].__path__[0]}/{name.rpartition('.')[2]}"]
        else:
            spec = importlib.util.find_spec(name)
            places = list(spec.submodule_search_locations or ()) if spec is not None else []
        module = types.ModuleType(name)
        module.__path__ = places
        sys.modules[name] = module


if __name__ == "__main__":
    main()
