"""A policy server as a process of its own: ``python -m pirl_jax.serve --config_path=cfg.json``."""

from __future__ import annotations

import logging
import sys
import tempfile
from typing import Any

import jax

from pirl_jax.console.progress import working
from pirl_jax.ending import Stop
from pirl_jax.learner import command, load
from pirl_jax.serving.service import PolicyService
from pirl_jax.training import compilations
from pirl_jax.training.budget import check_device, give_back_what_is_freed

logger = logging.getLogger(__name__)
_MORE = """Acts for actors with algorithm.inference=served and algorithm.serve.mode=process: the config is the
learner's, the policy what the run began with. It gets the newest parameters from the learner, and may
be started before it, or again. All other settings are the run's: pirl train --help lists them."""


def serve(cfg: Any, number: int) -> None:
    """Serve until a signal.

    Args:
        cfg: of the run, validated.
        number: of this server among the run's.

    Raises:
        ValueError: A setting, checkpoint or weight does not fit, or the learner refuses this server.
        RuntimeError: What it was doing has failed.
        OSError: The port is taken.
    """
    from bridge.replica import Replica
    from bridge.trust.listener import check

    give_back_what_is_freed()
    recipe = cfg.algorithm
    if recipe.inference != "served" or recipe.serve.mode != "process":
        raise ValueError(
            "there is nothing to serve: policy servers of their own are for algorithm.inference=served and "
            f"algorithm.serve.mode=process; got {recipe.inference} and {recipe.serve.mode}."
        )
    check(recipe.security, recipe.serve.host)
    check_device(recipe.launch.server_devices, "algorithm.launch.server_devices")
    check_device(recipe.launch.server_gpus, "algorithm.launch.server_gpus")
    run, trainable, frozen = load(cfg)
    del trainable  # the learner sends it
    compilations.keep_on_disk()
    service, seen = PolicyService(run.policy, recipe.noise, recipe.serve, keeps=False), run.observation
    with working("compiling what the policy server will do"):
        service.compile(run.frozen, run.shapes.params, seen.images, seen.num_tokens, seen.dim_proprio)
    service.begin(jax.device_put(frozen))
    del frozen
    stop = Stop("the policy server ends")
    learner, settings = recipe.actor_learner_config, recipe.serve
    address = f"{learner.learner_host}:{learner.learner_port}"
    place = settings.host, settings.port + number, address
    known = run.agreement, run.shapes.params, 2 * recipe.max_actors
    with service, Replica(service, run.spec, *place, *known, stop, recipe.security) as replica:
        stop.wait()
    if replica.failure:
        raise replica.failure
    logger.info("stopped after %d chunks", service.batcher.totals.answered)


def main() -> None:
    """Parse the command line: the number of the server, the rest in LeRobot's dialect."""
    from bridge.command.help import Parser

    parser = Parser("serve", prog="python -m pirl_jax.serve", description=_MORE, allow_abbrev=False)
    parser.add_argument("--replica", type=int, default=0, help="number of this server among the run's")
    options, rest = parser.parse_known_args()
    if options.replica < 0:
        sys.exit("error: --replica must be at least 0.")
    with tempfile.TemporaryDirectory(prefix="pirl-serve-") as folder:
        # It writes nothing, a traceback included, and the run's folder is the learner's.
        sys.argv[1:] = [
            *(each for each in rest if not each.startswith("--output_dir=")),
            f"--output_dir={folder}/x",
        ]
        command(lambda cfg: serve(cfg, options.replica), only_looks=True)


if __name__ == "__main__":
    main()
