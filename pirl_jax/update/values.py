"""What the critic sees of observations, and the values it gives them."""

from __future__ import annotations

from collections.abc import Callable

import jax

from pirl_jax.policy import FlowPolicy
from pirl_jax.recipe import Recipe
from pirl_jax.typing import Array, PyTree
from pirl_jax.update.batch import in_blocks
from pirl_jax.update.critic_update import ValueFunction
from pirl_jax.update.state import TrainState

Evaluate = Callable[[TrainState, PyTree, Array, Array], tuple[Array, Array]]
"""``(state, features, proprio [N P], domain_id [N]) -> (the critic's inputs [N D], values [N])``."""


def make_evaluate(policy: FlowPolicy, critic: ValueFunction, recipe: Recipe) -> Evaluate:
    """Build it, jitted, for ``recipe.critic.input``; it takes no more memory than a minibatch does.

    The inputs are of the state's policy parameters. An update takes them once and keeps them: its values, its
    targets and its regression are of one and the same function of the observation, though the policy moves.
    """
    inputs_of = policy.critic_inputs[recipe.critic.input]

    @jax.jit
    def evaluate(
        state: TrainState, features: PyTree, proprio: Array, domain_id: Array
    ) -> tuple[Array, Array]:
        rows = (features, proprio, domain_id)
        size = min(recipe.minibatch_size, len(domain_id))
        inputs = in_blocks(lambda block: inputs_of(state.params, *block), rows, size)
        return inputs, critic(state.critic_params, inputs, proprio)

    return evaluate
