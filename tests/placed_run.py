"""``python -m placed_run FOLDER``: the same updates on one device and on meshes of them, a file each.

A process of its own: how many devices a CPU stands for is settled when JAX starts.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from by_recipe import make_recipe
from tiny import tiny_policy_config

from bridge.weights.export import policy_config
from pirl_jax import placement as placements
from pirl_jax.likelihood.modes import num_latents
from pirl_jax.placement import bytes_of_one, place
from pirl_jax.recipe import CriticConfig, DemonstrationsConfig, MeshConfig, NoiseConfig
from pirl_jax.rollout.behaviour import Behaviour, as_pushed
from pirl_jax.rollout.episode import Episode, Observations
from pirl_jax.training import compilations
from pirl_jax.training.parts import assemble, first_state
from pirl_jax.trees import store
from pirl_jax.update.critic import value_function
from pirl_jax.update.demonstrations import Demonstrations
from pirl_jax.update.state import TrainState
from pirl_jax.xvla.init import init_params
from pirl_jax.xvla.policy import XVLAFlowPolicy

MESHES = {
    "one": MeshConfig(),
    "data2": MeshConfig(data=2),
    "fsdp4": MeshConfig(fsdp=4),
    "data2_fsdp4": MeshConfig(data=2, fsdp=4),
}
RECIPE = make_recipe(
    noise=NoiseConfig(mode="flow_noise", level=0.3),
    critic=CriticConfig(hidden_dims=(16,), extra_steps=2),
    demonstrations=DemonstrationsConfig(coef=0.1, batch_size=8, max_samples=12),
    episodes_per_update=6,
    max_chunks=3,
    minibatch_size=10,
    num_epochs=2,
    lr=1e-3,
    target_kl=None,
    reference_kl_coef=0.1,
    decoupled=True,
    max_staleness=1,
)
UPDATES = 3
STEADY = 2
"""Updates after which nothing is compiled."""


def episodes(policy: XVLAFlowPolicy, dim_proprio: int) -> list[Episode]:
    """Chunks that nobody drew: the learner recomputes their density, whatever they are."""
    rng = np.random.default_rng(0)
    H, A = policy.chunk_size, policy.dim_action
    L = num_latents(RECIPE.noise, policy.num_denoising_steps)
    played = []
    for T in (1, 3, 2, 3, 3, 1):
        played.append(
            Episode(
                observations=Observations(
                    images=rng.integers(0, 256, (T + 1, 1, 3, 64, 64), dtype=np.uint8),
                    tokens=rng.integers(0, 8, (T + 1, 10)),
                    domain_id=np.zeros(T + 1, np.int64),
                    proprio=rng.normal(size=(T + 1, dim_proprio)).astype(np.float32),
                ),
                latents=(0.3 * rng.normal(size=(T, L, H, A))).astype(np.float32),
                denoise_step=np.full(T, policy.num_denoising_steps, np.int32),
                log_prob=np.zeros((T, H), np.float32),
                executed=rng.integers(1, H + 1, T).astype(np.int32),
                reward=rng.normal(size=T).astype(np.float32),
                version=np.ones(T, int),
                feature_key=np.zeros(T, int),
                terminated=True,
                truncated=False,
                success=True,
            )
        )
    return played


def run(mesh: MeshConfig, folder: Path, dtype: Any) -> dict[str, Any]:
    """Update; return what to compare, by name."""
    config = policy_config(tiny_policy_config())
    policy, placement = XVLAFlowPolicy(config), place(mesh)
    recipe = dataclasses.replace(RECIPE, mesh=mesh)
    trainable, frozen = policy.split(init_params(config, jax.random.key(0)))
    value = value_function(recipe.critic.hidden_dims)
    parts = assemble(policy, value, recipe, placement=placement)

    def start() -> TrainState:
        state = first_state(policy, recipe, config.dim_proprio, 0, trainable)
        floats = jnp.floating
        return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, floats) else x, state)

    state, encoder = placement.moved(start()), placement.whole(frozen)
    played = episodes(policy, config.dim_proprio)
    behaviour = as_pushed(Behaviour(state.params, 0, RECIPE.noise.level))
    scored = parts.score.together(encoder, played, {1: behaviour})
    frames = [each.observations for each in played]
    rows = np.arange(12)
    features = parts.score.encode(
        encoder,
        np.concatenate([each.images for each in frames])[rows],
        np.concatenate([each.tokens for each in frames])[rows].astype(np.int32),
    )
    action = np.random.default_rng(1).normal(size=(12, policy.chunk_size, config.real_action_dim))
    shown: Any = (
        jax.device_get(features),
        np.concatenate([each.proprio for each in frames])[rows],
        np.zeros(12, np.int32),
        action.astype(np.float32),
    )
    demonstrations = Demonstrations(*placement.whole(shown))
    placed, found = sharding_of(state), {}
    for update in range(UPDATES):
        before = compilations.count()
        batch, n = parts.batch(state, scored)
        state, metrics = parts.update(state, batch, n, demonstrations)
        state, more = parts.fit_critic(state, batch, n)
        if update == 0:
            found |= {f"first/{name}": np.asarray(leaf) for name, leaf in named(state)}
        found |= {f"metric/{update}/{name}": np.asarray(number) for name, number in (metrics | more).items()}
        found[f"compiled/{update}"] = np.asarray(compilations.count() - before)
        gone = [
            (name, leaf.sharding, before)
            for (name, leaf), before in zip(named(state), placed, strict=True)
            if not leaf.sharding.is_equivalent_to(before, leaf.ndim)
        ]
        assert not gone, f"arrays have gone elsewhere: {gone[:3]}"
    store.save(folder / "state", state)
    shapes = jax.eval_shape(start)
    back = store.restore(folder / "state", place(MESHES["fsdp4"]).split_shapes(shapes))
    found["restored"] = np.asarray(
        all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(back), strict=True))
    )
    found["bytes"] = np.asarray(bytes_of_one(state))
    return found | {f"state/{name}": np.asarray(leaf) for name, leaf in named(state)}


def named(state: TrainState) -> list[tuple[str, Any]]:
    """Return the arrays of a state by name."""
    paths, _ = jax.tree_util.tree_flatten_with_path(state)
    return [(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in paths]


def sharding_of(state: TrainState) -> list[Any]:
    """Return where each array lies."""
    return [leaf.sharding for leaf in jax.tree.leaves(state)]


def main() -> None:
    """Write ``FOLDER/<mesh>_<dtype>.npz``."""
    folder = Path(sys.argv[1])
    jax.config.update("jax_enable_x64", True)
    compilations.count()
    placements._SPLIT_FROM = 1  # the tests' network is tiny
    for dtype in ("float32", "float64"):
        for name, mesh in MESHES.items():
            there = folder / f"{name}_{dtype}"
            there.mkdir(parents=True)
            np.savez(folder / f"{name}_{dtype}.npz", **run(mesh, there, np.dtype(dtype)))


if __name__ == "__main__":
    main()
