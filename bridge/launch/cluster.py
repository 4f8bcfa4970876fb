"""Where a launch's processes run: on this machine, or on the nodes of a Ray cluster."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bridge.launch.actor import Actor
from bridge.launch.host import Host
from bridge.launch.plan import Plan
from bridge.launch.policy_server import PolicyServer
from bridge.launch.remote import Remote
from bridge.launch.slot import Start, start_command
from bridge.launch.supervisor import LEARNER
from bridge.trust.address import is_loopback, split

_ADDRESS = "RAY_ADDRESS"
_TRAVELS = ("PIRL_", "JAX_", "XLA_", "MUJOCO_")
"""Beginnings of the names of variables that processes elsewhere have from the launch, as the token's."""
_REACHED_WITHIN_S = 10.0


@dataclass(frozen=True)
class Room:
    """What one process takes up."""

    cpus: float
    gpus: float
    host: str | None = None
    """Address of the node that it must run on; None: any."""

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs and {self.gpus:g} GPUs"


class Cluster:
    """A Ray cluster, of which this process has become a part.

    Args:
        plan: Of the launch.

    Raises:
        ValueError: There is none, or not one on which the plan's processes find each other; says what to do.
    """

    def __init__(self, plan: Plan) -> None:
        self._ray = _connected()
        alive = [node for node in self._ray.nodes() if node["Alive"]]
        self._own = self._ray.get_runtime_context().get_node_id()
        here = next(node["NodeManagerAddress"] for node in alive if node["NodeID"] == self._own)
        elsewhere = {node["NodeManagerAddress"] for node in alive} - {here}
        settings = plan.settings
        self._rooms = {
            LEARNER: Room(settings.learner_cpus, settings.learner_gpus, here),
            Actor.module: Room(settings.cpus, settings.gpus),
        }
        hosts = {"algorithm.actor_learner_config.learner_host": split(plan.address)[0]}
        if plan.policy_servers:
            host = hosts["algorithm.serve.host"] = split(plan.policy_servers[0])[0]
            node = here if is_loopback(host) else _node(host, {here, *elsewhere})
            self._rooms[PolicyServer.module] = Room(settings.server_cpus, settings.server_gpus, node)
        for name, host in hosts.items():
            if elsewhere and is_loopback(host):
                raise ValueError(
                    f"{name}={host} is found from its own machine alone, and the cluster has others: "
                    f"{', '.join(sorted(elsewhere))}. Set it to an address at which they find it; this one's "
                    f"is {here}."
                )
        self._here = here
        self.shortage = _shortage(plan, self._rooms, self._ray.cluster_resources())

    def start(
        self, module: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str]
    ) -> Remote:
        """Start a process on a node that has room for it, once there is one (``slot.Start``)."""
        room = self._rooms[module]
        variables = {name: value for name, value in os.environ.items() if name.startswith(_TRAVELS)}
        host = self._ray.remote(Host).options(**self._where(room)).remote()
        begin = partial(
            host.start.remote, module, list(arguments), variables | dict(environment), os.getcwd()
        )
        return Remote(self._ray, host, begin, log, str(room))

    def _where(self, room: Room) -> dict[str, Any]:
        takes = {"num_cpus": room.cpus, "num_gpus": room.gpus}
        if room.host is None:
            return {**takes, "scheduling_strategy": "SPREAD"}
        if room.host != self._here:
            return {**takes, "resources": {f"node:{room.host}": 0.001}}
        pinned = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        return {**takes, "scheduling_strategy": pinned(self._own, soft=False)}


@contextmanager
def processes_of(plan: Plan, say: Callable[[str], None]) -> Iterator[Start]:
    """Return what starts a plan's processes; none of those of a cluster outlives the context.

    Args:
        plan: Of the launch.
        say: Told what there is too little of.

    Raises:
        ValueError: See ``Cluster``.
    """
    if plan.settings.backend == "local":
        yield start_command
        return
    try:
        cluster = Cluster(plan)
        if cluster.shortage:
            say(cluster.shortage)
        yield cluster.start
    finally:
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()


def check_installed() -> None:
    """Check that Ray is installed.

    Raises:
        ValueError: It is not; says what to do.
    """
    if importlib.util.find_spec("ray") is None:
        raise ValueError(
            "algorithm.launch.backend=ray needs Ray, here and on every node of the cluster: pip install -c "
            "constraints.txt -e '.[ray]', or leave it at local."
        )


def _connected() -> Any:
    check_installed()
    address = os.environ.get(_ADDRESS, "auto")
    if "://" in address or address == "local":
        raise ValueError(
            f"{_ADDRESS}={address} is not supported: start pirl-launch on a node of the cluster."
        )
    told = signal.getsignal(signal.SIGTERM)
    ray = importlib.import_module("ray")
    try:
        if address != "auto":  # Ray would try for many minutes
            socket.create_connection(split(address), _REACHED_WITHIN_S).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"no Ray cluster can be joined at {_ADDRESS}={address} ({' '.join(str(error).split())}). Start "
            "one: ray start --head on this machine, ray start --address=… on the others."
        ) from error
    finally:
        signal.signal(signal.SIGTERM, told)  # for which Ray has a handler of its own
    return ray


def _node(host: str, addresses: set[str]) -> str:
    """Return the address under which a cluster has a node, given by name or address.

    Raises:
        ValueError: It has none there.
    """
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host.strip("[]"), None)} & addresses
    except OSError:
        found = set()
    if not found:
        raise ValueError(
            f"algorithm.serve.host={host} is no node of the Ray cluster: {', '.join(sorted(addresses))}."
        )
    return min(found)


def _shortage(plan: Plan, rooms: Mapping[str, Room], has: Mapping[str, float]) -> str | None:
    """Say what a cluster has too little of for all of a plan's processes at once; None: it has enough."""
    count = {LEARNER: 1, Actor.module: plan.settings.actors, PolicyServer.module: len(plan.policy_servers)}
    cpus = sum(count[module] * room.cpus for module, room in rooms.items())
    gpus = sum(count[module] * room.gpus for module, room in rooms.items())
    takes, there = Room(cpus, gpus), Room(has.get("CPU", 0), has.get("GPU", 0))
    if takes.cpus <= there.cpus and takes.gpus <= there.gpus:
        return None
    return f"the run takes {takes}, the cluster has {there}: some processes wait until there is room"
