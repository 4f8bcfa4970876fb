"""``algorithm.demonstrations``: the supervised loss beside RL."""

from __future__ import annotations

from dataclasses import dataclass

from pirl_jax.recipe import ranges


@dataclass
class DemonstrationsConfig:
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

    def __post_init__(self) -> None:
        ranges.check("demonstrations", self)
        if self.final_coef > self.coef or (self.final_coef and not self.decay_updates):
            raise ValueError(
                "algorithm.demonstrations falls from coef to final_coef in decay_updates: final_coef ≤ coef, "
                f"and a final_coef needs decay_updates > 0; got coef={self.coef}, "
                f"final_coef={self.final_coef}, decay_updates={self.decay_updates}."
            )
