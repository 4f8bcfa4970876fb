"""Our learner and a torch one, of equal weights, on equal episodes; and whether they learn the same.

Neither ``bridge.plugin`` nor gRPC is needed: ``bench_gpu.py`` stands on this too.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "parity")]

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from by_recipe import make_recipe  # noqa: E402
from florence import florence_config  # noqa: E402
from lerobot.configs.types import FeatureType, PolicyFeature  # noqa: E402
from lerobot.policies.xvla.modeling_xvla import XVLAPolicy  # noqa: E402
from lerobot.utils.constants import OBS_STATE  # noqa: E402
from published import VIEWS, published_config  # noqa: E402
from reference import flax_params, saved_config  # noqa: E402
from torch_learner import Critic, Numbers, TorchEpisode, TorchLearner, Views  # noqa: E402

from pirl_jax.likelihood import flow  # noqa: E402
from pirl_jax.likelihood.stochastic import Observed, StochasticPolicy  # noqa: E402
from pirl_jax.linear import Precision  # noqa: E402
from pirl_jax.recipe import CriticConfig, NoiseConfig, Recipe  # noqa: E402
from pirl_jax.rollout.scoring import ScoredEpisode  # noqa: E402
from pirl_jax.training.parts import Parts, assemble, capacity_of, first_state  # noqa: E402
from pirl_jax.update.critic import value_function  # noqa: E402
from pirl_jax.update.state import TrainState  # noqa: E402
from pirl_jax.xvla.config import XVLAConfig  # noqa: E402
from pirl_jax.xvla.policy import XVLAFlowPolicy  # noqa: E402

TOKENS, PROPRIO, DOMAIN, SIGMA = 50, 20, 0, 0.1
TOLERANCE = 1e-3
"""Relative, of losses and gradient norms: the same maths in float32, in two libraries."""


def _small(width: int, **head: Any) -> dict[str, Any]:
    """Return what is other than published: a head, behind an encoder of two stages and one layer."""
    views = {key: PolicyFeature(FeatureType.VISUAL, (3, 64, 64)) for key in VIEWS[:2]}
    return {
        "input_features": views | {OBS_STATE: PolicyFeature(FeatureType.STATE, (PROPRIO,))},
        "florence_config": florence_config(width=width, image_size=64),
        "resize_imgs_with_padding": None,
        **head,
    }


SIZES: dict[str, dict[str, Any]] = {
    "tiny": _small(16, hidden_size=16, depth=1, num_heads=2, num_domains=2),
    "middle": _small(256, hidden_size=384, depth=6, num_heads=6, num_domains=2),
    "published": {},
}


@dataclass
class Networks:
    """One X-VLA in both libraries."""

    model: Any
    """LeRobot's ``XVLAModel``, in evaluation mode."""
    config: XVLAConfig
    params: Any
    image_size: int
    vocabulary: int


def networks(size: str, dtype: str = "float32", **changes: Any) -> Networks:
    """Return a random network of this size, with changes to LeRobot's config."""
    torch.manual_seed(0)
    settings = published_config(**(SIZES[size] | changes), dtype=dtype)
    # First: LeRobot's policy adds generated cameras to its config, which would be counted again.
    config = XVLAConfig.from_dict(saved_config(settings))
    model = XVLAPolicy(settings).eval().model
    state = {f"model.{key}": tensor for key, tensor in model.state_dict().items()}
    shape = settings.input_features[VIEWS[0]].shape
    vocabulary = settings.florence_config["text_config"]["vocab_size"]
    return Networks(model, config, flax_params(state, config), shape[-1], vocabulary)


def recipe(episodes: int, chunks: int, minibatch: int, epochs: int = 1, **changes: Any) -> Recipe:
    """Return PPO with noise on the last step, a critic of the default size, and steps that can be seen."""
    return make_recipe(
        noise=NoiseConfig(level=SIGMA),
        critic=changes.pop("critic", CriticConfig()),
        episodes_per_update=episodes,
        max_chunks=chunks,
        minibatch_size=minibatch,
        num_epochs=epochs,
        max_staleness=0,
        **changes,
    )


