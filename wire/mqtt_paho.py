"""What we ask of a paho client besides messages: pauses of our own between attempts, and an end that nobody waits for.

paho-mqtt is imported when it is asked for, so this module loads without it.
"""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

from wire.errors import BrokerError

if TYPE_CHECKING:
    from paho.mqtt import client as mqtt

__all__ = ["choose_pauses", "require_paho", "retire"]


def choose_pauses(client: mqtt.Client, short: int = 0) -> None:
    """Choose the bounds of the pauses between attempts at random, after `short` short sessions in a row.

    The next pause is then the lower bound.
    """
    first, most = random.uniform(0.5, 1.5) * 2 ** min(short, 5), random.uniform(15, 30)
    client.reconnect_delay_set(min(first, most), most)  # type: ignore[arg-type]  # floats work


def retire(client: mqtt.Client) -> threading.Thread:
    """End a paho client without waiting for its thread, which may be connecting; returns the thread that waits."""
    client.disconnect()
    waiting = threading.Thread(target=client.loop_stop, name="mqtt-end", daemon=True)
    waiting.start()
    return waiting


def require_paho() -> None:
    """Raise BrokerError where paho-mqtt is not installed."""
    try:
        import paho.mqtt.client  # noqa: F401 - only whether it is there
    except ImportError as error:
        cure = "install it: pip install 'paho-mqtt>=2.1,<3' (it is in the extras `edge` and `cloud`)"
        raise BrokerError(f"paho-mqtt cannot be imported ({error}); {cure}") from error
