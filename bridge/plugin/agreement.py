"""What an actor must have in common with its learner, as a flat table that both can compare.

Both make it of their own config and weights. A difference would not stop either: the learner would score
actions under a distribution that they were not drawn from.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import draccus
import torch
from lerobot.rl.train_rl import TrainRLServerPipelineConfig
from torch import Tensor

from bridge.plugin.actor_settings import ActorSettings
from pirl_jax.trees import leaves

RECIPE_SECTIONS = ("inference", "trainable", "noise", "rollout", "push", "dataset_stats")
"""Of ``algorithm``: those that decide how an actor acts. The others are the learner's own."""

_NOT_THE_POLICYS = (
    *("device", "pretrained_path", "repo_id", "push_to_hub", "private", "tags", "license", "use_peft"),
    *("tokenizer_name", "input_features", "output_features", "optimizer_", "scheduler_", "use_amp"),
    *("freeze_", "train_"),
)
"""Beginnings of names in ``policy``: where it runs and is stored, how it was trained; and what is compared
elsewhere."""

FROZEN = "frozen tensors"
"""Name of the encoder's fingerprint in the table."""

_ENCODER = "model.vlm."
_SENTENCE = "pick up the red cube, then close 2 drawers"


def agreement(cfg: TrainRLServerPipelineConfig) -> Callable[[], dict[str, Any]]:
    """Return what a validated config says that learner and actors must agree on: dotted name → JSON value.

    Of strings that name files the contents count: of the tokenizer, the ids of a fixed sentence. It is loaded
    when the table is asked for; the rest is as it is now.
    """
    recipe: Any = cfg.algorithm
    table: dict[str, Any] = {}
    for section in RECIPE_SECTIONS:
        table |= _flat(f"algorithm.{section}", draccus.encode(getattr(recipe, section)))
    encoded: Any = draccus.encode(cfg.policy)
    policy = {
        name: value
        for name, value in encoded.items()
        if not name.startswith(_NOT_THE_POLICYS) and value is not None
    }
    env = cfg.env
    if _as_they_come(policy, env):
        policy.pop("resize_imgs_with_padding")
    table |= _flat("policy", policy | {"num_image_views": _views(cfg.policy)})
    if not isinstance(env, ActorSettings):
        return lambda: table
    table |= _flat("env", {"type": env.type, **env.agreed()})
    if env.tokenizer_name is None:
        return lambda: table
    return lambda: {**table, "tokenizer": str(env.tokenize([_SENTENCE])[0])}


def _views(policy: Any) -> int | None:
    """Return the views that LeRobot builds the network for, which equal configs may say otherwise."""
    settled = copy.deepcopy(policy)
    if settled.image_features:  # else they are the environment's
        settled.validate_features()
    return settled.num_image_views


def _as_they_come(policy: Mapping[str, Any], env: Any) -> bool:
    """Tell whether resizing leaves the environment's images alone, as that of an export does for its run."""
    size = policy.get("resize_imgs_with_padding")
    if size is None or not isinstance(env, ActorSettings):
        return False
    return all(shape[1:] == tuple(size) for shape in env.observation_shapes.values() if len(shape) == 3)


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """Return a hash of an encoder's tensors, the same whatever floating-point type they are stored in.

    They are compared as bfloat16: a policy stored in float32 may run in bfloat16, and the other way round.

    Args:
        state: LeRobot's names → tensors, others than the encoder's too; of names that share memory the last
            one counts.
    """
    names = {tensor.data_ptr(): name for name, tensor in sorted(state.items()) if name.startswith(_ENCODER)}
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(names.values()):
        rounded = state[name].detach().to("cpu", torch.bfloat16).contiguous()
        digest.update(f"{name}{tuple(rounded.shape)}".encode())
        digest.update(rounded.view(torch.int16).numpy().data)
    return digest.hexdigest()


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    return {".".join(path): leaf for path, leaf in leaves({prefix: value})}
