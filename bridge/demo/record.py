"""Demonstrations by the scripted expert, as an ordinary LeRobotDataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import datasets
import numpy as np
from lerobot.datasets import LeRobotDataset
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from bridge.demo import expert
from bridge.plugin.panda import INSTRUCTION, PandaPickCube
from bridge.processes import pool
from pirl_jax.console.progress import Progress

IMAGE_KEY = f"{OBS_IMAGES}.front"

TEST_SEEDS = 0
"""First seed of the episodes that results are reported on."""
TRAIN_SEEDS = 1_000_000
"""First seed of the demonstrations; online training draws above them."""

_SHARE = 5  # demonstrations a worker makes before it hands them over
_STATE_NAMES = ["x", "y", "z", "gripper", "closure"]
_ACTION_NAMES = ["dx", "dy", "dz", "gripper"]


@dataclass(frozen=True)
class Demonstration:
    """One episode of the expert, T steps."""

    images: np.ndarray
    """uint8 [T, h, w, 3], before each action."""
    states: np.ndarray
    """float32 [T, P]."""
    actions: np.ndarray
    """float32 [T, A]."""
    success: bool


@lru_cache
def environment(image_size: int) -> PandaPickCube:
    """Return this process's environment, made once.

    A MuJoCo renderer that is freed deletes its objects in the OpenGL context that is current, perhaps
    another's.
    """
    return PandaPickCube(image_size=image_size)


def demonstrate(seed: int, image_size: int = 64, aim_offset: Sequence[float] = (0.0, 0.0)) -> Demonstration:
    """Let the expert act once in this process's environment, aiming beside the cube by ``aim_offset``."""
    env = environment(image_size)
    env.set_rendering(True)
    observation, info = env.reset(seed=seed)
    images, states, actions, over = [], [], [], False
    while not over:
        actions.append(expert.act(env, aim_offset))
        images.append(observation["pixels"]["front"])
        states.append(observation["agent_pos"])
        observation, _, terminated, truncated, info = env.step(actions[-1])
        over = terminated or truncated
    return Demonstration(np.stack(images), np.stack(states), np.stack(actions), info["is_success"])


def record(
    root: Path | str,
    repo_id: str = "pirl/panda_pick_cube",
    episodes: int = 300,
    image_size: int = 64,
    workers: int = 2,
    first_seed: int = TRAIN_SEEDS,
    aim_offset: Sequence[float] = (0.0, 0.0),
) -> LeRobotDataset:
    """Write ``episodes`` successful demonstrations to a new LeRobotDataset, and return it.

    Workers simulate and draw, this process writes. The dataset depends on the seeds only, not on the workers.

    Args:
        root: The dataset's folder; must not exist.
        repo_id: The dataset's name.
        episodes: How many; failed attempts are not among them.
        image_size: Height and width of the images.
        workers: Processes; 0 simulates in this one.
        first_seed: Seed of the first attempt; each takes the next.
        aim_offset: The expert's systematic error (``expert.act``).

    Raises:
        ValueError: ``root`` exists.
    """
    root = Path(root)
    if root.exists():
        raise ValueError(f"{root} already exists. Remove it, or record elsewhere.")
    datasets.disable_progress_bars()  # one bar an episode
    dataset = LeRobotDataset.create(
        repo_id, fps=10, features=_features(image_size), root=root, use_videos=False, image_writer_threads=2
    )
    saved = 0
    play = partial(demonstrate, image_size=image_size, aim_offset=aim_offset)
    with Progress("recording", episodes, "demonstrations") as progress:
        for attempts, demonstration in enumerate(_demonstrations(play, first_seed, workers), 1):
            if demonstration.success:
                _save(dataset, demonstration, INSTRUCTION)
                saved += 1
            progress.at(saved, f"{attempts} attempts")
            if saved == episodes:
                break
            if attempts >= 20 and saved < attempts / 4:  # far from chance, for one that takes two thirds
                raise RuntimeError(
                    f"the expert succeeded in {saved} of {attempts} attempts; it aims too far beside the "
                    "cube, or the environment has changed."
                )
    dataset.finalize()
    return dataset


def _demonstrations(
    play: Callable[[int], Demonstration], first_seed: int, workers: int
) -> Iterator[Demonstration]:
    """Yield demonstrations of consecutive seeds, for ever, in order."""
    if workers == 0:
        while True:
            yield play(first_seed)
            first_seed += 1
    with pool(workers) as processes:
        pending = []
        while True:
            # Two shares in hand for each worker: none waits, and little is thrown away at the end.
            while len(pending) < 2 * workers:
                seeds = range(first_seed, first_seed + _SHARE)
                pending.append(processes.apply_async(_share, (play, seeds)))
                first_seed += _SHARE
            yield from pending.pop(0).get()


def _share(play: Callable[[int], Demonstration], seeds: Sequence[int]) -> list[Demonstration]:
    return [play(seed) for seed in seeds]


def _features(image_size: int) -> dict[str, dict]:
    return {
        IMAGE_KEY: {
            "dtype": "image",
            "shape": (image_size, image_size, 3),
            "names": ["height", "width", "channels"],
        },
        OBS_STATE: {"dtype": "float32", "shape": (len(_STATE_NAMES),), "names": _STATE_NAMES},
        ACTION: {"dtype": "float32", "shape": (len(_ACTION_NAMES),), "names": _ACTION_NAMES},
    }


def _save(dataset: LeRobotDataset, demonstration: Demonstration, instruction: str) -> None:
    for image, state, action in zip(demonstration.images, demonstration.states, demonstration.actions):
        dataset.add_frame({IMAGE_KEY: image, OBS_STATE: state, ACTION: action, "task": instruction})
    dataset.save_episode()
