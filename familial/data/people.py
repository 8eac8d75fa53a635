"""People in clips, for training and evaluation: the person network on the frames that a device would show it.

    picture BGR --fitted--> frame RGB u8 (192, 256, 3) --perceive.onnx--> heads --decode, within, pack--> int16 (6, 56)

A device runs the network at the instants of its windows, a tick of `TICK_S` apart. A clip's ticks begin at its start;
the network runs on the frame held at each of them, and on the last frame, which is held after the clip's end.
"""

from __future__ import annotations

import functools
import hashlib
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wire.errors import EngineError
from wire.people.decode import HEADS, decode, place
from wire.people.packed import Packed, pack

__all__ = ["PEOPLE_VERSION", "PERCEIVE", "TICK_S", "PeopleOfClip", "PersonNetwork", "fitted", "person_network"]

PERCEIVE = Path(__file__).resolve().parents[2] / "build" / "perceive" / "perceive.onnx"
"""Where `python -m export.perceive` writes the graph."""
PEOPLE_VERSION = 1
"""Of people in the cache: raise it whenever the same clip and graph give other people here."""
TICK_S = 0.125

_EPSILON_S = 1e-6  # of comparisons between times, as `WindowSpec.held` has it
_CURE = "make it: python -m export.perceive"


def fitted(
    picture: npt.NDArray[np.uint8], size: tuple[int, int] = (192, 256), most_enlarged: float = math.inf
) -> npt.NDArray[np.uint8]:
    """Resize a picture into the network's frame: top left, in its proportions, with a black margin.

    Args:
        picture: BGR u8 (h, w, 3), or grey u8 (h, w).
        size: Of the frame.
        most_enlarged: A camera's picture is refused beyond `wire.people.decode.MOST_ENLARGED`. A clip's is enlarged as
            far as needed: it cannot be taken again, and a few people found in it are better than none.

    Returns:
        RGB u8 (*size, 3).

    Raises:
        CameraError: The picture would have to be enlarged more than that.
    """
    placed = place(picture.shape[0], picture.shape[1], size, most_enlarged)
    shrinks = placed.rows < picture.shape[0]
    resized = cv2.resize(
        picture, (placed.columns, placed.rows), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    frame = np.zeros((*size, 3), np.uint8)
    frame[: placed.rows, : placed.columns] = resized[..., ::-1] if picture.ndim == 3 else resized[..., None]
    return frame


class PersonNetwork:
    """The person network's graph, opened in ONNX Runtime on one thread when its first picture comes.

    Args:
        file: `perceive.onnx`.

    Raises:
        EngineError: The file cannot be read.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._session = file, None
        self._size = (0, 0)
        try:
            self._graph: bytes = file.read_bytes()
        except FileNotFoundError as error:
            raise EngineError(f"{file}: the person network's graph is not there; {_CURE}") from error
        except OSError as error:
            raise EngineError(f"{file}: cannot be read ({error.strerror}); {_CURE}") from error
        self.key = f"people-{PEOPLE_VERSION}-{hashlib.sha256(self._graph).hexdigest()[:16]}"
        """Name of the folder of what it found, in a cache."""

    def people(self, picture: npt.NDArray[np.uint8]) -> Packed:
        """Find the people of one picture.

        Args:
            picture: BGR u8 (h, w, 3), or grey u8 (h, w).

        Returns:
            int16 (6, VALUES).

        Raises:
            EngineError: The graph is not the person network's, or gives NaN.
        """
        session = self._session = self._session or self._opened()
        frame = fitted(picture, self._size)
        heads = dict(zip(HEADS, session.run(list(HEADS), {"frame": frame[None]}), strict=True))
        height, width = picture.shape[:2]
        return pack(decode(heads).within(place(height, width, self._size, math.inf)), height, width)

    def _opened(self) -> Any:
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError(f"ONNX Runtime cannot be imported ({error}); pip install 'veilsight[train]'") from error
        state = vars(onnxruntime.capi.onnxruntime_pybind11_state).values()
        errors = tuple(kind for kind in state if isinstance(kind, type) and issubclass(kind, Exception))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = 1, 1, 4
        options.add_session_config_entry("session.x64quantprecision", "1")  # as the device does
        try:
            session = onnxruntime.InferenceSession(self._graph, options, providers=["CPUExecutionProvider"])
        except errors as error:
            raise EngineError(f"{self._file}: ONNX Runtime cannot load it ({error}); {_CURE}") from error
        inputs = [(value.name, value.type, list(value.shape)) for value in session.get_inputs()]
        outputs = {value.name for value in session.get_outputs()}
        name, kind, shape = inputs[0] if len(inputs) == 1 else ("", "", [])
        fits = (name, kind) == ("frame", "tensor(uint8)") and len(shape) == 4 and (shape[0], shape[3]) == (1, 3)
        if not fits or not outputs.issuperset(HEADS):
            raise EngineError(
                f"{self._file}: takes {inputs} and gives {sorted(outputs)}; it is not the person network, which takes "
                f"frame uint8 (1, H, W, 3) and gives {', '.join(HEADS)}; {_CURE}"
            )
        self._size = (int(shape[1]), int(shape[2]))
        return session


def person_network(file: Path) -> PersonNetwork:
    """Return the network of the graph in `file`, the same one as long as the file stays as it is.

    Raises:
        EngineError: The file cannot be read.
    """
    try:
        stat = file.stat()
    except OSError:
        return PersonNetwork(file)  # says what is wrong
    return _network(file, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=2)
def _network(file: Path, changed_ns: int, size: int) -> PersonNetwork:
    return PersonNetwork(file)


class PeopleOfClip:
    """The people of a clip, picture by picture, as it is decoded.

    Args:
        network: What finds them.
        rate: Pictures a second.
    """

    def __init__(self, network: PersonNetwork, rate: float) -> None:
        self._network, self._rate = network, rate
        self._seen = 0
        self._waiting: tuple[npt.NDArray[np.uint8], float] | None = None
        self._people, self._times = list[Packed](), list[float]()

    def see(self, picture: npt.NDArray[np.uint8]) -> None:
        """Look at the clip's next picture, BGR u8 (h, w, 3), if it is held at a tick."""
        time, following = self._seen / self._rate, (self._seen + 1) / self._rate
        tick = math.ceil((time - _EPSILON_S) / TICK_S) * TICK_S
        self._seen += 1
        if tick + _EPSILON_S < following:
            self._take(picture, time)
        self._waiting = None if tick + _EPSILON_S < following else (picture, time)

    def found(self) -> tuple[Packed, npt.NDArray[np.float64]]:
        """Return the people int16 (Tp, 6, VALUES) and the times float64 (Tp,) of their pictures, after the last one."""
        if self._waiting is not None:
            self._take(*self._waiting)
            self._waiting = None
        return np.stack(self._people), np.asarray(self._times)

    def _take(self, picture: npt.NDArray[np.uint8], time: float) -> None:
        self._people.append(self._network.people(picture))
        self._times.append(time)
