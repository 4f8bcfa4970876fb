"""What every environment of this plugin needs to know besides what it simulates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import draccus

from bridge.libero.schedule import Schedule
from bridge.wire.tokens import token_ids


@dataclass
class ActorSettings:
    """Fields that an environment's config has for the actor's sake."""

    actor_id: int = 0
    """A name for logs. What an actor plays is the learner's to say, whatever it is called."""
    seed: int | None = None
    """Of the episodes of an environment that plays without a learner; None takes the run's ``seed``."""
    tokenizer_name: str | None = None
    """Folder or hub id; None, like the next three, takes the policy's."""
    tokenizer_max_length: int | None = None
    """Tokens of an instruction; must be the policy's."""
    tokenizer_padding: str | None = None
    """``max_length`` or ``longest``; must be the policy's ``pad_language_to``."""
    tokenizer_padding_side: str | None = None
    """``right`` or ``left``; must be the policy's."""

    own_fields = (  # no annotation, hence no field
        *("type", "actor_id", "seed", "tokenizer_name", "features", "features_map", "max_parallel_tasks"),
        *("disable_env_checker", "max_cached_envs"),
    )
    """Those in which an actor may differ from its learner, or that follow from others."""
    length_field = "episode_length"
    """Which of its fields bounds an episode."""
    _chunks = cast(tuple[int, int] | None, None)

    @property
    def observation_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes of images (c, h, w) and state as the environment emits them, by observation key."""
        raise NotImplementedError

    @property
    def env_action_dim(self) -> int | None:
        """Channels of an executed action; None: those of the policy's action."""
        return None

    @property
    def task_names(self) -> tuple[str, ...]:
        """Of the tasks in the order of their numbers; () where there is one."""
        return ()

    def agreed(self) -> dict[str, Any]:
        """Return the fields in which learner and actors must agree, as JSON values."""
        fields: dict[str, Any] = draccus.encode(self)  # pyright: ignore[reportAssignmentType]
        return {name: value for name, value in fields.items() if name not in self.own_fields}

    def schedule(self) -> Schedule:
        """Return the rule by which tasks and initial states are chosen."""
        return Schedule(1)

    def evaluation_shares(self) -> str | None:
        """Say what evaluation shares with training, and what to do; None: its episodes are its own."""
        return None

    @property
    def max_steps(self) -> int | None:
        """Control steps of the longest episode, if known."""
        return None

    def bound_length(self, n_action_steps: int, max_chunks: int) -> None:
        """Take the length that an episode may have at the learner, which drops longer ones.

        Longer ones fail more often than not: what is left would succeed more often than the policy does.

        Raises:
            ValueError: Episodes may be longer.
        """
        self._chunks = n_action_steps, max_chunks
        if self.max_steps is not None:
            self.check_length(self.max_steps)

    def check_length(self, steps: int | None) -> None:
        """Check how long an episode may be, once that is known; None: for ever.

        Raises:
            ValueError: Longer than the learner takes.
        """
        if self._chunks is None:
            return
        n_action_steps, max_chunks = self._chunks
        if steps is None:
            raise ValueError(
                f"the environment does not say when an episode ends. Set env.{self.length_field} to at most "
                f"{n_action_steps * max_chunks} steps: algorithm.rollout.max_chunks={max_chunks} chunks of "
                f"policy.n_action_steps={n_action_steps}, which is what the learner takes."
            )
        if steps < 1:
            raise ValueError(f"env.{self.length_field} must be ≥ 1; got {steps}.")
        chunks = math.ceil(steps / n_action_steps)
        if chunks > max_chunks:
            raise ValueError(
                f"Episodes of up to {steps} steps make {chunks} chunks of policy.n_action_steps="
                f"{n_action_steps}, and the learner drops those of more than algorithm.rollout.max_chunks="
                f"{max_chunks}. Raise it, or lower env.{self.length_field}."
            )

    def take_defaults_from(self, policy: Any, seed: int | None) -> None:
        """Fill what is None from the run's policy config and seed, and check the rest against the policy.

        Raises:
            ValueError: Policy and environment do not fit each other.
        """
        if self.actor_id < 0:
            raise ValueError(f"env.actor_id must be ≥ 0; got {self.actor_id}.")
        self.seed = (seed or 0) if self.seed is None else self.seed
        for own, theirs in (
            ("tokenizer_name", "tokenizer_name"),
            ("tokenizer_max_length", "tokenizer_max_length"),
            ("tokenizer_padding", "pad_language_to"),
            ("tokenizer_padding_side", "tokenizer_padding_side"),
        ):
            if getattr(self, own) is None:
                setattr(self, own, getattr(policy, theirs))
            elif own != "tokenizer_name" and getattr(self, own) != getattr(policy, theirs):
                raise ValueError(
                    f"env.{own}={getattr(self, own)} differs from policy.{theirs}={getattr(policy, theirs)}. "
                    "Leave the environment's unset."
                )

    def tokenize(self, instructions: Iterable[str]) -> list[list[int]]:
        """Return each instruction's token ids.

        Raises:
            ValueError: No tokenizer is known.
        """
        if self.tokenizer_name is None:
            raise ValueError("env.tokenizer_name is not set: the instruction cannot become token ids.")
        return token_ids(
            instructions,
            self.tokenizer_name,
            self.tokenizer_max_length,
            self.tokenizer_padding or "max_length",
            self.tokenizer_padding_side or "right",
        )
