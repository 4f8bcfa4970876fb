"""Promises of the actor's algorithm: rows out, pushes in."""

import logging
import re

import numpy as np
import pytest
import torch
from lerobot.configs import NormalizationMode
from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.xvla import XVLAPolicy
from lerobot.rl.algorithms.factory import make_algorithm
from tiny import tiny_policy_config

import bridge.plugin

bridge.plugin.register()

from bridge.plugin.recipe_config import PiRLConfig  # noqa: E402
from bridge.record import RecordError, unpack  # noqa: E402
from pirl_jax.recipe import NoiseConfig  # noqa: E402


def make(stats=None, **settings):
    torch.manual_seed(0)
    policy_config = tiny_policy_config(**settings)
    config = PiRLConfig(noise=NoiseConfig(level=0.1), dataset_stats=stats)
    config.policy_config = policy_config
    return make_algorithm(config, XVLAPolicy(policy_config))


def observation(brightness=200):
    generator = torch.Generator().manual_seed(1)
    return {
        "observation.images.front": torch.randint(
            0, brightness, (1, 3, 64, 64), generator=generator, dtype=torch.uint8
        ),
        "observation.state": torch.randn((1, 5), generator=generator),
        "observation.language.tokens": torch.randint(0, 12, (1, 10), generator=generator),
        "observation.domain_id": torch.tensor([1]),
    }


def head(algorithm):
    state = algorithm.policy.state_dict()
    return {key: value.clone() for key, value in state.items() if key.startswith("model.transformer.")}


def test_a_row_passes_through_the_actors_processors_untouched():
    algorithm = make(n_action_steps=6)
    preprocessor, postprocessor = make_pre_post_processors(
        algorithm.policy.config, dataset_stats=algorithm.policy.config.dataset_stats
    )
    row = algorithm.policy.select_action(batch=preprocessor.process_observation(observation()))
    processed = postprocessor.process_action(row)
    assert processed.numpy().tobytes() == row.numpy().tobytes()
    record = unpack(processed.numpy())
    assert record.env_action.shape == (6, 4)
    assert record.latents.shape == (3, 8, 4)
    np.testing.assert_array_equal(record.env_action, record.latents[-1, :6])
    assert (record.denoise_step, record.version) == (1, 0)


@pytest.mark.parametrize("brightness", [200, 2])
def test_images_reach_the_policy_scaled_and_normalised_however_dark(brightness):
    algorithm = make()
    preprocessor, _ = make_pre_post_processors(algorithm.policy.config)
    raw = observation(brightness)
    got = preprocessor.process_observation(raw)["observation.images.front"]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = (raw["observation.images.front"].float() / 255 - mean) / std
    torch.testing.assert_close(got, expected)
    assert raw["observation.images.front"].dtype == torch.uint8


def test_the_gripper_is_a_probability_for_the_environment_and_a_logit_for_the_learner():
    algorithm = make(action_mode="joint", max_state_dim=14)
    preprocessor, _ = make_pre_post_processors(algorithm.policy.config)
    record = unpack(algorithm.select_action(preprocessor.process_observation(observation())).numpy())
    logit = torch.from_numpy(record.latents[-1])[:, (6, 13)]
    np.testing.assert_allclose(record.env_action[:, (6, 13)], torch.sigmoid(logit), rtol=1e-6)


