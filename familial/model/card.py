"""The model card of a checkpoint: README.md, with front matter as Hugging Face's hub reads it.

    Card --front_matter--> license, license_link, pipeline_tag, datasets, base_model, model-index (what was measured)
         --write_card----> README.md; one that somebody has written by hand is left alone

Values are written as JSON, which is YAML too. Keys after huggingface.co/docs/hub/model-cards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from familial.model.config import FamilyConfig
from wire.files import write_whole

__all__ = ["Card", "front_matter", "write_card"]

_NAME = "README.md"
_MARK = "<!-- written by familial; remove this line to keep what you write here -->"
_APACHE = "https://www.apache.org/licenses/LICENSE-2.0"
_TASK = "video-classification"
_METRICS = {
    "val_edge_full": "edge member, accuracy of whole events",
    "val_cloud_full": "cloud member, accuracy of whole events",
}
_KNOWN_BASE = re.compile(r"Qwen3-VL-\d+B-(Instruct|Thinking)")


@dataclass(frozen=True, slots=True)
class Card:
    """What a card says.

    Attributes:
        command: that wrote the checkpoint.
        config: of the family.
        sets: data set -> clips that were trained on.
        held_out: clips that were scored and calibrated on.
        scores: of those, as training names them; what a card has no row for is left out.
        base: folder that the weights began from, if any.
    """

    command: str
    config: FamilyConfig
    sets: Mapping[str, int] = field(default_factory=dict)
    held_out: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)
    base: Path | None = None


def front_matter(card: Card) -> dict[str, Any]:
    """Return the front matter: key -> value."""
    found: dict[str, Any] = {
        "library_name": "veilsight",
        "pipeline_tag": _TASK,
        "tags": ["video", "privacy", "differential-privacy", *(_slug(label) for label in card.config.labels[1:])],
        **_license(card),
    }
    if card.sets:
        found["datasets"] = sorted(_slug(name) for name in card.sets)
    if card.base is not None and _KNOWN_BASE.fullmatch(card.base.resolve().name):
        found["base_model"] = f"Qwen/{card.base.resolve().name}"
    metrics = [
        {"type": "accuracy", "name": name, "value": round(card.scores[key], 4)}
        for key, name in _METRICS.items()
        if key in card.scores
    ]
    if metrics:
        data = {"type": "held-out", "name": f"{card.held_out} clips that were not trained on"}
        result = {"task": {"type": _TASK}, "dataset": data, "metrics": metrics}
        found["model-index"] = [{"name": card.config.family, "results": [result]}]
    return found


def _license(card: Card) -> dict[str, str]:
    """Apache-2.0 for weights of rendered clips alone or of a base that says so; else what the clips' terms allow."""
    inherited = _license_of(card.base) if card.base is not None else {"license": "apache-2.0", "license_link": _APACHE}
    if not set(card.sets) - {"rendered"} and inherited:
        return inherited
    return {"license": "other", "license_name": "terms-of-base-and-clips", "license_link": _NAME}


def _license_of(folder: Path) -> dict[str, str]:
    """License and link as the card of `folder` gives them; empty where it gives none."""
    try:
        text = (folder / _NAME).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    head = text.split("---", 2)[1] if text.startswith("---") and text.count("---") > 1 else ""
    lines = re.findall(r"^(license|license_name|license_link):\s*[\"']?([^\s\"']+)[\"']?\s*$", head, re.MULTILINE)
    found = {str(key): str(value) for key, value in lines}
    if found.get("license") == "apache-2.0":
        found.setdefault("license_link", _APACHE)
    return found if "license" in found and "license_link" in found else {}


def _slug(name: str) -> str:
    """A name as the hub takes it: letters, digits, - and ., none of them at an end."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")[:90] or "unnamed"


def write_card(folder: Path, card: Card) -> str:
    """Write README.md into the checkpoint `folder`; return a line for people.

    A README.md without our mark is somebody's own and stays.
    """
    path = folder / _NAME
    if path.is_file() and _MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return f"{path} is left as it is; what was measured: {dict(card.scores)}"
    head = "".join(f"{key}: {json.dumps(value)}\n" for key, value in front_matter(card).items())
    write_whole(path, f"---\n{head}---\n{_MARK}\n{_body(card)}")
    return f"model card: {path}; say in it what the weights are for, and the terms of the clips"


def _body(card: Card) -> str:
    config, window = card.config, card.config.window
    base = f", from the weights of `{card.base.name}`" if card.base is not None else ""
    sets = "".join(f"| {name} | {count} |\n" for name, count in sorted(card.sets.items()))
    data = (
        f"| set | clips trained on |\n|---|---|\n{sets}" if sets else "None yet: the weights are those of the base.\n"
    )
    rows = "".join(f"| {name} | {card.scores[key]:.3f} |\n" for key, name in _METRICS.items() if key in card.scores)
    measured = (
        f"On {card.held_out} clips that were not trained on, noise on at the profile `{config.profile}`. Temperature "
        f"and bias were fitted on the same clips.\n\n| what | accuracy |\n|---|---|\n{rows}"
        if rows
        else "Nothing was measured: no clips were held out.\n"
    )
    return (
        f"# {config.family}\n\nA Veilsight family written by `python -m {card.command}`{base}. Labels: "
        f"{', '.join(config.labels)}; every label but the first is a risk. Input: {window.frames} grey frames of "
        f"{window.width} x {window.height}.\n\n"
        f"{_quantised(config)}"
        "**What it is not:** a medical or security device. Test it on clips of other people, rooms and cameras.\n\n"
        f"## Data and terms\n{data}\nThe weights may be used as the terms of these clips and of the base allow: write "
        f"them here before you share the weights.\n\n## Numbers\n{measured}\n"
    )


def _quantised(config: FamilyConfig) -> str:
    how = config.quantization
    if how is None:
        return ""
    return (
        f"The matrices of the blocks behind the edge's exit are integers of {how.bits} bits in groups of {how.group} "
        f"(`{how.method}`), made from the checkpoint of hash {how.base}. All other weights are that one's own.\n\n"
    )
