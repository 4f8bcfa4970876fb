"""``algorithm.noise``: where the policy's randomness is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pirl_jax.recipe import ranges


@dataclass
class NoiseConfig:
    """Where the policy's randomness is, which makes its likelihood (``pirl_jax/likelihood/modes.py``)."""

    mode: Literal["terminal", "flow_sde", "flow_cps", "flow_noise"] = "terminal"
    """Which denoising steps are noised, and how: see ``pirl_jax/likelihood/modes.py``. ``terminal``: Gaussian
    on the final action."""
    replay: Literal["last", "full"] = "last"
    """``last``: recompute the noised step from its stored input; ``full``: all K steps from ε₀."""
    level: float = 0.02
    """``terminal`` and ``flow_noise``: σ, in the units of the model's action channels; ``flow_sde``: a;
    ``flow_cps``: η."""
    final_level: float | None = None
    """Level that is reached after ``decay_updates``; None: the level is constant."""
    decay_updates: int = 0
    """Updates over which the level falls linearly from ``level`` to ``final_level``. Each episode is scored
    under the level that its actor had."""
    std_range: tuple[float, float] = (0.5, 2.0)
    """``flow_noise``: bounds of the learned standard deviation, as factors on the level (which anneals them,
    if it decays). It starts at their geometric mean."""
    head_hidden_dims: tuple[int, ...] = (128, 128)
    """``flow_noise``: widths of the network that learns it."""
    group_scale: dict[str, float] = field(default_factory=dict)
    """Factors on the level by group of channels (``pirl_jax.xvla.channels``), e.g. ``{"rot6d": 2.0}``."""
    correlation: float = 0.0
    """ρ in [0, 1): the part of the variance that a chunk's steps share. Noise drawn anew at each step is
    filtered out by the robot's controller; a shared part moves the whole chunk."""
    gripper: Literal["deterministic", "bernoulli"] = "deterministic"
    """``deterministic``: gripper logits are executed as predicted and not scored. ``bernoulli``: the gripper
    closes with probability σ(ℓ/τ), drawn once a chunk and scored (``pirl_jax/likelihood/gripper.py``)."""
    gripper_temperature: float = 1.0
    """τ of ``gripper=bernoulli``: above 1 explores more than the policy's own logits say, below 1 less."""

    def __post_init__(self) -> None:
        ranges.check("noise", self)
        if self.final_level is not None and self.final_level > self.level:
            raise ValueError(
                f"algorithm.noise.final_level must be at most noise.level={self.level}; got "
                f"{self.final_level}."
            )
        if (self.final_level is None) != (self.decay_updates == 0):
            raise ValueError(
                "algorithm.noise.final_level and noise.decay_updates say together how the level falls: set "
                f"both, the second above 0, or neither; got {self.final_level} and {self.decay_updates}."
            )
        if self.mode == "flow_noise" and self.replay != "last":
            raise ValueError(
                "algorithm.noise.replay must be last with noise.mode=flow_noise; got "
                f"{self.replay!r}. Every step's input is kept, so the likelihood is exact already."
            )
