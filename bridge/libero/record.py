"""``python -m bridge.libero.record``: a scripted expert's demonstrations of LIBERO's tasks, for X-VLA.

The expert acts by relative poses; what is recorded are the absolute ones it aimed at, as the ee6d actions
X-VLA predicts. In absolute control they drive the robot along the same trajectory. Observations are what
``lerobot-eval`` feeds the policy: upright images and 20-d proprioception.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from lerobot.datasets import LeRobotDataset
from lerobot.envs.configs import LiberoEnv
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from bridge.datasets.tokenizer import build_tokenizer
from bridge.libero.schedule import Schedule
from bridge.libero.suites import SUITES, TaskId, select_tasks
from bridge.processes import pool
from pirl_jax.command import QUIET, shorten_import_warnings
from pirl_jax.ending import end_on_signal, in_one_line

logger = logging.getLogger("record")

CAMERAS = {"agentview_image": "image", "robot0_eye_in_hand_image": "image2"}
STATE_DIM = ACTION_DIM = 20
FPS = 20
"""LIBERO's control frequency."""
_FORESEEN = (ValueError, RuntimeError)


class ExpertError(RuntimeError):
    """An expert has raised something; says where and what."""


@dataclass(frozen=True)
class Attempt:
    """One episode for the expert to play."""

    task: TaskId
    init_state: int
    seed: int
    image_size: int
    noise: float
    """Of the expert's actions, in its own units."""
    expert: str
    """``file.py:Class``; called as ``Class(env, rng=…, noise=…)``, acts by ``act()``."""


@dataclass(frozen=True)
class Demonstration:
    """One episode of T steps."""

    images: dict[str, np.ndarray]
    """Camera → uint8 [T, h, w, 3], before each action."""
    states: np.ndarray
    """float32 [T, 20]."""
    actions: np.ndarray
    """float32 [T, 20]: position, first two columns of the rotation matrix, 1 for a closing gripper, zeros."""
    success: bool


