"""A policy server of the published size on the cards it is for: what it takes beside the encoder."""

import jax
import pytest
from conftest import described
from published import published_config

from bridge.weights.export import policy_config
from pirl_jax.placement import Placement, mesh_of
from pirl_jax.recipe import MeshConfig, NoiseConfig, ServeConfig
from pirl_jax.serving.service import PolicyService
from pirl_jax.training.budget import GIB
from pirl_jax.training.plan import memory_of
from pirl_jax.xvla.init import parameter_shapes
from pirl_jax.xvla.policy import XVLAFlowPolicy


@pytest.mark.parametrize(
    ("on", "batch", "precision", "most"),
    [("h100_80gb", 32, "bf16_x3", 12), ("rtx4090_24gb", 8, "bf16_x3", 6)],
)
def test_a_policy_server_leaves_room_for_its_learner(on, batch, precision, most):
    config = policy_config(published_config(push_to_hub=False, dtype="bfloat16"))
    policy = XVLAFlowPolicy(config, head_precision=precision)
    place = Placement(mesh_of(described(on, 1), MeshConfig()))
    service = PolicyService(policy, NoiseConfig(level=0.01), ServeConfig(max_batch=batch), placement=place)
    service.acting.sizes = (batch,)
    trainable, frozen = policy.split(parameter_shapes(config))
    found = service.compile(frozen, trainable, (2, 3, 256, 256), 50, config.dim_proprio)
    program = memory_of(service.acting._compiled[batch])
    print(
        f"{on}, {batch} at a time, {precision}: {found / GIB:.2f} GiB beside the encoder's "
        f"{sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(frozen)) / GIB:.2f}; "
        f"{program.temporaries / GIB:.2f} of them while it runs"
    )
    assert found < most * GIB
