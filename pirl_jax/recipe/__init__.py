"""The PI-RL recipe: every number of the method, independent of the policy and of the environment.

Standard library only: the actor's plugin (torch, no JAX) and the learner read the same definitions. The
plugin's ``algorithm.type=pi_rl`` adds what is of a run and not of the method: where the learner listens, what
it may hold and keep, how it is launched, who may connect.
"""

from pirl_jax.recipe.advantage import AdvantageConfig
from pirl_jax.recipe.critic import CriticConfig
from pirl_jax.recipe.demonstrations import DemonstrationsConfig
from pirl_jax.recipe.launch import LaunchConfig
from pirl_jax.recipe.mesh import MeshConfig
from pirl_jax.recipe.noise import NoiseConfig
from pirl_jax.recipe.objective import ObjectiveConfig
from pirl_jax.recipe.optimizer import OptimizerConfig
from pirl_jax.recipe.push import PushConfig
from pirl_jax.recipe.recipe import Recipe
from pirl_jax.recipe.rollout import RolloutConfig
from pirl_jax.recipe.security import SecurityConfig
from pirl_jax.recipe.serve import ServeConfig
from pirl_jax.recipe.videos import VideosConfig
from pirl_jax.recipe.watchdog import WatchdogConfig

__all__ = [
    "AdvantageConfig",
    "CriticConfig",
    "DemonstrationsConfig",
    "LaunchConfig",
    "MeshConfig",
    "NoiseConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "PushConfig",
    "Recipe",
    "RolloutConfig",
    "SecurityConfig",
    "ServeConfig",
    "VideosConfig",
    "WatchdogConfig",
]
