"""A Ray cluster of two nodes on this machine that serves the cloud member; nodes can be killed.

    parent --pipe: "kill", "add", "wait", "end"--> child: ray.cluster_utils.Cluster, the driver that deploys
                                             `--> head node: proxy, controller, a replica;  second node: a replica

For tests and campaigns. A node is a raylet with its workers; killed are all of them at once, as when a machine dies.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import socket
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from wire.artifact.checkpoint import checkpoint_hash
from wire.errors import RemoteError

__all__ = ["RayCluster"]

_PATIENCE_S = 300.0
_STORE_BYTES = 80 << 20  # of objects, a node: what is asked is a few KB


class RayCluster:
    """The cluster, for a `with` block.

    Attributes:
        member: For `[model] member`.
    """

    def __init__(self, checkpoint: Path) -> None:
        """Start nothing yet."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            self._port = server.getsockname()[1]
        self.member = f"ray://127.0.0.1:{self._port}"
        context = multiprocessing.get_context("spawn")
        self._here, self._there = context.Pipe()
        self._process = context.Process(target=_hold, args=(self._there, str(checkpoint.absolute()), self._port))

    def kill_node(self) -> None:
        """Kill the second node, with whatever it reads."""
        self._do("kill")

    def add_node(self) -> None:
        """Add a second node again; Serve puts a replica on it in its own time."""
        self._do("add")

    def wait(self) -> None:
        """Return once each node has its replica."""
        self._do("wait")

    def kill(self) -> None:
        """Kill both nodes."""
        self._do("end")

    def _do(self, what: str) -> None:
        self._here.send(what)
        self._hear()

    def _hear(self) -> None:
        try:
            said = self._here.recv() if self._here.poll(_PATIENCE_S) else "nothing"
        except EOFError:
            said = "it has ended"
        if said != "done":
            raise RemoteError(f"the Ray cluster does not do what it should: {said}")

    def __enter__(self) -> RayCluster:
        self._process.start()
        self._there.close()
        try:
            self._hear()
        except RemoteError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._here.close()
        self._process.join(_PATIENCE_S)
        self._process.kill()
        self._process.join()


def _hold(told: Connection, checkpoint: str, port: int) -> None:
    """The child: serve until it is told to end, or the parent is gone."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray notes the cluster's address in a folder that it takes to be there, and that all clusters of a machine share.
    folder = Path(tempfile.mkdtemp(prefix="vs-ray-"), "ray")
    folder.mkdir()
    os.environ["RAY_TMPDIR"] = str(folder.parent)
    with tempfile.TemporaryFile() as nobody:  # Ray tells of each node that dies, in many lines
        os.dup2(nobody.fileno(), 1)
        os.dup2(nobody.fileno(), 2)
    import ray
    from ray.cluster_utils import Cluster

    from cloud_bridge.inference.ray_serve import deploy, parser

    sizes: dict[str, Any] = {"num_cpus": 1, "object_store_memory": _STORE_BYTES, "temp_dir": str(folder)}
    cluster = None
    try:
        cluster = Cluster(initialize_head=True, head_node_args={**sizes, "include_dashboard": False})
        node = cluster.add_node(**sizes)
        ray.init(address=cluster.address, log_to_driver=False)
        deploy(parser().parse_args(["--checkpoint", checkpoint, "--port", str(port)]), checkpoint_hash(checkpoint))
        told.send("done")
        _obey(told, cluster, node, sizes)
    except EOFError:
        pass
    except Exception as error:  # noqa: BLE001  # the parent raises it, whatever it is
        told.send(repr(error))
    finally:
        for each in cluster.list_all_nodes() if cluster else ():
            _kill(each)
        shutil.rmtree(folder.parent, ignore_errors=True)
        os._exit(0)  # the driver's own threads would wait for what is gone


def _obey(told: Connection, cluster: Any, node: Any, sizes: dict[str, Any]) -> None:
    while (what := told.recv()) != "end":
        if what == "kill":
            _kill(node)
            cluster.remove_node(node, allow_graceful=False)
        elif what == "add":
            node = cluster.add_node(**sizes)
        else:
            _wait()
        told.send("done")
    for each in cluster.list_all_nodes():
        _kill(each)
    told.send("done")


def _wait() -> None:
    from ray import serve

    from cloud_bridge.inference.ray_serve import NAME

    while serve.status().applications[NAME].deployments["member"].replica_states.get("RUNNING", 0) < 2:
        time.sleep(0.2)


def _kill(node: Any) -> None:
    """SIGKILL for the node's raylet and all that it has started: without it they would go on for a second."""
    import psutil  # of the tests' packages

    own = [info.process.pid for kind in node.all_processes.values() for info in kind]
    doomed = list[psutil.Process]()
    for pid in own:
        with contextlib.suppress(psutil.NoSuchProcess):
            doomed += [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for each in doomed:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
