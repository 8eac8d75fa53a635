"""What reads events, as `[model]` or `[[models]]` says: the checkpoint in this process, or a server that serves it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cloud_bridge.config import RAY, ModelEntry
from cloud_bridge.inference.member import FamilyMember, Member, load_family
from wire.artifact.checkpoint import checkpoint_hash
from wire.artifact.manifest import EngineManifest
from wire.errors import ConfigError
from wire.files import read_trusted

if TYPE_CHECKING:
    from cloud_bridge.inference.endpoint import Endpoint
    from cloud_bridge.inference.remote import Dialect
    from familial.model.family import Family

__all__ = ["open_member"]


@contextmanager
def open_member(config: ModelEntry, manifest: EngineManifest, threads: int = 0) -> Iterator[Member]:
    """Load what reads events, for a `with` block; a server need not be there yet. threads: torch's; 0: it decides.

    Raises:
        CheckpointError: The checkpoint is not the manifest's.
        ConfigError: A file that `[model]` names cannot be used.
    """
    if not config.member:
        yield FamilyMember.load(config.checkpoint, manifest, threads, config.quantized, config.free_text)
        return
    from cloud_bridge.inference.endpoint import Endpoint  # httpx, which a member in this process does not need
    from cloud_bridge.inference.remote import RemoteMember

    token, tls = _token(config), _authorities(config)
    family = load_family(config.checkpoint, manifest, threads, True, config.quantized)
    endpoint = Endpoint(config.member_url, token, tls, config.member_timeout_s)
    # quantised weights have a hash of their own
    dialect = _dialect(config.member_kind, family, checkpoint_hash(config.checkpoint), endpoint)
    with closing(RemoteMember(family, dialect, config.member_timeout_s)) as member:
        yield member


def _dialect(kind: str, family: Family, checkpoint: str, endpoint: Endpoint) -> Dialect:
    """How the server is asked. checkpoint: hash."""
    if kind == RAY:
        from cloud_bridge.inference.ray_member import RayDialect, form_of

        return RayDialect(form_of(family, checkpoint), endpoint)
    from cloud_bridge.inference.vllm import VllmDialect
    from familial.model.causal_lm import served_name

    return VllmDialect(family, served_name(checkpoint), endpoint)


def _token(config: ModelEntry) -> str:
    if not config.member_token_file:
        return ""
    try:
        token = read_trusted(Path(config.member_token_file)).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"[model] member_token_file {config.member_token_file}: {error}") from error
    if not token or not token.isprintable() or " " in token:
        raise ConfigError(f"[model] member_token_file {config.member_token_file}: no token; write one line into it")
    return token


def _authorities(config: ModelEntry) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=config.member_ca or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"[model] member_ca {config.member_ca}: {error}") from error
