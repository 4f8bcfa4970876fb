"""A flow policy as a distribution over action chunks: what the learner scores and trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax

from pirl_jax.likelihood import flow, noise_head
from pirl_jax.likelihood.chain import Chain
from pirl_jax.policy import FlowPolicy
from pirl_jax.recipe import NoiseConfig
from pirl_jax.typing import Array, Features, Float, Int, Params


class Observed(NamedTuple):
    """Observations as the policy's head sees them."""

    features: Features
    """What the frozen encoder made of images and instruction."""
    proprio: Float[Array, "B P"]
    domain_id: Int[Array, " B"]


@dataclass(frozen=True, eq=False)
class StochasticPolicy:
    """The chain of a policy with its networks, as functions of the trainable parameters."""

    chain: Chain
    predict: Callable[..., Array]
    """``FlowPolicy.predict``."""
    log_multiplier: Callable[[Params, Features, Array, Array], Array] | None = None
    """``(trainable, features, proprio, t) -> `` log factor on the noise of each channel, for a mode that
    learns it (``noise_head.log_multiplier_of``)."""

    @classmethod
    def of(cls, policy: FlowPolicy, noise: NoiseConfig) -> StochasticPolicy:
        """Return a flow policy with this noise.

        Raises:
            ValueError: Groups of channels, or a drawn gripper, that the action space has not.
        """
        return cls(Chain.of(policy, noise), policy.predict, noise_head.log_multiplier_of(policy, noise))

    def head(self, params: Params, observed: Observed) -> flow.Predict:
        """Return ``(x_t, t) -> `` the flow head's output for these observations."""

        def predict(x_t: Array, t: Array) -> Array:
            return self.predict(params, observed.features, x_t, t, observed.proprio, observed.domain_id)

        return predict

    def distribution(
        self,
        params: Params,
        observed: Observed,
        latents: Float[Array, "B L H A"],
        denoise_step: Int[Array, " B"],
        level: Float[Array, " B"],
    ) -> flow.Distribution:
        """Return what chunks' noised steps are drawn from under these parameters (``flow.distribution``)."""
        multiplier = self._multiplier(params, observed)
        return flow.distribution(
            self.chain, self.head(params, observed), latents, denoise_step, level, multiplier
        )

    def sample(
        self,
        params: Params,
        observed: Observed,
        keys: Array,
        denoise_step: Int[Array, " B"],
        level: Float[Array, " B"],
        shape: tuple[int, int],
    ) -> flow.Chunk:
        """Draw a chunk for each observation, all of its noise by its own key (``flow.sample``).

        Args:
            params: the trainable ones.
            observed: B observations.
            keys: one a row.
            denoise_step: the (first) noised step of each.
            level: noise level of each.
            shape: H, A of a chunk.
        """
        beyond = self.chain.K + 1  # the chain's own draws are numbered by its steps, from 0
        eps0 = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, beyond), shape))(keys)
        multiplier = self._multiplier(params, observed)
        head = self.head(params, observed)
        return flow.sample(self.chain, head, eps0, keys, denoise_step, level, multiplier)

    def log_prob(
        self,
        params: Params,
        observed: Observed,
        latents: Float[Array, "B L H A"],
        denoise_step: Int[Array, " B"],
        level: Float[Array, " B"],
    ) -> Float[Array, "B H"]:
        """Return the log-density of each chunk step given those before it (``flow.log_density``)."""
        drawn_from = self.distribution(params, observed, latents, denoise_step, level)
        return flow.log_density(self.chain, drawn_from, latents)

    def _multiplier(self, params: Params, observed: Observed) -> flow.LogMultiplier | None:
        if self.log_multiplier is None:
            return None
        return partial(self.log_multiplier, params, observed.features, observed.proprio)
