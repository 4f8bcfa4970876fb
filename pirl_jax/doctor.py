"""``python -m pirl_jax.doctor --config_path=cfg.json``: is this run set up to learn?"""

from __future__ import annotations

import dataclasses
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from pirl_jax.console.progress import Progress, working
from pirl_jax.diagnosis.episodes import agreement, noise_in_actions, signal
from pirl_jax.diagnosis.finding import Finding, verdict
from pirl_jax.diagnosis.serving import actors_served, between_chunks, supply
from pirl_jax.diagnosis.trial import Trial, size_of_step
from pirl_jax.ending import first_is_noted
from pirl_jax.files import tail
from pirl_jax.learner import command, fitted, load, policy_service
from pirl_jax.placement import ONE_DEVICE, Placement
from pirl_jax.policy import FlowPolicy
from pirl_jax.recipe import Recipe
from pirl_jax.rollout.behaviour import Behaviour, as_pushed, rounded
from pirl_jax.rollout.episode import Episode
from pirl_jax.serving.acting import Asked
from pirl_jax.serving.service import PolicyService
from pirl_jax.training.loop import behaviour_of
from pirl_jax.training.parts import Parts, assemble, block_of
from pirl_jax.training.plan import size_of
from pirl_jax.typing import Params
from pirl_jax.update.critic import ValueFunction, value_function
from pirl_jax.update.state import TrainState

logger = logging.getLogger(__name__)

_MORE = """Starts one stock LeRobot actor on the config, lets it play a few episodes with the policy that the
run would start from, and says in words what is wrong and what to change. Trains nothing and writes
nothing. All other settings are a run's: pirl train --help lists them."""
_VERSION = 1
"""Of the parameters that are looked at, which are never updated."""


def examine(cfg: Any, episodes: int, actor_arguments: list[str], folder: Path, patience: float) -> bool:
    """Play, diagnose and print; returns whether all is well.

    Raises:
        ValueError: A setting does not fit, or the actor failed.
    """
    import torch

    from bridge.actors import Port, assignments_of
    from bridge.plugin.processors import action_unnormalizer
    from bridge.processes import Command
    from bridge.weights.export import policy_config

    run, trainable, frozen = load(cfg)
    beside = {"a copy for the trial update": size_of(run.shapes)}
    service, served = policy_service(run, lambda: assignments.playing)
    recipe = fitted(run, cfg, beside | served, saves=False)[0].recipe
    encoder = run.placement.whole(frozen)
    if service:
        service.begin(encoder)
    del frozen  # one copy is enough, and what is free can be taken by the next
    state = run.start(trainable)
    del trainable
    behaviour = behaviour_of(state, recipe)
    received: list[Episode] = []
    arguments = [
        *actor_arguments,
        "--env.discover_packages_path=bridge.plugin",
        f"--output_dir={folder}/actor",
    ]
    assignments, _ = assignments_of(cfg, episodes, 0)
    port = Port(run.recipe, run.spec, run.agreement, service)
    with service or nullcontext(), port.open(assignments, 0, 0) as server:
        port.publish(server, _VERSION, as_pushed(behaviour))
        assignments.publish(_VERSION, 0)
        logger.info(
            "a stock actor plays %d episodes (--episodes=N for others; Ctrl-C looks at those that are there)",
            episodes,
        )
        with Command("lerobot.rl.actor", arguments, folder / "actor.log") as actor, first_is_noted() as asked:
            for episode in played(server.get, actor, episodes, patience, asked):
                received.append(episode)
    if len(received) < episodes:
        logger.warning(
            "looking at %d episodes instead of %d, in which rare outcomes may lack", len(received), episodes
        )
    unnormalize = action_unnormalizer(cfg.policy, run.recipe)
    channels = policy_config(cfg.policy).real_action_dim
    with working("looking at them, and at a trial update"):
        findings = diagnose(
            run.policy,
            value_function(run.recipe.critic.hidden_dims),
            encoder,
            recipe,
            state,
            received,
            behaviour,
            lambda action: unnormalize(torch.from_numpy(action[:, :channels])).numpy(),
            run.placement,
        )
    if service:
        findings.append(_actors_served(service, received[0]))
    print(*findings, sep="\n")
    print(f"\n{verdict(findings, len(received))}")
    return all(finding.ok for finding in findings)


def _actors_served(service: PolicyService, episode: Episode) -> Finding:
    """Ask the server for chunks at an episode's first observation, in batches of every size."""
    seen = episode.observations
    asked = Asked(seen.images[0], seen.tokens[0], seen.proprio[0], int(seen.domain_id[0]), 0, 0)
    seconds = between_chunks(service.batcher.totals)
    rates = supply(lambda size: service.acting([asked] * size), service.acting.sizes)
    return actors_served(rates, seconds)


