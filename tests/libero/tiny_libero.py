"""A tiny ee6d X-VLA for LIBERO, and the one JSON that learner, actor and evaluation share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import draccus
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from tiny import florence_config, tiny_policy_config, write_run_config

from bridge.datasets.tokenizer import build_tokenizer

SIZE = 96
LENGTH = 23
CHUNK = 5


def libero_policy_config(**overrides: Any) -> Any:
    """Chunks of five. As published policies do, it announces sizes that are not the environment's, and a view
    that the environment does not have."""
    images = {
        f"observation.images.{name}": PolicyFeature(FeatureType.VISUAL, (3, 64, 64))
        for name in ("image", "image2", "image3")
    }
    settings: dict[str, Any] = {
        "input_features": images | {"observation.state": PolicyFeature(FeatureType.STATE, (8,))},
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (7,))},
        "florence_config": florence_config(vocab_size=128),
        "tokenizer_max_length": 24,
        "chunk_size": CHUNK,
        "n_action_steps": CHUNK,
        "action_mode": "ee6d",
        "max_action_dim": 20,
        "max_state_dim": 20,
        "max_len_seq": 256,
        "resize_imgs_with_padding": (64, 64),
    }
    return tiny_policy_config(**(settings | overrides))


def write_libero_config(folder: Path, port: int = 50051, **env: Any) -> Path:
    """Write the run's JSON, with a tokenizer that knows the words of every task."""
    from bridge.libero.suites import SUITES, select_tasks
    from bridge.libero.tasks import instruction

    build_tokenizer(folder / "tokens", map(instruction, select_tasks(",".join(SUITES), None)))
    policy = libero_policy_config(tokenizer_name=str(folder / "tokens"))
    settings = {
        "type": "libero",
        "task": "libero_object",
        "control_mode": "absolute",
        "observation_height": SIZE,
        "observation_width": SIZE,
        "episode_length": LENGTH,
    }
    path = write_run_config(folder, port, policy=draccus.encode(policy, PreTrainedConfig))
    config = json.loads(path.read_text())
    config["env"] = settings | env
    path.write_text(json.dumps(config))
    return path
