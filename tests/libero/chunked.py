"""LIBERO tasks, stepped plainly by LeRobot and by the chunk."""

from __future__ import annotations

from typing import Any

import numpy as np

from bridge.libero.schedule import Schedule
from bridge.libero.suites import TaskId
from bridge.plugin.chunk_env import ChunkEnv
from bridge.wire.record import Record, pack

SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10")
SIZE = 96
IMAGES = {name: f"observation.images.{name}" for name in ("image", "image2")}


def stock(task: TaskId, **settings: Any) -> Any:
    from lerobot.envs.libero import LiberoEnv, _get_suite

    defaults = {
        "obs_type": "pixels_agent_pos",
        "observation_height": SIZE,
        "observation_width": SIZE,
        "control_mode": "absolute",
    }
    return LiberoEnv(_get_suite(task.suite), task.number, task.suite, **(defaults | settings))


def chunked(*tasks: TaskId, max_cached: int = 4, image_size: int = SIZE, **settings: Any) -> ChunkEnv:
    from bridge.libero.tasks import LiberoTasks

    settings |= {"observation_height": image_size, "observation_width": image_size}
    inner = LiberoTasks(
        tasks, lambda task: stock(task, **settings), Schedule(len(tasks), "round_robin"), max_cached
    )
    return ChunkEnv(
        inner,
        image_keys=IMAGES,
        image_shapes=dict.fromkeys(IMAGES.values(), (3, image_size, image_size)),
        state_dim=20,
        tokens=[[index, 1] for index in range(len(tasks))],
    )


def row(actions: Any) -> np.ndarray:
    actions = np.asarray(actions, np.float32)
    latents = np.zeros((3, len(actions), 20), np.float32)
    return pack(Record(actions, latents, np.zeros(len(actions), np.float32), denoise_step=1, version=1))


def random_chunk(rng: np.random.Generator, steps: int) -> np.ndarray:
    """Absolute poses in front of the robot, the gripper opening and closing."""
    low = (-0.2, -0.2, 0.9, 2.8, -0.3, -0.3)
    high = (0.1, 0.2, 1.2, 3.2, 0.3, 0.3)
    gripper = np.where(rng.random((steps, 1)) > 0.5, 1.0, -1.0)
    return np.hstack([rng.uniform(low, high, (steps, 6)), gripper]).astype(np.float32)


def task(suite: str, number: int = 0) -> TaskId:
    return TaskId(suite, number)
