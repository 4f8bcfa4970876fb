"""``pretrained_model/`` is LeRobot's own: nothing of the recipe in it, nothing of this package needed."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import draccus
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature, PreTrainedConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.policies import make_pre_post_processors
from lerobot.policies.xvla.modeling_xvla import XVLAPolicy
from lerobot.rl.train_rl import TrainRLServerPipelineConfig
from tiny import INSTRUCTION, build_tokenizer, tiny_policy_config, write_run_config

from bridge import plugin
from bridge.weights.convert import convert
from bridge.weights.export import export_pretrained, policy_config
from bridge.weights.folder import load_params
from bridge.weights.state_dict import params_from_state
from pirl_jax.run_folder.retention import Retention
from pirl_jax.training import checkpoint

FRONT = "observation.images.front"
FILES = {
    "FOR_TRAIN.md",
    "config.json",
    "model.safetensors",
    "policy_postprocessor.json",
    "policy_preprocessor.json",
    "tokenizer",
    "train_config.json",
}


def observation() -> dict:
    generator = torch.Generator().manual_seed(3)
    return {
        FRONT: torch.randint(0, 256, (3, 64, 64), generator=generator, dtype=torch.uint8),
        "observation.state": torch.randn(5, generator=generator),
        "task": INSTRUCTION,
    }


def read(file: Path) -> dict:
    return json.loads(file.read_text())


def step(pipeline: dict, name: str) -> dict | None:
    return next((s["config"] for s in pipeline["steps"] if s["registry_name"] == name), None)


@pytest.fixture
def cfg(tmp_path) -> TrainRLServerPipelineConfig:
    """A run's config, bound to the recipe as ``validate()`` binds it."""
    plugin.register()
    env = {"type": "chunked_gym", "max_episode_steps": 20, "domain_id": 1}
    run = TrainRLServerPipelineConfig.from_pretrained(write_run_config(tmp_path, port=50051, env=env))
    run.algorithm.policy_config = run.policy
    assert run.policy.domain_feature_key == "observation.domain_id"
    assert "observation.language.tokens" in run.policy.input_features
    return run


@pytest.fixture
def policy() -> XVLAPolicy:
    torch.manual_seed(0)
    return XVLAPolicy(tiny_policy_config()).eval()


@pytest.fixture
def params(policy) -> dict:
    return jax.tree.map(jnp.asarray, params_from_state(policy.state_dict(), policy_config(policy.config)))


LEROBOT_ONLY = """
import sys
for name in ("pirl_jax", "bridge", "jax", "jaxlib", "flax", "orbax"):
    sys.modules[name] = None
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies import make_pre_post_processors
from lerobot.policies.xvla.modeling_xvla import XVLAPolicy

folder, observation, action = sys.argv[1:]
torch.set_num_threads(1)
policy = XVLAPolicy.from_pretrained(folder)
pre, post = make_pre_post_processors(PreTrainedConfig.from_pretrained(folder), pretrained_path=folder)
torch.manual_seed(0)
torch.save(post(policy.select_action(pre(torch.load(observation)))), action)
"""


