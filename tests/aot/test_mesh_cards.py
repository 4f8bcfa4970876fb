"""What the published size takes of each of eight cards."""

import dataclasses

import pytest
from conftest import described
from jax.sharding import NamedSharding, PartitionSpec
from planned import plan_of
from test_fit_cards import observation_of, read

from pirl_jax.placement import Placement, mesh_of
from pirl_jax.recipe import MeshConfig
from pirl_jax.training.budget import GIB
from pirl_jax.training.needs import needs

STATE = "parameters, critic and moments"


CASES = [(8, 1, 18.24, 3.46), (1, 8, 26.42, 3.46 / 8)]


@pytest.mark.parametrize(("data", "fsdp", "expected", "state"), CASES)
def test_eight_cards_share_an_update_of_the_papers_size(data, fsdp, expected, state, tmp_path):
    """512 episodes, minibatches of 2,048 points, all of which are in work at a time, on 8 H100."""
    cfg = read(tmp_path, "pirl_libero_80gb", "pirl_paper", microbatch_size="auto")
    mesh = mesh_of(described("h100_80gb", 8), MeshConfig(data=data, fsdp=fsdp))
    recipe = dataclasses.replace(cfg.algorithm, mesh=MeshConfig(data=data, fsdp=fsdp))
    place = NamedSharding(mesh, PartitionSpec())
    found = needs(plan_of(recipe, cfg.policy, observation_of(cfg), place, Placement(mesh)), {})
    print(f"({data}, {fsdp}): {found.device / GIB:.2f} GiB a card, {found.update / GIB:.2f} to work with")
    assert found.lying[STATE] / GIB == pytest.approx(state, rel=0.05)
    assert found.device / GIB == pytest.approx(expected, rel=0.05)
    assert found.device <= 0.9 * 80 * GIB
