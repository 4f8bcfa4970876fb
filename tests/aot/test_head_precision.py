"""What ``algorithm.head_precision`` names is what a GPU's program computes, in the head and nowhere else."""

import re

import jax
import jax.numpy as jnp
import pytest
from tiny import tiny_policy_config

from bridge.weights.export import policy_config
from pirl_jax.likelihood import noise_head
from pirl_jax.likelihood.modes import num_latents
from pirl_jax.likelihood.stochastic import Observed, StochasticPolicy
from pirl_jax.linear import PRECISIONS
from pirl_jax.recipe import CriticConfig, NoiseConfig
from pirl_jax.update import critic
from pirl_jax.xvla.init import parameter_shapes
from pirl_jax.xvla.policy import XVLAFlowPolicy

B = 4
NOISE = NoiseConfig("flow_noise", level=0.4, correlation=0.5)
CRITIC = CriticConfig(hidden_dims=(32, 16))
HIGHEST = "operand_precision={highest,highest}"
PARTS = {"head": "/transformer/", "critic": "Critic", "noise head": "NoiseHead", "density": "hj,...jc"}


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct((B, *sizes), dtype)


def gradient_program(precision, place):
    """The compiled gradient of a chunk's log-density and of the critic, by all that is trained."""
    config = policy_config(tiny_policy_config())
    policy = XVLAFlowPolicy(config, head_precision=precision)
    stochastic = StochasticPolicy.of(policy, NOISE)
    value = critic.value_function(CRITIC.hidden_dims)
    trainable, frozen = policy.split(parameter_shapes(config))
    key = jax.random.PRNGKey(0)
    trainable |= jax.eval_shape(lambda: noise_head.init(policy, NOISE, key))
    critic_params = jax.eval_shape(lambda: critic.init(policy, CRITIC, config.dim_proprio, key))
    images, tokens = shape(1, 3, 64, 64, dtype=jnp.uint8), shape(10, dtype=jnp.int32)
    features = jax.eval_shape(policy.encode, frozen, images, tokens)
    observed = Observed(features, shape(config.dim_proprio), shape(dtype=jnp.int32))
    latents = shape(num_latents(NOISE, policy.num_denoising_steps), policy.chunk_size, policy.dim_action)
    seen = shape(policy.critic_input_dims["vlm"])

    def total(params, critic_params, observed, seen, *chunks):
        density = stochastic.log_prob(params, observed, *chunks)
        return density.sum() + value(critic_params, seen, observed.proprio).sum()

    arguments = trainable, critic_params, observed, seen, latents, shape(dtype=jnp.int32), shape()
    placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), arguments)
    return jax.jit(jax.value_and_grad(total, (0, 1))).lower(*placed).compile().as_text()


def products(program):
    """Of every product: the part it belongs to, whether it is the gradient's, and how it is computed."""
    for line in program.splitlines():
        if not re.search(r" (dot|convolution|custom-call)\(", line):
            continue
        operation = "".join(re.findall(r'op_name="([^"]*)"', line))
        part = next((name for name, mark in PARTS.items() if mark in operation), operation)
        algorithm, precision = re.search(r"algorithm=dot_(\w+)|(operand_precision={[\w,]*})", line).groups()
        yield part, "transpose(" in operation, algorithm or precision


@pytest.mark.parametrize("on", ["h100_80gb", "rtx4090_24gb"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_gpu_computes_the_heads_products_and_their_gradients_as_said(precision, on, card):
    found = list(products(gradient_program(precision, card(on))))
    named = HIGHEST if precision == "highest" else PRECISIONS[precision].lower()
    expected = {
        (part, backward, named if part == "head" else HIGHEST) for part in PARTS for backward in (False, True)
    }
    # The compiler may forget the name of a product that it splits off; none but the head's has the algorithm.
    assert {product for product in found if product[0]} == expected
    assert {how for part, _, how in found if not part} <= {named}
    # A block's six products: computed, computed again for the gradient, and two more of each for that itself.
    assert sum(part == "head" for part, *_ in found) >= 6 * 4