def test_lerobot_alone_acts_with_the_export_as_the_policy_did(tmp_path, cfg, policy, params):
    folder = tmp_path / "pretrained_model"
    export_pretrained(params, cfg, folder)
    assert {p.name for p in folder.iterdir()} == FILES

    stock = tiny_policy_config(tokenizer_name=cfg.policy.tokenizer_name)
    pre, post = make_pre_post_processors(stock)
    batch = pre(observation()) | {"domain_id": torch.tensor([1])}
    torch.manual_seed(0)
    want = post(policy.select_action(batch))

    torch.save(observation(), tmp_path / "observation.pt")
    # From another directory: nothing in the export may depend on where it is loaded from.
    subprocess.run(
        [sys.executable, "-c", LEROBOT_ONLY, folder, tmp_path / "observation.pt", tmp_path / "action.pt"],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    got = torch.load(tmp_path / "action.pt")
    assert got.shape == (1, 4)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def test_the_policy_config_is_stock(tmp_path, cfg, params):
    folder = tmp_path / "pretrained_model"
    before = copy.deepcopy(draccus.encode(cfg.policy, PreTrainedConfig))
    export_pretrained(params, cfg, folder)
    assert draccus.encode(cfg.policy, PreTrainedConfig) == before
    assert cfg.policy.num_discrete_actions is None  # still bound

    stock = draccus.encode(tiny_policy_config(num_image_views=1), PreTrainedConfig)
    stock |= {"tokenizer_name": str(folder / "tokenizer"), "device": None}
    assert read(folder / "config.json") == json.loads(json.dumps(stock))
    exported = PreTrainedConfig.from_pretrained(folder)
    assert set(exported.input_features) == {FRONT, "observation.state"}
    assert exported.domain_feature_key is None
    assert not hasattr(exported, "actor_learner_config")


def test_it_runs_where_it_is_loaded(tmp_path, cfg, params, monkeypatch):
    """On a machine with a GPU, though its learner's torch had none."""
    assert cfg.policy.device == "cpu"
    export_pretrained(params, cfg, tmp_path / "x")
    assert PreTrainedConfig.from_pretrained(tmp_path / "x").device == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert PreTrainedConfig.from_pretrained(tmp_path / "x").device == "cuda"


def test_the_training_config_resumes_the_run(tmp_path, cfg, params):
    cfg.policy.pretrained_path = Path("outputs/sft/pretrained_model")
    export_pretrained(params, cfg, tmp_path / "pretrained_model")
    resumed = TrainRLServerPipelineConfig.from_pretrained(tmp_path / "pretrained_model")
    assert set(resumed.policy.input_features) == {FRONT, "observation.state"}
    resumed.algorithm.policy_config = resumed.policy
    want, got = cfg.to_dict(), resumed.to_dict()
    want["policy"]["num_image_views"] = 1
    got["env"]["task"] = want["env"]["task"]  # numbered anew in every process
    assert got == want


def test_the_preprocessor_is_lerobots_own(tmp_path, cfg, params):
    export_pretrained(params, cfg, tmp_path / "ours", domain_id=0)
    stock = make_pre_post_processors(tiny_policy_config(tokenizer_name=cfg.policy.tokenizer_name))
    for pipeline in stock:
        pipeline.save_pretrained(tmp_path / "stock")
    for name in ("policy_preprocessor.json", "policy_postprocessor.json"):
        want = read(tmp_path / "stock" / name)
        if tokenizer := step(want, "tokenizer_processor"):
            tokenizer["tokenizer_name"] = str(tmp_path / "ours" / "tokenizer")
        assert read(tmp_path / "ours" / name) == want


def test_the_domain_is_the_environments_unless_given(tmp_path, cfg, params):
    export_pretrained(params, cfg, tmp_path / "a")
    export_pretrained(params, cfg, tmp_path / "b", domain_id=0)
    domains = [step(read(tmp_path / x / "policy_preprocessor.json"), "xvla_add_domain_id") for x in "ab"]
    assert domains == [{"domain_id": 1}, {"domain_id": 0}]


def test_an_export_for_libero_leaves_out_what_lerobots_environment_does(tmp_path, cfg, params):
    export_pretrained(params, cfg, tmp_path / "x", domain_id=0, for_libero=True)
    steps = [s["registry_name"] for s in read(tmp_path / "x" / "policy_preprocessor.json")["steps"]]
    assert steps == [
        "rename_observations_processor",
        "to_batch_processor",
        "tokenizer_processor",
        "device_processor",
    ]


def test_statistics_travel_with_the_processors(tmp_path, cfg, params):
    cfg.policy.normalization_mapping["ACTION"] = NormalizationMode.MEAN_STD
    stats = {"action": {"mean": [1.0, 2.0, 3.0, 4.0], "std": [0.5, 0.5, 2.0, 2.0]}}
    export_pretrained(params, cfg, tmp_path / "x", dataset_stats=stats)
    exported = PreTrainedConfig.from_pretrained(tmp_path / "x")
    _, post = make_pre_post_processors(exported, pretrained_path=str(tmp_path / "x"))
    torch.testing.assert_close(post(torch.ones(1, 4)), torch.tensor([[1.5, 2.5, 5.0, 6.0]]))


def test_generated_cameras_do_not_multiply(tmp_path, cfg):
    settings = {"tokenizer_name": cfg.policy.tokenizer_name, "empty_cameras": 1, "max_len_seq": 256}
    torch.manual_seed(0)
    trained = XVLAPolicy(tiny_policy_config(**settings)).eval()  # adds the camera to its config
    assert trained.config.num_image_views == 2
    params = params_from_state(trained.state_dict(), policy_config(tiny_policy_config(**settings)))
    cfg.policy = tiny_policy_config(**settings)
    for name in ("first", "second"):
        export_pretrained(params, cfg, tmp_path / name)
        loaded = XVLAPolicy.from_pretrained(tmp_path / name)
        assert loaded.config.num_image_views == 2
        cfg.policy = PreTrainedConfig.from_pretrained(tmp_path / name)
    pre, _ = make_pre_post_processors(cfg.policy, pretrained_path=str(tmp_path / "second"))
    batch = pre(observation())
    actions = []
    for policy in (trained, loaded):
        torch.manual_seed(0)
        actions.append(policy.select_action(dict(batch)))
    assert torch.equal(*actions)


def test_a_bfloat16_policy_keeps_its_float32_head_on_disk(tmp_path, cfg, params):
    cfg.policy.dtype = "bfloat16"
    mixed = params | {"vlm": jax.tree.map(lambda x: x.astype(jnp.bfloat16), params["vlm"])}
    export_pretrained(mixed, cfg, tmp_path / "x")
    config, back = load_params(tmp_path / "x")
    assert config.dtype == "bfloat16"
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(mixed)))
    loaded = XVLAPolicy.from_pretrained(tmp_path / "x")
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}


