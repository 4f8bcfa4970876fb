"""Supervised batches for X-VLA from any LeRobotDataset: NumPy arrays, in an order a resumed run continues."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from lerobot.configs import FeatureType
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets import LeRobotDataset
from lerobot.policies.xvla.configuration_xvla import XVLAConfig
from lerobot.utils.constants import ACTION, OBS_STATE
from lerobot.utils.feature_utils import dataset_to_policy_features

from bridge.datasets.opening import open_dataset
from bridge.wire.tokens import token_ids
from pirl_jax.supervised.frames import Frames
from pirl_jax.xvla.config import REAL_ACTION_DIMS

logger = logging.getLogger(__name__)

CACHE_BYTES = 2 * 2**30
"""A dataset's images up to this size are decoded once and kept in memory; larger ones are read by workers."""


def load_dataset(cfg: TrainPipelineConfig) -> LeRobotDataset:
    """Open ``cfg.dataset`` with X-VLA's action chunks, and complete ``cfg.policy``'s features from it.

    The features are set as LeRobot's ``make_policy`` sets them: the action always, the inputs where the
    config has none.

    Raises:
        ValueError: A setting of the dataset that these batches do not support, or a feature that is missing.
    """
    policy = cfg.policy
    if not isinstance(policy, XVLAConfig):
        raise ValueError(f"these batches are for policy.type=xvla; got {getattr(policy, 'type', None)!r}.")
    _check(cfg, policy)
    dataset = open_dataset(cfg)
    features = dataset_to_policy_features(dataset.meta.features)
    policy.output_features = {key: ft for key, ft in features.items() if ft.type is FeatureType.ACTION}
    if not policy.input_features:
        policy.input_features = {key: ft for key, ft in features.items() if ft.type is not FeatureType.ACTION}
    if not policy.output_features:
        raise ValueError(
            f"dataset {cfg.dataset.repo_id} has no {ACTION!r} feature; it cannot teach a policy to act."
        )
    mode, (numbers,) = policy.action_mode.lower(), dataset.meta.features[ACTION]["shape"]
    if numbers != (meant := REAL_ACTION_DIMS.get(mode, numbers)):
        raise ValueError(
            f"dataset {cfg.dataset.repo_id} has {numbers} numbers in an action, and policy.action_mode="
            f"{mode} gives a meaning to each of {meant}. Convert the actions, or set policy.action_mode=auto."
        )
    wanted = [OBS_STATE] if policy.use_proprio else []
    missing = [key for key in wanted if key not in dataset.meta.features]
    if missing or not image_keys(dataset, policy):
        raise ValueError(
            f"dataset {cfg.dataset.repo_id} lacks {missing or list(policy.image_features)} of the policy's "
            f"input_features; it has {sorted(features)}. Name its features in policy.input_features, or "
            "leave that unset."
        )
    # A copy: LeRobot adds its empty cameras to the features, and counts those again each time it looks.
    copy.deepcopy(policy).validate_features()
    return dataset


def image_keys(dataset: LeRobotDataset, policy: XVLAConfig) -> list[str]:
    """Return the policy's cameras that the dataset has, in the policy's order (LeRobot skips the others)."""
    return [key for key in policy.image_features if key in dataset.meta.camera_keys]


