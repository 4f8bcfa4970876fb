"""Plans of small X-VLAs, which are compiled in seconds."""

from typing import Any

import jax
from by_recipe import make_recipe
from tiny import tiny_policy_config

from bridge.weights.export import policy_config
from pirl_jax.placement import ONE_DEVICE, Placement
from pirl_jax.recipe import Recipe
from pirl_jax.training.parts import assemble, first_state
from pirl_jax.training.plan import Observation, Plan
from pirl_jax.update.critic import value_function
from pirl_jax.xvla.init import parameter_shapes
from pirl_jax.xvla.policy import XVLAFlowPolicy

ROWS = 64


def plan_of(
    recipe: Recipe,
    policy: Any = None,
    observation: Observation | None = None,
    place: Any = None,
    placement: Placement = ONE_DEVICE,
) -> Plan:
    """Return the plan of a recipe for LeRobot's config of a policy, the tests' tiny one by default."""
    config = policy_config(policy or tiny_policy_config())
    flow_policy = XVLAFlowPolicy(config)
    trainable, frozen = flow_policy.split(parameter_shapes(config))
    state = jax.eval_shape(
        lambda params: first_state(flow_policy, recipe, config.dim_proprio, 0, params), trainable
    )
    value, platform = value_function(recipe.critic.hidden_dims), "cuda" if place else None
    parts = assemble(flow_policy, value, recipe, platform, placement)
    observation = observation or Observation((1, 3, 64, 64), 10, config.dim_proprio, config.real_action_dim)
    frozen, state = placement.whole_shapes(frozen), placement.split_shapes(state)
    return Plan(parts, frozen, state, observation, place)


def plan(**numbers: Any) -> Plan:
    """Return the plan of a recipe with these numbers and minibatches of ``ROWS``."""
    return plan_of(make_recipe(minibatch_size=ROWS, **numbers))
