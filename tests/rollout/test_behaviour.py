"""Policy versions: which parameters acted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pirl_jax.rollout.behaviour import Behaviour, Behaviours, as_pushed, rounded


def test_versions_older_than_the_staleness_limit_are_forgotten():
    behaviours = Behaviours(max_staleness=1)
    for update, version in enumerate([3, 5, 9]):
        behaviour = Behaviour({"w": jnp.float32(update)}, update, 0.1)
        behaviours.add(version, behaviour, as_pushed(behaviour))
    assert behaviours.get(3) is None
    assert behaviours.get(5).params == {"w": 1}
    assert behaviours.get(9).update == 2


def test_what_may_act_on_is_kept_on_the_host_as_it_was_pushed_and_what_may_not_is_the_parameters():
    weights = jnp.array([1.0, 1.0 + 2**-12], jnp.float32)
    alone, among = Behaviours(max_staleness=0), Behaviours(max_staleness=1)
    behaviour = Behaviour({"w": weights}, 0, 0.1, "bfloat16")
    for behaviours in (alone, among):
        behaviours.add(1, behaviour, as_pushed(behaviour))
    assert alone.get(1).params["w"] is weights
    kept = among.get(1).params["w"]
    assert isinstance(kept, np.ndarray)
    assert kept.dtype == jnp.bfloat16
    for behaviours in (alone, among):
        behaviours.let_go()
    weights.delete()
    assert alone.get(1) is None
    np.testing.assert_array_equal(among.get(1).params["w"].astype(np.float32), [1.0, 1.0])


@pytest.mark.parametrize("program", [rounded, jax.jit(rounded, static_argnums=1)])
def test_a_bfloat16_push_makes_the_rounded_weights_the_behaviour_policy(program):
    weights = {"w": jnp.array([1.0, 1.0 + 2**-12, -3.14159], jnp.float32)}
    acting = program(weights, "bfloat16")["w"]
    assert acting.dtype == jnp.float32
    np.testing.assert_array_equal(acting, np.float32([1.0, 1.0, -3.140625]))
    np.testing.assert_array_equal(program(weights, "float32")["w"], weights["w"])
    pushed = {"w": weights["w"].astype(jnp.bfloat16)}
    np.testing.assert_array_equal(program(pushed, "bfloat16")["w"], acting)
