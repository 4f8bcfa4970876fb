"""LeRobot's training config with the one setting that a policy trained from scratch needs beside it."""

from __future__ import annotations

from dataclasses import dataclass

from lerobot.configs.train import TrainPipelineConfig
from lerobot.policies.xvla.configuration_xvla import XVLAConfig  # noqa: F401 - registers policy.type=xvla


@dataclass
class SFTConfig(TrainPipelineConfig):
    """``TrainPipelineConfig`` for ``python -m pirl_jax.sft``."""

    vlm_lr_scale: float = 0.1
    """Learning rate of the VLM relative to ``policy.optimizer_lr``; 1 to train it from scratch."""

    def validate(self) -> None:
        """Check and complete the config as LeRobot does.

        Raises:
            ValueError: A value is out of range.
            FileExistsError: ``output_dir`` exists and ``resume`` is not set.
        """
        super().validate()
        for name in ("steps", "batch_size"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}.")
        if self.vlm_lr_scale < 0:
            raise ValueError(f"vlm_lr_scale must be ≥ 0; got {self.vlm_lr_scale}.")
