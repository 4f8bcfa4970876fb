"""One of the launch's actors: when it is started, and whether it is still there."""

from __future__ import annotations

from bridge.launch.worker import Worker, dealt
from bridge.wire.protocol import ActorStatus, Status
from pirl_jax.recipe import LaunchConfig

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Actor(Worker):
    """A stock actor, and those that follow it under its number, which is its ``env.actor_id``."""

    kind, module = "actor", "lerobot.rl.actor"

    heard = 0.0
    """When the learner has last heard of it, on the caller's clock, or when it was started."""
    version: int | None = None
    """Of the parameters that its newest episode is played with."""
    registered = False
    """The learner knows the process that runs."""
    _run = _earlier = _of_this = 0

    @staticmethod
    def environment(settings: LaunchConfig, number: int) -> dict[str, str]:
        devices = {"CUDA_VISIBLE_DEVICES": settings.devices, "MUJOCO_EGL_DEVICE_ID": settings.egl_devices}
        return {**dict.fromkeys(_THREADS, str(settings.threads)), **dealt(number, devices)}

    @property
    def name(self) -> str:
        """Under which the learner knows it."""
        return str(self.number)

    @property
    def episodes(self) -> int:
        """Of its own that learners have taken."""
        return self._earlier + self._of_this

    def _may_begin(self, status: Status | None) -> bool:
        return status is not None  # else no actor can be heard of

    def _begin(self, now: float) -> None:
        folder = self.slot.fresh()
        own = (f"--env.actor_id={self.number}", f"--output_dir={folder}")
        self.slot.start((*self._arguments, *own), folder, now)
        self.heard, self.version, self.registered = now, None, False

    def _silent_s(self, now: float, status: Status | None) -> float:
        if status is None or not (self.slot.process and self.slot.process.placed):
            self.heard = now
            return 0.0
        said = [actor for actor in status.actors if actor.name == self.name]
        if said:
            self._take(min(said, key=lambda actor: actor.silent_ms), status.run, now)
        return now - self.heard

    def _take(self, said: ActorStatus, run: int, now: float) -> None:
        heard = now - said.silent_ms / 1000
        if heard < self.slot.started:  # it is of the process before, which the learner still remembers
            return
        if run != self._run or not self.registered:
            self._earlier, self._of_this = self.episodes, 0
        self._run, self.registered = run, True
        self.heard, self._of_this, self.version = max(self.heard, heard), said.episodes, said.version
