"""Promises of the actor's algorithm: rows out, pushes in."""

import logging
import re
import threading

import numpy as np
import pytest
import torch
from lerobot.configs import NormalizationMode
from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.xvla import XVLAPolicy
from lerobot.rl.algorithms.factory import make_algorithm
from lerobot.transport.utils import state_to_bytes
from tiny import tiny_policy_config

import bridge.plugin

bridge.plugin.register()

from bridge.plugin.recipe_config import PiRLConfig  # noqa: E402
from bridge.wire.record import RecordError, unpack  # noqa: E402
from pirl_jax.recipe import NoiseConfig  # noqa: E402
from pirl_jax.rollout.assignments import Assignment  # noqa: E402
from pirl_jax.rollout.evaluation import FIRST_NUMBER  # noqa: E402

FLOW_NOISE = NoiseConfig(mode="flow_noise", level=0.1, head_hidden_dims=(6,))


def make(stats=None, noise=None, **settings):
    torch.manual_seed(0)
    policy_config = tiny_policy_config(**settings)
    config = PiRLConfig(noise=noise or NoiseConfig(level=0.1), dataset_stats=stats)
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
    prefixes = ("model.transformer.", "noise_head.")
    return {
        key: value.clone() for key, value in algorithm.acting.tensors().items() if key.startswith(prefixes)
    }


def push(version, tensors, level=0.1):
    level = torch.tensor(level, dtype=torch.float64)
    return {"run": torch.tensor(9), "version": torch.tensor(version), "level": level, "policy": tensors}


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
    algorithm.load_weights(push(3, {key: pushed}), device=torch.device("cpu"))
    after = dict(algorithm.policy.named_parameters())
    assert algorithm.acting.version == 3
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
        (lambda tensors: tensors | {"noise_head.bound.bias": torch.zeros(3)}, r"\(3,\)"),
        (lambda tensors: tensors | {"noise_head.bound.bias": torch.full((4,), np.inf)}, "infinity"),
        (lambda tensors: tensors | {"noise_head.hidden_1.bias": torch.zeros(6)}, "hidden_1"),
    ],
)
def test_a_push_that_does_not_fit_is_logged_and_changes_nothing(spoil, message, caplog):
    algorithm = make(noise=FLOW_NOISE)
    before = head(algorithm)
    tensors = spoil({key: value + 1 for key, value in before.items()})
    with caplog.at_level(logging.ERROR):
        algorithm.load_weights(push(2, tensors, level=0.05))
    assert algorithm.acting.version == 0
    assert algorithm.acting.noise.level == 0.1
    assert all(torch.equal(value, before[key]) for key, value in head(algorithm).items())
    assert len(caplog.records) == 1
    assert re.search(message, caplog.text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": None}, "a push holds 'run', 'version', 'level' and 'policy'; got"),
        ({"version": torch.tensor(0)}, "version must be in"),
        ({"run": None}, "a push holds 'run', 'version', 'level' and 'policy'; got"),
        ({"run": torch.tensor(-1)}, "run in"),
        ({"version": torch.tensor([3])}, "version must be a scalar tensor"),
        ({"version": torch.tensor(torch.inf)}, "version must be a scalar tensor"),
        ({"level": None}, "a push holds 'run', 'version', 'level' and 'policy'; got"),
        ({"level": 0.1}, "level must be a scalar tensor"),
        ({"level": torch.tensor([0.1, 0.2])}, "level must be a scalar tensor"),
        ({"level": torch.tensor(0.0).double()}, "level must be above 0 and below 1"),
        ({"level": torch.tensor(1.0).double()}, "level must be above 0 and below 1"),
        ({"level": torch.tensor(torch.nan).double()}, "level must be above 0 and below 1"),
        ({"extra": torch.tensor(1)}, "a push holds 'run', 'version', 'level' and 'policy'; got"),
    ],
)
def test_a_push_without_a_proper_version_or_level_is_refused(changes, message, caplog):
    algorithm = make(noise=NoiseConfig(mode="flow_cps", level=0.1))
    weights = push(2, head(algorithm), level=0.05) | changes
    algorithm.load_weights({name: value for name, value in weights.items() if value is not None})
    assert (algorithm.acting.version, algorithm.acting.noise.level) == (0, 0.1)
    assert message in caplog.text


