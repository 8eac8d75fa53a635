"""The person network in the runtime that it was made for, LiteRT, in a process and an environment of its own.

    frame --pipe--> PYTHON with ai-edge-litert --pipe--> seconds, people (6, 56)

One frame goes in when the last answer is out, so that both runtimes can be timed in turns on one thread.
"""

from __future__ import annotations

import struct
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np

from benchmarks.broker import ANSWERS_ALONE, child_env
from benchmarks.device.perceive_frames import Frame
from wire.errors import EngineError
from wire.people.decode import JOINTS, PEOPLE, People

__all__ = ["Original", "as_people"]

_CHILD = (
    f"{ANSWERS_ALONE}\n"
    + """
import struct, time
import numpy as np
from ai_edge_litert.interpreter import Interpreter
height, width = int(sys.argv[2]), int(sys.argv[3])
network = Interpreter(sys.argv[1], num_threads=1)
network.resize_tensor_input(network.get_input_details()[0]["index"], (1, height, width, 3))
network.allocate_tensors()
inputs, outputs = network.get_input_details()[0]["index"], network.get_output_details()[0]["index"]
answers.write(b"ready")
answers.flush()
while frame := sys.stdin.buffer.read(height * width * 3):
    began = time.perf_counter()
    network.set_tensor(inputs, np.frombuffer(frame, np.uint8).reshape(1, height, width, 3))
    network.invoke()
    found = network.get_tensor(outputs)
    answers.write(struct.pack("<d", time.perf_counter() - began) + found.astype("<f4").tobytes())
    answers.flush()
"""
)
_ROW = JOINTS * 3 + 5
_ANSWER = 8 + PEOPLE * _ROW * 4


class Original:
    """LiteRT's process; a context manager.

    Args:
        python: An interpreter in whose environment ai-edge-litert is installed.
        weights: The network's TFLite file.
        size: Height and width of the frames.

    Raises:
        EngineError: On entry, where that interpreter cannot run the network.
    """

    def __init__(self, python: Path, weights: bytes, size: tuple[int, int]) -> None:
        self._python, self._weights, self._size = python, weights, size

    def __enter__(self) -> Original:
        self._file = tempfile.NamedTemporaryFile(suffix=".tflite")  # closed in __exit__
        self._file.write(self._weights)
        self._file.flush()
        command = [str(self._python), "-c", _CHILD, self._file.name, *map(str, self._size)]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=child_env()
            )
        except OSError as error:
            self._file.close()
            raise EngineError(f"--litert {self._python}: cannot be started ({error.strerror})") from error
        if self._read(5) != b"ready":
            self.__exit__(None, None, None)
            raise EngineError(
                f"--litert {self._python}: it does not run the network; pip install ai-edge-litert==2.3.0"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.kill()
        self._process.wait()
        self._file.close()

    def run(self, frame: Frame) -> tuple[float, People]:
        """Seconds, and people. Raises EngineError where the process has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(frame.tobytes())
            self._process.stdin.flush()
        except OSError as error:
            raise EngineError(f"--litert {self._python}: the process has ended") from error
        answer = self._read(_ANSWER)
        if len(answer) != _ANSWER:
            raise EngineError(f"--litert {self._python}: the process has ended")
        return struct.unpack_from("<d", answer)[0], as_people(np.frombuffer(answer, "<f4", offset=8))

    def _read(self, count: int) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.read(count)


def as_people(rows: np.typing.NDArray[np.float32]) -> People:
    """The original's output, 6 x 56 numbers, as People."""
    table = rows.reshape(PEOPLE, _ROW)
    return People(table[:, : JOINTS * 3].reshape(PEOPLE, JOINTS, 3), table[:, -5:-1], table[:, -1])
