"""Settings of LeRobot's training configs that our commands do not read: refused or named, never ignored.

Refused is what a user would rely on; of the rest a line says that it has no effect, and what has.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import draccus
from lerobot.configs.default import DatasetConfig
from lerobot.configs.parser import PATH_KEY, get_path_arg
from lerobot.configs.train import TRAIN_CONFIG_NAME, TrainPipelineConfig
from lerobot.policies.xvla.configuration_xvla import XVLAConfig
from lerobot.utils.constants import PRETRAINED_MODEL_DIR

from bridge.plugin.command_line import of_command_line, of_file

log = logging.getLogger(__name__)

_EVALUATE = "evaluate checkpoints by pirl-eval or lerobot-eval"

_TRAINING_PRESET = tuple(
    f"policy.{field.name}"
    for field in fields(XVLAConfig)
    if field.name.startswith(("optimizer_", "scheduler_"))
)

REFUSED: Mapping[str, str] = {
    "reward_model": "no reward model is trained here; lerobot-train does",
    "peft": "no adapters are trained here; lerobot-train does",
    "policy.use_peft": "no adapters are trained here; merge them into the checkpoint",
    "policy.pretrained_revision": "download that revision (hf download <id> --revision=… --local-dir=FOLDER) "
    "and give --policy.path=FOLDER",
    "sample_weighting": "all frames and episodes count the same here; lerobot-train has it",
    "rename_map": "name the cameras as the policy does where they are made",
    "job.target": "a run stays on this machine; start it where it is to run",
    "save_checkpoint_to_hub": "policy.push_to_hub=true pushes the last checkpoint, pirl card --push any",
}
"""Setting, or section → the way out; other than its default it ends the command."""

IGNORED: Mapping[str, str] = {
    **dict.fromkeys(("eval_steps", "max_eval_samples"), _EVALUATE),
    **dict.fromkeys(
        ("prefetch_factor", "persistent_workers", "dataloader_multiprocessing_context"),
        "num_workers is all there is to set of the loader",
    ),
    "cudnn_deterministic": "for a GPU set XLA_FLAGS=--xla_gpu_deterministic_ops=true instead",
    "job": "a run stays on this machine",
    "dataset.use_imagenet_stats": "X-VLA's images are always normalised by ImageNet's",
    "dataset.return_uint8": "frames are handed on as bytes anyway",
    "dataset.depth_output_unit": "X-VLA sees no depth",
    "policy.use_amp": "the trained parameters are float32",
    "policy.n_obs_steps": "X-VLA looks at one observation",
}
"""Likewise, of all commands; a line says that it has no effect."""

IGNORED_IN_SFT: Mapping[str, str] = dict.fromkeys(("env_eval_freq", "eval"), _EVALUATE)
"""Likewise, of ``pirl_jax.sft``."""

IGNORED_IN_RL: Mapping[str, str] = {
    **dict.fromkeys(
        ("eval.batch_size", "eval.use_async_envs"), "each actor plays one evaluation episode at a time"
    ),
    **dict.fromkeys(
        ("eval.recording", "eval.recording_repo_id", "eval.recording_private"),
        "evaluation episodes are counted and not kept; lerobot-eval records",
    ),
    "batch_size": "algorithm.optimizer.minibatch_size is the batch",
    "log_freq": "every update is logged",
    **dict.fromkeys(
        ("use_policy_training_preset", "optimizer", "scheduler", *_TRAINING_PRESET),
        "algorithm.optimizer says how the policy is updated",
    ),
    **dict.fromkeys(("mixer", "online_ratio"), "algorithm.demonstrations mixes in what is known"),
    "algorithm.storage_device": "there is no replay buffer",
    "algorithm.actor_learner_config.policy_parameters_push_frequency": "every update is pushed",
    **dict.fromkeys(
        ("algorithm.concurrency.learner", "algorithm.concurrency.multiprocessing_context"),
        "learner and actor use threads",
    ),
    **dict.fromkeys(("env.processor",), "the environment is simulated"),
    **dict.fromkeys(
        ("env.max_parallel_tasks", "env.disable_env_checker"), "an actor plays one environment, unchecked"
    ),
}
"""Likewise, of learner and doctor."""

IGNORED_WITHOUT_EVALUATION: Mapping[str, str] = dict.fromkeys(
    ("eval", "env.eval_init_states"), "it is read if env_eval_freq says how often a run is evaluated"
)
"""Likewise, where LeRobot's ``env_eval_freq`` is unset or 0."""

IGNORED_WITHOUT_DEMONSTRATIONS: Mapping[str, str] = dict.fromkeys(
    ("dataset", "num_workers", "tolerance_s"), "it is read if algorithm.demonstrations.coef is above 0"
)
"""Likewise, where ``algorithm.demonstrations.coef`` is 0."""

IGNORED_WITHOUT_PRESET: Mapping[str, str] = dict.fromkeys(
    _TRAINING_PRESET, "with use_policy_training_preset=false optimizer.… and scheduler.… count"
)
"""Likewise, of ``pirl_jax.sft`` without LeRobot's ``use_policy_training_preset``."""
IGNORED_WITH_PRESET: Mapping[str, str] = {
    name: f"with use_policy_training_preset=true policy.{name}_… count" for name in ("optimizer", "scheduler")
}
"""Likewise, of ``pirl_jax.sft`` with LeRobot's ``use_policy_training_preset``."""

IGNORED_UNSAVED: Mapping[str, str] = dict.fromkeys(
    ("save_freq", "checkpoint", "algorithm.checkpoint"), "with save_checkpoint=false nothing is saved"
)
"""Likewise, with LeRobot's ``save_checkpoint=false``."""

