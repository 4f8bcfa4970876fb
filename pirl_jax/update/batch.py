"""The rows of an update: decision points of many episodes, one after the other."""

from __future__ import annotations

import flax.struct
import jax
import numpy as np

from pirl_jax.typing import Array, Bool, Float, Int, PyTree


class Batch(flax.struct.PyTreeNode):
    """B decision points, of which an update learns from the first ``n_valid`` (``update.make_update``).

    Before advantages are known (``estimate``), the arrays of observations and ``old_values`` are longer: each
    episode's last observation follows, from which a truncated one bootstraps.
    """

    features: PyTree
    proprio: Float[Array, "B P"]
    domain_id: Int[Array, " B"]
    latents: Float[Array, "B L H A"]
    denoise_step: Int[Array, " B"]
    level: Float[Array, " B"]
    """Noise level of the policy that acted. Not a parameter: ratios have it in both of their densities."""
    step_mask: Bool[Array, "B H"]
    """Chunk steps that enter the likelihood (``modes.scored_steps``). The policy learns nothing from a point
    without any: the policy that chose it is not known any more. The critic does."""
    old_log_prob: Float[Array, "B H"]
    """Of each chunk step under the policy that acted; finite everywhere."""
    advantages: Float[Array, " B"]
    """Multiplied by the weight that each point has in the policy loss (``ObjectiveConfig.loss_weighting``).
    The loss is proportional to the advantages, so the weights need no place of their own in it. 0 where the
    policy learns nothing."""
    value_targets: Float[Array, " B"]
    old_values: Float[Array, " B"]
    critic_input: Float[Array, "B D"] | None = None
    """What the critic sees of each observation (``update/critic.py``); None without a critic."""
    share: Float[Array, " B"] | None = None
    """The weight that each point has in the value loss; None: 1."""
    policy_share: Float[Array, " B"] | None = None
    """The weight that each point has in the KL to the reference policy and in the entropy; None: 1. It is not
    ``share`` where the policy learns from fewer points than the critic."""


def pad_rows(tree: PyTree, capacity: int) -> PyTree:
    """Zero-pad every array of a host pytree to ``capacity`` rows.

    Raises:
        ValueError: if an array has more rows than that.
    """

    def pad(x: np.ndarray) -> np.ndarray:
        if len(x) > capacity:
            raise ValueError(f"{len(x)} rows do not fit a capacity of {capacity}; raise the capacity.")
        return np.pad(x, [(0, capacity - len(x))] + [(0, 0)] * (x.ndim - 1))

    return jax.tree.map(pad, tree)