def frames(nets: Networks, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random images and instructions."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 2, 3, nets.image_size, nets.image_size), dtype=np.uint8)
    return images, rng.integers(3, nets.vocabulary, (count, TOKENS)).astype(np.int32)


@dataclass
class Learners:
    """Both learners, before their first update, and what they learn from."""

    nets: Networks
    recipe: Recipe
    policy: XVLAFlowPolicy
    parts: Parts
    frozen: Any
    state: TrainState
    episodes: list[ScoredEpisode]
    torch: TorchLearner
    torch_episodes: list[TorchEpisode]

    def orders(self) -> np.ndarray:
        """Return the orders in which our next update takes the points."""
        count = sum(map(len, self.episodes))
        return np.array(self.parts.programs.orders(self.state, count, capacity_of(self.recipe)))[:, :count]

    def update(self) -> dict[str, float]:
        """Do our update, batch and steps; return its metrics."""
        batch, count = self.parts.batch(self.state, self.episodes)
        self.state, metrics = self.parts.update(self.state, batch, count)
        return {name.removeprefix("train/"): float(x) for name, x in jax.device_get(metrics).items()}

    def torch_update(self, orders: np.ndarray, views: bool = False) -> dict[str, float]:
        """Do the torch learner's; with ``views`` it encodes each minibatch anew."""
        rows = self.torch.batch(self.torch_episodes)
        return self.torch.update(rows if views else rows._replace(views=None), orders)


def learners(
    nets: Networks,
    recipe: Recipe,
    *,
    compiled: bool = False,
    head_precision: Precision = "highest",
    device: str = "cpu",
    autocast: torch.dtype | None = None,
) -> Learners:
    """Return two learners; the torch one trains ``nets.model`` in place."""
    policy = XVLAFlowPolicy(nets.config, head_precision=head_precision)
    trainable, frozen = policy.split(nets.params)
    parts = assemble(policy, value_function(recipe.critic.hidden_dims), recipe)
    state = first_state(policy, recipe, nets.config.dim_proprio, 0, trainable)
    images, tokens = frames(nets, capacity_of(recipe))
    scored = _episodes(policy, recipe, parts, state, frozen, images, tokens)
    model = nets.model.to(device)
    critic = _torch_critic(state.critic_params, recipe).to(device)
    numbers = _numbers(recipe, policy)
    learner = TorchLearner(model, critic, numbers, compiled, autocast)
    theirs = _torch_episodes(scored, images, tokens)
    return Learners(nets, recipe, policy, parts, frozen, state, scored, learner, theirs)


def check_equal(ours: dict[str, float], theirs: dict[str, float], tolerance: float = TOLERANCE) -> None:
    """Compare an update's losses and gradient norms.

    Raises:
        AssertionError: The two did not do the same; names what differs.
    """
    for name in ("policy_loss", "grad_norm", "value_loss", "critic_grad_norm", "ratio_mean"):
        # A policy loss is near 0 with normalised advantages: of their size, 1, not of its own.
        slack = 0.1 * tolerance if name == "policy_loss" else 0.0
        np.testing.assert_allclose(theirs[name], ours[name], rtol=tolerance, atol=slack, err_msg=name)


def _episodes(
    policy: XVLAFlowPolicy, recipe: Recipe, parts: Parts, state: Any, frozen: Any, images: Any, tokens: Any
) -> list[ScoredEpisode]:
    """Play chunks around what the head predicts, so that ratios begin at 1."""
    rng = np.random.default_rng(1)
    T, H, A = recipe.rollout.max_chunks, policy.chunk_size, policy.dim_action
    stochastic = StochasticPolicy.of(policy, recipe.noise)

    @jax.jit
    def draw(params: Any, observed: Observed, latents: Any, noise: Any) -> tuple[Any, Any]:
        step, level = jnp.ones(T, jnp.int32), jnp.full(T, recipe.noise.level)
        given = stochastic.distribution(params, observed, latents, step, level)
        drawn = given.mean[:, 0] + recipe.noise.level * noise
        latents = latents.at[:, -1, :, stochastic.chain.scored].set(jnp.moveaxis(drawn, -1, 0))
        return latents, flow.log_density(stochastic.chain, given, latents)

    episodes = []
    for e in range(recipe.rollout.episodes_per_update):
        rows = slice(e * (T + 1), (e + 1) * (T + 1))
        encoded = [parts.score.encode(frozen, images[i : i + 1], tokens[i : i + 1]) for i in _each(rows)]
        features = jax.tree.map(lambda *x: np.concatenate(x), *encoded)
        proprio = rng.standard_normal((T + 1, policy.config.dim_proprio)).astype(np.float32)
        domain_id = np.full(T + 1, DOMAIN, np.int32)
        observed = Observed(jax.tree.map(lambda x: x[:-1], features), proprio[:-1], domain_id[:-1])
        start = rng.standard_normal((T, 3, H, A)).astype(np.float32)
        noise = rng.standard_normal((T, H, len(stochastic.chain.scored))).astype(np.float32)
        latents, log_prob = map(np.array, draw(state.params, observed, start, noise))
        executed = np.full(T, H)
        executed[-1] = 1 + e % H
        step_mask = np.arange(H) < executed[:, None]
        log_prob = np.where(step_mask, log_prob, np.float32(0))
        episodes.append(
            ScoredEpisode(
                features=features,
                proprio=proprio,
                domain_id=domain_id,
                latents=latents,
                denoise_step=np.ones(T, np.int32),
                executed=executed,
                step_mask=step_mask,
                old_log_prob=log_prob,
                actor_log_prob=log_prob,
                level=np.full(T, recipe.noise.level, np.float32),
                reward=rng.integers(0, 2, T).astype(np.float32),
                terminated=e % 2 == 0,
                success=e % 2 == 0,
            )
        )
    return episodes


def _each(rows: slice) -> range:
    return range(rows.start, rows.stop)


def _torch_episodes(episodes: list[ScoredEpisode], images: Any, tokens: Any) -> list[TorchEpisode]:
    found, start = [], 0
    for episode in episodes:
        stop = start + len(episode) + 1
        names = ("proprio", "latents", "step_mask", "old_log_prob", "reward")
        vlm, aux = (torch.from_numpy(np.array(x, np.float32)) for x in episode.features)
        found.append(
            TorchEpisode(
                vlm=vlm,
                aux=aux,
                domain_id=torch.from_numpy(episode.domain_id).long(),
                terminated=episode.terminated,
                views=Views(
                    torch.from_numpy(images[start:stop]), torch.from_numpy(tokens[start:stop]).long()
                ),
                **{name: torch.from_numpy(getattr(episode, name)) for name in names},
            )
        )
        start = stop
    return found


def _torch_critic(params: Any, recipe: Recipe) -> Critic:
    """Return the torch critic of our critic's weights."""
    dims = recipe.critic.hidden_dims
    critic = Critic(params["hidden_0"]["kernel"].shape[0], dims)
    layers = [(f"hidden_{i}", layer) for i, layer in enumerate(critic.hidden)] + [("value", critic.value)]
    with torch.no_grad():
        for name, layer in layers:
            layer.weight.copy_(torch.from_numpy(np.array(params[name]["kernel"]).T))
            layer.bias.copy_(torch.from_numpy(np.array(params[name]["bias"])))
    return critic


def _numbers(recipe: Recipe, policy: XVLAFlowPolicy) -> Numbers:
    optimizer, critic, advantage = recipe.optimizer, recipe.critic, recipe.advantage
    return Numbers(
        num_epochs=optimizer.num_epochs,
        minibatch_size=optimizer.minibatch_size,
        lr=optimizer.lr,
        critic_lr=critic.lr,
        betas=optimizer.betas,
        eps=optimizer.eps,
        grad_clip_norm=optimizer.grad_clip_norm,
        clip_ratio=recipe.objective.clip_ratio,
        value_clip=critic.value_clip,
        huber_delta=critic.huber_delta,
        gamma=advantage.gamma,
        gae_lambda=advantage.gae_lambda,
        sigma=recipe.noise.level,
        channels=tuple(int(c) for c in StochasticPolicy.of(policy, recipe.noise).chain.scored),
        num_denoising_steps=policy.num_denoising_steps,
    )
