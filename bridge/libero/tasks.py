"""LIBERO's tasks as one environment that plays another task each episode, for ``ChunkEnv`` to step.

Every task is LeRobot's own ``LiberoEnv``. Observations are what ``lerobot-eval`` feeds X-VLA: they go through
the same ``LiberoProcessorStep`` (upright camera image, 20-d proprioception), but images stay uint8.
"""

from __future__ import annotations

import atexit
import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from lerobot.envs.configs import LiberoEnv as LiberoEnvConfig
from lerobot.policies.xvla.processor_xvla import LiberoProcessorStep
from lerobot.utils.constants import OBS_IMAGES, OBS_STATE

from bridge.libero import installation
from bridge.libero.schedule import Schedule, init_state_of
from bridge.libero.suites import INIT_STATES, TaskId

installation.prepare()  # or the next import asks on stdin

from lerobot.envs import libero  # noqa: E402

from bridge.libero.cameras import Cameras, View  # noqa: E402

log = logging.getLogger(__name__)

_BUILDS_BY_FIRST_EPISODE = 3
"""By LIBERO's constructor, by LeRobot's ``_ensure_env``, and by the first reset."""


class LiberoTasks(gym.Env):
    """Plays LIBERO tasks. ``reset`` says which in ``info``: ``task`` (index) and ``init_state``.

    Args:
        tasks: To choose from.
        make: Creates the LeRobot environment of one.
        schedule: Says what comes next.
        max_cached: Environments kept built; beyond that, the one unused longest is closed.
        train_states: Initial states that episodes begin in.
        eval_states: Those that the episodes of an evaluation begin in.
    """

    def __init__(
        self,
        tasks: Sequence[TaskId],
        make: Callable[[TaskId], libero.LiberoEnv],
        schedule: Schedule,
        max_cached: int = 4,
        train_states: range = range(INIT_STATES),
        eval_states: range = range(INIT_STATES),
    ) -> None:
        self.observation_space = gym.spaces.Dict({})
        # Absolute poses leave the [-1, 1] that LeRobot declares; robosuite's controller does the clipping.
        self.action_space = gym.spaces.Box(-np.inf, np.inf, (libero.ACTION_DIM,), np.float32)
        self._tasks = list(tasks)
        self._make = make
        self._schedule = schedule
        self._max_cached = max_cached
        self._train_states, self._eval_states = train_states, eval_states
        self._built: OrderedDict[int, _Task] = OrderedDict()
        self._current: _Task | None = None
        self._assigned: tuple[int, int | None, range] | None = None
        self._task = 0
        self._steps = 0
        self._rendering = True
        self._observation: Mapping[str, Any] = {}
        self._closes_at_exit = False

    @property
    def simulator(self) -> Any:
        """LeRobot's environment of the task being played."""
        assert self._current is not None
        return self._current.env

    def set_rendering(self, enabled: bool) -> None:
        """Draw images from now on, or leave ``pixels`` out of the observations."""
        self._rendering = enabled

    def observe(self) -> dict[str, Any]:
        """Return the present observation with its images."""
        assert self._current is not None
        return self._process(self._current.drawn(self._observation))

    def view(self) -> View:
        """Return what the cameras see now, for ``draw`` later in the episode; asked once a step."""
        assert self._current is not None
        return self._current.cameras.view()

    def draw(self, view: View) -> dict[str, np.ndarray]:
        """Return the images of a view, as the observation would have held them: uint8 [h, w, 3] each."""
        assert self._current is not None
        return self._process(self._current.drawn(self._observation, view))["pixels"]

    def assign(self, task: int, place: int | None, evaluates: bool) -> None:
        """Say what the next reset plays (``schedule.Schedule.choose``)."""
        self._assigned = task, place, self._eval_states if evaluates else self._train_states

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode of the assigned task, else of the scheduled one.

        ``options["task"]`` and ``options["init_state"]`` come before both.
        """
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        options = options or {}
        with _callers_random_numbers():
            init_state = self._begin(seed, options)
        return self._present(), {"task": self._task, "init_state": init_state}

    def _begin(self, seed: int, options: Mapping[str, Any]) -> int:
        states = self._train_states
        if "task" in options:
            self._task, place = options["task"], None
        elif self._assigned is not None:
            self._task, place, states = self._assigned
        else:
            self._task, place = self._schedule.choose(seed)
        self._assigned = None
        self._current = self._open(self._task)
        if not self._current.has_init_states:
            init_state = -1
        elif "init_state" in options:
            init_state = options["init_state"]
        else:
            init_state = init_state_of(seed, place, states)
        self._steps = 0
        self._observation = self._current.reset(seed, init_state)
        return init_state

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Act for one control period. Reward is 1 on success, which ends the episode."""
        assert self._current is not None
        self._observation, reward, terminated, _, info = self._current.env.step(action)
        self._steps += 1
        truncated = not terminated and self._steps >= self._current.env._max_episode_steps
        if terminated or truncated:
            self._schedule.report(self._task, bool(info["is_success"]))
        return self._present(), float(reward), bool(terminated), truncated, info

    def close(self) -> None:
        """Close every environment that is built."""
        while self._built:
            self._built.popitem()[1].close()
        self._current = None

    def _open(self, index: int) -> _Task:
        if index not in self._built:
            while len(self._built) >= self._max_cached:
                self._built.popitem(last=False)[1].close()
            task = self._tasks[index]
            log.info("Building %s.", task.label)
            self._built[index] = _Task(self._make(task))
            if not self._closes_at_exit:
                # Once robosuite's import has registered the end of EGL, so that this comes before it: an
                # OpenGL context that outlives EGL prints errors.
                self._closes_at_exit = True
                atexit.register(_close, weakref.ref(self))
        self._built.move_to_end(index)
        return self._built[index]

    def _present(self) -> dict[str, Any]:
        return self.observe() if self._rendering else self._process({**self._observation, "pixels": {}})

    def _process(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """Apply LeRobot's processor, and take the batch dimension off again."""
        batch: dict[str, Any] = {
            f"{OBS_IMAGES}.{name}": torch.from_numpy(image).permute(2, 0, 1)[None]
            for name, image in observation["pixels"].items()
        }
        batch["observation.robot_state"] = _batched(observation["robot_state"])
        processed = LiberoProcessorStep().observation(batch)
        agent_pos = processed.pop(OBS_STATE)[0].numpy()
        images = {
            key.removeprefix(f"{OBS_IMAGES}."): value[0].permute(1, 2, 0).numpy()
            for key, value in processed.items()
        }
        return {"pixels": images, "agent_pos": agent_pos}


class _Task:
    """LeRobot's environment of one task, drawing on demand, whose episodes depend on nothing before them."""

    def __init__(self, env: libero.LiberoEnv) -> None:
        self.env: Any = env
        # A task's scene is the same in each episode. To compile it anew takes twenty times as long as all
        # else, and each time LIBERO appends its samplers of drawers and doors once more, so that one seed
        # would place the furniture differently after every episode.
        env.hard_reset = False
        env._ensure_env()
        self._domain: Any = self.env._env.env
        # As often as LeRobot has built the scene by its first episode: a seed draws the furniture as there.
        self._domain.object_property_initializers *= _BUILDS_BY_FIRST_EPISODE
        self.cameras = Cameras(self._domain)

    @property
    def has_init_states(self) -> bool:
        """Whether objects are not placed at random."""
        return self.env._init_states is not None

    def reset(self, seed: int, init_state: int) -> Mapping[str, Any]:
        # The one thing of an episode that robosuite leaves to the compilation of a new scene.
        for robot in self._domain.robots:
            robot.gripper.current_action = np.zeros(robot.gripper.dof)
        self.env.init_state_id = init_state
        return self.env.reset(seed=seed)[0]

    def drawn(self, observation: Mapping[str, Any], view: View | None = None) -> Mapping[str, Any]:
        names = self.env.camera_name_mapping
        pixels = {names[camera]: self.cameras.draw(camera, view) for camera in self.env.camera_name}
        return {**observation, "pixels": pixels}

    def close(self) -> None:
        self.cameras.make_current()
        self.env.close()


def make_env(task: TaskId, config: LiberoEnvConfig, cameras: list[str]) -> libero.LiberoEnv:
    """Create LeRobot's environment of a task as its ``create_libero_envs`` does.

    Args:
        task: The task.
        config: LeRobot's LIBERO config.
        cameras: Names of the observables to show, ``<camera>_image``.
    """
    (make,) = libero._make_env_fns(
        suite=_suite(task.suite),
        suite_name=task.suite,
        task_id=task.number,
        n_envs=1,
        camera_names=cameras,
        episode_length=config.episode_length,
        init_states=config.init_states,
        gym_kwargs={name: value for name, value in config.gym_kwargs.items() if name != "task_ids"},
        control_mode=config.control_mode,
        camera_name_mapping=config.camera_name_mapping,
        is_libero_plus=config.is_libero_plus,
    )
    return make()


def instruction(task: TaskId) -> str:
    """Return what a task asks for, as ``lerobot-eval`` passes it to the policy."""
    return _suite(task.suite).get_task(task.number).language


@lru_cache  # LIBERO prints a line for each
def _suite(name: str) -> Any:
    return libero._get_suite(name)


def _batched(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _batched(value) if isinstance(value, Mapping) else torch.from_numpy(np.asarray(value))[None]
        for key, value in values.items()
    }


@contextmanager
def _callers_random_numbers() -> Iterator[None]:
    """LIBERO seeds and uses NumPy's global generator, when it builds a scene too: give the caller's back."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)


def _close(env: weakref.ref[LiberoTasks]) -> None:
    if (alive := env()) is not None:
        alive.close()
