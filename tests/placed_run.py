"""``python -m placed_run FOLDER linear|xvla|acting``: the same on one device and on meshes, a file each.

Three updates of the tests' linear policy or of a tiny X-VLA, or what a policy server answers.

A process of its own: how many devices a CPU stands for is settled when JAX starts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import toy_update
from by_recipe import make_recipe
from tiny import tiny_policy_config

from bridge.weights.export import policy_config
from pirl_jax import placement as placements
from pirl_jax.likelihood.modes import num_latents
from pirl_jax.placement import bytes_of_one, place
from pirl_jax.recipe import CriticConfig, DemonstrationsConfig, MeshConfig, NoiseConfig, ServeConfig
from pirl_jax.rollout.behaviour import Behaviour, as_pushed
from pirl_jax.rollout.episode import Episode, Observations
from pirl_jax.serving.acting import Asked
from pirl_jax.serving.service import PolicyService
from pirl_jax.supervised.frames import Frames
from pirl_jax.training import compilations
from pirl_jax.training.parts import assemble, first_state
from pirl_jax.trees import store
from pirl_jax.update.critic import value_function
from pirl_jax.update.demonstrations import encode
from pirl_jax.update.state import TrainState
from pirl_jax.update.update import Programs, make_update
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


def xvla(mesh: MeshConfig, folder: Path) -> dict[str, Any]:
    """Score, update and fit the critic, with all that an update may have; return what to compare, by name."""
    config = policy_config(tiny_policy_config())
    policy, placement = XVLAFlowPolicy(config), place(mesh)
    recipe = dataclasses.replace(RECIPE, mesh=mesh)
    trainable, frozen = policy.split(init_params(config, jax.random.key(0)))
    value = value_function(recipe.critic.hidden_dims)
    parts = assemble(policy, value, recipe, placement=placement)
    state = placement.moved(first_state(policy, recipe, config.dim_proprio, 0, trainable))
    encoder = placement.whole(frozen)
    played = episodes(policy, config.dim_proprio)
    behaviour = as_pushed(Behaviour(state.params, 0, recipe.noise.level))
    scored = parts.score.together(encoder, played, {1: behaviour})
    demonstrations = shown(policy, config.real_action_dim, encoder, played, placement)

    def update(state: TrainState) -> tuple[TrainState, dict[str, Any]]:
        batch, n = parts.batch(state, scored)
        state, metrics = parts.update(state, batch, n, demonstrations)
        state, more = parts.fit_critic(state, batch, n)
        return state, metrics | more

    return followed(state, update, folder)


def shown(policy: Any, dim_action: int, encoder: Any, played: list[Episode], placement: Any) -> Any:
    """Return demonstrations of what was observed, with any actions."""
    seen, rng = played[1].observations, np.random.default_rng(1)
    frames = Frames(
        images=np.repeat(seen.images, 3, 0),
        tokens=np.repeat(seen.tokens, 3, 0).astype(np.int32),
        proprio=np.repeat(seen.proprio, 3, 0),
        domain_id=np.zeros(12, np.int32),
        action=rng.normal(size=(12, policy.chunk_size, dim_action)).astype(np.float32),
    )
    return encode(policy, encoder, frames, placement)


def linear(mesh: MeshConfig, folder: Path) -> dict[str, Any]:
    """Update the tests' linear policy in float64."""
    config = toy_update.recipe(minibatch_size=8, num_epochs=2, aggregation="action", decoupled=True)
    placement = place(mesh)
    method = dataclasses.replace(toy_update.method_of(config), placement=placement, microbatch_size=8)
    update, state = make_update(Programs(method)), toy_update.new_state(config)
    batch = toy_update.collect(state.params, config, 20, seed=1)
    state, batch = in_float64(state), in_float64(batch)
    return followed(placement.moved(state), lambda state: update(state, batch, 20), folder)


