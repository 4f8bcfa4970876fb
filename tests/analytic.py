"""A task with a known optimum and policy gradient for a real X-VLA head: one chunk, reward -mean|A - A*(o)|².

A*(o) is linear in the proprioception. The policy starts as a clone of demonstrations that are biased and
spread around it, as X-VLA is trained, so that it is a flow that depends on its noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from by_recipe import create, make_batch, make_evaluate, make_recipe, make_update
from jax.flatten_util import ravel_pytree

from pirl_jax.likelihood import flow, modes, noise_head
from pirl_jax.recipe import CriticConfig, NoiseConfig, Recipe
from pirl_jax.rollout.collect import Collected
from pirl_jax.rollout.scoring import ScoredEpisode
from pirl_jax.update import critic as critics
from pirl_jax.update.state import TrainState
from pirl_jax.xvla.config import TextConfig, VisionConfig, XVLAConfig
from pirl_jax.xvla.init import init_params
from pirl_jax.xvla.model import XVLAFeatures, sample_times
from pirl_jax.xvla.policy import XVLAFlowPolicy

H, A, P, K, WIDTH, TOKENS = 4, 2, 3, 4, 16, 2
EPISODES = 256
BIAS, SPREAD = 0.3, 0.25
RADIUS = 0.3
"""A chunk succeeds if its root mean square distance to A* is smaller."""

CONFIG = XVLAConfig(
    vision=VisionConfig(
        depths=(1,),
        patch_size=(7,),
        patch_stride=(8,),
        patch_padding=(3,),
        patch_prenorm=(False,),
        embed_dim=(WIDTH,),
        num_heads=(2,),
        num_groups=(2,),
        window_size=2,
        projection_dim=WIDTH,
        max_position_embeddings=8,
    ),
    text=TextConfig(
        vocab_size=16,
        max_position_embeddings=16,
        encoder_layers=1,
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        d_model=WIDTH,
    ),
    chunk_size=H,
    n_action_steps=H,
    hidden_size=16,
    depth=1,
    num_heads=2,
    num_domains=1,
    len_soft_prompts=2,
    dim_time=8,
    max_len_seq=32,
    action_mode="auto",
    max_action_dim=A,
    max_state_dim=P,
    num_denoising_steps=K,
    image_keys=("observation.images.front",),
)
POLICY = XVLAFlowPolicy(CONFIG)
"""X-VLA's head; its encoder is never run, the features are constants."""


class VelocityPolicy(XVLAFlowPolicy):
    """The same network as a velocity policy: v = (x_t - â)/t."""

    parametrization = "velocity"

    def predict(self, trainable, features, x_t, t, proprio, domain_id):
        """Return the velocity."""
        clean = super().predict(trainable, features, x_t, t, proprio, domain_id)
        return (x_t - clean) / t[:, None, None]


POLICIES = {"data": POLICY, "velocity": VelocityPolicy(CONFIG)}
CRITIC = critics.value_function((32,))


class Task(NamedTuple):
    """A*(o) = weights·o, and what the demonstrator does instead: A* + bias + spread·z, one z a chunk."""

    weights: Any
    """[P, H, A]"""
    bias: Any
    """[A]"""
    features: XVLAFeatures
    """Of one observation, batch 1: the instruction and the image never change."""

    def optimum(self, proprio):
        return jnp.einsum("bp,pha->bha", proprio, self.weights)

    def squared_error(self, action, proprio, executed: int = H):
        """Of the executed steps, the first ones."""
        return jnp.mean((action - self.optimum(proprio))[:, :executed] ** 2, axis=(1, 2))


def make_task(seed: int) -> Task:
    rng = np.random.default_rng(seed)
    tokens = jnp.asarray(rng.normal(size=(1, TOKENS, WIDTH)), jnp.float32)
    return Task(
        weights=jnp.asarray(rng.normal(0, 0.5, (P, H, A)), jnp.float32),
        bias=jnp.asarray(BIAS * rng.choice([-1, 1], A), jnp.float32),
        features=XVLAFeatures(tokens, jnp.zeros((1, 0, 1, WIDTH))),
    )


def features_of(task: Task, B: int) -> XVLAFeatures:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (B, *x.shape[1:])), task.features)


def head(params, task: Task, proprio, parametrization: str):
    """The policy at these observations, as ``flow`` takes it."""
    features, domain_id = features_of(task, len(proprio)), jnp.zeros(len(proprio), jnp.int32)
    predict = POLICIES[parametrization].predict
    return lambda x_t, t: predict(params, features, x_t, t, proprio, domain_id)


