"""One of the launch's actors: when it is started, and whether it is still there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bridge.launch.slot import Slot, Start
from bridge.wire.protocol import ActorStatus, Status
from pirl_jax.recipe import LaunchConfig

MODULE = "lerobot.rl.actor"


class Actor:
    """A stock actor, and those that follow it under its number.

    Args:
        number: ``env.actor_id``.
        arguments: Of every actor of the run.
        folder: For the folders and logs of this one.
        settings: Of the launch.
        start: Starts a process.
        say: Told what happens, in words.

    Attributes:
        episodes: Of its own that learners have taken.
        version: Of the parameters that its newest episode is played with.
        heard: When the learner has last heard of it, on the caller's clock, or when it was started.
        ending: It was asked to end, and none follows it.
    """

    def __init__(
        self,
        number: int,
        arguments: tuple[str, ...],
        folder: Path,
        settings: LaunchConfig,
        start: Start,
        say: Callable[[str], None],
    ) -> None:
        self.number, self._arguments, self._say = number, arguments, say
        self._hang_after_s = settings.hang_after_s
        self.slot = Slot(f"actor {number}", MODULE, folder, settings, environment(settings, number), start)
        self.heard = 0.0
        self.version: int | None = None
        self._run = 0
        self._earlier = self._of_this = 0
        self.registered = self.ending = False

    @property
    def name(self) -> str:
        """Under which the learner knows it."""
        return str(self.number)

    @property
    def episodes(self) -> int:
        """Of its own that learners have taken."""
        return self._earlier + self._of_this

    def step(self, now: float, status: Status | None) -> None:
        """Look after the process.

        Args:
            now: Seconds.
            status: The learner's word; None: it does not listen, so that no actor can be heard of.
        """
        ended = self.slot.ended()
        if ended is not None:
            self.slot.note_end(ended, now, self._say)
        elif self.slot.process is not None:
            self._listen(now, status)
        elif self.slot.lost is None and status is not None and now >= self.slot.due:
            self._begin(now)

    def end(self) -> None:
        """Ask the process to end, once; no other follows it."""
        self.slot.ended()
        if not self.ending and self.slot.process is not None:
            self.slot.process.terminate()
        self.ending = True

    def _begin(self, now: float) -> None:
        folder = self.slot.fresh()
        own = (f"--env.actor_id={self.number}", f"--output_dir={folder}")
        self.slot.start((*self._arguments, *own), folder, now)
        self.heard, self.version, self.registered = now, None, False

    def _listen(self, now: float, status: Status | None) -> None:
        if status is None:
            self.heard = now
            return
        said = [actor for actor in status.actors if actor.name == self.name]
        if said:
            self._take(min(said, key=lambda actor: actor.silent_ms), status.run, now)
        if now - self.heard > self._hang_after_s:
            assert self.slot.process is not None
            self.slot.process.kill()
            self._say(f"{self.slot.name} was not heard of for {now - self.heard:.0f} s: killed")

    def _take(self, said: ActorStatus, run: int, now: float) -> None:
        heard = now - said.silent_ms / 1000
        if heard < self.slot.started:  # it is of the process before, which the learner still remembers
            return
        if run != self._run or not self.registered:
            self._earlier, self._of_this = self.episodes, 0
        self._run, self.registered = run, True
        self.heard, self._of_this, self.version = max(self.heard, heard), said.episodes, said.version


def environment(settings: LaunchConfig, number: int) -> dict[str, str]:
    """Return the variables that an actor's process has besides the launch's own."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    variables = {name: str(settings.threads) for name in names}
    for name, devices in (
        ("CUDA_VISIBLE_DEVICES", settings.devices),
        ("MUJOCO_EGL_DEVICE_ID", settings.egl_devices),
    ):
        if devices:
            variables[name] = str(devices[number % len(devices)])
    return variables
