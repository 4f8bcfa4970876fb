"""One transition message of LeRobot's actor → one checked `Episode`."""

from __future__ import annotations

import io
import math
import pickletools
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bridge.wire.protocol import STEP_INFO_HEADER
from bridge.wire.record import Record, RecordDims, RecordError, unpack
from pirl_jax.rollout.episode import Episode, Observations

STATE_KEY = "observation.state"
TOKENS_KEY = "observation.language.tokens"
DOMAIN_KEY = "observation.domain_id"

_TRANSITION_OVERHEAD = 64 * 1024
"""Bytes torch.save spends on names and alignment for one transition's dozen tensors, with room to spare."""

_GLOBALS = frozenset(
    {"collections OrderedDict", "torch._utils _rebuild_tensor_v2"}
    | {f"torch {kind}Storage" for kind in ("Float", "Double", "Long", "Int", "Short", "Byte", "Char", "Bool")}
)
"""All that a list of transitions needs. torch's weights_only loader also knows nested, meta and subclassed
tensors, and `bytearray(n)`, which allocates as much as the sender likes."""


class TransitionError(ValueError):
    """A message that cannot become an episode. It is dropped alone; the stream it came on goes on.

    Attributes:
        reason: A short code to count by: `undecodable`, `too_large`, `empty`, `too_long`, `missing`, `type`,
            `shape`, `nan`, `record`, `executed`, `reward`, `version`, `task`, `boundary`.
    """

    def __init__(self, reason: str, text: str):
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class EpisodeSpec:
    """The sizes every episode of a run has.

    Raises:
        ValueError: If a size is not positive.
    """

    image_keys: tuple[str, ...]
    """Observation keys of the camera views, in the order of the policy's image features."""
    image_shape: tuple[int, int, int]
    """C, h, w of a view as sent; all views share it, since `Observations.images` stacks them."""
    num_tokens: int
    """N, the padded length of the instruction."""
    proprio_dim: int
    """P, the size of `observation.state`; 0 if the policy uses none (the key is then not read)."""
    chunk_size: int
    """H"""
    n_action_steps: int
    """Chunk steps the actor executes at most, ≤ H."""
    env_action_dim: int
    """E, channels of the action the environment receives."""
    action_dim: int
    """A, channels of the action as the model sees it."""
    num_latents: int
    """L"""
    denoise_steps: tuple[int, ...]
    """Steps k that may be a chunk's (first) noised one."""
    max_chunks: int
    """T at most."""
    task_names: tuple[str, ...] = ()
    """Of the environment's tasks, in the order of the numbers that actors send; () for a single task."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_keys", tuple(self.image_keys))
        object.__setattr__(self, "image_shape", tuple(self.image_shape))
        object.__setattr__(self, "denoise_steps", tuple(self.denoise_steps))
        object.__setattr__(self, "task_names", tuple(self.task_names))
        least = {name: 1 for name, field in self.__dataclass_fields__.items() if field.type == "int"}
        least["proprio_dim"] = 0
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise ValueError(f"EpisodeSpec.{name} must be at least {minimum}; got {getattr(self, name)}.")
        if not self.image_keys:
            raise ValueError(
                "EpisodeSpec.image_keys is empty; give the policy at least one image input feature."
            )
        if len(self.image_shape) != 3 or min(self.image_shape) < 1:
            raise ValueError(
                f"EpisodeSpec.image_shape must be (C, h, w), all positive; got {self.image_shape}."
            )
        if self.n_action_steps > self.chunk_size:
            raise ValueError(
                f"chunk_size must be ≥ n_action_steps; got {self.chunk_size} < {self.n_action_steps}. "
                "Set policy.chunk_size or lower policy.n_action_steps."
            )

    @property
    def record_dims(self) -> RecordDims:
        """Sizes of every action row."""
        return RecordDims(
            n_action_steps=self.n_action_steps,
            env_action_dim=self.env_action_dim,
            num_latents=self.num_latents,
            chunk_size=self.chunk_size,
            action_dim=self.action_dim,
        )

    @property
    def max_message_bytes(self) -> int:
        """Bytes of the longest episode's message, rounded up generously; also right for `LearnerServer`."""
        numbers = 8 * (self.num_tokens + self.proprio_dim + 1)
        observation = len(self.image_keys) * math.prod(self.image_shape) + numbers
        return 2 * self.max_chunks * (2 * observation + 4 * self.record_dims.row_size + _TRANSITION_OVERHEAD)


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
    transitions = _load(message, spec)
    chunks = [_decode_chunk(transition, i, spec) for i, transition in enumerate(transitions)]
    terminated, truncated = _decode_end(transitions)
    versions = {chunk.record.version for chunk in chunks}
    if len(versions) > 1:
        raise TransitionError(
            "version",
            f"Policy version changed within the episode: {sorted(versions)}. Load weights between episodes.",
        )
    tasks = {chunk.task for chunk in chunks}
    if len(tasks) > 1:
        raise TransitionError("task", f"The task changed within the episode: {sorted(tasks)}.")
    states = [_mapping(transition, "state", i) for i, transition in enumerate(transitions)]
    states.append(_mapping(transitions[-1], "next_state", len(transitions) - 1))
    return Episode(
        observations=_decode_observations(states, spec),
        latents=np.stack([chunk.record.latents for chunk in chunks]).astype(np.float32, copy=False),
        denoise_step=np.array([chunk.record.denoise_step for chunk in chunks], np.int32),
        log_prob=np.stack([chunk.record.log_prob for chunk in chunks]).astype(np.float32, copy=False),
        executed=np.array([chunk.executed for chunk in chunks], np.int32),
        reward=np.array([chunk.reward for chunk in chunks], np.float32),
        version=versions.pop(),
        terminated=terminated,
        truncated=truncated,
        success=chunks[-1].success,
        seed=chunks[0].seed,
        task=spec.task_names[tasks.pop()] if spec.task_names else "",
    )


