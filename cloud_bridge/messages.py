"""Fills the bridge's messages: pure functions, one for each kind."""

from __future__ import annotations

from cloud_bridge.alerts.conditions import Turn
from cloud_bridge.alerts.severity import severity_of
from cloud_bridge.inference.member import Reading
from cloud_bridge.ingest.events import Event
from wire.artifact.manifest import EngineManifest
from wire.protocol.message import Alert, Verdict

__all__ = ["fill_alert", "fill_verdict"]


def fill_verdict(
    manifest: EngineManifest, event: Event, reading: Reading, sentence: str, unsure_below: float, time_s: int
) -> Verdict:
    """Make the verdict on an event; unsure where its OOD p-value is below `unsure_below`.

    That of the edge's exit says no more than the device's own: it has no OOD p-value and is never late.
    """
    slot_s, cloud = manifest.window.slot_s, reading.member == "cloud"
    p_value = event.ood_p_value if cloud else None
    return Verdict(
        boot_id=event.boot_id,
        first_slot=event.first_slot,
        last_slot=event.last_slot,
        model_id=manifest.model_id,
        member=reading.member,
        present=tuple(bool(here) for here in event.present),
        probabilities=reading.probabilities,
        sentence=sentence,
        start_s=event.first_slot * slot_s,
        end_s=(event.last_slot + 1) * slot_s,
        ood_p_value=p_value,
        unsure=p_value is not None and p_value < unsure_below,
        attributes=reading.attributes,
        time_s=time_s,
        late=event.late and cloud,
    )


def fill_alert(manifest: EngineManifest, turn: Turn, time_s: int, device_time_s: int) -> Alert:
    """Make the message of an alert that changes; its ids are still to be given. device_time_s: as its release says."""
    change = turn.change
    return Alert(
        boot_id=turn.boot_id,
        slot=turn.slot,
        model_id=manifest.model_id,
        raised=change.raised,
        label=change.label,
        probability=change.probability,
        sentence=turn.sentence,
        at_s=(turn.slot + 1) * manifest.window.slot_s,
        time_s=time_s,
        severity=change.severity or severity_of(change.label),
        device_time_s=device_time_s,
    )