def test_the_noise_of_a_row_has_the_level_of_the_push():
    algorithm = make()
    preprocessor, _ = make_pre_post_processors(algorithm.policy.config)
    batch = preprocessor.process_observation(observation())

    def row():
        algorithm.acting._generator.manual_seed(0)
        return unpack(algorithm.select_action(dict(batch)).numpy())

    first = row()
    algorithm.load_weights(push(1, head(algorithm), level=0.025))
    second = row()
    # The same draw of the noise; the density of four channels rises by log 4 a channel.
    np.testing.assert_allclose(second.log_prob - first.log_prob, 4 * np.log(4), rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_learned_deviation_is_pushed_with_the_policy_and_widens_the_noise(dtype):
    algorithm = make(noise=FLOW_NOISE)
    preprocessor, _ = make_pre_post_processors(algorithm.policy.config)
    batch = preprocessor.process_observation(observation())

    def row():
        algorithm.acting._generator.manual_seed(0)
        return unpack(algorithm.select_action(dict(batch)).numpy())

    first = row()
    assert first.latents.shape == (6, 8, 4)
    assert first.denoise_step == 5
    # tanh(40) = 1: the upper bound, twice the level, where the head began at the level itself.
    algorithm.load_weights(push(1, {"noise_head.bound.bias": torch.full((4,), 40.0, dtype=dtype)}))
    assert algorithm.acting.version == 1
    np.testing.assert_allclose(row().log_prob - first.log_prob, -5 * 4 * np.log(2), rtol=1e-4)


def test_a_noise_head_is_refused_by_an_actor_that_has_none(caplog):
    algorithm = make()
    algorithm.load_weights(push(1, head(make(noise=FLOW_NOISE))))
    assert algorithm.acting.version == 0
    assert "the policy has no tensor 'noise_head." in caplog.text


def test_a_policy_that_produces_nan_is_not_executed():
    algorithm = make()
    with torch.no_grad():
        algorithm.policy.model.transformer.norm.weight.fill_(np.nan)
    preprocessor, _ = make_pre_post_processors(algorithm.policy.config)
    with pytest.raises(RecordError, match="NaN"):
        algorithm.select_action(preprocessor.process_observation(observation()))


class Learner:
    """What an algorithm asks of its channel."""

    run = 9

    def __init__(self, *pushes):
        self.pushes = list(pushes)
        self.parameters = self.episodes = self
        self.stop = threading.Event()
        self.current = None
        self.waits = self.signs = 0

    def say_alive(self):
        self.signs += 1

    def assign(self, number, version, noise_key=0):
        self.current = Assignment(number, 1, noise_key, 0, None, version)

    def take(self, timeout):
        self.waits += 1
        assert self.waits < 100, "waits for ever"
        return state_to_bytes(self.pushes.pop(0)) if self.pushes else None


def playing(*versions):
    algorithm = make()
    algorithm.acting.channel = Learner(*(push(version, head(algorithm)) for version in versions))
    preprocessor, _ = make_pre_post_processors(algorithm.policy.config)
    batch = preprocessor.process_observation(observation())
    return algorithm, lambda: unpack(algorithm.select_action(dict(batch)).numpy())


def test_an_episodes_noise_is_its_keys_whoever_plays_it_and_whatever_came_before():
    def played(*keys):
        algorithm, row = playing(1)
        rows = []
        for number, key in enumerate(keys):
            algorithm.acting.channel.assign(number, 1, key)
            rows += [row().latents[0], row().latents[0]]
        return rows

    first, second = played(5, 6), played(4, 6)
    np.testing.assert_array_equal(first[2:], second[2:])
    assert not np.array_equal(first[0], second[0])
    assert not np.array_equal(first[0], first[1])


def test_the_version_that_is_assigned_is_loaded_before_the_first_chunk_and_stays_to_the_last():
    algorithm, row = playing(3, 4)
    algorithm.acting.channel.assign(0, 3)
    first = row()
    assert (first.version, first.number, first.run) == (3, 0, 9)
    assert row().version == 3
    algorithm.acting.channel.assign(1, 4)
    assert [(record.version, record.number) for record in (row(), row())] == [(4, 1), (4, 1)]


@pytest.mark.parametrize(
    "noise",
    [
        NoiseConfig("terminal", level=0.3),
        NoiseConfig("terminal", level=0.3, gripper="bernoulli"),
        NoiseConfig("flow_sde", level=0.5),
        NoiseConfig("flow_cps", level=0.5),
        FLOW_NOISE,
    ],
    ids=["terminal", "gripper", "flow_sde", "flow_cps", "flow_noise"],
)
def test_an_evaluations_chunks_are_lerobots_own_bit_for_bit(noise):
    """Of the first noise of the episode's key, and of nothing else that is random."""
    settings = {"action_mode": "joint", "max_state_dim": 14} if noise.gripper == "bernoulli" else {}
    algorithm = make(noise=noise, **settings)
    preprocessor, _ = make_pre_post_processors(algorithm.policy.config)
    batch = preprocessor.process_observation(observation())
    algorithm.acting.channel = Learner(push(1, head(algorithm)))
    algorithm.acting.channel.assign(FIRST_NUMBER + 7, 1, noise_key=5)
    records = [unpack(algorithm.select_action(dict(batch)).numpy()) for _ in range(2)]

    stock = XVLAPolicy(algorithm.policy.config)
    stock.load_state_dict(algorithm.policy.state_dict())
    stock.eval()
    torch.manual_seed(5)
    for record in records:
        with torch.no_grad():
            expected = torch.cat([stock.select_action(dict(batch)) for _ in range(8)])
        np.testing.assert_array_equal(record.env_action, expected.numpy())
        assert (record.denoise_step, record.number) == (0, FIRST_NUMBER + 7)
        assert not record.log_prob.any()
    assert not np.array_equal(records[0].env_action, records[1].env_action)
    algorithm.acting.channel.assign(7, 1, noise_key=5)  # the same episode, to be learned from
    noisy = unpack(algorithm.select_action(dict(batch)).numpy())
    assert noisy.denoise_step > 0
    assert noisy.log_prob.any()


def test_every_chunk_is_a_sign_of_life():
    algorithm, row = playing(3)
    algorithm.acting.channel.assign(0, 3)
    row()
    before = algorithm.acting.channel.signs
    row()
    assert algorithm.acting.channel.signs == before + 1


def test_a_number_that_is_handed_out_again_is_played_anew():
    """With its own noise from the start, under the version that is assigned now."""
    algorithm, row = playing(3, 4)
    algorithm.acting.channel.assign(0, 3, 7)
    first = row()
    algorithm.acting.channel.assign(0, 4, 7)
    again = row()
    assert (again.number, again.version) == (0, 4)
    np.testing.assert_array_equal(again.latents[0], first.latents[0])


def test_a_version_of_the_runs_before_is_none_of_this_run():
    algorithm, row = playing(5)
    algorithm.acting.channel.assign(0, 5)
    row()
    algorithm.acting.channel.run = 10
    algorithm.acting.channel.pushes = [push(1, head(algorithm)) | {"run": torch.tensor(10)}]
    algorithm.acting.channel.assign(0, 1)
    record = row()
    assert (record.run, record.version, record.number) == (10, 1, 0)


def test_a_learner_that_is_restarted_before_it_has_pushed_what_it_assigned_holds_nobody_up():
    """What was assigned is played as no process's, whichever of the two processes the push was of."""
    algorithm, row = playing()
    algorithm.acting.channel.assign(3, 5)
    algorithm.acting.channel.pushes = [push(1, head(algorithm)) | {"run": torch.tensor(10)}]
    record = row()
    assert (record.run, record.number) == (0, 3)
    assert row().run == 0
    algorithm.acting.channel.run = 10
    algorithm.acting.channel.assign(0, 1)
    record = row()
    assert (record.run, record.version, record.number) == (10, 1, 0)


def test_an_actor_that_is_told_to_stop_waits_for_no_parameters():
    algorithm, row = playing()
    algorithm.acting.channel.assign(0, 1)
    algorithm.acting.channel.stop.set()
    with pytest.raises(SystemExit) as caught:
        row()
    assert caught.value.code == 0


def test_training_is_refused_here():
    algorithm = make()
    with pytest.raises(NotImplementedError, match=r"pirl_jax\.learner"):
        algorithm.update(iter(()))
    assert algorithm.make_optimizers_and_scheduler() == {}
    assert algorithm.state_dict() == {}
    with pytest.raises(ValueError, match="tensors"):
        algorithm.load_state_dict({"a": torch.zeros(1)})
