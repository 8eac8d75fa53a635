"""`python -m cloud_bridge.inference.ray_serve`: the cloud member on a Ray cluster, for `member = "ray://host:port"`.

    this command --deploys--> Ray Serve: an HTTP proxy on the head node, or on each; replicas over the nodes
    bridge --HTTP--> proxy --> one of the replicas; of a node that dies, another answers

The checkpoint lies under the same path on every node; a replica whose copy has another hash does not start. Without
--cluster a cluster of this machine begins, and ends with this command; on another the application stays.

Whoever reaches another port of a Ray cluster (its job server, dashboard, Ray Client) and has Ray's token, or finds it
switched off, runs code in it: keep all but the proxy's port inside, and show the proxy to the bridge alone.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wire.arguments import at_least_one
from wire.artifact.checkpoint import checkpoint_hash
from wire.errors import ConfigError, RemoteError, VeilsightError
from wire.stopping import set_on_signals

__all__ = ["NAME", "deploy", "main", "parser"]

NAME = "veilsight"
"""Of the application on the cluster."""

_HEALTH_S = 2.0  # between two looks at a replica
_REQUEST_S = 30.0  # far above the bridge's own deadline


def main(argv: Sequence[str] | None = None) -> int:
    """Deploy, and wait for a signal; returns the exit code."""
    options = parser().parse_args(argv)
    try:
        digest = checkpoint_hash(options.checkpoint)
        _join(options.cluster)
        deploy(options, digest)
    except VeilsightError as error:
        print(f"ray_serve: {error}", file=sys.stderr)
        return 2
    scheme = "ray+https" if options.cert else "ray"
    print(f'ready: checkpoint {digest[:12]}..., member = "{scheme}://{options.host}:{options.port}"', flush=True)
    _wait_for_signal()
    _leave(stays=bool(options.cluster))
    return 0


def _wait_for_signal() -> None:
    stop = threading.Event()
    set_on_signals(stop)  # now: Ray has set its own
    stop.wait()


def _leave(stays: bool) -> None:
    """Leave the cluster; end the application where it does not stay."""
    import ray
    from ray import serve

    if not stays:
        serve.shutdown()
    ray.shutdown()


def parser() -> argparse.ArgumentParser:
    """The options of `main`."""
    made = argparse.ArgumentParser(
        prog="python -m cloud_bridge.inference.ray_serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--checkpoint", type=Path, required=True, help="its folder, under this path on every node")
    made.add_argument("--cluster", default="", help='"auto" or HOST:6379 (default: a cluster of this machine alone)')
    made.add_argument("--replicas", type=at_least_one, default=2, help="processes that read (default 2)")
    made.add_argument("--threads", type=at_least_one, default=1, help="and CPUs of each (default 1)")
    made.add_argument("--host", default="127.0.0.1", help="where the proxies listen (default 127.0.0.1)")
    made.add_argument("--port", type=int, default=8000, help="of the proxies (default 8000)")
    made.add_argument("--every-node", action="store_true", help="a proxy on each node, for a load balancer")
    made.add_argument("--token-file", default="", help="its one line must be shown by the bridge; on every node")
    made.add_argument("--cert", default="", help="certificate of the proxies, on their nodes; with --key")
    made.add_argument("--key", default="", help="the certificate's key")
    return made


def _join(cluster: str) -> None:
    """Connect to the cluster, or begin one. Raises ConfigError, RemoteError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would tell its makers of each cluster
    ray = _ray()
    if "://" in cluster:
        raise ConfigError(f'--cluster {cluster}: write "auto" or HOST:6379; Ray Client is not used')
    try:
        ray.init(address=cluster or "local", namespace=NAME, log_to_driver=False, include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        words = str(error).strip().splitlines()[0][:200]
        raise RemoteError(
            f"--cluster {cluster}: no Ray cluster answers there ({words}); is `ray start` run?"
        ) from error


def deploy(options: argparse.Namespace, digest: str) -> None:
    """Put the application on the cluster that this process has joined, and wait until all its replicas are there.

    Args:
        options: As `main` parses them.
        digest: The checkpoint's hash.

    Raises:
        RemoteError: Ray Serve says why not.
    """
    _ray()
    from ray import serve

    from cloud_bridge.inference.ray_replica import AT_ONCE, Replica

    http: dict[str, Any] = {"host": options.host, "port": options.port, "request_timeout_s": _REQUEST_S}
    if options.cert or options.key:
        http |= {"ssl_certfile": options.cert, "ssl_keyfile": options.key}
    made = serve.deployment(
        Replica,
        name="member",
        num_replicas=options.replicas,
        max_ongoing_requests=2 * AT_ONCE,
        health_check_period_s=_HEALTH_S,
        health_check_timeout_s=5 * _HEALTH_S,
        ray_actor_options={"num_cpus": options.threads},
    )
    try:
        serve.start(proxy_location="EveryNode" if options.every_node else "HeadOnly", http_options=http)
        bound = made.bind(str(options.checkpoint.absolute()), digest, options.threads, options.token_file)
        serve.run(bound, name=NAME, route_prefix="/")
    except (RuntimeError, ValueError, TimeoutError) as error:
        raise RemoteError(f"Ray Serve does not start the member: {str(error).strip()[-400:]}") from error


def _ray() -> Any:
    """The library. Raises ConfigError where it is not installed."""
    try:
        import ray
        import ray.serve
    except ImportError as error:
        raise ConfigError("Ray Serve is not installed; run: pip install 'veilsight[ray]'") from error
    return ray


if __name__ == "__main__":
    sys.exit(main())
