"""A run's folder as a learner leaves it, with rows of the real writer, for whoever looks at runs."""

from __future__ import annotations

import json
import math
import random
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import imageio.v3 as imageio
import numpy as np

from bridge.wire.protocol import ActorStatus, Status
from bridge.wire.status_file import StatusFile
from pirl_jax.rollout.collect import DROPPED
from pirl_jax.run_folder.layout import METRICS, STATUS, TRAIN_CONFIG, checkpoint_folder, point, write_about
from pirl_jax.training.interval import wilson
from pirl_jax.training.metrics import MetricsWriter

EPISODES, UPDATES, UPDATE_S = 64, 200, 47.0
TASKS = [f"libero_object_{number}" for number in range(10)]
_PRESETS = Path(__file__).resolve().parents[1] / "configs" / "presets"


def update_row(number: int, draw: random.Random) -> dict[str, float]:
    """Return the metrics of an update of a run that learns."""
    learned = 1 - math.exp(-number / 60)
    rate = 0.31 + 0.5 * learned
    rates = {
        task: min(1.0, max(0.0, rate + 0.12 * math.sin(i) + draw.gauss(0, 0.1)))
        for i, task in enumerate(TASKS)
    }
    wins = sum(draw.random() < rate for _ in range(EPISODES))
    kl = 0.06 + 0.02 * draw.random() + (0.1 if draw.random() < 0.03 else 0)
    return {
        "train/success_rate": wins / EPISODES,
        **{f"train/success_rate/{task}": value for task, value in rates.items()},
        "train/return": wins / EPISODES,
        "train/episodes": EPISODES,
        "train/episode_chunks": 24 - 9 * learned + draw.gauss(0, 0.4),
        "train/approx_kl": kl,
        "train/clip_fraction": 0.14 + 0.05 * draw.random(),
        "train/ratio_mean": 1 + draw.gauss(0, 0.01),
        "train/behaviour_weight": 1 + draw.gauss(0, 0.02),
        "train/explained_variance": 0.72 * learned + draw.gauss(0, 0.05) - 0.05,
        "train/entropy": 411.5 + draw.gauss(0, 0.01),
        "train/lr": 5e-6 * min(1.0, number / 20),
        "train/policy_loss": draw.gauss(0, 0.01),
        "train/value_loss": 0.09 * math.exp(-number / 40) + 0.02,
        "train/grad_norm": 30 * math.exp(draw.gauss(0, 0.3)),
        "train/policy_steps": 16,
        "train/kl_stopped": float(kl > 0.1),
        "train/skipped_steps": 0,
        "train/without_signal": 0,
        "train/rejected": 0,
        "train/moved/head": 0.99,
        "train/update_ratio/head": 2e-4,
        "train/noise_level": 0.01,
        "train/stale_fraction": 0.2 + 0.05 * draw.random(),
        "train/actor_learner_logprob_gap": 3e-4 * math.exp(draw.gauss(0, 0.4)),
        "train/collect_s": 21 + draw.random(),
        "train/wait_s": 14 + draw.random(),
        "train/score_s": 9.0,
        "train/release_s": 0.02,
        "train/update_s": 26 + draw.random(),
        "train/push_s": 1.4,
        "train/save_s": 6.1,
        "train/samples_per_s": 24.0,
        "train/compilations": 14.0 if number == 1 else 0.0,
        "dropped/stale_chunks": 0,
        **{f"dropped/{reason}": 0 for reason in DROPPED},
        "actor/episodes": number * EPISODES + 9,
        "actor/actors": 8,
    }


def evaluation_row(number: int, draw: random.Random, episodes: int = 100) -> dict[str, float]:
    """Return the metrics of an evaluation of the policy after so many updates."""
    rate = 0.40 + 0.5 * (1 - math.exp(-number / 60))
    wins = sum(draw.random() < rate for _ in range(episodes))
    low, high = wilson(wins, episodes)
    return {
        "eval/pc_success": 100 * wins / episodes,
        "eval/interval_low": 100 * low,
        "eval/interval_high": 100 * high,
        "eval/n_episodes": episodes,
        "eval/given_up": 0,
        **{f"eval/pc_success/{task}": 10.0 * round(10 * rate + math.cos(i)) for i, task in enumerate(TASKS)},
    }


