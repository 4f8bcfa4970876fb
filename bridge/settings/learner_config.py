"""What the learner reads off a LeRobot config: where the weights are, and the sizes of what will arrive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lerobot.envs.configs import EnvConfig
from lerobot.policies.xvla.configuration_xvla import XVLAConfig as XVLAPolicyConfig
from lerobot.rl.train_rl import TrainRLServerPipelineConfig
from lerobot.utils.constants import OBS_STATE

from bridge.plugin.actor_settings import ActorSettings
from bridge.plugin.command_line import check_push
from bridge.plugin.recipe_config import PiRLConfig
from bridge.settings import unused
from bridge.settings.evaluation import check_evaluation, evaluation_freq
from bridge.settings.resumed import check_place
from bridge.trust.listener import check as check_listening
from bridge.wire.spec import EpisodeSpec
from pirl_jax.likelihood.modes import MODES, num_latents
from pirl_jax.recipe import NoiseConfig
from pirl_jax.xvla.config import XVLAConfig


@dataclass(kw_only=True)
class LearnerConfig(TrainRLServerPipelineConfig):
    """LeRobot's training config as learner and doctor read it: what has no effect there is said."""

    def validate(self) -> None:
        """Check and complete the config as LeRobot does.

        Raises:
            ValueError: A value is out of range, or of a setting that is not supported here.
            FileExistsError: ``output_dir`` exists and ``resume`` is not set.
        """
        given = unused.Given.of(self)
        super().validate()
        recipe = self.algorithm
        if not isinstance(recipe, PiRLConfig):
            return
        check_push(self)
        if self.steps <= 0:
            raise ValueError(f"steps, the updates of the run, must be positive; got {self.steps}.")
        idle = {} if recipe.demonstrations.coef else unused.IGNORED_WITHOUT_DEMONSTRATIONS
        if evaluation_freq(self):
            check_evaluation(self)
        else:
            idle = {**idle, **unused.IGNORED_WITHOUT_EVALUATION}
        unused.check(self, given, {**unused.IGNORED_IN_RL, **idle})
        if recipe.rollout.task_success_range is not None and not getattr(self.env, "task_names", ()):
            raise ValueError(
                f"algorithm.rollout.task_success_range={recipe.rollout.task_success_range} would do nothing: "
                f"the environment ({self.env and self.env.type}) does not tell tasks apart. Unset it."
            )


def check(cfg: TrainRLServerPipelineConfig) -> tuple[XVLAPolicyConfig, PiRLConfig, Path]:
    """Reject what this learner cannot train; return the policy's config, the recipe and the base checkpoint.

    Raises:
        ValueError: Another algorithm, no base checkpoint, no seed, an environment that tokenises
            differently, or a port that would be open to other machines.
    """
    recipe, policy = cfg.algorithm, cfg.policy
    if not isinstance(recipe, PiRLConfig):
        raise ValueError(
            f"this learner trains algorithm.type=pi_rl; got {recipe.type if recipe else None!r}. "
            "For LeRobot's own algorithms run python -m lerobot.rl.learner."
        )
    assert isinstance(policy, XVLAPolicyConfig)  # the recipe has refused any other
    if policy.pretrained_path is None:
        raise ValueError(
            "policy.path is not set. Learner and actors share a frozen encoder that is never sent, so both "
            "must load the same checkpoint: give --policy.path=<folder or hub id> "
            "(python -m pirl_jax.sft makes one)."
        )
    check_listening(recipe.security, recipe.actor_learner_config.learner_host)
    check_place(cfg)
    check_seed(cfg.seed)
    tokenizer = getattr(cfg.env, "tokenizer_name", None)
    if tokenizer not in (None, policy.tokenizer_name):
        raise ValueError(
            f"env.tokenizer_name is {tokenizer!r} but the policy was trained with "
            f"{policy.tokenizer_name!r}; leave env.tokenizer_name unset."
        )
    return policy, recipe, policy.pretrained_path


def check_seed(seed: int | None) -> None:
    """Check LeRobot's ``seed``, which may be absent there.

    Raises:
        ValueError: It is absent or negative.
    """
    if seed is None or not 0 <= seed < 2**32:
        raise ValueError(f"seed must be a number from 0 to 2^32 - 1: all is drawn from it; got {seed}.")


def episode_spec(
    policy: XVLAPolicyConfig,
    config: XVLAConfig,
    noise: NoiseConfig,
    max_chunks: int,
    env: EnvConfig | None = None,
) -> EpisodeSpec:
    """Return the sizes of the episodes that this config's actors send.

    As for LeRobot, what the environment emits counts, not what the policy's features announce.

    Raises:
        ValueError: The camera views differ in size.
    """
    settings = env if isinstance(env, ActorSettings) else None
    features = {key: tuple(feature.shape) for key, feature in (policy.input_features or {}).items()}
    emitted = features if settings is None else settings.observation_shapes
    shapes = {key: emitted[key] for key in config.image_keys if key in emitted}
    if len(set(shapes.values())) > 1:
        raise ValueError(
            f"all camera views must have one size; got {shapes}. Resize them in the environment."
        )
    K = config.num_denoising_steps
    channels, height, width = next(iter(shapes.values()))
    return EpisodeSpec(
        image_keys=tuple(shapes),
        image_shape=(channels, height, width),
        num_tokens=config.tokenizer_max_length,
        proprio_dim=emitted[OBS_STATE][0] if config.use_proprio else 0,
        chunk_size=config.chunk_size,
        n_action_steps=config.n_action_steps,
        env_action_dim=(settings and settings.env_action_dim) or config.real_action_dim,
        action_dim=config.dim_action,
        num_latents=num_latents(noise, K),
        denoise_steps=MODES[noise.mode].first_steps(K),
        max_chunks=max_chunks,
        task_names=settings.task_names if settings else (),
    )
