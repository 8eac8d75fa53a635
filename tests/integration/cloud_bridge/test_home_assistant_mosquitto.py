"""Home Assistant's discovery on a real Mosquitto: retained while it is on, gone from the broker once it is off."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from paho.mqtt.publish import single

from tests.support.bridge_process import bridge_process, save_checkpoint, write_config
from tests.support.services import PATIENCE_S, Listener, until


def kept(port: int) -> dict[str, bytes]:
    """What the broker has retained for Home Assistant: all of it is on its way before what is published afterwards."""
    listener = Listener(port)
    try:
        until(lambda: any(name.endswith("/bridge") for name, _, _ in listener.messages))
        single("afterwards", port=port)
        until(lambda: any(name == "afterwards" for name, _, _ in listener.messages))
        return {name: payload for name, payload, retained in listener.messages if retained and "homeassistant/" in name}
    finally:
        listener.close()


def stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    assert process.wait(PATIENCE_S) == 0


def test_entities_are_retained_while_it_is_on_and_gone_once_it_is_off(tmp_path: Path, mosquitto: int) -> None:
    save_checkpoint(tmp_path)
    on = write_config(tmp_path, mosquitto, home_assistant={"enabled": True})
    with bridge_process(on) as process:
        until(lambda: len(kept(mosquitto)) == 10)
        found = [json.loads(payload) for payload in kept(mosquitto).values()]
        assert {each["device"]["name"] for each in found} == {"Veilsight lab/door", "Veilsight lab/hall"}
        stop(process)
    assert len(kept(mosquitto)) == 10, "a bridge that stops takes nothing back: its entities are unavailable"
    off = write_config(tmp_path, mosquitto)
    with bridge_process(off) as process:
        until(lambda: not kept(mosquitto))
        stop(process)
    assert json.loads((tmp_path / "state/home-assistant.json").read_text()) == []
