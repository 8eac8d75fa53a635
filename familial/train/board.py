"""Scalars for TensorBoard, beside the curve's CSV, where the package `tensorboard` is installed (extra "tensorboard").

row of the curve --Board.add--> events under build/train/NAME/tensorboard        tensorboard --logdir build/train
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["Board"]

_AXES = ("step", "seconds", "done")


class Board:
    """Writes rows of a curve; without the package it says once how to get it, and writes nothing.

    Args:
        folder: of the events.
        fresh: remove the events of an earlier training.
    """

    def __init__(self, folder: Path, fresh: bool) -> None:
        self._writer: Any = None
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        if importlib.util.find_spec("tensorboard") is None:
            print("no TensorBoard logs: pip install 'veilsight[tensorboard]' for them; the curve is a CSV file anyway")
            return
        self._writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter(str(folder))
        print(f"TensorBoard: tensorboard --logdir {folder.parent}", flush=True)

    def add(self, row: Mapping[str, float]) -> None:
        """Write the values of one row at its step, and flush: a training may be stopped at any time."""
        if self._writer is None:
            return
        for name, value in row.items():
            if name not in _AXES:
                kind = "validation" if name.startswith("val_") else "training"
                self._writer.add_scalar(f"{kind}/{name.removeprefix('val_')}", value, int(row["step"]))
        self._writer.flush()
