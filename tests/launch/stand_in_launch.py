"""``pirl-launch`` itself, with stand-ins for LeRobot's parser, the learner and its actor.

The learner is done after a moment if it resumes, and runs until it is told to stop if it begins.
"""

import os
from pathlib import Path

from house import Stage

from bridge.launch import command, plan
from bridge.launch.facts import Facts
from bridge.launch.supervisor import Supervisor
from pirl_jax.recipe import LaunchConfig


def main() -> None:
    """Launch in the folder that the environment names."""
    folder, port = Path(os.environ["STAND_IN"]), int(os.environ["STAND_IN_PORT"])
    facts = Facts(str(folder / "run"), 10, "127.0.0.1", port, 64, "base", LaunchConfig())
    plan.read_facts = lambda learner: facts
    saved = (folder / "run/checkpoints/last").exists()
    stage = Stage(folder, {"learner": ["finish" if saved else "run"], "0": ["run"]})
    command.Supervisor = lambda plan, say, _: Supervisor(plan, say, stage.start, stage, poll_s=0.02)
    command.main()


if __name__ == "__main__":
    main()
