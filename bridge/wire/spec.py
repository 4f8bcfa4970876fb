"""The sizes that every episode of a run has."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bridge.wire.record import RecordDims

_TRANSITION_OVERHEAD = 64 * 1024
"""Bytes torch.save spends on names and alignment for one transition's dozen tensors, with room to spare."""


_TRANSITION_PICKLE = 8 * 1024
"""Bytes of an archive's ``data.pkl`` that describe one transition; torch.save writes about 2 KiB."""


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
    """H, the control steps of a chunk."""
    n_action_steps: int
    """Chunk steps the actor executes at most, ≤ H."""
    env_action_dim: int
    """R, channels of the action the environment receives."""
    action_dim: int
    """A, channels of the action as the model sees it."""
    num_latents: int
    """L, the states of the denoising chain that are sent."""
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

    @property
    def max_pickle_bytes(self) -> int:
        """Bytes of the pickle in it that says how the tensors belong together, rounded up as generously."""
        return _TRANSITION_PICKLE * (2 + self.max_chunks)
