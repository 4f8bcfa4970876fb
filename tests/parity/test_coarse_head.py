"""The emulation of a GPU's coarse products, and what a head in coarse products makes of actors' chunks."""

import emulated
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from by_recipe import make_recipe, make_scorer
from lerobot.policies.xvla import XVLAPolicy
from quick import quick
from test_log_prob import RATIO_TOLERANCE, T, observations, played, preprocessed
from tiny import tiny_policy_config

from bridge.plugin.sampler import sample, use_float32_head
from bridge.weights.export import policy_config
from bridge.weights.state_dict import params_from_state
from pirl_jax.likelihood.stochastic import Observed, StochasticPolicy
from pirl_jax.linear import PRECISIONS, products_in
from pirl_jax.recipe import NoiseConfig
from pirl_jax.rollout.behaviour import Behaviour
from pirl_jax.xvla.policy import XVLAFlowPolicy


def to_tf32(x: np.ndarray) -> np.ndarray:
    """Round to 10 bits of mantissa, ties to even, by integers: the same as of float32's 23 bits, 13 fewer."""
    bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    bits += 0xFFF + ((bits >> 13) & 1)
    return ((bits >> 13) << 13).astype(np.uint32).view(np.float32)


def to_bf16(x: np.ndarray) -> np.ndarray:
    return x.astype(ml_dtypes.bfloat16).astype(np.float32)


def reference(a: np.ndarray, b: np.ndarray, precision: str) -> np.ndarray:
    """The product a·b of matrices of rounded or split operands, in float64."""
    narrow = to_bf16 if precision.startswith("bf16") else to_tf32
    parts = {"bf16_x6": 3, "bf16_x3": 2, "tf32_x3": 2}.get(precision, 1)

    def split(x):
        found = []
        for _ in range(parts):
            found.append(narrow(x - sum(found)))
        return [part.astype(np.float64) for part in found]

    lefts, rights = split(a), split(b)
    return sum(x @ y for i, x in enumerate(lefts) for j, y in enumerate(rights) if i + j < parts)


def products(precision: str) -> tuple[list[np.ndarray], list[tuple[np.ndarray, np.ndarray]]]:
    """A product and its two gradients, in a rematerialised block as in the head; and what each multiplies."""
    rng = np.random.default_rng(0)
    a, b, c = (rng.standard_normal(shape).astype(np.float32) for shape in ((40, 200), (200, 50), (40, 50)))

    @jax.jit
    def run(a, b, c):
        with products_in(precision):
            value, pull = jax.vjp(jax.checkpoint(jnp.matmul), a, b)
        return value, *pull(c)

    return [np.asarray(x) for x in run(a, b, c)], [(a, b), (c, b.T), (a.T, c)]


def distance(x: np.ndarray, y: np.ndarray) -> float:
    """Root mean square of the difference, relative to y's."""
    return float(np.sqrt(np.square(x - y).mean() / np.square(y).mean()))


@pytest.mark.parametrize(
    ("precision", "low", "high"),
    [
        # log₂ of the distance to the product of exact operands. Rounding both to p significant bits gives
        # some 2^-(p + .8), two parts together have twice the bits, and float32 sums leave 2^-22 or so.
        ("bf16", -9.3, -8.2),
        ("tf32", -12.3, -11.2),
        ("bf16_x3", -18.5, -17.0),
        ("tf32_x3", -25.0, -21.0),
        ("bf16_x6", -25.0, -21.0),
        ("highest", -25.0, -21.0),
    ],
)
def test_the_emulation_rounds_products_and_both_of_their_gradients(precision, low, high):
    for found, (a, b) in zip(*products(precision), strict=True):
        exact = a.astype(np.float64) @ b.astype(np.float64)
        assert low < np.log2(distance(found, exact)) < high
        if precision != "highest":
            # What is left is float32's own rounding of sums.
            assert distance(found, reference(a, b, precision)) < 2**-21


@pytest.mark.parametrize("bits", [emulated.BF16, emulated.TF32])
def test_the_emulation_rounds_to_nearest_even(bits):
    unit = 2.0**-bits
    numbers = [1, 1 + unit / 2, 1 + 3 * unit / 2, 1 + unit * 0.51, -1 - unit / 2, 3e38, 2e-38]
    x = np.array(numbers, np.float32)
    narrow = to_bf16 if bits == emulated.BF16 else to_tf32
    assert narrow(x)[:5].tolist() == [1, 1, 1 + 2 * unit, 1 + unit, -1]
    np.testing.assert_array_equal(jax.jit(emulated.rounded, static_argnums=1)(x, bits), narrow(x))


@pytest.mark.parametrize("precision", quick(PRECISIONS, "highest", "bf16_x3", "tf32"))
def test_scorer_and_update_agree_where_the_actor_differs_by_the_precision(precision):
    """Their programs have different shapes, and one of them is differentiated."""
    torch.manual_seed(0)
    lerobot_config = tiny_policy_config()
    actor = XVLAPolicy(lerobot_config).eval()
    use_float32_head(actor)
    config, noise = policy_config(lerobot_config), NoiseConfig("terminal", level=0.1)
    policy = XVLAFlowPolicy(config, head_precision=precision)
    trainable, frozen = policy.split(jax.device_put(params_from_state(actor.state_dict(), config)))
    drawn = sample(actor, preprocessed(observations()), noise, 1, torch.Generator().manual_seed(1))
    score = make_scorer(policy, frozen, make_recipe(noise=noise, max_chunks=T))
    scored = score(played(drawn, 1), Behaviour(trainable, 0, noise.level))
    assert scored.head_precision == precision
    recorded = np.where(scored.step_mask, drawn.log_prob.numpy(), 0)
    np.testing.assert_array_equal(scored.actor_log_prob, recorded)

    levels = np.full(T, noise.level, np.float32)
    points = scored.features, scored.proprio, scored.domain_id, scored.latents, scored.denoise_step, levels
    *seen, latents, denoise_step, levels = jax.tree.map(lambda x: jnp.asarray(x[:3]), points)

    def objective(params):
        stochastic = StochasticPolicy.of(policy, noise)
        per_step = stochastic.log_prob(params, Observed(*seen), latents, denoise_step, levels)
        log_prob = jnp.where(scored.step_mask[:3], per_step, 0).sum(1)
        return log_prob.sum(), log_prob

    _, log_prob = jax.jit(jax.grad(objective, has_aux=True))(trainable)
    log_ratio, gap = np.abs(log_prob - scored.old_log_prob[:3].sum(1)).max(), scored.log_prob_gap
    # Where an operand lies halfway between two numbers, float32's own rounding decides which it becomes. An
    # update in another precision than the scorer's would be a whole gap away.
    assert log_ratio < RATIO_TOLERANCE + gap / 2
    assert gap < scored.gap_tolerance == {"bf16_x3": 0.1, "tf32": 3.0, "bf16": 30.0}.get(precision, 0.01)
    least = {"bf16_x3": 2e-5, "tf32": 1e-3, "bf16": 1e-2}.get(precision, 0.0)
    assert least < gap < (100 * least or RATIO_TOLERANCE)
