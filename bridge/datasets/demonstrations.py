"""The config's dataset as demonstrations for a run: frames of the very robot that its actors drive."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from lerobot.utils.constants import ACTION, OBS_STATE

from bridge.datasets.dataset import batches, domain_ids, image_keys, load_dataset
from bridge.wire.spec import EpisodeSpec
from pirl_jax.supervised.frames import Frames
from pirl_jax.xvla.config import XVLAConfig

_READ_AT_ONCE = 32


def load_demonstrations(cfg: Any, config: XVLAConfig, spec: EpisodeSpec, count: int) -> Frames:
    """Read ``count`` frames of ``cfg.dataset``, or all if it has no more: a random subset, the seed's.

    Args:
        cfg: a validated ``TrainRLServerPipelineConfig``; left as it is.
        config: of the policy.
        spec: sizes of what the actors send.
        count: at most so many frames.

    Raises:
        ValueError: The dataset cannot be read, or its cameras, images, states or actions are not those of the
            policy and the environment.
    """
    own = copy.copy(cfg)
    own.policy = policy = copy.deepcopy(cfg.policy)  # the loader completes its features
    name = f"dataset.repo_id={cfg.dataset.repo_id}, dataset.root={cfg.dataset.root}"
    try:
        dataset = load_dataset(own)
    except Exception as error:  # LeRobot's and the hub's many
        raise ValueError(
            f"algorithm.demonstrations.coef={cfg.algorithm.demonstrations.coef} needs demonstrations, and "
            f"{name} gives none: {error} Set dataset.repo_id and dataset.root to a LeRobotDataset, or "
            "demonstrations.coef to 0."
        ) from error
    features = dataset.meta.features
    _check(name, "cameras", tuple(image_keys(dataset, policy)), spec.image_keys)
    _check(name, "numbers in an action", features[ACTION]["shape"][0], config.real_action_dim)
    if spec.proprio_dim:
        _check(name, "numbers in a state", features[OBS_STATE]["shape"][0], spec.proprio_dim)
    here = getattr(cfg.env, "domain_id", 0)
    if (ids := domain_ids(dataset, policy)) is not None:
        _check(name, "domain ids", ids, [here])
    frames = min(count, dataset.num_frames)
    # The first frames of a permutation of all: a subset without repetitions.
    parts = batches(dataset, policy, _READ_AT_ONCE, cfg.seed, num_workers=cfg.num_workers, domain_id=here)
    read = [part for _, part in zip(range(0, frames, _READ_AT_ONCE), parts)]
    batch = Frames(*(np.concatenate(column)[:frames] for column in zip(*read)))
    if config.resize_imgs_with_padding is None:
        _check(name, "image shape (c, h, w)", batch.images.shape[2:], spec.image_shape)
    return batch


def _check(name: str, what: str, theirs: object, ours: object) -> None:
    if theirs != ours:
        raise ValueError(
            f"{name} does not fit this run's policy and environment: {what}: {theirs} in the dataset, {ours} "
            "here. Record it with this environment, or set algorithm.demonstrations.coef to 0."
        )
