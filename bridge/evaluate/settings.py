"""What is evaluated and how; everything that two results must share before they may stand in one report."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from bridge.evaluate.assets import asset_folder, identify
from bridge.evaluate.benchmark import contents, instructions, versions
from bridge.libero.suites import INIT_STATES, MAX_STEPS, SUITES
from pirl_jax.files import digest_of_folder, read_json
from pirl_jax.run_folder.layout import MODEL, TRAINING_STATE

CONTROL_MODES = ("absolute", "relative")

_OF_POLICY = {"xvla": ("absolute", 800)}
"""Control mode and episode length that a policy was made for; others get LeRobot's defaults."""

_FILES = ("config.json", MODEL, "policy_preprocessor.json", "policy_postprocessor.json")
_DONE_BY_LIBERO = {"xvla_image_to_float", "xvla_imagenet_normalize"}
"""Preprocessor steps that LeRobot's LIBERO environment does itself, and that must not be done twice."""

_OWN = {
    "--policy.path": "the checkpoint argument",
    "--config_path": "pirl-eval's own options",
    "--env.type": None,
    "--env.task": "--suites",
    "--env.task_ids": "--tasks",
    "--env.control_mode": "--control_mode",
    "--env.episode_length": "--episode_length",
    "--env.init_states": None,
    "--eval.n_episodes": "--n_episodes",
    "--eval.batch_size": "--batch_size",
    "--eval.use_async_envs": None,
    "--seed": "--seed",
    "--output_dir": "--output_dir",
}
"""lerobot-eval's arguments that are ours to give, and what to use instead; None: nothing, it is fixed."""


@dataclass(frozen=True)
class Checkpoint:
    """A policy folder as LeRobot saves it."""

    path: Path
    policy: str
    """LeRobot's name of the policy's type."""
    digest: str
    """SHA-256 over the contents of its files."""
    image_size: tuple[int, int] | None = None
    """Height and width of the images it takes; None: of any, which it scales itself."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a ``pretrained_model`` folder, or the checkpoint folder around it.

        Raises:
            ValueError: It is no policy that LIBERO's environment can feed.
        """
        # `checkpoints/last` moves while training goes on.
        folder = path.resolve()
        if (folder / "pretrained_model").is_dir():
            folder /= "pretrained_model"
        if not folder.is_dir():
            raise ValueError(
                f"{path} is no folder. Give a checkpoint (…/checkpoints/000010/pretrained_model); "
                "one on the hub has to be downloaded first: hf download <id> --local-dir <folder>."
            )
        if missing := [name for name in _FILES if not (folder / name).is_file()]:
            if missing == [MODEL] and (folder.parent / TRAINING_STATE).is_dir():
                raise ValueError(
                    f"{path} has no {MODEL}: a run keeps the weights of its last checkpoint and its best, of "
                    "others what changes. Write them, and evaluate that: pirl-convert "
                    f"{folder.parents[2]} NEW_FOLDER --step={folder.parent.name.lstrip('0')}"
                )
            raise ValueError(f"{path} is no LeRobot checkpoint: {', '.join(missing)} missing.")
        steps = read_json(folder / "policy_preprocessor.json").get("steps", [])
        if doubled := sorted({step.get("registry_name") for step in steps} & _DONE_BY_LIBERO):
            raise ValueError(
                f"{path} was not exported for LIBERO: its preprocessor has {', '.join(doubled)}, which "
                "LeRobot's LIBERO environment does as well. Make one for evaluation, and evaluate that: "
                f"pirl-convert --for=eval {folder} NEW_FOLDER"
            )
        named = [name for step in steps if (name := step.get("config", {}).get("tokenizer_name"))]
        paths = [name for name in named if name.startswith("/") or name.count("/") > 1]  # no hub ids
        if gone := [name for name in paths if not Path(name).is_dir()]:
            raise ValueError(
                f"{path} names the tokenizer {gone[0]}, which is not there: it has been moved, or comes "
                f"from another machine. Mend it: pirl-convert --moved {folder}"
            )
        config = read_json(folder / "config.json")
        return cls(folder, str(config.get("type")), digest_of_folder(folder), _image_size(config))

    @property
    def label(self) -> str:
        """A short name: the run and the step, or the folder."""
        folder = self.path.parent if self.path.name == "pretrained_model" else self.path
        if folder.parent.name == "checkpoints":
            return f"{folder.parent.parent.name}-{folder.name}"
        return folder.name


def _image_size(config: dict[str, Any]) -> tuple[int, int] | None:
    """Return the size that an X-VLA was trained with, if it takes its images as they come: it has none to
    resize them to, and fails at any other; or that very size, and would see others blurred."""
    if config.get("type") != "xvla":
        return None
    features = (config.get("input_features") or {}).items()
    sizes = {
        tuple(feature["shape"][1:])
        for name, feature in features
        if feature["type"] == "VISUAL" and ".empty_camera_" not in name  # LeRobot makes them up
    }
    resized = config.get("resize_imgs_with_padding")
    return sizes.pop() if len(sizes) == 1 and (not resized or sizes == {tuple(resized)}) else None


@dataclass(frozen=True)
class Group:
    """Tasks of one suite that one process evaluates."""

    suite: str
    task_ids: tuple[int, ...]

    @property
    def name(self) -> str:
        """Its folder's name."""
        return f"{self.suite}_{'-'.join(map(str, self.task_ids))}"

    def __str__(self) -> str:
        tasks = ", ".join(map(str, self.task_ids))
        return f"{self.suite} task{'s' if len(self.task_ids) > 1 else ''} {tasks}"