_FOLLOW = (
    *("type", "device", "pretrained_path", "push_to_hub"),
    *("input_features", "output_features", "domain_feature_key"),
)
"""Of a policy: what is the machine's, or follows from the checkpoint."""


@dataclass(frozen=True)
class Given:
    """What LeRobot's validation replaces, as it stood before."""

    optimizer: Any
    scheduler: Any

    @classmethod
    def of(cls, cfg: TrainPipelineConfig) -> Given:
        """Take it from a config that has not been validated."""
        return cls(cfg.optimizer, cfg.scheduler)


def check(cfg: TrainPipelineConfig, given: Given, ignored: Mapping[str, str]) -> None:
    """Refuse or name what has no effect and is not as LeRobot, or the run that is resumed, has it.

    Args:
        cfg: validated.
        given: what it said before.
        ignored: name → why, besides ``IGNORED``.

    Raises:
        ValueError: One of ``REFUSED`` is set; says what to do instead.
    """
    changed = _changed(cfg, given)
    for name, names in _grouped(changed, REFUSED).items():
        raise ValueError(f"{', '.join(names)} is not supported: {REFUSED[name]}.")
    reasons = {**IGNORED, **ignored, **({} if cfg.save_checkpoint else IGNORED_UNSAVED)}
    for name, names in _grouped(changed, reasons).items():
        log.warning("%s has no effect here: %s.", ", ".join(names), reasons[name])
    _name_what_the_checkpoint_replaces(cfg)


def _changed(cfg: TrainPipelineConfig, given: Given) -> dict[str, Any]:
    """Return what is not as it was, or as LeRobot has it: dotted name → value."""
    now = cfg.to_dict()
    for name in ("optimizer", "scheduler"):
        if (config := getattr(given, name)) is not None:
            now[name] = _typed(config)
    before = _leaves(_before(cfg))
    file, said = of_file(), of_command_line()
    from_path = not cfg.resume and get_path_arg("policy") is not None
    if PATH_KEY in file:  # else a path on the command line is in its place
        said = file | said
    return {
        name: value
        for name, value in _leaves(now).items()
        if (
            before[name] != value
            if name in before
            else value is not None and _is_in_new_section(name, before)
        )
        # What nobody says of a policy is the checkpoint's.
        and not (from_path and name.startswith("policy.") and name.split(".")[1] not in said)
    }


def _before(cfg: TrainPipelineConfig) -> dict[str, Any]:
    """Return the settings of the run that is resumed, or the defaults of the same sections."""
    if cfg.resume:
        saved = Path(str(cfg.checkpoint_path)) / PRETRAINED_MODEL_DIR / TRAIN_CONFIG_NAME
        return json.loads(saved.read_text())
    dataset = DatasetConfig(cfg.dataset.repo_id, video_backend=cfg.dataset.video_backend)  # the machine's
    sections: dict[str, Any] = {"dataset": dataset}
    for name in ("env", "algorithm"):
        if section := getattr(cfg, name, None):
            sections[name] = type(section)()
    if cfg.policy:
        sections["policy"] = type(cfg.policy)(device=cfg.policy.device)  # whatever else is there is said
    before = type(cfg)(**sections).to_dict()
    # LeRobot derives it, from the machine's cores too.
    before["eval"]["batch_size"] = type(cfg.eval)(n_episodes=cfg.eval.n_episodes).batch_size
    if cfg.policy:
        before["optimizer"] = _typed(cfg.policy.get_optimizer_preset())
        before["scheduler"] = _typed(cfg.policy.get_scheduler_preset())
    return before


def _typed(config: Any) -> dict[str, Any] | None:
    """Return an optimiser's or a scheduler's settings with its type."""
    return None if config is None else {"type": config.type, **draccus.encode(config)}


def _is_in_new_section(name: str, before: Mapping[str, Any]) -> bool:
    """Tell whether a setting is of a section that was empty; other unknown ones are a newer LeRobot's."""
    parts = name.split(".")
    return any(".".join(parts[:end]) in before for end in range(1, len(parts)))


def _leaves(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted name → JSON value, where an empty section is one."""
    found, plain = {}, json.loads(json.dumps(settings, default=str))
    for name, value in plain.items():
        inner = _leaves(value) if isinstance(value, dict) else {}
        found |= {f"{name}.{key}": leaf for key, leaf in inner.items()} or {name: value}
    return found


def _grouped(changed: Mapping[str, Any], table: Mapping[str, str]) -> dict[str, list[str]]:
    """Return for each entry of the table the settings that it is about, as ``name=value``."""
    groups: dict[str, list[str]] = {}
    for name, value in changed.items():
        for entry in table:
            if name == entry or name.startswith(f"{entry}."):
                groups.setdefault(entry, []).append(f"{name}={value}")
                break
    return groups


def _name_what_the_checkpoint_replaces(cfg: TrainPipelineConfig) -> None:
    """Say where a file's ``policy`` section is not read, because the command line names a checkpoint."""
    section, said = of_file(), of_command_line()
    path = get_path_arg("policy")
    if path is None or PATH_KEY in section:
        return
    policy: Any = draccus.encode(cfg.policy)
    differing = [
        f"policy.{name}"
        for name, value in section.items()
        if name not in _FOLLOW and name not in said and policy.get(name) != value
    ]
    if differing:
        log.warning(
            "%s of the config file has no effect here: --policy.path=%s says what the policy is. "
            "Give it on the command line, after the path.",
            ", ".join(differing),
            path,
        )
