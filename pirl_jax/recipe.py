"""The PI-RL recipe: every number of the method, independent of the policy and of the environment.

Standard library only: the actor's plugin (torch, no JAX) and the learner read the same definitions. The
plugin's ``algorithm.type=pi_rl`` adds only what a LeRobot actor needs to these fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class NoiseConfig:
    """Where the policy's randomness is, which makes its likelihood (``pirl_jax/noise.py``)."""

    mode: str = "terminal"
    """One of ``pirl_jax.noise.MODES``. ``terminal``: Gaussian on the final action."""
    replay: str = "last"
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
    """Factors on the level by group of channels (``pirl_jax.channels``), e.g. ``{"rot6d": 2.0}``."""
    correlation: float = 0.0
    """ρ in [0, 1): the part of the variance that a chunk's steps share. Noise drawn anew at each step is
    filtered out by the robot's controller; a shared part moves the whole chunk."""


@dataclass
class CriticConfig:
    """V(s): an MLP on mean-pooled VLM features and proprioception (πRL's V_vlm)."""

    hidden_dims: tuple[int, ...] = (1024, 512, 256)
    lr: float = 1e-4
    extra_steps: int = 0
    """Value-only minibatch steps after each update, on the same rollouts."""


@dataclass
class Recipe:
    """Chunk-level PPO for flow policies, with πRL's settings as defaults (arXiv 2510.25889, LIBERO)."""

    noise: NoiseConfig = field(default_factory=NoiseConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)

    episodes_per_update: int = 512
    max_chunks: int = 64
    """Longest episode in chunks; longer ones are rejected."""
    num_epochs: int = 4
    minibatch_size: int = 2048

    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_ratio: float = 0.2
    aggregation: str = "chunk"
    """What a probability ratio is taken of. ``chunk``: of a whole chunk, πRL's choice; ``action``: of each
    executed action given those before it, all with the chunk's advantage."""
    decoupled: bool = False
    """For stale episodes (Hilton et al. 2022): the ratio, its clipping and the KL stop refer to the policy at
    the start of the update, and points are weighted by how much likelier it makes them than the policy that
    acted. Otherwise all refer to the policy that acted."""
    max_behaviour_weight: float = 5.0
    """Cap of those weights."""
    reference_kl_coef: float = 0.0
    """Weight of the exact KL(π ‖ π at the start of the run) of a chunk, against forgetting."""
    entropy_coef: float = 0.0
    """``noise.mode=flow_noise``, whose standard deviation is learned: weight of the entropy in nats, averaged
    over a chunk's noised numbers as πRL averages it (which takes 0.005)."""
    value_clip: float = 0.2
    huber_delta: float = 10.0
    value_coef: float = 1.0
    normalize_advantages: bool = True
    """Of ``gae``: over all chunks of the batch."""
    advantage: str = "gae"
    """``gae`` with the critic (PPO), or ``group`` without one (GRPO): an episode's return relative to those
    of the same initial state."""
    group_size: int = 1
    """Episodes that an actor plays from one initial state before it goes on to the next."""
    group_return_range: tuple[float, float] = (0.1, 0.9)
    """``group``: groups whose mean return lies outside teach nothing and are dropped, and counted."""

    lr: float = 5e-6
    lr_warmup_steps: int = 0
    """Policy steps over which lr rises from 0. Adam's first step has the full length in every parameter,
    whatever the gradient: unwarmed, it alone may pass ``target_kl``."""
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.0
    grad_clip_norm: float = 1.0
    target_kl: float | None = None
    """Stop the epochs of an update once a minibatch's approximate KL exceeds this."""
    adaptive_lr: bool = False
    """Steer the policy's learning rate by the last update's KL: shrink above ``target_kl``, grow below a
    third of it."""

    max_staleness: int = 2
    """Episodes collected more than this many updates ago are dropped and counted."""
    push_dtype: str = "float32"
    """``float32`` or ``bfloat16``. The pushed (rounded) weights are the behaviour policy."""

    def validate(self) -> None:
        """Raise ``ValueError`` naming the field, the value and the remedy."""
        positive = ("episodes_per_update", "max_chunks", "num_epochs", "minibatch_size", "group_size")
        positive += ("grad_clip_norm", "max_behaviour_weight")
        for name in positive:
            if getattr(self, name) <= 0:
                raise ValueError(f"algorithm.{name} must be positive; got {getattr(self, name)}.")
        if not 0 <= self.noise.correlation < 1:
            raise ValueError(
                f"algorithm.noise.correlation must be in [0, 1); got {self.noise.correlation}. At 1 a "
                "chunk's noise is one number a channel and has no density over its steps."
            )
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"algorithm.{name} must be in [0, 1]; got {getattr(self, name)}.")
        for name in ("max_staleness", "lr_warmup_steps", "reference_kl_coef", "entropy_coef"):
            if getattr(self, name) < 0:
                raise ValueError(f"algorithm.{name} must be ≥ 0; got {getattr(self, name)}.")
        if self.push_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"algorithm.push_dtype must be float32 or bfloat16; got {self.push_dtype!r}.")
        if self.noise.replay not in ("last", "full"):
            raise ValueError(f"algorithm.noise.replay must be last or full; got {self.noise.replay!r}.")
        learned = self.noise.mode == "flow_noise"
        if learned and self.noise.replay != "last":
            raise ValueError(
                "algorithm.noise.replay must be last with noise.mode=flow_noise; got "
                f"{self.noise.replay!r}. Every step's input is kept, so the likelihood is exact already."
            )
        if self.entropy_coef and not learned:
            raise ValueError(
                f"algorithm.entropy_coef={self.entropy_coef} needs noise.mode=flow_noise: with noise.mode="
                f"{self.noise.mode} the entropy is constant. Set it to 0."
            )
        if self.advantage not in ("gae", "group"):
            raise ValueError(f"algorithm.advantage must be gae or group; got {self.advantage!r}.")
        if self.advantage == "group" and (self.group_size < 2 or self.episodes_per_update % self.group_size):
            raise ValueError(
                "algorithm.advantage=group needs algorithm.group_size ≥ 2 that divides "
                f"episodes_per_update={self.episodes_per_update}; got {self.group_size}."
            )
        if self.aggregation not in ("chunk", "action"):
            raise ValueError(f"algorithm.aggregation must be chunk or action; got {self.aggregation!r}.")
        if self.adaptive_lr and self.target_kl is None:
            raise ValueError("algorithm.adaptive_lr needs algorithm.target_kl; set it, e.g. to 0.05.")
