"""Demonstrations of LIBERO's tasks in X-VLA's terms, as a LeRobotDataset."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import datasets
from lerobot.datasets import LeRobotDataset
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from bridge.libero.demonstrate import ACTION_DIM, CAMERAS, Attempt, Demonstration, demonstrated
from bridge.libero.experts.choice import Choice
from bridge.libero.suites import INIT_STATES, TaskId
from bridge.libero.tally import Tally, asked_for
from bridge.processes import pool
from pirl_jax.console.progress import Progress
from pirl_jax.ending import first_is_noted

logger = logging.getLogger(__name__)

STATE_DIM = 20
FPS = 20
"""LIBERO's control frequency."""


def record(
    root: Path,
    tasks: list[TaskId],
    episodes: int,
    expert: Choice,
    *,
    states: range = range(INIT_STATES),
    image_size: int = 128,
    seed: int = 0,
    processes: int = 2,
    repo_id: str = "pirl/libero",
) -> dict[str, int]:
    """Write ``episodes`` successful demonstrations of each task to a LeRobotDataset.

    Initial states are taken in order, again and again with other noise. What was stopped goes on where it
    was, if it is asked for the same.

    Returns:
        Label of each task → how many attempts it took.

    Raises:
        ValueError: ``root`` exists and cannot be gone on with, or there is no expert of a task.
        RuntimeError: The expert fails more often than it succeeds, or raises something.
    """
    from bridge.libero.tasks import instruction

    expert.check(tasks)
    datasets.disable_progress_bars()
    tally = Tally.of(root, asked_for(tasks, episodes, expert, states, image_size, seed))
    if tally.episodes:
        dataset = LeRobotDataset.resume(repo_id, root=root, image_writer_threads=2)
        logger.info("going on after %d episodes", tally.episodes)
    else:
        dataset = LeRobotDataset.create(
            repo_id,
            fps=FPS,
            features=_features(image_size),
            root=root,
            use_videos=False,
            image_writer_threads=2,
        )
    try:
        total = episodes * len(tasks)
        shown = Progress("recording", total, "episodes", tally.episodes)
        with pool(processes) as workers, shown:
            for place, task in enumerate(tasks, 1):
                logger.info("task %d of %d, %s: %d processes play", place, len(tasks), task.label, processes)
                seeds = range(seed, seed + 2 * episodes)
                attempts = (
                    Attempt(task, states[index % len(states)], seeds[index], expert, image_size)
                    for index in range(tally.attempts.get(task.label, 0), 2 * episodes)
                )
                played = demonstrated(workers, attempts, 2 * processes)
                _record_task(dataset, task.label, instruction(task), played, episodes, tally, shown)
                if (saved := tally.saved.get(task.label, 0)) < episodes:
                    raise RuntimeError(
                        f"{expert} succeeded in {saved} of {2 * episodes} episodes of {task.label}, and half "
                        "of them must. Lower --noise or --aim_offset_mm."
                    )
    finally:
        dataset.finalize()
        tally.pause()
    tally.over()
    return tally.attempts


def _record_task(
    dataset: LeRobotDataset,
    label: str,
    words: str,
    played: Iterator[Demonstration],
    episodes: int,
    tally: Tally,
    shown: Progress,
) -> None:
    """Write successes to the dataset until the task has its episodes; a signal leaves whole ones."""
    while tally.saved.get(label, 0) < episodes and (demonstration := next(played, None)) is not None:
        with first_is_noted() as told:
            if demonstration.success:
                _save(dataset, demonstration, words)
            tally.note(label, demonstration.success)
        if told:
            signal.raise_signal(told[0])
        of_task = f"{label}: {tally.saved[label]} of {episodes} in {tally.attempts[label]} attempts"
        shown.at(tally.episodes, of_task)


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
