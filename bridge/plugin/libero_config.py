"""``env.type=libero``: LeRobot's own LIBERO environment, with what the actor needs besides.

The class takes the place of LeRobot's in the registry, which it extends: one JSON serves the learner, the
actor and ``lerobot-eval``, and without the plugin LeRobot reads the same options except the actor's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import count
from typing import Any

import gymnasium as gym
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig, HILSerlRobotEnvConfig, LiberoEnv
from lerobot.envs.factory import make_env_pre_post_processors
from lerobot.envs.utils import parse_camera_names
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from bridge.libero import init_states, installation, schedule
from bridge.libero.suites import MAX_STEPS, SUITES, TaskId, select_tasks, suite_names
from bridge.plugin import seams, transport
from bridge.plugin.actor_settings import ActorSettings
from bridge.plugin.chunk_env import ChunkEnv
from bridge.plugin.recipe_config import language_features

STATE_DIM = 20
ACTION_DIM = 7
_numbers = count()

log = logging.getLogger(__name__)


@dataclass
class LiberoConfig(ActorSettings, LiberoEnv):
    """LeRobot's options (``task`` (suites), ``task_ids``, ``control_mode``, …) and the actor's."""

    task_sampling: str = "uniform"
    """``uniform``, ``round_robin``, or ``weighted`` towards what fails; chosen by the learner."""
    init_state_rule: str = "random"
    """``random`` or ``sequential``: the initial state of an episode, unless ``init_states`` is false."""
    train_init_states: str | None = None
    """Initial states that training begins in, ``first:end`` as ``20:50``; None: all 50."""
    eval_init_states: str | None = None
    """Those that the run's own evaluations (``env_eval_freq``) begin in, in turn; None: all 50."""
    max_cached_envs: int = 4
    """Tasks whose simulators an actor keeps built."""

    domain_id: int = 0
    """X-VLA's. LeRobot's LIBERO processors announce 0, and a checkpoint's own, which come later, another."""

    def __post_init__(self) -> None:
        super().__post_init__()
        schedule.validate(self.task_sampling, self.init_state_rule)
        of_states = {"train_init_states": None, "eval_init_states": None, "init_state_rule": "random"}
        for name, default in of_states.items():
            if (value := getattr(self, name)) != default and not self.init_states:
                raise ValueError(
                    f"env.{name}={value} would do nothing: with env.init_states=false LIBERO draws the "
                    "initial states. Leave one of them out."
                )
        _ = self.train_states, self.eval_states  # what they are is checked now
        if self.max_cached_envs < 1:
            raise ValueError(f"env.max_cached_envs must be ≥ 1; got {self.max_cached_envs}.")

    @property
    def tasks(self) -> list[TaskId]:
        """The tasks to play."""
        return select_tasks(self.task, self.task_ids)

    @property
    def task_names(self) -> tuple[str, ...]:
        """Their labels, in the order of the task index that episodes carry."""
        return tuple(task.label for task in self.tasks)

    @property
    def train_states(self) -> range:
        """Initial states that training begins in."""
        return init_states.read("env.train_init_states", self.train_init_states)

    @property
    def eval_states(self) -> range:
        """Initial states that evaluations begin in."""
        return init_states.read("env.eval_init_states", self.eval_init_states)

    def evaluation_shares(self) -> str | None:
        """As in the base class: initial states."""
        shared = init_states.overlap(self.train_states, self.eval_states)
        if not shared or not self.init_states:
            return None
        return (
            f"evaluation and training both begin in the initial states {shared.start}:{shared.stop}: success "
            "there says little of states that are never trained on. To hold some out give "
            "env.train_init_states and env.eval_init_states, as 20:50 and 0:20."
        )

    def schedule(self) -> schedule.Schedule:
        """Return the rule that ``task_sampling`` and ``init_state_rule`` name, over the tasks."""
        return schedule.Schedule(len(self.tasks), self.task_sampling, self.init_state_rule)

    @property
    def env_action_dim(self) -> int:
        """Numbers of one control step, as robosuite's arm takes them."""
        return ACTION_DIM

    @property
    def max_steps(self) -> int:
        """``episode_length``, else the longest limit of the suites."""
        if self.episode_length is not None:
            return self.episode_length
        return max(SUITES[name].max_steps for name in suite_names(self.task))

    @property
    def image_keys(self) -> dict[str, str]:
        """Camera's observable → the policy's input feature."""
        names = self.camera_name_mapping or {"agentview_image": "image", "robot0_eye_in_hand_image": "image2"}
        cameras = parse_camera_names(self.camera_name)
        if missing := [camera for camera in cameras if camera not in names]:
            raise ValueError(f"env.camera_name_mapping has no name for {', '.join(missing)}.")
        return {camera: f"{OBS_IMAGES}.{names[camera]}" for camera in cameras}

    @property
    def observation_shapes(self) -> dict[str, tuple[int, ...]]:
        """As in the base class: every camera's images have one shape."""
        image_shape = (3, self.observation_height, self.observation_width)
        return {**dict.fromkeys(self.image_keys.values(), image_shape), OBS_STATE: (STATE_DIM,)}

    def take_defaults_from(self, policy: Any, seed: int | None) -> None:
        """Do as the base class, and check what X-VLA's LIBERO processors take for granted."""
        super().take_defaults_from(policy, seed)
        if not 0 <= self.domain_id < policy.num_domains:
            raise ValueError(
                f"env.domain_id={self.domain_id} is not below policy.num_domains={policy.num_domains}."
            )
        if policy.action_mode != "ee6d":
            raise ValueError(
                "LeRobot turns X-VLA's actions into LIBERO's by reading them as ee6d; "
                f"got policy.action_mode={policy.action_mode!r}. Use a policy with action_mode=ee6d."
            )
        if self.control_mode != "absolute":
            log.warning(
                "X-VLA's published policies control LIBERO by absolute poses, but env.control_mode is %r. "
                "Set --env.control_mode=absolute, here and for lerobot-eval.",
                self.control_mode,
            )
        if self.obs_type != "pixels_agent_pos":
            raise ValueError(f"env.obs_type must be pixels_agent_pos; got {self.obs_type!r}.")
        if not 1 <= self.max_steps <= MAX_STEPS:
            raise ValueError(f"env.episode_length must be in [1, {MAX_STEPS}]; got {self.max_steps}.")
        if len(self.tasks) == 1 and self.task_sampling != "uniform":  # their names are checked now, too
            log.warning("env.task_sampling=%s has no effect on one task.", self.task_sampling)
        self._image_keys = {
            camera: key
            for camera, key in self.image_keys.items()
            if not policy.image_features or key in policy.image_features
        }
        if not self._image_keys:
            raise ValueError(
                f"LIBERO's images are {sorted(self.image_keys.values())}, of which policy.input_features "
                f"has none; it has {sorted(policy.image_features)}. Set env.camera_name_mapping."
            )
        self._action_dims = (policy.n_action_steps, ACTION_DIM)

    def for_actor(self) -> HILSerlRobotEnvConfig:
        """Return the environment as LeRobot's actor can make it, which is by a gym id of gym_hil's.

        Call after ``take_defaults_from``.
        """
        # Not this config itself, whose ``task`` names suites and ``fps`` is the control frequency.
        name = f"libero-{next(_numbers)}-v0"

        def make(**_: Any) -> ChunkEnv:  # a function, because gymnasium copies specs deeply
            return self.make()

        gym.register(id=f"gym_hil/{name}", entry_point=make, disable_env_checker=True, order_enforce=False)
        features = {
            key: PolicyFeature(FeatureType.STATE if key == OBS_STATE else FeatureType.VISUAL, shape)
            for key, shape in self.observation_shapes.items()
        }
        features |= language_features(self.tokenizer_max_length or 0)
        features[ACTION] = self.features[ACTION]
        return HILSerlRobotEnvConfig(
            name="gym_hil", task=name, fps=-1, features=features, features_map={key: key for key in features}
        )

    def make(self) -> ChunkEnv:
        """Create the actor's environment; call after ``take_defaults_from``.

        Raises:
            bridge.libero.installation.LiberoError: LIBERO or its assets are missing.
            bridge.plugin.seams.SeamError: robosuite is not the one that ``bridge.libero.cameras`` knows.
        """
        installation.find_assets()
        seams.check(seams.ROBOSUITE)
        # Slow to import, and not installed wherever this plugin is.
        from bridge.libero.tasks import LiberoTasks, instruction, make_env

        tasks = self.tasks
        channel = transport.current()
        return ChunkEnv(
            LiberoTasks(
                tasks,
                lambda task: make_env(task, self, list(self._image_keys)),
                self.schedule(),
                self.max_cached_envs,
                self.train_states,
                self.eval_states,
            ),
            image_keys={key.removeprefix(f"{OBS_IMAGES}."): key for key in self._image_keys.values()},
            image_shapes=self.observation_shapes,
            state_dim=STATE_DIM,
            tokens=self.tokenize(map(instruction, tasks)),
            domain_id=self.domain_id,
            seed=self.seed or 0,
            action_dims=self._action_dims,
            assign=None if channel is None else channel.episodes.next,
        )

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> Any:
        """Create LeRobot's vector environments (``lerobot-eval``), without LIBERO's questions on stdin."""
        installation.prepare()
        return super().create_envs(n_envs, use_async_envs)

    def env_action(self, policy: Any, actions: torch.Tensor) -> torch.Tensor:
        """Turn the policy's actions [H, 20] into the environment's [H, 7], by LeRobot's own processor."""
        _, postprocessor = make_env_pre_post_processors(self, policy)
        return postprocessor({ACTION: actions})[ACTION]


class _ChoiceName:
    """An environment's name in LeRobot's registry. An object and no function: LeRobot asks the class and its
    instances, and both have to be given the same."""

    def __call__(self, subclass: type) -> str:
        return _stock_choice_name(LiberoConfig if subclass is LiberoEnv else subclass)


seams.install(seams.LIBERO_ENTRY, EnvConfig, LiberoConfig)
_stock_choice_name = seams.install(seams.LIBERO_NAME, EnvConfig, _ChoiceName())
