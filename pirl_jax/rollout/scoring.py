"""Episodes on arrival: encoded once, and scored under the parameters that acted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pirl_jax.likelihood import modes
from pirl_jax.likelihood.stochastic import Observed, StochasticPolicy
from pirl_jax.linear import Precision
from pirl_jax.policy import FlowPolicy
from pirl_jax.recipe import NoiseConfig
from pirl_jax.rollout.behaviour import Behaviour, rounded
from pirl_jax.rollout.episode import Episode
from pirl_jax.rows import Joined, cut
from pirl_jax.typing import Array, Bool, Features, Float, Int, Params, PyTree, typed

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


class Scorer:
    """Encodes episodes and scores them under the policy that acted, a block of rows at a time.

    Rows are the episodes' observations: those at which a chunk was chosen, then the final ones, which are
    encoded only. They are worked off in blocks of few static sizes, so that a short episode costs little and
    nothing is compiled anew.

    Args:
        policy: whose episodes.
        noise: the actors'.
        sizes: of blocks. As many as possible have the first size, what is left has the last.

    Attributes:
        encode: ``FlowPolicy.encode``, compiled.
        log_prob: ``(trainable, observed, latents, denoise_step, level [], dtype) -> [B H]``, compiled: the
            log-density under the parameters as pushed in ``dtype``.
    """

    def __init__(self, policy: FlowPolicy, noise: NoiseConfig, sizes: Sequence[int]) -> None:
        self._policy, self.sizes = policy, tuple(sizes)
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

        self.encode = jax.jit(policy.encode)
        self.log_prob = jax.jit(log_prob, static_argnames="dtype")

    def __call__(self, frozen: Params, episode: Episode, behaviour: Behaviour) -> ScoredEpisode:
        """Encode and score an episode."""
        return self.together(frozen, [episode], behaviour)[0]

    def together(
        self, frozen: Params, episodes: Sequence[Episode], behaviour: Behaviour
    ) -> list[ScoredEpisode]:
        """Encode and score episodes that one policy has played.

        Args:
            frozen: the encoder's parameters, on the device.
            episodes: at least one.
            behaviour: who played them.
        """
        rows, acted = _rows(self._policy, episodes)
        num_rows, num_acted = len(rows.proprio), len(acted.denoise_step)
        features, per_step = [], []
        waiting = None
        for start, size in blocks(num_rows, self.sizes):
            block = cut(rows, np.minimum(np.arange(start, start + size), num_rows - 1))
            encoded = self.encode(frozen, block.images, block.tokens)
            scores = None
            if start < num_acted:
                observed = Observed(encoded, block.proprio, block.domain_id)
                theirs = cut(acted, np.minimum(np.arange(start, start + size), num_acted - 1))
                level = jnp.float32(behaviour.level)
                scores = self.log_prob(behaviour.params, observed, *theirs, level, dtype=behaviour.dtype)
            if waiting is not None:  # fetched while the next one runs
                _fetch(waiting, features, per_step)
            waiting = encoded, scores
        assert waiting is not None
        _fetch(waiting, features, per_step)
        parts: list[Any] = jax.tree.map(lambda *each: Joined(each), *features)
        return self._scored(episodes, behaviour, rows, parts, np.concatenate(per_step))

    def _scored(
        self,
        episodes: Sequence[Episode],
        behaviour: Behaviour,
        rows: _Rows,
        features: PyTree,
        per_step: np.ndarray,
    ) -> list[ScoredEpisode]:
        scored, start, final = [], 0, sum(len(episode) for episode in episodes)
        for episode in episodes:
            chosen = np.arange(start, start + len(episode))
            observed = np.append(chosen, final)
            start, final = start + len(episode), final + 1
            step_mask = modes.scored_steps(episode.denoise_step, episode.executed, self._policy.chunk_size)
            old_log_prob = np.where(step_mask, per_step[chosen], np.float32(0))
            scored.append(
                ScoredEpisode(
                    features=cut(features, observed),
                    proprio=rows.proprio[observed],
                    domain_id=rows.domain_id[observed],
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
                    head_precision=self._policy.head_precision,
                )
            )
        return scored


def blocks(count: int, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield start and size of blocks that cover ``count`` rows, the last of which may reach beyond.

    They have the first size while they are full, then the last.
    """
    start = 0
    while start < count:
        size = sizes[0] if count - start >= sizes[0] else sizes[-1]
        yield start, size
        start += size


class _Rows(NamedTuple):
    """Observations of several episodes: those at which chunks were chosen, then the final ones."""

    images: Joined
    tokens: np.ndarray
    proprio: np.ndarray
    domain_id: np.ndarray


class _Acted(NamedTuple):
    """The chunks chosen at the first of them."""

    latents: np.ndarray
    denoise_step: np.ndarray


def _rows(policy: FlowPolicy, episodes: Sequence[Episode]) -> tuple[_Rows, _Acted]:
    observations = [episode.observations for episode in episodes]

    def in_order(arrays: list[np.ndarray]) -> list[np.ndarray]:
        return [array[:-1] for array in arrays] + [array[-1:] for array in arrays]

    rows = _Rows(
        Joined(in_order([each.images for each in observations])),
        np.concatenate(in_order([each.tokens for each in observations])).astype(np.int32),
        policy.prepare_proprio(np.concatenate(in_order([each.proprio for each in observations]))),
        np.concatenate(in_order([each.domain_id for each in observations])).astype(np.int32),
    )
    return rows, _Acted(
        np.concatenate([episode.latents for episode in episodes]),
        np.concatenate([episode.denoise_step for episode in episodes]),
    )


def _fetch(done: tuple[PyTree, Array | None], features: list[PyTree], per_step: list[np.ndarray]) -> None:
    encoded, scores = done
    features.append(jax.device_get(encoded))
    if scores is not None:
        per_step.append(np.asarray(scores))
