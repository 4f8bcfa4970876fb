"""LeRobot's torch X-VLA as the reference: build it with random weights and carry those across."""

import json
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.xvla.configuration_xvla import XVLAConfig as TorchConfig
from lerobot.policies.xvla.modeling_xvla import XVLAPolicy

from bridge.weights import keymap
from pirl_jax.xvla.config import XVLAConfig

FLOAT32_TOLERANCE = 5e-5
"""Largest difference end to end in float32, relative to the output's largest magnitude."""
FLOAT64_TOLERANCE = 1e-9
"""The same module by module in float64: what is left when rounding is not an excuse."""
BFLOAT16_TOLERANCE = 5e-2
"""The same for VLM features in bfloat16, whose own rounding is 2⁻⁸ an operation."""

COMPILER_OPTIONS = {"xla_backend_optimization_level": 0}
"""Each network here is compiled once and run once, so compile time is what counts."""


def torch_config(settings: dict[str, Any]) -> TorchConfig:
    """LeRobot's config; features are given as ``{name: (kind, shape)}``."""
    features = {
        group: {
            name: PolicyFeature(FeatureType[kind], tuple(shape))
            for name, (kind, shape) in settings[group].items()
        }
        for group in ("input_features", "output_features")
    }
    return TorchConfig(**{**settings, **features, "device": "cpu"})


def saved_config(config: TorchConfig) -> dict[str, Any]:
    """The config.json that LeRobot writes."""
    with tempfile.TemporaryDirectory() as folder:
        config._save_pretrained(Path(folder))
        return json.loads((Path(folder) / "config.json").read_text())


def random_policy(config: TorchConfig, seed: int = 0) -> XVLAPolicy:
    """A policy in evaluation mode, no parameter of which (bias, norm) still has its initial value."""
    torch.manual_seed(seed)
    policy = XVLAPolicy(config).eval()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return policy


def flax_params(state: dict[str, torch.Tensor], config: XVLAConfig) -> dict[str, Any]:
    """The parameter tree of a torch state dict, in its own precision."""
    tree: dict[str, Any] = {}
    for key, tensor in state.items():
        if key in keymap.TIED and config.text.tie_word_embeddings:
            continue
        *parents, leaf = keymap.to_flax_path(key)
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[leaf] = to_jax(tensor)
    return tree


def to_jax(tensor: torch.Tensor) -> jax.Array:
    """Copy a tensor, keeping its dtype."""
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return jnp.asarray(tensor.float().numpy().astype(jnp.bfloat16))
    return jnp.asarray(tensor.numpy())


def assert_close(name: str, got: Any, expected: torch.Tensor, tolerance: float) -> None:
    """Check shape, and the largest difference relative to the expected output's largest magnitude."""
    reference = expected.detach().double().numpy()
    assert got.shape == reference.shape, f"{name}: shape {got.shape}, expected {reference.shape}"
    if reference.size == 0:
        return
    error = np.abs(np.asarray(got, np.float64) - reference).max() / max(np.abs(reference).max(), 1e-30)
    assert error <= tolerance, f"{name}: relative error {error:.2e} exceeds {tolerance:.0e}"
