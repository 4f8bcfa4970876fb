"""A tiny X-VLA, its tokenizer and a training config: what most tests need and no test is about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from florence import florence_config
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.xvla import XVLAConfig
from lerobot.utils.constants import ACTION, OBS_STATE

from bridge.datasets.tokenizer import build_tokenizer as _build_tokenizer

IMAGE_KEY = "observation.images.front"
INSTRUCTION = "pick up the pink cube"
SENTENCES = (INSTRUCTION, "push the red block to the left")


def build_tokenizer(folder: str | Path) -> Path:
    """Write a tokenizer that knows ``SENTENCES``."""
    _build_tokenizer(folder, SENTENCES)
    return Path(folder)


def tiny_policy_config(**overrides: Any) -> XVLAConfig:
    """A few thousand parameters, for PandaPickCube: one 64 px view, 5-d state, 4-d action, chunks of 8."""
    settings: dict[str, Any] = {
        "input_features": {
            IMAGE_KEY: PolicyFeature(FeatureType.VISUAL, (3, 64, 64)),
            OBS_STATE: PolicyFeature(FeatureType.STATE, (5,)),
        },
        "output_features": {ACTION: PolicyFeature(FeatureType.ACTION, (4,))},
        "chunk_size": 8,
        "n_action_steps": 8,
        "num_denoising_steps": 5,
        "florence_config": florence_config(),
        "tokenizer_max_length": 10,
        "hidden_size": 16,
        "depth": 1,
        "num_heads": 2,
        "mlp_ratio": 2.0,
        "num_domains": 2,
        "len_soft_prompts": 2,
        "dim_time": 8,
        "max_len_seq": 128,
        "action_mode": "auto",
        "max_action_dim": 4,
        "max_state_dim": 5,
        "device": "cpu",
        "push_to_hub": False,
    }
    return XVLAConfig(**(settings | overrides))


def write_dataset(
    root: Path,
    *,
    image_size: int = 64,
    state_dim: int = 5,
    action_dim: int = 4,
    episodes: int = 2,
    length: int = 12,
    image_keys: tuple[str, ...] = (IMAGE_KEY,),
) -> dict[str, str]:
    """Write random demonstrations for ``tiny_policy_config``; return the config's ``dataset`` section."""
    from lerobot.datasets import LeRobotDataset

    shape = (image_size, image_size, 3)
    image = {"dtype": "image", "shape": shape, "names": ["height", "width", "channels"]}
    features = {
        **dict.fromkeys(image_keys, image),
        OBS_STATE: {"dtype": "float32", "shape": (state_dim,), "names": None},
        ACTION: {"dtype": "float32", "shape": (action_dim,), "names": None},
    }
    dataset = LeRobotDataset.create("test/demos", fps=10, features=features, root=root, use_videos=False)
    rng = np.random.default_rng(0)
    for _ in range(episodes):
        for _ in range(length):
            frame = {
                **{key: rng.integers(0, 256, shape, np.uint8) for key in image_keys},
                OBS_STATE: rng.standard_normal(state_dim, np.float32),
                ACTION: rng.uniform(-1, 1, action_dim).astype(np.float32),
            }
            dataset.add_frame({**frame, "task": INSTRUCTION})
        dataset.save_episode()
    dataset.finalize()
    return {"repo_id": "test/demos", "root": str(root)}


def doubtful_gripper(policy: Any, action: Any, channel: int) -> float:
    """Centre a random policy's gripper logits on 0, and return a temperature at which they are undecided.

    Args:
        policy: An ``XVLAPolicy``, changed in place.
        action: What it predicts, before post-processing, [B, H, A].
        channel: The gripper's.
    """
    logits = action[..., channel]
    policy.model.transformer.action_decoder.bias.weight.data[:, channel] -= logits.mean()
    return float(logits.std())


def write_run_config(folder: Path, port: int, **overrides: Any) -> Path:
    """Write the one JSON that learner and actor share (``--config_path``); overrides are top-level sections.

    Args:
        folder: Receives the config, a tokenizer and ``output``, the run's ``output_dir`` (not created).
        port: Of the learner.
        overrides: Merged one level deep into ``policy``, ``env``, ``algorithm``'s sections; others replace.
    """
    import draccus
    from lerobot.configs import PreTrainedConfig

    tokenizer = build_tokenizer(folder / "tokenizer")
    config: dict[str, Any] = {
        "output_dir": str(folder / "output"),
        "job_name": "test",
        "seed": 7,
        "dataset": {"repo_id": "unused"},
        "policy": draccus.encode(tiny_policy_config(tokenizer_name=str(tokenizer)), PreTrainedConfig),
        "algorithm": {
            "type": "pi_rl",
            "noise": {"level": 0.1},
            "critic": {"hidden_dims": [16]},
            "rollout": {"episodes_per_update": 4, "max_chunks": 8},
            "optimizer": {"minibatch_size": 8, "num_epochs": 1},
            "actor_learner_config": {"learner_port": port, "queue_get_timeout": 0.2},
        },
        "env": {"type": "chunked_gym", "max_episode_steps": 20},
    }
    algorithm = overrides.pop("algorithm", {})
    for name, values in algorithm.items():
        section = config["algorithm"].get(name)
        config["algorithm"][name] = section | values if isinstance(section, dict) else values
    for section, values in overrides.items():
        if isinstance(values, dict) and isinstance(config.get(section), dict):
            config[section] |= values
        else:
            config[section] = values
    path = folder / "run.json"
    path.write_text(json.dumps(config, indent=2))
    return path