def demonstrate(attempt: Attempt) -> Demonstration:
    """Let the expert play one episode in this process's environment of the task.

    Raises:
        ExpertError: The expert has raised something.
    """
    env = _environment(attempt.task, attempt.image_size)
    options = {"task": 0, "init_state": attempt.init_state}
    observation, _ = env.reset(seed=attempt.seed, options=options)
    simulator = env.simulator
    rng = np.random.default_rng(attempt.seed)
    expert = _asked(attempt, lambda: _expert(attempt.expert)(simulator, rng=rng, noise=attempt.noise))
    images: dict[str, list[np.ndarray]] = {name: [] for name in CAMERAS.values()}
    states, actions = [], []
    over, info = False, {}
    while not over:
        for name, image in observation["pixels"].items():
            images[name].append(image)
        states.append(observation["agent_pos"])
        command = _asked(attempt, expert.act)
        observation, _, terminated, truncated, info = env.step(command)
        actions.append(_aimed_at(simulator, closing=command[6] > 0))
        over = terminated or truncated
    return Demonstration(
        {name: np.stack(frames) for name, frames in images.items()},
        np.stack(states),
        np.stack(actions),
        bool(info["is_success"]),
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


def _quiet() -> None:
    """Leave of what imports report what means something, in a worker as in the command itself."""
    shorten_import_warnings()
    for name, level in QUIET.items():
        logging.getLogger(name).setLevel(level)


@lru_cache(maxsize=1)
def _environment(task: TaskId, image_size: int) -> Any:
    _quiet()
    # Slow to import, and in the workers only.
    from bridge.libero.tasks import LiberoTasks, make_env

    config = LiberoEnv(
        task=task.suite,
        control_mode="relative",
        observation_height=image_size,
        observation_width=image_size,
    )
    return LiberoTasks([task], lambda task: make_env(task, config, list(CAMERAS)), Schedule(1), max_cached=1)


@lru_cache(maxsize=1)
def _expert(name: str) -> Any:
    path, _, attribute = name.rpartition(":")
    spec = importlib.util.spec_from_file_location("expert", path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise ValueError(f"--expert must be file.py:Class; got {name!r}.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, attribute)


def record(
    root: Path,
    tasks: list[TaskId],
    episodes: int,
    expert: str,
    *,
    image_size: int = 128,
    noise: float = 0.05,
    seed: int = 0,
    workers: int = 2,
    repo_id: str = "pirl/libero",
) -> LeRobotDataset:
    """Write ``episodes`` successful demonstrations of each task to a new LeRobotDataset, and return it.

    Initial states are taken in order, LIBERO's 50 again and again with other noise.

    Raises:
        ValueError: ``root`` exists, or the expert cannot be found.
        RuntimeError: The expert fails more often than it succeeds, or raises something.
    """
    from bridge.libero.tasks import instruction

    if root.exists():
        raise ValueError(f"{root} already exists. Remove it, or record elsewhere.")
    datasets.disable_progress_bars()
    dataset = LeRobotDataset.create(
        repo_id, fps=FPS, features=_features(image_size), root=root, use_videos=False, image_writer_threads=2
    )
    started = time.monotonic()
    with pool(workers) as processes:
        for done, task in enumerate(tasks):
            attempts = (
                Attempt(task, index % 50, seed + index, image_size, noise, expert)
                for index in range(2 * episodes)
            )
            saved = 0
            for attempt, demonstration in enumerate(_in_order(processes, attempts, 2 * workers), 1):
                if demonstration.success:
                    _save(dataset, demonstration, instruction(task))
                    saved += 1
                logger.info(
                    "%s: %d of %d after %d attempts; task %d of %d, %.0f s",
                    *(task.label, saved, episodes, attempt, done + 1, len(tasks), time.monotonic() - started),
                )
                if saved == episodes:
                    break
            if saved < episodes:
                raise RuntimeError(
                    f"the expert succeeded in {saved} of {2 * episodes} episodes of {task.label}."
                )
    dataset.finalize()
    return dataset


def _in_order(processes: Any, attempts: Iterator[Attempt], ahead: int) -> Iterator[Demonstration]:
    """Results in the order of the attempts, with no more than ``ahead`` of them begun or waiting."""
    pending = [
        processes.apply_async(demonstrate, (attempt,)) for attempt in itertools.islice(attempts, ahead)
    ]
    while pending:
        yield pending.pop(0).get()
        pending += [
            processes.apply_async(demonstrate, (attempt,)) for attempt in itertools.islice(attempts, 1)
        ]


def _features(image_size: int) -> dict[str, dict]:
    image = {
        "dtype": "image",
        "shape": (image_size, image_size, 3),
        "names": ["height", "width", "channels"],
    }
    vector = {"dtype": "float32", "names": None}
    return {
        **{f"{OBS_IMAGES}.{name}": image for name in CAMERAS.values()},
        OBS_STATE: {**vector, "shape": (STATE_DIM,)},
        ACTION: {**vector, "shape": (ACTION_DIM,)},
    }


def _save(dataset: LeRobotDataset, demonstration: Demonstration, instruction: str) -> None:
    for step, (state, action) in enumerate(zip(demonstration.states, demonstration.actions, strict=True)):
        frames = {f"{OBS_IMAGES}.{name}": images[step] for name, images in demonstration.images.items()}
        dataset.add_frame({**frames, OBS_STATE: state, ACTION: action, "task": instruction})
    dataset.save_episode()


def _record(arguments: argparse.Namespace) -> None:
    numbers = None if arguments.tasks is None else [int(n) for n in arguments.tasks.split(",")]
    tasks = select_tasks(arguments.suites, numbers)
    _expert(arguments.expert)
    record(
        arguments.output_dir / "dataset",
        tasks,
        arguments.episodes,
        arguments.expert,
        image_size=arguments.image_size,
        noise=arguments.noise,
        seed=arguments.seed,
        workers=arguments.workers,
    )
    from bridge.libero.tasks import instruction

    words = map(instruction, select_tasks(",".join(SUITES), None))
    build_tokenizer(arguments.output_dir / "tokenizer", words)


def main() -> None:
    """Parse the command line; record, and make a tokenizer that knows every task's words."""
    parser = argparse.ArgumentParser(prog="python -m bridge.libero.record", description=__doc__)
    parser.add_argument("--expert", required=True, help="file.py:Class of a scripted expert")
    parser.add_argument("--suites", default="libero_object", help=f"comma-separated, of {', '.join(SUITES)}")
    parser.add_argument("--tasks", default=None, help="comma-separated numbers; all if not given")
    parser.add_argument("--episodes", type=int, default=50, help="of each task")
    parser.add_argument("--noise", type=float, default=0.05, help="of the expert's actions")
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/libero_small"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    _quiet()
    end_on_signal(f"; what was recorded is in {arguments.output_dir}, without an end")
    try:
        with in_one_line(arguments.output_dir, _FORESEEN):
            _record(arguments)
    except _FORESEEN as error:
        sys.exit(f"error: {error}")
    print(f"results: {arguments.output_dir}/dataset and {arguments.output_dir}/tokenizer")


if __name__ == "__main__":
    main()
