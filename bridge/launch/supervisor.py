"""A run's learner and actors, from the first start to the end of the last."""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from bridge.launch.actor import Actor
from bridge.launch.farewell import farewell
from bridge.launch.pace import Metrics, Pace
from bridge.launch.plan import AUTO, Plan, saved_config
from bridge.launch.policy_server import PolicyServer
from bridge.launch.slot import Process, Slot, Start, how, start_command
from bridge.launch.status import Line, StatusLine
from bridge.wire.protocol import Status
from pirl_jax.console.duration import duration
from pirl_jax.files import tail
from pirl_jax.run_folder.layout import read_step

LEARNER = "pirl_jax.learner"
_STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
"""A learner's status once it was told to stop, and has saved."""
_SAY_EVERY_S = 60.0
_PATIENCE_S = 15.0
"""For the actors to end, once they are asked to."""


@dataclass(frozen=True)
class Outcome:
    """How a launch has ended, and its last line."""

    end: Literal["finished", "stopped", "failed"]
    line: str


class Supervisor:
    """Starts the processes of a plan and looks after them.

    One thread does everything, the one that calls ``run``: Linux kills the processes with the thread that
    has started them.

    Args:
        plan: What to start.
        say: Told what happens, in words.
        start: Starts a process.
        line: To the learner; None: to the plan's address.
        poll_s: Seconds between two looks.

    Attributes:
        status: The learner's last word; None while it does not listen.
        learned: All updates are done: the learner saves the last, and ends.
    """

    def __init__(
        self,
        plan: Plan,
        say: Callable[[str], None],
        start: Start = start_command,
        line: Line | None = None,
        poll_s: float = 0.5,
    ) -> None:
        self.plan, self._say, self._poll_s = plan, say, poll_s
        devices = ",".join(map(str, plan.settings.learner_devices))
        seen = {"CUDA_VISIBLE_DEVICES": devices} if devices else {}
        self.learner = Slot("the learner", LEARNER, plan.folder / "learner", plan.settings, seen, start)
        rest = plan.settings, start, say
        self.actors = [
            Actor(number, plan.actor, plan.folder / f"actor{number}", *rest)
            for number in range(plan.settings.actors)
        ]
        self.policy_servers = [
            PolicyServer(number, plan.policy_server, plan.folder / f"server{number}", *rest, address)
            for number, address in enumerate(plan.policy_servers)
        ]
        self.status: Status | None = None
        self._line = line or StatusLine(plan.address, plan.security)
        self._metrics = Metrics(plan.output_dir)
        self._answered: float | None = None
        self._told_s = 0.0
        """How long a learner that does not listen yet had been waited for when that was said last."""
        self._asked = self._obeyed = 0
        self._failure: str | None = None
        self.learned = False

    @property
    def pace(self) -> Pace:
        """How fast the run goes."""
        return self._metrics.pace()

    @property
    def stopping(self) -> bool:
        """It was asked to stop, or has given up: the learner saves."""
        return self._obeyed > 0 or self._failure is not None

    def ask_to_stop(self) -> None:
        """Have the learner save and everything end; asked twice, end everything at once. A signal may ask."""
        self._asked += 1

    def run(self, show: Callable[[Supervisor], None] = lambda supervisor: None) -> Outcome:
        """Look after the processes until the run has ended; none of them outlives the call.

        Args:
            show: Called at every look.
        """
        try:
            while (outcome := self.step(time.monotonic())) is None:
                show(self)
                time.sleep(self._poll_s)
            return outcome
        finally:
            self.close(show)

    def step(self, now: float) -> Outcome | None:
        """Look once; return how the launch has ended, if it has."""
        if self._asked > self._obeyed:
            self._obeyed = self._asked
            if (outcome := self._stop()) is not None:
                return outcome
        self.status = None if self.learner.process is None else self._line.ask()
        self.learned = self.learned or self._has_learned()
        if (outcome := self._look_after_learner(now)) is not None:
            return outcome
        if self.stopping or self.learned:
            for actor in self.actors:  # what they play would not be learned from
                actor.end()
            return None
        for worker in (*self.policy_servers, *self.actors):
            worker.step(now, self.status)
        for what, slots in self._workers.items():
            if slots and all(slot.lost is not None for slot in slots):
                return self._give_up(what, slots[0])
        return None

    @property
    def _workers(self) -> dict[str, list[Slot]]:
        """Who plays: a run ends when nobody is left of one of these."""
        return {
            "actor": [actor.slot for actor in self.actors],
            "policy server": [server.slot for server in self.policy_servers],
        }

    def close(self, show: Callable[[Supervisor], None] = lambda supervisor: None) -> None:
        """End what still runs: ask, wait for a while or until asked to stop once more, insist.

        Args:
            show: Called now and then meanwhile.
        """
        if self.learner.process is not None and not self.stopping:  # asked twice it would not save
            self.learner.process.terminate()
        for server in self.policy_servers:
            server.end()
        deadline, asked = time.monotonic() + _PATIENCE_S, self._asked
        while self._still_there() and time.monotonic() < deadline and self._asked == asked:
            show(self)
            time.sleep(0.05)
        for process in self._processes:
            process.kill()
        self._line.close()

    def _still_there(self) -> bool:
        """Ask the actors to end, once, and tell whether any process of the run has not ended."""
        for actor in self.actors:
            actor.end()
        return any(process.poll() is None for process in self._processes)

    def _has_learned(self) -> bool:
        if self.status is not None:
            return self.status.update >= self.plan.updates
        return self._answered is not None and self.pace.update >= self.plan.updates

    @property
    def _processes(self) -> list[Process]:
        slots = [self.learner, *chain(*self._workers.values())]
        return [slot.process for slot in slots if slot.process is not None]

    def _give_up(self, what: str, first: Slot) -> Outcome | None:
        """End a run that nobody plays any more; what was learned is saved first."""
        self._failure = f"no {what} is left; {first.log}: {(first.lost or '').removeprefix('error: ')}"
        if self.learner.process is None:
            return Outcome("failed", self._failure)
        self._say(f"no {what} is left: the learner saves")
        self.learner.process.terminate()
        return None

    def _stop(self) -> Outcome | None:
        if self._obeyed > 1:
            for process in self._processes:
                process.kill()
            return self._stopped("killed")
        if self.learner.process is None:
            return self._stopped("stopped")
        self.learner.process.terminate()
        # One that has not listened since it was started has learned nothing.
        what = "ends" if self._answered is None else "saves"
        self._say(f"stopping: the learner {what}; once more to kill everything at once")
        return None

    def _look_after_learner(self, now: float) -> Outcome | None:
        slot = self.learner
        if slot.process is None:
            if now >= slot.due:
                again = slot.restarts > 0
                self.learned = False
                for actor in self.actors:
                    actor.ending = False  # the learner was killed before it had saved the last update
                slot.start(self.plan.learner_again() if again else self.plan.learner, slot.fresh(), now)
                self._answered, self._told_s = None, 0.0
                self._say(f"the learner starts{' again' if again else ''}: {slot.log}")
            return None
        if (status := slot.ended()) is not None:
            return self._note_end(status, now)
        if self._answered is None and self.status is None:
            return None if self.stopping else self._await_learner(now)
        if self.status is not None:
            if self._answered is None:
                self._say(f"the learner listens on {self.plan.address}")
            self._answered = now
        elif self._answered is not None and now - self._answered > self.plan.settings.hang_after_s:
            self._say(f"the learner has not answered for {now - self._answered:.0f} s: killed")
            slot.process.kill()
        return None

    def _await_learner(self, now: float) -> Outcome | None:
        """Say each minute what a learner is about that does not listen yet; give it up after its time."""
        waited, log = now - self.learner.started, self.learner.log
        limit = self.plan.settings.listen_within_s
        if waited > limit:
            return Outcome(
                "failed",
                f"the learner has not listened within {limit:.0f} s (algorithm.launch.listen_within_s); "
                f"{log} ends:\n{tail(log)}",
            )
        if waited >= self._told_s + _SAY_EVERY_S:
            self._told_s = waited
            words = self.learner.last_words() if log.exists() and log.stat().st_size else "no word in its log"
            self._say(f"the learner does not listen yet, after {duration(waited)}: {words}")
        return None

    def _note_end(self, status: int, now: float) -> Outcome | None:
        words, said = self.learner.last_words(), f"the learner {how(status)}"
        if status == 0:
            return Outcome("finished", farewell(self.plan.output_dir, self.plan.updates))
        if status > 0 and status not in _STOPPED:
            return Outcome("failed", f"{words.removeprefix('error: ')} ({self.learner.log})")
        if self._failure is not None:
            return Outcome("failed", self._failure)
        if status > 0 or self.stopping:
            return self._stopped("stopped")
        wait = self.learner.again(now)
        if wait is None:
            return Outcome("failed", f"{said}, once too often; {self.learner.log}: {words}")
        self._say(f"{said} and is started again in {wait:.0f} s; {self.learner.log}: {words}")
        return None

    def _stopped(self, word: str) -> Outcome:
        output = f"--output_dir={self.plan.output_dir}"
        rest = [text for text in self.plan.given if not text.startswith(("--output_dir=", "--resume="))]
        command = shlex.join(["pirl-launch", *rest, output, AUTO])
        config = saved_config(self.plan.output_dir)
        if config is None:
            return Outcome("stopped", f"{word}: nothing is saved; begin anew with: {command}")
        saved = read_step(config.parents[1])
        return Outcome("stopped", f"{word}: update {saved} is saved; go on with: {command}")