def write_rows(folder: Path, updates: int = UPDATES, begin: int = 1, every: int = 20) -> None:
    """Write a run's rows, as a learner does, the last of them just now."""
    draw, clock = random.Random(begin), SimpleNamespace(time=lambda: clock.now, now=0.0)
    with MetricsWriter(folder, begin - 1) as writer, patch("pirl_jax.training.metrics.time", clock):
        for number in range(begin - 1, updates + 1):
            clock.now = time.time() - UPDATE_S * (updates - number)
            if number >= begin:
                writer.write(number, update_row(number, draw))
            if every and number % every == 0 and (number >= begin or number == 0):
                writer.write(number, evaluation_row(number, draw))


def write_long(folder: Path, updates: int) -> None:
    """Write many rows at once, some seconds apart."""
    draw, begun = random.Random(0), time.time() - UPDATE_S * updates
    with (folder / METRICS).open("w") as file:
        for number in range(1, updates + 1):
            row = {"step": number, "time": begun + UPDATE_S * number, **update_row(number, draw)}
            file.write(json.dumps(row) + "\n")


def status(update: int, updates: int = UPDATES, arrived: int = 37, actors: int = 6) -> Status:
    """Return what a learner says of such a run."""
    named = [
        ActorStatus(str(i), 900 * i + 300, 8 * update + 3 * i, update + (i % 3 > 0)) for i in range(actors)
    ]
    counts = {"arrived": arrived, "awaited": EPISODES, "open": 70, "playing": actors}
    return Status(run=7, update=update, updates=updates, version=update + 1, actors=named, **counts)


def say(folder: Path, said: Status) -> None:
    """Have a learner, which has listened for an hour, say how its run stands."""
    file = StatusFile(folder / STATUS)
    file._began -= 3600
    file.write(said)


def config(updates: int = UPDATES, **optimizer: Any) -> dict[str, Any]:
    """Return what a learner writes of its configuration, as far as the page reads it."""
    preset = json.loads((_PRESETS / "xvla_default.json").read_text())
    preset["optimizer"] |= {"target_kl": 0.1, **optimizer}
    env = {"type": "libero", "task": "libero_object", "task_ids": list(range(10))}
    return {
        "steps": updates,
        "seed": 0,
        "save_freq": 10,
        "env_eval_freq": 20,
        "env": env,
        "algorithm": preset,
    }


def write_config(folder: Path, **optimizer: Any) -> None:
    """Write a run's configuration."""
    (folder / TRAIN_CONFIG).write_text(json.dumps(config(**optimizer)))


def write_video(path: Path, wins: bool, frames: int = 20) -> None:
    """Write a short film of a gripper that reaches a cube, or does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    film = np.full((frames, 144, 192, 3), (58, 66, 80), np.uint8)
    film[:, 96:] = (112, 104, 94)
    for number, picture in enumerate(film):
        picture[86:106, 120:140] = (214, 96, 140)
        x, y = 30 + number * (90 if wins else 55) // frames, 20 + number * 60 // frames
        picture[y - 20 : y + 4, x : x + 20] = (210, 214, 220)
    imageio.imwrite(path, film, fps=10)


def write_checkpoint(folder: Path, step: int, score: float, evaluated: float | None = None) -> None:
    """Write what a checkpoint says of itself, and have ``last`` lead to it."""
    place = checkpoint_folder(folder, step, UPDATES)
    about = {"step": step, "score": score}
    write_about(place, about if evaluated is None else about | {"pc_success": evaluated})
    (place / "pretrained_model").mkdir()
    point("last", place)
