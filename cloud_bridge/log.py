"""What the process writes to its log, at a bounded rate: whoever sends messages or requests must not fill a disk.

record --the same words about the same camera: five, then one a minute--> handler --> a line, or a JSON object a line
`--all the others--> counted, and the count is told with the next one

Whatever a record holds, it begins no line of its own: what cannot be shown is written as its number.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from types import TracebackType

from wire.errors import ConfigError

__all__ = ["BoundedRate", "JsonLines", "LogConfig", "TextLines", "log_of", "set_up"]

_BURST, _PER_S = 5.0, 1.0 / 60.0
_MOST_KEYS = 1024
_MOST, _MOST_TRACEBACK = 4000, 16_000  # characters of a message, of a traceback
_FORMATS = ("text", "json")
_ABOUT = ("camera", "alert", "trace")  # what a record may say of itself, beside its words


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The `[log]` section of the bridge's file.

    Attributes:
        format: "text": a line for people; "json": one JSON object a line.

    Raises:
        ConfigError: There is no such format.
    """

    format: str = "text"

    def __post_init__(self) -> None:
        if self.format not in _FORMATS:
            raise ConfigError(f"format is {self.format!r}; write {' or '.join(map(repr, _FORMATS))}")


class BoundedRate(logging.Filter):
    """Lets five records of one text and first argument through, then one a minute. Errors with a traceback as well.

    What differs in the text itself is no other text: `msg` before its arguments are put in counts. The memory is
    bounded: beyond 1,024 keys the one that was quiet longest is forgotten.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock, self._lock = clock, threading.Lock()
        self._left = OrderedDict[tuple[str, str, str], tuple[float, float, int]]()  # left, when, left out since

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written; the first one after some were left out says how many."""
        args = record.args if isinstance(record.args, tuple) else ()
        key, now_s = (record.name, str(record.msg)[:200], str(args[0])[:200] if args else ""), self._clock()
        with self._lock:
            left, then_s, out = self._left.pop(key, (_BURST, now_s, 0))
            left = min(_BURST, left + max(0.0, now_s - then_s) * _PER_S)
            passes = left >= 1.0
            self._left[key] = (left - 1.0, now_s, 0) if passes else (left, now_s, out + 1)
            if len(self._left) > _MOST_KEYS:
                self._left.popitem(last=False)
        if passes and out:
            record.msg, record.args = f"{record.getMessage()} (and {out} more like it, left out)", ()
        return passes


class TextLines(logging.Formatter):
    """`LEVEL logger: message`; a traceback follows in lines of its own, each with a space before it."""

    def format(self, record: logging.LogRecord) -> str:
        """As `logging.Formatter.format`."""
        first = f"{record.levelname} {record.name}: {_shown(record.getMessage()[:_MOST])}"
        return "\n ".join([first, *map(_shown, _traceback(self, record).splitlines())])


class JsonLines(logging.Formatter):
    """One JSON object a line, of texts alone, in ASCII.

    `time` (UTC, RFC 3339), `level`, `logger` and `message`; `camera`, `alert` and `trace` where the record has them;
    `traceback` where there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """As `logging.Formatter.format`."""
        moment = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        told = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage()[:_MOST],
            **{name: str(value)[:_MOST] for name in _ABOUT if (value := getattr(record, name, None))},
        }
        trace = _traceback(self, record)
        told |= {"traceback": trace} if trace else {}
        # half a surrogate pair is no text, and many programs refuse the whole line for it
        return json.dumps({name: text.encode("utf-8", "replace").decode() for name, text in told.items()})


def log_of(camera: str) -> logging.LoggerAdapter[logging.Logger]:
    """The log for what concerns one camera, `site/camera`."""
    return logging.LoggerAdapter(logging.getLogger("cloud_bridge"), {"camera": camera})


def set_up(config: LogConfig) -> None:
    """Write warnings and errors of this process to stderr, at a bounded rate; faults of ours as well."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if config.format == "json" else TextLines())
    handler.addFilter(BoundedRate())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    if config.format == "json":
        logging.captureWarnings(True)
        sys.excepthook = _tell
        threading.excepthook = lambda args: _tell(args.exc_type, args.exc_value, args.exc_traceback)


def _tell(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Log what nothing has caught; Ctrl-C is none of it."""
    if error is not None and not issubclass(kind, KeyboardInterrupt):
        logging.getLogger("cloud_bridge").critical("a fault of ours: %r", error, exc_info=(kind, error, trace))


def _shown(text: str) -> str:
    """A text in one line that a terminal does not obey."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """The traceback of a record; "" where it has none. Its end says what went wrong."""
    return formatter.formatException(record.exc_info)[-_MOST_TRACEBACK:] if record.exc_info else ""
