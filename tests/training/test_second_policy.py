"""The contract is enough for a second policy: a linear velocity policy, trained through everything."""

import dataclasses
import threading
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from by_recipe import create, make_recipe

from pirl_jax.likelihood import flow
from pirl_jax.likelihood.stochastic import Observed, StochasticPolicy
from pirl_jax.linear import Precision
from pirl_jax.policy import FlowPolicy
from pirl_jax.recipe import CriticConfig, NoiseConfig
from pirl_jax.rollout.assignments import Assignments
from pirl_jax.rollout.behaviour import Behaviour
from pirl_jax.rollout.episode import Episode, Observations
from pirl_jax.training import loop, parts
from pirl_jax.update import critic


class LinearVelocityPolicy:
    """v = x_t - (proprio·W + b): its chain runs from noise towards proprio·W + b."""

    num_denoising_steps, chunk_size, dim_action = 3, 2, 2
    channel_groups: Mapping[str, tuple[int, ...]] = {"joints": (0, 1)}
    gripper_logits: tuple[int, ...] = ()
    parametrization = "velocity"
    head_precision: Precision = "highest"
    summary_dim = 2
    critic_input_dims: Mapping[str, int] = {"vlm": 3}

    def split(self, params: Any) -> tuple[Any, Any]:
        return params["head"], params["encoder"]

    def merge(self, trainable: Any, frozen: Any) -> Any:
        return {"head": trainable, "encoder": frozen}

    def group(self, name: str) -> str | None:
        return "head"

    def encode(self, frozen: Any, images: Any, tokens: Any) -> Any:
        return images.astype(jnp.float32).mean((1, 3, 4)) * frozen

    def predict(self, trainable: Any, features: Any, x_t: Any, t: Any, proprio: Any, domain_id: Any) -> Any:
        return x_t - (proprio @ trainable["weight"] + trainable["bias"])[:, None]

    def supervised_loss(
        self, trainable: Any, features: Any, proprio: Any, domain_id: Any, action: Any, key: Any
    ) -> Any:
        x_t = jax.random.normal(key, action.shape)
        velocity = self.predict(trainable, features, x_t, jnp.ones(len(action)), proprio, domain_id)
        return jnp.mean((velocity - (x_t - action)) ** 2)

    def critic_input(self, kind: str, trainable: Any, features: Any, proprio: Any, domain_id: Any) -> Any:
        return features

    def prepare_proprio(self, state: Any) -> Any:
        return state

    def summarize(self, features: Any, proprio: Any) -> Any:
        return proprio


RECIPE = make_recipe(
    noise=NoiseConfig(level=0.2),
    critic=CriticConfig(hidden_dims=(8,), lr=1e-2),
    episodes_per_update=64,
    max_chunks=1,
    minibatch_size=32,
    lr=1e-2,
    target_kl=0.5,
)
UPDATES = 16


@jax.jit
def sample(params: Any, proprio: Any, eps0: Any, key: Any) -> flow.Chunk:
    """What an actor does."""
    stochastic = StochasticPolicy.of(LinearVelocityPolicy(), RECIPE.noise)
    head = stochastic.head(params, Observed(jnp.zeros((1, 3)), proprio, jnp.zeros(1, jnp.int32)))
    return flow.sample(stochastic.chain, head, eps0, key[None], jnp.ones(1, jnp.int32))


def play(behaviour: Behaviour, version: int, seed: int) -> Episode:
    """One chunk towards the point at twice the proprioception."""
    rng = np.random.default_rng(seed)
    proprio = rng.normal(size=(2, 2)).astype(np.float32)
    eps0 = rng.normal(size=(1, 2, 2)).astype(np.float32)
    chunk = sample(behaviour.params, proprio[:1], eps0, jax.random.key(seed))
    distance = np.asarray(chunk.action)[0] - 2 * proprio[0]
    return Episode(
        observations=Observations(
            images=rng.integers(0, 256, (2, 1, 3, 2, 2), dtype=np.uint8),
            tokens=np.zeros((2, 1), np.int64),
            domain_id=np.zeros(2, np.int64),
            proprio=proprio,
        ),
        latents=np.asarray(chunk.latents),
        denoise_step=np.ones(1, np.int32),
        log_prob=np.asarray(chunk.log_prob),
        executed=np.full(1, 2, np.int32),
        reward=np.float32([-(distance**2).mean()]),
        version=np.array([version]),
        feature_key=np.zeros(1, np.int64),
        terminated=True,
        truncated=False,
        success=bool((distance**2).mean() < 0.5),
    )


def test_a_linear_velocity_policy_learns_through_scoring_update_and_loop():
    policy: FlowPolicy = LinearVelocityPolicy()
    params = {
        "head": {"weight": jnp.eye(2), "bias": jnp.full(2, 0.5)},
        "encoder": jnp.float32(1 / 255),
    }
    trainable, frozen = policy.split(params)
    critic_params = critic.init(policy, RECIPE.critic, 2, jax.random.key(0))
    pushed: list[tuple[int, Behaviour]] = []
    assignments = Assignments(loop.window(RECIPE), seed=0)

    def receive(timeout: float) -> Episode | None:
        # Nothing arrives while nobody waits: an actor that takes no time is never an update ahead.
        if not timeout or (assigned := assignments.next("actor", timeout)) is None:
            return None
        while not pushed or pushed[-1][0] < assigned.version:  # as an actor waits for it
            time.sleep(0.001)
        version, behaviour = pushed[-1]
        episode = play(behaviour, version, assigned.number)
        assignments.deliver(assigned.number, assigned.seed)
        return dataclasses.replace(episode, number=assigned.number)

    actors = loop.Actors(receive, lambda version, behaviour: pushed.append((version, behaviour)), assignments)
    updates = loop.run(
        parts.assemble(policy, critic.value_function(RECIPE.critic.hidden_dims), RECIPE),
        frozen,
        create(trainable, critic_params, RECIPE, 0),
        actors,
        total_updates=UPDATES,
        stop=threading.Event(),
        ahead=False,
    )
    rows = [update.metrics for update in updates]
    assert [row["train/episodes"] for row in rows] == [64] * UPDATES
    # The actor's own log-probabilities are the learner's.
    assert max(row["train/actor_learner_logprob_gap"] for row in rows) < 1e-4
    before, after = (np.mean([row["train/return"] for row in part]) for part in (rows[:3], rows[-3:]))
    assert after > 0.7 * before  # returns are negative: the mean squared distance falls by 30 % and more


def test_the_second_policy_has_every_member_of_the_contract():
    members = {name for name in vars(FlowPolicy) if not name.startswith("_")}
    assert members <= set(dir(LinearVelocityPolicy))
