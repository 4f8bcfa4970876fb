"""Demonstrations of one's own as a LeRobotDataset: ``python record.py FOLDER [EPISODES]``."""

import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import reach_env
from datasets import disable_progress_bars
from lerobot.datasets import LeRobotDataset

from bridge.datasets.tokenizer import build_tokenizer

FEATURES = {
    "observation.images.top": {
        "dtype": "image",
        "shape": (64, 64, 3),
        "names": ["height", "width", "channels"],
    },
    "observation.state": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
    "action": {"dtype": "float32", "shape": (2,), "names": ["dx", "dy"]},
}


def main(folder: Path, episodes: int) -> None:
    disable_progress_bars()  # one an episode
    env, rng = gym.make("Reach-v0"), np.random.default_rng(0)
    task = reach_env.ReachConfig.instruction
    build_tokenizer(folder / "tokenizer", [task])
    dataset = LeRobotDataset.create(
        "me/reach", fps=10, features=FEATURES, root=folder / "dataset", use_videos=False
    )
    for seed in range(episodes):
        observation, over = env.reset(seed=seed)[0], False
        while not over:
            inner = env.unwrapped
            action = np.clip(inner.square - inner.point, -0.1, 0.1) + rng.normal(0, 0.02, 2)
            frame = {
                "observation.images.top": observation["pixels"]["top"],
                "observation.state": observation["agent_pos"],
            }
            dataset.add_frame({**frame, "action": action.astype(np.float32), "task": task})
            observation, _, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
        dataset.save_episode()
    dataset.finalize()
    print(f"{episodes} demonstrations, {dataset.meta.total_frames} frames: {folder / 'dataset'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 200)
