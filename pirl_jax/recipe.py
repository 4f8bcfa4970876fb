"""The PI-RL recipe: every number of the method, independent of the policy and of the environment.

Standard library only: the actor's plugin (torch, no JAX) and the learner read the same definitions. The
plugin's ``algorithm.type=pi_rl`` adds only what a LeRobot actor needs to these fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class NoiseConfig:
    """Where the policy's randomness is, which makes its likelihood (``pirl_jax/likelihood/modes.py``)."""

    mode: str = "terminal"
    """One of ``pirl_jax.likelihood.modes.MODES``. ``terminal``: Gaussian on the final action."""
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
    """Factors on the level by group of channels (``pirl_jax.xvla.channels``), e.g. ``{"rot6d": 2.0}``."""
    correlation: float = 0.0
    """ρ in [0, 1): the part of the variance that a chunk's steps share. Noise drawn anew at each step is
    filtered out by the robot's controller; a shared part moves the whole chunk."""
    gripper: str = "deterministic"
    """``deterministic``: gripper logits are executed as predicted and not scored. ``bernoulli``: the gripper
    closes with probability σ(ℓ/τ), drawn once a chunk and scored (``pirl_jax/likelihood/gripper.py``)."""
    gripper_temperature: float = 1.0
    """τ of ``gripper=bernoulli``: above 1 explores more than the policy's own logits say, below 1 less."""


@dataclass
class CriticConfig:
    """V(s): an MLP on features of the policy's networks, to which no gradient flows, and proprioception."""

    input: str = "vlm"
    """``vlm``: the mean of the VLM's output tokens (πRL's V_vlm). ``expert``: the mean of the flow head's
    last hidden states over the chunk's tokens (V_expert), at x_t = 0, t = 1 and the parameters that an update
    begins with: a function of the observation alone, for one head call an observation and update."""
    hidden_dims: tuple[int, ...] = (1024, 512, 256)
    lr: float = 1e-4
    extra_steps: int = 0
    """Value-only minibatch steps after each update, on the same rollouts."""
    warmup_updates: int = 0
    """First updates of a run in which the critic learns alone: a fresh critic's advantages are noise that
    would move the policy all the same."""


@dataclass
class AnchorConfig:
    """The policy's own supervised loss on demonstrations, beside the policy objective: against forgetting.

    They are the config's ``dataset``; with ``coef`` 0 it is not looked at.
    """

    coef: float = 0.0
    """Weight of the loss, which has the units of the policy's supervised training."""
    final_coef: float = 0.0
    """Weight once ``decay_updates`` updates are done."""
    decay_updates: int = 0
    """Updates over which the weight falls linearly from ``coef`` to ``final_coef``; 0: it stays."""
    batch_size: int = 64
    """Frames of each policy step, drawn with replacement."""
    max_samples: int = 1024
    """Frames kept, encoded, in the learner's device memory: a random subset of a larger dataset."""


@dataclass
class Recipe:
    """Chunk-level PPO for flow policies, with πRL's settings as defaults (arXiv 2510.25889, LIBERO)."""

    noise: NoiseConfig = field(default_factory=NoiseConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    anchor: AnchorConfig = field(default_factory=AnchorConfig)

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
    loss_weighting: str = "chunk"
    """``chunk``: all chunks count the same in the losses of policy and critic, and so long episodes more than
    short ones. ``episode``: all episodes do, πRL's choice."""
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
    task_success_range: tuple[float, float] | None = None
    """``gae`` with several tasks: those whose recent success rate lies outside, e.g. of (0.05, 0.95), teach
    nothing. Their episodes are dropped, and counted, until the rate is inside again."""
    task_window: int = 32
    """Episodes of a task that make its recent success rate."""

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
        positive += ("grad_clip_norm", "max_behaviour_weight", "task_window")
        for name in positive:
            if getattr(self, name) <= 0:
                raise ValueError(f"algorithm.{name} must be positive; got {getattr(self, name)}.")
        if not 0 <= self.noise.correlation < 1:
            raise ValueError(
                f"algorithm.noise.correlation must be in [0, 1); got {self.noise.correlation}. At 1 a "
                "chunk's noise is one number a channel and has no density over its steps."
            )
        if self.noise.gripper not in ("deterministic", "bernoulli"):
            raise ValueError(
                f"algorithm.noise.gripper must be deterministic or bernoulli; got {self.noise.gripper!r}."
            )
        if not self.noise.gripper_temperature > 0:
            raise ValueError(
                "algorithm.noise.gripper_temperature must be positive; got "
                f"{self.noise.gripper_temperature}. Use noise.gripper=deterministic for no draw at all."
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
        if self.critic.input not in ("vlm", "expert"):
            raise ValueError(f"algorithm.critic.input must be vlm or expert; got {self.critic.input!r}.")
        for name in ("extra_steps", "warmup_updates"):
            if getattr(self.critic, name) < 0:
                raise ValueError(f"algorithm.critic.{name} must be ≥ 0; got {getattr(self.critic, name)}.")
        anchor = self.anchor
        if not 0 <= anchor.final_coef <= anchor.coef or (anchor.final_coef and not anchor.decay_updates):
            raise ValueError(
                "algorithm.anchor falls from coef to final_coef in decay_updates: 0 ≤ final_coef ≤ coef, and "
                f"a final_coef needs decay_updates > 0; got coef={anchor.coef}, "
                f"final_coef={anchor.final_coef}, decay_updates={anchor.decay_updates}."
            )
        if anchor.decay_updates < 0:
            raise ValueError(f"algorithm.anchor.decay_updates must be ≥ 0; got {anchor.decay_updates}.")
        for name in ("batch_size", "max_samples"):
            if getattr(anchor, name) <= 0:
                raise ValueError(f"algorithm.anchor.{name} must be positive; got {getattr(anchor, name)}.")
        if self.advantage == "group" and self.critic.warmup_updates:
            raise ValueError(
                f"algorithm.critic.warmup_updates={self.critic.warmup_updates} would do nothing: "
                "advantage=group has no critic. Set it to 0, or advantage=gae."
            )
        if self.task_success_range is not None:
            low, high = self.task_success_range
            if not 0 <= low < high <= 1:
                raise ValueError(
                    "algorithm.task_success_range must be two rates, 0 ≤ low < high ≤ 1; got "
                    f"{self.task_success_range}."
                )
            if self.advantage == "group":
                raise ValueError(
                    "algorithm.task_success_range is for advantage=gae; with advantage=group, "
                    "group_return_range leaves out what teaches nothing. Unset it."
                )
        if self.aggregation not in ("chunk", "action"):
            raise ValueError(f"algorithm.aggregation must be chunk or action; got {self.aggregation!r}.")
        if self.loss_weighting not in ("chunk", "episode"):
            raise ValueError(
                f"algorithm.loss_weighting must be chunk or episode; got {self.loss_weighting!r}."
            )
        if self.adaptive_lr and self.target_kl is None:
            raise ValueError("algorithm.adaptive_lr needs algorithm.target_kl; set it, e.g. to 0.05.")
