"""What the learner learns from: chunk-level episodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pirl_jax.rollout.evaluation import Outcome
from pirl_jax.typing import Float, Int, UInt8, typed


@typed
@dataclass(frozen=True)
class Observations:
    """A batch of observations, as they came off the wire (host memory)."""

    images: UInt8[np.ndarray, "B V C h w"]
    """The views present, in the order of the policy's image features; the model adds padding views."""
    tokens: Int[np.ndarray, "B N"]
    domain_id: Int[np.ndarray, " B"]
    proprio: Float[np.ndarray, "B P"]

    def __len__(self) -> int:
        return len(self.tokens)


@typed
@dataclass(frozen=True)
class Episode:
    """One finished episode of T chunks."""

    observations: Observations
    """T+1 of them: the last is the one a truncated episode bootstraps from."""
    latents: Float[np.ndarray, "T L H A"]
    """The states of the chain by which it can be scored (``modes.num_latents``)."""
    denoise_step: Int[np.ndarray, " T"]
    """Index k of the (first) noised step: it goes from time k/K to (k-1)/K; 0 in an evaluation."""
    log_prob: Float[np.ndarray, "T H"]
    """The actor's own log-density, one term a chunk step (summed over scored channels)."""
    executed: Int[np.ndarray, " T"]
    """Chunk steps really executed: n_action_steps at most, fewer where the episode ended inside the chunk."""
    reward: Float[np.ndarray, " T"]
    """Reward summed over the chunk."""
    version: Int[np.ndarray, " T"]
    """Of the policy that chose each chunk; it never falls within an episode."""
    feature_key: Int[np.ndarray, " T"]
    """Of what each chunk's observation was encoded to, in ``rollout.encoded``; 0 if nobody has kept that."""
    terminated: bool
    truncated: bool
    success: bool
    seed: int = 0
    """Of the episode: episodes of one seed and task begin in the same state."""
    task: str = ""
    """Name of the task, where an environment has several."""
    number: int = 0
    """Of the episode, counted over the whole run (``rollout.assignments``)."""
    run: int = 0
    """Id of the learner's process that assigned it; a resumed run has another."""

    def __len__(self) -> int:
        return len(self.executed)


def outcome_of(episode: Episode) -> Outcome:
    """Return how an episode ended, which is all that an evaluation keeps of it."""
    oldest, newest = int(episode.version.min()), int(episode.version.max())
    return Outcome(episode.task, episode.success, float(episode.reward.sum()), oldest, newest)
