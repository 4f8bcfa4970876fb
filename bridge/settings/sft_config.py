"""LeRobot's training config with the one setting that a policy trained from scratch needs beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import draccus
from lerobot.configs.train import TrainPipelineConfig
from lerobot.policies.xvla.configuration_xvla import XVLAConfig  # noqa: F401 - registers policy.type=xvla

from bridge.plugin.command_line import check_push, pushed_if_asked
from bridge.plugin.tokenizer import settle_tokenizer
from bridge.settings import unused
from bridge.settings.learner_config import check_seed
from bridge.settings.resumed import check_place
from pirl_jax.run_folder.retention import Retention

_SCHEDULES: Mapping[str, Mapping[str, str]] = {
    "cosine_decay_with_warmup": {
        "num_warmup_steps": "warmup_steps",
        "num_decay_steps": "decay_steps",
        "peak_lr": "peak_lr",
        "decay_lr": "decay_lr",
    },
    "cosine_annealing_with_warmup": {"num_warmup_steps": "warmup_steps"},
    "constant_with_warmup": {"num_warmup_steps": "warmup_steps"},
}
"""LeRobot's schedules → their numbers → the same in ``SupervisedOptimizer``."""


@dataclass
class SFTConfig(TrainPipelineConfig):
    """``TrainPipelineConfig`` for ``python -m pirl_jax.sft``."""

    vlm_lr_scale: float = 0.1
    """Learning rate of the VLM relative to ``policy.optimizer_lr``; 1 to train it from scratch."""
    domain_id: int | None = None
    """Which of X-VLA's soft prompts to train and to announce, where no column of the dataset says so for each
    frame; None: the base checkpoint's, else 0."""

    microbatch_size: int | Literal["auto"] = "auto"
    """Frames of a batch that are in work at a time, a divisor of ``batch_size``: it bounds the memory and
    changes nothing else."""
    memory_gb: float | None = None
    """GiB of its device's memory that training may use; null: what there is."""
    checkpoint: Retention = field(default_factory=lambda: Retention(keep_last=0, export="every"))
    """Which of the run's checkpoints stay on disk: all, as LeRobot has it, unless this says otherwise."""

    def validate(self) -> None:
        """Check and complete the config as LeRobot does.

        Raises:
            ValueError: A value is out of range.
            FileExistsError: ``output_dir`` exists and ``resume`` is not set.
        """
        given = unused.Given.of(self)
        with pushed_if_asked(self):
            super().validate()
        check_push(self)
        preset = self.use_policy_training_preset
        idle = unused.IGNORED_WITH_PRESET if preset else unused.IGNORED_WITHOUT_PRESET
        unused.check(self, given, {**unused.IGNORED_IN_SFT, **idle})
        self.optimizer_numbers()
        if self.policy is not None and self.policy.type == "xvla":
            settle_tokenizer(self.policy)
        check_place(self)
        check_seed(self.seed)
        for name in ("steps", "batch_size"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}.")
        size = self.microbatch_size
        if size != "auto" and (isinstance(size, bool) or size < 1 or self.batch_size % size):
            raise ValueError(
                f"microbatch_size must be auto or divide batch_size={self.batch_size}; got {size}."
            )
        if self.memory_gb is not None and not 0 < self.memory_gb < math.inf:
            raise ValueError(f"memory_gb must be above 0, or null for what there is; got {self.memory_gb}.")
        if not 0 <= self.vlm_lr_scale < math.inf:
            raise ValueError(f"vlm_lr_scale must be ≥ 0; got {self.vlm_lr_scale}.")
        domains = getattr(self.policy, "num_domains", None)
        if self.domain_id is not None and not 0 <= self.domain_id < (domains or math.inf):
            raise ValueError(f"domain_id must be in [0, policy.num_domains={domains}); got {self.domain_id}.")

    def optimizer_numbers(self) -> dict[str, Any]:
        """Return what ``optimizer`` and ``scheduler`` say, by ``SupervisedOptimizer``'s names.

        Nothing with ``use_policy_training_preset``: they are then of the policy's config.

        Raises:
            ValueError: They are of a type that X-VLA is not trained with here.
        """
        if self.use_policy_training_preset or self.optimizer is None or self.scheduler is None:
            return {}
        for name, config, known in (
            ("optimizer", self.optimizer, ("xvla-adamw",)),
            ("scheduler", self.scheduler, tuple(_SCHEDULES)),
        ):
            if config.type not in known:
                raise ValueError(
                    f"{name}.type={config.type} is not supported here: X-VLA is trained with "
                    f"{' or '.join(known)}. Set {name}.type, or use_policy_training_preset=true."
                )
        numbers: dict[str, Any] = draccus.encode(self.optimizer)  # pyright: ignore[reportAssignmentType]
        renamed = _SCHEDULES[self.scheduler.type]
        schedule = {ours: getattr(self.scheduler, theirs) for theirs, ours in renamed.items()}
        return {**numbers, "betas": tuple(numbers["betas"]), "schedule_type": self.scheduler.type, **schedule}
