"""``algorithm.launch``: the processes of a run, as ``pirl-launch`` starts and watches them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pirl_jax.recipe import ranges

_OF_ONE_MACHINE = ("learner_devices", "devices", "server_devices", "egl_devices")
_OF_RAY = ("cpus", "gpus", "learner_cpus", "learner_gpus", "server_cpus", "server_gpus")


@dataclass(frozen=True)
class LaunchConfig:
    """How many processes, where, and what becomes of those that end or hang.

    Nothing of it changes what is learned, and learner and actors need not agree on it.
    """

    backend: Literal["local", "ray"] = "local"
    """Where processes run: on this machine, or on the nodes of the Ray cluster that ``RAY_ADDRESS`` names."""
    actors: int = 1
    """Actor processes of the launch."""
    threads: int = 1
    """CPU threads of an actor's numerical libraries."""
    learner_devices: tuple[int, ...] = ()
    """GPUs that the learner sees (``CUDA_VISIBLE_DEVICES``). []: all there are."""
    devices: tuple[int, ...] = ()
    """GPUs, dealt out to the actors in turn: each sees its own alone. []: all see what there is."""
    server_devices: tuple[int, ...] = ()
    """The same for the policy servers of ``algorithm.serve.mode=process``."""
    egl_devices: tuple[int, ...] = ()
    """The same for the GPUs that draw (``MUJOCO_EGL_DEVICE_ID``). LIBERO's robosuite wants an actor's to be
    the one that it sees."""
    cpus: float = 1.0
    """``ray``: CPUs that an actor takes up, on whichever node has them free."""
    gpus: float = 0.0
    """``ray``: GPUs likewise; a part of one is shared with others."""
    learner_cpus: float = 1.0
    """``ray``: the same for the learner, on the node where the others look for it (``learner_host``)."""
    learner_gpus: float = 0.0
    """``ray``: likewise."""
    server_cpus: float = 1.0
    """``ray``: the same for a policy server, on the node that ``algorithm.serve.host`` names."""
    server_gpus: float = 0.0
    """``ray``: likewise."""
    max_restarts: int = 5
    """Times that one process is started again within ``restart_window_s``; the next end of it is the last."""
    restart_window_s: float = 3600.0
    """Seconds over which restarts are counted."""
    backoff_s: float = 5.0
    """Seconds before a process is started again; twice as many for each start within the window before it."""
    listen_within_s: float = 1800.0
    """Seconds that a learner has to load the policy, compile and listen. One that takes longer is killed, and
    the launch ends with its last lines."""
    hang_after_s: float = 600.0
    """Seconds without a sign of a process that lives, after which it is killed and started again: an actor of
    which the learner hears nothing, a learner that has listened and does not answer. An actor is silent while
    it loads its policy, and says at every chunk that it plays."""

    def __post_init__(self) -> None:
        ranges.check("launch", self)
        local = self.backend == "local"
        idle = [
            f"algorithm.launch.{name}={value}"
            for name in (_OF_RAY if local else _OF_ONE_MACHINE)
            if ((value := getattr(self, name)) or 0) != (getattr(type(self), name) or 0)
        ]
        if idle:
            because = "is for the nodes of a Ray cluster" if local else "is Ray's to say"
            raise ValueError(
                f"{', '.join(idle)} would do nothing with algorithm.launch.backend={self.backend}: that "
                f"{because}. Leave them at their defaults."
            )
