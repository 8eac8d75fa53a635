"""The software bill of materials of a package, in CycloneDX 1.6 (JSON, ECMA-424).

package, what it consists of --bill--> one JSON document, whose serial number is a function of the rest
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

__all__ = ["Component", "bill"]

_SPECIFICATION = "1.6"


@dataclass(frozen=True, slots=True)
class Component:
    """One thing that a package consists of.

    Attributes:
        kind: "library", "application", "machine-learning-model" or "data", as CycloneDX calls them.
        name: Its name.
        version: Its version.
        purl: Its package URL; "": it has none.
        sha256: Of the file that it was taken from; "": it is this project's own, and its files are in the manifest.
        expression: Licence as an SPDX expression; "": unknown.
        licence: Licence by name, where there is no expression; "": unknown.
    """

    kind: str
    name: str
    version: str
    purl: str = ""
    sha256: str = ""
    expression: str = ""
    licence: str = ""


def bill(package: Component, parts: Sequence[Component], epoch: int) -> str:
    """Write the bill of `package`, which consists of `parts`; `epoch` (s since 1970) is when it was made."""
    document: dict[str, Any] = {
        "$schema": f"http://cyclonedx.org/schema/bom-{_SPECIFICATION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": _SPECIFICATION,
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, timezone.utc).isoformat(),
            "component": _component(package),
        },
        "components": [_component(part) for part in parts],
        "dependencies": [
            {"ref": _reference(package), "dependsOn": sorted(_reference(part) for part in parts)},
            *({"ref": _reference(part)} for part in parts),
        ],
    }
    content = json.dumps(document, sort_keys=True)
    serial = uuid.uuid5(uuid.NAMESPACE_URL, content)
    return json.dumps({**document, "serialNumber": f"urn:uuid:{serial}"}, indent=1, sort_keys=True) + "\n"


def _reference(part: Component) -> str:
    return part.purl or f"{part.kind}:{part.name}@{part.version}"


def _component(part: Component) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": part.kind,
        "bom-ref": _reference(part),
        "name": part.name,
        "version": part.version,
    }
    if part.purl:
        found["purl"] = part.purl
    if part.sha256:
        found["hashes"] = [{"alg": "SHA-256", "content": part.sha256}]
    if part.expression:
        found["licenses"] = [{"expression": part.expression}]
    elif part.licence:
        found["licenses"] = [{"license": {"name": part.licence}}]
    return found
