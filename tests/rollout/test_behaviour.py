"""Policy versions: which parameters acted."""

import jax.numpy as jnp
import numpy as np

from pirl_jax.rollout.behaviour import Behaviour, Behaviours, round_to


def test_versions_older_than_the_staleness_limit_are_forgotten():
    behaviours = Behaviours(max_staleness=1)
    for update, version in enumerate([3, 5, 9]):
        behaviours.add(version, Behaviour({"w": update}, update, 0.1))
    assert behaviours.get(3) is None
    assert behaviours.get(5).params == {"w": 1}
    assert behaviours.get(9).update == 2


def test_a_bfloat16_push_makes_the_rounded_weights_the_behaviour_policy():
    weights = {"w": jnp.array([1.0, 1.0 + 2**-12, -3.14159], jnp.float32)}
    rounded = round_to(weights, "bfloat16")["w"]
    assert rounded.dtype == jnp.float32
    np.testing.assert_array_equal(rounded, np.float32([1.0, 1.0, -3.140625]))
    same = round_to(weights, "float32")["w"]
    np.testing.assert_array_equal(same, weights["w"])
    assert same is not weights["w"]  # the update donates the original