def frame_shapes(dataset: LeRobotDataset, keys: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return (c, h, w) of each camera's first frame, whatever the dataset or the policy announces."""
    first = cast(dict, dataset[0])
    return {key: tuple(first[key].shape) for key in keys}


def batches(
    dataset: LeRobotDataset,
    policy: XVLAConfig,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    num_workers: int = 0,
    cache_bytes: int = CACHE_BYTES,
    domain_id: int = 0,
) -> Iterator[Frames]:
    """Yield batches for ever; the same arguments give the same batches.

    Action chunks that reach past an episode's end repeat its last action: LeRobot's semantics, without its
    mark, which X-VLA's own loss does not look at.

    Args:
        dataset: From ``load_dataset``.
        policy: The policy's LeRobot config with its features.
        batch_size: Frames in a batch.
        seed: Decides the order: one permutation of the frames after another.
        start_step: Batches to skip, at no cost.
        num_workers: Processes that decode, where the images do not fit ``cache_bytes``.
        cache_bytes: Largest memory for a decoded dataset.
        domain_id: Of all frames, where the dataset has no column of them (``domain_ids``).

    Raises:
        ValueError: The views differ in size.
    """
    keys = image_keys(dataset, policy)
    sizes = frame_shapes(dataset, keys)
    if len(set(sizes.values())) > 1:
        raise ValueError(f"all camera views must have one size; got {sizes}. Resize the dataset's images.")
    order = _order(dataset.num_frames, batch_size, seed, start_step)
    size = dataset.num_frames * len(keys) * int(np.prod(sizes[keys[0]]))
    if size <= cache_bytes:
        columns = _Columns(dataset, policy, sizes, domain_id)
        yield from map(columns.batch, order)
    else:
        logger.info("images take %.1f GB decoded: read by %d workers", size / 1e9, num_workers)
        yield from _read(dataset, policy, keys, order, num_workers, domain_id)


def tokenize(tasks: list[str], policy: XVLAConfig) -> np.ndarray:
    """Return the tasks' token ids, int32 [len(tasks), N]."""
    ids = token_ids(
        tasks,
        policy.tokenizer_name,
        policy.tokenizer_max_length,
        policy.pad_language_to,
        policy.tokenizer_padding_side,
    )
    return np.array(ids, np.int32)


class _Columns:
    """A whole dataset in memory, one array a column."""

    def __init__(
        self,
        dataset: LeRobotDataset,
        policy: XVLAConfig,
        sizes: Mapping[str, tuple[int, ...]],
        domain_id: int,
    ):
        table = dataset.hf_dataset.with_format("numpy", columns=_scalar_columns(dataset, policy))
        # One read of the whole table; its rows are the frames of the chosen episodes.
        self._columns = {name: np.stack(column) for name, column in table[:].items()}
        # A feature of one number comes as a number.
        self._columns[ACTION] = self._columns[ACTION].reshape(dataset.num_frames, -1)
        self._images = np.stack([_decode(dataset, *size) for size in sizes.items()], axis=1)
        self._tokens = tokenize(_tasks(dataset), policy)
        self._last = _last_frames(self._columns["episode_index"])
        self._deltas = np.asarray(policy.action_delta_indices)
        self._policy, self._domain_id = policy, domain_id

    def batch(self, frames: np.ndarray) -> Frames:
        wanted = frames[:, None] + self._deltas
        last = self._last[frames][:, None]
        action = self._columns[ACTION][np.minimum(wanted, last)].astype(np.float32)
        rows = {name: column[frames] for name, column in self._columns.items()}
        return Frames(
            images=self._images[frames],
            tokens=self._tokens[rows["task_index"]],
            proprio=_proprio(rows, self._policy, len(frames)),
            domain_id=_domain_id(rows, self._policy, len(frames), self._domain_id),
            action=action,
        )


def _tasks(dataset: LeRobotDataset) -> list[str]:
    """Return the instructions in the order of their ``task_index``."""
    tasks: Any = dataset.meta.tasks
    return [str(task) for task in tasks.sort_values("task_index").index]


def _scalar_columns(dataset: LeRobotDataset, policy: XVLAConfig) -> list[str]:
    names = [ACTION, OBS_STATE, "episode_index", "task_index", policy.domain_feature_key]
    return [name for name in names if name in dataset.features]


def _decode(dataset: LeRobotDataset, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return all frames of one camera, uint8 [num_frames, 3, h, w].

    Raises:
        ValueError: A frame is not of the first one's shape.
    """
    decoded = np.empty((dataset.num_frames, *shape), np.uint8)
    images = None
    if key not in dataset.meta.video_keys:
        images = dataset.hf_dataset.with_format(None).select_columns(key)
    for i in range(dataset.num_frames):
        if images is None:
            frame = _as_uint8(cast(dict, dataset[i])[key])
        else:
            frame = np.asarray(images[i][key].convert("RGB")).transpose(2, 0, 1)
        if frame.shape != shape:
            raise ValueError(
                f"frame {i} of {key} in {dataset.repo_id} is {frame.shape} (c, h, w), but {shape} is what "
                "cameras show at the start. Record or resize all frames to one size."
            )
        decoded[i] = frame
    return decoded


def _last_frames(episode_index: np.ndarray) -> np.ndarray:
    """Return for every frame the row of its episode's last frame; an episode's rows are contiguous."""
    _, first, counts = np.unique(episode_index, return_index=True, return_counts=True)
    last = np.empty(len(episode_index), np.int64)
    for start, count in zip(first, counts):
        last[start : start + count] = start + count - 1
    return last


def _read(
    dataset: LeRobotDataset,
    policy: XVLAConfig,
    keys: list[str],
    order: Iterator[np.ndarray],
    num_workers: int,
    domain_id: int,
) -> Iterator[Frames]:
    tokens, deltas = tokenize(_tasks(dataset), policy), len(policy.action_delta_indices)
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_sampler=(frames.tolist() for frames in order),
        num_workers=num_workers,
        # A forked child would inherit JAX's threads' locks.
        multiprocessing_context="spawn" if num_workers else None,
    )
    for rows in loader:
        yield Frames(
            images=np.stack([_as_uint8(rows[key]) for key in keys], axis=1),
            tokens=tokens[rows["task_index"].numpy()],
            proprio=_proprio(rows, policy, len(rows["index"])),
            domain_id=_domain_id(rows, policy, len(rows["index"]), domain_id),
            action=rows[ACTION].numpy().astype(np.float32).reshape(len(rows["index"]), deltas, -1),
        )


def _as_uint8(images: torch.Tensor) -> np.ndarray:
    """Undo LeRobot's scaling of PNG images to [0, 1]; video frames come as bytes already."""
    if images.dtype == torch.uint8:
        return images.numpy()
    return (images * 255).round().to(torch.uint8).numpy()


def _proprio(rows: dict[str, Any], policy: XVLAConfig, count: int) -> np.ndarray:
    """Return the state cut or zero-padded to the network's proprioception, float32 [B, P]."""
    proprio = np.zeros((count, policy.max_state_dim if policy.use_proprio else 0), np.float32)
    if policy.use_proprio:
        state = np.asarray(rows[OBS_STATE], np.float32).reshape(count, -1)[:, : proprio.shape[1]]
        proprio[:, : state.shape[1]] = state
    return proprio


def domain_ids(dataset: LeRobotDataset, policy: XVLAConfig) -> list[int] | None:
    """Return the ids in the column that ``policy.domain_feature_key`` names; None without such a column."""
    if policy.domain_feature_key not in dataset.features:
        return None
    column = dataset.hf_dataset.with_format("numpy", columns=[policy.domain_feature_key])
    return sorted({int(np.ravel(value)[0]) for value in column[:][policy.domain_feature_key]})


def _domain_id(rows: dict[str, Any], policy: XVLAConfig, count: int, otherwise: int) -> np.ndarray:
    """Return the domain ids in the column that the config names, else one for all; int32 [B]."""
    if policy.domain_feature_key not in rows:
        return np.full(count, otherwise, np.int32)
    return np.asarray(rows[policy.domain_feature_key]).reshape(count, -1)[:, 0].astype(np.int32)


def _order(num_frames: int, batch_size: int, seed: int, start_step: int) -> Iterator[np.ndarray]:
    """Yield the frames of each batch, [batch_size], cut from an endless row of permutations."""
    position = start_step * batch_size
    epoch, drawn = -1, np.empty(0, np.int64)
    while True:
        frames = []
        for place in range(position, position + batch_size):
            if place // num_frames != epoch:
                epoch = place // num_frames
                drawn = np.random.default_rng((seed, epoch)).permutation(num_frames)
            frames.append(drawn[place % num_frames])
        position += batch_size
        yield np.asarray(frames)


def _check(cfg: TrainPipelineConfig, policy: XVLAConfig) -> None:
    unsupported = {
        "dataset.streaming": cfg.dataset.streaming,
        "dataset.image_transforms.enable": cfg.dataset.image_transforms.enable,
        "dataset.eval_split": cfg.dataset.eval_split,
        "rename_map": cfg.rename_map,
        "sample_weighting": cfg.sample_weighting,
        "peft": cfg.peft,
    }
    for name, value in unsupported.items():
        if value:
            raise ValueError(
                f"{name}={value} is not supported by this loader; leave it unset (lerobot-train has it)."
            )
    modes = {kind: mode for kind, mode in policy.normalization_mapping.items() if mode.value != "IDENTITY"}
    if modes:
        raise ValueError(
            f"policy.normalization_mapping {modes} is not supported by this loader: X-VLA trains on raw "
            "states and actions. Set every entry to IDENTITY."
        )
