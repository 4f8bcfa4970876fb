"""One transition message of LeRobot's actor → one checked `Episode`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bridge.wire.archive import TransitionError, load_transitions
from bridge.wire.protocol import OBS_DOMAIN_ID, STEP_INFO_HEADER
from bridge.wire.record import NO_RUN, Record, RecordError, unpack
from bridge.wire.spec import EpisodeSpec
from pirl_jax.likelihood.modes import NO_STEP
from pirl_jax.rollout.episode import Episode, Observations
from pirl_jax.rollout.evaluation import is_evaluation

_LARGEST_REWARD = 1e15
"""Of a chunk: squares of an episode's are still finite in float32."""
STATE_KEY = "observation.state"
TOKENS_KEY = "observation.language.tokens"


@dataclass(frozen=True)
class _Chunk:
    record: Record
    executed: int
    reward: float
    success: bool
    task: int
    seed: int


def decode_episode(message: bytes, spec: EpisodeSpec) -> Episode:
    """Decode and check the message the stock actor sends at an episode's end: `torch.save(list[Transition])`.

    Nothing in the message is trusted. It is loaded by `torch.load(weights_only=True)` after its archive has
    been checked to hold uncompressed entries and only plain tensors, so that what it allocates is bounded by
    its length.

    `state` of every transition and `next_state` of the last make the T+1 observations. The other
    `next_state`s are not kept: the actor takes the next `state` from the very same object.

    Args:
        message: The bytes between a BEGIN and an END of `SendTransitions`.
        spec: The sizes expected.

    Returns:
        The episode, in NumPy arrays of its own (the message can be freed).

    Raises:
        TransitionError: If anything is missing, misshapen, not finite, or inconsistent; `reason` is its code.
    """
    transitions = load_transitions(message, spec)
    chunks = [_decode_chunk(transition, i, spec) for i, transition in enumerate(transitions)]
    terminated, truncated = _decode_end(transitions)
    version = np.array([chunk.record.version for chunk in chunks], np.int64)
    runs = {chunk.record.run for chunk in chunks}
    # A chunk that another process's parameters chose makes the whole episode that of no process.
    run = NO_RUN if NO_RUN in runs else _one_value("number", "Run", sorted(runs))
    if run != NO_RUN and (np.diff(version) < 0).any():
        raise TransitionError("version", f"Policy versions fall within the episode: {version.tolist()}.")
    number = _one_value("number", "Episode number", [chunk.record.number for chunk in chunks])
    task = _one_value("task", "Task", [chunk.task for chunk in chunks])
    seed = _one_value("number", "Seed", [chunk.seed for chunk in chunks])
    states = [_mapping(transition, "state", i) for i, transition in enumerate(transitions)]
    states.append(_mapping(transitions[-1], "next_state", len(transitions) - 1))
    return Episode(
        observations=_decode_observations(states, spec),
        latents=np.stack([chunk.record.latents for chunk in chunks]).astype(np.float32, copy=False),
        denoise_step=np.array([chunk.record.denoise_step for chunk in chunks], np.int32),
        log_prob=np.stack([chunk.record.log_prob for chunk in chunks]).astype(np.float32, copy=False),
        executed=np.array([chunk.executed for chunk in chunks], np.int32),
        reward=np.array([chunk.reward for chunk in chunks], np.float32),
        version=version,
        feature_key=np.array([chunk.record.feature_key for chunk in chunks], np.int64),
        terminated=terminated,
        truncated=truncated,
        success=chunks[-1].success,
        seed=seed,
        task=spec.task_names[task] if spec.task_names else "",
        number=number,
        run=run,
    )


def _one_value(reason: str, what: str, values: Sequence[int]) -> int:
    if len(set(values)) > 1:
        raise TransitionError(reason, f"{what} changed within the episode: {sorted(set(values))}.")
    return values[0]


def decoder(spec: EpisodeSpec) -> Callable[[bytes], Episode]:
    """`decode_episode` with its spec bound: what `LearnerServer` takes."""
    return lambda message: decode_episode(message, spec)