def test_a_checkpoint_writer_exports_to_where_the_tokenizer_will_be(tmp_path, cfg, params):
    with checkpoint.CheckpointWriter(tmp_path / "run", 10, Retention()) as writer:
        writer.save(
            4,
            {"transformer": params["transformer"]},
            lambda folder, state: export_pretrained({**params, **state}, cfg, folder),
        )
    folder = tmp_path / "run" / "checkpoints" / "000004" / "pretrained_model"
    assert read(folder / "config.json")["tokenizer_name"] == str(folder / "tokenizer")
    make_pre_post_processors(PreTrainedConfig.from_pretrained(folder), pretrained_path=str(folder))
    _, back = load_params(tmp_path / "run" / "checkpoints" / "last")
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(params)))


def test_an_export_converts_there_and_back_and_still_finds_its_tokenizer(tmp_path, cfg, params):
    export_pretrained(params, cfg, tmp_path / "x")
    convert(tmp_path / "x", tmp_path / "orbax")
    convert(tmp_path / "orbax", tmp_path / "back")
    for folder in ("x", "orbax"):
        (tmp_path / folder).rename(tmp_path / f"{folder}-gone")
    pre, _ = make_pre_post_processors(
        PreTrainedConfig.from_pretrained(tmp_path / "back"), pretrained_path=str(tmp_path / "back")
    )
    assert pre(observation())["observation.language.tokens"].shape == (1, 10)
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (
        tmp_path / "x-gone" / "model.safetensors"
    ).read_bytes()


def test_a_hub_tokenizer_is_named_not_loaded(tmp_path, cfg, params, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cfg.policy.tokenizer_name = "facebook/bart-large"
    export_pretrained(params, cfg, tmp_path / "x")
    pipeline = read(tmp_path / "x" / "policy_preprocessor.json")
    assert step(pipeline, "tokenizer_processor")["tokenizer_name"] == "facebook/bart-large"
    assert not (tmp_path / "x" / "tokenizer").exists()


def test_a_supervised_run_exports_too(tmp_path, params):
    policy = tiny_policy_config(tokenizer_name=str(build_tokenizer(tmp_path / "tokenizer")))
    cfg = draccus.decode(
        TrainPipelineConfig, {"dataset": {"repo_id": "x"}, "output_dir": str(tmp_path / "o")}
    )
    cfg.policy = policy
    export_pretrained(params, cfg, tmp_path / "x")
    assert TrainPipelineConfig.from_pretrained(tmp_path / "x").policy.chunk_size == 8
    assert {p.name for p in (tmp_path / "x").iterdir()} == FILES


def test_extra_features_of_the_user_stay(tmp_path, cfg, params):
    cfg.policy.input_features["observation.images.wrist"] = PolicyFeature(FeatureType.VISUAL, (3, 64, 64))
    export_pretrained(params, cfg, tmp_path / "x")
    assert "observation.images.wrist" in PreTrainedConfig.from_pretrained(tmp_path / "x").input_features
