"""The head's products are as precise as the recipe says, all others float32 on every backend.

So are those of their gradients.
"""

import dataclasses
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import pytest
from analytic import CONFIG, POLICY, H, P, make_task

from pirl_jax.likelihood import noise_head
from pirl_jax.linear import PRECISIONS, Precision, check_precision
from pirl_jax.recipe import CriticConfig, NoiseConfig
from pirl_jax.recipe.recipe import HeadPrecision
from pirl_jax.rollout.scoring import HEAD_GAP
from pirl_jax.update import critic
from pirl_jax.xvla.init import init_params

B = 2
PARAMS = init_params(CONFIG, jax.random.key(0))
TRAINABLE, FROZEN = POLICY.split(PARAMS)
FEATURES = jax.tree.map(lambda x: jnp.broadcast_to(x, (B, *x.shape[1:])), make_task(0).features)
PROPRIO, DOMAIN, TIME = jnp.zeros((B, P)), jnp.zeros(B, jnp.int32), jnp.full(B, 0.5)
ACTION = jnp.zeros((B, H, CONFIG.dim_action))
NOISE = NoiseConfig(mode="flow_noise", head_hidden_dims=(4,))


def predicted(policy, params):
    return policy.predict(params, FEATURES, ACTION, TIME, PROPRIO, DOMAIN).sum()


def hidden(policy, params):
    return policy.critic_input("expert", params, FEATURES, PROPRIO, DOMAIN).sum()


def supervised(policy, params):
    return policy.supervised_loss(params, FEATURES, PROPRIO, DOMAIN, ACTION, jax.random.PRNGKey(0))


def valued(policy, params):
    inputs = jnp.zeros((B, policy.critic_input_dims["vlm"]))
    return critic.value_function((4,))(params, inputs, PROPRIO).sum()


def multiplied(policy, params):
    log_multiplier = noise_head.log_multiplier_of(policy, NOISE)
    assert log_multiplier is not None
    return log_multiplier(params, FEATURES, PROPRIO, TIME).sum()


CASES = {
    "head": (predicted, TRAINABLE),
    "hidden states": (hidden, TRAINABLE),
    "supervised loss": (supervised, TRAINABLE),
    "critic": (
        valued,
        critic.init(POLICY, CriticConfig(hidden_dims=(4,)), CONFIG.dim_proprio, jax.random.PRNGKey(0)),
    ),
    "noise head": (multiplied, noise_head.init(POLICY, NOISE, jax.random.PRNGKey(0))),
}


def products(jaxpr):
    """The precisions of all products in a program, inner programs included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation.params["precision"]
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=is_program):
            if is_program(value):
                yield from products(getattr(value, "jaxpr", value))


def is_program(value):
    return hasattr(value, "jaxpr") or hasattr(value, "eqns")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", CASES)
def test_no_product_is_left_to_the_backends_default(case, precision):
    function, params = CASES[case]
    policy = dataclasses.replace(POLICY, head_precision=precision)
    found = list(products(jax.make_jaxpr(jax.grad(partial(function, policy)))(params).jaxpr))
    highest = jax.lax.Precision.HIGHEST
    expected: Any = (highest, highest)
    if precision != "highest" and case in ("head", "hidden states", "supervised loss"):
        expected = jax.lax.DotAlgorithmPreset[PRECISIONS[precision]]
    assert len(found) >= 4
    assert set(found) == {expected}


def test_the_recipe_offers_the_precisions_that_there_are():
    assert get_args(HeadPrecision) == get_args(Precision) == tuple(PRECISIONS) == tuple(HEAD_GAP)


@pytest.mark.parametrize("backend", ["cpu", "tpu"])
def test_coarse_products_are_for_a_gpu(backend):
    for precision in PRECISIONS:
        check_precision(precision, "gpu")
        if precision != "highest":
            with pytest.raises(ValueError, match=f"head_precision={precision} is for a GPU; .* {backend!r} "):
                check_precision(precision, backend)
    check_precision("highest", backend)
