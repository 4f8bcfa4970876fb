"""``pirl-launch`` whose processes are forks: the real learner and stock actors, without their imports."""

from __future__ import annotations

import time
from pathlib import Path

from forked import Command

from bridge.launch import facts, plan
from bridge.launch.supervisor import Supervisor


class Launch:
    """``pirl-launch``, whose processes are forks."""

    def __init__(self, folder: Path, monkeypatch, *arguments: str) -> None:
        self.said: list[str] = []
        self.processes: list[tuple[str, Command]] = []

        def read(command, **_):
            log = folder / "facts.log"
            log.unlink(missing_ok=True)
            status = Command(command[2], command[3:], log).wait(120)
            return type(
                "Done", (), {"returncode": status, "stdout": log.read_text(), "stderr": log.read_text()}
            )

        def start(module, arguments, log, environment):
            self.processes.append((module, Command(module, list(arguments), log, **environment)))
            return self.processes[-1][1]

        with monkeypatch.context() as patch:
            patch.setattr(facts.subprocess, "run", read)
            self.plan = plan.prepare(arguments)
        self.supervisor = Supervisor(self.plan, self.said.append, start, poll_s=0.1)
        self.outcome = None

    def until(self, condition, timeout=120.0):
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, self.said
            self.outcome = self.supervisor.step(time.monotonic())
            assert self.outcome is None or condition(), (self.outcome, self.said)
            time.sleep(0.1)

    def end(self):
        self.until(lambda: self.outcome is not None)
        self.supervisor.close()
        assert all(process.poll() is not None for _, process in self.processes)
        return self.outcome

    def actor(self, number: int) -> Command:
        return self.supervisor.actors[number].slot.process

    def close(self):
        for _, process in self.processes:
            process.kill()
