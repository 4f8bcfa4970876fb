"""``python -m pirl_jax.doctor --config_path=cfg.json``: is this run set up to learn?

Starts one stock LeRobot actor on the config, lets it play a few episodes with the policy the run would start
from, and says in words what is wrong and what to change. Trains nothing and writes nothing.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from pirl_jax.diagnosis.findings import diagnose
from pirl_jax.learner import command, load, publish, serve
from pirl_jax.likelihood.modes import level_at
from pirl_jax.rollout.behaviour import Behaviour, round_to
from pirl_jax.xvla.policy import critic_fn

logger = logging.getLogger("doctor")


def examine(cfg: Any, episodes: int, actor_arguments: list[str], folder: Path, patience: float) -> bool:
    """Play, diagnose and print; returns whether all is well.

    Raises:
        ValueError: A setting does not fit, or the actor failed.
    """
    import torch

    from bridge.plugin.processors import action_unnormalizer
    from bridge.processes import Command
    from bridge.weights.export import policy_config

    run = load(cfg)
    level = level_at(run.recipe.noise, 0)
    behaviour = Behaviour(round_to(run.state.params, run.recipe.push_dtype), 0, level)
    received = []
    arguments = [
        *actor_arguments,
        "--env.discover_packages_path=bridge.plugin",
        f"--output_dir={folder}/actor",
    ]
    with serve(run) as server:
        publish(server, run.recipe, 1, behaviour)
        with Command("lerobot.rl.actor", arguments, folder / "actor.log") as actor:
            deadline = time.monotonic() + patience
            while len(received) < episodes:
                episode = server.get(1.0)
                try:
                    actor.check()
                except RuntimeError as error:
                    raise ValueError(str(error)) from error
                if episode is not None and episode.version == 1:
                    received.append(episode)
                    logger.info("episode %d of %d: %d chunks", len(received), episodes, len(episode))
                elif time.monotonic() > deadline:
                    raise ValueError(f"{len(received)} of {episodes} episodes within {patience:.0f} s.")
    unnormalize = action_unnormalizer(cfg.policy, run.recipe)
    channels = policy_config(cfg.policy).real_action_dim
    findings = diagnose(
        run.policy,
        critic_fn(run.recipe.critic.hidden_dims),
        jax.device_put(run.frozen),
        run.recipe,
        run.state,
        received,
        behaviour,
        lambda action: unnormalize(torch.from_numpy(action[:, :channels])).numpy(),
    )
    print(*findings, sep="\n")
    return all(finding.ok for finding in findings)


def main() -> None:
    """Parse the command line: the doctor's own options, the rest in LeRobot's dialect."""
    from bridge.processes import free_port

    parser = argparse.ArgumentParser(prog="python -m pirl_jax.doctor", description=__doc__, add_help=False)
    parser.add_argument("--episodes", type=int, default=16, help="to look at")
    parser.add_argument("--patience", type=float, default=600.0, help="seconds to wait for them")
    options, rest = parser.parse_known_args()
    if options.episodes < 1:
        sys.exit("error: --episodes must be at least 1.")
    rest.append(f"--algorithm.actor_learner_config.learner_port={free_port()}")
    well = True
    with tempfile.TemporaryDirectory(prefix="pirl-doctor-") as name:
        folder = Path(name)
        sys.argv[1:] = [*rest, f"--output_dir={folder / 'learner'}"]

        def run(cfg: Any) -> None:
            nonlocal well
            well = examine(cfg, options.episodes, rest, folder, options.patience)

        command(run)
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