def _decode_chunk(transition: Mapping[str, Any], i: int, spec: EpisodeSpec) -> _Chunk:
    where = f"transition {i}"
    record = _decode_record(_array(transition, "action", where, np.float32), where, spec)
    info = _mapping(transition, "complementary_info", i)
    penalty = _array(info, "discrete_penalty", where, np.float32)
    header = len(STEP_INFO_HEADER)
    if not header <= penalty.size <= header + spec.n_action_steps:
        raise TransitionError(
            "shape",
            f"{where}: discrete_penalty must hold {header} numbers and one reward per executed step "
            f"(at most {spec.n_action_steps}); got {penalty.size} numbers.",
        )
    penalty = penalty.reshape(-1).astype(np.float64)
    if not np.isfinite(penalty).all():
        raise TransitionError(
            "nan", f"{where}: discrete_penalty (executed, success, seed, task, rewards) is not finite."
        )
    numbers, rewards = dict(zip(STEP_INFO_HEADER, penalty)), penalty[header:]
    executed, success, task = numbers["executed"], numbers["success"], numbers["task"]
    seed_halves = numbers["seed_low"], numbers["seed_high"]
    if executed != int(executed) or not 1 <= executed <= spec.n_action_steps:
        raise TransitionError(
            "executed",
            f"{where}: executed must be a whole number in 1..{spec.n_action_steps}; got {executed:g}.",
        )
    if len(rewards) != executed:
        raise TransitionError(
            "executed", f"{where}: {int(executed)} executed steps but {len(rewards)} rewards."
        )
    if success not in (0.0, 1.0):
        raise TransitionError("type", f"{where}: success must be 0 or 1; got {success:g}.")
    if task != int(task) or not 0 <= task < max(len(spec.task_names), 1):
        raise TransitionError(
            "task",
            f"{where}: task {task:g} of {max(len(spec.task_names), 1)}. Start actor and learner from the "
            "same config.",
        )
    if not all(half == int(half) and 0 <= half < 1 << 16 for half in seed_halves):
        raise TransitionError("type", f"{where}: the episode's seed is not two 16-bit halves.")
    reward = _number(transition, "reward", where)
    if not abs(reward) <= _LARGEST_REWARD:
        raise TransitionError(
            "nan", f"{where}: reward is {reward}; it must be a number of at most {_LARGEST_REWARD:g}."
        )
    if not math.isclose(reward, rewards.sum(), rel_tol=1e-4, abs_tol=1e-4):
        raise TransitionError(
            "reward", f"{where}: reward {reward:g} is not the sum of its steps' rewards {rewards.sum():g}."
        )
    return _Chunk(
        record=record,
        executed=int(executed),
        reward=reward,
        success=bool(success),
        task=int(task),
        seed=int(seed_halves[0]) + (int(seed_halves[1]) << 16),
    )


def _decode_record(row: np.ndarray, where: str, spec: EpisodeSpec) -> Record:
    dims = spec.record_dims
    # Before anything is copied: a tensor of stride 0 can claim any size.
    if row.shape not in ((dims.row_size,), (1, dims.row_size)):
        raise TransitionError(
            "shape",
            f"{where}: action must be a row of {dims.row_size} numbers; got shape {row.shape}. "
            "Start actor and learner from the same config.",
        )
    if not np.isfinite(row).all():
        raise TransitionError("nan", f"{where}: the action row (latents, log-probability) is not finite.")
    try:
        record = unpack(row, dims=dims)
    except RecordError as error:
        raise TransitionError("record", f"{where}: {error}") from error
    # What is learned from has noise, and what is evaluated has none.
    steps = (NO_STEP,) if is_evaluation(record.number) else spec.denoise_steps
    if record.denoise_step not in steps:
        raise TransitionError(
            "record",
            f"{where}: denoise_step must be one of {steps}; got {record.denoise_step}. "
            "Start actor and learner from the same config.",
        )
    return record


