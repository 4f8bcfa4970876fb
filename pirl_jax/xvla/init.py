"""Fresh parameters with LeRobot's initial distributions, as one table over the parameter tree."""

from __future__ import annotations

import itertools
import math
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pirl_jax.typing import Array, Params
from pirl_jax.xvla.config import VisionConfig, XVLAConfig
from pirl_jax.xvla.model import XVLA
from pirl_jax.xvla.vision import sinusoids


class Constant(NamedTuple):
    """Every entry the same."""

    value: float


class Normal(NamedTuple):
    """Normal around 0; the row ``zero_row``, if any, is zero."""

    std: float
    zero_row: int | None = None


class Xavier(NamedTuple):
    """Uniform with bound √(6 / (rows + columns))."""


class Sinusoids(NamedTuple):
    """The fixed temporal table."""


Distribution = Constant | Normal | Xavier | Sinusoids


def distributions(config: XVLAConfig) -> tuple[tuple[str, Distribution], ...]:
    """Return the (pattern of dotted paths, distribution) pairs; the first that matches a whole path holds."""
    tokens = Normal(config.text.init_std, config.text.pad_token_id)
    return (
        (r".*norm\w*\.weight", Constant(1.0)),
        (r".*\.bias(\.weight)?", Constant(0.0)),
        (r".*\.activation_fn\.weight", Constant(0.25)),
        (r".*\.activation_fn\.alpha_p", Constant(math.log(math.expm1(0.8)))),
        (r".*\.activation_fn\.alpha_n", Constant(math.log(math.expm1(0.3)))),
        (r".*\.activation_fn\.beta", Constant(0.5)),
        (r".*\.activation_fn\.eps", Constant(-1e-6)),
        (r".*\.pos_idx_to_embed", Sinusoids()),
        (r".*\.(shared|embed_tokens)\.weight", tokens),
        (r"vlm\.language_model\..*", Normal(config.text.init_std)),
        (r"vlm\.vision_tower\..*", Normal(config.vision.initializer_range)),
        (r"vlm\..*", Normal(0.02)),
        (r"transformer\.(pos_emb|soft_prompt_hub\.weight)", Normal(0.02)),
        (r"transformer\..*", Xavier()),
    )


def init_params(config: XVLAConfig, key: Array) -> Params:
    """Draw fresh float32 parameters.

    All normals come from one draw and all uniforms from another: a generator for each of hundreds of tensors
    would take XLA most of a minute to compile. Under ``jax.eval_shape`` this gives the tree's shapes at no
    cost.

    Args:
        config: The architecture.
        key: PRNG key.

    Returns:
        The parameter tree.
    """
    shapes = parameter_shapes(config)
    paths = {
        path: ".".join(entry.key for entry in path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)
    }
    table = [(re.compile(pattern), distribution) for pattern, distribution in distributions(config)]
    chosen = {
        path: next(d for pattern, d in table if pattern.fullmatch(name)) for path, name in paths.items()
    }

    @jax.jit
    def draw(key: Array) -> Params:
        leaves = jax.tree_util.tree_leaves_with_path(shapes)
        sizes = [
            sum(leaf.size for path, leaf in leaves if isinstance(chosen[path], d)) for d in (Normal, Xavier)
        ]
        normal_key, uniform_key = jax.random.split(key)
        # The barrier keeps XLA from copying the generators into every tensor's slice.
        normals, uniforms = jax.lax.optimization_barrier(
            (
                jax.random.normal(normal_key, (sizes[0],)),
                jax.random.uniform(uniform_key, (sizes[1],), minval=-1),
            )
        )
        pools = {Normal: normals, Xavier: uniforms}
        used = {Normal: 0, Xavier: 0}

        def leaf(path: tuple, shape: jax.ShapeDtypeStruct) -> Array:
            distribution = chosen[path]
            if isinstance(distribution, Constant):
                return jnp.full(shape.shape, distribution.value)
            if isinstance(distribution, Sinusoids):
                return sinusoids(*shape.shape)
            kind = type(distribution)
            values = pools[kind][used[kind] : used[kind] + shape.size].reshape(shape.shape)
            used[kind] += shape.size
            if isinstance(distribution, Xavier):
                return values * math.sqrt(6 / sum(shape.shape))
            values = values * distribution.std
            return values if distribution.zero_row is None else values.at[distribution.zero_row].set(0)

        return jax.tree_util.tree_map_with_path(leaf, shapes)

    return draw(key)


def parameter_shapes(config: XVLAConfig) -> Params:
    """Return the parameter tree with ``jax.ShapeDtypeStruct`` leaves."""
    # No parameter's shape depends on the image, so the smallest will do: position tables may be small too.
    side = next(side for side in itertools.count(1) if _feature_map_size(config.vision, side) >= 1)
    inputs = (
        jnp.zeros((1, 1, config.vision.in_channels, side, side)),
        jnp.zeros((1, 1), jnp.int32),
        jnp.zeros((1, 1, config.dim_action)),
        jnp.zeros((1,)),
        jnp.zeros((1, config.dim_proprio)),
        jnp.zeros((1,), jnp.int32),
    )
    return jax.eval_shape(XVLA(config).init, jax.random.key(0), *inputs)["params"]


def _feature_map_size(vision: VisionConfig, side: int) -> int:
    """Side of the vision tower's output for a square image; below 1 if the image is too small."""
    for stage in range(len(vision.embed_dim)):
        kernel, stride, padding = (
            v[stage] for v in (vision.patch_size, vision.patch_stride, vision.patch_padding)
        )
        side = (side + 2 * padding - kernel) // stride + 1
        if side < 1:
            break
    return side
