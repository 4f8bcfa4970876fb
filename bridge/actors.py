"""What a run has for its actors: episodes to play, a port to ask at, and the newest policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.libero.schedule import Schedule
from bridge.plugin.actor_settings import ActorSettings
from bridge.plugin.agreement import FROZEN
from bridge.plugin.recipe_config import PiRLConfig
from bridge.weights.state_dict import to_push
from bridge.wire.act_service import ActService
from bridge.wire.assignment_service import Goal
from bridge.wire.decode import decoder
from bridge.wire.policy_servers import PolicyServers
from bridge.wire.server import LearnerServer
from bridge.wire.spec import EpisodeSpec
from pirl_jax.rollout.assignments import Assignments
from pirl_jax.rollout.behaviour import Behaviour
from pirl_jax.serving.service import PolicyService


@dataclass(frozen=True)
class Port:
    """Where actors find the learner, and what is said to them there.

    Attributes:
        recipe: Of the run.
        spec: Sizes of the episodes to come.
        agreement: What whoever acts must have in common with the learner: dotted name → JSON value.
        service: Who acts for the actors; None: they do, or policy servers of their own.
        status_file: Where it is written how the run stands; None: nowhere.
    """

    recipe: PiRLConfig
    spec: EpisodeSpec
    agreement: Mapping[str, Any]
    service: PolicyService | None = None
    status_file: Path | None = None

    def open(self, assignments: Assignments, updates: int, episodes: int) -> LearnerServer:
        """Return the server, a context manager.

        Args:
            assignments: What actors play.
            updates: Of the whole run, for whoever asks how it stands.
            episodes: Of an update, likewise.
        """
        address, served = self.recipe.actor_learner_config, self.recipe.inference == "served"
        policy, apart = None, served and self.service is None
        if service := self.service:
            most = 2 * self.recipe.max_actors
            policy = lambda own, stopping: ActService(service, self.spec, lambda: own, stopping, most)  # noqa: E731
        return LearnerServer(
            address.learner_host,
            address.learner_port,
            decode=decoder(self.spec),
            assignments=assignments,
            # An actor without a network has no frozen tensors.
            agreement={name: each for name, each in self.agreement.items() if name != FROZEN or not served},
            max_actors=self.recipe.max_actors,
            max_message_bytes=self.spec.max_message_bytes,
            goal=Goal(updates, episodes),
            policy=policy,
            policy_servers=PolicyServers(self.agreement) if apart else None,
            status_file=self.status_file,
            security=self.recipe.security,
        )

    def publish(self, server: LearnerServer, version: int, behaviour: Behaviour) -> None:
        """Push a policy, which is ``as_pushed``: parameters to whoever acts, its noise level to actors."""
        if self.service is None:
            server.publish(version, behaviour.level, to_push(behaviour.params))
            return
        self.service.publish(server.run, version, behaviour)
        server.publish(version, behaviour.level, {})


def assignments_of(cfg: Any, window: int, settled: int) -> tuple[Assignments, Callable[[str, bool], None]]:
    """Return what the run's actors play, and whom to tell how each episode ended.

    Args:
        cfg: The run's config.
        window: Episodes that may be open at a time.
        settled: Episodes of the run that need not be played any more.
    """
    env = cfg.env if isinstance(cfg.env, ActorSettings) else None
    schedule = env.schedule() if env else Schedule(1)
    numbers = {name: number for number, name in enumerate(env.task_names if env else ())}
    group_size = cfg.algorithm.rollout.group_size
    assignments = Assignments(window, cfg.seed, group_size, schedule.choose, settled)
    return assignments, lambda task, success: schedule.report(numbers.get(task, 0), success)
