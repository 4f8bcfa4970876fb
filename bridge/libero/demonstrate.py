"""An expert's episode in a LIBERO task, in X-VLA's terms, and many of them in processes of their own.

The expert acts by relative poses; what is kept are the absolute ones it aimed at, as the ee6d actions X-VLA
predicts. In absolute control they drive the robot along the same trajectory. Observations are what
``lerobot-eval`` feeds the policy: upright images and 20-d proprioception.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing.pool import Pool
from typing import Any

import numpy as np

from bridge.libero.experts.choice import Choice
from bridge.libero.schedule import Schedule
from bridge.libero.suites import TaskId
from pirl_jax.command import shorten_import_warnings

CAMERAS = {"agentview_image": "image", "robot0_eye_in_hand_image": "image2"}
ACTION_DIM = 20
_UNSEEN = 8  # pixels of cameras that nobody looks through


class ExpertError(RuntimeError):
    """An expert has raised something; says where and what."""


@dataclass(frozen=True)
class Attempt:
    """One episode for an expert to play."""

    task: TaskId
    init_state: int
    seed: int
    expert: Choice
    image_size: int | None = None
    """Pixels of a side; None draws nothing."""


@dataclass(frozen=True)
class Demonstration:
    """One episode of T steps."""

    success: bool
    states: np.ndarray
    """float32 [T, 20], before each action."""
    actions: np.ndarray
    """float32 [T, 20]: position, first two columns of the rotation matrix, 1 for a closing gripper, zeros."""
    images: dict[str, np.ndarray] = field(default_factory=dict)
    """Camera → uint8 [T, h, w, 3], before each action. Of a failed episode nothing is drawn."""
    cpu_seconds: float = 0.0
    """Of reset, play and drawing."""


def demonstrate(attempt: Attempt) -> Demonstration:
    """Let the expert play one episode in this process's environment of the task.

    Drawing costs several times what playing does, so it waits for the end: only a success is drawn.

    Raises:
        ExpertError: The expert has raised something.
    """
    begun = time.process_time()
    env = environment(attempt.task, attempt.image_size or _UNSEEN)
    env.set_rendering(False)
    observation, _ = env.reset(seed=attempt.seed, options={"task": 0, "init_state": attempt.init_state})
    expert = _asked(attempt, lambda: attempt.expert.make(env.simulator, attempt.seed))
    views, states, actions = [], [], []
    over, info = False, {}
    while not over:
        if attempt.image_size is not None:
            views.append(env.view())
        states.append(observation["agent_pos"])
        command = _asked(attempt, expert.act)
        observation, _, terminated, truncated, info = env.step(command)
        actions.append(_aimed_at(env.simulator, closing=command[6] > 0))
        over = terminated or truncated
    success = bool(info["is_success"])
    drawn = [env.draw(view) for view in views] if success else []
    return Demonstration(
        success,
        np.stack(states),
        np.stack(actions),
        {name: np.stack([images[name] for images in drawn]) for name in CAMERAS.values() if drawn},
        time.process_time() - begun,
    )


def _asked(attempt: Attempt, expert: Callable[[], Any]) -> Any:
    """Return an expert's answer; whatever it raises, StopIteration too, is told as its own."""
    try:
        return expert()
    except Exception as error:
        where = f"{attempt.task.label}, initial state {attempt.init_state}, seed {attempt.seed}"
        raise ExpertError(f"{attempt.expert} failed at {where}: {error!r}") from error


def _aimed_at(simulator: Any, closing: bool) -> np.ndarray:
    """The pose that the controller was given in the last control period, as an ee6d action."""
    controller = simulator._env.env.robots[0].controller
    rotation = np.asarray(controller.goal_ori)
    action = np.zeros(ACTION_DIM, np.float32)
    action[:3] = controller.goal_pos
    action[3:6], action[6:9] = rotation[:, 0], rotation[:, 1]
    action[9] = closing
    return action


@lru_cache(maxsize=1)
def environment(task: TaskId, image_size: int) -> Any:
    """Return this process's environment of a task; it is kept for the next episode of the same task."""
    shorten_import_warnings()
    # Slow to import, and in the workers only.
    from lerobot.envs.configs import LiberoEnv

    from bridge.libero.tasks import LiberoTasks, make_env

    config = LiberoEnv(
        task=task.suite,
        control_mode="relative",
        observation_height=image_size,
        observation_width=image_size,
    )
    return LiberoTasks([task], lambda task: make_env(task, config, list(CAMERAS)), Schedule(1), max_cached=1)


def demonstrated(processes: Pool, attempts: Iterable[Attempt], ahead: int) -> Iterator[Demonstration]:
    """Results in the order of the attempts, with no more than ``ahead`` of them begun or waiting."""
    waiting = iter(attempts)
    begun = [processes.apply_async(demonstrate, (attempt,)) for attempt in itertools.islice(waiting, ahead)]
    while begun:
        yield begun.pop(0).get()
        begun += [processes.apply_async(demonstrate, (attempt,)) for attempt in itertools.islice(waiting, 1)]
