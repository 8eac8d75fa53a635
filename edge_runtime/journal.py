"""The gate's log: lines for a terminal, or for systemd's journal with the priority of each.

record --> <3>veilsight.mqtt: broker ... refuses us     where standard error is the journal's ($JOURNAL_STREAM)
--> 2026-11-28 09:00:00,123 ERROR veilsight.mqtt: broker ... refuses us                        elsewhere
"""

from __future__ import annotations

import logging
import os
import sys

__all__ = ["JournalFormatter", "start_log"]

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7


class JournalFormatter(logging.Formatter):
    """Puts the priority (sd-daemon(3)) before each line of a record; the journal has time and process itself."""

    def format(self, record: logging.LogRecord) -> str:
        """As `logging.Formatter.format`."""
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), _DEBUG)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


def start_log(level: str) -> None:
    """Write records from `level` on ("debug", "info", "warning" or "error") to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    if _is_journal():
        handler.setFormatter(JournalFormatter("%(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])


def _is_journal() -> bool:
    """Whether standard error is the stream that systemd connected with its journal."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):  # a test's
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