def _decode_end(transitions: Sequence[Mapping[str, Any]]) -> tuple[bool, bool]:
    """Return (terminated, truncated) of the last transition; no other may have either."""
    done = truncated = False
    for i, transition in enumerate(transitions):
        done, truncated = (_flag(transition, key, f"transition {i}") for key in ("done", "truncated"))
        last = i == len(transitions) - 1
        if (done or truncated) and not last:
            raise TransitionError(
                "boundary",
                f"transition {i} of {len(transitions)} ends an episode; send one episode a message.",
            )
        if last and done == truncated:
            both = "both done and truncated" if done else "neither done nor truncated"
            raise TransitionError(
                "boundary", f"The last transition is {both}; it must be exactly one of them."
            )
    return done, truncated


def _decode_observations(states: Sequence[Mapping[str, Any]], spec: EpisodeSpec) -> Observations:
    def stack(key: str, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
        return np.stack(
            [_one(state, key, f"observation {i}", shape, dtype) for i, state in enumerate(states)]
        )

    # Into one array at once: stacked twice, a long episode's images would be there three times.
    images = np.empty((len(states), len(spec.image_keys), *spec.image_shape), np.uint8)
    for i, state in enumerate(states):
        for view, key in enumerate(spec.image_keys):
            images[i, view] = _one(state, key, f"observation {i}", spec.image_shape, np.uint8)
    if spec.proprio_dim:
        proprio = stack(STATE_KEY, (spec.proprio_dim,), np.float32)
    else:
        proprio = np.zeros((len(states), 0), np.float32)
    if not np.isfinite(proprio).all():
        raise TransitionError("nan", f"{STATE_KEY} is not finite.")
    tokens = stack(TOKENS_KEY, (spec.num_tokens,), np.int64)
    domain_id = stack(OBS_DOMAIN_ID, (), np.int64)
    if tokens.min() < 0 or domain_id.min() < 0:
        raise TransitionError("type", f"{TOKENS_KEY} and {OBS_DOMAIN_ID} must not be negative.")
    return Observations(images=images, tokens=tokens, domain_id=domain_id, proprio=proprio)


def _one(
    state: Mapping[str, Any], key: str, where: str, shape: tuple[int, ...], dtype: type[np.generic]
) -> np.ndarray:
    """Return `state[key]` without its batch dimension; a scalar may come as [1] or [1, 1]."""
    value = _array(state, key, where, dtype)
    if value.shape != (1, *shape) and not (shape == () and value.shape == (1, 1)):
        raise TransitionError("shape", f"{where}: {key} has shape {value.shape}, expected {(1, *shape)}.")
    return value.reshape(shape)


def _array(mapping: Mapping[str, Any], key: str, where: str, dtype: type[np.generic]) -> np.ndarray:
    value = mapping.get(key)
    if value is None:
        raise TransitionError("missing", f"{where}: {key} is missing.")
    if type(value) is not torch.Tensor or value.layout is not torch.strided or value.is_neg():
        raise TransitionError("type", f"{where}: {key} must be a plain tensor; got {type(value).__name__}.")
    array = value.detach().numpy()
    if array.dtype != dtype:
        raise TransitionError(
            "type", f"{where}: {key} must be {np.dtype(dtype).name}; got {array.dtype.name}."
        )
    return array


def _number(mapping: Mapping[str, Any], key: str, where: str) -> float:
    value = mapping.get(key)
    if value is None:
        raise TransitionError("missing", f"{where}: {key} is missing.")
    if type(value) is torch.Tensor and value.numel() == 1 and not value.is_complex():
        value = value.item()
    if not isinstance(value, bool | int | float):
        raise TransitionError("type", f"{where}: {key} must be a number; got {type(value).__name__}.")
    try:
        return float(value)
    except OverflowError as error:
        raise TransitionError("nan", f"{where}: {key} is too large a number.") from error


def _flag(mapping: Mapping[str, Any], key: str, where: str) -> bool:
    value = _number(mapping, key, where)
    if value not in (0.0, 1.0):
        raise TransitionError("type", f"{where}: {key} must be true or false; got {value:g}.")
    return bool(value)


def _mapping(transition: Mapping[str, Any], key: str, i: int) -> Mapping[str, Any]:
    value = transition.get(key)
    if not isinstance(value, dict):
        raise TransitionError("missing", f"transition {i}: {key} is missing or not a dict.")
    return value