def test_actions_are_unnormalised_before_they_are_packed():
    stats = {"action": {"mean": [1.0, 2.0, 3.0, 4.0], "std": [2.0, 2.0, 2.0, 2.0]}}
    mapping = {
        "VISUAL": NormalizationMode.IDENTITY,
        "STATE": NormalizationMode.IDENTITY,
        "ACTION": NormalizationMode.MEAN_STD,
    }
    algorithm = make(stats, normalization_mapping=mapping)
    preprocessor, _ = make_pre_post_processors(algorithm.policy.config)
    record = unpack(algorithm.select_action(preprocessor.process_observation(observation())).numpy())
    np.testing.assert_allclose(record.env_action, record.latents[-1] * 2 + [1, 2, 3, 4], rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_partial_push_is_copied_in_place_and_changes_the_version(dtype):
    algorithm = make()
    before = dict(algorithm.policy.named_parameters())
    key = "model.transformer.blocks.0.attn.qkv.weight"
    pushed = torch.randn_like(before[key]).to(dtype)
    algorithm.load_weights({"version": torch.tensor(3), "policy": {key: pushed}}, device=torch.device("cpu"))
    after = dict(algorithm.policy.named_parameters())
    assert algorithm.version == 3
    assert after[key] is before[key]
    assert torch.equal(after[key], pushed.float())
    preprocessor, _ = make_pre_post_processors(algorithm.policy.config)
    row = algorithm.select_action(preprocessor.process_observation(observation()))
    assert unpack(row.numpy()).version == 3


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda tensors: {"model.transformer.nonsense": torch.zeros(2)}, "nonsense"),
        (lambda tensors: tensors | {"model.transformer.norm.weight": torch.zeros(3)}, r"\(3,\)"),
        (lambda tensors: tensors | {"model.transformer.norm.weight": torch.full((16,), np.nan)}, "NaN"),
        (
            lambda tensors: tensors | {"model.transformer.norm.weight": torch.zeros(16, dtype=torch.int64)},
            "int64",
        ),
        (lambda tensors: {}, "no tensors"),
    ],
)
def test_a_push_that_does_not_fit_is_logged_and_changes_nothing(spoil, message, caplog):
    algorithm = make()
    before = head(algorithm)
    tensors = spoil({key: value + 1 for key, value in before.items()})
    with caplog.at_level(logging.ERROR):
        algorithm.load_weights({"version": torch.tensor(2), "policy": tensors})
    assert algorithm.version == 0
    assert all(torch.equal(value, before[key]) for key, value in head(algorithm).items())
    assert len(caplog.records) == 1
    assert re.search(message, caplog.text)


@pytest.mark.parametrize(
    "weights", [{"policy": {}}, {"version": torch.tensor(0), "policy": {}}, {"actor": {}}]
)
def test_a_push_without_a_proper_version_is_refused(weights, caplog):
    algorithm = make()
    algorithm.load_weights(weights)
    assert algorithm.version == 0
    assert "version" in caplog.text


def test_a_policy_that_produces_nan_is_not_executed():
    algorithm = make()
    with torch.no_grad():
        algorithm.policy.model.transformer.norm.weight.fill_(np.nan)
    preprocessor, _ = make_pre_post_processors(algorithm.policy.config)
    with pytest.raises(RecordError, match="NaN"):
        algorithm.select_action(preprocessor.process_observation(observation()))


def test_actors_of_a_run_draw_different_noise_and_repeat_their_own():
    def noise(actor_id):
        torch.manual_seed(0)
        policy_config = tiny_policy_config()
        config = PiRLConfig()
        config.policy_config = policy_config
        config.actor_id = actor_id
        policy = XVLAPolicy(policy_config)
        algorithm = make_algorithm(config, policy)
        preprocessor, _ = make_pre_post_processors(policy_config)
        return unpack(
            algorithm.select_action(preprocessor.process_observation(observation())).numpy()
        ).latents[0]

    np.testing.assert_array_equal(noise(0), noise(0))
    assert not np.array_equal(noise(0), noise(1))


def test_training_is_refused_here():
    algorithm = make()
    with pytest.raises(NotImplementedError, match=r"pirl_jax\.learner"):
        algorithm.update(iter(()))
    assert algorithm.make_optimizers_and_scheduler() == {}
    assert algorithm.state_dict() == {}
    with pytest.raises(ValueError, match="tensors"):
        algorithm.load_state_dict({"a": torch.zeros(1)})