@dataclass(frozen=True)
class Settings:
    """How every task is evaluated."""

    checkpoint: Checkpoint
    n_episodes: int
    """Of each task."""
    seed: int
    """Of each task's first episode; the following ones count up."""
    control_mode: str
    episode_length: int | None
    """Steps; None: LeRobot's own limit for the suite."""
    batch_size: int
    """Environments that lerobot-eval steps together."""
    tasks_per_process: int
    """Part of the result: tasks of one process share a random number generator."""
    arguments: tuple[str, ...] = ()
    """More of lerobot-eval's."""

    @classmethod
    def make(
        cls,
        checkpoint: Checkpoint,
        *,
        n_episodes: int,
        seed: int = 1000,
        control_mode: str | None = None,
        episode_length: int | None = None,
        batch_size: int = 1,
        tasks_per_process: int = 1,
        arguments: Sequence[str] = (),
    ) -> Self:
        """Fill in what the policy was made for, and check everything.

        Raises:
            ValueError: A value is out of range, or an argument is not the user's to give.
        """
        mode, length = _OF_POLICY.get(checkpoint.policy, ("relative", None))
        for name, value in (
            ("n_episodes", n_episodes),
            ("batch_size", batch_size),
            ("tasks_per_process", tasks_per_process),
        ):
            if value < 1:
                raise ValueError(f"--{name} must be at least 1; got {value}.")
        if seed < 0:
            raise ValueError(f"--seed must not be negative; got {seed}.")
        if episode_length is not None and not 1 <= episode_length <= MAX_STEPS:
            raise ValueError(
                f"--episode_length must be 1 to {MAX_STEPS}, where LIBERO itself ends an episode; "
                f"got {episode_length}."
            )
        for argument in arguments:
            name = argument.split("=", 1)[0]
            if name in _OWN:
                instead = f"use {_OWN[name]}" if _OWN[name] else "the report depends on it"
                raise ValueError(f"{name} cannot be passed on to lerobot-eval: {instead}.")
        return cls(
            checkpoint=checkpoint,
            n_episodes=n_episodes,
            seed=seed,
            control_mode=control_mode or mode,
            episode_length=length if episode_length is None else episode_length,
            batch_size=min(batch_size, n_episodes),
            tasks_per_process=tasks_per_process,
            arguments=tuple(arguments),
        )

    @property
    def rollouts(self) -> int:
        """Batches of episodes that a task takes."""
        return math.ceil(self.n_episodes / self.batch_size)

    def horizon(self, suite: str) -> int:
        """Return the number of steps after which an episode of the suite has failed."""
        return self.episode_length or SUITES[suite].max_steps

    def init_state(self, episode: int) -> int:
        """Return the initial state of a task's episode.

        LeRobot's ``LiberoEnv`` number i of b takes states i, i + b, i + 2b, … modulo their number, one each
        reset, and ``lerobot-eval`` lays the batches' episodes end to end: both count up together.
        """
        return episode % INIT_STATES

    def identity(self) -> dict[str, Any]:
        """Return everything that results in one report must share, by name."""
        assets = identify(asset_folder().resolve())
        return {
            "checkpoint": self.checkpoint.digest,
            "n_episodes": self.n_episodes,
            "seed": self.seed,
            "control_mode": self.control_mode,
            "episode_length": self.episode_length,
            "batch_size": self.batch_size,
            "tasks_per_process": self.tasks_per_process,
            "lerobot_eval_arguments": list(self.arguments),
            "libero": contents(),
            "assets": asdict(assets),
            "versions": versions(),
        }

    def command(self, group: Group, output_dir: Path) -> list[str]:
        """Return lerobot-eval's arguments for a group."""
        optional = [] if self.episode_length is None else [f"--env.episode_length={self.episode_length}"]
        if self.checkpoint.image_size is not None:
            height, width = self.checkpoint.image_size
            optional += [f"--env.observation_height={height}", f"--env.observation_width={width}"]
        return [
            f"--policy.path={self.checkpoint.path}",
            "--env.type=libero",
            f"--env.task={group.suite}",
            f"--env.task_ids={list(group.task_ids)}",
            f"--env.control_mode={self.control_mode}",
            *optional,
            f"--eval.n_episodes={self.n_episodes}",
            f"--eval.batch_size={self.batch_size}",
            f"--seed={self.seed}",
            f"--output_dir={output_dir}",
            *self.arguments,
        ]


def fingerprint(identity: dict[str, Any]) -> str:
    """Return a short name of an identity."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def group_tasks(
    suites: Sequence[str], tasks: Sequence[int] | None, tasks_per_process: int
) -> tuple[Group, ...]:
    """Divide the chosen tasks of each suite into groups, always in the same way.

    Args:
        suites: Names, in the order of the report.
        tasks: Task ids, of every suite; None: all.
        tasks_per_process: A group's size.

    Raises:
        ValueError: A suite or a task does not exist, or is named twice.
    """
    if not suites or len(set(suites)) != len(suites):
        raise ValueError(f"--suites needs different names; got {', '.join(suites) or 'none'}.")
    groups = []
    for suite in suites:
        known = len(instructions(suite))
        chosen = list(range(known)) if tasks is None else sorted(tasks)
        if not chosen or len(set(chosen)) != len(chosen) or not 0 <= chosen[0] <= chosen[-1] < known:
            raise ValueError(
                f"--tasks of {suite} must be different numbers from 0 to {known - 1}; got {chosen}."
            )
        for start in range(0, len(chosen), tasks_per_process):
            groups.append(Group(suite, tuple(chosen[start : start + tasks_per_process])))
    return tuple(groups)
