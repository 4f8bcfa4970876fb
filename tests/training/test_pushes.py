"""A push goes on beside the loop, hurts nothing that it reads, and is not silent when it fails."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pirl_jax.rollout.behaviour import Behaviour, Behaviours
from pirl_jax.training.pushes import Pushes

SIZE = 1_000_000
over = jax.jit(lambda w: w * 0 - 1, donate_argnums=0)


def behaviour(dtype="float32"):
    return Behaviour({"w": jnp.arange(SIZE, dtype=jnp.float32)}, 0, 0.1, dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_loop_goes_on_while_a_push_is_serialised_and_may_write_over_what_is_pushed(dtype):
    may_publish, sent = threading.Event(), []

    def publish(version, pushed):
        assert may_publish.wait(10)
        sent.append((version, np.array(pushed.params["w"], np.float32)))

    acting = behaviour(dtype)
    with Pushes(publish, Behaviours(0)) as pushes:
        pushes.start(1, acting)
        pushes.release()
        over(acting.params["w"]).block_until_ready()  # the update, before the push is out
        assert not sent
        may_publish.set()
    ((version, weights),) = sent
    assert version == 1
    expected = np.arange(SIZE, dtype=np.float32).astype(jnp.dtype(dtype)).astype(np.float32)
    np.testing.assert_array_equal(weights, expected)


@pytest.mark.parametrize("staleness", [0, 1])
def test_a_policy_is_known_before_it_is_published(staleness):
    behaviours = Behaviours(staleness)
    known = []
    with Pushes(lambda version, pushed: known.append(behaviours.get(version)), behaviours) as pushes:
        for version in (1, 2, 3):
            pushes.start(version, behaviour("bfloat16"))
    kinds = {type(each.params["w"]) for each in known}
    assert len(known) == 3
    assert all(issubclass(kind, np.ndarray if staleness else jax.Array) for kind in kinds)


def test_what_goes_wrong_in_a_push_is_raised_in_the_loop():
    def publish(version, pushed):
        raise OSError("no room")

    with Pushes(publish, Behaviours(0)) as pushes:
        pushes.start(1, behaviour())
        failed = False
        while not failed:
            try:
                pushes.check()
            except OSError as error:
                failed = str(error) == "no room"
        with pytest.raises(OSError, match="no room"):
            pushes.release()


def test_a_push_that_is_slow_to_publish_does_not_release_the_next_before_it_is_read(monkeypatch):
    """An update may be quicker than a push: the parameters after it wait behind it, unread."""
    may_publish, versions = threading.Event(), []

    def publish(version, pushed):
        assert may_publish.wait(10)
        versions.append((version, float(pushed.params["w"][1])))

    released = threading.Event()
    with Pushes(publish, Behaviours(0)) as pushes:
        pushes.start(1, behaviour())
        pushes.release()
        newer = behaviour()
        pushes.start(2, newer)

        def release():
            pushes.release()
            released.set()
            over(newer.params["w"]).block_until_ready()

        waiting = threading.Thread(target=release)
        waiting.start()
        assert not released.wait(0.2)
        may_publish.set()
        waiting.join(10)
    assert versions == [(1, 1.0), (2, 1.0)]


def test_a_push_that_failed_is_not_forgotten_for_the_next():
    def publish(version, pushed):
        if version == 1:
            raise OSError("no room")

    with Pushes(publish, Behaviours(0)) as pushes:
        pushes.start(1, behaviour())
        pushes.start(2, behaviour())
        with pytest.raises(OSError, match="no room"):
            pushes.release()