def acting(mesh: MeshConfig, folder: Path) -> dict[str, Any]:
    """Answer three and eight questions at a time; say over how many devices their rows lie."""
    config, placement = policy_config(tiny_policy_config()), place(mesh)
    policy = XVLAFlowPolicy(config)
    trainable, frozen = policy.split(init_params(config, jax.random.key(0)))
    noise = NoiseConfig(level=0.3)
    service = PolicyService(policy, noise, ServeConfig(max_batch=8), placement=placement)
    service.acting.sizes = (3, 8)
    service.compile(frozen, trainable, (1, 3, 64, 64), 10, config.dim_proprio)
    service.begin(placement.whole(frozen))
    service.publish(1, 1, as_pushed(Behaviour(trainable, 0, noise.level)))
    asked = questions(8)
    before, found = compilations.count(), {}
    for size in service.acting.sizes:
        (_, _, images, *_), _ = service.acting._compiled[size].input_shardings
        found[f"shared/{size}"] = np.asarray(size // images.shard_shape((size, 1, 3, 64, 64))[0])
        acted = service.acting(asked[:size])
        found[f"action/{size}"] = np.stack([each.action for each in acted])
        found[f"log_prob/{size}"] = np.stack([each.log_prob for each in acted])
    return found | {"compiled": np.asarray(compilations.count() - before)}


def questions(count: int) -> list[Asked]:
    """Return made-up observations."""
    rng = np.random.default_rng(0)
    return [
        Asked(
            images=rng.integers(0, 256, (1, 3, 64, 64), dtype=np.uint8),
            tokens=rng.integers(0, 8, 10),
            proprio=rng.normal(size=5).astype(np.float32),
            domain_id=0,
            noise_key=int(rng.integers(1 << 62)),
            chunk=i,
        )
        for i in range(count)
    ]


def in_float64(tree: Any) -> Any:
    """Return a tree whose real numbers are in float64."""
    return jax.tree.map(lambda x: x.astype(np.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def followed(state: TrainState, update: Callable[..., Any], folder: Path) -> dict[str, Any]:
    """Update a state, save it and restore it on another mesh; return what to compare, by name."""
    placed, shapes, found = state, jax.eval_shape(lambda tree: tree, state), {}
    placed = [leaf.sharding for leaf in jax.tree.leaves(state)]
    for index in range(UPDATES):
        before = compilations.count()
        state, metrics = update(state)
        if index == 0:
            found |= {f"first/{name}": np.asarray(leaf) for name, leaf in named(state)}
        found |= {f"metric/{index}/{name}": np.asarray(number) for name, number in metrics.items()}
        found[f"compiled/{index}"] = np.asarray(compilations.count() - before)
    gone = [
        name
        for (name, leaf), before in zip(named(state), placed, strict=True)
        if not leaf.sharding.is_equivalent_to(before, leaf.ndim)
    ]
    store.save(folder, state)
    elsewhere = place(MeshConfig(data=2, fsdp=2)).split_shapes(shapes)
    back = zip(jax.tree.leaves(state), jax.tree.leaves(store.restore(folder, elsewhere)), strict=True)
    found["restored"] = np.asarray(all(np.array_equal(*pair) for pair in back))
    found |= {"gone": np.asarray(gone), "bytes": np.asarray(bytes_of_one(state))}
    return found | {f"state/{name}": np.asarray(leaf) for name, leaf in named(state)}


def named(state: TrainState) -> list[tuple[str, Any]]:
    """Return the arrays of a state by name."""
    paths, _ = jax.tree_util.tree_flatten_with_path(state)
    return [(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in paths]


def main() -> None:
    """Write ``FOLDER/<mesh>.npz``."""
    folder, of = Path(sys.argv[1]), {"linear": linear, "xvla": xvla, "acting": acting}[sys.argv[2]]
    jax.config.update("jax_enable_x64", of is linear)
    compilations.count()
    placements._SPLIT_FROM = 1  # the tests' networks are tiny
    for name, mesh in MESHES.items():
        np.savez(folder / f"{name}.npz", **of(mesh, folder / name))


if __name__ == "__main__":
    main()