def decoder(spec: EpisodeSpec) -> Callable[[bytes], Episode]:
    """`decode_episode` with its spec bound: what `LearnerServer` takes."""
    return lambda message: decode_episode(message, spec)


def _load(message: bytes, spec: EpisodeSpec) -> list[Mapping[str, Any]]:
    if len(message) > spec.max_message_bytes:
        raise TransitionError(
            "too_large",
            f"Message has {len(message)} bytes; an episode of {spec.max_chunks} chunks needs at most "
            f"{spec.max_message_bytes}.",
        )
    _check_archive(message)
    try:
        transitions = torch.load(io.BytesIO(message), map_location="cpu", weights_only=True)
    # The bytes are the peer's: torch's reader and unpickler answer bad ones with a dozen exception types.
    except Exception as error:
        raise TransitionError(
            "undecodable", f"torch.load refused the message ({type(error).__name__})."
        ) from error
    if not isinstance(transitions, list):
        raise TransitionError("type", f"Expected a list of transitions; got {type(transitions).__name__}.")
    if not transitions:
        raise TransitionError("empty", "The message holds no transition.")
    if len(transitions) > spec.max_chunks:
        raise TransitionError(
            "too_long",
            f"Episode of {len(transitions)} chunks; at most {spec.max_chunks} fit. Raise max_chunks or end "
            "the episode earlier.",
        )
    for i, transition in enumerate(transitions):
        if not isinstance(transition, dict):
            raise TransitionError("type", f"transition {i} must be a dict; got {type(transition).__name__}.")
    return transitions


def _check_archive(message: bytes) -> None:
    """Refuse compressed entries (a small message unpacking to gigabytes) and globals outside `_GLOBALS`."""
    try:
        with zipfile.ZipFile(io.BytesIO(message)) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise TransitionError(
                    "undecodable", "The message's archive is compressed; torch.save never does that."
                )
            if sum(entry.file_size for entry in entries) > len(message):
                raise TransitionError(
                    "undecodable", "The message's archive claims more bytes than the message has."
                )
            pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
            if len(pickles) != 1:
                raise TransitionError(
                    "undecodable", f"Expected one data.pkl in the archive; found {len(pickles)}."
                )
            program = archive.read(pickles[0])
        for opcode, argument, _ in pickletools.genops(program):
            if opcode.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
                raise TransitionError(
                    "undecodable", f"Opcode {opcode.name} has no place in a list of transitions."
                )
            if opcode.name == "PROTO" and argument != 2:
                raise TransitionError("undecodable", f"Pickle protocol {argument}; torch.save writes 2.")
            if opcode.name == "GLOBAL" and argument not in _GLOBALS:
                raise TransitionError("undecodable", f"{argument!r} has no place in a list of transitions.")
    except TransitionError:
        raise
    # As above: zipfile and pickletools raise whatever the peer's bytes lead them to.
    except Exception as error:
        raise TransitionError(
            "undecodable", f"Not a torch.save archive ({type(error).__name__}: {error})."
        ) from error


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
    if not math.isfinite(reward):
        raise TransitionError("nan", f"{where}: reward is {reward}.")
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
    if record.denoise_step not in spec.denoise_steps:
        raise TransitionError(
            "record",
            f"{where}: denoise_step must be one of {spec.denoise_steps}; got {record.denoise_step}. "
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

    images = [stack(key, spec.image_shape, np.uint8) for key in spec.image_keys]
    if spec.proprio_dim:
        proprio = stack(STATE_KEY, (spec.proprio_dim,), np.float32)
    else:
        proprio = np.zeros((len(states), 0), np.float32)
    if not np.isfinite(proprio).all():
        raise TransitionError("nan", f"{STATE_KEY} is not finite.")
    tokens = stack(TOKENS_KEY, (spec.num_tokens,), np.int64)
    domain_id = stack(DOMAIN_KEY, (), np.int64)
    if tokens.min() < 0 or domain_id.min() < 0:
        raise TransitionError("type", f"{TOKENS_KEY} and {DOMAIN_KEY} must not be negative.")
    return Observations(images=np.stack(images, axis=1), tokens=tokens, domain_id=domain_id, proprio=proprio)


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
