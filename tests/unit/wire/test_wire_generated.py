"""The committed protobuf code is what the compiler makes of the schema now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.services import PATIENCE_S, ROOT

WIRE = ROOT / "wire" / "protocol"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("generated")
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{WIRE}", f"--python_out={out}", f"--pyi_out={out}"]
    subprocess.run([*command, str(WIRE / "veilsight.proto")], check=True, timeout=PATIENCE_S)
    return out


@pytest.mark.parametrize("name", ["veilsight_pb2.py", "veilsight_pb2.pyi"])
def test_the_generated_code_is_current(fresh: Path, name: str) -> None:
    cure = (
        "run: python -m grpc_tools.protoc -Iwire/protocol --python_out=wire/protocol --pyi_out=wire/protocol "
        f"wire/protocol/veilsight.proto, commit {name}"
    )
    assert (fresh / name).read_text() == (WIRE / name).read_text(), cure
