"""Episodes on arrival: encoded once, and scored under the parameters that acted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np

from pirl_jax.likelihood import modes
from pirl_jax.likelihood.stochastic import Observed, StochasticPolicy
from pirl_jax.linear import Precision
from pirl_jax.policy import FlowPolicy
from pirl_jax.recipe import NoiseConfig
from pirl_jax.rollout.behaviour import Behaviour
from pirl_jax.rollout.episode import Episode
from pirl_jax.typing import Array, Bool, Features, Float, Int, Params, typed

GAP_ADVICE = (
    "They do not run the same network. Give both the same config and base checkpoint; an encoder in bfloat16 "
    "rounds otherwise in torch than in JAX (policy.dtype=float32 does not), and so do an actor's "
    "convolutions on a GPU unless torch.backends.cudnn.allow_tf32=False. What a coarse "
    "algorithm.head_precision costs grows with 1/noise.level."
)
"""What to do about a ``log_prob_gap`` above ``gap_tolerance``."""

HEAD_GAP: Mapping[Precision, float] = MappingProxyType(
    {"highest": 0.0, "bf16_x6": 0.0, "bf16_x3": 0.1, "tf32_x3": 0.0, "tf32": 3.0, "bf16": 30.0}
)
"""Nats a chunk by which a head in this precision may differ from an actor's, which is in float32."""


@typed
@dataclass(frozen=True)
class ScoredEpisode:
    """An episode of T chunks, ready to learn from; host memory."""

    features: Features
    """``[T1 = T+1, …]``, what the frozen encoder made of each observation."""
    proprio: Float[np.ndarray, "T1 P"]
    domain_id: Int[np.ndarray, " T1"]
    latents: Float[np.ndarray, "T L H A"]
    denoise_step: Int[np.ndarray, " T"]
    executed: Int[np.ndarray, " T"]
    """Chunk steps that were executed."""
    step_mask: Bool[np.ndarray, "T H"]
    """Chunk steps whose noise decided what was executed (``modes.scored_steps``)."""
    old_log_prob: Float[np.ndarray, "T H"]
    """log π_behaviour of each of those given the ones before it, recomputed here; 0 elsewhere."""
    actor_log_prob: Float[np.ndarray, "T H"]
    """The same as the actor recorded it."""
    level: float
    """Noise level of the policy that acted."""
    reward: Float[np.ndarray, " T"]
    terminated: bool
    success: bool
    seed: int = 0
    task: str = ""
    head_precision: Precision = "highest"
    """In which log π_behaviour was recomputed."""

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def log_prob_gap(self) -> float:
        """Largest difference between the actor's log-probability and the learner's, in nats a chunk."""
        return float(np.abs((self.old_log_prob - self.actor_log_prob).sum(axis=1)).max())

    @property
    def gap_tolerance(self) -> float:
        """The largest ``log_prob_gap`` that an update may ignore.

        Encoders in bfloat16 differ between torch and JAX by some 2⁻⁸ of their features, which moves an
        action's mean by a noticeable part of its standard deviation; in float32 by nothing that matters. A
        head in a coarse precision differs by as much as ``HEAD_GAP`` says, besides.
        """
        rounded = any(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(self.features))
        return max(0.2 if rounded else 1e-2, HEAD_GAP[self.head_precision])


def make_scorer(
    policy: FlowPolicy, frozen: Params, noise: NoiseConfig, max_chunks: int
) -> Callable[[Episode, Behaviour], ScoredEpisode]:
    """Return ``score(episode, behaviour)``; both network passes have one static shape.

    Args:
        policy: whose episodes.
        frozen: its encoder's parameters.
        noise: the actors'.
        max_chunks: of an episode.
    """
    capacity = max_chunks + 1
    stochastic = StochasticPolicy.of(policy, noise)
    encode = jax.jit(policy.encode)

    @jax.jit
    def behaviour_log_prob(
        trainable: Params, observed: Observed, latents: Array, denoise_step: Array, level: Array
    ) -> Array:
        levels = jnp.broadcast_to(level, denoise_step.shape)
        return stochastic.log_prob(trainable, observed, latents, denoise_step, levels)

    def score(episode: Episode, behaviour: Behaviour) -> ScoredEpisode:
        T = len(episode)
        observations = episode.observations
        proprio = policy.prepare_proprio(observations.proprio)
        domain_id = observations.domain_id.astype(np.int32)
        features = encode(
            frozen, _pad(observations.images, capacity), _pad(observations.tokens.astype(np.int32), capacity)
        )
        per_step = behaviour_log_prob(
            behaviour.params,
            Observed(features, *(jnp.asarray(_pad(x, capacity)) for x in (proprio, domain_id))),
            _pad(episode.latents, capacity),
            # Denoising steps count from 1, so padding with 0 would be out of range: it repeats the first one.
            _pad(episode.denoise_step, capacity, fill=episode.denoise_step[0]),
            jnp.float32(behaviour.level),
        )
        step_mask = modes.scored_steps(episode.denoise_step, episode.executed, policy.chunk_size)
        old_log_prob = np.where(step_mask, np.asarray(per_step)[:T], np.float32(0))
        return ScoredEpisode(
            features=jax.tree.map(lambda x: np.array(x[: T + 1]), jax.device_get(features)),
            proprio=proprio,
            domain_id=domain_id,
            latents=episode.latents,
            denoise_step=episode.denoise_step,
            executed=episode.executed,
            step_mask=step_mask,
            old_log_prob=old_log_prob,
            actor_log_prob=np.where(step_mask, episode.log_prob, np.float32(0)),
            level=behaviour.level,
            reward=episode.reward,
            terminated=episode.terminated,
            success=episode.success,
            seed=episode.seed,
            task=episode.task,
            head_precision=policy.head_precision,
        )

    return score


def _pad(array: np.ndarray, length: int, fill: float = 0) -> np.ndarray:
    padded = np.full((length, *array.shape[1:]), fill, array.dtype)
    padded[: len(array)] = array
    return padded
