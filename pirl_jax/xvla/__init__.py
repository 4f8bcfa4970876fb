"""X-VLA (arXiv 2510.10274) in Flax, numerically equal to LeRobot's torch policy."""

from pirl_jax.xvla.actions import ActionSpace, action_space, prepare_proprio, prepare_targets
from pirl_jax.xvla.config import TextConfig, VisionConfig, XVLAConfig
from pirl_jax.xvla.images import normalize_images, resize_with_pad
from pirl_jax.xvla.init import init_params, parameter_shapes
from pirl_jax.xvla.model import BUFFERS, XVLA, Features, Params, generate_actions, sample_times
from pirl_jax.xvla.value import Critic

__all__ = [
    "BUFFERS",
    "XVLA",
    "ActionSpace",
    "Critic",
    "Features",
    "Params",
    "TextConfig",
    "VisionConfig",
    "XVLAConfig",
    "action_space",
    "generate_actions",
    "init_params",
    "normalize_images",
    "parameter_shapes",
    "prepare_proprio",
    "prepare_targets",
    "resize_with_pad",
    "sample_times",
]
