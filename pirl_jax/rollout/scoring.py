"""Episodes on arrival: encoded once, and scored under the parameters that acted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pirl_jax.likelihood import modes
from pirl_jax.likelihood.stochastic import Observed, StochasticPolicy
from pirl_jax.linear import Precision
from pirl_jax.placement import ONE_DEVICE, Placement
from pirl_jax.policy import FlowPolicy, encoder
from pirl_jax.recipe import NoiseConfig
from pirl_jax.rollout.behaviour import Behaviour, rounded
from pirl_jax.rollout.blocks import NOT_SCORED, Results, Rows, rows_of, taken, turns
from pirl_jax.rollout.encoded import Encoded
from pirl_jax.rollout.episode import Episode
from pirl_jax.rows import cut
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
    """Chunk steps whose noise decided what was executed (``modes.scored_steps``): some of every chunk, but
    none of one that a policy chose which is not known any more. The policy's loss leaves that one out."""
    old_log_prob: Float[np.ndarray, "T H"]
    """log π_behaviour of each of those given the ones before it, recomputed here; 0 elsewhere."""
    actor_log_prob: Float[np.ndarray, "T H"]
    """The same as the actor recorded it."""
    level: Float[np.ndarray, " T"]
    """Noise level of the policy that chose each chunk; some level where that is not known any more."""
    reward: Float[np.ndarray, " T"]
    terminated: bool
    success: bool
    seed: int = 0
    task: str = ""
    head_precision: Precision = "highest"
    """In which log π_behaviour was recomputed."""
    encoder_calls: int = 0
    """Observations that the encoder was applied to. One that whoever acted has encoded too counts twice."""

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def counts(self) -> Bool[np.ndarray, " T"]:
        """Chunks that the policy learns from."""
        return np.any(self.step_mask, axis=1)

    def without(self, stale: Bool[np.ndarray, " T"]) -> ScoredEpisode:
        """Return the episode with these chunks masked too."""
        step_mask = self.step_mask & ~stale[:, None]
        old, actors = (
            np.where(step_mask, log_prob, np.float32(0))
            for log_prob in (self.old_log_prob, self.actor_log_prob)
        )
        return replace(self, step_mask=step_mask, old_log_prob=old, actor_log_prob=actors)

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


class Scorer:
    """Encodes episodes and scores their chunks under the policies that chose them, a block of rows at a time.

    Rows are the episodes' observations: those at which a chunk was chosen, by the version that chose it, then
    those that are encoded only. They are worked off in blocks of few static sizes, so that a short episode
    costs little and nothing is compiled anew. A block in which the version changes is scored once for each of
    its versions. Observations whose features are there already are in blocks of their own, which are scored
    only.

    Args:
        policy: whose episodes.
        noise: the actors'.
        sizes: of blocks. As many as possible have the first size, what is left has the last.
        placement: whose devices share the rows of a block.

    Attributes:
        encode: ``FlowPolicy.encode``, compiled.
        log_prob: ``(trainable, observed, latents, denoise_step, level [], dtype) -> [B H]``, compiled: the
            log-density under the parameters as pushed in ``dtype``.
    """

    def __init__(
        self,
        policy: FlowPolicy,
        noise: NoiseConfig,
        sizes: Sequence[int],
        placement: Placement = ONE_DEVICE,
    ) -> None:
        self._policy, self._noise, self.sizes = policy, noise, tuple(sizes)
        self._placement = placement
        stochastic = StochasticPolicy.of(policy, noise)

        def log_prob(
            trainable: Params,
            observed: Observed,
            latents: Array,
            denoise_step: Array,
            level: Array,
            dtype: str,
        ) -> Array:
            levels = jnp.broadcast_to(level, denoise_step.shape)
            acting = rounded(trainable, dtype)
            return stochastic.log_prob(acting, observed, latents, denoise_step, levels)

        self.encode = encoder(policy)
        self.log_prob = jax.jit(log_prob, static_argnames="dtype")

    def __call__(
        self,
        frozen: Params,
        episode: Episode,
        played: Mapping[int, Behaviour],
        encoded: Encoded | None = None,
    ) -> ScoredEpisode:
        """Encode and score an episode."""
        return self.together(frozen, [episode], played, encoded)[0]

    def together(
        self,
        frozen: Params,
        episodes: Sequence[Episode],
        played: Mapping[int, Behaviour],
        encoded: Encoded | None = None,
    ) -> list[ScoredEpisode]:
        """Encode and score episodes.

        Args:
            frozen: the encoder's parameters, on the device.
            episodes: at least one.
            played: who chose their chunks, by version. Chunks of other versions are encoded and masked.
            encoded: where features of the observations may be, which are then taken from it; None: nowhere.
        """
        rows = rows_of(self._policy, episodes)
        rows.version[~np.isin(rows.version, list(played))] = NOT_SCORED
        there: Mapping[int, Features] = {} if encoded is None else taken(rows, encoded)
        results = Results(rows.version, there, self._policy.chunk_size)
        for chosen, features in turns(rows.version, there, self.sizes):
            block = cut(rows, chosen)
            running = None
            if features is None:
                seen = self._placement.rows((block.images, block.tokens))
                features = running = self.encode(frozen, *seen)
            results.add(chosen, running, self._scores(features, block, played))
        results.finish()
        return self._scored(episodes, played, rows, there, results)

    def _scores(self, features: Features, block: Rows, played: Mapping[int, Behaviour]) -> dict[int, Array]:
        """Start to score a block under each of its versions."""
        seen: Any = features, block.proprio, block.domain_id
        observed: Any = self._placement.rows(Observed(*seen))
        scores = {}
        for version in map(int, np.unique(block.version)):
            if version != NOT_SCORED:
                behaviour = played[version]
                chunks = self._placement.rows((block.latents, block.denoise_step))
                level, dtype = jnp.float32(behaviour.level), behaviour.dtype
                scores[version] = self.log_prob(behaviour.params, observed, *chunks, level, dtype=dtype)
        return scores

    def _scored(
        self,
        episodes: Sequence[Episode],
        played: Mapping[int, Behaviour],
        rows: Rows,
        there: Mapping[int, Features],
        results: Results,
    ) -> list[ScoredEpisode]:
        scored, start, final = [], 0, sum(len(episode) for episode in episodes)
        levels = {version: behaviour.level for version, behaviour in played.items()}
        for episode in episodes:
            chosen = np.arange(start, start + len(episode))
            observed = np.append(chosen, final)
            start, final = start + len(episode), final + 1
            version = rows.version[chosen]
            step_mask = modes.scored_steps(episode.denoise_step, episode.executed, self._policy.chunk_size)
            step_mask &= (version != NOT_SCORED)[:, None]
            level = [levels.get(int(each), self._noise.level) for each in version]
            scored.append(
                ScoredEpisode(
                    features=results.features(observed),
                    proprio=rows.proprio[observed],
                    domain_id=rows.domain_id[observed],
                    latents=episode.latents,
                    denoise_step=episode.denoise_step,
                    executed=episode.executed,
                    step_mask=step_mask,
                    old_log_prob=np.where(step_mask, results.log_prob[chosen], np.float32(0)),
                    actor_log_prob=np.where(step_mask, episode.log_prob, np.float32(0)),
                    level=np.array(level, np.float32),
                    reward=episode.reward,
                    terminated=episode.terminated,
                    success=episode.success,
                    seed=episode.seed,
                    task=episode.task,
                    head_precision=self._policy.head_precision,
                    encoder_calls=np.count_nonzero(episode.feature_key)
                    + sum(int(row) not in there for row in observed),
                )
            )
        return scored
