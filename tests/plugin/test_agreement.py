"""What learner and actors compare before an episode is played."""

import pytest
import torch
from fake_actor import parse
from lerobot.policies.xvla import XVLAPolicy
from tiny import tiny_policy_config, write_run_config

from bridge.plugin.agreement import agreement, fingerprint
from bridge.weights.folder import load_params
from bridge.weights.state_dict import to_torch_state


@pytest.fixture
def table(tmp_path):
    def make(name="run", **overrides):
        folder = tmp_path / name
        folder.mkdir()
        return parse(write_run_config(folder, 50051, **overrides)).algorithm.agreement()

    return make


def differences(one, other):
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


def test_one_config_agrees_with_itself_wherever_it_lies(table):
    assert differences(table("here"), table("there")) == set()


def test_a_resumed_learner_agrees_with_actors_of_the_base_on_a_camera_that_is_absent(table):
    """LeRobot saves a policy with the camera it has made up, and counts it again; our exports without it."""
    image = {"type": "VISUAL", "shape": [3, 64, 64]}
    state = {"observation.state": {"type": "STATE", "shape": [20]}}
    cameras = {"observation.images.front": image}
    made_up = {"observation.images.empty_camera_0": image}
    base = {"num_image_views": 2, "empty_cameras": 1, "input_features": cameras | made_up | state}
    exported = {"num_image_views": 3, "empty_cameras": 1, "input_features": cameras | state}
    assert differences(table(policy=base), table("resumed", policy=exported)) == set()
    other = exported | {"num_image_views": 4}
    assert differences(table("a", policy=base), table("b", policy=other)) == {"policy.num_image_views"}


def test_an_export_that_resizes_to_what_its_run_shows_agrees_with_a_base_that_does_not(table):
    base, exported = table(policy={"resize_imgs_with_padding": None}), {"resize_imgs_with_padding": [64, 64]}
    assert differences(base, table("resumed", policy=exported)) == set()
    other = {"resize_imgs_with_padding": [64, 32]}
    assert differences(base, table("other", policy=other)) == {"policy.resize_imgs_with_padding"}


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ({"algorithm": {"noise": {"mode": "flow_cps", "level": 0.5}}}, "algorithm.noise.mode"),
        ({"algorithm": {"rollout": {"max_chunks": 9}}}, "algorithm.rollout.max_chunks"),
        ({"algorithm": {"push": {"dtype": "bfloat16"}}}, "algorithm.push.dtype"),
        ({"policy": {"num_denoising_steps": 4}}, "policy.num_denoising_steps"),
        ({"policy": {"n_action_steps": 4}}, "policy.n_action_steps"),
        ({"policy": {"dtype": "bfloat16"}}, "policy.dtype"),
        ({"env": {"instruction": "push the red block to the left"}}, "env.instruction"),
        ({"env": {"max_episode_steps": 21}}, "env.max_episode_steps"),
        ({"env": {"domain_id": 1}}, "env.domain_id"),
        ({"policy": {"tokenizer_padding_side": "left"}}, "env.tokenizer_padding_side"),
    ],
)
def test_what_changes_how_an_actor_acts_is_in_the_table(table, overrides, name):
    assert name in differences(table(), table("other", **overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        {"algorithm": {"optimizer": {"lr": 1e-3}}},
        {"algorithm": {"critic": {"hidden_dims": [8]}}},
        {"algorithm": {"head_precision": "bf16_x3"}},
        {"algorithm": {"objective": {"decoupled": True, "behaviour_log_prob": "actor"}}},
        {"env": {"actor_id": 3}},
        {"policy": {"train_policy_transformer": False}},
    ],
)
def test_what_is_the_learners_or_an_actors_own_is_not(table, overrides):
    assert differences(table(), table("other", **overrides)) == set()


def test_another_tokenizer_of_the_same_name_is_noticed(tmp_path):
    from bridge.datasets.tokenizer import build_tokenizer

    config = write_run_config(tmp_path, 50051)
    cfg = parse(config)
    before = agreement(cfg)()
    build_tokenizer(tmp_path / "tokenizer", ["close the two drawers"])
    assert differences(before, agreement(cfg)()) == {"tokenizer"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_actor_and_learner_make_one_fingerprint_of_one_checkpoint_however_it_is_stored(tmp_path, dtype):
    torch.manual_seed(0)
    policy = XVLAPolicy(tiny_policy_config()).to(dtype)
    policy.save_pretrained(tmp_path)
    theirs = load_params(tmp_path)[1]
    encoder = {name: tree for name, tree in theirs.items() if name != "transformer"}
    ours = fingerprint(policy.float().state_dict())
    assert fingerprint(to_torch_state(encoder)) == ours
    if dtype is torch.float32:
        assert fingerprint(policy.to(torch.bfloat16).state_dict()) == ours


def test_one_number_of_one_tensor_makes_another_fingerprint_and_the_head_makes_none():
    policy = XVLAPolicy(tiny_policy_config())
    before = fingerprint(policy.state_dict())
    with torch.no_grad():
        policy.model.transformer.norm.weight += 1
    assert fingerprint(policy.state_dict()) == before
    with torch.no_grad():
        policy.model.vlm.vision_tower.convs[0].norm.bias[0] += 0.1
    assert fingerprint(policy.state_dict()) != before
