"""``algorithm.launch``: the processes of a run, as ``pirl-launch`` starts and watches them."""

from __future__ import annotations

from dataclasses import dataclass

from pirl_jax.recipe import ranges


@dataclass(frozen=True)
class LaunchConfig:
    """How many processes, where, and what becomes of those that end or hang.

    Nothing of it changes what is learned, and learner and actors need not agree on it.
    """

    actors: int = 1
    """Actor processes on this machine."""
    threads: int = 1
    """CPU threads of an actor's numerical libraries."""
    learner_devices: tuple[int, ...] = ()
    """GPUs that the learner sees (``CUDA_VISIBLE_DEVICES``). (): all there are."""
    devices: tuple[int, ...] = ()
    """GPUs, dealt out to the actors in turn: each sees its own alone. (): all see what there is."""
    server_devices: tuple[int, ...] = ()
    """The same for the policy servers of ``algorithm.serve.mode=process``."""
    egl_devices: tuple[int, ...] = ()
    """The same for the GPUs that draw (``MUJOCO_EGL_DEVICE_ID``). LIBERO's robosuite wants an actor's to be
    the one that it sees."""
    max_restarts: int = 5
    """Times that one process is started again within ``restart_window_s``; the next end of it is the last."""
    restart_window_s: float = 3600.0
    """Seconds."""
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