@partial(jax.jit, static_argnames="steps")
def _clone(params, task: Task, key, steps: int):
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

    def step(carry, key):
        params, opt_state = carry
        keys = jax.random.split(key, 4)
        proprio = jax.random.normal(keys[0], (256, P))
        demos = task.optimum(proprio) + task.bias + SPREAD * jax.random.normal(keys[1], (256, 1, A))
        t = sample_times(keys[2], 256)
        x_t = t[:, None, None] * jax.random.normal(keys[3], demos.shape) + (1 - t)[:, None, None] * demos

        def loss(params):
            return jnp.mean((head(params, task, proprio, "data")(x_t, t) - demos) ** 2)

        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    return jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(key, steps))[0][0]


@cache
def start(seed: int) -> tuple[Task, Any]:
    """A task and a policy cloned from its demonstrations."""
    task = make_task(seed)
    params, _ = POLICY.split(init_params(CONFIG, jax.random.PRNGKey(seed)))
    return task, _clone(params, task, jax.random.PRNGKey(seed + 1), 600)


@partial(jax.jit, static_argnames="parametrization")
def success_rate(params, task: Task, parametrization: str = "data") -> Any:
    """Of the zero-noise policy, on 4000 observations."""
    keys = jax.random.split(jax.random.PRNGKey(10_000))
    proprio = jax.random.normal(keys[0], (4000, P))
    eps0 = jax.random.normal(keys[1], (4000, H, A))
    chain = flow.Chain.of(POLICIES[parametrization], NoiseConfig())
    action = flow.deterministic(chain, head(params, task, proprio, parametrization), eps0)
    return jnp.mean(task.squared_error(action, proprio) < RADIUS**2)


