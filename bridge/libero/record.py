"""``python -m bridge.libero.record``: a scripted expert's demonstrations of LIBERO's tasks, for X-VLA.

The project's expert plays where one plays the task (``bridge.libero.experts``), else one of the user's.
Writes a LeRobotDataset, a tokenizer that knows every task's words, and how often the expert succeeded.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

import datasets
from lerobot.datasets import LeRobotDataset
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from bridge.datasets.tokenizer import build_tokenizer
from bridge.libero.demonstrate import ACTION_DIM, CAMERAS, Attempt, Demonstration, demonstrated, quiet
from bridge.libero.experts.choice import Choice
from bridge.libero.experts.command_line import add_options, read_options
from bridge.libero.suites import INIT_STATES, SUITES, TaskId, select_tasks
from bridge.processes import pool
from pirl_jax.ending import end_on_signal, in_one_line
from pirl_jax.files import write_json

logger = logging.getLogger("record")

STATE_DIM = 20
RECORDED = "recorded.json"
"""How it was recorded, and how many attempts each task took."""
FPS = 20
"""LIBERO's control frequency."""
_FORESEEN = (ValueError, RuntimeError)


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
    """Write ``episodes`` successful demonstrations of each task to a new LeRobotDataset.

    Initial states are taken in order, again and again with other noise.

    Returns:
        Label of each task → how many attempts it took.

    Raises:
        ValueError: ``root`` exists, or there is no expert of a task.
        RuntimeError: The expert fails more often than it succeeds, or raises something.
    """
    from bridge.libero.tasks import instruction

    expert.check(tasks)
    if root.exists():
        raise ValueError(f"{root} already exists. Remove it, or record elsewhere.")
    datasets.disable_progress_bars()
    dataset = LeRobotDataset.create(
        repo_id, fps=FPS, features=_features(image_size), root=root, use_videos=False, image_writer_threads=2
    )
    started, attempted = time.monotonic(), {}
    with pool(processes) as workers:
        for task in tasks:
            attempts = (
                Attempt(task, states[index % len(states)], seed + index, expert, image_size)
                for index in range(2 * episodes)
            )
            saved = 0
            for number, demonstration in enumerate(demonstrated(workers, attempts, 2 * processes), 1):
                if demonstration.success:
                    _save(dataset, demonstration, instruction(task))
                    saved += 1
                logger.info(
                    "%s: %d of %d after %d attempts; task %d of %d, %.0f s",
                    *(task.label, saved, episodes, number),
                    *(len(attempted) + 1, len(tasks), time.monotonic() - started),
                )
                attempted[task.label] = number
                if saved == episodes:
                    break
            if saved < episodes:
                raise RuntimeError(
                    f"{expert} succeeded in {saved} of {2 * episodes} episodes of {task.label}, and half of "
                    "them must. Lower --noise or --aim_offset_mm."
                )
    dataset.finalize()
    return attempted


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


def _record(options: argparse.Namespace) -> None:
    asked = read_options(options)
    attempted = record(
        options.output_dir / "dataset",
        asked.tasks,
        options.episodes,
        asked.expert,
        states=asked.states,
        image_size=options.image_size,
        seed=options.seed,
        processes=options.processes,
    )
    from bridge.libero.tasks import instruction

    words = map(instruction, select_tasks(",".join(SUITES), None))
    build_tokenizer(options.output_dir / "tokenizer", words)
    settings = {name: str(value) for name, value in vars(options).items() if value is not None}
    write_json(
        options.output_dir / RECORDED,
        {"settings": settings, "episodes": options.episodes, "attempts": attempted},
    )


def main() -> None:
    """Parse the command line and record."""
    parser = argparse.ArgumentParser(prog="python -m bridge.libero.record", description=__doc__)
    add_options(parser, episodes=50)
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/libero_small"))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    quiet()
    end_on_signal(f"; what was recorded is in {options.output_dir}, without an end")
    try:
        with in_one_line(options.output_dir, _FORESEEN):
            _record(options)
    except _FORESEEN as error:
        sys.exit(f"error: {error}")
    folder = options.output_dir
    print(f"results: {folder}/dataset, {folder}/tokenizer and {folder}/{RECORDED}")


if __name__ == "__main__":
    main()
