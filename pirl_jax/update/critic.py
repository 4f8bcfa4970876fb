"""The critic: a state value from features of the policy's networks (πRL, arXiv 2510.25889 §4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pirl_jax.likelihood.stochastic import Observed
from pirl_jax.linear import full_precision
from pirl_jax.placement import ONE_DEVICE, Placement
from pirl_jax.policy import FlowPolicy
from pirl_jax.recipe import CriticConfig
from pirl_jax.rows import in_blocks
from pirl_jax.typing import Array, Float, Params, PRNGKeyArray, typed
from pirl_jax.update.state import TrainState

ValueFunction = Callable[[Params, Array, Array], Array]
"""``(critic params, inputs [B D], proprio [B P]) -> values [B]``."""
Evaluate = Callable[[TrainState, Observed], tuple[np.ndarray, np.ndarray]]
"""``(state, B observations) -> (the critic's inputs [B D], values [B])``, from host memory to host memory."""


class Critic(nn.Module):
    """V(s): an MLP on one feature vector and the proprioception, in float32."""

    hidden_dims: tuple[int, ...] = (1024, 512, 256)

    @nn.compact
    @typed
    def __call__(self, inputs: Float[Array, "B D"], proprio: Float[Array, "B P"]) -> Float[Array, " B"]:
        """Estimate the value of observations.

        Args:
            inputs: ``FlowPolicy.critic_input``; no gradient flows into it.
            proprio: ``FlowPolicy.prepare_proprio``.
        """
        x = jnp.concatenate([jax.lax.stop_gradient(inputs), proprio], axis=-1).astype(jnp.float32)
        for index, width in enumerate(self.hidden_dims):
            x = nn.gelu(nn.Dense(width, name=f"hidden_{index}")(x))
        # Near-zero values at the start: the first advantages are the returns, not an artefact of the init.
        return nn.Dense(1, kernel_init=nn.initializers.normal(1e-2), name="value")(x)[:, 0]


def value_function(hidden_dims: Sequence[int]) -> ValueFunction:
    """Return the critic as a function of its parameters."""
    critic = Critic(tuple(hidden_dims))

    def value(params: Params, inputs: Array, proprio: Array) -> Array:
        with full_precision():
            return cast(Array, critic.apply({"params": params}, inputs, proprio))

    return value


def init(policy: FlowPolicy, config: CriticConfig, dim_proprio: int, key: PRNGKeyArray) -> Params:
    """Draw the critic's parameters for the width of its input."""
    inputs = jnp.zeros((1, policy.critic_input_dims[config.input])), jnp.zeros((1, dim_proprio))
    return jax.jit(Critic(tuple(config.hidden_dims)).init)(key, *inputs)["params"]


def make_evaluate(
    policy: FlowPolicy, value: ValueFunction, kind: str, block: int, placement: Placement = ONE_DEVICE
) -> Evaluate:
    """Build the function that values observations.

    The inputs are of the state's policy parameters. An update takes them once and keeps them: its values, its
    targets and its regression are of one and the same function of the observation, though the policy moves.

    Args:
        policy: gives the critic's input.
        value: the critic.
        kind: ``CriticConfig.input``.
        block: observations at a time, which bounds the memory.
        placement: where the observations go.
    """

    @jax.jit
    def run(params: Params, critic_params: Params, observed: Observed) -> tuple[Array, Array]:
        inputs = policy.critic_input(kind, params, *observed)
        return inputs, value(critic_params, inputs, observed.proprio)

    def evaluate(state: TrainState, observed: Observed) -> tuple[np.ndarray, np.ndarray]:
        parameters = state.params, state.critic_params
        count = len(observed.domain_id)
        return in_blocks(partial(run, *parameters), observed, count, block, placement.rows)

    return evaluate