@partial(jax.jit, static_argnames=("mode", "group", "parametrization", "executed"))
def rollout(params, task: Task, key, k, mode: str, group: int, parametrization: str, executed: int = H):
    """Chunks at ``len(k)`` observations, ``group`` of them the same."""
    keys, B = jax.random.split(key, 3), len(k)
    dtype = task.weights.dtype
    proprio = jnp.repeat(jax.random.normal(keys[0], (B // group, P), dtype), group, axis=0)
    eps0 = jax.random.normal(keys[1], (B, H, A), dtype)
    config, policy = NoiseConfig(mode=mode, level=LEVELS[mode]), POLICIES[parametrization]
    predict, spread = (
        head(params, task, proprio, parametrization),
        noise_head.log_multiplier_of(policy, config),
    )
    bound = spread and partial(spread, params, features_of(task, B), proprio)
    chunk = flow.sample(
        flow.Chain.of(policy, config), predict, eps0, jax.random.split(keys[2], B), k, log_multiplier=bound
    )
    return proprio, chunk, -task.squared_error(chunk.action, proprio, executed)


LEVELS = {"terminal": 0.15, "flow_sde": 0.5, "flow_cps": 0.5, "flow_noise": 0.15}


def draw_steps(mode: str, B: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.array([modes.MODES[mode].sample_step(rng, K) for _ in range(B)], np.int32)


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """Settings of the recipe, and how many updates old the policy is that acts."""

    settings: Mapping[str, Any]
    staleness: int = 0


ALGORITHMS = {
    "PPO": Algorithm({}),
    "GRPO": Algorithm({"estimator": "group", "group_size": 8}),
    "async": Algorithm({"decoupled": True}, staleness=2),
}


class Case:
    """One mode and one algorithm: episodes, updates, and the gradient that an update follows."""

    def __init__(
        self,
        mode: str,
        algorithm: str,
        replay: str = "last",
        parametrization: str = "data",
        executed: int = H,
    ) -> None:
        self.executed = executed
        self.mode, self.algorithm, self.parametrization = mode, ALGORITHMS[algorithm], parametrization
        self.recipe = make_recipe(
            noise=NoiseConfig(mode=mode, level=LEVELS[mode], replay=replay),
            critic=CriticConfig(hidden_dims=(32,), lr=3e-3),
            episodes_per_update=EPISODES,
            max_chunks=1,
            minibatch_size=64,
            lr=1e-4,
            **self.algorithm.settings,
        )
        self.policy = policy = POLICIES[parametrization]
        self._evaluate = make_evaluate(policy, CRITIC, self.recipe)
        self.scored_steps = modes.scored_steps
        chain = flow.Chain.of(policy, self.recipe.noise)
        multiplier = noise_head.log_multiplier_of(policy, self.recipe.noise)
        self._update = make_update(policy.predict, CRITIC, self.recipe, chain, multiplier)
        # One full-batch step of length zero, unclipped: Adam's first moment is (1 - β₁) times its gradient.
        self._still = make_recipe(
            self.recipe, num_epochs=1, minibatch_size=2 * EPISODES, lr=0.0, grad_clip_norm=1e9
        )
        self._still_update = make_update(policy.predict, CRITIC, self._still, chain, multiplier)

    def start(self, seed: int) -> tuple[Task, Any]:
        """A seed's task, its clone, and a noise head where the mode has one."""
        task, params = start(seed)
        return task, params | noise_head.init(self.policy, self.recipe.noise, jax.random.PRNGKey(seed))

    def collect(self, acted: Any, task: Task, seed: int) -> list[Collected]:
        """Episodes of one chunk."""
        k = draw_steps(self.mode, EPISODES, seed)
        group, key = self.recipe.rollout.group_size, jax.random.PRNGKey(seed)
        proprio, chunk, reward = jax.device_get(
            rollout(acted, task, key, k, self.mode, group, self.parametrization, self.executed)
        )
        executed = np.full(EPISODES, self.executed, np.int32)
        counted = self.scored_steps(k, executed, H)
        features = jax.tree.map(lambda x: np.repeat(np.asarray(x), 2, axis=0), task.features)
        return [
            Collected(
                ScoredEpisode(
                    features=features,
                    proprio=np.repeat(proprio[i : i + 1], 2, axis=0),
                    domain_id=np.zeros(2, np.int32),
                    latents=chunk.latents[i : i + 1],
                    denoise_step=k[i : i + 1],
                    executed=executed[i : i + 1],
                    step_mask=counted[i : i + 1],
                    old_log_prob=chunk.log_prob[i : i + 1],
                    actor_log_prob=chunk.log_prob[i : i + 1],
                    level=np.full(1, LEVELS[self.mode], np.float32),
                    reward=reward[i : i + 1],
                    terminated=True,
                    success=bool(reward[i] > -(RADIUS**2)),
                    seed=i // group,
                ),
                update=np.zeros(1, int),
            )
            for i in range(EPISODES)
        ]

    def train(self, seed: int, updates: int) -> TrainState:
        """Learn a seed's task from its clone."""
        task, params = self.start(seed)
        train_state = _new_state(params, self.recipe, seed)
        acting = [params] * (self.algorithm.staleness + 1)
        for i in range(updates):
            episodes = self.collect(acting[0], task, 1000 * (seed + 1) + i)
            batch, n = make_batch(episodes, self.recipe, self._evaluate, train_state)
            train_state, _ = self._update(train_state, batch, n)
            # Copied: the next update donates the state's buffers.
            acting = [*acting[1:], jax.tree.map(jnp.copy, train_state.params)]
        return train_state

    def gradients(self, params: Any, acted: Any, task: Task, batches: int, seed: int) -> np.ndarray:
        """The policy gradient as the update estimates it, of each of several batches, [batches, D]."""
        still, rows = _new_state(params, self._still, seed), []
        for i in range(batches):
            batch, n = make_batch(self.collect(acted, task, seed + i), self._still, self._evaluate, still)
            after, _ = self._still_update(jax.tree.map(jnp.copy, still), batch, n)
            rows.append(-ravel_pytree(optax.tree_utils.tree_get(after.opt_state, "mu"))[0])
        return np.asarray(rows, np.float64)


def _new_state(params: Any, recipe: Recipe, seed: int) -> TrainState:
    critic_params = critics.init(POLICY, recipe.critic, CONFIG.dim_proprio, jax.random.PRNGKey(seed))
    return create(jax.tree.map(jnp.copy, params), critic_params, recipe, seed)


def true_gradient(
    mode: str,
    params: Any,
    task: Task,
    batches: int,
    seed: int,
    parametrization: str = "data",
    executed: int = H,
) -> np.ndarray:
    """∇E[reward] in float64, through the sampled chain: no likelihood in it. [batches, D], of 4096 each."""
    with jax.enable_x64(True):
        params, task = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (params, task))

        @jax.jit
        def gradient(params, key, k):
            def value(params):
                return jnp.mean(rollout(params, task, key, k, mode, 1, parametrization, executed)[2])

            return ravel_pytree(jax.grad(value)(params))[0]

        return np.array(
            [
                gradient(params, jax.random.PRNGKey(seed + i), draw_steps(mode, 4096, seed + i))
                for i in range(batches)
            ]
        )


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def bootstrap_cosine(estimates: np.ndarray, truth: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Cosine of the mean estimate with the mean truth, and a 95 % interval over resampled batches of both."""
    rng = np.random.default_rng(seed)

    def resampled(rows: np.ndarray) -> np.ndarray:
        return rows[rng.integers(0, len(rows), len(rows))].mean(0)

    values = [cosine(resampled(estimates), resampled(truth)) for _ in range(2000)]
    low, high = np.quantile(values, [0.025, 0.975])
    return cosine(estimates.mean(0), truth.mean(0)), float(low), float(high)