def played(
    receive: Callable[[float], Episode | None],
    actor: Any,
    episodes: int,
    patience: float,
    asked: Sequence[int],
) -> Iterator[Episode]:
    """Yield episodes as they arrive: all that are wanted, or those that are there when time is up.

    Args:
        receive: ``timeout in seconds -> `` an episode, or None.
        actor: whose command plays them (``bridge.processes.Command``).
        episodes: how many are wanted.
        patience: seconds to wait for all of them.
        asked: no longer empty once the user would rather look at those that are there.

    Raises:
        ValueError: The actor failed, or time is up before the first episode.
        SystemExit: The user asked before the first.
    """
    started = time.monotonic()
    count = 0
    with Progress("playing", episodes, "episodes") as progress:
        while count < episodes:
            episode, now = receive(1.0), time.monotonic()
            try:
                actor.check(must_run=True)
            except RuntimeError as error:
                raise ValueError(str(error)) from error
            progress.at(count)
            if episode is not None and (episode.version == _VERSION).all():
                count += 1
                progress.at(count)
                yield episode
            elif asked:
                if not count:
                    logger.info("asked to stop before there was an episode to look at")
                    sys.exit(128 + asked[0])
                return
            elif now - started > patience:
                if count:
                    logger.warning("%.0f s are over (--patience)", patience)
                    return
                raise ValueError(f"no episode within {patience:.0f} s; {actor.log} ends:\n{tail(actor.log)}")


def diagnose(
    policy: FlowPolicy,
    value: ValueFunction,
    frozen: Params,
    recipe: Recipe,
    state: TrainState,
    episodes: Sequence[Episode],
    behaviour: Behaviour,
    unnormalize: Callable[[np.ndarray], np.ndarray] = lambda action: action,
    placement: Placement = ONE_DEVICE,
) -> list[Finding]:
    """Examine episodes that actors played with ``behaviour``, and one trial update on them.

    Args:
        policy: the flow policy.
        value: ``(critic params, inputs, proprio) -> values``.
        frozen: the encoder's parameters.
        recipe: every number of the method.
        state: before the first update; copied, not donated.
        episodes: at least one, played with what was pushed first.
        behaviour: as pushed.
        unnormalize: takes actions [N, A] to the environment's units, channel by channel.
    """
    parts = _trial_parts(policy, value, recipe, len(episodes), placement)
    scored = [parts.score(frozen, episode, {_VERSION: behaviour}) for episode in episodes]
    method = dataclasses.replace(parts.method, supervised_loss=None)
    trial = Trial(method, state, *parts.batch(state, scored))
    updated, metrics = trial.update()
    moved = dataclasses.replace(behaviour, params=updated.params, dtype="float32")
    del updated  # its moments take memory
    log_weights = np.concatenate(
        [
            (parts.score(frozen, episode, {_VERSION: moved}).old_log_prob - before.old_log_prob).sum(axis=1)
            for episode, before in zip(episodes, scored, strict=True)
        ]
    )
    return [
        agreement(scored, recipe.noise.mode, recipe.push.dtype),
        trial.ratio(),
        *noise_in_actions(
            policy, recipe.noise, rounded(state.params, recipe.push.dtype), scored, unnormalize
        ),
        signal(scored),
        trial.advantages(),
        *trial.gradients(),
        size_of_step(metrics, log_weights, recipe.optimizer),
    ]


def _trial_parts(
    policy: FlowPolicy, value: ValueFunction, recipe: Recipe, episodes: int, placement: Placement = ONE_DEVICE
) -> Parts:
    """Return the parts of a trial update on ``episodes`` episodes.

    Whatever the recipe's batch is, the trial's is what there is, with no more of it in work at a time than a
    minibatch of the run; a critic-free recipe is tried with one. Neither the policy nor its learning rate is
    kept waiting.
    """
    optimizer = recipe.optimizer
    trial = dataclasses.replace(
        recipe,
        rollout=dataclasses.replace(
            recipe.rollout, episodes_per_update=episodes, group_size=1, group_return_range=None
        ),
        advantage=dataclasses.replace(recipe.advantage, estimator="gae"),
        critic=dataclasses.replace(recipe.critic, warmup_updates=0),
        optimizer=dataclasses.replace(optimizer, lr_warmup_steps=0, microbatch_size=block_of(recipe)),
    )
    return assemble(policy, value, trial, placement=placement)


def main() -> None:
    """Parse the command line: the doctor's own options, the rest in LeRobot's dialect."""
    from bridge.command.help import Parser
    from bridge.processes import free_port

    parser = Parser("doctor", prog="python -m pirl_jax.doctor", description=_MORE, allow_abbrev=False)
    parser.add_argument("--config_path", help="the run's, as for the learner; so are --policy.path, --a.b=c")
    parser.add_argument("--episodes", type=int, default=16, help="to look at (default: 16)")
    parser.add_argument(
        "--patience",
        type=float,
        default=600.0,
        help="seconds after which it looks at those that are there (default: 600)",
    )
    if not sys.argv[1:]:
        parser.print_help()
        return
    options, rest = parser.parse_known_args()
    rest += [] if options.config_path is None else [f"--config_path={options.config_path}"]
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

        command(run, only_looks=True)
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
