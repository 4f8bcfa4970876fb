"""A launch whose processes are stand-ins, and what a test wants to see of it."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bridge.launch.plan import Plan
from bridge.launch.supervisor import Outcome, Supervisor
from bridge.processes import Command
from bridge.wire.protocol import ActorStatus, Status
from pirl_jax.recipe import LaunchConfig

HERE = Path(__file__).parent
PATIENCE_S = 20.0


class Stage:
    """Starts stand-ins, and says of them what a learner would.

    Args:
        folder: They beat there.
        behaviours: Name (``learner``, ``0``, ``1``, …) → what its first, second, … process does.

    Attributes:
        started: (name, arguments) of every process.
        processes: The newest of each name.
        done: Updates that the learner says are done.
    """

    def __init__(self, folder: Path, behaviours: Mapping[str, Sequence[str]]) -> None:
        self.folder = folder
        self.behaviours = {"learner": ["run"], **behaviours}
        self.started: list[tuple[str, tuple[str, ...]]] = []
        self.processes: dict[str, Command] = {}
        self.done = 0
        self._starts: Counter[str] = Counter()

    def start(
        self, module: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str]
    ) -> Command:
        """Start the next stand-in of the name that the arguments say."""
        values = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
        others = {"pirl_jax.learner": "learner", "pirl_jax.serve": f"server{values.get('replica')}"}
        name = others.get(module) or values["env.actor_id"]
        self.started.append((name, tuple(arguments)))
        values.setdefault("output_dir", str(log.with_suffix("")))
        Path(values["output_dir"]).mkdir(parents=True, exist_ok="resume" in values)  # as LeRobot does
        behaviours = self.behaviours[name]
        behaviour = behaviours[min(self._starts[name], len(behaviours) - 1)]
        self._starts[name] += 1
        path = {"PYTHONPATH": str(HERE)}
        own = [name, behaviour, str(self.folder), values["output_dir"]]
        self.processes[name] = Command("stand_in", own, log, environment={**environment, **path})
        return self.processes[name]

    def ask(self) -> Status | None:
        """Say what a learner would, of those whose hearts beat."""
        silent = {file.stem: time.time() - file.stat().st_mtime for file in self.folder.glob("*.beat")}
        learner = self.processes.get("learner")
        if learner is None or learner.poll() is not None or silent.pop("learner", 99) > 1:
            return None
        actors = [
            ActorStatus(name, round(1000 * max(0, s)), 2, 1) for name, s in silent.items() if name.isdecimal()
        ]
        servers = [name for name, s in silent.items() if name.startswith("server") and s < 1]
        return Status(1, self.done, 10, 1, 0, 4, 0, 0, actors, servers=servers)

    def close(self) -> None:
        """Hang up."""

    def starts(self, name: str) -> int:
        """How often a process of this name was started."""
        return self._starts[name]

    def beats(self, *names: str) -> bool:
        """Tell whether each of these has a process that has come to life."""
        return all(
            name in self.processes
            and (file := self.folder / f"{name}.beat").exists()
            and file.read_text() == str(self.processes[name].pid)
            for name in names
        )

    def signal(self, name: str, number: int) -> None:
        """Send a signal to the process of this name."""
        os.kill(self.processes[name].pid, number)


class House(Stage):
    """A supervisor of stand-ins.

    Args:
        folder: Everything goes there.
        behaviours: See ``Stage``.
        settings: Of the launch.

    Attributes:
        said: What the supervisor has said.
    """

    def __init__(self, folder: Path, behaviours: Mapping[str, Sequence[str]], **settings) -> None:
        super().__init__(folder, behaviours)
        self.output_dir = folder / "run"
        defaults = {"backoff_s": 0.05, "max_restarts": 2, "hang_after_s": 5.0}
        actors = sum(name.isdecimal() for name in self.behaviours)
        self.plan = Plan(
            output_dir=self.output_dir,
            updates=10,
            address="127.0.0.1:1",
            settings=LaunchConfig(actors=actors, **(defaults | settings)),
            given=("--config_path=cfg.json", "--seed=3"),
            learner=("--config_path=cfg.json", "--seed=3", f"--output_dir={self.output_dir}"),
            actor=("--config_path=cfg.json", "--env.discover_packages_path=bridge.plugin"),
            policy_servers=tuple(name for name in self.behaviours if name.startswith("server")),
        )
        self.said: list[str] = []
        self.outcome: Outcome | None = None
        self.supervisor = Supervisor(self.plan, self.said.append, self.start, self, poll_s=0.02)

    def until(self, condition: Callable[[], object]) -> None:
        """Supervise until a condition holds, or fail."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, self.said
            self.outcome = self.supervisor.step(time.monotonic())
            assert self.outcome is None or condition(), (self.outcome, self.said)
            time.sleep(0.02)

    def end(self) -> Outcome:
        """Supervise until it has ended."""
        if self.outcome is None:
            self.until(lambda: self.outcome is not None)
        self.supervisor.close()
        assert self.outcome is not None
        return self.outcome
